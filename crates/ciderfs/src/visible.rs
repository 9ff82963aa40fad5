//! The command line as everybody on the machine can read it (`ps`): without secrets. What was typed stands there until the
//! program covers it, which it does first of all; a mount in the background never has it (see [`crate::daemon`]).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use ciderfs_format::{is_secret_name, shown, shown_address};

use crate::cli::args::Args;
use crate::cli::flag::Kind;
use crate::cli::secrets::Origin;
use crate::cli::table::FLAGS;
use crate::cli::values::FROM_STDIN;

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

/// Covers what the kernel shows of this process to others: secrets in the command line, which is `argv`, and those in the
/// environment that it was started with (`/proc/PID/environ`). Programs that it starts get them all the same.
pub fn cover(argv: &[OsString]) {
    let Some(at) = Places::of_this_process() else { return };
    cover_arguments(argv, at.arguments);
    cover_environment(at.environment);
}

#[allow(unsafe_code, reason = "the kernel shows the bytes where it has put them")]
fn cover_arguments(argv: &[OsString], (start, end): (usize, usize)) {
    let cover = words(argv);
    if cover == argv {
        return;
    }
    let mut text = cover.join(OsStr::from_bytes(b"\0")).into_vec();
    // The last byte stays the end of the last word.
    text.resize((end - start).saturating_sub(1), 0);
    // SAFETY: the kernel keeps these bytes of ours, from the first argument to the end of the last one, and they are writable. No
    // other thread runs yet that could look at them. Whoever asks for the arguments later finds texts that end within them.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), start as *mut u8, text.len()) };
}

#[allow(unsafe_code, reason = "the kernel shows the bytes where it has put them")]
fn cover_environment((start, end): (usize, usize)) {
    for (name, value) in std::env::vars_os().filter(|(name, value)| !value.is_empty() && is_secret(name)) {
        if name.as_bytes().contains(&b'=') {
            continue;
        }
        // SAFETY: no other thread runs yet. A variable that is set anew has its text in another place than the kernel's.
        unsafe { std::env::set_var(&name, &value) };
    }
    // SAFETY: the kernel keeps these bytes of ours, from the first variable to the end of the last one, and they are writable.
    // No other thread runs yet. What is written over is text of variables that were set anew above: nobody else refers to it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, end - start) };
    for variable in bytes.split_mut(|b| *b == 0) {
        let Some(at) = variable.iter().position(|b| *b == b'=') else { continue };
        let (name, value) = variable.split_at_mut(at);
        if is_secret(OsStr::from_bytes(name)) {
            value[1..].fill(b'*');
        }
    }
}

/// Is the value of a variable nobody else's business?
fn is_secret(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let is_name_of_file = name.ends_with("_FILE");
    let is_flag = FLAGS.iter().any(|row| row.file.is_some() && row.env == Some(name));
    is_flag || (is_secret_name(name) && !is_name_of_file)
}

/// Where the kernel has put what it shows: first byte, and the one after the last.
struct Places {
    arguments: (usize, usize),
    environment: (usize, usize),
}

impl Places {
    /// `arg_start` to `env_end` of proc_pid_stat(5).
    fn of_this_process() -> Option<Self> {
        // The second field is a name in parentheses with anything in it.
        const ARG_START: usize = 48 - 3;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(ARG_START);
        let numbers: Vec<usize> = fields.take(4).map_while(|field| field.parse().ok()).collect();
        let [arg_start, arg_end, env_start, env_end] = numbers[..] else { return None };
        let are_there = 0 < arg_start && arg_start < arg_end && 0 < env_start && env_start <= env_end;
        are_there.then_some(Self { arguments: (arg_start, arg_end), environment: (env_start, env_end) })
    }
}

/// Says once that what was typed can be seen, and what to do instead.
pub fn warn(args: &Args) {
    if crate::daemon::is_daemon() || crate::supervise::worker::get().is_some() {
        return;
    }
    let seen = "others on this machine could see it while the command started (ps), and the shell keeps it";
    for (row, _, _, origin) in args.settings() {
        if *origin == Origin::Typed {
            let name = row.name;
            tracing::warn!(
                "--{name}: {seen}; name a file with it by --{name}-file, or say --{name} {FROM_STDIN} and give it on standard input"
            );
        }
    }
    if args.addresses().any(has_password) {
        tracing::warn!(
            "the password in the address: {seen}; leave it out and name a file with it by --meta-password-file, or set META_PASSWORD"
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
