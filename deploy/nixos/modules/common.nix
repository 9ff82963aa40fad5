# What masters and agents have in common.
{ lib, pkgs, ... }:
let
  net = import ../systems/network-config.nix;
in
{
  imports = [ ./ciderfs.nix ./juicefs.nix ];

  environment.systemPackages = [ pkgs.redis pkgs.attr pkgs.acl ];
  # Object stores refuse requests of clients whose clock is wrong.
  services.timesyncd.enable = lib.mkDefault true;
  networking.firewall.enable = lib.mkDefault true;

  services.ciderfs = {
    enable = true;
    # The secrets of a node: root's, mode 0600, from deploy/env/ciderfs.env.example.
    defaults.environmentFile = [ "/etc/juicefs/config" ];
    filesystems.k3s-storage = {
      storage = {
        preset = "ovhcloud";
        inherit (net) region bucket;
      };
      mountPoint = "/mnt/juicefs";
      cache = {
        dirs = [ "/var/cache/juicefs" ];
        # Acknowledges writes before they are uploaded: switched on once the client has its journal.
        # writeback = true;
      };
      # Whoever loses the metadata loses the data: switched on once the client makes backups of it. Until then back up Redis.
      # backupMeta.interval = "1h";
      transfer.maxUploads = 20;
      # Wants the mount and starts after it; it runs on when the client restarts.
      consumers = [ "k3s.service" ];
    };
  };

  networking.firewall.interfaces.${net.interface} = {
    # Kubelet.
    allowedTCPPorts = [ 10250 ];
    # Flannel.
    allowedUDPPorts = [ 8472 ];
  };
}
