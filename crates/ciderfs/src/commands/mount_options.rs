//! What flags and `-o` say about a mount: the kernel's options, who may do what, access times.

use std::time::Duration;

use ciderfs_fuse::MountOptions;
use ciderfs_meta::AtimeMode;
use ciderfs_mount::{Identity, ServeOptions};

use crate::args::Args;
use crate::failure::{Failure, Result};
use crate::values;

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
    args.text("o").unwrap_or_default().split(',').filter(|w| !w.is_empty())
}

/// How the volume is mounted and served.
pub fn serve_options(args: &Args) -> Result<ServeOptions> {
    let second = Duration::from_secs(1);
    let root = rustix::process::geteuid();
    let identity = identity(args)?;
    let mut o = ServeOptions {
        attr_valid: args.duration("attr-cache", second)?,
        entry_valid: args.duration("entry-cache", second)?,
        dir_entry_valid: args.duration("dir-entry-cache", second)?,
        negative_valid: args.duration("negative-entry-cache", Duration::ZERO)?,
        ioctl: !args.is_off("enable-ioctl"),
        keep_listings: args.is_on("readdir-cache"),
        identity,
        ..ServeOptions::default()
    };
    let max = args.size("max-fuse-io", 1 << 20)?.clamp(4096, 1 << 20) as u32;
    o.init.max_write = max;
    o.mount = MountOptions {
        subtype: "juicefs".into(),
        default_permissions: !identity.check && identity.all_squash.is_none(),
        allow_other: root.is_root(),
        max_read: Some(max),
        read_only: args.is_on("read-only"),
        ..MountOptions::default()
    };
    for word in words(args) {
        match word {
            "allow_other" => o.mount.allow_other = true,
            "allow_root" => (o.mount.allow_root, o.only_uid) = (true, Some(root.as_raw())),
            "ro" => o.mount.read_only = true,
            "rw" => o.mount.read_only = args.is_on("read-only"),
            "dev" | "nodev" => o.mount.dev = word == "dev",
            "suid" | "nosuid" => o.mount.suid = word == "suid",
            "writeback_cache" => {
                return Err(Failure::new("-o writeback_cache is not supported in this version; remove it"));
            }
            word if PASSED_ON.contains(&word) => o.mount.extra.push(word.to_owned()),
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
    match args.text("atime-mode") {
        Some(mode) => parse(mode).ok_or_else(|| {
            Failure::new(format!("--atime-mode={mode}: use noatime, relatime or strictatime"))
        }),
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
    let squash = |flag: &str| args.text(flag).map(|ids| squashed(flag, ids)).transpose();
    Ok(Identity {
        check: args.is_on("non-default-permission"),
        root_squash: squash("root-squash")?,
        all_squash: squash("all-squash")?,
        umask: args.text("umask").filter(|m| !m.is_empty()).map(umask).transpose()?,
    })
}

fn umask(text: &str) -> Result<u16> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let mask = u16::from_str_radix(digits, 8).ok().filter(|m| plain && *m <= 0o777);
    mask.ok_or_else(|| Failure::new(format!("--umask={text}: use an octal number up to 777")))
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
        Args::parse("mount", &words).unwrap()
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
        assert_eq!(mode("M P --atime-mode=often"), None);
        let dirs = |line: &str| dir_atime(&parse(line));
        assert!(
            dirs("M P -o strictatime") && dirs("M P -o nodiratime,diratime") && !dirs("M P -o nodiratime")
        );
    }

    #[test]
    fn umasks_and_squashing() {
        assert_eq!(identity(&parse("M P --umask=027")).unwrap().umask, Some(0o27));
        for bad in ["8", "1777", "x", "+22", "99999999999999999999"] {
            assert!(umask(bad).is_err(), "{bad}");
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
