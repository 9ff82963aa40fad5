//! `ciderfs`: the command line.
#![deny(unsafe_code)]

#[macro_use]
mod output;

mod cli;
mod commands;
mod config;
mod daemon;
#[allow(unsafe_code, reason = "descriptors that no owner in Rust stands for")]
mod descriptors;
mod failure;
mod http;
mod log;
#[allow(unsafe_code, reason = "calls of the allocator")]
mod memory;
mod progress;
mod service;
mod supervise;
mod visible;

use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<std::ffi::OsString> = std::env::args_os().collect();
    visible::cover(&argv);
    service::take();
    memory::tame_allocator();
    let argv = match supervise::worker::command_line(argv).and_then(daemon::command_line) {
        Ok(argv) => argv,
        Err(e) => {
            log::fatal(&e.text);
            return ExitCode::FAILURE;
        }
    };
    service::take_supervisor();
    let code = commands::run(&argv);
    ciderfs_volume::close();
    code
}
