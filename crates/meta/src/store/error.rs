//! Why a store could not answer, and what was behind it.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Why a store could not answer. What is shown is the reason's text alone, which tells all that a user needs: whoever wants
/// to know more asks for the [`source`](Error::source), the error of the driver or of the system.
#[derive(Debug, Clone)]
pub enum StoreError {
    /// The engine could not be reached or refused for now; nothing was applied. Worth a retry.
    Unavailable(Reason),
    /// The reply was lost; a commit may or may not have been applied.
    Ambiguous(Reason),
    /// The engine is out of memory or disk.
    NoSpace(Reason),
    /// A stored value makes no sense.
    Corrupt(Reason),
    /// Wrong password, wrong address, wrong version: no retry helps. The text names cause and remedy.
    Fatal(Reason),
}

/// A text, what happened and what to do about it, and the error that it tells of, if there was one.
#[derive(Debug, Clone, Default)]
pub struct Reason {
    text: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Deref for Reason {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self { text, source: None }
    }
}

impl StoreError {
    /// [`StoreError::Unavailable`] without a source.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::Unavailable(text.into().into())
    }

    /// [`StoreError::Ambiguous`] without a source.
    pub fn ambiguous(text: impl Into<String>) -> Self {
        Self::Ambiguous(text.into().into())
    }

    /// [`StoreError::NoSpace`] without a source.
    pub fn no_space(text: impl Into<String>) -> Self {
        Self::NoSpace(text.into().into())
    }

    /// [`StoreError::Corrupt`] without a source.
    pub fn corrupt(text: impl Into<String>) -> Self {
        Self::Corrupt(text.into().into())
    }

    /// [`StoreError::Fatal`] without a source.
    pub fn fatal(text: impl Into<String>) -> Self {
        Self::Fatal(text.into().into())
    }

    /// The answer of an engine has another shape than the question asks for.
    pub(crate) fn another_question() -> Self {
        Self::corrupt("the engine answered another question")
    }

    /// The same with the error that it tells of.
    #[must_use]
    pub fn because(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.reason_mut().source = Some(Arc::new(source));
        self
    }

    /// The same in other words, and without its source: it still has the old ones.
    #[must_use]
    pub fn reworded(mut self, words: impl FnOnce(&str) -> String) -> Self {
        let reason = self.reason_mut();
        *reason = words(&reason.text).into();
        self
    }

    fn reason(&self) -> &Reason {
        match self {
            Self::Unavailable(reason)
            | Self::Ambiguous(reason)
            | Self::NoSpace(reason)
            | Self::Corrupt(reason)
            | Self::Fatal(reason) => reason,
        }
    }

    fn reason_mut(&mut self) -> &mut Reason {
        match self {
            Self::Unavailable(reason)
            | Self::Ambiguous(reason)
            | Self::NoSpace(reason)
            | Self::Corrupt(reason)
            | Self::Fatal(reason) => reason,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self, Self::Corrupt(_)) {
            f.write_str("damaged metadata: ")?;
        }
        fmt::Display::fmt(self.reason(), f)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.reason().source.as_deref().map(|source| source as _)
    }
}

impl From<ciderfs_format::FormatError> for StoreError {
    fn from(e: ciderfs_format::FormatError) -> Self {
        Self::corrupt(e.to_string()).because(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_is_the_text_and_kept_is_the_source() {
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let e = StoreError::unavailable("nobody answers; start it").because(refused());
        let kept = e.clone();
        assert_eq!(kept.to_string(), "nobody answers; start it");
        let source = kept.source().and_then(|e| e.downcast_ref::<std::io::Error>());
        assert_eq!(source.map(std::io::Error::kind), Some(std::io::ErrorKind::ConnectionRefused));
        let other = e.reworded(|text| text.replace("nobody", "no one"));
        assert_eq!(other.to_string(), "no one answers; start it");
        assert!(other.source().is_none());
        let damaged = StoreError::corrupt("a row").because(refused());
        assert_eq!(damaged.to_string(), "damaged metadata: a row");
    }
}
