//! How commands fail: one line with the cause and a remedy, and an exit code.

use std::fmt;

/// Exit code of any error.
pub const EXIT_ERROR: u8 = 1;
/// Exit code of `format --if-absent` where another volume is at one of the two places.
pub const EXIT_OTHER_VOLUME: u8 = 2;
/// Exit code of `format --if-absent` where one of them does not answer: later it may.
pub const EXIT_NO_ANSWER: u8 = 3;
/// Exit code of an unknown command.
pub const EXIT_UNKNOWN_COMMAND: u8 = 3;
/// Exit code of a mount that must not be restarted as it is.
pub const EXIT_STOP: u8 = 11;

/// Exit code of `upgrade` where nobody supervises a mount.
pub const EXIT_UNSUPERVISED: u8 = 2;
/// Exit code of `upgrade` for a program that cannot take a mount over.
pub const EXIT_UNFIT: u8 = 3;
/// Exit code of `upgrade` where the new program did not get ready and the old one serves again.
pub const EXIT_OLD_SERVES: u8 = 4;
/// Exit code of `upgrade` where neither of them does.
pub const EXIT_UNSERVED: u8 = 5;

/// Exit codes of programs that a signal ended, as shells tell them, begin after this.
const EXIT_SIGNAL: u8 = 128;

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// What to tell.
    pub text: String,
    /// Exit code.
    pub code: u8,
}

impl Failure {
    /// An ordinary error.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: EXIT_ERROR }
    }

    /// Ended by a signal before the work was done.
    pub fn signal(signal: libc::c_int) -> Self {
        let name = match signal {
            libc::SIGINT => "SIGINT",
            _ => "SIGTERM",
        };
        Self { text: format!("ended by {name}"), code: EXIT_SIGNAL | u8::try_from(signal).unwrap_or(0) }
    }

    /// Dies of the signal that ended the command, if one did, so that whoever started it sees that.
    #[allow(unsafe_code, reason = "dying of a signal takes its default action")]
    pub fn die(&self) {
        let Some(signal) = self.code.checked_sub(EXIT_SIGNAL).filter(|s| *s > 0) else { return };
        // SAFETY: the default action needs nothing of this process; nothing runs any more that the signal could interrupt.
        unsafe {
            libc::signal(signal.into(), libc::SIG_DFL);
            libc::raise(signal.into());
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(e: E) -> Self {
        Self::new(e.to_string())
    }
}

/// Result of a command.
pub type Result<T> = std::result::Result<T, Failure>;
