# The options of one file system of `services.ciderfs`.
{ lib }:
let
  inherit (lib) mkOption types;
  storage = import ./storage.nix { inherit lib; };
  of = type: default: description: mkOption { inherit type default description; };
  opt = type: description: of (types.nullOr type) null description;
  switch = default: description: of types.bool default description;
  toList = v: if builtins.isList v then v else [ v ];
  unitName = types.strMatching "[A-Za-z0-9@_.:-]+\\.(service|target|mount|socket|path)";

  # A front door besides the mount.
  door = what: default: {
    enable = switch false "Serve the file system by ${what} too. The client's command comes with a later version.";
    address = of types.str default "Where to listen, `HOST:PORT`.";
    environmentFile = opt types.path "File with the credentials of those who come in, as the command reads them from its environment.";
    openFirewall = switch false "Open the port to everybody.";
  };
in
{
  enable = switch true "Does this machine have the file system?";
  volume = opt types.str "Name of the volume; that of the attribute if not given.";
  subdir = opt types.str "Mount this directory of the volume.";
  readOnly = switch false "Refuse every change.";

  metaUrl = opt types.str "Address of the metadata, without a password.";
  metaUrlFile = opt types.path "File with that address, which may hold a password.";
  metaPasswordFile = opt types.path "File with the password of the metadata server. Without an environment file that of `metadata.redis` is taken, where this is meant.";
  environmentFile = mkOption {
    type = types.either types.path (types.listOf types.path);
    default = [ ];
    apply = toList;
    description = ''
      Files of NAME=VALUE lines for root's eyes: ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, REGION, META_PASSWORD. Where the options
      leave them out also META_URL or REDIS_URL, and BUCKET with ENDPOINT.
    '';
  };

  storage = {
    type = of types.str "s3" "Kind of object store, as `ciderfs format --storage` names it.";
    preset = opt (types.enum [ "ovhcloud" "aws" "minio" ]) "Fills in the endpoint and what suits the store.";
    region = opt types.str "Region that requests are signed for.";
    tier = of (types.enum [ "standard" "high-performance" ]) "standard" "Tier of OVHcloud that takes the objects.";
    bucket = opt types.str "Name of the bucket, its URL, or a directory.";
    endpoint = opt types.str "Address of the object store; the preset knows it.";
    addressing = of (types.enum [ "auto" "virtual" "path" ]) "auto" "Is the bucket in the host's name or in the path?";
    accessKeyFile = opt types.path "File with the access key.";
    secretKeyFile = opt types.path "File with the secret key.";
    sessionTokenFile = opt types.path "File with the session token.";
    hashPrefix = switch false "Spread object names over 256 prefixes.";
  };

  format = {
    mode = of (types.enum [ "never" "if-absent" ]) "never" ''
      Make the volume if it is absent. One node of a cluster does.
    '';
    blockSizeKiB = opt (types.ints.between 64 16384) "Size of blocks.";
    compression = opt (types.enum [ "none" "lz4" "zstd" ]) "Compression of blocks.";
    capacityGiB = opt types.ints.unsigned "Limit of space, 0 for none.";
    inodes = opt types.ints.unsigned "Limit of inodes, 0 for none.";
    trashDays = opt types.ints.unsigned "Days that removed files stay in the trash.";
    acl = switch false "POSIX ACLs.";
    encryption = {
      keyFile = opt types.path "Private key (PEM) that encrypts the objects; the volume keeps it, protected by its passphrase.";
      passphraseFile = opt types.path "File with the passphrase of that key. Every node needs it.";
      algorithm = opt (types.enum [ "aes256gcm-rsa" "chacha20-rsa" ]) "How objects are encrypted.";
    };
    extraArgs = of (types.listOf types.str) [ ] "More flags of `ciderfs format`.";
  };
  formatOnce = opt types.bool "The same as `format.mode`: true is if-absent, false is never.";

  mountPoint = opt (types.strMatching "/[A-Za-z0-9_./:-]*[A-Za-z0-9_:-]") "Where the file system is mounted; null for nowhere.";
  mountOptions = of (types.listOf types.str) [ ] "More flags of `ciderfs mount`.";
  allowOther = switch true "May others than root use it?";
  guardMountPoint = switch true "Close the mount point, so that nobody writes to the local disk while nothing is mounted.";

  cache = {
    dirs = opt (types.listOf types.path) "Cache directories; /var/cache/ciderfs/NAME if not given.";
    sizeMiB = opt types.ints.unsigned "Size of the disk cache.";
    freeRatio = opt (types.numbers.between 0 1) "Share of the cache's disk that stays free.";
    writeback = switch false ''
      Acknowledge writes that are in the local cache and not yet in the object store. Whoever loses the node loses them. A client
      without it refuses to mount.
    '';
    bufferMiB = opt types.ints.positive "Memory for reading and writing.";
  };

  transfer = {
    maxUploads = opt types.ints.positive "Uploads at a time; the client's default is 20.";
    maxDeletes = opt types.ints.unsigned "Deletions at a time, 0 for none.";
    uploadLimitMbps = opt types.ints.positive "Bandwidth of uploads.";
    downloadLimitMbps = opt types.ints.positive "Bandwidth of downloads.";
  };
  backupMeta.interval = opt types.str "Interval of metadata backups into the bucket, such as `1h`, for clients that make them.";

  metrics = {
    enable = switch true "Serve metrics for Prometheus.";
    address = opt types.str "Where, `HOST:PORT`; the client's default is 127.0.0.1:9567. Each file system of a machine needs its own.";
  };
  gateway = door "S3" "127.0.0.1:9000";
  webdav = door "WebDAV" "127.0.0.1:9007";

  requires = of (types.listOf unitName) [ ] "Units that the file system needs.";
  after = of (types.listOf unitName) [ ] "Units that start before it.";
  before = of (types.listOf unitName) [ "remote-fs.target" ] "Units that start after it.";
  wantedBy = of (types.listOf unitName) [ "multi-user.target" "remote-fs.target" ] "Units that start it.";
  consumers = of (types.listOf (types.strMatching "[A-Za-z0-9@_.:-]+\\.service")) [ ] ''
    Services that use the file system. Each wants it and starts after it; when the client restarts it runs on.
  '';
  timeouts = {
    start = of types.ints.positive 120 "Seconds until the mount must be there.";
    flush = of types.ints.positive 900 "Seconds for what is not uploaded when the machine stops; the client asks for more while it gets on.";
    watchdog = of types.ints.unsigned 60 "Seconds after which a client that shows no life is restarted, 0 for never.";
  };
  hardening = switch true "Take from the units what they do not need.";
  extraServiceConfig = of (types.attrsOf types.anything) { } "More settings of the mount's unit. Those that would hide the mount are refused.";
}
