# The CSI driver as k3s installs it: a HelmChart with our chart inside, so that no chart repository is asked. No secret is in it.
{ lib
, namespace ? "kube-system"
, driverName ? "csi.ciderfs.io"
  # A Secret with the keys of the official driver, made by `ciderfs k8s-secret --apply`.
, existingSecret ? "juicefs-sc-secret"
  # The chart's own Redis for the metadata of these volumes, with a Secret that has redis-password; null for none.
, redisSecret ? "ciderfs-csi-redis"
  # More of the chart, or other.
, values ? { }
}:
let
  # Made from deploy/helm/ciderfs-csi by deploy/kubernetes/render.sh; Nix cannot pack it by itself.
  lines = lib.splitString "\n" (builtins.readFile ../../kubernetes/k3s.yaml);
  field = "  chartContent: ";
  chartContent = lib.removePrefix field (lib.head (lib.filter (lib.hasPrefix field) lines));

  ours = {
    inherit driverName;
    storageClasses = [{
      name = "juicefs-sc";
      enabled = true;
      # The only default class of the cluster: see docs/kubernetes.md for that of k3s.
      isDefault = true;
      reclaimPolicy = "Retain";
      allowVolumeExpansion = true;
      inherit existingSecret;
    }];
  } // lib.optionalAttrs (redisSecret != null) {
    redis = { enabled = true; existingSecret = redisSecret; };
  };
in
{
  apiVersion = "helm.cattle.io/v1";
  kind = "HelmChart";
  metadata = { name = "ciderfs-csi"; inherit namespace; };
  spec = {
    inherit chartContent;
    targetNamespace = namespace;
    # A failed upgrade is not uninstalled.
    failurePolicy = "abort";
    # JSON is YAML.
    valuesContent = builtins.toJSON (lib.recursiveUpdate ours values);
  };
}
