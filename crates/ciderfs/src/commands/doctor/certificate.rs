//! Until when a certificate holds (X.509, in DER).

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Tag and content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, len, rest @ ..] = der else { return None };
    let (len, rest) = match *len {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f).min(9))?;
            let len = digits
                .iter()
                .try_fold(0_usize, |len, digit| Some(len.checked_mul(256)? + usize::from(*digit)))?;
            (len, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((*tag, content, rest))
}

/// The end of its validity.
pub fn ends(der: &[u8]) -> Option<Timestamp> {
    let (SEQUENCE, certificate, _) = element(der)? else { return None };
    let (SEQUENCE, mut rest, _) = element(certificate)? else { return None };
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (SEQUENCE, validity, _) = element(rest)? else { return None };
    let (tag, time, _) = element(element(validity)?.2)?;
    let text = std::str::from_utf8(time).ok()?;
    let time = match tag {
        UTC_TIME => {
            let century = if text.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
            DateTime::strptime("%Y%m%d%H%M%SZ", format!("{century}{text}")).ok()?
        }
        GENERALIZED_TIME => DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?,
        _ => return None,
    };
    TimeZone::UTC.to_timestamp(time).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_and_nothing_makes_it_panic() {
        let times = b"\x17\x0d240101000000Z\x17\x0d490203040506Z";
        let validity = [&[SEQUENCE, times.len() as u8][..], times].concat();
        let fields = [&[VERSION, 3, 2, 1, 2, 2, 1, 7, SEQUENCE, 0, SEQUENCE, 0][..], &validity].concat();
        let inner = [&[SEQUENCE, fields.len() as u8][..], &fields].concat();
        let whole = [&[SEQUENCE, 0x81, inner.len() as u8][..], &inner].concat();
        assert_eq!(ends(&whole).unwrap().to_string(), "2049-02-03T04:05:06Z");
        for at in 0..whole.len() {
            let _ = ends(&whole[..at]);
            for byte in [0, 0x7f, 0x80, 0x88, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                let _ = ends(&damaged);
            }
        }
    }
}
