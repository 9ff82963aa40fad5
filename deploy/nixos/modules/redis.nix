# `services.ciderfs.metadata.redis`: the Redis that has the metadata, as safe as metadata must be. What it loses, the volumes lose.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.ciderfs.metadata.redis;
  isLoopback = address: lib.elem address [ "::1" "localhost" ] || lib.hasPrefix "127." address;
  exposed = lib.filter (a: !isLoopback a) cfg.bind;
  inStore = f: f != null && (lib.hasPrefix "${builtins.storeDir}/" (toString f) || lib.hasPrefix "/nix/store/" (toString f));
in
{
  options.services.ciderfs.metadata.redis = {
    enable = lib.mkEnableOption "the Redis server that has the metadata";
    name = mkOption {
      type = types.strMatching "[A-Za-z0-9_-]+";
      default = "ciderfs";
      description = "Name of the server; its unit is redis-NAME.service.";
    };
    bind = mkOption {
      type = types.listOf types.str;
      default = [ "127.0.0.1" ];
      description = "Addresses to listen at. Beyond this machine a password is needed.";
    };
    port = mkOption {
      type = types.port;
      default = 6379;
      description = "Port to listen at.";
    };
    passwordFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      description = "File with the password of clients.";
    };
    appendOnly = mkOption {
      type = types.bool;
      default = true;
      description = "Write every change to the append-only file.";
    };
    appendFsync = mkOption {
      type = types.enum [ "always" "everysec" ];
      default = "everysec";
      description = "When that file is synced: before each answer, or once a second, which may lose a second when the machine dies.";
    };
    maxmemoryPolicy = mkOption {
      type = types.str;
      default = "noeviction";
      description = "What Redis does when memory is short. Anything but noeviction loses metadata.";
    };
    firewallInterfaces = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Interfaces on which the firewall lets clients in.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = exposed == [ ] || cfg.passwordFile != null;
        message = "services.ciderfs.metadata.redis: it listens at ${lib.concatStringsSep ", " exposed}, beyond this machine: set `passwordFile`, or everybody on the network can read and destroy the volumes";
      }
      {
        assertion = cfg.bind != [ ];
        message = "services.ciderfs.metadata.redis: `bind` is empty, which Redis takes for every address of the machine: name the addresses";
      }
      {
        assertion = cfg.appendOnly;
        message = "services.ciderfs.metadata.redis: without `appendOnly` a restart loses metadata, and with it the data: leave it on";
      }
      {
        assertion = cfg.maxmemoryPolicy == "noeviction";
        message = "services.ciderfs.metadata.redis: `maxmemoryPolicy` ${cfg.maxmemoryPolicy} throws metadata away when memory is short: use noeviction";
      }
      {
        assertion = !inStore cfg.passwordFile;
        message = "services.ciderfs.metadata.redis: `passwordFile` is in the Nix store, where everybody can read it: name a file outside as a string";
      }
      {
        assertion = cfg.firewallInterfaces == [ ] || exposed != [ ];
        message = "services.ciderfs.metadata.redis: `firewallInterfaces` lets clients in, but `bind` has addresses of this machine only: add the one that clients use";
      }
    ];

    services.redis.servers.${cfg.name} = {
      enable = true;
      bind = lib.concatStringsSep " " cfg.bind;
      inherit (cfg) port appendOnly appendFsync;
      requirePassFile = cfg.passwordFile;
      openFirewall = false;
      settings = {
        maxmemory-policy = cfg.maxmemoryPolicy;
        protected-mode = "yes";
      };
    };
    # An address that is not there yet at boot.
    systemd.services."redis-${cfg.name}" = lib.mkIf (exposed != [ ]) {
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
    };
    networking.firewall.interfaces = lib.genAttrs cfg.firewallInterfaces (_: { allowedTCPPorts = [ cfg.port ]; });
  };
}
