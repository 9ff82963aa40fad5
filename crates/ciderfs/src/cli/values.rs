//! Values of flags (`docs/reference/commands.md`).

use std::ffi::OsStr;
use std::time::Duration;

use ciderfs_format::Secret;
use ciderfs_format::settings::parse_mbps;

use crate::failure::{Failure, Result};

/// In the place of a secret: it is on standard input.
pub const FROM_STDIN: &str = "-";

/// Why a value is none that the flag takes: the flag, the value, what is wrong, and what the flag takes.
fn bad(flag: &str, text: &str, why: &str) -> Failure {
    Failure::new(format!("invalid value {text:?} for flag --{flag}: {why}"))
}

/// On or off.
pub fn switch(flag: &str, text: &str) -> Result<bool> {
    text.parse().map_err(|_| bad(flag, text, "use true or false"))
}

/// One of several words.
pub fn choice(flag: &str, text: &str, choices: &[&'static str]) -> Result<&'static str> {
    if let Some(choice) = choices.iter().find(|choice| choice.eq_ignore_ascii_case(text)) {
        return Ok(choice);
    }
    Err(bad(flag, text, &format!("use {}", choices.join(", "))))
}

/// An octal number, as modes of files are.
pub fn octal(flag: &str, text: &str, to: u32) -> Result<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let mode = u32::from_str_radix(digits, 8).ok().filter(|n| plain && *n <= to);
    mode.ok_or_else(|| bad(flag, text, &format!("use an octal number from 0 to {to:o}")))
}

/// Megabits in a second: a number with an optional decimal suffix (`docs/format/settings.md#fields`).
pub fn rate(flag: &str, text: &str) -> Result<u64> {
    parse_mbps(text).map_err(|e| bad(flag, text, &e.to_string()))
}

/// A whole number.
pub fn int(flag: &str, text: &str, (from, to): (u64, u64)) -> Result<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|n| digits && (from..=to).contains(n));
    number.ok_or_else(|| bad(flag, text, &format!("use a whole number from {from} to {to}")))
}

/// A fraction of a whole.
pub fn share(flag: &str, text: &str) -> Result<f32> {
    let number = decimal(text).filter(|n| *n <= 1.0);
    number.map(|n| n as f32).ok_or_else(|| bad(flag, text, "use a number from 0 to 1"))
}

/// Where to listen: `HOST:PORT`, or nothing.
pub fn address(flag: &str, text: &str) -> Result<()> {
    let port = text.rsplit_once(':').map(|(_, port)| int(flag, port, (0, u16::MAX.into())).is_ok());
    if text.is_empty() || port == Some(true) {
        return Ok(());
    }
    Err(bad(flag, text, "use HOST:PORT, with a port from 0 to 65535"))
}

/// Bytes: a number with an optional binary suffix; `unit` is the suffix of a bare number.
pub fn size(flag: &str, text: &str, unit: char, (from, to): (u64, u64)) -> Result<u64> {
    let wrong = |what: &str| {
        let range = format!("use a number from {} to {}, with B, K, M, G, T, P or E", bytes(from), bytes(to));
        bad(flag, text, &format!("{what}{range}; without a letter it is in {unit}"))
    };
    let last = text.chars().last().ok_or_else(|| wrong(""))?;
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
        _ => return Err(wrong(&format!("{unit} is no unit; "))),
    };
    let n = decimal(number).ok_or_else(|| wrong(""))?;
    let scale = 1_u64 << shift;
    let total = match number.parse::<u64>() {
        // Exactly, which a fraction of many digits is not.
        Ok(whole) => whole.checked_mul(scale),
        // The conversion stops at the greatest number, which is beyond every range.
        Err(_) => Some((n * scale as f64) as u64),
    };
    total.filter(|total| (from..=to).contains(total)).ok_or_else(|| wrong(""))
}

/// A size as it may be given.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 7] = ["B", "K", "M", "G", "T", "P", "E"];
    let shift = n.trailing_zeros().min(63) / 10;
    match n {
        0 => "0".into(),
        n => format!("{}{}", n >> (shift * 10), UNITS[shift as usize]),
    }
}

/// A number of digits with at most one dot, which no sign, exponent or name of a number is.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse().ok().filter(|n: &f64| plain && n.is_finite())
}

/// A duration: seconds, or numbers with units (`1d`, `2h30m`, `500ms`).
pub fn duration(flag: &str, text: &str, (from, to): (u64, u64)) -> Result<Duration> {
    let wrong = || {
        let range = format!("use {from} to {to} seconds, or units like 1h30m, 10s, 500ms");
        bad(flag, text, &range)
    };
    let seconds = match decimal(text) {
        Some(seconds) => seconds,
        None => with_units(text).ok_or_else(wrong)?,
    };
    let range = Duration::from_secs(from)..=Duration::from_secs(to);
    Duration::try_from_secs_f64(seconds).ok().filter(|d| range.contains(d)).ok_or_else(wrong)
}

/// Seconds of a duration with units.
fn with_units(text: &str) -> Option<f64> {
    let mut total = 0.0;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let n = decimal(&rest[..digits])?;
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
            _ => return None,
        };
        rest = &rest[end..];
    }
    Some(total)
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
    fn rates_and_modes() {
        for (text, want) in [("0", 0), ("100", 100), ("1.5G", 1500), ("2t", 2_000_000), ("1P", 1_000_000_000)]
        {
            assert_eq!(rate("x", text).unwrap(), want, "{text}");
        }
        for bad in ["M", "1K", "-1", "10MB", "nan"] {
            assert!(rate("x", bad).is_err(), "{bad}");
        }
        assert_eq!((octal("x", "0640", 0o777).unwrap(), octal("x", "0o27", 0o777).unwrap()), (0o640, 0o27));
        for bad in ["", "8", "1000", "+7", "0x7", "-1"] {
            assert!(octal("x", bad, 0o777).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_durations() {
        let size = |text, unit| size("x", text, unit, (0, i64::MAX as u64));
        assert_eq!(size("4", 'M').unwrap(), 4 << 20);
        assert_eq!(size("1.5K", 'M').unwrap(), 1536);
        assert_eq!(size("100g", 'B').unwrap(), 100 << 30);
        assert_eq!(size("9007199254740993", 'B').unwrap(), 9_007_199_254_740_993);
        assert_eq!(size("9223372036854775807", 'B').unwrap(), i64::MAX as u64);
        for bad in [
            "10X",
            "4MiB",
            "-1",
            "8E",
            "17E",
            "9223372036854775808B",
            "99999999999999999999",
            "7.999999999999999999E",
            "1e3",
            "M",
            "",
        ] {
            assert!(size(bad, 'M').is_err(), "{bad}");
        }
        let duration = |text| duration("x", text, (0, 200_000));
        assert_eq!(duration("1.5").unwrap(), Duration::from_millis(1500));
        assert_eq!(duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("2d").unwrap(), Duration::from_secs(172_800));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        for bad in ["soon", "", "3d", "-1s", "1e3", ".s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
