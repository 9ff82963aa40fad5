//! `--update-fstab`: a line of `/etc/fstab` that mounts the same again (`spec/cli.md` 5.8).

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::args::Args;
use crate::failure::{Failure, Result};
use crate::{flags, values};

/// Types by which mount(8) finds a helper: the first is what the official client writes.
const TYPES: [&str; 2] = ["juicefs", "ciderfs"];
/// Flags that say how this call runs, not how to mount.
const LEFT_OUT: [&str; 4] = ["o", "background", "foreground", "update-fstab"];
/// Flags that hold paths, separated by `:`.
const PATHS: [&str; 2] = ["cache-dir", "log"];
/// What a mount may take from its environment, which is not there when the system starts.
const ENVIRONMENT: [&str; 4] = ["META_PASSWORD", "JFS_RSA_PASSPHRASE", "ACCESS_KEY", "SECRET_KEY"];

/// Enters a mount that has succeeded. A failure is told, and changes nothing of the mount.
pub fn enter(args: &Args) {
    if !args.is_on("update-fstab") {
        return;
    }
    match may_enter().and_then(|()| update(args, Path::new("/"))) {
        Ok(()) => tracing::info!("/etc/fstab mounts {} from now on", args.positional[1]),
        Err(e) => return tracing::warn!("/etc/fstab was not updated: {e}"),
    }
    for name in ENVIRONMENT.iter().filter(|name| std::env::var_os(name).is_some()) {
        tracing::warn!("{name} is set now, but will not be when /etc/fstab is read");
    }
}

fn may_enter() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new("that takes root"));
    }
    let marks = ["/.dockerenv", "/run/.containerenv"];
    if std::env::var_os("container").is_some() || marks.iter().any(|mark| Path::new(mark).exists()) {
        return Err(Failure::new("this is a container; enter the mount in the fstab of its host"));
    }
    Ok(())
}

/// Adds or replaces the line in the system whose files lie below `root`, and makes the helper known to mount(8).
fn update(args: &Args, root: &Path) -> Result<()> {
    let line = Line::of(args, helper(root)?)?;
    let path = root.join("etc/fstab");
    let path = path.canonicalize().unwrap_or(path);
    let directory = fs::File::open(path.parent().unwrap_or(root))?;
    // One of us at a time: what another one enters meanwhile must not be lost.
    rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive).map_err(std::io::Error::from)?;
    let (old, owner, mode) = match fs::metadata(&path) {
        Ok(meta) => (fs::read_to_string(&path)?, Some((meta.uid(), meta.gid())), meta.mode() & 0o7777),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => (String::new(), None, 0o644),
        Err(e) => return Err(e.into()),
    };
    let new = line.put_into(&old);
    if new == old {
        return Ok(());
    }
    let temporary = path.with_extension(format!("tmp.{}", std::process::id()));
    let written = replace(&path, &temporary, &new, owner, mode).and_then(|()| directory.sync_all());
    if written.is_err() {
        _ = fs::remove_file(&temporary);
    }
    written?;
    let source = &args.positional[0];
    if mode & 0o044 != 0 && values::masked(source) != *source {
        tracing::warn!("everybody can read /etc/fstab, and now the password in it: chmod 600 it");
    }
    Ok(())
}

/// Writes a file in one step.
fn replace(
    path: &Path,
    temporary: &Path,
    text: &str,
    owner: Option<(u32, u32)>,
    mode: u32,
) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(text.as_bytes())?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

/// The type whose helper in `/sbin` is this program; makes a link if there is none.
fn helper(root: &Path) -> Result<&'static str> {
    let program = std::env::current_exe()?;
    for kind in TYPES {
        let helper = root.join("sbin").join(format!("mount.{kind}"));
        if helper.symlink_metadata().is_err() {
            std::os::unix::fs::symlink(&program, helper)?;
            return Ok(kind);
        }
        if helper.canonicalize().is_ok_and(|found| program.canonicalize().is_ok_and(|p| p == found)) {
            return Ok(kind);
        }
    }
    Err(Failure::new("/sbin/mount.juicefs and /sbin/mount.ciderfs are other programs; remove one of them"))
}

/// The fields of a line that tell what is mounted where and how.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    kind: &'static str,
    source: String,
    mountpoint: String,
    options: String,
}

impl Line {
    fn of(args: &Args, kind: &'static str) -> Result<Self> {
        let mut options: Vec<String> = Vec::new();
        let of_mount = |name: &str| !LEFT_OUT.contains(&name) && flags::of("mount").any(|f| f.name == name);
        for (name, value) in args.settings().filter(|(name, _)| of_mount(name)) {
            let value = match name {
                // A directory, where objects are files.
                "bucket" if !value.contains("://") && Path::new(value).is_dir() => absolute(value),
                _ if PATHS.contains(&name) => value.split(':').map(absolute).collect::<Vec<_>>().join(":"),
                _ => value.to_owned(),
            };
            options.push(if value == "true" { name.to_owned() } else { format!("{name}={value}") });
        }
        if let Some(bad) = options.iter().find(|o| o.contains(',')) {
            return Err(Failure::new(format!("a line of fstab cannot hold --{bad}: there is a comma in it")));
        }
        options.sort_unstable();
        // Of these the last one wins: they stay in their order.
        let words = args
            .text("o")
            .unwrap_or_default()
            .split(',')
            .filter(|w| !matches!(*w, "" | "_netdev" | "nofail"));
        options.extend(words.map(str::to_owned));
        options.splice(..0, ["_netdev".to_owned(), "nofail".to_owned()]);
        let mountpoint = std::path::absolute(&args.positional[1])?;
        Ok(Self {
            kind,
            source: escaped(&absolute_source(&args.positional[0])),
            mountpoint: escaped(&mountpoint.to_string_lossy()),
            options: escaped(&options.join(",")),
        })
    }

    /// The text of a table with this line in it, in the place of one for the same mount if there is one.
    fn put_into(&self, table: &str) -> String {
        let line = format!("{}  {}  {}  {}  0 0", self.source, self.mountpoint, self.kind, self.options);
        let is_same = |old: &str| {
            let mut fields = old.split_whitespace();
            fields.next() == Some(&self.source)
                && fields.next().map(trimmed) == Some(trimmed(&self.mountpoint))
        };
        let mut found = false;
        let mut lines: Vec<&str> = Vec::new();
        for old in table.lines() {
            if !is_same(old) {
                lines.push(old);
            } else if !std::mem::replace(&mut found, true) {
                lines.push(&line);
            }
        }
        if !found {
            lines.push(&line);
        }
        lines.join("\n") + "\n"
    }
}

/// A path without a slash at its end.
fn trimmed(path: &str) -> &str {
    path.trim_end_matches('/')
}

/// Where the table is read there is another working directory.
fn absolute(path: &str) -> String {
    match path {
        "" | "memory" => path.to_owned(),
        _ => std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path)).display().to_string(),
    }
}

fn absolute_source(url: &str) -> String {
    for scheme in ["sqlite3://", "sqlite://"] {
        if let Some(rest) = url.strip_prefix(scheme) {
            let (path, options) = rest.split_once('?').map_or((rest, None), |(p, o)| (p, Some(o)));
            let options = options.map_or_else(String::new, |o| format!("?{o}"));
            return format!("{scheme}{}{options}", absolute(path));
        }
    }
    url.to_owned()
}

/// fstab(5): white space within a field is written in octal.
fn escaped(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    for c in field.chars() {
        match c {
            ' ' | '\t' | '\n' | '\\' => out.push_str(&format!("\\{:03o}", c as u32)),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::helper::{Call, translate};

    fn args(words: &[&str]) -> Args {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        Args::parse("mount", &words).unwrap()
    }

    #[test]
    fn a_line_says_what_the_command_said() {
        let a = args(&[
            "-d",
            "--update-fstab",
            "redis://h/1",
            "/mnt/my data/",
            "--max-uploads=5",
            "--cache-dir",
            "/a:/b",
            "--enable-xattr=false",
            "-o",
            "suid,nosuid,_netdev,allow_other",
            "--hide-internal",
        ]);
        let line = Line::of(&a, "juicefs").unwrap();
        let options = "_netdev,nofail,cache-dir=/a:/b,enable-xattr=false,hide-internal,max-uploads=5,suid,nosuid,allow_other";
        assert_eq!((line.source.as_str(), line.options.as_str()), ("redis://h/1", options));
        assert_eq!(line.mountpoint, "/mnt/my\\040data/");
        // And mount(8) makes the same command of it.
        let helper = ["/sbin/mount.juicefs", "redis://h/1", "/mnt/my data", "-o", options].map(str::to_owned);
        let Call::Command(command) = translate(&helper).unwrap() else { panic!("no command") };
        let again = Args::parse("mount", &command[2..]).unwrap();
        for name in ["max-uploads", "cache-dir", "hide-internal"] {
            assert_eq!(again.text(name), a.text(name), "{name}");
        }
        assert!(again.is_off("enable-xattr"));
        assert!(Line::of(&args(&["redis://h/1", "/m", "--subdir=a,b"]), "juicefs").is_err());
        let here = std::env::current_dir().unwrap();
        let relative = Line::of(&args(&["sqlite://a:b.db?max_open_conns=3", "m"]), "juicefs").unwrap();
        assert_eq!(relative.source, format!("sqlite://{}/a:b.db?max_open_conns=3", here.display()));
        assert_eq!(relative.mountpoint, format!("{}/m", here.display()));
    }

    #[test]
    fn the_table_keeps_its_other_lines() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for dir in ["etc", "sbin"] {
            fs::create_dir(at(dir)).unwrap();
        }
        let others = "# static\nUUID=1 / ext4 defaults 0 1\nredis://h/2 /mnt juicefs _netdev 0 0";
        fs::write(at("etc/fstab"), others).unwrap();
        fs::set_permissions(at("etc/fstab"), fs::Permissions::from_mode(0o600)).unwrap();
        let read = || fs::read_to_string(at("etc/fstab")).unwrap();
        update(&args(&["redis://h/1", "/mnt"]), root.path()).unwrap();
        let first = format!("{others}\nredis://h/1  /mnt  juicefs  _netdev,nofail  0 0\n");
        assert_eq!(read(), first);
        update(&args(&["redis://h/1", "/mnt"]), root.path()).unwrap();
        assert_eq!(read(), first);
        update(&args(&["redis://h/2", "/mnt/", "--read-only"]), root.path()).unwrap();
        let line = "redis://h/2  /mnt/  juicefs  _netdev,nofail,read-only  0 0";
        assert_eq!(read(), first.replace("redis://h/2 /mnt juicefs _netdev 0 0", line));
        assert_eq!(fs::metadata(at("etc/fstab")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_link(at("sbin/mount.juicefs")).unwrap(), std::env::current_exe().unwrap());
        assert_eq!(fs::read_dir(at("etc")).unwrap().count(), 1, "nothing is left behind");
        // Where another program is the helper of that name, ours gets its own.
        fs::remove_file(at("sbin/mount.juicefs")).unwrap();
        fs::write(at("sbin/mount.juicefs"), "").unwrap();
        update(&args(&["redis://h/3", "/mnt"]), root.path()).unwrap();
        assert!(read().ends_with("redis://h/3  /mnt  ciderfs  _netdev,nofail  0 0\n"));
        fs::remove_file(at("sbin/mount.ciderfs")).unwrap();
        fs::write(at("sbin/mount.ciderfs"), "").unwrap();
        assert!(update(&args(&["redis://h/4", "/mnt"]), root.path()).is_err());
    }
}
