# Of an example cluster; change it for yours.
{
  masterIp = "10.0.0.1";
  # The interface of the private network.
  interface = "eth1";
  # OVHcloud: see ../modules/lib/ovh-regions.nix.
  region = "gra";
  bucket = "juicefs-k3s";
}
