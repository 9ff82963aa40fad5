//! What is measured.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::client::{Client, Usage};
use super::{Options, go_on};

/// Repetitions of each operation whose turns are counted.
const REPEAT: usize = 200;
/// Both clients let the kernel keep names and attributes for a second.
const TTL: Duration = Duration::from_millis(1100);
/// Round trips of asking for the counter.
const PROBE: u64 = 1;

/// Figures of one client.
#[derive(Debug, Default)]
pub struct Report {
    /// Operation and turns to Redis per call, the kernel's lookups included.
    pub turns: Vec<(&'static str, Option<f64>)>,
    /// Name, unit and figure; more is better.
    pub rates: Vec<(&'static str, &'static str, f64)>,
    /// CPU seconds and memory; less is better.
    pub usage: Usage,
}

/// Measures everything.
pub fn measure(client: &mut Client, options: &Options) -> Result<Report> {
    let mut report = Report::default();
    turns(client, &mut report)?;
    small_files(client, options, &mut report)?;
    sequential(client, options, &mut report)?;
    Ok(report)
}

fn turns(client: &Client, report: &mut Report) -> Result<()> {
    let root = client.path().join("turns");
    fs::create_dir(&root)?;
    let at = |name: &str, i: usize| root.join(format!("{name}{i}"));
    let block = [7_u8; 4096];
    let mut row = |name: &'static str, op: &mut dyn FnMut(usize) -> std::io::Result<()>| -> Result<()> {
        go_on()?;
        let before = client.turns()?;
        for i in 0..REPEAT {
            op(i)?;
        }
        let after = client.turns()?;
        let count = after.zip(before).map(|(a, b)| (a - b).saturating_sub(PROBE) as f64 / REPEAT as f64);
        report.turns.push((name, count));
        Ok(())
    };
    row("mkdir", &mut |i| fs::create_dir(at("d", i)))?;
    row("create + close, empty", &mut |i| File::create_new(at("e", i)).map(drop))?;
    row("create + 4 KiB + close", &mut |i| File::create_new(at("f", i))?.write_all(&block))?;
    std::thread::sleep(TTL);
    row("stat after TTL", &mut |i| fs::metadata(at("f", i)).map(drop))?;
    row("stat of a missing name", &mut |i| match fs::metadata(at("none", i)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map(drop),
    })?;
    std::thread::sleep(TTL);
    row("open + read 4 KiB + close", &mut |i| File::open(at("f", i))?.read_exact(&mut [0; 4096]))?;
    std::thread::sleep(TTL);
    row("open + append 100 B + fsync + close", &mut |i| {
        let mut f = OpenOptions::new().append(true).open(at("f", i))?;
        f.write_all(&block[..100])?;
        f.sync_all()
    })?;
    std::thread::sleep(TTL);
    row("chmod", &mut |i| fs::set_permissions(at("e", i), fs::Permissions::from_mode(0o600)))?;
    std::thread::sleep(TTL);
    row("truncate", &mut |i| OpenOptions::new().write(true).open(at("f", i))?.set_len(100))?;
    row("link", &mut |i| fs::hard_link(at("e", i), at("l", i)))?;
    row("symlink", &mut |i| symlink("target", at("s", i)))?;
    std::thread::sleep(TTL);
    row("rename", &mut |i| fs::rename(at("s", i), at("r", i)))?;
    std::thread::sleep(TTL);
    row("unlink, a link left", &mut |i| fs::remove_file(at("l", i)))?;
    std::thread::sleep(TTL);
    row("unlink, empty file", &mut |i| fs::remove_file(at("e", i)))?;
    std::thread::sleep(TTL);
    row("unlink, with data", &mut |i| fs::remove_file(at("f", i)))?;
    std::thread::sleep(TTL);
    row("rmdir", &mut |i| fs::remove_dir(at("d", i)))?;
    Ok(())
}

fn rate(count: usize, started: Instant) -> f64 {
    count as f64 / started.elapsed().as_secs_f64()
}

fn small_files(client: &Client, options: &Options, report: &mut Report) -> Result<()> {
    go_on()?;
    let root = client.path().join("small");
    fs::create_dir(&root)?;
    let at = |i: usize| root.join(format!("file-{i}"));
    let mut row = |name, op: &dyn Fn(usize) -> std::io::Result<()>| -> Result<()> {
        go_on()?;
        let started = Instant::now();
        for i in 0..options.files {
            op(i)?;
        }
        report.rates.push((name, "/s", rate(options.files, started)));
        Ok(())
    };
    row("create, empty", &|i| File::create_new(at(i)).map(drop))?;
    std::thread::sleep(TTL);
    row("stat", &|i| fs::metadata(at(i)).map(drop))?;
    row("remove", &|i| fs::remove_file(at(i)))?;
    Ok(())
}

fn sequential(client: &mut Client, options: &Options, report: &mut Report) -> Result<()> {
    let path = client.path().join("big");
    let block = noise();
    // What a client has left to the kernel to write is its own business, not that of the one measured after it.
    ensure!(Command::new("sync").status()?.success(), "sync failed");
    let started = Instant::now();
    let mut file = File::create_new(&path)?;
    for _ in 0..options.size {
        go_on()?;
        file.write_all(&block)?;
    }
    file.sync_all()?;
    report.rates.push(("sequential write", "MiB/s", rate(options.size as usize, started)));
    drop(file);
    let written = client.usage()?;
    client.unmount()?;
    client.mount()?;
    let started = Instant::now();
    let read = read_all(&path, &block)?;
    ensure!(read == options.size, "{read} MiB read of {}", options.size);
    report.rates.push(("sequential read, cold", "MiB/s", rate(options.size as usize, started)));
    let read = client.usage()?;
    report.usage = Usage { cpu: written.cpu + read.cpu, peak: written.peak.max(read.peak) };
    client.unmount()
}

fn read_all(path: &Path, block: &[u8]) -> Result<u64> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; block.len()];
    let mut count = 0;
    loop {
        go_on()?;
        match file.read_exact(&mut buffer) {
            Ok(()) => ensure!(buffer == block, "wrong bytes in MiB {count}"),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(count),
            Err(e) => return Err(e.into()),
        }
        count += 1;
    }
}

/// A MiB that no compression shortens.
fn noise() -> Vec<u8> {
    let mut x = 0x9E37_79B9_7F4A_7C15_u64;
    let mut out = Vec::with_capacity(1 << 20);
    while out.len() < 1 << 20 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out
}
