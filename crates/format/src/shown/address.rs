//! Addresses for texts: without what must not be seen.

use std::ffi::OsStr;

use super::shown;
use crate::secret::HIDDEN;

/// Names of options and keys whose values are secrets, in small letters. Parts of names count, too.
const TELLING: [&str; 5] = ["password", "passwd", "passphrase", "secret", "token"];
/// The same, as whole names.
const TELLING_WHOLE: [&str; 5] = ["pass", "pwd", "pw", "auth", "_auth_pass"];
/// Options of addresses whose values may hold an `@` without being the rest of a password.
const FREE: [&str; 7] =
    ["tls-ca-cert-file", "tls-cert-file", "tls-key-file", "ca-certs", "ssl-cert", "ssl-key", "client-name"];

/// Is the value of an option with this name a secret?
pub fn is_secret_name(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    TELLING.iter().any(|t| name.contains(t)) || TELLING_WHOLE.contains(&name.as_str())
}

/// Where the part before the first `?` ends, and whether an `@` after it says that the `?` was one of a password: the first
/// character of the options is then no more than another one of it.
fn options_of(address: &str) -> (usize, bool) {
    let Some(at) = address.find('?') else { return (address.len(), false) };
    let is_login = |pair: &str| {
        let name = unescaped(pair.split('=').next().unwrap_or_default()).replace('_', "-");
        pair.contains('@') && !FREE.contains(&name.as_str()) && !is_secret_name(&name)
    };
    (at, address[at + 1..].split('&').any(is_login))
}

/// Does the address hold a password with a `?` in it? Whoever reads such an address takes a part of the password for the host,
/// and the rest for options.
pub fn is_password_cut(address: &str) -> bool {
    !is_file(address) && options_of(address).1
}

/// An address that is the name of a file has no login: every character in it may be one of a name.
fn is_file(address: &str) -> bool {
    ["sqlite3://", "sqlite://", "file://", "unix:///"].iter().any(|s| address.starts_with(s))
}

/// The address of an engine or a bucket, as far as everybody may see it: passwords, and whatever might be one, are `****`. The
/// one way in which addresses get into texts, logs and process lists.
///
/// A password stands between the first colon after the scheme and the last `@`, whatever characters it has; or it is the value
/// of an option. A login without a colon may be a password in the wrong place.
pub fn shown_address(address: &(impl AsRef<OsStr> + ?Sized)) -> String {
    let text = shown(address);
    // In a password there may be anything.
    let is_scheme = |at: &usize| {
        text[..*at].bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    };
    let start = text.find("://").filter(is_scheme).map_or(0, |at| at + 3);
    let (scheme, rest) = text.split_at(start);
    let (mut options, cut) = options_of(rest);
    let out = if is_file(&text) {
        rest[..options].to_owned()
    } else {
        if cut {
            options =
                rest.rfind('@').and_then(|at| rest[at..].find('?').map(|o| at + o)).unwrap_or(rest.len());
        }
        let place = &rest[..options];
        match place.rfind('@') {
            Some(at) => {
                let user = place[..at].split_once(':').map_or("", |(user, _)| user);
                let colon = if place[..at].contains(':') { ":" } else { "" };
                format!("{user}{colon}{HIDDEN}{}", without_values(&place[at..]))
            }
            None => without_ports_that_are_none(&without_values(place)),
        }
    };
    format!("{scheme}{out}{}", without_values(&rest[options..]))
}

/// [`shown_address`] for the bucket of a storage. An address of SFTP has colons of its own, and no password: such a storage takes none.
pub fn shown_bucket(storage: &str, bucket: &str) -> String {
    let rest = bucket.strip_prefix("sftp://").unwrap_or(bucket);
    let host = rest.split(":/").next().unwrap_or_default();
    let is_usual =
        rest != host && !host.is_empty() && !host.starts_with(':') && !rest.contains(['@', '?', '=']);
    // What stands in the place of a port and is none may be something else.
    if storage.eq_ignore_ascii_case("sftp") && is_usual && !shown_address(host).contains(HIDDEN) {
        return shown(bucket).into_owned();
    }
    shown_address(bucket)
}

/// Without the values of secret options, and all that follows them: it may be the rest of one.
fn without_values(text: &str) -> String {
    let mut from = 0;
    for piece in text.split_inclusive(['?', '&', ';', ' ', '\t', ',']) {
        if let Some((name, _)) = piece.split_once('=') {
            let decoded = unescaped(name);
            if is_secret_name(&decoded) {
                return format!("{}={HIDDEN}", &text[..from + name.len()]);
            }
        }
        from += piece.len();
    }
    text.to_owned()
}

/// Percent-decodes a name, for looking at it.
fn unescaped(name: &str) -> String {
    let mut parts = name.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(code) if code.is_ascii() => {
                out.push(char::from(code));
                out.push_str(&part[2..]);
            }
            _ => out.push_str(part),
        }
    }
    out
}

/// Where there is no `@`, what stands in the place of a port and is none may be a password whose host was forgotten.
fn without_ports_that_are_none(place: &str) -> String {
    let (hosts, path) = match place.find('/') {
        Some(at) => place.split_at(at),
        None => (place, ""),
    };
    let hosts = hosts.split(',').map(|host| {
        let v6 = host.rfind(']').map_or(0, |at| at + 1);
        let Some(colon) = host[v6..].find(':').map(|at| v6 + at) else { return host.to_owned() };
        let port = &host[colon + 1..];
        let is_port = colon > 0 && port.parse::<u16>().is_ok();
        if is_port { host.to_owned() } else { format!("{}:{HIDDEN}", &host[..colon]) }
    });
    let hosts: Vec<String> = hosts.collect();
    let hosts = hosts.join(",");
    let is_cut = hosts.ends_with(HIDDEN) && place != hosts;
    // The rest of it may follow a slash.
    if is_cut { hosts } else { format!("{hosts}{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_in_every_form() {
        for (address, want) in [
            ("redis://h:1/2", "redis://h:1/2"),
            ("redis://user:PW@h:1/2", "redis://user:****@h:1/2"),
            ("redis://:PW@h", "redis://:****@h"),
            ("redis://:P:W@h", "redis://:****@h"),
            ("redis://:P@W@h/1", "redis://:****@h/1"),
            ("redis://:P/W@h/1", "redis://:****@h/1"),
            ("redis://:P://W@h/1", "redis://:****@h/1"),
            ("redis://:P%40W@h/1?read-timeout=3s", "redis://:****@h/1?read-timeout=3s"),
            ("redis://:P#W@h/1", "redis://:****@h/1"),
            ("redis://:P?W@h/1", "redis://:****@h/1"),
            ("redis://u:P?W=1&W@h/1?db=2", "redis://u:****@h/1?db=2"),
            ("redis://PW@h/1", "redis://****@h/1"),
            (":PW@h:1/2", ":****@h:1/2"),
            ("u:PW@h", "u:****@h"),
            (":P://W@h", ":****@h"),
            ("rediss://:PW@[::1]:7/1?tls-key-file=/a@b", "rediss://:****@[::1]:7/1?tls-key-file=/a@b"),
            ("rediss://[::1]:7/1?tls-key-file=/a@b", "rediss://[::1]:7/1?tls-key-file=/a@b"),
            ("redis://:PW@m,s1:1,s2:2/1", "redis://:****@m,s1:1,s2:2/1"),
            ("redis://m,s1:1,s2/1", "redis://m,s1:1,s2/1"),
            // Forgotten hosts.
            ("redis://:PW", "redis://:****"),
            ("redis://:1234/1", "redis://:****"),
            ("redis://h:PW/1", "redis://h:****"),
            ("redis://h:6379PW", "redis://h:****"),
            ("unix://:PW@/run/s?db=1", "unix://:****@/run/s?db=1"),
            ("unix://:P/W@s", "unix://:****@s"),
            ("unix:///run/a:b@c?db=1", "unix:///run/a:b@c?db=1"),
            ("sqlite3:///a:b@c.db?_sync=1", "sqlite3:///a:b@c.db?_sync=1"),
            ("sqlite3:///v.db?_auth_user=u&_auth_pass=PW", "sqlite3:///v.db?_auth_user=u&_auth_pass=****"),
            ("postgres://u:PW@h:5/db?sslmode=disable", "postgres://u:****@h:5/db?sslmode=disable"),
            ("postgres://h/db?user=u&password=P&W", "postgres://h/db?user=u&password=****"),
            ("postgres://h/db?p%61ssword=PW@x", "postgres://h/db?p%61ssword=****"),
            ("host=h user=u Password=PW dbname=d", "host=h user=u Password=****"),
            ("mysql://u:PW@tcp(h:3)/d", "mysql://u:****@tcp(h:3)/d"),
            ("u:PW@(h:3)/d", "u:****@(h:3)/d"),
            ("https://key:PW@s3.example:9000/b?region=x", "https://key:****@s3.example:9000/b?region=x"),
            ("key:PW@s3.example/b", "key:****@s3.example/b"),
            ("b.s3.example:9000", "b.s3.example:9000"),
            ("http://h/b?access_token=PW", "http://h/b?access_token=****"),
            ("localhost", "localhost"),
            ("", ""),
        ] {
            let out = shown_address(address);
            assert_eq!(out, want, "{address}");
            assert!(!["PW", "P", "W"].iter().any(|p| out.contains(p) && !want.contains(p)), "{address}");
        }
    }

    #[test]
    fn buckets_of_sftp_are_seen() {
        for (storage, bucket, want) in [
            ("sftp", "127.0.0.1:2222:/d/", "127.0.0.1:2222:/d/"),
            ("SFTP", "host:/d/e/", "host:/d/e/"),
            ("sftp", "[::1]:2222:/d/", "[::1]:2222:/d/"),
            ("sftp", "sftp://host:22:/d/", "sftp://host:22:/d/"),
            ("sftp", "user:PW@host:/d/", "user:****@host:/d/"),
            ("sftp", "user:PW:/d/", "user:****"),
            ("s3", "host:/d/", "host:****"),
        ] {
            assert_eq!(shown_bucket(storage, bucket), want, "{bucket}");
        }
    }

    #[test]
    fn passwords_that_readers_would_cut() {
        for (address, cut) in [
            ("redis://:p?w@h/1", true),
            (":p?w=1@h/1", true),
            ("redis://u:p?client=x&y@h", true),
            ("redis://:p@h?x=a@b", true),
            ("redis://:p@h?client-name=a@b", false),
            ("redis://h?tls_key_file=/a@b&client-name=me@here", false),
            ("sqlite3:///a?x=b@c", false),
        ] {
            assert_eq!(is_password_cut(address), cut, "{address}");
        }
    }
}
