//! Addresses of Redis volumes (`docs/format/redis-keys.md#address-and-prefix`).

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use ciderfs_format::{Secret, is_password_cut, is_secret_name, shown_address};
use ciderfs_meta::store::StoreError;
use percent_encoding::percent_decode_str;

const DEFAULT_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A host and a port.
pub type Node = (String, u16);

/// Where the servers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// One server, which may turn out to be a node of a cluster.
    Single(Node),
    /// A socket of this machine.
    Unix(PathBuf),
    /// A master that sentinels know by name.
    Sentinel {
        /// Name of the master.
        master: String,
        /// The sentinels.
        sentinels: Vec<Node>,
    },
    /// Some nodes of a cluster.
    Cluster(Vec<Node>),
}

/// TLS settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Accept any certificate.
    pub insecure: bool,
    /// Authority, PEM file.
    pub ca: Option<PathBuf>,
    /// Our certificate and key, PEM files.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A parsed address.
///
/// | option | meaning | default |
/// |---|---|---|
/// | `read-timeout` | wait for an answer | `30s` |
/// | `dial_timeout` | wait for a connection | `5s` |
/// | `insecure-skip-verify` | accept any TLS certificate | off |
/// | `tls-ca-cert-file` | authority that signed the server's certificate | the system's |
/// | `tls-cert-file`, `tls-key-file` | our certificate | none |
/// | `db` | database number (unix sockets) | 0 |
///
/// Options of the official client that only tune its connection pool and its own retries have no effect.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Where to connect.
    pub place: Place,
    /// TLS, if the scheme is `rediss`.
    pub tls: Option<Tls>,
    /// User of the access control list.
    pub user: Option<String>,
    /// Password in the address.
    pub password: Option<Secret>,
    /// Database number; on a cluster the prefix of all keys.
    pub db: u32,
    /// How long an answer may take.
    pub read_timeout: Duration,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    shown: String,
}

fn bad(text: impl fmt::Display) -> StoreError {
    StoreError::Fatal(format!(
        "{text}; use redis://[[user]:password@]host[:port][/db], rediss://..., unix:///socket?db=N"
    ))
}

impl Address {
    /// Parses an address. Without a scheme it is taken for `redis://`.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("redis", text));
        if is_password_cut(text) {
            return Err(bad("the password in the address has a question mark in it: write %3F instead"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, rest) = match rest.rfind('@') {
            Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
            None => (None, rest),
        };
        let (user, password) = match login {
            Some(login) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                (decode(user)?, decode(password)?.map(Secret::from))
            }
            None => (None, None),
        };
        let (place, mut db) = match scheme {
            "unix" => (
                match rest {
                    "" => return Err(bad("the address names no socket")),
                    path => Place::Unix(file(path)),
                },
                0,
            ),
            "redis" | "rediss" => {
                let (hosts, db) = rest.split_once('/').unwrap_or((rest, ""));
                let db = if db.is_empty() {
                    0
                } else {
                    db.parse().map_err(|_| {
                        bad(format!("{}: what follows the slash is no database number", shown_address(text)))
                    })?
                };
                (hosts_of(hosts)?, db)
            }
            _ => return Err(bad(format!("{} is not a Redis address", shown_address(text)))),
        };
        let mut tls = (scheme == "rediss").then(Tls::default);
        let (mut read_timeout, mut connect_timeout) = (READ_TIMEOUT, CONNECT_TIMEOUT);
        let (mut cert, mut key) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let raw = pair.split_once('=').map_or("", |(_, value)| value);
            let Some((name, value)) = url::form_urlencoded::parse(pair.as_bytes()).next() else { continue };
            if is_secret_name(&name) {
                return Err(bad(format!(
                    "a password is not given as option {name} of the address: put it before the host, or into META_PASSWORD"
                )));
            }
            match name.replace('_', "-").as_str() {
                "db" => db = value.parse().map_err(|_| bad(format!("{value:?} is no database number")))?,
                "read-timeout" => read_timeout = duration(&name, &value)?,
                "dial-timeout" => connect_timeout = duration(&name, &value)?.min(CONNECT_TIMEOUT),
                "insecure-skip-verify" => {
                    if let Some(tls) = &mut tls {
                        tls.insecure = !value.is_empty();
                    }
                }
                "tls-ca-cert-file" => {
                    if let Some(tls) = &mut tls {
                        tls.ca = Some(file(&raw.replace('+', " ")));
                    }
                }
                "tls-cert-file" => cert = Some(file(&raw.replace('+', " "))),
                "tls-key-file" => key = Some(file(&raw.replace('+', " "))),
                "tls-server-name" => {
                    return Err(bad(
                        "tls-server-name is not supported in this version: name the host as in its certificate",
                    ));
                }
                "route-read"
                | "client-cache"
                | "client-cache-size"
                | "client-cache-expire"
                | "client-cache-preload" => {
                    tracing::warn!(option = %name, "this option of the Redis address has no effect in this version");
                }
                "write-timeout" | "min-retry-backoff" | "max-retry-backoff" | "max-retries" | "pool-size"
                | "pool-timeout" | "min-idle-conns" | "max-idle-conns" | "max-active-conns"
                | "conn-max-idle-time" | "conn-max-lifetime" | "pool-fifo" | "protocol" | "client-name" => {}
                _ => tracing::warn!(option = %name, "unknown option of the Redis address is ignored"),
            }
        }
        match (cert, key) {
            (None, None) => {}
            (Some(cert), Some(key)) => {
                if let Some(tls) = &mut tls {
                    tls.client = Some((cert, key));
                }
            }
            _ => return Err(bad("tls-cert-file and tls-key-file belong together")),
        }
        let login = login.map_or_else(String::new, |login| format!("{login}@"));
        let shown = shown_address(&format!("{scheme}://{login}{rest}"));
        Ok(Self { place, tls, user, password, db, read_timeout, connect_timeout, shown })
    }
}

/// Percent-decodes the name of a file, which may hold any bytes.
fn file(part: &str) -> PathBuf {
    OsString::from_vec(percent_decode_str(part).collect()).into()
}

/// Percent-decodes; an empty part is none.
fn decode(part: &str) -> Result<Option<String>, StoreError> {
    let text = percent_decode_str(part).decode_utf8().map_err(|_| bad("the address is not UTF-8"))?;
    Ok(if text.is_empty() { None } else { Some(text.into_owned()) })
}

/// Tells the three forms of the host part apart (`docs/format/redis-keys.md#address-and-prefix`).
fn hosts_of(hosts: &str) -> Result<Place, StoreError> {
    if hosts.is_empty() {
        return Err(bad("the address names no host"));
    }
    let Some(comma) = hosts.find(',') else { return Ok(Place::Single(node(hosts, DEFAULT_PORT)?)) };
    let parts: Vec<&str> = hosts.split(',').collect();
    if hosts.find(':').is_some_and(|colon| comma < colon) {
        let last = parts.last().copied().unwrap_or_default();
        let port = node(last, SENTINEL_PORT)?.1;
        let sentinels = parts.iter().skip(1).map(|h| node(h, port)).collect::<Result<_, _>>()?;
        return Ok(Place::Sentinel {
            master: parts.first().copied().unwrap_or_default().to_owned(),
            sentinels,
        });
    }
    Ok(Place::Cluster(parts.into_iter().map(|h| node(h, DEFAULT_PORT)).collect::<Result<_, _>>()?))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn node(text: &str, port: u16) -> Result<Node, StoreError> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(v6) => {
            v6.split_once(']').ok_or_else(|| bad(format!("{:?} lacks a bracket", shown_address(text))))?
        }
        None => match text.rfind(':') {
            Some(at) => (&text[..at], &text[at..]),
            None => (text, ""),
        },
    };
    // Such as a list of names and values, for another engine.
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '=') {
        return Err(bad(format!("{:?} names no host", shown_address(text))));
    }
    let port = match rest.strip_prefix(':') {
        Some(p) => {
            p.parse().map_err(|_| bad(format!("{:?} has no port after the colon", shown_address(text))))?
        }
        None => port,
    };
    Ok((host.to_owned(), port))
}

/// Go's notation: `300ms`, `1m30s`, `2h`.
fn duration(option: &str, text: &str) -> Result<Duration, StoreError> {
    let wrong = || bad(format!("option {option}={text}: use a duration like 300ms or 1m30s"));
    let (mut left, mut sum) = (text, 0.0);
    while !left.is_empty() {
        let digits = left.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, rest) = left.split_at(digits);
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(end);
        let unit = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        sum += number.parse::<f64>().map_err(|_| wrong())? * unit;
        left = rest;
    }
    if text.is_empty() || sum <= 0.0 {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(sum).map_err(|_| wrong())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(host: &str, port: u16) -> Node {
        (host.to_owned(), port)
    }

    #[test]
    fn places() {
        for (text, place, db) in [
            ("redis://h", Place::Single(n("h", 6379)), 0),
            ("h:7000/2", Place::Single(n("h", 7000)), 2),
            ("rediss://u:p@[::1]:7000/1", Place::Single(n("::1", 7000)), 1),
            ("unix:///run/r.sock?db=3", Place::Unix("/run/r.sock".into()), 3),
            ("redis://h1:1,h2:2,h3/4", Place::Cluster(vec![n("h1", 1), n("h2", 2), n("h3", 6379)]), 4),
            ("redis://h1,h2", Place::Cluster(vec![n("h1", 6379), n("h2", 6379)]), 0),
            (
                "redis://mine,s1,s2:26380/1",
                Place::Sentinel { master: "mine".into(), sentinels: vec![n("s1", 26380), n("s2", 26380)] },
                1,
            ),
        ] {
            let a = Address::parse(text).unwrap();
            assert_eq!((a.place, a.db), (place, db), "{text}");
        }
        for text in [
            "redis://",
            "redis://h:x",
            "redis://h/x",
            "mysql://h",
            "unix://",
            "redis://[::1",
            "redis://h?read-timeout=5",
        ] {
            assert!(matches!(Address::parse(text), Err(StoreError::Fatal(_))), "{text}");
        }
    }

    #[test]
    fn secrets_are_masked() {
        let a = Address::parse("redis://me:p%40ss:word@h:1/2?read-timeout=1m30s&dial_timeout=300ms").unwrap();
        assert_eq!((a.user.as_deref(), a.password.clone()), (Some("me"), Some("p@ss:word".into())));
        assert_eq!(a.to_string(), "redis://me:****@h:1/2");
        assert!(!format!("{a:?}").contains("word"));
        assert_eq!(a.read_timeout, Duration::from_secs(90));
        assert_eq!(a.connect_timeout, Duration::from_millis(300));
        assert_eq!(Address::parse("redis://:only@h").unwrap().password, Some("only".into()));
        // Neither does a refusal tell it.
        for text in [
            "redis://:hush",
            "redis://:12345",
            "redis://h:hush",
            "redis://:hu/hush",
            "redis://u:hus?hush@h/1",
            "redis://u:hus?hush=hush@h/1",
            "redis://h/1?password=hush",
            "redis://h/1?pass%77ord=hush&hush",
            "redis://:hush@h:x/1",
            "redis://:hush@h/x",
            "redis://:hush@",
            "mysql://u:hush@h/x",
            "hush://u:hush@h/x",
            "unix://:hush@",
            "redis://:hush@[::1",
            "host=h password=hush dbname=d",
        ] {
            let e = Address::parse(text).unwrap_err().to_string();
            assert!(!e.replace("hush://", "").contains("hus") && !e.contains("12345"), "{text}: {e}");
        }
    }

    #[test]
    fn tls() {
        let a = Address::parse(
            "rediss://h?insecure-skip-verify=1&tls-ca-cert-file=/ca&tls-cert-file=/c&tls-key-file=/k",
        )
        .unwrap();
        let want = Tls { insecure: true, ca: Some("/ca".into()), client: Some(("/c".into(), "/k".into())) };
        assert_eq!(a.tls, Some(want));
        let odd = Address::parse("rediss://h?tls-ca-cert-file=/c%FF+%2B&db=1").unwrap();
        assert_eq!(odd.tls.unwrap().ca.unwrap().as_os_str().as_encoded_bytes(), b"/c\xff +");
        let odd = Address::parse("unix:///s%FF%40?db=2").unwrap();
        let Place::Unix(path) = odd.place else { panic!("no socket") };
        assert_eq!(path.as_os_str().as_encoded_bytes(), b"/s\xff@");
        assert!(Address::parse("rediss://h?tls-cert-file=/c").is_err());
        assert!(Address::parse("rediss://h?tls-server-name=x").is_err());
    }
}
