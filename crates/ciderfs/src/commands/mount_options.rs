//! What flags and `-o` say about a mount: the kernel's options, who may do what, access times.

use ciderfs_fuse::{MountOptions, mount};
use ciderfs_meta::AtimeMode;
use ciderfs_mount::{Identity, ServeOptions};

use crate::cli::args::Args;
use crate::cli::flag::{Flag, kinds};
use crate::cli::table::{
    ALL_SQUASH, ATIME_MODE, ATTR_CACHE, DIR_ENTRY_CACHE, ENABLE_IOCTL, ENTRY_CACHE, MAX_FUSE_IO,
    NEGATIVE_ENTRY_CACHE, NON_DEFAULT_PERMISSION, O, READ_ONLY, READDIR_CACHE, ROOT_SQUASH, UMASK,
};
use crate::cli::values;
use crate::failure::{Failure, Result};

/// User and group of callers that are squashed to nobody.
const NOBODY: u32 = 65_534;
/// Options with a meaning for the kernel or its helper only.
const PASSED_ON: [&str; 13] = [
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "lazytime",
];
/// Options that need nothing done: what is always so, or what only programs around mounting look at.
const NOTHING_TO_DO: [&str; 14] = [
    "default_permissions",
    "nonempty",
    "async_dio",
    "debug",
    "_netdev",
    "nofail",
    "auto",
    "noauto",
    "user",
    "users",
    "nouser",
    "owner",
    "defaults",
    "remount",
];
/// The same with a value.
const IGNORED_VALUES: [&str; 7] = ["x-", "X-", "comment=", "fsname=", "user_id=", "group_id=", "rootmode="];

/// The words of all `-o` lists.
fn words(args: &Args) -> impl Iterator<Item = &str> {
    mount::split_text(args.find(O).unwrap_or_default()).into_iter().filter(|w| !w.is_empty())
}

/// How the volume is mounted and served.
pub fn serve_options(args: &Args) -> Result<ServeOptions> {
    let root = rustix::process::geteuid();
    let identity = identity(args)?;
    let mut o = ServeOptions {
        attr_valid: args.get(ATTR_CACHE),
        entry_valid: args.get(ENTRY_CACHE),
        dir_entry_valid: args.get(DIR_ENTRY_CACHE),
        negative_valid: args.get(NEGATIVE_ENTRY_CACHE),
        ioctl: args.get(ENABLE_IOCTL),
        keep_listings: args.get(READDIR_CACHE),
        identity,
        ..ServeOptions::default()
    };
    let max = args.get(MAX_FUSE_IO).clamp(4096, 1 << 20) as u32;
    o.init.max_write = max;
    o.mount = MountOptions {
        subtype: "juicefs".into(),
        default_permissions: !identity.check && identity.all_squash.is_none(),
        allow_other: root.is_root(),
        max_read: Some(max),
        read_only: args.get(READ_ONLY),
        ..MountOptions::default()
    };
    // The kernel takes every FUSE file system for one of this machine.
    o.mount.table = vec!["_netdev".into()];
    let is_kept = |word: &&str| *word == "nofail" || word.starts_with("x-");
    o.mount.table.extend(words(args).filter(is_kept).map(str::to_owned));
    for word in words(args) {
        match word {
            "allow_other" => o.mount.allow_other = true,
            "allow_root" => (o.mount.allow_root, o.only_uid) = (true, Some(root.as_raw())),
            "ro" => o.mount.read_only = true,
            "rw" => o.mount.read_only = args.get(READ_ONLY),
            "dev" | "nodev" => o.mount.dev = word == "dev",
            "suid" | "nosuid" => o.mount.suid = word == "suid",
            "writeback_cache" => {
                return Err(Failure::new("-o writeback_cache is not supported in this version; remove it"));
            }
            word if PASSED_ON.contains(&word) || mount::is_context(word) => {
                o.mount.extra.push(word.to_owned())
            }
            word if NOTHING_TO_DO.contains(&word) => {}
            word if IGNORED_VALUES.iter().any(|name| word.starts_with(name)) => {}
            other => {
                let name = other.split('=').next().unwrap_or(other);
                return Err(Failure::new(format!("mount option {name} is not known; remove it from -o")));
            }
        }
    }
    Ok(o)
}

/// When access times are written: as `--atime-mode` says, else as the options of the mount do. An option about those of
/// directories says that there are some, and mount(8) means `relatime` then.
pub fn atime_mode(args: &Args) -> Result<AtimeMode> {
    let parse = |word: &str| match word {
        "noatime" => Some(AtimeMode::NoAtime),
        "relatime" => Some(AtimeMode::Relatime),
        "strictatime" => Some(AtimeMode::Strict),
        _ => None,
    };
    match args.find(ATIME_MODE) {
        Some(mode) => Ok(parse(mode).unwrap_or_default()),
        None => {
            let some = words(args).any(|word| ["atime", "diratime", "nodiratime"].contains(&word));
            let default = if some { AtimeMode::Relatime } else { AtimeMode::default() };
            Ok(words(args).filter_map(parse).last().unwrap_or(default))
        }
    }
}

/// Are access times of directories written too?
pub fn dir_atime(args: &Args) -> bool {
    words(args).filter(|word| word.ends_with("diratime")).last() != Some("nodiratime")
}

fn identity(args: &Args) -> Result<Identity> {
    let squash = |flag: Flag<kinds::Text>| args.find(flag).map(|ids| squashed(flag.name(), ids)).transpose();
    Ok(Identity {
        check: args.get(NON_DEFAULT_PERMISSION),
        root_squash: squash(ROOT_SQUASH)?,
        all_squash: squash(ALL_SQUASH)?,
        umask: args.find(UMASK).map(|mask| mask as u16),
    })
}

/// `USER[:GROUP]`, each a name or a number; nobody and nogroup where one is left out. Squashing to root is no squashing.
fn squashed(flag: &str, ids: &str) -> Result<(u32, u32)> {
    let (user, group) = ids.split_once(':').unwrap_or((ids, ""));
    let id = |name: &str, database: &str| -> Result<u32> {
        let found = match name {
            "" => Some(NOBODY),
            // Cut, it would be somebody else.
            _ if name.bytes().all(|b| b.is_ascii_digit()) => {
                Some(values::int(flag, name, (0, u32::MAX.into()))? as u32)
            }
            _ => id_of(name, database),
        };
        match found {
            Some(0) => Err(Failure::new(format!("--{flag}={ids}: 0 is the superuser; choose another"))),
            Some(id) => Ok(id),
            None => {
                Err(Failure::new(format!("--{flag}={ids}: there is no {name} in the {database} database")))
            }
        }
    };
    Ok((id(user, "passwd")?, id(group, "group")?))
}

/// The number of a user or group, from the system's file or from whatever else `getent` asks.
fn id_of(name: &str, database: &str) -> Option<u32> {
    let in_lines = |text: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
        })
    };
    std::fs::read_to_string(format!("/etc/{database}")).ok().and_then(|text| in_lines(&text)).or_else(|| {
        let out = std::process::Command::new("getent").args([database, name]).output().ok()?;
        in_lines(&String::from_utf8_lossy(&out.stdout))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Args {
        let words: Vec<&str> = line.split_whitespace().collect();
        Args::parse(crate::cli::command::Command::Mount, &words).unwrap()
    }

    #[test]
    fn options_of_a_mount() {
        let o = serve_options(&parse("M P -o dev,suid,noexec,x-systemd.automount,_netdev,noauto,noatime"))
            .unwrap();
        assert!(o.mount.dev && o.mount.suid && !o.mount.read_only && o.mount.default_permissions);
        assert_eq!(o.mount.extra, ["noexec", "noatime"]);
        let o = serve_options(&parse("M P -o dev,nodev,ro,rw --read-only")).unwrap();
        assert!(!o.mount.dev && !o.mount.suid && o.mount.read_only);
        assert!(serve_options(&parse("M P -o nonsense")).is_err());
        let o = serve_options(&parse("M P --non-default-permission --enable-ioctl=false")).unwrap();
        assert!(!o.mount.default_permissions && o.identity.check && !o.ioctl);
        assert!(serve_options(&parse("M P --all-squash=1:2")).is_ok_and(|o| !o.mount.default_permissions));
    }

    #[test]
    fn access_time_modes() {
        let mode = |line: &str| atime_mode(&parse(line)).ok();
        assert_eq!(mode("M P"), Some(AtimeMode::NoAtime));
        assert_eq!(mode("M P -o strictatime"), Some(AtimeMode::Strict));
        assert_eq!(mode("M P -o strictatime --atime-mode=relatime"), Some(AtimeMode::Relatime));
        assert_eq!(mode("M P -o nodiratime"), Some(AtimeMode::Relatime));
        assert_eq!(mode("M P -o nodiratime,noatime"), Some(AtimeMode::NoAtime));
        assert!(Args::parse(crate::cli::command::Command::Mount, &["--atime-mode=often"]).is_err());
        let dirs = |line: &str| dir_atime(&parse(line));
        assert!(
            dirs("M P -o strictatime") && dirs("M P -o nodiratime,diratime") && !dirs("M P -o nodiratime")
        );
    }

    #[test]
    fn umasks_and_squashing() {
        assert_eq!(identity(&parse("M P --umask=027")).unwrap().umask, Some(0o27));
        for bad in ["8", "1777", "x", "+22", "99999999999999999999"] {
            let words = [UMASK.with(bad)];
            assert!(Args::parse(crate::cli::command::Command::Mount, &words).is_err(), "{bad}");
        }
        assert_eq!(squashed("all-squash", "5:6").unwrap(), (5, 6));
        assert_eq!(squashed("all-squash", "5").unwrap(), (5, NOBODY));
        assert_eq!(squashed("root-squash", ":").unwrap(), (NOBODY, NOBODY));
        assert_eq!(squashed("root-squash", "daemon:daemon").unwrap(), (1, 1));
        for bad in ["0:1", "1:0", "root", "no-such-user", "4294967296", "1:99999999999999999999", "-1"] {
            assert!(squashed("root-squash", bad).is_err(), "{bad}");
        }
    }
}
