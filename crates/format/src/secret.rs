//! Texts that must not be seen.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// A key, password or token. Its `Debug` and `Display` are empty: whatever prints a value that holds one, at any level, prints
/// nothing of it. In documents it is an ordinary text.
#[derive(Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text, for whoever needs it to prove something.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The secret in what may have been given; an empty text is none.
    pub fn given(text: Option<String>) -> Option<Self> {
        text.map(Self).filter(|s| !s.is_empty())
    }

    /// A text in which others may have repeated the secret, without it: neither as it is nor escaped as in URLs, XML or quotes.
    /// Some cut what they repeat, so the text ends where the beginning of a long one stands. Whoever cuts the text does so
    /// afterwards.
    pub fn hidden_in(&self, text: &str) -> String {
        if self.is_empty() {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for (start, end) in crate::hide::places(&self.0, text) {
            out.push_str(text.get(from..start).unwrap_or_default());
            out.push_str(HIDDEN);
            from = end;
        }
        out.push_str(text.get(from..).unwrap_or_default());
        out
    }
}

/// What stands in the place of a secret.
pub(crate) const HIDDEN: &str = "****";

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        // The library's own words would quote a value of the wrong type.
        String::deserialize(d).map(Self).map_err(|_| D::Error::custom("a secret that is no text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_a_secret() {
        let secret = Secret::from("hush");
        assert_eq!(format!("{secret}{secret:?}{:#?}", Some(&secret)), "Some(\n    ,\n)");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"hush\"");
        assert_eq!(serde_json::from_str::<Secret>("\"hush\"").unwrap(), secret);
        for odd in ["123456789", "[\"123456789\"]", "{\"a\":\"123456789\"}"] {
            let e = serde_json::from_str::<Secret>(odd).unwrap_err().to_string();
            assert!(!e.contains("123456789"), "{e}");
        }
    }

    #[test]
    fn what_others_repeat_is_hidden() {
        let secret = Secret::from("a long password");
        for (said, want) in [
            ("nothing", "nothing"),
            ("'a long password' and a long password.", "'****' and ****."),
            ("args: 'a long passwo' 'more'", "args: '****"),
        ] {
            assert_eq!(secret.hidden_in(said), want);
        }
        assert_eq!(Secret::from("pw").hidden_in("my 'pw', pwd"), "my '****', pwd");
        assert_eq!(Secret::default().hidden_in("x"), "x");
    }

    #[test]
    fn escapes_hide_nothing() {
        let secret = Secret::from("sec/ret+key&\"<\u{fc}=");
        for said in [
            "sec/ret+key&\"<\u{fc}=",
            "sec%2Fret%2Bkey%26%22%3C%C3%BC%3D",
            "sec%2fret%2bkey%26%22%3c%c3%bc%3d",
            "sec/ret+key&amp;&quot;&lt;\u{fc}=",
            "sec&#47;ret&#x2B;key&#38;&#34;&#60;&#xfc;=",
            "sec\\/ret\\u002bkey&\\\"<\\u{fc}=",
            // Twice: in a URL in a document, in a quoted document, in a URL in a URL.
            "sec%2Fret%2Bkey&#37;26%22%3C%C3%BC%3D",
            "sec/ret+key&amp;&quot;&lt;\\u{fc}=",
            "sec%252Fret%252Bkey%2526%2522%253C%25C3%25BC%253D",
        ] {
            assert_eq!(secret.hidden_in(&format!("\u{e9} a={said}&b=%41")), "\u{e9} a=****&b=%41", "{said}");
            assert_eq!(secret.hidden_in(&format!("{said} {said}")), "**** ****", "{said}");
        }
        assert_eq!(secret.hidden_in("at sec%2Fret%2Bkey%26%22"), "at ****");
        assert_eq!(Secret::from("a b c d").hidden_in("x=a+b%20c+d"), "x=****");
        // What only looks like an escape.
        for said in ["100% &c; &#; &#xzz; \\u{110000} %zz %", "%", "&", "\\", "%C3", "&#1114112;"] {
            assert_eq!(secret.hidden_in(said), said);
        }
    }
}
