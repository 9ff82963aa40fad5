//! Chores of the project: `cargo xtask bench`, `cargo xtask deb`, `cargo xtask deny`, `cargo xtask docs`,
//! `cargo xtask image`, `cargo xtask removals`.
#![forbid(unsafe_code)]

mod bench;
mod deb;
mod deny;
mod docs;
mod image;
mod removals;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask bench [--meta redis|sqlite] [--size MIB] [--files N] [--rounds N] [--json]
    CiderFS beside the official client, in one run on this machine: turns to Redis per operation, rates of small
    files, sequential throughput, CPU time and memory. Needs root (it mounts), redis-server and python3-venv.
cargo xtask deb [--debug]
    A Debian package of the client, in target/debian. Needs dpkg-deb and strip.
cargo xtask deny [--advisories]
    Checks licences, sources and duplicates of the dependencies; with --advisories known flaws too, for which it asks RustSec.
cargo xtask docs
    Checks what pages and comments cite: files, headings, items, commands, flags, tests; and that the list of removals fits the code.
cargo xtask image [--debug | --program FILE]
    A container image of the client, target/ciderfs.tar, with a root made of Debian's packages. Needs apt-get, dpkg-deb
    and binutils.
cargo xtask removals [--seeds N] [--from SEED] [--limit SECONDS] [--json] [NAME...]
    Takes away one check of coherence after the other and has the seeds of crates/vfs/tests/sim, or a unit test, find that. Needs git.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        Some("bench") => bench::run(&args[1..]),
        Some("deb") => deb::run(&args[1..]),
        Some("deny") => deny::run(&args[1..]),
        Some("docs") => docs::run(&args[1..]),
        Some("image") => image::run(&args[1..]),
        Some("removals") => removals::run(&args[1..]),
        _ => Err(anyhow::anyhow!("{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}
