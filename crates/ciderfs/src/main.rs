//! `ciderfs`: the command line.

mod args;
mod cache_dirs;
mod commands;
mod daemon;
mod descriptors;
mod failure;
mod flags;
mod http;
mod log;
mod memory;
mod opening;
mod places;
mod values;

use std::process::ExitCode;

fn main() -> ExitCode {
    memory::tame_allocator();
    let argv: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let code = commands::run(&argv);
    opening::close();
    code
}
