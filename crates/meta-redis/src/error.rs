//! From the driver's errors to those of the store.

use ciderfs_meta::store::StoreError;
use redis::RedisError;

/// Answers that pass by themselves, or once the connection goes to the right server.
const PASSING: [&str; 10] = [
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "READONLY",
    "MOVED",
    "ASK",
    "BUSY",
    "NOREPLICAS",
    "UNBLOCKED",
];
/// The same for answers without a code of their own.
const PASSING_TEXT: [&str; 1] = ["max number of clients"];
/// Answers that call for a new connection: we talk to the wrong server.
const MISPLACED: [&str; 5] = ["READONLY", "MOVED", "ASK", "MASTERDOWN", "UNBLOCKED"];
/// Where the rights that a user needs are listed.
const RIGHTS: &str = "docs/redis.md lists all that CiderFS needs";

/// Does the server not know the script?
pub(crate) fn is_no_script(e: &RedisError) -> bool {
    e.code() == Some("NOSCRIPT")
}

/// Is it the answer of a replica?
pub(crate) fn is_read_only(e: &RedisError) -> bool {
    e.code() == Some("READONLY") || e.to_string().contains("READONLY ")
}

/// Must the connection be replaced?
pub(crate) fn is_lost(e: &RedisError) -> bool {
    e.is_io_error()
        || e.is_unrecoverable_error()
        || e.code().is_some_and(|c| MISPLACED.contains(&c))
        || e.to_string().contains("READONLY")
}

/// Why a server does not do what it was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The user may not run the command, as far as it is named.
    Command(Option<String>),
    /// The user may not touch the key.
    Keys,
    /// There is no such command: it was renamed or disabled.
    Unknown(Option<String>),
}

impl Refusal {
    /// The refusal in an answer, directly or from within a script.
    pub fn of(e: &RedisError) -> Option<Self> {
        e.code()?;
        Self::read(&e.to_string())
    }

    fn read(text: &str) -> Option<Self> {
        let quoted = |after: &str| {
            let rest = text.split_once(after)?.1.trim_start();
            let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '`' | '"'))?;
            rest.get(1..)?.split(quote).next().map(str::to_owned)
        };
        // Ours (`scripts/call.lua`).
        let named = || Some(text.rsplit_once('[')?.1.split_once(']')?.0.to_owned());
        let lower = text.to_lowercase();
        if lower.contains("unknown command") || lower.contains("unknown subcommand") {
            return Some(Self::Unknown(quoted("command")));
        }
        if lower.contains("unknown redis command") {
            return Some(Self::Unknown(named()));
        }
        let acl = lower.contains("noperm")
            || lower.contains("acl failure in script")
            || lower.contains("the user executing the script can't");
        if !acl {
            return None;
        }
        let keys = (lower.contains(" key") || lower.contains("keys")) && !lower.contains("to run");
        Some(if keys { Self::Keys } else { Self::Command(quoted("to run the").or_else(named)) })
    }

    fn explain(&self, server: &str) -> String {
        match self {
            Self::Command(Some(name)) => format!(
                "{server} does not let this user run {}; grant it with ACL SETUSER name +{}, {RIGHTS}",
                name.to_uppercase(),
                name.to_lowercase()
            ),
            Self::Command(None) => {
                format!("{server} does not let this user run a command within a script; {RIGHTS}")
            }
            Self::Keys => format!(
                "{server} does not let this user touch the keys of the volume; grant them with ACL SETUSER name ~*, {RIGHTS}"
            ),
            Self::Unknown(name) => format!(
                "{server} does not know {}, which CiderFS needs: was it renamed or disabled? {RIGHTS}",
                name.as_deref().map_or_else(|| "a command".to_owned(), str::to_uppercase)
            ),
        }
    }
}

/// What an error means. `sent` tells whether a commit may have been applied when the connection broke.
pub(crate) fn explain(server: &str, e: &RedisError, sent: bool) -> StoreError {
    meaning(server, e, sent).because(e.clone())
}

fn meaning(server: &str, e: &RedisError, sent: bool) -> StoreError {
    let text = e.to_string();
    let code = e.code().unwrap_or_default();
    let says = |words: &[&str]| words.iter().any(|w| code == *w || text.contains(&format!("{w} ")));
    if says(&["OOM", "command not allowed when used memory > 'maxmemory'"]) {
        return StoreError::no_space(format!("{server} is out of memory; raise its maxmemory: {text}"));
    }
    if says(&["MISCONF"]) {
        return StoreError::no_space(format!("{server} cannot save to its disk and refuses writes: {text}"));
    }
    if let Some(refusal) = Refusal::of(e) {
        return StoreError::fatal(refusal.explain(server));
    }
    if says(&["NOAUTH", "WRONGPASS"]) || text.contains("invalid password") {
        return refused_login(server, &text);
    }
    if says(&PASSING) || PASSING_TEXT.iter().any(|w| text.contains(w)) {
        return StoreError::unavailable(format!("{server}: {text}"));
    }
    if e.code().is_some() {
        return StoreError::corrupt(format!("{server}: {text}"));
    }
    if sent {
        StoreError::ambiguous(format!("{server}: {text}"))
    } else {
        StoreError::unavailable(format!("{server}: {text}"))
    }
}

fn refused_login(server: &str, text: &str) -> StoreError {
    StoreError::fatal(format!(
        "{server} refuses us: {text}; check user and password in the address, or META_PASSWORD"
    ))
}

/// What the answer to `AUTH` means: unless it passes, user and password are wrong.
pub(crate) fn explain_auth(server: &str, e: &RedisError) -> StoreError {
    match explain(server, e, false) {
        StoreError::Corrupt(_) => refused_login(server, &e.to_string()).because(e.clone()),
        other => other,
    }
}

/// What an error means that came while connecting.
pub(crate) fn explain_connect(server: &str, e: &RedisError) -> StoreError {
    match explain(server, e, false) {
        StoreError::Corrupt(reason) => StoreError::Fatal(reason),
        StoreError::Unavailable(_) if e.kind() == redis::ErrorKind::InvalidClientConfig => {
            StoreError::fatal(format!("{server}: {e}")).because(e.clone())
        }
        StoreError::Unavailable(reason) if e.is_io_error() => {
            StoreError::unavailable(format!("{reason}{NOBODY}")).because(e.clone())
        }
        other => other,
    }
}

/// The end of what is said when no server answered.
const NOBODY: &str = "; is Redis running there, and can this machine reach it?";

/// Did no server answer?
pub(crate) fn is_nobody(e: &StoreError) -> bool {
    matches!(e, StoreError::Unavailable(reason) if reason.ends_with(NOBODY))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the words of Redis 6.2, 7.0, 7.2 and Valkey.
    #[test]
    fn refusals_name_the_command() {
        let command = |name: &str| Some(Refusal::Command(Some(name.to_owned())));
        for (text, want) in [
            ("NOPERM: this user has no permissions to run the 'info' command", command("info")),
            ("NOPERM: User bob has no permissions to run the 'config|set' command", command("config|set")),
            (
                "ERR: ACL failure in script: User bob has no permissions to run the 'hset' command script: 5f",
                command("hset"),
            ),
            (
                "ERR: The user executing the script can't run this command or subcommand script: 5f",
                Some(Refusal::Command(None)),
            ),
            (
                "ERR: user_script:6: The user executing the script can't run this command or subcommand [set] script: 5f",
                command("set"),
            ),
            (
                "ERR: user_script:6: ERR Unknown Redis command called from script [HSET] script: 5f",
                Some(Refusal::Unknown(Some("HSET".into()))),
            ),
            (
                "NOPERM: this user has no permissions to access one of the keys used as arguments",
                Some(Refusal::Keys),
            ),
            ("NOPERM: No permissions to access a key", Some(Refusal::Keys)),
            (
                "ERR: The user executing the script can't access at least one of the keys mentioned",
                Some(Refusal::Keys),
            ),
            (
                "ERR: unknown command 'EVALSHA', with args beginning with: 'x'",
                Some(Refusal::Unknown(Some("EVALSHA".into()))),
            ),
            (
                "ERR: unknown command `INFO`, with args beginning with: ",
                Some(Refusal::Unknown(Some("INFO".into()))),
            ),
            ("ERR: Unknown Redis command called from script script: 5f", Some(Refusal::Unknown(None))),
            ("WRONGPASS: invalid username-password pair or user is disabled.", None),
            ("LOADING: Redis is loading the dataset in memory", None),
        ] {
            assert_eq!(Refusal::read(text), want, "{text}");
        }
    }
}
