//! Names of the hourly trash directories (`docs/format/trash.md#layout`).

use crate::civil::Civil;

/// `YYYY-MM-DD-HH` in UTC for a moment in unix seconds.
pub fn hour_name(unix: i64) -> String {
    let c = Civil::from_unix(unix);
    format!("{:04}-{:02}-{:02}-{:02}", c.year, c.month, c.day, c.hour)
}

/// The unix second at which the hour of that name begins; `None` if it is no such name.
pub fn parse_hour(name: &str) -> Option<i64> {
    let b = name.as_bytes();
    if b.len() != 13 || b[4] != b'-' || b[7] != b'-' || b[10] != b'-' {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        let digits = &b[range];
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let civil = Civil {
        year: number(0..4)?,
        month: number(5..7)? as u32,
        day: number(8..10)? as u32,
        hour: number(11..13)? as u32,
        minute: 0,
        second: 0,
    };
    let unix = civil.to_unix()?;
    // Rejects dates that do not exist.
    (hour_name(unix) == name).then_some(unix)
}

#[cfg(test)]
mod tests;
