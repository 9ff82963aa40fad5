//! What the key may do, and answers that a test prescribes.

use super::faults::Op;

/// What the key may do. Everything, unless it is restricted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// `BUCKET/PREFIX/`: only objects below it, and listings of this prefix. Nothing else is allowed then, neither requests about
    /// buckets.
    pub only_below: Option<String>,
    /// Kinds of requests that are refused everywhere.
    pub deny: Vec<Op>,
}

impl Policy {
    /// Is the request allowed? `path` with a slash before bucket and key, percent-encoded.
    pub(crate) fn allows(&self, op: Op, path: &str, query: &str) -> bool {
        if self.deny.contains(&op) {
            return false;
        }
        let Some(below) = &self.only_below else { return true };
        let path = path.trim_start_matches('/');
        match op {
            Op::List => {
                let prefix =
                    query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or_default();
                let prefix = prefix.replace("%2F", "/");
                format!("{}/{prefix}", path.trim_end_matches('/')).starts_with(below)
            }
            Op::CreateBucket | Op::Other => false,
            _ => path.starts_with(below),
        }
    }
}

/// An error that answers requests of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scripted {
    /// The kind.
    pub op: Op,
    /// How often; then requests are answered as usual.
    pub times: u32,
    /// HTTP status.
    pub status: u16,
    /// Code in the error document; without one there is no document.
    pub code: &'static str,
    /// Further elements of the document.
    pub elements: &'static str,
    /// `x-amz-bucket-region`.
    pub region: Option<&'static str>,
    /// `Location`, of a redirect.
    pub location: Option<String>,
}

impl Scripted {
    /// `op` is always answered with `status` and `code`.
    pub fn always(op: Op, status: u16, code: &'static str) -> Self {
        Self { op, times: u32::MAX, status, code, elements: "", region: None, location: None }
    }

    /// The error document.
    pub(crate) fn document(&self) -> String {
        let Self { code, elements, .. } = self;
        if code.is_empty() {
            return String::new();
        }
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>prescribed</Message>{elements}</Error>"
        )
    }
}
