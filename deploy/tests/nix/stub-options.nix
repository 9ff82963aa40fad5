# As much of NixOS as the modules here set, with types as there.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  opt = type: default: mkOption { inherit type default; };
  list = opt (types.listOf types.str) [ ];
  ports = opt (types.listOf types.port) [ ];
  free = opt (types.attrsOf types.anything) { };
  interface = { options = { allowedTCPPorts = ports; allowedUDPPorts = ports; }; };
in
{
  options = {
    assertions = opt (types.listOf types.anything) [ ];
    warnings = list;
    environment.systemPackages = opt (types.listOf types.package) [ ];
    system.fsPackages = opt (types.listOf types.package) [ ];
    system.stateVersion = opt types.str "";
    boot = {
      kernelModules = list;
      loader.systemd-boot.enable = opt types.bool false;
    };
    fileSystems = free;
    nixpkgs = { hostPlatform = opt types.str ""; overlays = opt (types.listOf types.anything) [ ]; };
    networking = {
      hostName = opt types.str "";
      firewall = {
        enable = opt types.bool true;
        allowedTCPPorts = ports;
        interfaces = opt (types.attrsOf (types.submodule interface)) { };
      };
    };
    services = {
      timesyncd.enable = opt types.bool false;
      k3s = {
        enable = opt types.bool false;
        role = opt (types.enum [ "server" "agent" ]) "server";
        disableAgent = opt types.bool false;
        serverAddr = opt types.str "";
        tokenFile = opt (types.nullOr types.path) null;
        images = opt (types.listOf types.package) [ ];
        manifests = opt (types.attrsOf (types.submodule { options.content = opt (types.nullOr (types.either types.attrs (types.listOf types.attrs))) null; })) { };
      };
      redis.servers = opt
        (types.attrsOf (types.submodule {
          options = {
            enable = opt types.bool false;
            bind = opt (types.nullOr types.str) "127.0.0.1";
            port = opt types.port 0;
            requirePassFile = opt (types.nullOr types.path) null;
            appendOnly = opt types.bool false;
            appendFsync = opt types.str "everysec";
            openFirewall = opt types.bool false;
            settings = free;
          };
        }))
        { };
    };
    systemd.tmpfiles = { rules = list; settings = free; };
    systemd.services = opt
      (types.attrsOf (types.submodule {
        options = {
          description = opt types.str "";
          after = list;
          before = list;
          wants = list;
          requires = list;
          bindsTo = list;
          wantedBy = list;
          requiredBy = list;
          aliases = list;
          environment = opt (types.attrsOf types.str) { };
          path = opt (types.listOf types.package) [ ];
          restartIfChanged = opt types.bool true;
          stopIfChanged = opt types.bool true;
          unitConfig = free;
          serviceConfig = free;
        };
      }))
      { };
  };
}
