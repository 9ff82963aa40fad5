//! Lines of `.accesslog`, as the official client words them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use ciderfs_format::{Ino, shown};
use ciderfs_fuse::{Attr, Op, Request};
use ciderfs_vfs::Vfs;

use crate::handler::Answered;

/// A request whose answer is still to come, if anybody reads of it. Reads of virtual files are left out: the log's reader would
/// read of its own reading.
pub(crate) fn begin(vfs: &Vfs, method: &str, req: &Request) -> Option<String> {
    if !vfs.access_log().is_read() {
        return None;
    }
    let h = req.header();
    let op = req.op().ok()?;
    if matches!(op, Op::Read { .. }) && Ino(h.nodeid).is_virtual() {
        return None;
    }
    let ino = h.nodeid;
    let args = match op {
        Op::Lookup { name }
        | Op::Unlink { name }
        | Op::Rmdir { name }
        | Op::Getxattr { name, .. }
        | Op::Removexattr { name } => format!("{ino},{}", word(name)),
        Op::Symlink { name, target } => format!("{ino},{},{}", word(name), word(target)),
        Op::Mknod { name, mode, .. } | Op::Create { name, mode, .. } => {
            format!("{ino},{},{}", word(name), bits(mode))
        }
        Op::Mkdir { name, mode, .. } => format!("{ino},{},{}", word(name), bits(mode | libc::S_IFDIR)),
        Op::Rename { name, newdir, newname } => format!("{ino},{},{newdir},{},0", word(name), word(newname)),
        Op::Rename2 { name, newdir, newname, flags } => {
            format!("{ino},{},{newdir},{},{flags}", word(name), word(newname))
        }
        Op::Link { oldnode, newname } => format!("{oldnode},{ino},{}", word(newname)),
        Op::Open { flags, .. } => format!("{ino},{flags:#x}"),
        Op::Read { fh, offset, size, .. } => format!("{ino},{size},{offset},{fh}"),
        Op::Write { fh, offset, data, .. } => format!("{ino},{},{offset},{fh}", data.len()),
        Op::Flush { fh, lock_owner } => format!("{ino},{fh},{lock_owner:016X}"),
        Op::Release { fh, .. } => format!("{ino},{fh}"),
        Op::Fsync { datasync, .. } => format!("{ino},{}", u8::from(datasync)),
        Op::Setattr(s) => {
            let mut set = Vec::new();
            set.extend(s.mode.map(|m| format!("mode={}", bits(m))));
            set.extend(s.uid.map(|n| format!("uid={n}")));
            set.extend(s.gid.map(|n| format!("gid={n}")));
            set.extend(s.size.map(|n| format!("size={n}")));
            set.extend(s.atime.map(|_| "atime".to_owned()));
            set.extend(s.mtime.map(|_| "mtime".to_owned()));
            format!("{ino},[{}]", set.join(","))
        }
        Op::Setxattr { name, value, flags, .. } => format!("{ino},{},{},{flags}", word(name), value.len()),
        Op::Readdir { size, offset, .. } => format!("{ino},{size},{offset},false"),
        Op::Readdirplus { size, offset, .. } => format!("{ino},{size},{offset},true"),
        Op::Fallocate { fh, offset, length, mode } => format!("{ino},{mode},{offset},{length},{fh}"),
        Op::Lseek { offset, whence, .. } => format!("{ino},{offset},{whence}"),
        Op::CopyFileRange(r) | Op::CopyFileRange64(r) => {
            format!("{ino},{},{},{},{},{}", r.off_in, r.node_out, r.off_out, r.len, r.flags)
        }
        Op::Access { mask } => format!("{ino},{mask:#o}"),
        Op::Ioctl { cmd, .. } => format!("{ino},{cmd:#x}"),
        _ => ino.to_string(),
    };
    Some(format!("[uid:{},gid:{},pid:{}] {method} ({args})", h.uid, h.gid, h.pid))
}

/// The whole line.
pub(crate) fn end(begun: &str, answer: &Answered, took: Duration) -> String {
    let took = took.as_secs_f64();
    let result = match answer {
        Answered::Error(e) => return format!("{begun}: {e} <{took:.6}>"),
        Answered::Entry(e) => format!(": {}", node(&e.attr)),
        Answered::Attr(a, _) => format!(": {}", node(a)),
        Answered::Create(e, o) => format!(": {} [fh:{}]", node(&e.attr), o.fh),
        Answered::Open(o) => format!(" [fh:{}]", o.fh),
        Answered::Data(data) => format!(": ({})", data.iter().map(bytes::Bytes::len).sum::<usize>()),
        Answered::Copied(n) | Answered::Offset(n) => format!(": ({n})"),
        Answered::Link(target) => format!(": ({})", word(target)),
        _ => String::new(),
    };
    format!("{begun}{result} - OK <{took:.6}>")
}

fn node(a: &Attr) -> String {
    format!(
        "({},[{},{},{},{},{},{},{},{}])",
        a.ino,
        bits(a.mode),
        a.nlink,
        a.uid,
        a.gid,
        a.atime.secs,
        a.mtime.secs,
        a.ctime.secs,
        a.size
    )
}

/// A name of any bytes, in one line.
fn word(name: &[u8]) -> String {
    let text = shown(OsStr::from_bytes(name));
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            c if c.is_control() => out.push_str(&format!("\\{:03o}", u32::from(c))),
            c => out.push(c),
        }
        out
    })
}

/// Type and permissions, as letters and in octal.
fn bits(mode: u32) -> String {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 'd',
        libc::S_IFLNK => 'l',
        libc::S_IFCHR => 'c',
        libc::S_IFBLK => 'b',
        libc::S_IFIFO => 'p',
        libc::S_IFSOCK => 's',
        _ => '-',
    };
    let permissions = (0..9).map(|i| if mode & (0o400 >> i) == 0 { '-' } else { ['r', 'w', 'x'][i % 3] });
    let mut letters: Vec<char> = permissions.collect();
    let special = [(libc::S_ISUID, 2, 's'), (libc::S_ISGID, 5, 's'), (libc::S_ISVTX, 8, 't')];
    for (bit, at, letter) in special.into_iter().filter(|(bit, ..)| mode & bit != 0) {
        debug_assert!(bit != 0);
        letters[at] = if letters[at] == 'x' { letter } else { letter.to_ascii_uppercase() };
    }
    format!("{kind}{}:{mode:07o}", letters.into_iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_names_are_told_in_one_line() {
        assert_eq!(bits(0o100_644), "-rw-r--r--:0100644");
        assert_eq!(bits(0o041_777), "drwxrwxrwt:0041777");
        assert_eq!(bits(0o104_711), "-rws--x--x:0104711");
        assert_eq!(bits(0o102_640), "-rw-r-S---:0102640");
        assert_eq!(word(b"a b\n\xff"), "a b\\012\\377");
    }
}
