//! `--update-fstab`: a line of `/etc/fstab` that mounts the same again (`spec/cli.md` 5.8).

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::args::Args;
use crate::failure::{Failure, Result};
use crate::values;

/// The type by which mount(8) finds its helper.
const TYPE: &str = "juicefs";
/// Flags that say how this call runs, not how to mount.
const LEFT_OUT: [&str; 4] = ["o", "background", "foreground", "update-fstab"];
/// Flags that hold paths, separated by `:`.
const PATHS: [&str; 2] = ["cache-dir", "log"];

/// Enters a mount that has succeeded. A failure is told, and changes nothing of the mount.
pub fn enter(args: &Args) {
    if !args.is_on("update-fstab") {
        return;
    }
    let root = rustix::process::geteuid().is_root();
    let done = if root { update(args, Path::new("/")) } else { Err(Failure::new("that takes root")) };
    match done {
        Ok(()) => tracing::info!("/etc/fstab mounts {} from now on", args.positional[1]),
        Err(e) => tracing::warn!("/etc/fstab was not updated: {e}"),
    }
}

/// Adds or replaces the line in the system whose files lie below `root`, and makes the helper known to mount(8).
fn update(args: &Args, root: &Path) -> Result<()> {
    if std::env::var_os("container").is_some()
        || [".dockerenv", "run/.containerenv"].iter().any(|mark| root.join(mark).exists())
    {
        return Err(Failure::new("this is a container; enter the mount in the fstab of its host"));
    }
    let line = Line::of(args)?;
    let path = root.join("etc/fstab");
    let (old, mode) = match fs::metadata(&path) {
        Ok(meta) => (fs::read_to_string(&path)?, meta.mode() & 0o7777),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => (String::new(), 0o644),
        Err(e) => return Err(e.into()),
    };
    link_helper(root)?;
    let new = line.put_into(&old);
    if new == old {
        return Ok(());
    }
    let temporary = root.join("etc/fstab.tmp");
    let mut file = fs::File::create(&temporary)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(new.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    fs::File::open(root.join("etc"))?.sync_all()?;
    let source = &args.positional[0];
    if mode & 0o044 != 0 && values::masked(source) != *source {
        tracing::warn!(
            "everybody can read /etc/fstab, and now the password in it: chmod 600 it, or set META_PASSWORD"
        );
    }
    Ok(())
}

/// Links `/sbin/mount.juicefs` to this program, unless there is such a helper already.
fn link_helper(root: &Path) -> Result<()> {
    let helper = root.join("sbin").join(format!("mount.{TYPE}"));
    if helper.symlink_metadata().is_ok() {
        return Ok(());
    }
    Ok(std::os::unix::fs::symlink(std::env::current_exe()?, helper)?)
}

/// The fields of a line that tell what is mounted where and how.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    source: String,
    mountpoint: String,
    options: String,
}

impl Line {
    fn of(args: &Args) -> Result<Self> {
        let mut options: Vec<String> = Vec::new();
        for (name, value) in args.settings().filter(|(name, _)| !LEFT_OUT.contains(name)) {
            let value = if PATHS.contains(&name) { absolute_paths(value) } else { value.to_owned() };
            options.push(if value == "true" { name.to_owned() } else { format!("{name}={value}") });
        }
        if let Some(bad) = options.iter().find(|o| o.contains(',')) {
            return Err(Failure::new(format!("a line of fstab cannot hold --{bad}: there is a comma in it")));
        }
        options.extend(args.text("o").unwrap_or_default().split(',').map(str::to_owned));
        options.retain(|o| !matches!(o.as_str(), "" | "_netdev" | "nofail"));
        options.sort_unstable();
        options.dedup();
        options.splice(..0, ["_netdev".to_owned(), "nofail".to_owned()]);
        let mountpoint = std::path::absolute(&args.positional[1])?;
        Ok(Self {
            source: escaped(&absolute_source(&args.positional[0])),
            mountpoint: escaped(&mountpoint.to_string_lossy()),
            options: escaped(&options.join(",")),
        })
    }

    /// The text of a table with this line in it, in the place of one for the same mount if there is one.
    fn put_into(&self, table: &str) -> String {
        let line = format!("{}  {}  {TYPE}  {}  0 0", self.source, self.mountpoint, self.options);
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
fn absolute_paths(paths: &str) -> String {
    let absolute = |p: &str| match p {
        "" | "memory" => p.to_owned(),
        _ => std::path::absolute(p).unwrap_or_else(|_| PathBuf::from(p)).display().to_string(),
    };
    paths.split(':').map(absolute).collect::<Vec<_>>().join(":")
}

fn absolute_source(url: &str) -> String {
    match url.strip_prefix("sqlite3://") {
        Some(path) => format!("sqlite3://{}", absolute_paths(path)),
        None => url.to_owned(),
    }
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
            "ro,_netdev,allow_other",
            "--hide-internal",
        ]);
        let line = Line::of(&a).unwrap();
        let options =
            "_netdev,nofail,allow_other,cache-dir=/a:/b,enable-xattr=false,hide-internal,max-uploads=5,ro";
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
        assert!(Line::of(&args(&["redis://h/1", "/m", "--subdir=a,b"])).is_err());
        let here = std::env::current_dir().unwrap();
        let relative = Line::of(&args(&["sqlite3://my.db", "m"])).unwrap();
        assert_eq!(relative.source, format!("sqlite3://{}/my.db", here.display()));
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
        assert!(!at("etc/fstab.tmp").exists());
        fs::write(at(".dockerenv"), "").unwrap();
        assert!(update(&args(&["redis://h/3", "/mnt"]), root.path()).is_err());
    }
}
