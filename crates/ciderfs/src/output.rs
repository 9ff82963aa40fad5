//! What commands print. Whoever reads it may stop (`| head`, `| grep -q`): then the command ends quietly, as it does for want of more to say. A
//! disk that is full is an error. The macros have the names of those of the standard library, which panic, and are the ones that
//! every command has.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::EXIT_ERROR;
use crate::log;

/// As in the standard library.
macro_rules! print {
    ($($text:tt)*) => { $crate::output::print(format_args!($($text)*)) };
}

/// As in the standard library.
macro_rules! println {
    ($($text:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// As in the standard library.
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::output::complain(format_args!("{}\n", format_args!($($text)*))) };
}

/// What is printed matters less than what is done.
static IS_ASIDE: AtomicBool = AtomicBool::new(false);

/// From now on nothing ends because it cannot be printed: a mount is served, whoever hears that it is ready.
pub fn is_aside() {
    IS_ASIDE.store(true, Ordering::Relaxed);
}

/// To standard output.
pub fn print(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let Err(e) = out.write_fmt(text).and_then(|()| out.flush()) else { return };
    if IS_ASIDE.load(Ordering::Relaxed) {
        return;
    }
    if e.kind() == ErrorKind::BrokenPipe {
        exit(0);
    }
    log::fatal(&format!("cannot write to the standard output: {e}"));
    exit(EXIT_ERROR.into());
}

/// To standard error, if somebody reads that.
pub fn complain(text: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(text);
}
