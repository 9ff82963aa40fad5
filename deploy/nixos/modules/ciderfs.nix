# `services.ciderfs`: file systems of this machine, each with its units.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.ciderfs;
  storage = import ./lib/storage.nix { inherit lib; };
  fsOptions = import ./lib/options.nix { inherit lib; };
  describe = import ./lib/filesystem.nix { inherit lib cfg pkgs; redis = cfg.metadata.redis; };

  filesystem = { config, ... }: {
    options = fsOptions;
    config = lib.mkMerge [
      # Stronger than what a preset says, weaker than what is said of this file system.
      (lib.mapAttrsRecursive (_: lib.mkOverride 900) cfg.defaults)
      (lib.mkIf (config.formatOnce != null) {
        format.mode = lib.mkDefault (if config.formatOnce then "if-absent" else "never");
      })
      (lib.mkIf (config.storage.preset != null) {
        storage.endpoint = lib.mkDefault (storage.endpointOf config.storage.preset config.storage.region);
        # Rates of a bucket grow with the prefixes in use.
        storage.hashPrefix = lib.mkDefault (config.storage.preset == "ovhcloud");
        storage.type = lib.mkDefault (if config.storage.preset == "minio" then "minio" else "s3");
      })
    ];
  };

  enabled = lib.mapAttrs describe (lib.filterAttrs (_: fs: fs.enable) cfg.filesystems);
  all = lib.attrValues enabled;

  # Values that several file systems name, with the names of those.
  shared = valuesOf:
    let
      pairs = lib.concatLists (lib.mapAttrsToList (name: fs: map (v: { inherit name; value = toString v; }) (lib.unique (valuesOf name fs))) enabled);
      others = p: lib.filter (q: q.value == p.value) pairs;
    in
    lib.unique (map (p: "${p.value} (${lib.concatMapStringsSep ", " (q: q.name) (others p)})")
      (lib.filter (p: lib.length (others p) > 1) pairs));
  distinct = valuesOf: what:
    let twice = shared valuesOf; in {
      assertion = twice == [ ];
      message = "services.ciderfs: file systems share ${what}: ${lib.concatStringsSep "; " twice}. Give each its own";
    };
in
{
  imports = [ ./redis.nix ];

  options.services.ciderfs = {
    enable = lib.mkEnableOption "CiderFS file systems";
    package = mkOption {
      type = types.package;
      default = pkgs.ciderfs or (pkgs.callPackage ../package.nix { });
      defaultText = lib.literalExpression "pkgs.ciderfs, or built from this source";
      description = "The client.";
    };
    nodeRole = mkOption {
      type = types.nullOr (types.enum [ "master" "agent" ]);
      default = null;
      description = "What this machine is in its cluster, for advice only.";
    };
    log.level = mkOption {
      type = types.nullOr (types.enum [ "trace" "debug" "info" "warn" "error" ]);
      default = null;
      description = "What the client writes to the journal.";
    };
    defaults = mkOption {
      type = types.attrs;
      default = { };
      example = { storage = { preset = "ovhcloud"; region = "gra"; }; };
      description = "Options of every file system that does not set them itself.";
    };
    filesystems = mkOption {
      type = types.attrsOf (types.submodule filesystem);
      default = { };
      description = "File systems by name, which is that of the volume too.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = lib.concatMap (fs: fs.assertions) all ++ [
      {
        assertion = lib.all (n: builtins.match "[A-Za-z0-9_.-]+" n != null) (lib.attrNames enabled);
        message = "services.ciderfs: names of file systems are names of units: use A-Z, a-z, 0-9, _, . and -";
      }
      (distinct (name: fs: lib.optional fs.mounts cfg.filesystems.${name}.mountPoint) "a mount point")
      (distinct (name: fs: lib.optionals fs.mounts fs.cacheDirs) "a cache directory")
      (distinct (name: fs: let m = cfg.filesystems.${name}.metrics; in lib.optional (fs.mounts && m.enable && m.address != null) m.address)
        "an address of metrics")
    ];
    warnings = lib.concatMap (fs: fs.warnings) all;

    environment.systemPackages = [ cfg.package ];
    # mount(8) finds mount.ciderfs there.
    system.fsPackages = [ cfg.package ];
    boot.kernelModules = [ "fuse" ];
    networking.firewall.allowedTCPPorts = lib.concatMap (fs: fs.ports) all;

    systemd.services = lib.mkMerge (
      map (fs: fs.services) all
      # A consumer starts after the mount, and runs on when the client restarts: it only wants it.
      ++ lib.concatMap
        (fs: map
          (consumer: {
            ${lib.removeSuffix ".service" consumer} = {
              wants = [ fs.service ];
              after = [ fs.service fs.mountUnit ];
            };
          })
          fs.consumers)
        all
    );
  };
}
