//! Values of flags (`spec/cli.md` 2.6).

use std::ffi::OsStr;
use std::time::Duration;

use ciderfs_format::Secret;

use crate::failure::{Failure, Result};

/// In the place of a secret: it is on standard input.
pub const FROM_STDIN: &str = "-";

/// Bytes: a number with an optional binary suffix; `unit` is the suffix of a bare number.
pub fn size(flag: &str, text: &str, unit: char) -> Result<u64> {
    let bad = |why: &str| Failure::new(format!("Invalid value {text:?} for {flag:?}: {why}"));
    let last = text.chars().last().ok_or_else(|| bad("empty"))?;
    let (number, unit) =
        if last.is_ascii_alphabetic() { (&text[..text.len() - 1], last) } else { (text, unit) };
    let shift = match unit.to_ascii_uppercase() {
        'B' => 0,
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        'P' => 50,
        'E' => 60,
        _ => return Err(bad("invalid unit")),
    };
    let n: f64 = number.parse().map_err(|_| bad("not a number"))?;
    if !n.is_finite() || n < 0.0 {
        return Err(bad("not a size"));
    }
    Ok((n * (1u64 << shift) as f64) as u64)
}

/// A duration: seconds, or numbers with units (`1d`, `2h30m`, `500ms`).
pub fn duration(flag: &str, text: &str) -> Result<Duration> {
    let bad = || {
        Failure::new(format!(
            "Invalid value {text:?} for {flag:?}: use seconds, or units like 1h30m, 10s, 500ms"
        ))
    };
    if let Ok(secs) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(secs).map_err(|_| bad());
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let n: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += n * match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(bad()),
        };
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| bad())
}

/// A secret: the word itself, or for `-` the next line of standard input.
pub fn secret(flag: &str, word: &OsStr) -> Result<Secret> {
    if word == FROM_STDIN {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        return match (read, line.trim_end_matches(['\n', '\r'])) {
            (Ok(_), secret) if !secret.is_empty() => Ok(secret.into()),
            (Err(e), _) => Err(Failure::new(format!("--{flag} -: standard input: {e}"))),
            _ => Err(Failure::new(format!("--{flag} -: there is no line on standard input"))),
        };
    }
    let text = word.to_str().map(Secret::from);
    text.ok_or_else(|| Failure::new(format!("the value of --{flag} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations() {
        assert_eq!(size("x", "4", 'M').unwrap(), 4 << 20);
        assert_eq!(size("x", "1.5K", 'M').unwrap(), 1536);
        assert_eq!(size("x", "100g", 'B').unwrap(), 100 << 30);
        assert!(size("x", "10X", 'M').is_err());
        assert!(size("x", "4MiB", 'M').is_err());
        assert!(size("x", "-1", 'M').is_err());
        assert_eq!(duration("x", "1.5").unwrap(), Duration::from_millis(1500));
        assert_eq!(duration("x", "1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("x", "2d").unwrap(), Duration::from_secs(172_800));
        assert_eq!(duration("x", "500ms").unwrap(), Duration::from_millis(500));
        assert!(duration("x", "soon").is_err());
    }
}
