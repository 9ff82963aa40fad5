//! Who keeps a mount from being unmounted.

use std::fs;
use std::path::{Path, PathBuf};

use ciderfs_format::shown;
use ciderfs_fuse::mount::list_mounts;

/// Processes that are named.
const NAMED_MAX: usize = 5;

/// Why it cannot be unmounted, and what to do.
pub fn busy(mountpoint: &Path) -> String {
    let below = list_mounts().unwrap_or_default().into_iter().map(|mount| mount.mountpoint);
    let below: Vec<String> = below
        .filter(|other| other != mountpoint && other.starts_with(mountpoint))
        .map(|other| shown(&other).into_owned())
        .collect();
    let force = "or say --force: it disappears at once and ends with its last user";
    if let Some(first) = below.first() {
        return format!(
            "Device or resource busy: something is mounted below it at {first}; unmount that first, {force}"
        );
    }
    let users = users(mountpoint);
    let by = match users.len() {
        0 => "in use by processes that cannot be seen from here (of another user, or in a container)"
            .to_owned(),
        n => {
            let mut named = users.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
            if n > NAMED_MAX {
                named += &format!(" and {} more", n - NAMED_MAX);
            }
            format!("in use by {named}")
        }
    };
    format!("Device or resource busy: {by}; let them end or leave it, {force}")
}

/// Processes that have something of it open, as `NAME (PID)`.
fn users(mountpoint: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = processes.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let uses = |pid: &u32| uses(&PathBuf::from(format!("/proc/{pid}")), mountpoint);
    pids.into_iter().filter(uses).map(|pid| format!("{} ({pid})", name(pid))).collect()
}

fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    ciderfs_format::excerpt(name.trim())
}

/// Looks at links only: what they lead to may not answer.
fn uses(process: &Path, mountpoint: &Path) -> bool {
    let is_below = |link: &Path| fs::read_link(link).is_ok_and(|target| target.starts_with(mountpoint));
    if ["cwd", "root", "exe"].iter().any(|link| is_below(&process.join(link))) {
        return true;
    }
    // Files that are open, and those that are only mapped.
    ["fd", "map_files"].iter().any(|dir| {
        fs::read_dir(process.join(dir)).into_iter().flatten().flatten().any(|entry| is_below(&entry.path()))
    })
}
