//! Every flag, defined once: parsing, help, completions, the manual and the reference come from this table
//! (`docs/reference/commands.md`). A row is: the flag, what it takes, its name, other names, default, commands, whether it is
//! there, one line of help, and where else its value may come from.

use super::command::Command::{
    Clone, Config, Csi, Doctor, Format, Info, K8sSecret, Man, Mount, Mounter, Profile, Quota, Rmr, Stats,
    Status as StatusOf, Umount, Up, Upgrade, Version,
};
use super::command::{Command, EVERY};
use super::flag::Status::{Missing, NoOp, Only, Ready};
use super::flag::{Flag, Kind, Row, Status, kinds};

const ALL: &[Command] = EVERY;
const FORMAT: &[Command] = &[Format];
const CONFIG: &[Command] = &[Config];
const FORMAT_CONFIG: &[Command] = &[Format, Config];
/// Settings that a mount may have otherwise for itself.
const STORED: &[Command] = &[Format, Config, Mount];
/// The same, and who looks whether they work.
const PLACE: &[Command] = &[Format, Config, Mount, Doctor];
const FORMAT_DOCTOR: &[Command] = &[Format, Doctor];
const DOCTOR: &[Command] = &[Doctor];
/// Commands that read or write objects.
const OPENED: &[Command] = &[Format, Config, Mount, Up];
const CONFIG_MOUNT: &[Command] = &[Config, Mount];
const LIMITED: &[Command] = &[Format, Config, Quota];
const QUOTA: &[Command] = &[Quota];
const STATUS: &[Command] = &[StatusOf];
const CLONE: &[Command] = &[Clone];
const RMR: &[Command] = &[Rmr];
const INFO: &[Command] = &[Info];
const INFO_QUOTA: &[Command] = &[Info, Quota];
const JSON_OUT: &[Command] = &[Info, Clone, Rmr, Quota, Doctor, Upgrade];
const MOUNT: &[Command] = &[Mount, Up];
const CACHE: &[Command] = &[Mount, Up, Doctor];
const MOUNT_ONLY: &[Command] = &[Mount];
const UMOUNT: &[Command] = &[Umount];
const UPGRADE: &[Command] = &[Upgrade];
const VERSION_ONLY: &[Command] = &[Version];
const UP: &[Command] = &[Up];
const STATS: &[Command] = &[Stats];
const PROFILE: &[Command] = &[Profile];
const WATCH: &[Command] = &[Stats, Profile];
/// Commands that are about a user or group.
const OWNERS: &[Command] = &[Quota, Profile];
const MAN: &[Command] = &[Man];
const CSI: &[Command] = &[Csi];
const MOUNTER: &[Command] = &[Mounter];
const NODE: &[Command] = &[Csi, Mounter];
const SECRET_OBJECT: &[Command] = &[K8sSecret];
/// Commands that are given the address of a metadata engine.
const ENGINE: &[Command] = &[Format, Config, Mount, StatusOf, Quota, Doctor];

const HADOOP: Status = Missing("only clients of Hadoop look at it, and this is none; set it with theirs");
const SAFE: Status = Missing("data is always in the object store before fsync returns; remove it");

/// Most bytes that a size can name: limits are stored with a sign.
const BYTES_MAX: u64 = i64::MAX as u64;
/// Longest duration, a hundred years: moments that far away can still be computed.
const SECONDS_MAX: u64 = 36_525 * 86_400;
/// Numbers of users and groups; the last one means nobody.
const ID_MAX: u64 = u32::MAX as u64 - 1;
const SMALL_MAX: u64 = u32::MAX as u64;

/// Makes a constant of each row, and [`FLAGS`] of all.
macro_rules! table {
    ($($group:literal: $($id:ident: $kind:ident $(($($range:expr),+))? =
        $name:literal, $aliases:expr, $default:literal, $commands:ident, $status:expr, $help:literal
        $(env $env:literal)? $(file $file:literal)?;)+)+) => {
        $($(
            #[doc = $help]
            pub const $id: Flag<kinds::$kind> = Flag::new(&Row {
                name: $name,
                aliases: &$aliases,
                kind: Kind::$kind $(($($range),+))?,
                default: $default,
                group: $group,
                commands: $commands,
                status: $status,
                help: $help,
                env: table!(@or $($env)?),
                file: table!(@or $($file)?),
            });
        )+)+
        /// All rows, by groups.
        pub const FLAGS: &[&Row] = &[$($($id.row,)+)+];
    };
    (@or) => { None };
    (@or $name:literal) => { Some($name) };
}

table! {
    "General":
    VERBOSE: Switch = "verbose", ["debug", "v"], "", ALL, Ready, "debug messages";
    QUIET: Switch = "quiet", ["q"], "", ALL, Ready, "warnings and errors only";
    TRACE: Switch = "trace", [], "", ALL, Ready, "trace messages";
    LOG_LEVEL: Choice(&["trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"]) =
        "log-level", [], "", ALL, Ready,
        "least level that is logged";
    LOG_ID: Text = "log-id", [], "", ALL, Ready, "word before each log line; random makes one up";
    NO_AGENT: Switch = "no-agent", [], "", ALL, NoOp("there is no profiling port"), "open no profiling port";
    PYROSCOPE: Text = "pyroscope", [], "", ALL, Missing("there is no continuous profiler in it; use one of the system, such as perf"), "continuous profiling";
    NO_COLOR: Switch = "no-color", [], "", ALL, Ready, "no colours";
    HELP: Switch = "help", ["h"], "", ALL, Ready, "show help";
    VERSION: Switch = "version", ["V"], "", ALL, Ready, "show the version";

    "Command":
    FORCE: Switch = "force", [], "", STORED, Ready, "skip safety checks";
    FORCE_UMOUNT: Switch = "force", ["f"], "", UMOUNT, Ready, "unmount although it is in use";
    NO_UPDATE: Switch = "no-update", [], "", FORMAT, Ready, "leave an existing volume as it is";
    IF_ABSENT: Switch =
        "if-absent", [], "", FORMAT, Ready,
        "create the volume or find that it is there, also on several nodes at once; exit code 2 for another volume, 3 for no answer";
    YES: Switch = "yes", ["y"], "", CONFIG, Ready, "ask nothing";
    DATA: Place = "data", [], "", UP, Ready, "directory of the volume";
    BACKGROUND: Switch = "background", ["d"], "", MOUNT_ONLY, Ready, "go to the background when mounted";
    FOREGROUND: Switch = "foreground", ["f"], "", MOUNT_ONLY, Ready, "stay in the foreground";
    NO_SYSLOG: Switch = "no-syslog", [], "", MOUNT_ONLY, NoOp("nothing is sent to syslog"), "do not log to syslog";
    LOG: Place = "log", [], "", MOUNT_ONLY, Ready, "log file of a background mount";
    LOG_LEVEL_FILE: Place = "log-level-file", [], "", MOUNT, Ready, "file with the log level, read again on SIGHUP";
    GUARD: Switch =
        "guard", [], "", MOUNT_ONLY, Ready,
        "make the empty mount point read-only and immutable, so that nobody fills the local disk while nothing is mounted";
    SUPERVISED: Switch =
        "supervised", [], "", MOUNT_ONLY, Ready,
        "keep the mount, its open files and locks when the process that serves it dies or is upgraded";
    RESUME_FROM: Place =
        "resume-from", [], "", MOUNT_ONLY, Ready,
        "with --supervised: go on with the mount that is held by who listens at this socket";
    RESTART_LIMIT: Time(0, SECONDS_MAX) =
        "restart-limit", [], "60s", MOUNT_ONLY, Ready,
        "with --supervised: unmount when for so long no process could be started that serves";
    BINARY: Place = "binary", [], "", UPGRADE, Ready, "program that is to serve the mount; this one if not given";
    WAIT: Time(1, SECONDS_MAX) = "wait", [], "60s", UPGRADE, Ready, "how long the new program may take to be ready";
    CHECK_HANDOVER: Switch =
        "check-handover", [], "", VERSION_ONLY, Ready,
        "tell which mounts of other versions this one can take over";
    UPDATE_FSTAB: Switch = "update-fstab", [], "", MOUNT, Ready, "enter the mount in /etc/fstab";
    DISABLE_TRANSPARENT_HUGEPAGE: Switch = "disable-transparent-hugepage", [], "", MOUNT, Ready, "no huge pages for this process";
    FLUSH: Switch = "flush", [], "", UMOUNT, Ready, "wait until everything is stored and the mount process has ended";
    SESSION: Number(0, u64::MAX) = "session", ["s"], "0", STATUS, Ready, "show one session";
    MORE: Switch = "more", ["m"], "", STATUS, Missing("the counts take a walk over the whole trash; `info -r` on .trash tells what is in it"), "count trash and pending deletions";
    PRESERVE: Switch = "preserve", ["p"], "", CLONE, Ready, "keep owners, modes, times and hard links";
    CLONE_THREADS: Number(1, SMALL_MAX) = "threads", [], "4", CLONE, Ready, "parts cloned at a time";
    SKIP_TRASH: Switch = "skip-trash", [], "", RMR, Ready, "remove for good; root only";
    RMR_THREADS: Number(1, SMALL_MAX) = "threads", ["p"], "50", RMR, Ready, "entries removed at a time";
    INODE: Switch = "inode", ["i"], "", INFO, Ready, "arguments are inodes of the volume at the working directory";
    RECURSIVE: Switch = "recursive", ["r"], "", INFO, Ready, "whole trees";
    STRICT: Switch = "strict", [], "", INFO_QUOTA, Ready, "walk trees instead of adding up usage records";
    RAW: Switch = "raw", [], "", INFO, Ready, "slices instead of objects";
    JSON: Switch = "json", [], "", JSON_OUT, Ready, "for machines";
    PID: Number(0, ID_MAX) = "pid", [], "", PROFILE, Ready, "process";
    SCHEMA: Text = "schema", [], "ufmco", STATS, Ready, "sections to show, a letter each: usage, fuse, metadata, cache, objects";
    INTERVAL: Time(0, SECONDS_MAX) = "interval", ["i"], "", WATCH, Ready, "time between lines of stats (1), tables of profile (2)";
    VERBOSITY: Number(0, SMALL_MAX) = "verbosity", ["l"], "0", STATS, Ready, "1 shows further columns";
    COUNT: Number(0, u64::MAX) = "count", ["c"], "0", WATCH, Ready, "lines or tables to show, 0 for all";
    ENV_FILE: Place = "env-file", [], "", DOCTOR, Ready, "file of NAME=VALUE lines with address and keys, as systemd reads it";
    MOUNT_POINT: Place = "mount-point", [], "", DOCTOR, Ready, "directory where the volume will be mounted";
    FROM_ENV_FILE: Place =
        "from-env-file", [], "", SECRET_OBJECT, Ready,
        "file of NAME=VALUE lines with address and keys, as systemd reads it";
    NAME: Text = "name", [], "juicefs-sc-secret", SECRET_OBJECT, Ready, "name of the Secret";
    NAMESPACE: Text = "namespace", ["n"], "kube-system", SECRET_OBJECT, Ready, "namespace of the Secret";
    APPLY: Switch = "apply", [], "", SECRET_OBJECT, Ready, "hand it to kubectl instead of printing it";
    MARKDOWN: Switch = "markdown", [], "", MAN, Ready, "the reference of all commands instead, in Markdown";
    PATH: Inside = "path", [], "", QUOTA, Ready, "directory, from the root of the volume";
    UID: Number(0, ID_MAX) = "uid", [], "", OWNERS, Ready, "user";
    GID: Number(0, ID_MAX) = "gid", [], "", OWNERS, Ready, "group";
    CREATE: Switch = "create", [], "", QUOTA, Ready, "create the directory if it does not exist";
    REPAIR: Switch = "repair", [], "", QUOTA, Ready, "record what was found";

    "Object store":
    STORAGE: Text = "storage", [], "file", PLACE, Ready, "file, s3, minio, redis, webdav or another of docs/object-stores.md";
    BUCKET: Bucket = "bucket", [], "", PLACE, Ready, "directory, bucket or URL for the objects";
    ENDPOINT: Text = "endpoint", [], "", FORMAT_DOCTOR, Ready, "endpoint of the bucket, joined with --bucket";
    REGION: Text = "region", [], "", PLACE, Ready, "region of the bucket, where its address names none" env "REGION";
    ACCESS_KEY: Text = "access-key", [], "", PLACE, Ready, "access key of the object store" env "ACCESS_KEY" file "access-key-file";
    SECRET_KEY: Secret = "secret-key", [], "", PLACE, Ready, "secret key of the object store" env "SECRET_KEY" file "secret-key-file";
    SESSION_TOKEN: Secret =
        "session-token", [], "", PLACE, Ready,
        "session token of the object store" env "SESSION_TOKEN" file "session-token-file";
    STORAGE_CLASS: Text = "storage-class", [], "", STORED, Ready, "storage class of what is written from now on";
    TAG: Text = "tag", [], "", STORED, Ready, "tag of what is written from now on, KEY=VALUE";
    GET_TIMEOUT: Time(0, SECONDS_MAX) = "get-timeout", [], "60s", MOUNT, Ready, "deadline of a download";
    PUT_TIMEOUT: Time(0, SECONDS_MAX) = "put-timeout", [], "60s", MOUNT, Ready, "deadline of an upload";
    IO_RETRIES: Number(0, SMALL_MAX) = "io-retries", [], "10", MOUNT, Ready, "repetitions of failed requests";
    MAX_UPLOADS: Number(0, 100_000) = "max-uploads", [], "20", MOUNT, Ready, "uploads at a time";
    MAX_DOWNLOADS: Number(0, 100_000) = "max-downloads", [], "200", MOUNT, Ready, "downloads at a time";
    UPLOAD_LIMIT: Rate =
        "upload-limit", [], "", CONFIG_MOUNT, Ready,
        "bandwidth of uploads of one client in Mbps, 0 for no limit";
    DOWNLOAD_LIMIT: Rate =
        "download-limit", [], "", CONFIG_MOUNT, Ready,
        "bandwidth of downloads of one client in Mbps, 0 for no limit";
    MAX_STAGE_WRITE: Number(0, 100_000) = "max-stage-write", [], "1000", MOUNT, SAFE, "staged writes at a time";
    MAX_DELETES: Number(0, 100_000) = "max-deletes", [], "10", MOUNT, Ready, "deletions at a time, 0 for none";
    CHECK_STORAGE: Switch = "check-storage", [], "", MOUNT, Ready, "probe the storage before mounting";
    VERIFY_READS: Switch = "verify-reads", [], "", MOUNT, Ready, "read and verify whole blocks only";

    "Data format":
    BLOCK_SIZE: Bytes('K', 0, BYTES_MAX) = "block-size", [], "4M", FORMAT, Ready, "size of blocks, 64K to 16M";
    COMPRESS: Text = "compress", [], "none", FORMAT, Ready, "none, lz4 or zstd";
    ENCRYPT_RSA_KEY: Place = "encrypt-rsa-key", [], "", FORMAT, Ready, "private key file (PEM) that encrypts the objects";
    ENCRYPT_ALGO: Text = "encrypt-algo", [], "aes256gcm-rsa", FORMAT, Ready, "aes256gcm-rsa or chacha20-rsa";
    ENCRYPT_PASSPHRASE: Secret =
        "encrypt-passphrase", [], "", OPENED, Ready,
        "passphrase of that key" env "JFS_RSA_PASSPHRASE" file "encrypt-passphrase-file";
    HASH_PREFIX: Switch = "hash-prefix", [], "", FORMAT, Ready, "spread object names over 256 prefixes";
    SHARDS: Number(0, 256) = "shards", [], "0", FORMAT, Ready, "number of buckets (%d in --bucket)";

    "Management":
    CAPACITY: Bytes('G', 0, BYTES_MAX) = "capacity", [], "0", LIMITED, Ready, "limit of space, 0 for none";
    INODES: Number(0, BYTES_MAX) = "inodes", [], "0", LIMITED, Ready, "limit of inodes, 0 for none";
    TRASH_DAYS: Number(0, SMALL_MAX) =
        "trash-days", [], "1", FORMAT_CONFIG, Ready,
        "days that removed files stay in the trash";
    ENABLE_ACL: Switch = "enable-acl", [], "", FORMAT_CONFIG, Ready, "POSIX ACLs; cannot be turned off again";
    RANGER_REST_URL: Text = "ranger-rest-url", [], "", FORMAT_CONFIG, HADOOP, "policies of Ranger";
    RANGER_SERVICE: Text = "ranger-service", [], "", FORMAT_CONFIG, HADOOP, "policies of Ranger";
    KERBEROS_CONFIG_FILE: Place = "kerberos-config-file", [], "", FORMAT_CONFIG, HADOOP, "configuration of Kerberos";
    ENCRYPT_SECRET: Switch = "encrypt-secret", [], "", CONFIG, Ready, "encrypt secrets that an old client has stored in the clear";
    MIN_CLIENT_VERSION: Text = "min-client-version", [], "", CONFIG, Ready, "oldest client that may use the volume";
    MAX_CLIENT_VERSION: Text = "max-client-version", [], "", CONFIG, Ready, "newest client that may use the volume";
    DIR_STATS: Switch = "dir-stats", [], "", CONFIG, Ready, "usage per directory";
    USER_GROUP_QUOTA: Switch = "user-group-quota", [], "", CONFIG, Ready, "quotas of users and groups";
    CHANGELOG: Switch = "changelog", [], "", CONFIG, Missing("no log of changes is kept; remove it"), "log of changes";
    CHANGELOG_MAX_AGE: Time(0, SECONDS_MAX) = "changelog-max-age", [], "2h", CONFIG, Missing("no log of changes is kept; remove it"), "log of changes";
    CHANGELOG_MAX_LINES: Number(0, u64::MAX) = "changelog-max-lines", [], "0", CONFIG, Missing("no log of changes is kept; remove it"), "log of changes";
    TIER: Number(0, 3) = "tier", [], "", CONFIG, Ready, "tier that --storage-class and --tag are for";

    "FUSE":
    O: Text = "o", [], "", MOUNT, Ready, "mount options, comma separated";
    HIDE_INTERNAL: Switch = "hide-internal", [], "", MOUNT, Ready, "leave virtual files out of listings";
    PREFIX_INTERNAL: Switch = "prefix-internal", [], "", MOUNT, Ready, "virtual files as .jfs.*";
    ENABLE_XATTR: Switch = "enable-xattr", [], "true", MOUNT, Ready, "extended attributes";
    ENABLE_CAP: Switch = "enable-cap", [], "true", MOUNT, Ready, "security.capability";
    ENABLE_SELINUX: Switch =
        "enable-selinux", [], "", MOUNT, Ready,
        "security.selinux; if not given, where the kernel runs SELinux";
    ENABLE_IOCTL: Switch = "enable-ioctl", [], "true", MOUNT, Ready, "chattr";
    ROOT_SQUASH: Text = "root-squash", [], "", MOUNT, Ready, "map root to another user, USER:GROUP";
    ALL_SQUASH: Text = "all-squash", [], "", MOUNT, Ready, "map everybody to one user, USER:GROUP";
    NON_DEFAULT_PERMISSION: Switch = "non-default-permission", [], "", MOUNT, Ready, "check permissions in the client";
    MAX_FUSE_IO: Bytes('B', 0, BYTES_MAX) = "max-fuse-io", [], "1M", MOUNT, Ready, "largest request of the kernel, 4K to 1M";
    UMASK: Octal(0o777) = "umask", [], "", MOUNT, Ready, "override of umask";

    "Metadata":
    META_PASSWORD: Secret =
        "meta-password", [], "", ENGINE, Ready,
        "password of the metadata engine, where the address has none" env "META_PASSWORD" file "meta-password-file";
    SUBDIR: Inside = "subdir", [], "", MOUNT, Ready, "mount this directory of the volume";
    EXISTING_SUBDIR: Switch =
        "existing-subdir", [], "", MOUNT, Ready, "fail if the directory of --subdir is not there; else it is made";
    READ_ONLY: Switch = "read-only", [], "", MOUNT, Ready, "refuse every change";
    HEARTBEAT: Time(0, 86_400) = "heartbeat", [], "12s", MOUNT, Ready, "interval of session refresh, 0 for none";
    NO_BGJOB: Switch = "no-bgjob", [], "", MOUNT, Ready, "no background jobs";
    BACKUP_META: Time(0, SECONDS_MAX) =
        "backup-meta", [], "0", MOUNT, Only(&["0", "0s"], "this version makes no metadata backups"),
        "metadata backups";
    BACKUP_SKIP_TRASH: Switch =
        "backup-skip-trash", [], "", MOUNT, NoOp("this version makes no metadata backups"),
        "backups";
    ATIME_MODE: Choice(&["noatime", "relatime", "strictatime"]) =
        "atime-mode", [], "noatime", MOUNT, Ready,
        "when access times are written";
    SKIP_DIR_NLINK: Number(0, u64::MAX) =
        "skip-dir-nlink", [], "20", MOUNT, NoOp("link counts are always exact"),
        "for KV engines";
    SKIP_DIR_MTIME: Time(0, SECONDS_MAX) =
        "skip-dir-mtime", [], "0s", MOUNT, Ready,
        "leave a directory's times alone when younger";
    SORT_DIR: Switch = "sort-dir", [], "", MOUNT, Ready, "sorted listings";
    FAST_STATFS: Switch = "fast-statfs", [], "", MOUNT, NoOp("statfs costs one round trip"), "statfs from memory";
    NETWORK_INTERFACES: Text =
        "network-interfaces", [], "", MOUNT, Ready,
        "interfaces whose addresses the session tells, separated by commas; all if not given";

    "Metadata cache":
    ATTR_CACHE: Time(0, SECONDS_MAX) = "attr-cache", [], "1s", MOUNT, Ready, "kernel cache of attributes";
    ENTRY_CACHE: Time(0, SECONDS_MAX) = "entry-cache", [], "1s", MOUNT, Ready, "kernel cache of file names";
    DIR_ENTRY_CACHE: Time(0, SECONDS_MAX) = "dir-entry-cache", [], "1s", MOUNT, Ready, "kernel cache of directory names";
    NEGATIVE_ENTRY_CACHE: Time(0, SECONDS_MAX) =
        "negative-entry-cache", [], "0s", MOUNT, Ready,
        "kernel cache of missing names";
    READDIR_CACHE: Switch = "readdir-cache", [], "", MOUNT, Ready, "kernel cache of listings";
    OPEN_CACHE: Time(0, SECONDS_MAX) =
        "open-cache", [], "0s", MOUNT, Ready,
        "answer opens for reading from memory for so long, without seeing what others change";
    OPEN_CACHE_LIMIT: Number(0, u64::MAX) =
        "open-cache-limit", [], "10000", MOUNT, Ready,
        "files that --open-cache remembers, 0 for no limit";

    "Data cache":
    BUFFER_SIZE: Bytes('M', 0, 1 << 44) = "buffer-size", [], "300M", MOUNT, Ready, "memory for reading and writing";
    MAX_READAHEAD: Bytes('M', 0, BYTES_MAX) = "max-readahead", [], "", MOUNT, Ready, "read ahead of a sequential reader";
    PREFETCH: Number(0, 100_000) = "prefetch", [], "1", MOUNT, Ready, "blocks fetched at a time after random reads";
    WRITEBACK: Switch = "writeback", [], "", MOUNT, SAFE, "stage locally, upload later";
    WRITEBACK_THRESHOLD_SIZE: Bytes('B', 0, BYTES_MAX) =
        "writeback-threshold-size", [], "0", MOUNT, SAFE,
        "stage only small blocks";
    UPLOAD_DELAY: Time(0, SECONDS_MAX) = "upload-delay", [], "0s", MOUNT, SAFE, "delay of staged uploads";
    UPLOAD_HOURS: Text = "upload-hours", [], "", MOUNT, SAFE, "hours of staged uploads";
    CACHE_DIR: Dirs =
        "cache-dir", [], "", CACHE, Ready,
        "cache directories and patterns (* ? []), separated by : or by commas; memory for none";
    CACHE_MODE: Octal(0o777) =
        "cache-mode", [], "0600", MOUNT, Ready,
        "mode of cached blocks, less the umask; never writable for others";
    CACHE_SIZE: Bytes('M', 0, BYTES_MAX) = "cache-size", [], "100G", CACHE, Ready, "size of the disk cache";
    CACHE_ITEMS: Number(0, u64::MAX) = "cache-items", [], "0", MOUNT, Ready, "most blocks in the cache, 0 for as many as fit";
    FREE_SPACE_RATIO: Share = "free-space-ratio", [], "0.1", CACHE, Ready, "share of the cache's disk that stays free";
    CACHE_PARTIAL_ONLY: Switch = "cache-partial-only", [], "", MOUNT, Ready, "cache only small blocks";
    CACHE_LARGE_WRITE: Switch = "cache-large-write", [], "", MOUNT, Ready, "keep full blocks after upload";
    VERIFY_CACHE_CHECKSUM: Text =
        "verify-cache-checksum", [], "extend", MOUNT, NoOp("what is read is always verified"),
        "cache checks";
    CACHE_EVICTION: Choice(&["s3-fifo", "2-random", "lru", "none"]) =
        "cache-eviction", [], "s3-fifo", MOUNT, Ready,
        "which blocks make room for new ones";
    CACHE_SCAN_INTERVAL: Time(0, SECONDS_MAX) =
        "cache-scan-interval", [], "0", MOUNT, NoOp("the index is persistent"),
        "cache scans";
    CACHE_EXPIRE: Time(0, SECONDS_MAX) =
        "cache-expire", [], "0s", MOUNT, Ready,
        "blocks not used for so long leave the cache, 0 for never";

    "Metrics":
    METRICS: Address = "metrics", [], "127.0.0.1:9567", MOUNT, Ready, "address of the Prometheus endpoint";
    CUSTOM_LABELS: Text = "custom-labels", [], "", MOUNT, Ready, "labels of all metrics: NAME:VALUE;NAME:VALUE";
    CONSUL: Address = "consul", [], "", MOUNT, Missing("nothing is registered anywhere; name the address of --metrics in the configuration of Consul"), "register with Consul";
    NO_USAGE_REPORT: Switch = "no-usage-report", [], "", MOUNT, NoOp("nothing is ever reported"), "no usage report";

    "Kubernetes":
    CSI_ENDPOINT: Text =
        "endpoint", [], "unix:///csi/csi.sock", CSI, Ready,
        "socket of the driver" env "CSI_ENDPOINT";
    NODEID: Text = "nodeid", [], "", CSI, Ready, "name of this machine in the cluster" env "NODE_NAME";
    DRIVER_NAME: Text =
        "driver-name", [], "csi.ciderfs.io", CSI, Ready,
        "name of the driver; csi.juicefs.com for volumes that the official driver has made" env "DRIVER_NAME";
    SECRETS_DIR: Place =
        "secrets-dir", [], "", CSI, Ready,
        "Secret of a volume as a directory, for calls that come without one: lists, capacity, deletions after a restart";
    CSI_MODE: Choice(&["controller", "node", "all"]) =
        "mode", [], "all", CSI, Ready,
        "services: controller makes and removes volumes, node mounts them";
    MOUNTER_SOCKET: Text =
        "mounter-socket", [], "/run/ciderfs/mounter/mounter.sock", NODE, Ready,
        "socket of the mounter of this machine" env "CIDERFS_MOUNTER_SOCKET";
    NODE_DIR: Text =
        "node-dir", [], "/run/ciderfs/csi", CSI, Ready,
        "what the node service remembers; must outlive it, and end with the machine";
    RECONCILE: Time(1, 3600) =
        "reconcile", [], "2", CSI, Ready, "time between looks whether volumes must be bound again";
    REGISTRATION_DIR: Text =
        "registration-dir", [], "", CSI, Ready,
        "directory where kubelet looks for plugins; without it, node-driver-registrar makes it know the driver";
    KUBELET_SOCKET: Text =
        "kubelet-socket", [], "", CSI, Ready,
        "the driver's socket as kubelet sees it (default: --endpoint)";
    RUN_DIR: Text =
        "run-dir", [], "/run/ciderfs/mounter", MOUNTER, Ready,
        "directory of records, secrets and logs of clients; in memory, or clients wait for their secrets after a restart";
    MOUNT_DIR: Text =
        "mount-dir", [], "/var/lib/ciderfs/mounts", MOUNTER, Ready, "directory that clients mount in";
    CLIENT_METRICS: Address =
        "metrics", [], "", MOUNTER, Ready,
        "address of one Prometheus endpoint for all clients";
    TRANSIENT_UNITS: Switch =
        "transient-units", [], "", MOUNTER, Ready,
        "start each client as a transient unit of systemd, which outlives the mounter's unit";
    NO_SUPERVISOR: Switch =
        "no-supervisor", [], "", MOUNTER, Ready, "start clients without a supervisor of their own";
}

/// Rows of a command.
pub fn of(command: Command) -> impl Iterator<Item = &'static Row> {
    FLAGS.iter().copied().filter(move |row| row.commands.contains(&command))
}
