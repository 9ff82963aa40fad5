//! Names for texts and documents.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write as _;

mod address;

pub use address::{is_password_cut, is_secret_name, shown_address};

/// A name of any bytes as text that loses nothing: UTF-8 stays as it is. In a name with other bytes those, and every
/// backslash, are a backslash and three octal digits, as in the kernel's mount table.
pub fn shown(name: &(impl AsRef<OsStr> + ?Sized)) -> Cow<'_, str> {
    let name = name.as_ref();
    if let Some(text) = name.to_str() {
        return text.into();
    }
    let mut out = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        out.push_str(&chunk.valid().replace('\\', "\\134"));
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(out, "\\{byte:03o}");
        }
    }
    out.into()
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
        ] {
            assert_eq!(shown(OsStr::from_bytes(name)), text);
        }
    }
}
