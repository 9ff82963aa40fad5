//! Lists in pages: a token says after which entry the next page begins.

use tonic::Status;

/// What tokens begin with, so that others are told apart.
const TOKEN: &str = "after:";

/// Is a request for a page one that can be answered?
///
/// # Errors
/// Those of [`page`].
pub fn check(max_entries: i32, starting_token: &str) -> Result<(), Status> {
    page::<()>(Vec::new(), max_entries, starting_token).map(drop)
}

/// A page of entries that are sorted by their keys, and the token for the next one; empty at the end.
///
/// # Errors
/// `INVALID_ARGUMENT` for a negative number, `ABORTED` for a token that is none of ours.
pub fn page<T>(
    entries: Vec<(String, T)>,
    max_entries: i32,
    starting_token: &str,
) -> Result<(Vec<T>, String), Status> {
    let max =
        usize::try_from(max_entries).map_err(|_| Status::invalid_argument("max_entries is negative"))?;
    let after = match starting_token {
        "" => None,
        token => {
            Some(token.strip_prefix(TOKEN).ok_or_else(|| Status::aborted("starting_token is none of ours"))?)
        }
    };
    let mut rest = entries.into_iter().filter(|(key, _)| after.is_none_or(|after| key.as_str() > after));
    let take = if max == 0 { usize::MAX } else { max };
    let mut last = String::new();
    let mut out = Vec::new();
    for (key, entry) in rest.by_ref().take(take) {
        last = key;
        out.push(entry);
    }
    let next = if rest.next().is_some() { format!("{TOKEN}{last}") } else { String::new() };
    Ok((out, next))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let all = || ["a", "b", "c"].map(|k| (k.to_owned(), k)).to_vec();
        assert_eq!(page(all(), 0, "").unwrap(), (vec!["a", "b", "c"], String::new()));
        let (first, next) = page(all(), 2, "").unwrap();
        assert_eq!(first, ["a", "b"]);
        assert_eq!(page(all(), 2, &next).unwrap(), (vec!["c"], String::new()));
        assert_eq!(page(all(), 3, "").unwrap().1, "");
        assert_eq!(page(all(), -1, "").unwrap_err().code(), tonic::Code::InvalidArgument);
        assert_eq!(page(all(), 1, "invalid-token").unwrap_err().code(), tonic::Code::Aborted);
    }
}
