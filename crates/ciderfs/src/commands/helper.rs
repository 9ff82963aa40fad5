//! Called by mount(8): as `mount.juicefs` or `mount.ciderfs` for a line of `fstab` (`docs/setup.md#by-hand-and-fstab`), or to
//! change the flags of a mount.
//!
//! For `mount -o remount,...` mount(8) looks for a helper of the type that it finds in the mount table, `fuse.juicefs`:
//! `mount.fuse.juicefs` if there is one, else libfuse's `mount.fuse`, which runs the program `juicefs` with the same arguments.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use ciderfs_format::shown;

use crate::cli::command::Command;
use crate::cli::flag::Kind;
use crate::cli::{parse, places};
use crate::failure::{Failure, Result};

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// One of our commands.
    Command(Vec<OsString>),
    /// New flags for what is mounted there.
    Remount(PathBuf, Vec<String>),
}

/// Translates the arguments of a mount helper; others are left as they are.
pub fn translate(argv: &[OsString]) -> Result<Call> {
    let name =
        argv.first().and_then(|a| Path::new(a).file_name()).and_then(OsStr::to_str).unwrap_or_default();
    let helper =
        matches!(name, "mount.juicefs" | "mount.ciderfs" | "mount.fuse.juicefs" | "mount.fuse.ciderfs")
            || std::env::var_os("CALL_VIA_MOUNT").is_some();
    let is_command =
        argv.get(1).is_none_or(|w| Command::named(w).is_some() || w.as_bytes().starts_with(b"-"));
    let options = options(argv);
    if (helper || !is_command) && argv.len() > 3 && options.contains(&&b"remount"[..]) {
        let words = options.into_iter().filter(|o| *o != b"remount");
        // Flags of the kernel are texts; it is told no others.
        let words = words.filter_map(|o| std::str::from_utf8(o).ok()).map(str::to_owned).collect();
        return Ok(Call::Remount(places::absolute(&argv[2])?, words));
    }
    if !helper || argv.get(1).is_some_and(|w| w == "mount") {
        return Ok(Call::Command(if argv.is_empty() { vec!["ciderfs".into()] } else { argv.to_vec() }));
    }
    if argv.len() < 3 {
        return Err(Failure::new("usage: mount.ciderfs META-URL MOUNTPOINT [-o options]"));
    }
    let mut out = vec![argv[0].clone(), "mount".into(), argv[1].clone(), argv[2].clone()];
    if std::env::var_os("JFS_FOREGROUND").is_none() {
        out.push("-d".into());
    }
    let mut fuse: Vec<&[u8]> = Vec::new();
    for option in options {
        let name = option.split(|b| *b == b'=').next().unwrap_or(option);
        let value = &option[name.len()..];
        let name = match name {
            b"attrcacheto" => &b"attr-cache"[..],
            b"entrycacheto" => b"entry-cache",
            b"direntrycacheto" => b"dir-entry-cache",
            other => other,
        };
        let row = parse::find(Command::Mount, name).filter(|_| name.len() > 1);
        match row {
            _ if matches!(name, b"" | b"background") => {}
            // It must not take the next word for its value.
            Some((row, in_file)) if (in_file || row.kind != Kind::Switch) && value.is_empty() => {
                return Err(Failure::new(format!("option {} needs a value", String::from_utf8_lossy(name))));
            }
            Some(_) => out.push(OsString::from_vec([b"--", name, value].concat())),
            None => fuse.push(option),
        }
    }
    if !fuse.is_empty() {
        out.extend(["-o".into(), OsString::from_vec(fuse.join(&b','))]);
    }
    Ok(Call::Command(out))
}

/// The words of all `-o` lists after source and mount point.
fn options(argv: &[OsString]) -> Vec<&[u8]> {
    let words = argv.get(3..).unwrap_or_default();
    let lists = words.windows(2).filter(|w| w[0] == "-o");
    lists.flat_map(|w| ciderfs_fuse::mount::split(w[1].as_bytes())).collect()
}

/// `mount -o remount,...`.
pub fn remount(mountpoint: &Path, options: &[String]) -> Result<()> {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let writes = options.iter().rfind(|o| matches!(**o, "ro" | "rw")) == Some(&"rw");
    if writes && is_served_read_only(mountpoint) {
        return Err(Failure::new(format!(
            "{} is served read-only; unmount it and mount it without ro or --read-only",
            shown(mountpoint)
        )));
    }
    ciderfs_fuse::mount::remount(mountpoint, &options).map_err(|e| Failure::new(e.to_string()))
}

fn is_served_read_only(mountpoint: &Path) -> bool {
    let text = [".config", ".jfs.config"]
        .iter()
        .find_map(|name| ciderfs_bounded::read(mountpoint.join(name), ciderfs_bounded::CONFIG_MAX).ok());
    let config: Option<serde_json::Value> = text.and_then(|text| serde_json::from_slice(&text).ok());
    config.is_some_and(|config| config["Meta"]["ReadOnly"] == true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Call {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        translate(&words).unwrap()
    }

    #[test]
    fn lines_of_fstab_become_mount_commands() {
        let Call::Command(words) = call(
            "/sbin/mount.ciderfs redis://h/1 /mnt -s -o rw,_netdev,nofail,x-systemd.automount,noauto,cache-size=1G,umask=022,\
             enable-ioctl,atime-mode=relatime,attrcacheto=3 -t fuse.x",
        ) else {
            panic!("not a command")
        };
        assert_eq!(words[1..5], ["mount", "redis://h/1", "/mnt", "-d"]);
        for flag in
            ["--cache-size=1G", "--umask=022", "--enable-ioctl", "--atime-mode=relatime", "--attr-cache=3"]
        {
            assert!(words.iter().any(|w| w == flag), "{flag}: {words:?}");
        }
        assert_eq!(words.last().unwrap(), "rw,_netdev,nofail,x-systemd.automount,noauto");
        assert!(translate(&["mount.juicefs".into(), "x".into()]).is_err());
        // What stands in the quotes of a context is no option.
        let context = "context=\"u:r:t:s0:c1,cache-size=1\"";
        let line = format!("/sbin/mount.ciderfs redis://h/1 /mnt -o noatime,{context},subdir=/a");
        let Call::Command(words) = call(&line) else { panic!("not a command") };
        assert_eq!(words.last().unwrap(), &format!("noatime,{context}")[..]);
        assert!(words.contains(&"--subdir=/a".into()) && !words.iter().any(|w| w == "--cache-size=1\""));
        let valueless = ["mount.juicefs", "redis://h/1", "/mnt", "-o", "subdir,ro"].map(OsString::from);
        assert!(translate(&valueless).unwrap_err().text.contains("subdir needs a value"));
    }

    #[test]
    fn remounts_are_told_from_commands() {
        let remount = Call::Remount("/mnt".into(), vec!["nosuid".into(), "ro".into()]);
        assert_eq!(call("mount.fuse.juicefs JuiceFS:v /mnt -o nosuid,remount,ro"), remount);
        assert_eq!(call("juicefs JuiceFS:v /mnt -o nosuid,remount,ro"), remount);
        for other in ["juicefs mount META /mnt -o remount", "ciderfs --quiet mount META /mnt", "ciderfs"] {
            assert!(matches!(call(other), Call::Command(_)), "{other}");
        }
    }
}
