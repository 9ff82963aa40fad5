//! `ciderfs info PATH...`: what a mounted volume knows of a file. It asks through the mount's `.control`, so it works on
//! mounts of either client (`docs/reference/commands.md#info-path`).

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ciderfs_format::shown;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::table::{Align, Table};
use crate::cli::args::Args;
use crate::cli::table::{INODE, JSON, RAW, RECURSIVE, STRICT};
use crate::failure::{Failure, Result};

const INFO: u32 = 1005;
/// Names of the channel.
const CHANNELS: [&str; 2] = [".jfs.control", ".control"];
/// Between looks for an answer: first and longest.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(300));
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
    let channel = open(&dir).map_err(|e| {
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

fn open(dir: &Path) -> std::io::Result<File> {
    let mut result = Err(ErrorKind::NotFound.into());
    for name in CHANNELS {
        result = OpenOptions::new().read(true).write(true).open(dir.join(name));
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Sends a request and reads messages until the final one.
fn ask(channel: &File, ino: u64, options: [u8; 3]) -> Result<Value> {
    let body = [&ino.to_be_bytes()[..], &options].concat();
    let request = [&INFO.to_be_bytes()[..], &(body.len() as u32).to_be_bytes(), &body].concat();
    channel.write_all_at(&request, 0)?;
    let mut at = request.len() as u64;
    let mut answer = Vec::new();
    // Only on a terminal.
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
    let (mut pause, mut heard) = (POLL.0, Instant::now());
    loop {
        let mut buffer = [0; 64 << 10];
        let n = channel.read_at(&mut buffer, at)?;
        at += n as u64;
        answer.extend_from_slice(&buffer[..n]);
        if n == 0 {
            if heard.elapsed() > SILENCE {
                return Err(Failure::new("the mount does not answer; look at its log"));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(POLL.1);
            continue;
        }
        (pause, heard) = (POLL.0, Instant::now());
        let info = parse(&mut answer, &mut |files, bytes| {
            bar.set_message(format!("{files} files, {}", human(bytes)));
            bar.tick();
        })?;
        if let Some(info) = info {
            bar.finish_and_clear();
            return Ok(info);
        }
    }
}

/// Takes messages of progress away, which tell files and bytes; the final message, if it is complete.
fn parse(answer: &mut Vec<u8>, progress: &mut dyn FnMut(u64, u64)) -> Result<Option<Value>> {
    while answer.first() == Some(&0xFE) && answer.len() >= 17 {
        let number = |at: usize| answer[at..at + 8].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        progress(number(1), number(9));
        answer.drain(..17);
    }
    match answer.split_first() {
        Some((0xFF, rest)) => {
            let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
            let length = u32::from_be_bytes(*length) as usize;
            match rest.get(..length) {
                Some(json) => Ok(Some(serde_json::from_slice(json)?)),
                None => Ok(None),
            }
        }
        Some((0xFE, _)) | None => Ok(None),
        Some((&code, _)) => {
            let error = std::io::Error::from_raw_os_error(i32::from(code));
            Err(Failure::new(format!("the mount refuses the command: {error}")))
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
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
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

    #[test]
    fn answers_come_in_pieces() {
        let json = br#"{"Ino":9}"#;
        let mut whole = vec![0xFE; 1];
        whole.extend([3_u64, 700].map(u64::to_be_bytes).concat());
        whole.push(0xFF);
        whole.extend((json.len() as u32).to_be_bytes());
        whole.extend(json);
        for cut in 0..whole.len() {
            let mut answer = whole[..cut].to_vec();
            assert!(parse(&mut answer, &mut |_, _| ()).unwrap().is_none(), "{cut}");
            answer.extend(&whole[cut..]);
            let mut told = (0, 0);
            let info = parse(&mut answer, &mut |files, bytes| told = (files, bytes)).unwrap().unwrap();
            assert_eq!(info["Ino"], 9);
            if cut == 0 {
                assert_eq!(told, (3, 700));
            }
        }
        assert!(parse(&mut vec![22], &mut |_, _| ()).unwrap_err().to_string().contains("nvalid"));
    }
}
