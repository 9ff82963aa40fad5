# What the options of one file system mean: words of the client, credentials, units, and what is wrong with them.
{ lib, cfg, pkgs, redis }:
name: fs:
let
  strings = import ./strings.nix { inherit lib; };
  storage = import ./storage.nix { inherit lib; };
  units = import ./units.nix { inherit lib; };
  hardening = import ./hardening.nix;
  inherit (strings) word words percent;

  option = "services.ciderfs.filesystems.${name}";
  volume = if fs.volume == null then name else fs.volume;
  formats = fs.format.mode == "if-absent";
  mounts = fs.mountPoint != null;
  s = fs.storage;
  bucket = storage.bucket s;

  # --- Flags -------------------------------------------------------------------------------------------------------------------
  flag = name: v: lib.optionals (v != null) [ "--${name}" (toString v) ];
  switch = name: on: lib.optional on "--${name}";

  # Name of a flag as it was written, with one dash or two; null for a value.
  flagName = w: let m = builtins.match "--?([A-Za-z][A-Za-z0-9-]*)(=.*)?" w; in if m == null then null else builtins.head m;
  given = list: lib.filter (f: f != null) (map flagName list);

  cacheDirs = if fs.cache.dirs != null then fs.cache.dirs
    else lib.optional (!lib.elem "cache-dir" (given fs.mountOptions)) "/var/cache/ciderfs/${name}";
  underCache = d: lib.hasPrefix "/var/cache/" d && lib.removePrefix "/var/cache/" d != "";

  # What the options of the mount say, by the name of the flag.
  own = {
    log-level = flag "log-level" cfg.log.level;
    subdir = flag "subdir" fs.subdir;
    read-only = switch "read-only" fs.readOnly;
    cache-dir = lib.optionals (cacheDirs != [ ]) (flag "cache-dir" (lib.concatStringsSep ":" (map toString cacheDirs)));
    cache-size = flag "cache-size" (if fs.cache.sizeMiB == null then null else "${toString fs.cache.sizeMiB}M");
    free-space-ratio = flag "free-space-ratio" (if fs.cache.freeRatio == null then null else builtins.toJSON fs.cache.freeRatio);
    buffer-size = flag "buffer-size" (if fs.cache.bufferMiB == null then null else "${toString fs.cache.bufferMiB}M");
    writeback = switch "writeback" fs.cache.writeback;
    max-uploads = flag "max-uploads" fs.transfer.maxUploads;
    max-deletes = flag "max-deletes" fs.transfer.maxDeletes;
    upload-limit = flag "upload-limit" fs.transfer.uploadLimitMbps;
    download-limit = flag "download-limit" fs.transfer.downloadLimitMbps;
    backup-meta = flag "backup-meta" fs.backupMeta.interval;
    metrics = if !fs.metrics.enable then [ "--metrics=" ] else flag "metrics" fs.metrics.address;
    storage-class = flag "storage-class" (storage.storageClass s);
  };
  twice = lib.filter (n: own.${n} != [ ] && lib.elem n (given fs.mountOptions)) (lib.attrNames own);

  mountFlags = words (lib.concatLists (lib.attrValues own) ++ lib.optionals fs.allowOther [ "-o" "allow_other" ] ++ fs.mountOptions);

  formatFlags = lib.concatStringsSep " " (lib.filter (w: w != "") [
    (words (
      own.log-level
      ++ [ "--storage" s.type ]
      ++ switch "hash-prefix" s.hashPrefix
      ++ own.storage-class
      ++ flag "block-size" (if fs.format.blockSizeKiB == null then null else "${toString fs.format.blockSizeKiB}K")
      ++ flag "compress" fs.format.compression
      ++ flag "capacity" (if fs.format.capacityGiB == null then null else "${toString fs.format.capacityGiB}G")
      ++ flag "inodes" fs.format.inodes
      ++ flag "trash-days" fs.format.trashDays
      ++ switch "enable-acl" fs.format.acl
      ++ flag "encrypt-algo" fs.format.encryption.algorithm
      ++ fs.format.extraArgs
    ))
    (lib.optionalString (fs.format.encryption.keyFile != null) "--encrypt-rsa-key %d/encrypt-rsa-key")
    # The launcher makes the flags of what the environment says.
    (if bucket == null then "@BUCKET@" else words [ "--bucket" bucket ])
  ]);

  # --- Credentials -------------------------------------------------------------------------------------------------------------
  files = {
    access-key = s.accessKeyFile;
    secret-key = s.secretKeyFile;
    session-token = s.sessionTokenFile;
    meta-url = fs.metaUrlFile;
    # That of the Redis beside it, where nothing else says one.
    meta-password =
      if fs.metaPasswordFile == null && fs.environmentFile == [ ] && isHere then redis.passwordFile
      else fs.metaPasswordFile;
    encrypt-passphrase = fs.format.encryption.passphraseFile;
  };
  load = lib.mapAttrsToList (id: file: "${id}:${percent (toString file)}");
  credentials = load (lib.filterAttrs (_: file: file != null) files);
  formatCredentials = lib.optionals (fs.format.encryption.keyFile != null) (load { encrypt-rsa-key = fs.format.encryption.keyFile; });

  # --- Units -------------------------------------------------------------------------------------------------------------------
  server = if fs.metaUrl == null then null else strings.redisServer fs.metaUrl;
  isHere = redis.enable && server != null && server.port == redis.port
    && lib.elem server.host ([ "localhost" "127.0.0.1" "::1" ] ++ redis.bind);
  # Who only the environment knows may be here.
  mayBeHere = redis.enable && fs.metaUrl == null;
  redisUnit = "redis-${redis.name}.service";

  mountUnit = "${strings.unitOfPath fs.mountPoint}.mount";
  serviceName = "ciderfs-${name}";
  formatName = "ciderfs-format-${name}";
  guardName = "ciderfs-guard-${name}";
  service = "${serviceName}.service";

  common = {
    label = name;
    program = lib.getExe cfg.package;
    launcher = "${cfg.package}/lib/ciderfs/ciderfs-unit";
    kill = "${pkgs.coreutils}/bin/kill";
    systemctl = "${pkgs.systemd}/bin/systemctl";
    path = [ pkgs.util-linux pkgs.e2fsprogs ] ++ lib.optional (s.type == "sftp") pkgs.openssh;
    metaUrl = if fs.metaUrl == null then "@META_URL@" else word fs.metaUrl;
    environment = strings.environment (lib.optionalAttrs (s.region != null) { REGION = s.region; });
    environmentFiles = map (f: percent (toString f)) fs.environmentFile;
    inherit credentials formatCredentials;
    formatUnit = if formats then "${formatName}.service" else null;
    # Not required: systemd would stop the mount while a Redis that died is away, and what is not yet stored would be lost.
    wants = lib.optional (isHere || mayBeHere) redisUnit;
    inherit (fs) requires after wantedBy timeouts;
    harden = fs.hardening;
  };
  mountSpecifics = common // {
    searches = fs.metaUrl == null;
    inherit mountFlags mountUnit;
    mountPoint = word fs.mountPoint;
    parent = strings.parentOf fs.mountPoint;
    guardUnit = if fs.guardMountPoint then "${guardName}.service" else null;
    before = lib.unique (fs.before ++ fs.consumers);
    cacheDirectories = map (lib.removePrefix "/var/cache/") (lib.filter underCache (map toString cacheDirs));
    serviceConfig = fs.extraServiceConfig;
  };
  door = command: d: units.door (common // {
    inherit command;
    searches = fs.metaUrl == null;
    inherit (d) address;
    cacheDirectory = "ciderfs-${command}-${name}";
    environmentFiles = common.environmentFiles ++ lib.optional (d.environmentFile != null) (percent (toString d.environmentFile));
    wantedBy = [ "multi-user.target" ];
  });

  services =
    lib.optionalAttrs mounts { ${serviceName} = units.mount mountSpecifics; }
    // lib.optionalAttrs formats {
      ${formatName} = units.format (common // {
        searches = fs.metaUrl == null || bucket == null;
        inherit formatFlags;
        volume = word volume;
        wantedBy = lib.optionals (!mounts) fs.wantedBy;
      } // lib.optionalAttrs mounts { starts = service; });
    }
    // lib.optionalAttrs (mounts && fs.guardMountPoint) {
      ${guardName} = units.guard (mountSpecifics // { before = lib.unique ([ service ] ++ fs.before ++ fs.consumers); });
    }
    // lib.optionalAttrs fs.gateway.enable { "ciderfs-gateway-${name}" = door "gateway" fs.gateway; }
    // lib.optionalAttrs fs.webdav.enable { "ciderfs-webdav-${name}" = door "webdav" fs.webdav; };

  # --- What is wrong -----------------------------------------------------------------------------------------------------------
  secrets = files // {
    encrypt-rsa-key = fs.format.encryption.keyFile;
    gateway = fs.gateway.environmentFile;
    webdav = fs.webdav.environmentFile;
  };
  inStore = f: f != null && (lib.hasPrefix "${builtins.storeDir}/" (toString f) || lib.hasPrefix "/nix/store/" (toString f));
  secretFlags = [ "access-key" "secret-key" "session-token" "meta-password" "encrypt-passphrase" ];
  typedSecrets = lib.filter (n: lib.elem n secretFlags) (given (fs.mountOptions ++ fs.format.extraArgs));
  region = storage.regions.${toString s.region} or null;
  isOff = v: lib.elem v [ false "no" "false" "" ];
  hiding = lib.filter (n: lib.elem n hardening.hiding && !isOff fs.extraServiceConfig.${n}) (lib.attrNames fs.extraServiceConfig);
  check = assertion: message: { inherit assertion; message = "${option}: ${message}"; };
  knowsBucket = bucket != null || fs.environmentFile != [ ];
in
{
  inherit services service mountUnit cacheDirs mounts;
  consumers = lib.optionals mounts fs.consumers;
  ports = map (d: lib.toInt (lib.last (lib.splitString ":" d.address)))
    (lib.filter (d: d.enable && d.openFirewall) [ fs.gateway fs.webdav ]);

  assertions = [
    (check (builtins.match "[a-z0-9][a-z0-9-]{1,61}[a-z0-9]" volume != null)
      "the volume's name ${volume} must have 3 to 63 characters of a-z, 0-9 and -, and begin and end with none of -: set `volume`")
    (check (fs.metaUrl == null || fs.metaUrlFile == null)
      "give one of `metaUrl` and `metaUrlFile`, not both")
    (check (fs.metaUrl != null || fs.metaUrlFile != null || fs.environmentFile != [ ])
      "where is the metadata? Set `metaUrl`, `metaUrlFile`, or META_URL in an `environmentFile`")
    (check (fs.metaUrl == null || !strings.hasPassword fs.metaUrl)
      "`metaUrl` has a password, which everybody could read in the Nix store: leave it out and set `metaPasswordFile`")
    (check (s.bucket == null || builtins.match "[a-z]+://[^/]*@.*" s.bucket == null)
      "`storage.bucket` holds credentials, which everybody could read in the Nix store: set `storage.accessKeyFile` and `storage.secretKeyFile`")
    (check (!lib.any inStore (lib.attrValues secrets ++ fs.environmentFile))
      "a file with secrets is in the Nix store, where everybody can read it: name a file outside, such as /etc/juicefs/config, as a string")
    (check (typedSecrets == [ ])
      "--${lib.concatStringsSep ", --" typedSecrets} in `mountOptions` or `format.extraArgs` would show a secret to everybody: use the options that name files")
    (check (s.preset != "ovhcloud" || s.region != null || s.endpoint != null)
      "OVHcloud needs `storage.region`, one of ${lib.concatStringsSep ", " (lib.attrNames storage.regions)}")
    (check (s.preset != "ovhcloud" || s.region == null || region != null || s.endpoint != storage.endpointOf "ovhcloud" s.region)
      "OVHcloud has no region ${toString s.region}; there are ${lib.concatStringsSep ", " (lib.attrNames storage.regions)}. For another give `storage.endpoint` too")
    (check (s.preset != "ovhcloud" || region == null || lib.elem s.tier region.tiers)
      "the region ${toString s.region} has no tier ${s.tier}; it has ${lib.concatStringsSep ", " (if region == null then [ ] else region.tiers)}")
    (check (s.tier == "standard" || s.preset == "ovhcloud")
      "`storage.tier` is of the preset ovhcloud; for other stores give --storage-class in `mountOptions` and `format.extraArgs`")
    (check (s.preset != "aws" || s.region != null)
      "AWS needs `storage.region`")
    (check (s.preset != "minio" || s.endpoint != null || s.bucket == null || lib.hasInfix "://" s.bucket)
      "MinIO needs `storage.endpoint`, such as http://10.0.0.5:9000")
    (check (!storage.isOldEndpoint s.endpoint && !storage.isOldEndpoint s.bucket)
      "s3.REGION.cloud.ovh.net is the old object storage of OVHcloud: use s3.REGION.io.cloud.ovh.net, or the preset ovhcloud with `storage.region`")
    (check (!formats || knowsBucket)
      "`format.mode` if-absent needs `storage.bucket`, or BUCKET in an `environmentFile`")
    (check (s.type != "s3" || s.bucket == null || s.endpoint != null || lib.hasInfix "://" s.bucket)
      "`storage.bucket` is the bare name ${toString s.bucket}, which says nothing of where it is: set a preset with its region, `storage.endpoint`, or give a URL")
    (check (fs.formatOnce == null || fs.formatOnce == formats)
      "`formatOnce` and `format.mode` contradict each other: set one of them")
    (check (twice == [ ])
      "--${lib.concatStringsSep ", --" twice} in `mountOptions` is set by an option too: keep one of them")
    (check (!lib.any (n: lib.elem n [ "background" "d" "foreground" "f" "update-fstab" ]) (given fs.mountOptions))
      "systemd runs the client in the foreground: remove --background, -d, --foreground and --update-fstab from `mountOptions`")
    (check (fs.mountPoint == null || (fs.mountPoint != "/" && builtins.match "(.*/)?\\.\\.?(/.*)?|.*//.*" fs.mountPoint == null))
      "`mountPoint` must be a plain absolute path other than /, without `.` and `..`")
    (check (mounts || formats || fs.gateway.enable || fs.webdav.enable)
      "nothing to do: set `mountPoint`, `format.mode`, or enable the gateway or webdav")
    (check (hiding == [ ])
      "${lib.concatStringsSep ", " hiding} in `extraServiceConfig` would hide the mount from everybody else, or take /dev/fuse away: remove it")
    (check (fs.format.encryption.passphraseFile == null || fs.format.encryption.keyFile != null || !formats)
      "`format.encryption.passphraseFile` is the passphrase of `format.encryption.keyFile`, which is missing where the volume is made")
  ];
  warnings =
    lib.optional (formats && cfg.nodeRole == "agent")
      "${option}: an agent makes the volume if it is absent (`format.mode`). Let the master do that, or two nodes may race for it."
    ++ lib.optional (s.type == "s3" && s.preset != "aws" && formats && fs.environmentFile == [ ] && (s.accessKeyFile == null || s.secretKeyFile == null))
      "${option}: no credentials: set `environmentFile`, or `storage.accessKeyFile` and `storage.secretKeyFile`."
    ++ lib.optional fs.cache.writeback
      "${option}: with `cache.writeback` a node that is lost takes with it what it has acknowledged and not yet uploaded.";
}
