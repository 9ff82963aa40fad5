# An agent: the master's Redis over the network, a larger cache. It never makes the volume.
{ ... }:
let
  net = import ./network-config.nix;
in
{
  imports = [ ../modules/common.nix ];

  networking.hostName = "agent";

  services.ciderfs = {
    nodeRole = "agent";
    filesystems.k3s-storage = {
      metaUrl = "redis://${net.masterIp}:6379/1";
      metaPasswordFile = "/etc/juicefs/redis-password";
      cache.sizeMiB = 2048;
    };
  };

  services.k3s = {
    enable = true;
    role = "agent";
    serverAddr = "https://${net.masterIp}:6443";
    tokenFile = "/etc/rancher/k3s/token";
  };
}
