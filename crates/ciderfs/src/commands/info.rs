//! `ciderfs info PATH...`: what a mounted volume knows of a file. It asks through the mount's `.control`, so it works on
//! mounts of either client (`docs/reference/commands.md#info-path`).

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ciderfs_format::shown;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::channel::{Answer, Channel};
use super::table::{Align, Table};
use crate::cli::args::Args;
use crate::cli::table::{INODE, JSON, RAW, RECURSIVE, STRICT};
use crate::failure::{Failure, Result};

const INFO: u32 = 1005;
/// A mount that says nothing for so long, not even how far it is, is taken for dead.
const SILENCE: Duration = Duration::from_secs(30);

/// Runs the command. Paths that cannot be shown are reported and do not fail it, as scripts expect.
pub fn run(args: &Args) -> Result<()> {
    if args.count() == 0 {
        return Err(Failure::new(
            "ERROR: This command requires at least 1 arguments; USAGE: ciderfs info [options] PATH or INODE",
        ));
    }
    let by_inode = args.get(INODE);
    let options = [args.get(RECURSIVE), args.get(RAW), args.get(STRICT)].map(u8::from);
    for i in 0..args.count() {
        args.refuse_address(i)?;
        if let Err(e) = one(&shown(args.given(i)), args.place(i), by_inode, options, args) {
            tracing::error!("{e}");
        }
    }
    Ok(())
}

/// `path` is what the user wrote, `place` what it means.
fn one(path: &str, place: &Path, by_inode: bool, options: [u8; 3], args: &Args) -> Result<()> {
    let (ino, dir) = if by_inode {
        let ino = path.parse::<u64>().map_err(|_| {
            Failure::new(format!("invalid inode: {path}; use a number from 0 to {}", u64::MAX))
        })?;
        (ino, std::env::current_dir()?)
    } else {
        let meta =
            std::fs::metadata(place).map_err(|e| Failure::new(format!("lookup inode for {path:?}: {e}")))?;
        let full = std::fs::canonicalize(place)?;
        let dir = if meta.is_dir() { full } else { full.parent().map_or_else(|| "/".into(), PathBuf::from) };
        (meta.ino(), dir)
    };
    let channel = Channel::open(&dir).map_err(|e| {
        Failure::new(format!("Open control file for {path:?}: {e}; is it on a mounted volume?"))
    })?;
    let info = ask(&channel, ino, options)?;
    if args.get(JSON) {
        println!("{}", serde_json::to_string_pretty(&info)?);
        return Ok(());
    }
    if info["Failed"] == true {
        return Err(Failure::new(format!("info of {path}: {}", info["Reason"].as_str().unwrap_or_default())));
    }
    print!("{}", show(path, &info));
    Ok(())
}

/// Asks about an inode.
fn ask(channel: &Channel, ino: u64, options: [u8; 3]) -> Result<Value> {
    let body = [&ino.to_be_bytes()[..], &options].concat();
    // Only on a terminal.
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
    let answer = channel.ask(INFO, &body, SILENCE, &mut |files, bytes| {
        bar.set_message(format!("{files} files, {}", human(bytes)));
        bar.tick();
    })?;
    bar.finish_and_clear();
    match answer {
        Answer::Told(info) => Ok(info),
        Answer::Ended(how) => {
            let why = how.err().map_or_else(|| "it tells nothing".into(), |e| e.to_string());
            Err(Failure::new(format!("the mount refuses the command: {why}")))
        }
    }
}

fn show(path: &str, info: &Value) -> String {
    let s = &info["Summary"];
    let size = |name: &str| human(s[name].as_u64().unwrap_or(0));
    let mut out = format!(
        "{path} :\n  inode: {}\n  files: {}\n   dirs: {}\n length: {}\n   size: {}\n",
        info["Ino"],
        s["Files"],
        s["Dirs"],
        size("Length"),
        size("Size")
    );
    let rows = |name: &str| info[name].as_array().map(Vec::as_slice).unwrap_or_default();
    match rows("Paths") {
        [] => {}
        [only] => out += &format!("   path: {}\n", text(only)),
        several => {
            out += "  paths:\n";
            for p in several {
                out += &format!("\t{}\n", text(p));
            }
        }
    }
    let tier = &info["Tier"];
    out += &format!(
        "   tier: {}->{} {}\n",
        tier["ID"],
        text(&tier["StorageClass"]),
        text(&info["RestoreStatus"])
    );
    if !text(&info["Reason"]).is_empty() {
        out += &format!("   note: {}\n", text(&info["Reason"]));
    }
    out += &pieces(rows("Objects"), rows("Chunks"));
    out + &locks(rows("FLocks"), rows("PLocks"))
}

fn pieces(objects: &[Value], chunks: &[Value]) -> String {
    let mut out = String::new();
    if !objects.is_empty() {
        use Align::{Left, Right};
        let mut table = Table::new(&[
            ("chunkIndex", Right),
            ("objectName", Left),
            ("size", Right),
            ("offset", Right),
            ("length", Right),
            ("pos", Right),
        ]);
        let (mut chunk, mut pos) = (u64::MAX, 0);
        for o in objects {
            let indx = o["ChunkIndex"].as_u64().unwrap_or(0);
            if indx != chunk {
                (chunk, pos) = (indx, indx << 26);
            }
            table.row([&o["ChunkIndex"], &o["Key"], &o["Size"], &o["Off"], &o["Len"], &pos.into()].map(text));
            pos += o["Len"].as_u64().unwrap_or(0);
        }
        out += &format!(" objects:\n{table}");
    }
    if !chunks.is_empty() {
        let names = ["chunkIndex", "sliceId", "size", "offset", "length"];
        let mut table = Table::new(&names.map(|n| (n, Align::Right)));
        for c in chunks {
            table.row(["ChunkIndex", "Id", "Size", "Off", "Len"].map(|name| text(&c[name])));
        }
        out += &format!(" chunks:\n{table}");
    }
    out
}

fn locks(flocks: &[Value], plocks: &[Value]) -> String {
    use Align::{Left, Right};
    let mut out = String::new();
    if !flocks.is_empty() {
        let mut table = Table::new(&[("Sid", Left), ("Owner", Left), ("Type", Right)]);
        for l in flocks {
            table.row(["Sid", "Owner", "Type"].map(|name| text(&l[name])));
        }
        out += &format!(" flocks:\n{table}");
    }
    if !plocks.is_empty() {
        let columns = [
            ("Sid", Left),
            ("Owner", Left),
            ("Type", Right),
            ("Pid", Right),
            ("Start", Right),
            ("End", Right),
        ];
        let mut table = Table::new(&columns);
        for l in plocks {
            let kind = if l["Type"] == 0 { "R" } else { "W" }.to_owned();
            let [sid, owner, pid, start, end] =
                ["Sid", "Owner", "Pid", "Start", "End"].map(|name| text(&l[name]));
            table.row([sid, owner, kind, pid, start, end]);
        }
        out += &format!(" plocks:\n{table}");
    }
    out
}

fn text(v: &Value) -> String {
    // Another client may have written it.
    v.as_str().map_or_else(|| v.to_string(), |text| shown(text).into_owned())
}

/// `9.00 MiB (9437184 Bytes)`, or `3 Bytes`.
fn human(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} Bytes");
    }
    let unit = (n.ilog2() / 10 - 1).min(5) as usize;
    format!("{:.2} {} ({n} Bytes)", n as f64 / f64::powi(1024.0, unit as i32 + 1), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (n, want) in [
            (0, "0 Bytes"),
            (1023, "1023 Bytes"),
            (1024, "1.00 KiB (1024 Bytes)"),
            (9_437_184, "9.00 MiB (9437184 Bytes)"),
            (u64::MAX, "16.00 EiB (18446744073709551615 Bytes)"),
        ] {
            assert_eq!(human(n), want);
        }
    }
}
