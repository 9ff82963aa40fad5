//! `--update-fstab`: a line of `/etc/fstab` that mounts the same again (`docs/setup.md#by-hand-and-fstab`).

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use ciderfs_format::{shown, shown_address};

use crate::cli::args::Args;
use crate::cli::cache_dirs;
use crate::cli::flag::{Row, Value};
use crate::cli::secrets::Origin;
use crate::cli::table::{BACKGROUND, FOREGROUND, O, UPDATE_FSTAB};
use crate::failure::{Failure, Result};

/// Types by which mount(8) finds a helper: the first is what the official client writes.
const TYPES: [&str; 2] = ["juicefs", "ciderfs"];
/// Flags that say how this call runs, not how to mount.
const LEFT_OUT: [&Row; 4] = [O.row, BACKGROUND.row, FOREGROUND.row, UPDATE_FSTAB.row];
/// What a mount may take from its environment, which is not there when the system starts.
const ENVIRONMENT: [&str; 8] = [
    "SESSION_TOKEN",
    "META_PASSWORD",
    "META_PASSWORD_FILE",
    "REDIS_PASSWORD",
    "SENTINEL_PASSWORD",
    "JFS_RSA_PASSPHRASE",
    "ACCESS_KEY",
    "SECRET_KEY",
];

/// Enters a mount that has succeeded. A failure is told, and changes nothing of the mount.
pub fn enter(args: &Args) {
    if !args.get(UPDATE_FSTAB) {
        return;
    }
    match may_enter().and_then(|()| update(args, Path::new("/"))) {
        Ok(()) => tracing::info!("/etc/fstab mounts {} from now on", shown(args.place(1))),
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
        Ok(meta) => (fs::read(&path)?, Some((meta.uid(), meta.gid())), meta.mode() & 0o7777),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => (Vec::new(), None, 0o644),
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
    let source = args.place(0);
    if mode & 0o044 != 0 && shown_address(source) != shown(source) {
        tracing::warn!("everybody can read /etc/fstab, and now the password in it: chmod 600 it");
    }
    Ok(())
}

/// Writes a file in one step.
fn replace(
    path: &Path,
    temporary: &Path,
    text: &[u8],
    owner: Option<(u32, u32)>,
    mode: u32,
) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(text)?;
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

/// The fields of a line that tell what is mounted where and how, as they stand in the table: names in it are bytes.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    kind: &'static str,
    source: Vec<u8>,
    mountpoint: Vec<u8>,
    options: Vec<u8>,
}

impl Line {
    fn of(args: &Args, kind: &'static str) -> Result<Self> {
        let mut options: Vec<Vec<u8>> = Vec::new();
        for (row, value, text, origin) in args.settings() {
            // What the environment says now, it may say otherwise then: the user is told of it.
            if origin.is_ambient() || LEFT_OUT.iter().any(|left_out| left_out.name == row.name) {
                continue;
            }
            if row.file.is_some() {
                // Others read the table.
                if let Origin::File(path) = origin
                    && let Some(name) = row.file
                {
                    options.push([name.as_bytes(), b"=", path.as_os_str().as_bytes()].concat());
                } else {
                    tracing::warn!(
                        "--{} is not entered in /etc/fstab: name a file with it by --{0}-file",
                        row.name
                    );
                }
                continue;
            }
            let value: Vec<u8> = match value {
                Value::Switch(false) => b"false".to_vec(),
                // Only a switch may stand alone: "true" may also be a name.
                Value::Switch(true) => {
                    options.push(row.name.into());
                    continue;
                }
                // A directory, where objects are files.
                Value::Bucket(text, dir) if !text.contains("://") && dir.is_dir() => {
                    dir.as_os_str().as_bytes().to_vec()
                }
                Value::Place(place) => place.as_bytes().to_vec(),
                Value::Dirs(dirs) => listed(dirs)?,
                _ => text.as_bytes().to_vec(),
            };
            options.push([row.name.as_bytes(), b"=", &value].concat());
        }
        if let Some(bad) = options.iter().find(|o| o.contains(&b',')) {
            let name = bad.split(|b| *b == b'=').next().unwrap_or_default();
            let bad = shown(OsStr::from_bytes(name)).into_owned();
            return Err(Failure::new(format!("a line of fstab cannot hold --{bad}: there is a comma in it")));
        }
        options.sort_unstable();
        // Of these the last one wins: they stay in their order.
        let words = ciderfs_fuse::mount::split_text(args.find(O).unwrap_or_default()).into_iter();
        let words = words.filter(|w| !matches!(*w, "" | "_netdev" | "nofail"));
        options.extend(words.map(Vec::from));
        options.splice(..0, [b"_netdev".to_vec(), b"nofail".to_vec()]);
        Ok(Self {
            kind,
            source: escaped(args.place(0).as_os_str().as_bytes()),
            mountpoint: escaped(args.place(1).as_os_str().as_bytes()),
            options: escaped(&options.join(&b',')),
        })
    }

    /// The text of a table with this line in it, in the place of one for the same mount if there is one.
    fn put_into(&self, table: &[u8]) -> Vec<u8> {
        let line = [&self.source[..], &self.mountpoint, self.kind.as_bytes(), &self.options, b"0 0"];
        let line = [line[..4].join(&b"  "[..]), line[4].to_vec()].join(&b"  "[..]);
        let is_same = |old: &[u8]| {
            let mut fields = old.split(|b| matches!(b, b' ' | b'\t')).filter(|f| !f.is_empty());
            fields.next() == Some(&self.source[..])
                && fields.next().map(trimmed) == Some(trimmed(&self.mountpoint))
        };
        let mut found = false;
        let mut lines: Vec<&[u8]> = Vec::new();
        let table = table.strip_suffix(b"\n").unwrap_or(table);
        for old in table.split(|b| *b == b'\n').skip(usize::from(table.is_empty())) {
            if !is_same(old) {
                lines.push(old);
            } else if !std::mem::replace(&mut found, true) {
                lines.push(&line);
            }
        }
        if !found {
            lines.push(&line);
        }
        let mut out = lines.join(&b'\n');
        out.push(b'\n');
        out
    }
}

/// A path without slashes at its end.
fn trimmed(mut path: &[u8]) -> &[u8] {
    while let Some(shorter) = path.strip_suffix(b"/") {
        path = shorter;
    }
    path
}

/// `--cache-dir` for any working directory, without a comma if that can be.
fn listed(dirs: &[cache_dirs::Entry]) -> Result<Vec<u8>> {
    if dirs.is_empty() {
        return Ok(b"memory".to_vec());
    }
    let texts: Vec<Vec<u8>> = dirs.iter().map(cache_dirs::Entry::text).collect();
    match texts.iter().find(|t| t.contains(&b':')) {
        Some(bad) => Err(Failure::new(format!(
            "a line of fstab cannot hold the cache directory {}: there is a colon in it",
            shown(OsStr::from_bytes(bad))
        ))),
        None => Ok(texts.join(&b':')),
    }
}

/// fstab(5): white space within a field is written in octal.
fn escaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    for b in field {
        match b {
            b' ' | b'\t' | b'\n' | b'\\' => out.extend(format!("\\{b:03o}").bytes()),
            _ => out.push(*b),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;
    use crate::cli::command::Command;
    use crate::cli::table::{
        CACHE_DIR, ENABLE_XATTR, HIDE_INTERNAL, LOG, MAX_UPLOADS, METRICS, READ_ONLY, SUBDIR,
    };
    use crate::commands::helper::{Call, translate};

    fn args(words: &[&str]) -> Args {
        Args::parse(Command::Mount, words).unwrap()
    }

    fn text(field: &[u8]) -> &str {
        std::str::from_utf8(field).unwrap()
    }

    /// What mount(8) makes of a line.
    fn mounted(line: &Line) -> Args {
        let unescaped = |field: &[u8]| {
            let mut parts = field.split(|b| *b == b'\\');
            let mut out = parts.next().unwrap().to_vec();
            for part in parts {
                out.push(u8::from_str_radix(text(&part[..3]), 8).unwrap());
                out.extend(&part[3..]);
            }
            OsString::from_vec(out)
        };
        let [source, mountpoint, options] =
            [&line.source, &line.mountpoint, &line.options].map(|f| unescaped(f));
        let helper = ["/sbin/mount.juicefs".into(), source, mountpoint, "-o".into(), options];
        let Call::Command(command) = translate(&helper).unwrap() else { panic!("no command") };
        Args::parse(Command::Mount, &command[2..]).unwrap()
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
        assert_eq!((text(&line.source), text(&line.options)), ("redis://h/1", options));
        assert_eq!(text(&line.mountpoint), "/mnt/my\\040data/");
        // And mount(8) makes the same command of it.
        let again = mounted(&line);
        assert_eq!(again.find(MAX_UPLOADS), Some(5));
        assert_eq!(again.find(CACHE_DIR), a.find(CACHE_DIR));
        assert!(again.get(HIDE_INTERNAL) && !again.get(ENABLE_XATTR));
        assert!(Line::of(&args(&["redis://h/1", "/m", "--subdir=a,b"]), "juicefs").is_err());
        assert!(Line::of(&args(&["redis://h/1", "/m", "--cache-dir=/a:/b,c"]), "juicefs").is_err());
    }

    #[test]
    fn texts_that_look_like_switches_are_texts() {
        let words = ["redis://h/1", "/m", "--subdir=true", "--log=/false", "--metrics=true:1"];
        for words in [&words[..], &["redis://h/1", "/m", "--subdir", "--read-only", "--metrics="]] {
            let a = args(words);
            let again = mounted(&Line::of(&a, "juicefs").unwrap());
            assert_eq!((again.find(SUBDIR), again.find(LOG)), (a.find(SUBDIR), a.find(LOG)));
            assert_eq!(again.find(METRICS), a.find(METRICS));
            assert!(!again.get(READ_ONLY));
        }
    }

    #[test]
    fn a_line_names_places_absolutely_in_their_bytes() {
        let here = std::env::current_dir().unwrap();
        let words = [
            OsStr::new("sqlite://a:b #.db?max_open_conns=3"),
            OsStr::from_bytes(b"m\xff \n\\"),
            OsStr::from_bytes(b"--log=l\xfe"),
            OsStr::new("--cache-dir=c1,c2,disk*"),
            OsStr::from_bytes(b"--subdir=s \xfd"),
        ];
        let a = Args::parse(Command::Mount, &words).unwrap();
        let line = Line::of(&a, "juicefs").unwrap();
        let source = format!("sqlite://{}/a:b\\040#.db?max_open_conns=3", here.display());
        assert_eq!(text(&line.source), source);
        let again = mounted(&line);
        assert_eq!((again.place(0), again.place(1)), (a.place(0), a.place(1)));
        assert_eq!((again.find(SUBDIR), again.find(LOG)), (a.find(SUBDIR), a.find(LOG)));
        let text = |a: &Args| a.find(CACHE_DIR).unwrap().iter().map(|d| d.text()).collect::<Vec<_>>();
        assert_eq!(text(&again), text(&a));
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
