# What a k3s server installs by itself: the CSI driver with the class juicefs-sc.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.ciderfs.k3s;
  opt = type: default: description: mkOption { inherit type default description; };
  label = types.strMatching "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";
  manifest = import ../manifests/juicefs.nix {
    inherit lib;
    inherit (cfg) namespace driverName existingSecret values;
    redisSecret = if cfg.redis.enable then cfg.redis.existingSecret else null;
  };
  # A secret would be in the Nix store, where everybody can read it.
  classes = cfg.values.storageClasses or [ ];
  hasSecret = (cfg.values.redis.password or "") != "" || lib.any (c: (c.backend or { }) != { }) classes;
in
{
  options.services.ciderfs.k3s = {
    enable = lib.mkEnableOption "the CSI driver of CiderFS in this cluster; on one server is enough";
    namespace = opt label "kube-system" "Where its parts run.";
    driverName = opt (types.strMatching "[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?") "csi.ciderfs.io"
      "Name of the driver; csi.juicefs.com for volumes that the official driver has made.";
    existingSecret = opt label "juicefs-sc-secret" "Secret of the class juicefs-sc, from `ciderfs k8s-secret --from-env-file FILE --apply`.";
    redis = {
      enable = opt types.bool true "A Redis in the cluster for the metadata of these volumes alone. Without it the Secret names another engine.";
      existingSecret = opt label "ciderfs-csi-redis" "Secret with the key redis-password.";
    };
    image = opt (types.nullOr types.path) null
      "The image of CiderFS as an archive (`cargo xtask image`), for this node; null where a registry has it. Agents set services.k3s.images.";
    values = opt types.attrs { } "Further values of the chart, or other ones.";
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = config.services.k3s.enable && config.services.k3s.role == "server";
        message = "services.ciderfs.k3s: manifests are for a k3s server; set it on one of those";
      }
      {
        assertion = !hasSecret;
        message = "services.ciderfs.k3s.values: `redis.password` and `storageClasses.*.backend` would be in the Nix store, where everybody can read them: use `existingSecret`, and `ciderfs k8s-secret`";
      }
    ];
    services.k3s.manifests.ciderfs-csi.content = manifest;
    services.k3s.images = lib.optional (cfg.image != null) cfg.image;
  };
}
