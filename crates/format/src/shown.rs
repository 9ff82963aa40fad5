//! Names for texts and documents.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write as _;

mod address;

pub use address::{is_password_cut, is_secret_name, shown_address, shown_bucket};

/// A name of any bytes as text that loses nothing: UTF-8 stays as it is. In a name with other bytes, or with characters that would do
/// something to a terminal, those, and every backslash, are a backslash and three octal digits for each byte, as in the kernel's mount
/// table.
pub fn shown(name: &(impl AsRef<OsStr> + ?Sized)) -> Cow<'_, str> {
    let name = name.as_ref();
    if let Some(text) = name.to_str().filter(|text| !text.contains(does_something)) {
        return text.into();
    }
    let mut out = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        let plain = |c: char| c != '\\' && !does_something(c);
        let mut rest = chunk.valid();
        while let Some(at) = rest.find(|c: char| !plain(c)) {
            let (before, after) = rest.split_at(at);
            out.push_str(before);
            let len = after.chars().next().map_or(0, char::len_utf8);
            let (odd, after) = after.split_at(len);
            escape(&mut out, odd.as_bytes());
            rest = after;
        }
        out.push_str(rest);
        escape(&mut out, chunk.invalid());
    }
    out.into()
}

fn escape(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(out, "\\{byte:03o}");
    }
}

/// Is it a control character, the end of a line, or a mark that turns the direction of text?
fn does_something(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Characters of what somebody else says that go into a text.
const EXCERPT: usize = 500;

/// What somebody else said, fit for a terminal and a log: not long, on one line, without control characters.
pub fn excerpt(text: &str) -> String {
    let is_plain = |c: char| c.escape_debug().len() == 1 || matches!(c, '"' | '\'' | '\\');
    let mut shown = String::new();
    for (n, c) in text.trim().chars().enumerate() {
        if n == EXCERPT {
            return shown + "...";
        }
        if is_plain(c) {
            shown.push(c);
        } else if !shown.ends_with(' ') {
            shown.push(' ');
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn names_lose_nothing_in_texts() {
        for (name, text) in [
            (&b"/plain \\ \xc3\xbc"[..], "/plain \\ \u{fc}"),
            (b"/a\xffb", "/a\\377b"),
            (b"\\377\xff", "\\134377\\377"),
            (b"\xef\xbf\xbd", "\u{fffd}"),
            (b"a\x1b]0;\\x\x07\n", "a\\033]0;\\134x\\007\\012"),
            ("\u{fc}\u{9b}2J\u{202e}x\u{7f}".as_bytes(), "\u{fc}\\302\\2332J\\342\\200\\256x\\177"),
        ] {
            assert_eq!(shown(OsStr::from_bytes(name)), text);
        }
    }

    #[test]
    fn excerpts_are_short_and_plain() {
        assert_eq!(excerpt(" It's \"so\" \\ \u{fc}\n"), "It's \"so\" \\ \u{fc}");
        // Colours, line breaks, and marks that turn the direction of the text.
        assert_eq!(excerpt("a\x1b[31mb\r\nc\0d\u{202e}e"), "a [31mb c d e");
        assert_eq!(excerpt(&"\u{4e2d}".repeat(1 << 20)).chars().count(), EXCERPT + 3);
    }
}
