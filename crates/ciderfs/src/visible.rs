//! The command line as everybody on the machine can read it (`ps`): without secrets. What was typed stands there until the
//! program covers it, which it does first of all; a mount in the background never has it (see [`crate::daemon`]).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use ciderfs_format::{is_secret_name, shown, shown_address};

use crate::args::Args;
use crate::flags::{FLAGS, Kind};
use crate::values::FROM_STDIN;

/// In the place of a secret.
const HIDDEN: &str = "****";

/// The command line without secrets. Words may lack the name of a command that they are for, so they are judged alone.
pub fn words(argv: &[OsString]) -> Vec<OsString> {
    let mut is_value = false;
    argv.iter()
        .map(|word| {
            if std::mem::take(&mut is_value) && word != FROM_STDIN {
                return HIDDEN.into();
            }
            let bytes = word.as_bytes();
            if !bytes.starts_with(b"-") {
                return without_password(word);
            }
            let end = bytes.iter().position(|b| *b == b'=');
            let (name, value) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
            let plain = String::from_utf8_lossy(name);
            let plain = plain.trim_start_matches('-').trim_end_matches('=');
            let is_secret = FLAGS.iter().any(|f| f.kind == Kind::Secret && f.name == plain);
            is_value = is_secret && end.is_none();
            if end.is_some() && (is_secret || is_secret_name(plain)) {
                return joined(name, HIDDEN.as_bytes());
            }
            joined(name, without_password(OsStr::from_bytes(value)).as_bytes())
        })
        .collect()
}

fn joined(name: &[u8], value: &[u8]) -> OsString {
    OsString::from_vec([name, value].concat())
}

/// A word that may be an address; names of places stay as they are.
fn without_password(word: &OsStr) -> OsString {
    let bytes = word.as_bytes();
    let is_place = matches!(bytes.first(), None | Some(b'/' | b'.'));
    let may_be = bytes.windows(3).any(|w| w == b"://") || bytes.contains(&b'@') || bytes.contains(&b'=');
    if is_place || !may_be || !has_password(word) {
        return word.to_owned();
    }
    shown_address(word).into()
}

fn has_password(address: &OsStr) -> bool {
    shown_address(address) != shown(address)
}

/// Writes the words without secrets over the command line of this process, which is `argv`.
#[allow(unsafe_code, reason = "the kernel shows the bytes where it has put them")]
pub fn cover(argv: &[OsString]) {
    let cover = words(argv);
    if cover == argv {
        return;
    }
    let Some((start, end)) = arguments() else { return };
    let mut text = cover.join(OsStr::from_bytes(b"\0")).into_vec();
    // The last byte stays the end of the last word.
    text.resize((end - start).saturating_sub(1), 0);
    // SAFETY: the kernel keeps these bytes of ours, from the first argument to the end of the last one, and they are writable. No
    // other thread runs yet that could look at them. Whoever asks for the arguments later finds texts that end within them.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), start as *mut u8, text.len()) };
}

/// Where the arguments are in the memory of this process: `arg_start` and `arg_end`.
fn arguments() -> Option<(usize, usize)> {
    // proc_pid_stat(5); the second field is a name in parentheses with anything in it.
    const ARG_START: usize = 48 - 3;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(ARG_START);
    let (start, end) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (0 < start && start < end).then_some((start, end))
}

/// Says once that what was typed can be seen, and what to do instead.
pub fn warn(args: &Args) {
    if crate::daemon::is_daemon() {
        return;
    }
    let seen = "others on this machine could see it while the command started (ps), and the shell keeps it";
    if let Some(name) = args.typed_secret() {
        let variable = match args.command() {
            "format" => {
                let variable = name.to_ascii_uppercase().replace('-', "_");
                format!("set {variable} in the environment when you create a volume, or ")
            }
            _ => String::new(),
        };
        tracing::warn!("--{name}: {seen}; {variable}say --{name} {FROM_STDIN} and give it on standard input");
    }
    if args.addresses().any(has_password) {
        tracing::warn!(
            "the password in the address: {seen}; leave it out and set META_PASSWORD, or META_PASSWORD_FILE"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_shown_without_secrets() {
        for (line, want) in [
            ("ciderfs mount -d redis://:PW@h/1 /mnt", "ciderfs mount -d redis://:****@h/1 /mnt"),
            ("ciderfs mount :PW@h/1 m -o allow_other,x=1", "ciderfs mount :****@h/1 m -o allow_other,x=1"),
            (
                "ciderfs format --secret-key PW --session-token=PW --access-key AK --storage s3 M v",
                "ciderfs format --secret-key **** --session-token=**** --access-key AK --storage s3 M v",
            ),
            ("ciderfs format -secret-key=PW M v", "ciderfs format -secret-key=**** M v"),
            ("ciderfs format --secret-key - M v", "ciderfs format --secret-key - M v"),
            ("ciderfs format --secretkey=PW M v", "ciderfs format --secretkey=**** M v"),
            ("ciderfs format --bucket=http://k:PW@h/b M v", "ciderfs format --bucket=http://k:****@h/b M v"),
            ("ciderfs format --bucket http://k:PW@h/b M v", "ciderfs format --bucket http://k:****@h/b M v"),
            ("ciderfs mount postgres://h?password=PW /m", "ciderfs mount postgres://h?password=**** /m"),
            ("ciderfs mount M /a:b@c --metrics=127.0.0.1:9 --cache-dir=/a:/b -o ro", ""),
            ("ciderfs mount sqlite3:///a:b@c.db?_sync=1 ./m:x@y", ""),
        ] {
            let argv: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let want = if want.is_empty() { line } else { want };
            assert_eq!(words(&argv).join(OsStr::new(" ")), OsStr::new(want));
        }
    }
}
