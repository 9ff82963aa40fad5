# The units of the example machines for the boot test: addresses of the test's network, an encrypted volume, and an agent that has its
# keys in files of their own. What NixOS itself would make of Redis and k3s is done here.
let
  lib = import ../nix/lib.nix;
  render = import ../../nixos/modules/lib/render.nix { inherit lib; };
  here = {
    services.ciderfs.filesystems.k3s-storage = {
      format.encryption.passphraseFile = "/etc/juicefs/passphrase";
      metrics.enable = false;
    };
  };
  master = {
    services.ciderfs = {
      metadata.redis.bind = lib.mkForce [ "127.0.0.1" "10.99.0.1" ];
      filesystems.k3s-storage.format.encryption.keyFile = "/etc/juicefs/volume.pem";
    };
  };
  agent = {
    services.ciderfs.filesystems.k3s-storage = {
      metaUrl = lib.mkForce "redis://10.99.0.1:6379/1";
      storage.accessKeyFile = "/etc/juicefs/access-key";
      storage.secretKeyFile = "/etc/juicefs/secret-key";
    };
  };
  wellBuilt = e: if e.failed == [ ] then e else throw (lib.concatStringsSep "; " e.failed);
  eval = modules: wellBuilt (import ../nix/eval.nix { modules = modules ++ [ here ]; });

  redisOf = e: lib.mapAttrs'
    (name: r: lib.nameValuePair "redis-${name}.service" (render ((e.config.systemd.services."redis-${name}" or { }) // {
      description = "Redis ${name}";
      environment = { };
      serviceConfig = {
        LoadCredential = "password:${r.requirePassFile}";
        StateDirectory = "redis-${name}";
        RuntimeDirectory = "redis-${name}";
        UMask = "0077";
        ExecStart = "/bin/sh -c 'echo requirepass $$(cat $$CREDENTIALS_DIRECTORY/password) >/run/redis-${name}/secret.conf;"
          + " exec redis-server /run/redis-${name}/secret.conf --dir /var/lib/redis-${name} --bind ${r.bind} --port ${toString r.port}"
          + " --appendonly ${if r.appendOnly then "yes" else "no"} --appendfsync ${r.appendFsync}"
          + " --maxmemory-policy ${r.settings.maxmemory-policy} --save \"\"'";
        Restart = "always";
        RestartSec = 2;
      };
    })))
    e.config.services.redis.servers;
  k3sOf = e: {
    "k3s.service" = render (e.config.systemd.services.k3s // {
      description = "k3s, or what stands for it";
      wantedBy = [ "multi-user.target" ];
      serviceConfig = { ExecStart = "/bin/sleep infinity"; };
    });
  };
  unitsOf = e: e.units // redisOf e // k3sOf e;
in
{
  master = unitsOf (eval [ ../../nixos/systems/master.nix master ]);
  agent = unitsOf (eval [ ../../nixos/systems/agent.nix agent ]);
}
