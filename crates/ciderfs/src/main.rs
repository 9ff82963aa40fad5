//! `ciderfs`: the command line.

mod args;
mod commands;
mod daemon;
mod failure;
mod flags;
mod http;
mod log;
mod opening;
mod values;

use std::process::ExitCode;

/// Allocations from this size on are mapped one by one and go back to the system when freed.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 1 << 20;

/// Keeps freed blocks from piling up. By default glibc stops mapping large allocations after the first one is freed,
/// and each thread's arena then holds on to some: a third of a mount's peak memory.
fn tame_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: called once, before there is another thread; a refused setting changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
    }
}

fn main() -> ExitCode {
    tame_allocator();
    let argv: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    let code = commands::run(&argv);
    opening::close();
    code
}
