//! Finding a secret in what somebody else says: as it is, and as escapes of URLs, XML and quoted texts write it.

/// How often what is said may be escaped.
const ROUNDS: usize = 3;
/// A shorter secret is only found where it stands for itself: as a part of words it would be everywhere.
const SHORT: usize = 4;
/// A beginning of so many bytes is no coincidence.
const TELLING: usize = 12;

/// A byte of a text once escapes are resolved, and where it begins and ends in the text.
#[derive(Clone, Copy)]
struct Said {
    byte: u8,
    from: usize,
    to: usize,
}

/// Where `secret` stands in `text`, in order and apart; the last range reaches to the end of the text where only the
/// beginning of a long secret is there, because some cut what they repeat.
pub(crate) fn places(secret: &str, text: &str) -> Vec<(usize, usize)> {
    let secret = secret.as_bytes();
    let mut found = Vec::new();
    let mut cuts = Vec::new();
    let mut said: Vec<Said> =
        text.bytes().enumerate().map(|(at, byte)| Said { byte, from: at, to: at + 1 }).collect();
    for round in 0..=ROUNDS {
        let is = |said: &[Said], secret: &[u8]| {
            said.iter().zip(secret).all(|(s, b)| s.byte == *b || (round > 0 && *b == b' ' && s.byte == b'+'))
        };
        let is_word =
            |s: Option<&Said>| s.is_some_and(|s| s.byte.is_ascii_alphanumeric() || !s.byte.is_ascii());
        let mut at = 0;
        while let Some(rest) = said.get(at..).filter(|rest| !rest.is_empty()) {
            let is_part =
                || is_word(at.checked_sub(1).and_then(|n| said.get(n))) || is_word(rest.get(secret.len()));
            if rest.len() >= secret.len() && is(rest, secret) && (secret.len() >= SHORT || !is_part()) {
                found.extend(rest.first().zip(rest.get(secret.len() - 1)).map(|(a, b)| (a.from, b.to)));
                at += secret.len();
                continue;
            }
            if secret.len() > TELLING && rest.len() >= TELLING && is(rest, &secret[..TELLING]) {
                cuts.push(rest[0].from);
            }
            at += 1;
        }
        let plain = unescaped(&said);
        if plain.len() == said.len() {
            break;
        }
        said = plain;
    }
    // One more level may have shown the whole of what looked like a beginning.
    cuts.retain(|at| !found.iter().any(|(from, to)| (from..to).contains(&at)));
    found.extend(cuts.iter().min().map(|at| (*at, text.len())));
    found.sort_unstable();
    let mut apart: Vec<(usize, usize)> = Vec::new();
    for (from, to) in found {
        match apart.last_mut() {
            Some(last) if from < last.1 => last.1 = last.1.max(to),
            _ => apart.push((from, to)),
        }
    }
    apart
}

/// One level of escapes less.
fn unescaped(said: &[Said]) -> Vec<Said> {
    let mut plain = Vec::with_capacity(said.len());
    let mut rest = said;
    while let Some((first, behind)) = rest.split_first() {
        let Some((bytes, len)) = escape(rest) else {
            plain.push(*first);
            rest = behind;
            continue;
        };
        let to = rest[len - 1].to;
        plain.extend(bytes.bytes().map(|byte| Said { byte, from: first.from, to }));
        rest = &rest[len..];
    }
    plain
}

/// What an escape at the begin stands for, and its length. Bytes of other characters than ASCII come one by one.
fn escape(said: &[Said]) -> Option<(Plain, usize)> {
    /// Bytes of the longest.
    const LONGEST: usize = 12;
    let head: Vec<u8> = said.iter().take(LONGEST).map(|s| s.byte).collect();
    let number = |digits: &[u8], radix| u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok();
    let until = |from: usize, end: u8| {
        let len = head.get(from..)?.iter().position(|b| *b == end)?;
        Some((head.get(from..from + len)?, from + len + 1))
    };
    match *head.as_slice() {
        [b'%', a, b, ..] => Some((Plain::Byte(number(&[a, b], 16)? as u8), 3)),
        [b'&', b'#', b'x' | b'X', ..] => {
            let (digits, len) = until(3, b';')?;
            Some((Plain::Char(char::from_u32(number(digits, 16)?)?), len))
        }
        [b'&', b'#', ..] => {
            let (digits, len) = until(2, b';')?;
            Some((Plain::Char(char::from_u32(number(digits, 10)?)?), len))
        }
        [b'&', ..] => {
            let (name, len) = until(1, b';')?;
            let byte = match name {
                b"amp" => b'&',
                b"lt" => b'<',
                b"gt" => b'>',
                b"quot" => b'"',
                b"apos" => b'\'',
                _ => return None,
            };
            Some((Plain::Byte(byte), len))
        }
        [b'\\', b'u', b'{', ..] => {
            let (digits, len) = until(3, b'}')?;
            Some((Plain::Char(char::from_u32(number(digits, 16)?)?), len))
        }
        [b'\\', b'u', a, b, c, d, ..] => Some((Plain::Char(char::from_u32(number(&[a, b, c, d], 16)?)?), 6)),
        [b'\\', b'x', a, b, ..] => Some((Plain::Byte(number(&[a, b], 16)? as u8), 4)),
        [b'\\', c @ (b'"' | b'\'' | b'\\' | b'/'), ..] => Some((Plain::Byte(c), 2)),
        _ => None,
    }
}

enum Plain {
    Byte(u8),
    Char(char),
}

impl Plain {
    fn bytes(&self) -> impl Iterator<Item = u8> + use<> {
        let mut buffer = [0; 4];
        let len = match self {
            Self::Byte(byte) => {
                buffer[0] = *byte;
                1
            }
            Self::Char(c) => c.encode_utf8(&mut buffer).len(),
        };
        buffer.into_iter().take(len)
    }
}
