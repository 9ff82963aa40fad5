//! Names of places on this machine, as the caller's directory and environment make them. What a command line names is
//! resolved while it is parsed (see [`crate::args`]), before anything changes the working directory.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use ciderfs_format::{is_password_cut, shown};

use crate::failure::{Failure, Result};

/// Options of a Redis address that name files.
const FILES: [&str; 3] = ["tls-ca-cert-file", "tls-cert-file", "tls-key-file"];

/// A place as it is called from everywhere. Symbolic links and `..` stay.
pub fn absolute(place: &OsStr) -> Result<PathBuf> {
    if place.is_empty() {
        return Err(Failure::new("an empty text names no place; use . for the working directory"));
    }
    std::path::absolute(place).map_err(|e| {
        Failure::new(format!("{}: the working directory is not known ({e}); use a full path", shown(place)))
    })
}

/// The address of metadata with the places in it absolute: a SQLite file, a socket, TLS files.
pub fn source(url: &OsStr) -> Result<OsString> {
    if is_password_cut(&shown(url)) {
        return Err(Failure::new(
            "the password in the address has a question mark in it: write %3F instead, or leave it out and set META_PASSWORD",
        ));
    }
    let bytes = url.as_bytes();
    let Some(at) = bytes.windows(3).position(|w| w == b"://") else { return Ok(url.to_owned()) };
    let (scheme, rest) = (&bytes[..at], &bytes[at + 3..]);
    let (place, query) = match rest.iter().position(|b| *b == b'?') {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let (place, query) = match scheme {
        b"sqlite3" | b"sqlite" => match place {
            // Refused by the driver, in its own words.
            b"" | b":memory:" => return Ok(url.to_owned()),
            _ => {
                let path = absolute(OsStr::from_bytes(place))?.into_os_string().into_vec();
                if path.contains(&b'?') {
                    let path = OsString::from_vec(path);
                    return Err(Failure::new(format!(
                        "{}: an address of SQLite cannot hold a file below a directory with a question mark in its name",
                        shown(&path)
                    )));
                }
                (path, query.map(<[u8]>::to_vec))
            }
        },
        b"unix" => (socket(place)?, query.map(files).transpose()?),
        b"redis" | b"rediss" => (place.to_vec(), query.map(files).transpose()?),
        _ => return Ok(url.to_owned()),
    };
    let query = query.map(|query| [b"?", &query[..]].concat()).unwrap_or_default();
    Ok(OsString::from_vec([scheme, b"://", &place, &query].concat()))
}

/// `[[USER]:PASSWORD@]PATH` of a socket, percent-encoded. What begins with a slash is a path, whatever follows.
fn socket(place: &[u8]) -> Result<Vec<u8>> {
    let login = match place.iter().rposition(|b| *b == b'@') {
        Some(at) if place[0] != b'/' => at + 1,
        _ => 0,
    };
    let (login, path) = place.split_at(login);
    if path.is_empty() {
        return Ok(place.to_vec());
    }
    let path: Vec<u8> = percent_encoding::percent_decode(path).collect();
    Ok([login, encoded(&absolute(OsStr::from_bytes(&path))?).as_bytes()].concat())
}

/// The options of a Redis address, with files absolute.
fn files(query: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for pair in query.split(|b| *b == b'&') {
        let equals = pair.iter().position(|b| *b == b'=');
        let (name, value) = equals.map_or((pair, &b""[..]), |at| (&pair[..at], &pair[at + 1..]));
        let is_file = std::str::from_utf8(name).is_ok_and(|n| FILES.contains(&&*n.replace('_', "-")));
        out.push(if is_file && !value.is_empty() {
            // In a query a plus is a blank.
            let value: Vec<u8> = value.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
            let path: Vec<u8> = percent_encoding::percent_decode(&value).collect();
            [name, b"=", encoded(&absolute(OsStr::from_bytes(&path))?).as_bytes()].concat()
        } else {
            pair.to_vec()
        });
    }
    Ok(out.join(&b'&'))
}

/// A path in an address: everything that means something there is percent-encoded, and every byte that is not ASCII.
fn encoded(path: &Path) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
    const SET: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~').remove(b':');
    percent_encode(path.as_os_str().as_bytes(), SET).to_string()
}

/// A place for this user's files: one place for root, another one below the home directory for everybody else.
/// `flag` names a place instead.
pub fn default_place(root: &str, below_home: &str, flag: &str) -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(root.into());
    }
    Ok(home(flag)?.join(below_home))
}

/// The home directory: of the environment, else of the user database. Without one, `flag` is the remedy.
pub fn home(flag: &str) -> Result<PathBuf> {
    let full = |dir: OsString| Some(PathBuf::from(dir)).filter(|dir| dir.is_absolute());
    std::env::var_os("HOME").and_then(full).or_else(home_of_user).ok_or_else(|| {
        Failure::new(format!(
            "HOME is not set to a full path and the user database names no home directory: set HOME, or use {flag}"
        ))
    })
}

fn home_of_user() -> Option<PathBuf> {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let in_lines = |table: &[u8]| {
        table.split(|b| *b == b'\n').find_map(|line| {
            let fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
            let home = fields.get(5).filter(|_| fields[2] == uid.as_bytes())?;
            Some(PathBuf::from(OsStr::from_bytes(home))).filter(|dir| dir.is_absolute())
        })
    };
    std::fs::read("/etc/passwd").ok().and_then(|table| in_lines(&table)).or_else(|| {
        let out = std::process::Command::new("getent").args(["passwd", &uid]).output().ok()?;
        in_lines(&out.stdout)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_places_absolutely() {
        let here = std::env::current_dir().unwrap();
        let here = here.to_str().unwrap();
        for (url, want) in [
            ("sqlite3://a b.db", format!("sqlite3://{here}/a b.db")),
            ("sqlite3:///v.db", "sqlite3:///v.db".into()),
            (
                "sqlite://a:b.db?_sync=1&max_open_conns=3",
                format!("sqlite://{here}/a:b.db?_sync=1&max_open_conns=3"),
            ),
            ("sqlite3://:memory:", "sqlite3://:memory:".into()),
            ("redis://u:p@h/1?read-timeout=3s", "redis://u:p@h/1?read-timeout=3s".into()),
            ("unix://s.sock?db=2", format!("unix://{}/s.sock?db=2", encoded(Path::new(here)))),
            ("unix://me:p@s.sock", format!("unix://me:p@{}/s.sock", encoded(Path::new(here)))),
            ("unix:///run/a@b%20c", "unix:///run/a%40b%20c".into()),
            (
                "rediss://h/1?tls_ca_cert_file=ca+1.pem&insecure-skip-verify=1&tls-key-file=%2Fk",
                format!(
                    "rediss://h/1?tls_ca_cert_file={}/ca%201.pem&insecure-skip-verify=1&tls-key-file=/k",
                    encoded(Path::new(here))
                ),
            ),
            ("localhost", "localhost".into()),
        ] {
            assert_eq!(source(OsStr::new(url)).unwrap(), OsStr::new(&want), "{url}");
        }
        let odd = source(OsStr::from_bytes(b"sqlite3:///a\xff.db?_sync=1")).unwrap();
        assert_eq!(odd.as_bytes(), b"sqlite3:///a\xff.db?_sync=1");
        assert_eq!(source(OsStr::from_bytes(b"unix:///a\xff.sock")).unwrap(), "unix:///a%FF.sock");
        assert!(absolute(OsStr::new("")).is_err());
        // A part of the password would become the name of the socket.
        assert!(source(OsStr::new("unix://:p?w@/run/s")).unwrap_err().text.contains("%3F"));
    }
}
