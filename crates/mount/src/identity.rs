//! On whose behalf a request is served (`docs/semantics.md#names-and-attributes`).

use ciderfs_format::{FileType, Ino};
use ciderfs_fuse::Request;
use ciderfs_meta::Caller;
use ciderfs_vfs::Vfs;

/// Who checks permissions, and as whom callers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identity {
    /// Check permissions in this process because the kernel does not (no `default_permissions`).
    pub check: bool,
    /// The superuser counts as this user and group.
    pub root_squash: Option<(u32, u32)>,
    /// Everybody counts as this user and group.
    pub all_squash: Option<(u32, u32)>,
    /// Replaces the umask of every caller; the kernel must leave umasks alone then (`dont_mask`).
    pub umask: Option<u16>,
}

impl Identity {
    /// The caller that a request counts as.
    pub(crate) fn caller(&self, req: &Request) -> Caller {
        let h = req.header();
        if let Some((uid, gid)) = self.squashed(h.uid) {
            return Caller { uid, gid, groups: Vec::new(), pid: h.pid, check: true };
        }
        let mut groups = req.supplementary_groups();
        // Here this process decides who may, whoever checks elsewhere.
        let node = Ino(h.nodeid);
        let decides = self.check || node.is_trash() || Vfs::is_control(node);
        if decides && groups.is_empty() && h.uid != 0 {
            groups = groups_of(h.pid);
        }
        Caller { uid: h.uid, gid: h.gid, groups, pid: h.pid, check: self.check }
    }

    /// As whom a user counts who does not count as himself.
    fn squashed(&self, uid: u32) -> Option<(u32, u32)> {
        self.all_squash.or(self.root_squash.filter(|_| uid == 0))
    }

    /// May the caller make such a node? The kernel has asked for the right to make devices, which does not count for who is
    /// squashed. As everywhere, anybody makes the device 0:0, which leads nowhere: it is what overlays put in the place of a
    /// removed name.
    pub(crate) fn may_make(&self, req: &Request, kind: FileType, rdev: u32) -> bool {
        let leads_somewhere = match kind {
            FileType::CharDevice => rdev != 0,
            kind => kind == FileType::BlockDevice,
        };
        !leads_somewhere || self.squashed(req.header().uid).is_none()
    }

    /// Is the caller in a group, if only by a supplementary one?
    pub(crate) fn is_member(c: &Caller, gid: u32) -> bool {
        c.in_group(gid) || groups_of(c.pid).contains(&gid)
    }

    /// As whom the superuser counts, where others do not count so too. The kernel lets him search any directory, so of names that it
    /// holds he needs no leave.
    pub(crate) fn squashed_root(&self) -> Option<Caller> {
        let (uid, gid) = self.root_squash.filter(|_| self.all_squash.is_none())?;
        Some(Caller { uid, gid, groups: Vec::new(), pid: 0, check: true })
    }

    /// May the kernel show one caller what it looked up for another? Not where each lookup must be checked here.
    pub(crate) fn names_may_be_cached(&self) -> bool {
        !self.check || self.all_squash.is_some()
    }
}

/// Supplementary groups of a thread. Asked for each time: a process may change them, and its number may be used again.
/// None if it is gone or in another name space.
fn groups_of(pid: u32) -> Vec<u32> {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return Vec::new() };
    parse_groups(&status)
}

fn parse_groups(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|l| l.strip_prefix("Groups:")).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|g| g.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_from_the_status() {
        assert_eq!(parse_groups("Name:\tsh\nGroups:\t4 24 4294967294 \nNStgid:\t7\n"), [4, 24, u32::MAX - 1]);
        assert_eq!(parse_groups("Name:\tsh\nGroups:\t \n"), [0_u32; 0]);
        assert_eq!(groups_of(u32::MAX), [0_u32; 0]);
    }
}
