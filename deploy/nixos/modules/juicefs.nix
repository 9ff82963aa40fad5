# `services.juicefs.filesystems.<name>`, as an older module of others had it: each becomes one of `services.ciderfs`.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.juicefs;
  opt = type: default: description: mkOption { inherit type default description; };
  file = description: opt (types.nullOr types.path) null description;
  text = description: opt (types.nullOr types.str) null description;

  # Those lists went through a shell, which took "--cache-size 1024" for two words.
  flags = list: lib.filter (w: w != "") (lib.concatMap (lib.splitString " ") list);
  isBackground = w: lib.elem w [ "--background" "-d" "--background=true" ];
  # Left to the client where it is none of ours to say.
  isUrl = url: lib.hasInfix "://" url;
in
{
  imports = [ ./ciderfs.nix ];

  options.services.juicefs = {
    enable = lib.mkEnableOption "JuiceFS file systems, served by CiderFS";
    filesystems = mkOption {
      default = { };
      description = "File systems by the name of their volume.";
      type = types.attrsOf (types.submodule {
        options = {
          metaUrl = opt types.str "" "Address of the metadata; empty where the environment file has it.";
          storage = opt types.str "s3" "Kind of object store.";
          bucket = text "Bucket.";
          endpoint = text "Address of the object store.";
          accessKey = text "Refused: everybody could read it in the Nix store.";
          secretKey = text "Refused: everybody could read it in the Nix store.";
          accessKeyFile = file "File with the access key.";
          secretKeyFile = file "File with the secret key.";
          environmentFile = file "File with ACCESS_KEY, SECRET_KEY, ENDPOINT, BUCKET and REDIS_URL.";
          mountPoint = opt types.path "/mnt/juicefs" "Where it is mounted.";
          formatOnce = opt types.bool false "Make the volume if it is absent.";
          mountOptions = opt (types.listOf types.str) [ ] "Flags of the mount.";
        };
      });
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = lib.mapAttrsToList
      (name: fs: {
        assertion = fs.accessKey == null && fs.secretKey == null;
        message = "services.juicefs.filesystems.${name}: `accessKey` and `secretKey` would be in the Nix store, where everybody can read them: use `accessKeyFile` and `secretKeyFile`, or `environmentFile`";
      })
      cfg.filesystems;
    warnings = lib.concatLists (lib.mapAttrsToList
      (name: fs: lib.optional (lib.any isBackground (flags fs.mountOptions))
        "services.juicefs.filesystems.${name}: --background is left out, systemd runs the client.")
      cfg.filesystems);

    services.ciderfs.enable = true;
    services.ciderfs.filesystems = lib.mapAttrs
      (_: fs: {
        metaUrl = if fs.metaUrl == "" then null else fs.metaUrl;
        storage = {
          type = fs.storage;
          inherit (fs) bucket endpoint accessKeyFile secretKeyFile;
          # Both styles work with the stores of OVHcloud and AWS; the official client knows the region of this one only.
          addressing =
            if fs.endpoint != null && builtins.match ".*\\.(ovh\\.net|amazonaws\\.com)(/.*)?" fs.endpoint != null
              && fs.bucket != null && !isUrl fs.bucket && !lib.hasInfix "." fs.bucket
            then "virtual" else "auto";
        };
        environmentFile = lib.optional (fs.environmentFile != null) fs.environmentFile;
        mountPoint = toString fs.mountPoint;
        inherit (fs) formatOnce;
        mountOptions = lib.filter (w: !isBackground w) (flags fs.mountOptions);
      })
      cfg.filesystems;
    # The units by the names that they had.
    systemd.services = lib.mapAttrs' (name: _: lib.nameValuePair "ciderfs-${name}" { aliases = [ "juicefs-${name}.service" ]; }) cfg.filesystems;
  };
}
