//! `ciderfs`: the command line.

mod args;
mod commands;
mod daemon;
mod failure;
mod flags;
mod http;
mod log;
mod memory;
mod opening;
mod values;

use std::process::ExitCode;

fn main() -> ExitCode {
    memory::tame_allocator();
    let argv: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    commands::run(&argv)
}
