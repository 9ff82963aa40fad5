//! `.control`, through which a mount of either client takes commands (`docs/format/control.md`).

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use ciderfs_format::Ino;
use serde_json::Value;

use crate::failure::{Failure, Result};

/// Names of the channel.
const NAMES: [&str; 2] = [".jfs.control", ".control"];
/// Between looks for an answer: first and longest.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(300));

/// A mount that says nothing for so long, while it changes a tree, is taken for dead.
const SILENCE: Duration = Duration::from_secs(600);

/// The channel of a mount.
pub struct Channel(File);

/// How a command has ended.
#[derive(Debug)]
pub enum Answer {
    /// With what it tells.
    Told(Value),
    /// Well, or with this error.
    Ended(std::result::Result<(), std::io::Error>),
}

impl Channel {
    /// The one that is found in a directory of the mount.
    pub fn open(dir: &Path) -> std::io::Result<Self> {
        let mut result = Err(ErrorKind::NotFound.into());
        for name in NAMES {
            result = OpenOptions::new().read(true).write(true).open(dir.join(name));
            if result.is_ok() {
                break;
            }
        }
        let file = result?;
        // A file of that name elsewhere is somebody's.
        if !Ino(file.metadata()?.ino()).is_virtual() {
            return Err(ErrorKind::NotFound.into());
        }
        Ok(Self(file))
    }

    /// Sends a request that changes a tree, and waits for its end. The official client is silent until it has counted a tree, and a large
    /// directory may take a while before the first name is gone.
    pub fn change(
        &self,
        command: u32,
        body: &[u8],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<std::io::Result<()>> {
        match self.ask(command, body, SILENCE, progress)? {
            Answer::Ended(how) => Ok(how),
            Answer::Told(other) => Err(Failure::new(format!("the mount answers something else: {other}"))),
        }
    }

    /// Sends a request and waits for its end. `progress` hears the two numbers that the mount tells meanwhile. A mount that says
    /// nothing for `silence`, not even how far it is, is taken for dead.
    pub fn ask(
        &self,
        command: u32,
        body: &[u8],
        silence: Duration,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Answer> {
        let request = [&command.to_be_bytes()[..], &(body.len() as u32).to_be_bytes(), body].concat();
        self.0.write_all_at(&request, 0)?;
        let mut at = request.len() as u64;
        let mut answer = Vec::new();
        let (mut pause, mut heard) = (POLL.0, Instant::now());
        loop {
            let mut buffer = [0; 64 << 10];
            let n = self.0.read_at(&mut buffer, at)?;
            at += n as u64;
            answer.extend_from_slice(&buffer[..n]);
            if n == 0 {
                if heard.elapsed() > silence {
                    return Err(Failure::new("the mount does not answer; look at its log"));
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(POLL.1);
                continue;
            }
            (pause, heard) = (POLL.0, Instant::now());
            if let Some(answer) = parse(&mut answer, progress)? {
                return Ok(answer);
            }
        }
    }
}

/// The field of a request that has a name.
pub fn name_field(name: &OsStr) -> Result<Vec<u8>> {
    let name = name.as_bytes();
    let length = u8::try_from(name.len()).map_err(|_| Failure::new("the name is too long"))?;
    Ok([&[length], name].concat())
}

/// Takes messages of progress away; the final message, if it is complete.
fn parse(answer: &mut Vec<u8>, progress: &mut dyn FnMut(u64, u64)) -> Result<Option<Answer>> {
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
                Some(json) => Ok(Some(Answer::Told(serde_json::from_slice(json)?))),
                None => Ok(None),
            }
        }
        Some((0xFE, _)) | None => Ok(None),
        Some((0, _)) => Ok(Some(Answer::Ended(Ok(())))),
        Some((&code, _)) => Ok(Some(Answer::Ended(Err(std::io::Error::from_raw_os_error(i32::from(code)))))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let told_at_last =
                parse(&mut answer, &mut |files, bytes| told = (files, bytes)).unwrap().unwrap();
            let Answer::Told(info) = told_at_last else { panic!("{told_at_last:?}") };
            assert_eq!(info["Ino"], 9);
            if cut == 0 {
                assert_eq!(told, (3, 700));
            }
        }
        let ended = |code| match parse(&mut vec![code], &mut |_, _| ()).unwrap().unwrap() {
            Answer::Ended(how) => how.map_err(|e| e.to_string()),
            other => panic!("{other:?}"),
        };
        assert!(ended(22).unwrap_err().contains("nvalid"));
        assert_eq!(ended(0), Ok(()));
    }
}
