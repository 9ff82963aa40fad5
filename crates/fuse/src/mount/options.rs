//! Options of a mount.

use rustix::mount::MountFlags;

use super::MountError;

/// Options that only programs around mounting look at; never passed on.
const IGNORED: [&str; 9] =
    ["_netdev", "nofail", "auto", "noauto", "user", "users", "nouser", "nousers", "defaults"];

/// Options that name the SELinux context of a mount or of its files. There are commas in contexts, so mount(8) and kubelet quote them.
const CONTEXTS: [&str; 4] = ["context=", "fscontext=", "defcontext=", "rootcontext="];

/// The options of a list, as mount(8) and the kernel read it: a comma ends one, but not in the quotes of a context.
pub fn split(list: &[u8]) -> Vec<&[u8]> {
    let (mut out, mut rest) = (Vec::new(), list);
    loop {
        let end = end_of_first(rest);
        out.push(&rest[..end]);
        match rest.get(end + 1..) {
            Some(more) => rest = more,
            None => return out,
        }
    }
}

/// The same of a text.
pub fn split_text(list: &str) -> Vec<&str> {
    // A comma or quote is no part of a longer character.
    split(list.as_bytes()).into_iter().filter_map(|option| std::str::from_utf8(option).ok()).collect()
}

fn end_of_first(list: &[u8]) -> usize {
    let quoted = CONTEXTS.iter().find_map(|name| {
        let value = list.strip_prefix(name.as_bytes())?.strip_prefix(b"\"")?;
        Some(name.len() + 1 + value.iter().position(|b| *b == b'"')? + 1)
    });
    let from = quoted.unwrap_or(0);
    list[from..].iter().position(|b| *b == b',').map_or(list.len(), |at| from + at)
}

/// Does an option name a context of SELinux?
pub fn is_context(option: &str) -> bool {
    CONTEXTS.iter().any(|name| option.starts_with(name))
}

/// Is it one option wherever it stands in a list?
pub fn is_one(option: &str) -> bool {
    let quotes = option.matches('"').count();
    let is_closed = || quotes == 0 || (quotes == 2 && option.ends_with('"') && option.contains("=\""));
    split(option.as_bytes()).len() == 1 && (!is_context(option) || is_closed())
}

/// Does the kernel run SELinux? Its file system is there as soon as it does, mounted or not.
pub fn has_selinux() -> bool {
    std::fs::read_to_string("/proc/filesystems").is_ok_and(|all| all.contains("selinuxfs"))
}

/// How to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Source shown in the mount table.
    pub fsname: String,
    /// The type shown is `fuse.<subtype>`; empty for `fuse`.
    pub subtype: String,
    /// The kernel checks permissions.
    pub default_permissions: bool,
    /// Other users may use the mount.
    pub allow_other: bool,
    /// Root may use it too. The kernel knows no such option: it is mounted with `allow_other`, and
    /// [`crate::SessionConfig::only_uid`] must be set to the mounting user.
    pub allow_root: bool,
    /// No writing.
    pub read_only: bool,
    /// Largest READ in bytes; `None` leaves it to the negotiation.
    pub max_read: Option<u32>,
    /// Device files work.
    pub dev: bool,
    /// Set-user-id works.
    pub suid: bool,
    /// Programs cannot be run.
    pub noexec: bool,
    /// Mount even over another FUSE mount.
    pub allow_over: bool,
    /// Further options, such as `noatime` or `sync`. Those starting with `x-` and those meant for mount(8) are
    /// dropped.
    pub extra: Vec<String>,
    /// Options that umount(8), findmnt(8) and systemd are told, such as `_netdev`; the kernel keeps none of them. Only root can.
    pub table: Vec<String>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            fsname: "fuse".into(),
            subtype: String::new(),
            default_permissions: false,
            allow_other: false,
            allow_root: false,
            read_only: false,
            max_read: None,
            dev: false,
            suid: false,
            noexec: false,
            allow_over: false,
            extra: Vec::new(),
            table: Vec::new(),
        }
    }
}

impl MountOptions {
    /// File system type.
    pub(crate) fn fstype(&self) -> String {
        match self.subtype.as_str() {
            "" => "fuse".into(),
            subtype => format!("fuse.{subtype}"),
        }
    }

    /// Flags of mount(2), and the options for its data argument without those that name the descriptor.
    pub(crate) fn for_kernel(&self) -> Result<(MountFlags, Vec<String>), MountError> {
        let mut flags = MountFlags::empty();
        flags.set(MountFlags::NODEV, !self.dev);
        flags.set(MountFlags::NOSUID, !self.suid);
        flags.set(MountFlags::NOEXEC, self.noexec);
        flags.set(MountFlags::RDONLY, self.read_only);
        let mut data = self.fuse_options();
        for option in self.passed_on() {
            if !apply(&mut flags, option) {
                check(option)?;
                data.push(option.to_owned());
            }
        }
        Ok((flags, data))
    }

    /// The argument of `fusermount3 -o`.
    pub(crate) fn for_fusermount(&self) -> Result<String, MountError> {
        let flag = |on: bool, yes: &str, no: &str| if on { yes.to_owned() } else { no.to_owned() };
        let mut all = vec![
            flag(self.read_only, "ro", "rw"),
            flag(self.dev, "dev", "nodev"),
            flag(self.suid, "suid", "nosuid"),
            format!("fsname={}", escape(&self.fsname)),
        ];
        if self.noexec {
            all.push("noexec".into());
        }
        if !self.subtype.is_empty() {
            all.push(format!("subtype={}", escape(&self.subtype)));
        }
        all.extend(self.fuse_options());
        for option in self.passed_on() {
            check(option)?;
            all.push(option.to_owned());
        }
        Ok(all.join(","))
    }

    fn fuse_options(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.default_permissions {
            all.push("default_permissions".to_owned());
        }
        if self.allow_other || self.allow_root {
            all.push("allow_other".to_owned());
        }
        if let Some(bytes) = self.max_read {
            all.push(format!("max_read={bytes}"));
        }
        all
    }

    /// The option that names a context of SELinux, if there is one.
    pub(crate) fn context(&self) -> Option<&str> {
        self.passed_on().find(|option| is_context(option))
    }

    fn passed_on(&self) -> impl Iterator<Item = &str> {
        self.extra.iter().map(String::as_str).filter(|o| {
            !o.is_empty() && !o.starts_with("x-") && !o.starts_with("comment=") && !IGNORED.contains(o)
        })
    }
}

/// Sets what an option means for mount(2). False for an option without a flag.
pub(super) fn apply(flags: &mut MountFlags, option: &str) -> bool {
    let (bit, on) = match option {
        "ro" => (MountFlags::RDONLY, true),
        "rw" => (MountFlags::RDONLY, false),
        "dev" => (MountFlags::NODEV, false),
        "nodev" => (MountFlags::NODEV, true),
        "suid" => (MountFlags::NOSUID, false),
        "nosuid" => (MountFlags::NOSUID, true),
        "exec" => (MountFlags::NOEXEC, false),
        "noexec" => (MountFlags::NOEXEC, true),
        "sync" => (MountFlags::SYNCHRONOUS, true),
        "async" => (MountFlags::SYNCHRONOUS, false),
        "dirsync" => (MountFlags::DIRSYNC, true),
        "noatime" => (MountFlags::NOATIME, true),
        "atime" => (MountFlags::NOATIME, false),
        "nodiratime" => (MountFlags::NODIRATIME, true),
        "diratime" => (MountFlags::NODIRATIME, false),
        "relatime" => (MountFlags::RELATIME, true),
        "norelatime" => (MountFlags::RELATIME, false),
        "strictatime" => (MountFlags::STRICTATIME, true),
        "lazytime" => (MountFlags::LAZYTIME, true),
        _ => return false,
    };
    flags.set(bit, on);
    true
}

/// These are set here and nowhere else, and one option may not smuggle in another.
fn check(option: &str) -> Result<(), MountError> {
    const OWN: [&str; 4] = ["fd=", "rootmode=", "user_id=", "group_id="];
    let fail = |reason| Err(MountError::Option { option: option.to_owned(), reason });
    if OWN.iter().any(|own| option.starts_with(own)) {
        return fail("is set by the program itself");
    }
    if option.contains('\0') || !is_one(option) {
        return fail("may not contain a comma, but in the quotes of an SELinux context");
    }
    Ok(())
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,")
}
