# Machines, and what they must come to. `problems` is empty for each case that is as it should be; `throws` are those whose
# evaluation must fail with a text.
let
  lib = import ./lib.nix;
  evalWith = import ./eval.nix;
  ciderfs = ../../nixos/modules/ciderfs.nix;
  juicefs = ../../nixos/modules/juicefs.nix;
  master = ../../nixos/systems/master.nix;
  agent = ../../nixos/systems/agent.nix;
  k3s = ../../nixos/modules/k3s-manifests.nix;

  eval = modules: evalWith { inherit modules; };
  # A machine with one file system `vol` that is well, and what is said of it.
  base = {
    metaUrl = "redis://10.0.0.1:6379/1";
    mountPoint = "/mnt/vol";
    environmentFile = "/etc/ciderfs/vol.env";
    storage = { preset = "ovhcloud"; region = "gra"; bucket = "bucket"; };
  };
  fsOf = fs: eval [ ciderfs { services.ciderfs = { enable = true; filesystems.vol = fs; }; } ];
  vol = more: fsOf (lib.recursiveUpdate base more);
  without = names: more: fsOf (removeAttrs (lib.recursiveUpdate base more) names);
  redis = more: eval [ ciderfs { services.ciderfs = { enable = true; metadata.redis = { enable = true; } // more; }; } ];
  seed = fs: eval [ juicefs { services.juicefs = { enable = true; filesystems.k3s-storage = { metaUrl = "redis://127.0.0.1:6379/1"; } // fs; }; } ];

  service = e: n: e.config.systemd.services.${n};
  start = e: n: (service e n).serviceConfig.ExecStart;
  mountOf = e: start e "ciderfs-vol";
  formatOf = e: start e "ciderfs-format-vol";

  is = what: got: want: lib.optional (got != want) "${what}: ${builtins.toJSON got}, not ${builtins.toJSON want}";
  has = what: text: part: lib.optional (!lib.hasInfix part text) "${what} lacks ${part}: ${text}";
  lacks = what: text: part: lib.optional (lib.hasInfix part text) "${what} has ${part}: ${text}";
  among = what: list: one: lib.optional (!lib.elem one list) "${what} lacks ${one}: ${builtins.toJSON list}";
  notAmong = what: list: one: lib.optional (lib.elem one list) "${what} has ${one}";
  well = e: is "failed assertions" e.failed [ ];
  # Exactly one assertion fails, with that text.
  fails = e: text: is "number of failed assertions ${builtins.toJSON e.failed}" (lib.length e.failed) 1
    ++ has "its text" (lib.concatStringsSep "; " e.failed) text;
  warns = e: text: has "warnings" (lib.concatStringsSep "; " e.config.warnings) text;

  regions = import ../../nixos/modules/lib/ovh-regions.nix;
  m = eval [ master ];
  a = eval [ agent ];
  cap = "ciderfs-k3s-storage";

  server = { services.k3s = { enable = true; role = "server"; }; };
  cluster = more: eval [ ciderfs k3s server { services.ciderfs.k3s = { enable = true; } // more; } ];
  chartOf = e: e.config.services.k3s.manifests.ciderfs-csi.content;
  valuesOf = e: builtins.fromJSON (chartOf e).spec.valuesContent;
in
{
  problems = {
    # --- The examples ---
    master-evaluates = well m ++ is "warnings" m.config.warnings [ ]
      ++ is "units" (lib.attrNames m.units) [ "ciderfs-format-k3s-storage.service" "ciderfs-guard-k3s-storage.service" "ciderfs-k3s-storage.service" ];
    master-mounts-with-the-words-of-the-client = is "ExecStart" (start m cap)
      "/nix/store/stand-in-ciderfs/bin/ciderfs mount --foreground --cache-dir /var/cache/juicefs --cache-size 1024M --max-uploads 20 -o allow_other redis://127.0.0.1:6379/1 /mnt/juicefs";
    master-makes-the-volume-in-the-bucket-of-ovhcloud = is "ExecStart" (start m "ciderfs-format-k3s-storage")
      "/nix/store/stand-in-ciderfs/bin/ciderfs format --if-absent --storage s3 --hash-prefix --bucket https://juicefs-k3s.s3.gra.io.cloud.ovh.net redis://127.0.0.1:6379/1 k3s-storage";
    # Stopping comes in the other order: the last flush has its Redis. Whoever required it would be stopped when it dies.
    master-waits-for-its-redis = lib.concatMap
      (n: let u = service m n; in
        among "after of ${n}" u.after "redis-juicefs.service" ++ among "wants of ${n}" u.wants "redis-juicefs.service"
        ++ notAmong "requires of ${n}" u.requires "redis-juicefs.service")
      [ cap "ciderfs-format-k3s-storage" ];
    master-redis-is-safe = let r = m.config.services.redis.servers.juicefs; in
      is "bind" r.bind "127.0.0.1 10.0.0.1" ++ is "port" r.port 6379 ++ is "aof" r.appendOnly true
      ++ is "password" r.requirePassFile "/etc/juicefs/redis-password" ++ is "policy" r.settings.maxmemory-policy "noeviction"
      ++ is "protected mode" r.settings.protected-mode "yes" ++ is "open to all" r.openFirewall false
      ++ is "open ports" m.config.networking.firewall.allowedTCPPorts [ ]
      ++ among "ports of the private network" m.config.networking.firewall.interfaces.eth1.allowedTCPPorts 6379;
    agent-evaluates = well a ++ is "warnings" a.config.warnings [ ]
      ++ is "units" (lib.attrNames a.units) [ "ciderfs-guard-k3s-storage.service" "ciderfs-k3s-storage.service" ];
    agent-mounts-from-the-master = is "ExecStart" (start a cap)
      "/nix/store/stand-in-ciderfs/bin/ciderfs mount --foreground --cache-dir /var/cache/juicefs --cache-size 2048M --max-uploads 20 -o allow_other redis://10.0.0.1:6379/1 /mnt/juicefs"
      ++ is "redis servers" a.config.services.redis.servers { };
    both-have-credentials-and-packages = lib.concatMap
      (e: is "environment files" (service e cap).serviceConfig.EnvironmentFile [ "/etc/juicefs/config" ]
        ++ is "credentials" (service e cap).serviceConfig.LoadCredential [ "meta-password:/etc/juicefs/redis-password" ]
        ++ among "packages" (map toString e.config.environment.systemPackages) "/nix/store/stand-in-ciderfs"
        ++ among "helpers of mount(8)" (map toString e.config.system.fsPackages) "/nix/store/stand-in-ciderfs"
        ++ among "kernel modules" e.config.boot.kernelModules "fuse")
      [ m a ];
    k3s-is-not-bounced = lib.concatMap
      (e:
        let k3s = service e "k3s"; in
        is "wants" k3s.wants [ "ciderfs-k3s-storage.service" ] ++ is "requires" k3s.requires [ ] ++ is "binds to" k3s.bindsTo [ ]
        ++ is "after" k3s.after [ "ciderfs-k3s-storage.service" "mnt-juicefs.mount" ])
      [ m a ];

    # --- The units ---
    the-mount-says-when-it-is-ready = let s = (service (vol { }) "ciderfs-vol").serviceConfig; in
      is "type" s.Type "notify" ++ is "watchdog" s.WatchdogSec 60 ++ is "kill mode" s.KillMode "mixed" ++ is "restart" s.Restart "on-failure"
      ++ is "stop" s.ExecStop "+/nix/store/stand-in-ciderfs/bin/ciderfs umount --flush /mnt/vol"
      ++ is "time to flush" s.TimeoutStopSec 900 ++ is "open files" s.LimitNOFILE 1048576 ++ is "oom" s.OOMScoreAdjust (-900)
      ++ is "cache" s.CacheDirectory [ "ciderfs/vol" ] ++ is "mode" s.CacheDirectoryMode "0700";
    the-mount-makes-no-mount-namespace = let s = (service (vol { }) "ciderfs-vol").serviceConfig; in
      is "settings that hide" (lib.filter (n: s ? ${n}) (import ../../nixos/modules/lib/hardening.nix).hiding) [ ];
    the-network-comes-first = let u = service (vol { }) "ciderfs-vol"; in
      among "after" u.after "network-online.target" ++ among "wants" u.wants "network-online.target"
      ++ among "before" u.before "mnt-vol.mount" ++ among "before" u.before "remote-fs.target"
      ++ is "parent" u.unitConfig.RequiresMountsFor [ "/mnt" ];
    the-guard-is-there-without-the-network = let u = service (vol { }) "ciderfs-guard-vol"; in
      is "after" u.after [ ] ++ among "before" u.before "ciderfs-vol.service"
      ++ is "start" u.serviceConfig.ExecStart "/nix/store/stand-in-ciderfs/lib/ciderfs/ciderfs-unit guard /mnt/vol";
    no-guard-where-none-is-wanted = is "units" (lib.attrNames (vol { guardMountPoint = false; }).units) [ "ciderfs-vol.service" ];
    a-bare-unit-without-hardening = is "capabilities" ((service (vol { hardening = false; }) "ciderfs-vol").serviceConfig ? CapabilityBoundingSet) false;
    names-of-mount-units-are-escaped = among "before" (service (vol { mountPoint = "/srv/a-b/c.d"; }) "ciderfs-vol").before "srv-a\\x2db-c.d.mount";
    format-failures-are-told-apart = let s = (service (vol { format.mode = "if-absent"; }) "ciderfs-format-vol").serviceConfig; in
      is "not again after" s.RestartPreventExitStatus [ 2 78 ] ++ is "restart" s.Restart "on-failure"
      ++ is "mounts after a late success" s.ExecStartPost "+-/nix/store/stand-in-systemd/bin/systemctl --no-block start ciderfs-vol.service"
      ++ among "the mount requires it" (service (vol { format.mode = "if-absent"; }) "ciderfs-vol").requires "ciderfs-format-vol.service";
    nobody-formats-unasked = is "units" (lib.attrNames (vol { }).units) [ "ciderfs-guard-vol.service" "ciderfs-vol.service" ];
    format-once-is-another-name = among "units" (lib.attrNames (vol { formatOnce = true; }).units) "ciderfs-format-vol.service";
    format-without-a-mount = let e = without [ "mountPoint" ] { format.mode = "if-absent"; }; in
      well e ++ is "units" (lib.attrNames e.units) [ "ciderfs-format-vol.service" ]
      ++ is "wanted by" (service e "ciderfs-format-vol").wantedBy [ "multi-user.target" "remote-fs.target" ];
    more-settings-of-the-service = is "nice" (service (vol { extraServiceConfig.Nice = -5; }) "ciderfs-vol").serviceConfig.Nice (-5);
    gateway-and-webdav = let e = vol { gateway = { enable = true; address = "0.0.0.0:9000"; openFirewall = true; environmentFile = "/etc/ciderfs/gw.env"; }; webdav.enable = true; }; in
      well e ++ among "units" (lib.attrNames e.units) "ciderfs-gateway-vol.service" ++ among "units" (lib.attrNames e.units) "ciderfs-webdav-vol.service"
      ++ is "ports" e.config.networking.firewall.allowedTCPPorts [ 9000 ]
      ++ is "user" (service e "ciderfs-gateway-vol").serviceConfig.DynamicUser true
      ++ among "credentials" (service e "ciderfs-gateway-vol").serviceConfig.EnvironmentFile "/etc/ciderfs/gw.env";

    # --- Flags ---
    every-option-of-the-mount-has-its-flag = is "ExecStart"
      (mountOf (vol {
        subdir = "a b";
        readOnly = true;
        allowOther = false;
        cache = { dirs = [ "/var/cache/x" "/ssd/y" ]; sizeMiB = 5; freeRatio = 0.2; bufferMiB = 64; writeback = true; };
        transfer = { maxUploads = 7; maxDeletes = 0; uploadLimitMbps = 100; downloadLimitMbps = 200; };
        backupMeta.interval = "1h";
        metrics.address = "127.0.0.1:9600";
        mountOptions = [ "--prefetch=2" "--sort-dir" ];
      }))
      "/nix/store/stand-in-ciderfs/bin/ciderfs mount --foreground --backup-meta 1h --buffer-size 64M --cache-dir /var/cache/x:/ssd/y --cache-size 5M --download-limit 200 --free-space-ratio 0.2 --max-deletes 0 --max-uploads 7 --metrics 127.0.0.1:9600 --read-only --subdir \"a b\" --upload-limit 100 --writeback --prefetch=2 --sort-dir redis://10.0.0.1:6379/1 /mnt/vol";
    every-option-of-format-has-its-flag = is "ExecStart"
      (formatOf (vol {
        volume = "other-name";
        format = {
          mode = "if-absent";
          blockSizeKiB = 1024;
          compression = "lz4";
          capacityGiB = 10;
          inodes = 1000;
          trashDays = 0;
          acl = true;
          encryption = { keyFile = "/etc/ciderfs/key.pem"; passphraseFile = "/etc/ciderfs/passphrase"; algorithm = "chacha20-rsa"; };
          extraArgs = [ "--shards=4" ];
        };
      }))
      "/nix/store/stand-in-ciderfs/bin/ciderfs format --if-absent --storage s3 --hash-prefix --block-size 1024K --compress lz4 --capacity 10G --inodes 1000 --trash-days 0 --enable-acl --encrypt-algo chacha20-rsa --shards=4 --encrypt-rsa-key %d/encrypt-rsa-key --bucket https://bucket.s3.gra.io.cloud.ovh.net redis://10.0.0.1:6379/1 other-name";
    metrics-can-be-off = has "ExecStart" (mountOf (vol { metrics.enable = false; })) " --metrics= ";
    the-log-level = has "ExecStart" (mountOf (eval [ ciderfs { services.ciderfs = { enable = true; log.level = "debug"; filesystems.vol = base; }; } ])) "--log-level debug";
    words-of-users-are-quoted = has "ExecStart" (mountOf (vol { subdir = "50% of \"$x\""; })) "--subdir \"50%% of \\\"$$x\\\"\"";
    writeback-is-passed-on = let e = vol { cache.writeback = true; }; in well e ++ has "ExecStart" (mountOf e) "--writeback" ++ warns e "not yet uploaded";
    defaults-of-all-file-systems = let
      e = eval [
        ciderfs
        {
          services.ciderfs = {
            enable = true;
            defaults = { storage = { preset = "ovhcloud"; region = "sbg"; bucket = "shared"; }; transfer.maxUploads = 9; environmentFile = [ "/etc/c.env" ]; metaUrl = "redis://h/1"; };
            filesystems = { one = { mountPoint = "/one"; format.mode = "if-absent"; }; two = { mountPoint = "/two"; transfer.maxUploads = 3; }; };
          };
        }
      ];
    in well e ++ has "one" (start e "ciderfs-one") "--max-uploads 9" ++ has "two" (start e "ciderfs-two") "--max-uploads 3"
      ++ has "format" (start e "ciderfs-format-one") "https://shared.s3.sbg.io.cloud.ovh.net";
    two-file-systems = let
      e = eval [ ciderfs { services.ciderfs = { enable = true; filesystems = { vol = base; more = base // { mountPoint = "/mnt/more"; }; off = base // { enable = false; }; }; }; } ];
    in well e ++ is "units" (lib.attrNames e.units)
      [ "ciderfs-guard-more.service" "ciderfs-guard-vol.service" "ciderfs-more.service" "ciderfs-vol.service" ];
    nothing-when-off = let e = eval [ ciderfs { services.ciderfs.filesystems.vol = base; } ]; in
      is "units" e.units { } ++ is "packages" e.config.environment.systemPackages [ ];

    # --- Stores ---
    every-region-of-ovhcloud = lib.concatMap
      (r: has r (formatOf (vol { format.mode = "if-absent"; storage.region = r; })) "--bucket https://bucket.s3.${r}.io.cloud.ovh.net "
        ++ is "region of ${r}" (service (vol { storage.region = r; }) "ciderfs-vol").environment.REGION r
        ++ well (vol { storage.region = r; }))
      (lib.attrNames regions)
      ++ is "regions" (lib.attrNames regions)
      [ "ap-south-mum" "ap-southeast-syd" "bhs" "ca-east-tor" "de" "eu-south-mil" "eu-west-par" "gra" "rbx" "sbg" "sgp" "uk" "waw" ];
    a-bucket-with-dots-is-in-the-path = has "format" (formatOf (vol { format.mode = "if-absent"; storage.bucket = "my.bucket"; })) "--bucket https://s3.gra.io.cloud.ovh.net/my.bucket ";
    path-style-on-request = has "format" (formatOf (vol { format.mode = "if-absent"; storage.addressing = "path"; })) "--bucket https://s3.gra.io.cloud.ovh.net/bucket ";
    the-fast-tier-is-a-class = let e = vol { format.mode = "if-absent"; storage.tier = "high-performance"; }; in
      well e ++ has "format" (formatOf e) "--storage-class EXPRESS_ONEZONE" ++ has "mount" (mountOf e) "--storage-class EXPRESS_ONEZONE";
    the-plain-tier-needs-none = lacks "mount" (mountOf (vol { })) "--storage-class";
    aws = let e = vol { format.mode = "if-absent"; storage = { preset = "aws"; region = "eu-central-1"; }; }; in
      well e ++ has "format" (formatOf e) "--storage s3 --bucket https://bucket.s3.eu-central-1.amazonaws.com ";
    minio = let e = vol { format.mode = "if-absent"; storage = { preset = "minio"; region = null; endpoint = "http://10.0.0.5:9000"; }; }; in
      well e ++ has "format" (formatOf e) "--storage minio --bucket http://10.0.0.5:9000/bucket ";
    a-directory = let e = vol { format.mode = "if-absent"; storage = { preset = null; region = null; type = "file"; bucket = "/srv/objects/"; }; }; in
      well e ++ has "format" (formatOf e) "--storage file --bucket /srv/objects/ ";
    an-endpoint-beside-the-preset = let e = vol { format.mode = "if-absent"; storage = { region = "us-new"; endpoint = "https://s3.us-new.example.com"; }; }; in
      well e ++ has "format" (formatOf e) "https://bucket.s3.us-new.example.com ";

    # --- Secrets ---
    files-are-credentials = let e = vol { storage = { accessKeyFile = "/run/keys/a"; secretKeyFile = "/run/keys/s%1"; sessionTokenFile = "/run/keys/t"; }; metaPasswordFile = "/run/keys/m"; }; in
      well e ++ is "credentials" (service e "ciderfs-vol").serviceConfig.LoadCredential
        [ "access-key:/run/keys/a" "meta-password:/run/keys/m" "secret-key:/run/keys/s%%1" "session-token:/run/keys/t" ]
      ++ lacks "the command line" (mountOf e) "/run/keys";
    the-key-of-encryption-is-where-the-volume-is-made = let e = vol { format = { mode = "if-absent"; encryption = { keyFile = "/k.pem"; passphraseFile = "/p"; }; }; }; in
      is "format" (service e "ciderfs-format-vol").serviceConfig.LoadCredential [ "encrypt-passphrase:/p" "encrypt-rsa-key:/k.pem" ]
      ++ is "mount" (service e "ciderfs-vol").serviceConfig.LoadCredential [ "encrypt-passphrase:/p" ];
    an-address-in-a-file = let e = without [ "metaUrl" ] { metaUrlFile = "/run/keys/url"; }; in
      well e ++ among "credentials" (service e "ciderfs-vol").serviceConfig.LoadCredential "meta-url:/run/keys/url"
      ++ has "ExecStart" (mountOf e) "/lib/ciderfs/ciderfs-unit run /nix/store/stand-in-ciderfs/bin/ciderfs mount --foreground"
      ++ has "ExecStart" (mountOf e) " @META_URL@ /mnt/vol";
    an-address-and-a-bucket-in-the-environment = let e = fsOf { environmentFile = "/etc/juicefs/config"; mountPoint = "/mnt/vol"; formatOnce = true; }; in
      well e ++ has "format" (formatOf e) "@BUCKET@ @META_URL@ vol" ++ has "mount" (mountOf e) "@META_URL@ /mnt/vol";

    # --- Redis ---
    redis-alone = let e = redis { }; in
      well e ++ is "bind" e.config.services.redis.servers.ciderfs.bind "127.0.0.1" ++ is "interfaces" e.config.networking.firewall.interfaces { };
    the-password-of-the-redis-beside-it = let
      of = more: service
        (eval [ ciderfs { services.ciderfs = { enable = true; metadata.redis = { enable = true; passwordFile = "/pw"; };
          filesystems.vol = removeAttrs base [ "environmentFile" ] // { metaUrl = "redis://127.0.0.1/1"; } // more; }; } ])
        "ciderfs-vol";
      loaded = more: (of more).serviceConfig.LoadCredential or [ ];
    in is "here" (loaded { }) [ "meta-password:/pw" ] ++ is "there" (loaded { metaUrl = "redis://h/1"; }) [ ]
      ++ is "another" (loaded { metaPasswordFile = "/other"; }) [ "meta-password:/other" ]
      ++ is "the environment" (loaded { environmentFile = "/env"; }) [ ];
    an-edge-only-to-the-redis-that-is-meant = let
      e = eval [ ciderfs { services.ciderfs = { enable = true; metadata.redis.enable = true; filesystems = {
        here = base // { metaUrl = "redis://localhost/1"; mountPoint = "/a"; };
        there = base // { mountPoint = "/b"; };
        other = base // { metaUrl = "redis://127.0.0.1:6380/1"; mountPoint = "/c"; };
        unknown = removeAttrs base [ "metaUrl" ] // { mountPoint = "/d"; };
      }; }; } ];
      unit = "redis-ciderfs.service";
    in well e ++ among "here" (service e "ciderfs-here").wants unit ++ among "here" (service e "ciderfs-here").after unit ++ notAmong "there" (service e "ciderfs-there").after unit
      ++ notAmong "other" (service e "ciderfs-other").after unit
      ++ among "unknown" (service e "ciderfs-unknown").after unit ++ among "unknown" (service e "ciderfs-unknown").wants unit;

    # --- Options of the older module ---
    the-older-options-as-they-are = let
      e = seed {
        storage = "s3";
        bucket = "juicefs-k3s";
        endpoint = "https://s3.gra.io.cloud.ovh.net";
        environmentFile = "/etc/juicefs/config";
        mountPoint = "/mnt/juicefs";
        formatOnce = true;
        mountOptions = [ "--cache-size=1024" "--max-uploads=20" "--cache-dir /var/cache/juicefs" "--background" ];
      };
    in well e
      ++ is "mount" (start e cap) "/nix/store/stand-in-ciderfs/bin/ciderfs mount --foreground -o allow_other --cache-size=1024 --max-uploads=20 --cache-dir /var/cache/juicefs redis://127.0.0.1:6379/1 /mnt/juicefs"
      ++ is "format" (start e "ciderfs-format-k3s-storage") "/nix/store/stand-in-ciderfs/bin/ciderfs format --if-absent --storage s3 --bucket https://juicefs-k3s.s3.gra.io.cloud.ovh.net redis://127.0.0.1:6379/1 k3s-storage"
      ++ is "other name" (service e cap).aliases [ "juicefs-k3s-storage.service" ]
      ++ warns e "systemd runs the client";
    the-older-key-files = is "credentials" (service (seed { accessKeyFile = "/k/a"; secretKeyFile = "/k/s"; }) cap).serviceConfig.LoadCredential [ "access-key:/k/a" "secret-key:/k/s" ];
    both-modules-at-once = let
      e = eval [ juicefs { services.ciderfs = { enable = true; filesystems.vol = base; }; services.juicefs = { enable = true; filesystems.old = { metaUrl = "redis://h/2"; }; }; } ];
    in well e ++ is "units" (lib.attrNames e.units) [ "ciderfs-guard-old.service" "ciderfs-guard-vol.service" "ciderfs-old.service" "ciderfs-vol.service" ];

    # --- What k3s installs ---
    master-installs-the-driver = let v = valuesOf m; in
      is "manifests" (lib.attrNames m.config.services.k3s.manifests) [ "ciderfs-csi" ]
      ++ is "kind" (chartOf m).kind "HelmChart" ++ is "namespace" (chartOf m).spec.targetNamespace "kube-system"
      ++ is "class" (map (c: [ c.name c.enabled c.isDefault c.reclaimPolicy c.allowVolumeExpansion c.existingSecret ]) v.storageClasses)
        [ [ "juicefs-sc" true true "Retain" true "juicefs-sc-secret" ] ]
      ++ is "redis" v.redis { enabled = true; existingSecret = "ciderfs-csi-redis"; }
      ++ lib.optional (builtins.stringLength (chartOf m).spec.chartContent < 10000) "no chart inside"
      ++ is "images" m.config.services.k3s.images [ ];
    agent-installs-nothing = is "manifests" a.config.services.k3s.manifests { };
    the-driver-has-options =
      let e = cluster { driverName = "csi.juicefs.com"; existingSecret = "vol"; namespace = "storage"; redis.enable = false; image = "/srv/ciderfs.tar"; values = { mounter.cacheDir = "/mnt/nvme"; }; };
      in well e ++ is "values" (valuesOf e) {
        driverName = "csi.juicefs.com";
        mounter.cacheDir = "/mnt/nvme";
        storageClasses = [{ name = "juicefs-sc"; enabled = true; isDefault = true; reclaimPolicy = "Retain"; allowVolumeExpansion = true; existingSecret = "vol"; }];
      } ++ is "namespace" [ (chartOf e).metadata.namespace (chartOf e).spec.targetNamespace ] [ "storage" "storage" ]
      ++ is "images" (map toString e.config.services.k3s.images) [ "/srv/ciderfs.tar" ];
    the-driver-is-off-by-itself = is "manifests" (eval [ ciderfs k3s server ]).config.services.k3s.manifests { };
    refuses-manifests-on-agents = fails (eval [ ciderfs k3s { services.k3s = { enable = true; role = "agent"; }; services.ciderfs.k3s.enable = true; } ]) "manifests are for a k3s server";
    refuses-secrets-of-the-chart = fails (cluster { values.redis.password = "hunter2"; }) "would be in the Nix store"
      ++ fails (cluster { values.storageClasses = [{ name = "a"; backend = { name = "vol"; secretKey = "x"; }; }]; }) "would be in the Nix store";

    # --- What is refused ---
    refuses-no-metadata = fails (without [ "metaUrl" "environmentFile" ] { }) "where is the metadata?";
    refuses-two-addresses = fails (vol { metaUrlFile = "/run/url"; }) "not both";
    refuses-a-password-in-the-address = fails (vol { metaUrl = "redis://:hunter2@10.0.0.1:6379/1"; }) "`metaUrl` has a password";
    refuses-credentials-in-the-bucket = fails (vol { storage.bucket = "https://AK:SK@bucket.s3.gra.io.cloud.ovh.net"; }) "`storage.bucket` holds credentials";
    refuses-secrets-in-the-store = fails (vol { storage.secretKeyFile = "/nix/store/abc-secret"; }) "is in the Nix store"
      ++ fails (vol { environmentFile = "/nix/store/abc-env"; }) "is in the Nix store";
    refuses-typed-secrets = fails (vol { format.extraArgs = [ "--secret-key=x" ]; }) "--secret-key in `mountOptions` or `format.extraArgs` would show a secret";
    refuses-ovhcloud-without-region = fails (without [ ] { storage.region = null; storage.bucket = "https://b.example.com"; }) "OVHcloud needs `storage.region`, one of ap-south-mum,";
    refuses-unknown-regions = fails (vol { storage.region = "mars"; }) "OVHcloud has no region mars; there are ap-south-mum,";
    refuses-a-tier-that-is-not-there = fails (vol { storage = { region = "eu-west-par"; tier = "high-performance"; }; }) "the region eu-west-par has no tier high-performance";
    refuses-tiers-of-others = fails (vol { storage = { preset = "aws"; region = "eu-west-1"; tier = "high-performance"; }; }) "`storage.tier` is of the preset ovhcloud";
    refuses-aws-without-region = lib.optional (!lib.any (lib.hasInfix "AWS needs `storage.region`") (vol { storage = { preset = "aws"; region = null; }; }).failed) "no such text";
    refuses-minio-without-endpoint = fails (vol { storage = { preset = "minio"; region = null; }; }) "MinIO needs `storage.endpoint`";
    refuses-the-old-endpoint = fails (vol { storage.endpoint = "https://s3.gra.cloud.ovh.net"; }) "is the old object storage of OVHcloud"
      ++ fails (vol { storage = { preset = null; bucket = "https://bucket.s3.sbg.cloud.ovh.net"; }; }) "is the old object storage of OVHcloud";
    refuses-a-bare-bucket = fails (vol { storage = { preset = null; }; }) "`storage.bucket` is the bare name bucket";
    refuses-format-without-bucket = fails (without [ "environmentFile" ] { format.mode = "if-absent"; storage.bucket = null; }) "`format.mode` if-absent needs `storage.bucket`";
    refuses-contradictions-of-format = fails (vol { formatOnce = false; format.mode = "if-absent"; }) "contradict each other";
    refuses-flags-set-twice = fails (vol { cache.sizeMiB = 1024; mountOptions = [ "--cache-size=2048" ]; }) "--cache-size in `mountOptions` is set by an option too"
      ++ fails (vol { transfer.maxUploads = 5; mountOptions = [ "-max-uploads" "6" ]; }) "--max-uploads in `mountOptions`";
    refuses-the-background = fails (vol { mountOptions = [ "--background" ]; }) "systemd runs the client in the foreground";
    refuses-bad-names-of-volumes = fails (vol { volume = "My_Volume"; }) "the volume's name My_Volume must have" ++ fails (vol { volume = "ab"; }) "must have 3 to 63";
    refuses-odd-mount-points = fails (vol { mountPoint = "/mnt/../etc"; }) "plain absolute path";
    refuses-nothing-to-do = fails (without [ "mountPoint" ] { }) "nothing to do";
    refuses-what-hides-the-mount = fails (vol { extraServiceConfig.PrivateTmp = true; }) "PrivateTmp in `extraServiceConfig` would hide the mount"
      ++ well (vol { extraServiceConfig.PrivateTmp = false; });
    refuses-a-passphrase-without-a-key = fails (vol { format = { mode = "if-absent"; encryption.passphraseFile = "/p"; }; }) "`format.encryption.keyFile`, which is missing";
    refuses-a-shared-mount-point = fails (eval [ ciderfs { services.ciderfs = { enable = true; filesystems = { one = base; two = base; }; }; } ])
      "file systems share a mount point: /mnt/vol (one, two)";
    refuses-a-shared-cache = fails
      (eval [ ciderfs { services.ciderfs = { enable = true; defaults.cache.dirs = [ "/c" ]; filesystems = { one = base; two = base // { mountPoint = "/b"; }; }; }; } ])
      "file systems share a cache directory: /c (one, two)";
    refuses-an-open-redis = fails (redis { bind = [ "127.0.0.1" "10.0.0.1" ]; }) "it listens at 10.0.0.1, beyond this machine: set `passwordFile`"
      ++ fails (redis { bind = [ "0.0.0.0" ]; }) "beyond this machine";
    refuses-redis-that-forgets = fails (redis { appendOnly = false; }) "without `appendOnly`" ++ fails (redis { maxmemoryPolicy = "allkeys-lru"; }) "`maxmemoryPolicy` allkeys-lru throws metadata away";
    refuses-redis-without-addresses = fails (redis { bind = [ ]; }) "`bind` is empty";
    refuses-a-door-to-a-redis-that-nobody-reaches = fails (redis { firewallInterfaces = [ "eth1" ]; }) "`bind` has addresses of this machine only";
    refuses-a-password-of-redis-in-the-store = fails (redis { passwordFile = "/nix/store/abc-pw"; }) "`passwordFile` is in the Nix store";
    refuses-older-literal-keys = fails (seed { accessKey = "AK"; secretKey = "SK"; }) "`accessKey` and `secretKey` would be in the Nix store";
    warns-of-an-agent-that-formats = warns (eval [ agent { services.ciderfs.filesystems.k3s-storage.format.mode = "if-absent"; } ]) "an agent makes the volume";
    warns-without-credentials = warns (without [ "environmentFile" ] { format.mode = "if-absent"; }) "no credentials: set `environmentFile`";
  };

  # What deploy/tests/kubernetes.sh has the chart inside render with.
  manifests = {
    master = [ (chartOf m) ];
    options = [ (chartOf (cluster { driverName = "csi.juicefs.com"; existingSecret = "vol"; redis.enable = false; values.mounter.cacheDir = ""; })) ];
  };

  throws = {
    names-of-secrets = { value = valuesOf (cluster { existingSecret = "juicefs_secret"; }); text = "`services.ciderfs.k3s.existingSecret' is not of type"; };
    names-of-namespaces = { value = chartOf (cluster { namespace = "kube_system"; }); text = "`services.ciderfs.k3s.namespace' is not of type"; };
    unknown-options = { value = (vol { cacheSize = 1; }).units; text = "The option `services.ciderfs.filesystems.vol.cacheSize' does not exist"; };
    unknown-options-in-defaults = {
      value = (eval [ ciderfs { services.ciderfs = { enable = true; defaults.nonsense = 1; filesystems.vol = base; }; } ]).units;
      text = "The option `services.ciderfs.filesystems.vol.nonsense' does not exist";
    };
    literal-secrets-have-no-option = { value = (vol { storage.secretKey = "x"; }).units; text = "The option `services.ciderfs.filesystems.vol.storage.secretKey' does not exist"; };
    wrong-types = { value = (vol { cache.sizeMiB = "1024"; }).units; text = "`services.ciderfs.filesystems.vol.cache.sizeMiB' is not of type"; };
    wrong-presets = { value = (vol { storage.preset = "azure"; }).units; text = "`services.ciderfs.filesystems.vol.storage.preset' is not of type"; };
    relative-mount-points = { value = (vol { mountPoint = "mnt"; }).units; text = "`services.ciderfs.filesystems.vol.mountPoint' is not of type"; };
    ports-out-of-range = { value = (redis { port = 70000; }).config.services.redis.servers; text = "`services.ciderfs.metadata.redis.port' is not of type"; };
    conflicting-definitions = {
      value = (eval [ ciderfs { services.ciderfs = { enable = true; filesystems.vol = base; }; } { services.ciderfs.filesystems.vol.metaUrl = "redis://other/1"; } ]).units;
      text = "The option `services.ciderfs.filesystems.vol.metaUrl' has conflicting definition values";
    };
  };

  # For the tests of units and secrets.
  inherit m a;
  # All credentials that there are, as files in a directory.
  secret = dir: vol {
    environmentFile = "${dir}/env";
    metaPasswordFile = "${dir}/meta-password";
    storage = { accessKeyFile = "${dir}/access-key"; secretKeyFile = "${dir}/secret-key"; sessionTokenFile = "${dir}/session-token"; };
    format = { mode = "if-absent"; encryption = { keyFile = "${dir}/key.pem"; passphraseFile = "${dir}/passphrase"; }; };
  };
}
