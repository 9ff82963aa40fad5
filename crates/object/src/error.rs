//! Errors of object stores. The text names cause and remedy.

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// There is no such object.
    #[error("object {0} does not exist")]
    NotFound(String),
    /// There is one already.
    #[error("object {0} exists already")]
    Exists(String),
    /// The store refused the credentials or the operation.
    #[error("access denied: {0}")]
    AccessDenied(String),
    /// The bucket does not exist.
    #[error("the bucket does not exist: {0}; create it, or check --bucket")]
    NoBucket(String),
    /// No answer from the endpoint.
    #[error("cannot reach the object store: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer from the object store within {0:?}")]
    Timeout(std::time::Duration),
    /// The store asks to slow down.
    #[error("the object store is overloaded: {0}")]
    Throttled(String),
    /// The store asked to slow down for so long, and took nothing from anybody.
    #[error(
        "the object store has taken no request for {0:?}, it only asks to slow down: see whether the account or the bucket is \
         blocked or over its limits, and use the file again once it answers"
    )]
    Refusing(std::time::Duration),
    /// What came back is not what was stored.
    #[error("object {0} is damaged: {1}")]
    Corrupt(String, String),
    /// The disk under a `file` store is full.
    #[error("no space left: {0}")]
    NoSpace(String),
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// The store has a passing fault, or the connection broke within a request.
    #[error("the object store failed: {0}")]
    Server(String),
    /// Anything else; repeating it would not help.
    #[error("{0}")]
    Other(String),
}

impl ObjectError {
    /// The same error in other words.
    #[must_use]
    pub(crate) fn reworded(self, words: impl Fn(&str) -> String) -> Self {
        match self {
            Self::NotFound(text) => Self::NotFound(words(&text)),
            Self::Exists(text) => Self::Exists(words(&text)),
            Self::AccessDenied(text) => Self::AccessDenied(words(&text)),
            Self::NoBucket(text) => Self::NoBucket(words(&text)),
            Self::Unreachable(text) => Self::Unreachable(words(&text)),
            Self::Timeout(limit) => Self::Timeout(limit),
            Self::Throttled(text) => Self::Throttled(words(&text)),
            Self::Refusing(time) => Self::Refusing(time),
            Self::Corrupt(object, text) => Self::Corrupt(words(&object), words(&text)),
            Self::NoSpace(text) => Self::NoSpace(words(&text)),
            Self::Config(text) => Self::Config(words(&text)),
            Self::Server(text) => Self::Server(words(&text)),
            Self::Other(text) => Self::Other(words(&text)),
        }
    }

    /// May the same request succeed a little later? True for a damaged object, too: the transfer may be at fault.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_)
                | Self::Timeout(_)
                | Self::Throttled(_)
                | Self::Refusing(_)
                | Self::Corrupt(..)
                | Self::Server(_)
        )
    }
}

/// Result of a request.
pub type Result<T, E = ObjectError> = std::result::Result<T, E>;
