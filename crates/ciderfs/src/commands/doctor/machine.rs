//! What a mount needs of this machine.

use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ciderfs_format::shown;
use ciderfs_fuse::mount::{absolute, find_mount};
use rustix::fs::{Access, IFlags, StatVfs};
use rustix::process::{Resource, geteuid, getrlimit};

use super::report::Finding;
use crate::commands::mountpoint::is_volume;

/// The device of FUSE.
const DEVICE: &str = "/dev/fuse";
/// Oldest kernel whose FUSE is accepted (`ciderfs_fuse::abi::MINOR_MIN`).
const OLDEST_KERNEL: (u32, u32) = (5, 4);
/// Descriptors that a client may need at a time: connections, cache files, and some more.
const DESCRIPTORS: u64 = 1024;
/// What units and shells should allow.
const DESCRIPTORS_WANTED: u64 = 1 << 20;

/// The kernel's FUSE.
pub fn kernel() -> Finding {
    let check = "kernel FUSE";
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST_KERNEL {
        let (major, minor) = OLDEST_KERNEL;
        let remedy = format!("boot Linux {major}.{minor} or later");
        return Finding::failed(check, format!("Linux {release} is too old"), remedy);
    }
    match OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(DEVICE) {
        Ok(_) => Finding::ok(check, format!("Linux {release}, {DEVICE} can be opened")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Finding::failed(
            check,
            format!("there is no {DEVICE}"),
            "load the module (modprobe fuse); give a container the device",
        ),
        Err(e) => Finding::failed(
            check,
            format!("{DEVICE} cannot be opened: {e}"),
            "chmod 0666 /dev/fuse, or run as root; a container needs the right to use the device",
        ),
    }
}

/// The helper of those who are not root.
pub fn fusermount() -> Finding {
    let check = "fusermount3";
    if geteuid().is_root() {
        return Finding::ok(check, "root needs none");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(check)).find(|file| file.is_file());
    let Some(file) = found else {
        return Finding::failed(check, "it is not on the search path", "install the package fuse3");
    };
    match std::fs::metadata(&file) {
        Ok(meta) if meta.mode() & 0o4000 != 0 && meta.uid() == 0 => Finding::ok(check, shown(&file)),
        _ => Finding::failed(
            check,
            format!("{} does not run as root, so it cannot mount", shown(&file)),
            format!(
                "chown root {0}; chmod 4755 {0} (NixOS: put /run/wrappers/bin first on PATH)",
                shown(&file)
            ),
        ),
    }
}

/// Does something keep the clock right?
pub fn clock() -> Finding {
    let check = "clock";
    match is_synchronised() {
        Ok(true) => Finding::ok(check, "it is synchronised"),
        Ok(false) => Finding::warning(
            check,
            "nothing synchronises it, as far as the kernel knows",
            "run chrony or systemd-timesyncd (timedatectl set-ntp true); in a container, on its host",
        ),
        Err(e) => Finding::skipped(check, format!("the kernel does not tell: {e}"), "compare it by hand"),
    }
}

#[allow(unsafe_code, reason = "no safe call reads the state of the clock")]
fn is_synchronised() -> std::io::Result<bool> {
    // SAFETY: it is a record of numbers, for which zero is a value.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the record is ours; with no modes set nothing is changed.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    if answer < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(answer != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0)
}

/// Descriptors.
pub fn descriptors() -> Finding {
    let check = "open files";
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    if soft >= DESCRIPTORS {
        return Finding::ok(check, format!("{soft} may be open"));
    }
    Finding::warning(
        check,
        format!("only {soft} may be open; a busy mount needs {DESCRIPTORS} and more"),
        format!("LimitNOFILE={DESCRIPTORS_WANTED} in the unit, or ulimit -n {DESCRIPTORS_WANTED}"),
    )
}

/// A cache directory, of so many bytes, on a file system of which this share stays free.
pub fn cache(dir: &Path, size: u64, free_ratio: f32) -> Vec<Finding> {
    let check = "cache directory";
    let name = shown(dir);
    let (there, meta) = match nearest(dir) {
        Ok(found) => found,
        Err(e) => return vec![Finding::failed(check, format!("{name}: {e}"), "choose another --cache-dir")],
    };
    if !meta.is_dir() {
        let text = format!("{} is no directory", shown(&there));
        return vec![Finding::failed(check, text, "choose another --cache-dir")];
    }
    if let Err(e) = ciderfs_block::check_cache_owner(dir) {
        return vec![Finding::error(check, &e.to_string(), "choose a directory of your own")];
    }
    if there == dir && meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0 {
        return vec![Finding::failed(
            check,
            format!("others may write to {name} (mode {:04o})", meta.mode() & 0o7777),
            format!("chmod 0700 {name}"),
        )];
    }
    if let Err(e) = rustix::fs::access(&there, Access::WRITE_OK | Access::EXEC_OK) {
        let text = format!("{} is not for this user to write to: {e}", shown(&there));
        return vec![Finding::failed(check, text, format!("chown {} {}", geteuid().as_raw(), shown(&there)))];
    }
    let mut findings = Vec::new();
    match rustix::fs::statvfs(&there) {
        Ok(fs) => findings.extend(space(check, &name, &fs, size, free_ratio)),
        Err(e) => findings.push(Finding::failed(check, format!("{name}: {e}"), "choose another --cache-dir")),
    }
    if let Some(kind) = network(&there) {
        findings.push(Finding::warning(
            check,
            format!("{name} is on {kind}, over a network"),
            "choose a directory on a disk of this machine",
        ));
    }
    if std::fs::metadata("/").is_ok_and(|root| root.dev() == meta.dev()) {
        findings.push(Finding::warning(
            check,
            format!("{name} is on the disk of the root file system, which it can slow down and fill"),
            "give the cache a disk or partition of its own, or a smaller --cache-size",
        ));
    }
    if findings.is_empty() {
        let there = if there == dir { "" } else { ", which a mount makes" };
        findings.push(Finding::ok(check, format!("{name}{there}")));
    }
    findings
}

fn space(check: &'static str, name: &str, fs: &StatVfs, size: u64, free_ratio: f32) -> Option<Finding> {
    let (free, all) = (fs.f_bavail.saturating_mul(fs.f_frsize), fs.f_blocks.saturating_mul(fs.f_frsize));
    let kept = (all as f64 * f64::from(free_ratio)) as u64;
    let room = free.saturating_sub(kept);
    if room == 0 && size > 0 {
        return Some(Finding::failed(
            check,
            format!(
                "{name} has {} free of {}, and {} stay free: nothing is cached",
                mib(free),
                mib(all),
                mib(kept)
            ),
            "make room, or lower --free-space-ratio",
        ));
    }
    (room < size).then(|| {
        Finding::warning(
            check,
            format!(
                "{name} has room for {} beside what stays free, and --cache-size is {}",
                mib(room),
                mib(size)
            ),
            format!("--cache-size={}, or another directory", room >> 20),
        )
    })
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// The path, or what is there of it.
fn nearest(path: &Path) -> std::io::Result<(PathBuf, std::fs::Metadata)> {
    let mut at = path;
    loop {
        match (std::fs::metadata(at), at.parent()) {
            (Ok(meta), _) => return Ok((at.to_owned(), meta)),
            (Err(e), Some(parent)) if e.kind() == std::io::ErrorKind::NotFound => at = parent,
            (Err(e), _) => return Err(e),
        }
    }
}

/// What a place is on, if that is a network.
pub fn network(path: &Path) -> Option<&'static str> {
    const KINDS: [(i64, &str); 8] = [
        (0x6969, "NFS"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB"),
        (0x0102_1997, "9P"),
        (0x00c3_6400, "Ceph"),
        (0x5346_414f, "AFS"),
        (0x0bd0_0bd0, "Lustre"),
        (0x6573_5546, "FUSE"),
    ];
    #[allow(clippy::unnecessary_cast, reason = "of another width elsewhere")]
    let kind = rustix::fs::statfs(path).ok()?.f_type as i64;
    KINDS.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name)
}

/// The directory where the volume will be mounted.
pub fn mount_point(path: &Path) -> Finding {
    let check = "mount point";
    let name = shown(path);
    if path == Path::new("/") {
        return Finding::failed(check, "nothing is mounted at /", "choose another directory");
    }
    let full = absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Ok(Some(mount)) = find_mount(&full) {
        if std::fs::metadata(&full).is_err_and(|e| e.raw_os_error() == Some(libc::ENOTCONN)) {
            return Finding::warning(
                check,
                format!("the server of the mount of {} at {name} died", mount.source),
                format!("the next mount takes it away; until then: umount -l {name}"),
            );
        }
        let text = format!("{} ({}) is mounted at {name}", mount.source, mount.fstype);
        let remedy = format!("unmount it first (umount {name}), or choose another directory");
        return match is_volume(&mount) {
            true => Finding::warning(check, text, remedy),
            false => Finding::failed(check, text, remedy),
        };
    }
    match std::fs::metadata(&full) {
        Ok(meta) if !meta.is_dir() => {
            return Finding::failed(check, format!("{name} is no directory"), "choose a directory");
        }
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Finding::warning(check, format!("{name} does not exist"), format!("mkdir -p {name}"));
        }
        Err(e) => return Finding::failed(check, format!("{name}: {e}"), "choose another directory"),
    }
    match std::fs::read_dir(&full).map(|mut entries| entries.next().is_some()) {
        Ok(false) => {}
        Ok(true) => {
            return Finding::failed(
                check,
                format!("{name} is not empty: a mount hides what is there, perhaps written while none was"),
                "move the files away, and copy them to the volume afterwards",
            );
        }
        Err(e) => return Finding::failed(check, format!("{name}: {e}"), "choose another directory"),
    }
    if geteuid().is_root() {
        return Finding::ok(check, format!("{name} is empty"));
    }
    let directory = std::fs::File::open(&full).ok();
    let flags = directory.and_then(|dir| rustix::fs::ioctl_getflags(dir).ok()).unwrap_or(IFlags::empty());
    if flags.contains(IFlags::IMMUTABLE) {
        let text = format!("{name} is immutable, so none but root mounts there");
        return Finding::failed(check, text, format!("mount as root, or as root: chattr -i {name}"));
    }
    match rustix::fs::access(&full, Access::WRITE_OK) {
        Ok(()) => Finding::ok(check, format!("{name} is empty")),
        Err(e) => Finding::failed(
            check,
            format!("{name} is not for this user to mount at: {e}"),
            format!("as root: chown {} {name}", geteuid().as_raw()),
        ),
    }
}
