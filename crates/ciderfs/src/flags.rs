//! Every flag, defined once: parsing, help and refusal come from this table (`spec/cli.md` 2 to 5).

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or `=true` and `=false`.
    Bool,
    /// A text.
    Text,
    /// A whole number, from and to.
    Int(u64, u64),
    /// A fraction of a whole, from 0 to 1.
    Share,
    /// Bytes, from and to; the letter is the unit of a bare number.
    Size(char, u64, u64),
    /// `HOST:PORT`, or nothing.
    Address,
    /// A duration in seconds, from and to; a bare number is seconds.
    Duration(u64, u64),
    /// A place on this machine.
    Path,
    /// A path within the volume, in any bytes.
    Inside,
    /// A list of cache directories.
    Dirs,
    /// A bucket, or a directory where objects are files.
    Bucket,
    /// A text that nobody else may see.
    Secret,
    /// The address of metadata, which may name files.
    Source,
}

/// What an argument of a command is that is no flag.
pub fn positional(command: &str, index: usize) -> Kind {
    match (command, index) {
        ("format" | "config" | "mount" | "status", 0) | ("quota", 1) => Kind::Source,
        ("mount", 1) | ("umount" | "up" | "stats" | "profile", 0) | ("info", _) => Kind::Path,
        _ => Kind::Text,
    }
}

/// Is a flag there?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It works.
    Ready,
    /// Accepted and without effect, for the given reason.
    NoOp(&'static str),
    /// Only these values are there, which change nothing; others are refused for the given reason.
    Only(&'static [&'static str], &'static str),
    /// Refused; the text says why or what to do.
    Missing(&'static str),
}

/// A flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Name without dashes.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// Value.
    pub kind: Kind,
    /// Default as shown in help.
    pub default: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Commands that take it.
    pub commands: &'static [&'static str],
    /// Is it there?
    pub status: Status,
}

use Kind::{Address, Bool, Bucket, Dirs, Duration, Inside, Int, Path, Secret, Share, Size, Text};
use Status::{Missing, NoOp, Only, Ready};

const ALL: &[&str] = &["*"];
const FORMAT: &[&str] = &["format"];
const FORMAT_CONFIG: &[&str] = &["format", "config"];
const LIMITED: &[&str] = &["format", "config", "quota"];
const STATS: &[&str] = &["stats"];
const WATCH: &[&str] = &["stats", "profile"];
const MOUNT: &[&str] = &["mount", "up"];
const LATER: Status = Missing("it comes with a later version; remove it");
const SAFE: Status = Missing("data is always in the object store before fsync returns; remove it");

/// Most bytes that a size can name: limits are stored with a sign.
const BYTES_MAX: u64 = i64::MAX as u64;
/// Longest duration, a hundred years: moments that far away can still be computed.
const SECONDS_MAX: u64 = 36_525 * 86_400;
const TIME: Kind = Duration(0, SECONDS_MAX);
/// Things done or tried at a time.
const COUNT: Kind = Int(0, 100_000);
/// Numbers of users and groups; the last one means nobody.
const ID: Kind = Int(0, u32::MAX as u64 - 1);
const NUMBER: Kind = Int(0, u64::MAX);
const SMALL: Kind = Int(0, u32::MAX as u64);

macro_rules! flag {
    ($name:literal, $aliases:expr, $kind:expr, $default:literal, $commands:expr, $status:expr, $help:literal) => {
        Flag {
            name: $name,
            aliases: $aliases,
            kind: $kind,
            default: $default,
            help: $help,
            commands: $commands,
            status: $status,
        }
    };
}

/// The table.
pub const FLAGS: &[Flag] = &[
    flag!("verbose", &["debug", "v"], Bool, "", ALL, Ready, "debug messages"),
    flag!("quiet", &["q"], Bool, "", ALL, Ready, "warnings and errors only"),
    flag!("trace", &[], Bool, "", ALL, Ready, "trace messages"),
    flag!("log-level", &[], Text, "", ALL, Ready, "trace, debug, info, warn or error"),
    flag!("log-id", &[], Text, "", ALL, LATER, "prefix of log lines"),
    flag!("no-agent", &[], Bool, "", ALL, NoOp("there is no profiling port"), "open no profiling port"),
    flag!("pyroscope", &[], Text, "", ALL, LATER, "continuous profiling"),
    flag!("no-color", &[], Bool, "", ALL, Ready, "no colours"),
    flag!("help", &["h"], Bool, "", ALL, Ready, "show help"),
    flag!("storage", &[], Text, "file", &["format", "config", "mount"], Ready, "file, s3 or minio"),
    flag!(
        "bucket",
        &[],
        Bucket,
        "",
        &["format", "config", "mount"],
        Ready,
        "directory, bucket or URL for the objects"
    ),
    flag!("endpoint", &[], Text, "", FORMAT, Ready, "endpoint of the bucket, joined with --bucket"),
    flag!("access-key", &[], Text, "", FORMAT_CONFIG, Ready, "access key (env ACCESS_KEY)"),
    flag!(
        "secret-key",
        &[],
        Secret,
        "",
        FORMAT_CONFIG,
        Ready,
        "secret key; - reads it from standard input (format: env SECRET_KEY)"
    ),
    flag!(
        "session-token",
        &[],
        Secret,
        "",
        FORMAT_CONFIG,
        Ready,
        "session token; - reads it from standard input (format: env SESSION_TOKEN)"
    ),
    flag!("storage-class", &[], Text, "", &["format", "config", "mount"], LATER, "storage class of objects"),
    flag!("tag", &[], Text, "", &["format", "config", "mount"], LATER, "tag of objects"),
    flag!("block-size", &[], Size('K', 0, BYTES_MAX), "4M", FORMAT, Ready, "size of blocks, 64K to 16M"),
    flag!("compress", &[], Text, "none", FORMAT, Ready, "none, lz4 or zstd"),
    flag!(
        "encrypt-rsa-key",
        &[],
        Path,
        "",
        FORMAT,
        Ready,
        "private key file (PEM) that encrypts the objects"
    ),
    flag!("encrypt-algo", &[], Text, "aes256gcm-rsa", FORMAT, Ready, "aes256gcm-rsa or chacha20-rsa"),
    flag!("hash-prefix", &[], Bool, "", FORMAT, Ready, "spread object names over 256 prefixes"),
    flag!("shards", &[], Int(0, 256), "0", FORMAT, Ready, "number of buckets (%d in --bucket)"),
    flag!("capacity", &[], Size('G', 0, BYTES_MAX), "0", LIMITED, Ready, "limit of space, 0 for none"),
    flag!("inodes", &[], Int(0, BYTES_MAX), "0", LIMITED, Ready, "limit of inodes, 0 for none"),
    flag!("trash-days", &[], SMALL, "1", FORMAT_CONFIG, Ready, "days that removed files stay in the trash"),
    flag!("enable-acl", &[], Bool, "", FORMAT_CONFIG, Ready, "POSIX ACLs; cannot be turned off again"),
    flag!("ranger-rest-url", &[], Text, "", FORMAT_CONFIG, LATER, "Ranger"),
    flag!("ranger-service", &[], Text, "", FORMAT_CONFIG, LATER, "Ranger"),
    flag!("kerberos-config-file", &[], Path, "", FORMAT_CONFIG, LATER, "Kerberos"),
    flag!("force", &[], Bool, "", &["format", "config", "mount", "umount"], Ready, "skip safety checks"),
    flag!("no-update", &["if-absent"], Bool, "", FORMAT, Ready, "leave an existing volume as it is"),
    flag!("yes", &["y"], Bool, "", &["config"], Ready, "ask nothing"),
    flag!("upload-limit", &[], Text, "0", &["config", "mount"], LATER, "bandwidth of uploads"),
    flag!("download-limit", &[], Text, "0", &["config", "mount"], LATER, "bandwidth of downloads"),
    flag!("encrypt-secret", &[], Bool, "", &["config"], LATER, "encrypt the secret key"),
    flag!("min-client-version", &[], Text, "", &["config"], LATER, "oldest client allowed"),
    flag!("max-client-version", &[], Text, "", &["config"], LATER, "newest client allowed"),
    flag!("dir-stats", &[], Bool, "", &["config"], Ready, "usage per directory"),
    flag!("user-group-quota", &[], Bool, "", &["config"], Ready, "quotas of users and groups"),
    flag!("path", &[], Inside, "", &["quota"], Ready, "directory, from the root of the volume"),
    flag!("uid", &[], ID, "", &["quota", "profile"], Ready, "user"),
    flag!("gid", &[], ID, "", &["quota", "profile"], Ready, "group"),
    flag!("create", &[], Bool, "", &["quota"], Ready, "create the directory if it does not exist"),
    flag!("repair", &[], Bool, "", &["quota"], Ready, "record what was found"),
    flag!("changelog", &[], Bool, "", &["config"], LATER, "log of changes"),
    flag!("changelog-max-age", &[], TIME, "2h", &["config"], LATER, "log of changes"),
    flag!("changelog-max-lines", &[], NUMBER, "0", &["config"], LATER, "log of changes"),
    flag!("tier", &[], Int(0, 3), "0", &["config"], LATER, "storage tier"),
    flag!("session", &["s"], NUMBER, "0", &["status"], Ready, "show one session"),
    flag!("more", &["m"], Bool, "", &["status"], LATER, "count trash and pending deletions"),
    flag!(
        "inode",
        &["i"],
        Bool,
        "",
        &["info"],
        Ready,
        "arguments are inodes of the volume at the working directory"
    ),
    flag!("recursive", &["r"], Bool, "", &["info"], Ready, "whole trees"),
    flag!(
        "strict",
        &[],
        Bool,
        "",
        &["info", "quota"],
        Ready,
        "walk trees instead of adding up usage records"
    ),
    flag!("raw", &[], Bool, "", &["info"], Ready, "slices instead of objects"),
    flag!("json", &[], Bool, "", &["info", "quota"], Ready, "for machines"),
    flag!("data", &[], Path, "", &["up"], Ready, "directory of the volume"),
    flag!("background", &["d"], Bool, "", &["mount"], Ready, "go to the background when mounted"),
    flag!("foreground", &["f"], Bool, "", &["mount"], Ready, "stay in the foreground"),
    flag!("no-syslog", &[], Bool, "", &["mount"], NoOp("nothing is sent to syslog"), "do not log to syslog"),
    flag!("log", &[], Path, "", &["mount"], Ready, "log file of a background mount"),
    flag!("o", &[], Text, "", MOUNT, Ready, "mount options, comma separated"),
    flag!("subdir", &[], Inside, "", MOUNT, Ready, "mount this directory of the volume"),
    flag!("read-only", &[], Bool, "", MOUNT, Ready, "refuse every change"),
    flag!(
        "heartbeat",
        &[],
        Duration(0, 86_400),
        "12s",
        MOUNT,
        Ready,
        "interval of session refresh, 0 for none"
    ),
    flag!("no-bgjob", &[], Bool, "", MOUNT, Ready, "no background jobs"),
    flag!(
        "backup-meta",
        &[],
        TIME,
        "0",
        MOUNT,
        Only(&["0", "0s"], "this version makes no metadata backups"),
        "metadata backups"
    ),
    flag!(
        "backup-skip-trash",
        &[],
        Bool,
        "",
        MOUNT,
        NoOp("this version makes no metadata backups"),
        "backups"
    ),
    flag!("atime-mode", &[], Text, "noatime", MOUNT, Ready, "noatime, relatime or strictatime"),
    flag!("skip-dir-nlink", &[], NUMBER, "20", MOUNT, NoOp("link counts are always exact"), "for KV engines"),
    flag!("skip-dir-mtime", &[], TIME, "0s", MOUNT, Ready, "leave a directory's times alone when younger"),
    flag!("sort-dir", &[], Bool, "", MOUNT, Ready, "sorted listings"),
    flag!("fast-statfs", &[], Bool, "", MOUNT, NoOp("statfs costs one turn"), "statfs from memory"),
    flag!("network-interfaces", &[], Text, "", MOUNT, LATER, "interfaces shown in the session"),
    flag!("attr-cache", &[], TIME, "1s", MOUNT, Ready, "kernel cache of attributes"),
    flag!("entry-cache", &[], TIME, "1s", MOUNT, Ready, "kernel cache of file names"),
    flag!("dir-entry-cache", &[], TIME, "1s", MOUNT, Ready, "kernel cache of directory names"),
    flag!("negative-entry-cache", &[], TIME, "0s", MOUNT, Ready, "kernel cache of missing names"),
    flag!("readdir-cache", &[], Bool, "", MOUNT, Ready, "kernel cache of listings"),
    flag!("open-cache", &[], TIME, "0s", MOUNT, LATER, "answer opens from memory"),
    flag!("open-cache-limit", &[], NUMBER, "10000", MOUNT, LATER, "answer opens from memory"),
    flag!("get-timeout", &[], TIME, "60s", MOUNT, Ready, "deadline of a download"),
    flag!("put-timeout", &[], TIME, "60s", MOUNT, Ready, "deadline of an upload"),
    flag!("io-retries", &[], SMALL, "10", MOUNT, Ready, "repetitions of failed requests"),
    flag!("max-uploads", &[], Int(0, 100_000), "20", MOUNT, Ready, "uploads at a time"),
    flag!("max-downloads", &[], Int(0, 100_000), "200", MOUNT, Ready, "downloads at a time"),
    flag!("max-stage-write", &[], COUNT, "1000", MOUNT, SAFE, "staged writes at a time"),
    flag!("max-deletes", &[], COUNT, "10", MOUNT, Ready, "deletions at a time, 0 for none"),
    flag!("check-storage", &[], Bool, "", MOUNT, Ready, "probe the storage before mounting"),
    flag!("verify-reads", &[], Bool, "", MOUNT, Ready, "read and verify whole blocks only"),
    flag!("buffer-size", &[], Size('M', 0, 1 << 44), "300M", MOUNT, Ready, "memory for reading and writing"),
    flag!(
        "max-readahead",
        &[],
        Size('M', 0, BYTES_MAX),
        "",
        MOUNT,
        Ready,
        "read ahead of a sequential reader"
    ),
    flag!("prefetch", &[], COUNT, "1", MOUNT, Ready, "blocks fetched at a time after random reads"),
    flag!("writeback", &[], Bool, "", MOUNT, SAFE, "stage locally, upload later"),
    flag!(
        "writeback-threshold-size",
        &[],
        Size('B', 0, BYTES_MAX),
        "0",
        MOUNT,
        SAFE,
        "stage only small blocks"
    ),
    flag!("upload-delay", &[], TIME, "0s", MOUNT, SAFE, "delay of staged uploads"),
    flag!("upload-hours", &[], Text, "", MOUNT, SAFE, "hours of staged uploads"),
    flag!(
        "cache-dir",
        &[],
        Dirs,
        "",
        MOUNT,
        Ready,
        "cache directories and patterns (* ? []), separated by : or by commas; memory for none"
    ),
    flag!(
        "cache-mode",
        &[],
        Text,
        "0600",
        MOUNT,
        Only(&["0600", "600"], "cache files are private"),
        "mode of cache files"
    ),
    flag!("cache-size", &[], Size('M', 0, BYTES_MAX), "100G", MOUNT, Ready, "size of the disk cache"),
    flag!("cache-items", &[], NUMBER, "0", MOUNT, LATER, "blocks in the cache"),
    flag!("free-space-ratio", &[], Share, "0.1", MOUNT, Ready, "share of the cache's disk that stays free"),
    flag!("cache-partial-only", &[], Bool, "", MOUNT, Ready, "cache only small blocks"),
    flag!("cache-large-write", &[], Bool, "", MOUNT, Ready, "keep full blocks after upload"),
    flag!(
        "verify-cache-checksum",
        &[],
        Text,
        "extend",
        MOUNT,
        NoOp("what is read is always verified"),
        "cache checks"
    ),
    flag!("cache-eviction", &[], Text, "s3-fifo", MOUNT, LATER, "eviction policy"),
    flag!("cache-scan-interval", &[], TIME, "0", MOUNT, NoOp("the index is persistent"), "cache scans"),
    flag!("cache-expire", &[], TIME, "0s", MOUNT, LATER, "expiry of cached blocks"),
    flag!("schema", &[], Text, "ufmco", STATS, Ready, "sections to show, a letter each"),
    flag!(
        "interval",
        &["i"],
        TIME,
        "",
        WATCH,
        Ready,
        "time between lines of stats (1), tables of profile (2)"
    ),
    flag!("pid", &[], ID, "", &["profile"], Ready, "process"),
    flag!("verbosity", &["l"], SMALL, "0", STATS, Ready, "1 shows further columns"),
    flag!("count", &["c"], NUMBER, "0", WATCH, Ready, "lines or tables to show, 0 for all"),
    flag!("metrics", &[], Address, "127.0.0.1:9567", MOUNT, Ready, "address of the Prometheus endpoint"),
    flag!("custom-labels", &[], Text, "", MOUNT, LATER, "labels of metrics"),
    flag!("consul", &[], Address, "", MOUNT, LATER, "register with Consul"),
    flag!("no-usage-report", &[], Bool, "", MOUNT, NoOp("nothing is ever reported"), "no usage report"),
    flag!("hide-internal", &[], Bool, "", MOUNT, Ready, "leave virtual files out of listings"),
    flag!("prefix-internal", &[], Bool, "", MOUNT, Ready, "virtual files as .jfs.*"),
    flag!("update-fstab", &[], Bool, "", MOUNT, Ready, "enter the mount in /etc/fstab"),
    flag!("disable-transparent-hugepage", &[], Bool, "", MOUNT, LATER, "huge pages"),
    flag!("enable-xattr", &[], Bool, "true", MOUNT, Ready, "extended attributes"),
    flag!("enable-cap", &[], Bool, "true", MOUNT, Ready, "security.capability"),
    flag!(
        "enable-selinux",
        &[],
        Bool,
        "",
        MOUNT,
        Ready,
        "security.selinux; if not given, where the kernel runs SELinux"
    ),
    flag!("enable-ioctl", &[], Bool, "true", MOUNT, Ready, "chattr"),
    flag!("root-squash", &[], Text, "", MOUNT, Ready, "map root to another user, USER:GROUP"),
    flag!("all-squash", &[], Text, "", MOUNT, Ready, "map everybody to one user, USER:GROUP"),
    flag!("non-default-permission", &[], Bool, "", MOUNT, Ready, "check permissions in the client"),
    flag!(
        "max-fuse-io",
        &[],
        Size('B', 0, BYTES_MAX),
        "1M",
        MOUNT,
        Ready,
        "largest request of the kernel, 4K to 1M"
    ),
    flag!("umask", &[], Text, "", MOUNT, Ready, "override of umask"),
    flag!("flush", &[], Bool, "", &["umount"], NoOp("nothing is staged"), "wait for staged data"),
];

/// Flags that a command takes.
pub fn of(command: &str) -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(move |f| f.commands.contains(&"*") || f.commands.contains(&command))
}
