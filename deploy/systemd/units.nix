# The plain unit files of this directory, by name. An instance is a mount point as `systemd-escape --path` writes it; its settings
# are in /etc/ciderfs/MOUNTPOINT.env (systemd reads the path as a pattern, in which the backslashes of instances mean something else), see
# ciderfs.env.example.
let
  lib = import ../tests/nix/lib.nix;
  units = import ../nixos/modules/lib/units.nix { inherit lib; };
  render = import ../nixos/modules/lib/render.nix { inherit lib; };
  instance = {
    label = "%f";
    formatUnit = "ciderfs-format@%i.service";
    guardUnit = "ciderfs-guard@%i.service";
    searches = true;
    mountFlags = "--cache-dir \${CACHE_DIR} $MOUNT_OPTIONS";
    formatFlags = "$FORMAT_OPTIONS @BUCKET@";
    volume = "\${VOLUME}";
    environmentFiles = [ "/etc/ciderfs%f.env" ];
    # Files of /etc/credstore, each of which may be absent.
    credentials = map (id: "${id}:ciderfs.%i.${id}") [
      "access-key"
      "encrypt-passphrase"
      "meta-password"
      "meta-url"
      "secret-key"
      "session-token"
    ];
    cacheDirectories = [ "ciderfs%f" ];
    # Of this machine, if it has one.
    after = [ "redis-server.service" "redis.service" "valkey-server.service" "valkey.service" ];
  };
  head = "# Made from deploy/nixos/modules/lib/units.nix by deploy/systemd/generate.sh; change it there.\n";
  files = {
    "ciderfs@.service" = units.mount (instance // {
      formatUnit = null;
      environment = { CACHE_DIR = "/var/cache/ciderfs%f"; MOUNT_OPTIONS = ""; };
      before = [ "remote-fs.target" "k3s.service" "k3s-agent.service" ];
      wantedBy = [ "multi-user.target" "remote-fs.target" ];
    });
    # Enabling it on one node makes the volume before that node mounts it.
    "ciderfs-format@.service" = units.format (instance // {
      starts = "ciderfs@%i.service";
      environment = { FORMAT_OPTIONS = ""; VOLUME = "%i"; };
    }) // { requiredBy = [ "ciderfs@%i.service" ]; before = [ "ciderfs@%i.service" ]; };
    "ciderfs-guard@.service" = units.guard (instance // { before = [ "ciderfs@%i.service" "remote-fs.target" ]; });
  };
in
lib.mapAttrs (_: unit: head + render unit) files
