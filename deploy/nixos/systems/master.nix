# The master: Redis with the metadata, the volume, k3s without pods of its own.
{ ... }:
let
  net = import ./network-config.nix;
  passwordFile = "/etc/juicefs/redis-password";
in
{
  imports = [ ../modules/common.nix ../modules/k3s-manifests.nix ];

  networking.hostName = "master";

  services.ciderfs = {
    nodeRole = "master";
    metadata.redis = {
      enable = true;
      name = "juicefs";
      bind = [ "127.0.0.1" net.masterIp ];
      port = 6379;
      inherit passwordFile;
      firewallInterfaces = [ net.interface ];
    };
    filesystems.k3s-storage = {
      metaUrl = "redis://127.0.0.1:6379/1";
      metaPasswordFile = passwordFile;
      format.mode = "if-absent";
      cache.sizeMiB = 1024;
    };
    # Volumes of pods, with a Redis of their own: docs/kubernetes.md says which Secrets they need.
    k3s.enable = true;
  };

  services.k3s = {
    enable = true;
    role = "server";
    disableAgent = true;
    tokenFile = "/etc/rancher/k3s/token";
  };
  networking.firewall.interfaces.${net.interface}.allowedTCPPorts = [ 6443 ];
}
