# Where the objects of a file system are: what a preset makes of region, tier and bucket.
{ lib }:
let
  regions = import ./ovh-regions.nix;

  withScheme = url: if lib.hasInfix "://" url then url else "https://${url}";

  # The URL of a bucket at an endpoint, in one of the two styles.
  bucketUrl = { endpoint, bucket, virtual }:
    let
      m = builtins.match "([a-z]+://)(.*)" (lib.removeSuffix "/" (withScheme endpoint));
      scheme = builtins.elemAt m 0;
      host = builtins.elemAt m 1;
    in
    if virtual then "${scheme}${bucket}.${host}" else "${scheme}${host}/${bucket}";
in
{
  inherit regions;

  endpointOf = preset: region:
    if region == null then null
    else if preset == "ovhcloud" then "https://s3.${region}.io.cloud.ovh.net"
    else if preset == "aws" then "https://s3.${region}.amazonaws.com${lib.optionalString (lib.hasPrefix "cn-" region) ".cn"}"
    else null;

  # What stands after --bucket; null where only the environment knows.
  bucket = s:
    let
      # A certificate of *.host covers no bucket with a dot.
      auto = builtins.elem s.preset [ "ovhcloud" "aws" ] && !lib.hasInfix "." s.bucket;
      virtual = s.addressing == "virtual" || (s.addressing == "auto" && auto);
    in
    if s.bucket == null || s.endpoint == null || lib.hasInfix "://" s.bucket || lib.hasPrefix "/" s.bucket then s.bucket
    else bucketUrl { inherit (s) endpoint bucket; inherit virtual; };

  # The class of objects of a tier; the plain one needs no header.
  storageClass = s: if s.preset == "ovhcloud" && s.tier == "high-performance" then "EXPRESS_ONEZONE" else null;

  # The old product, in front of Swift.
  isOldEndpoint = url: url != null && builtins.match "(.*[/.])?s3\\.[a-z0-9-]+\\.cloud\\.ovh\\.net(/.*)?" url != null;
}
