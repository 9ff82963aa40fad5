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

    /// A text in which others may have repeated the secret, without it. Some cut what they repeat, so the text ends where the
    /// beginning of a long one stands.
    pub fn hidden_in(&self, text: &str) -> String {
        /// A shorter one is only found where it stands for itself: as a part of words it would be everywhere.
        const SHORT: usize = 4;
        /// A beginning of so many bytes is no coincidence.
        const TELLING: usize = 12;
        if self.is_empty() {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for (at, secret) in text.match_indices(&self.0) {
            let end = at + secret.len();
            let is_part =
                text[..at].ends_with(char::is_alphanumeric) || text[end..].starts_with(char::is_alphanumeric);
            if secret.len() >= SHORT || !is_part {
                out.push_str(&text[from..at]);
                out.push_str(HIDDEN);
                from = end;
            }
        }
        out.push_str(&text[from..]);
        let start = self.0.get(..TELLING).filter(|s| s.len() < self.0.len());
        if let Some(at) = start.and_then(|start| out.find(start)) {
            out.truncate(at);
            out.push_str(HIDDEN);
        }
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
}
