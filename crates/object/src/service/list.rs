//! Listings in the order of keys.

use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt as _;
use opendal::options::ListOptions;
use opendal::{ErrorKind, Lister, Operator, Result};
use parking_lot::Mutex;

use crate::store::Entry;

/// Entries of a page that a store is asked for.
const PAGE: usize = 1000;

/// How a store lists.
#[derive(Debug)]
pub(super) enum Listing {
    /// All keys below a prefix in their order. What follows a page is kept, as most stores cannot begin within.
    Keys(Mutex<Option<Begun>>),
    /// One directory at a time, in any order: they are walked in the order of keys.
    Directories,
}

/// A listing that goes on where the last page of it ended.
pub(super) struct Begun {
    prefix: String,
    last: String,
    lister: Lister,
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Begun")
            .field("prefix", &self.prefix)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// A file that is being written, by us or by the official client.
fn is_temp(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or_default();
    name.starts_with('.') && name.contains(".tmp.")
}

/// Time after which nobody is writing any more.
const LEFT_BEHIND: Duration = Duration::from_hours(24);

/// Was it begun, and never finished? Only what ends in a number: an object that was moved aside may be the last one of its kind.
fn is_left_behind(found: &opendal::Entry) -> bool {
    let number = found.path().rsplit('.').next().unwrap_or_default();
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let age = || SystemTime::now().duration_since(found.metadata().last_modified()?.into()).ok();
    is_temp(found.path()) && is_number && age().is_some_and(|age| age > LEFT_BEHIND)
}

fn entry(found: opendal::Entry) -> Entry {
    let (key, meta) = found.into_parts();
    Entry { size: meta.content_length(), mtime: meta.last_modified().map(SystemTime::from), key }
}

impl Listing {
    /// At most `limit` objects below `prefix` after the key `after`, in ascending order.
    pub(super) async fn page(
        &self,
        operator: &Operator,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        match self {
            Self::Keys(begun) => keys(begun, operator, prefix, after, limit).await,
            Self::Directories => walk(operator, prefix, after, limit).await,
        }
    }
}

async fn keys(
    begun: &Mutex<Option<Begun>>,
    operator: &Operator,
    prefix: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<Entry>> {
    let old = begun.lock().take_if(|begun| begun.prefix == prefix && begun.last == after);
    let mut lister = match old {
        Some(begun) => begun.lister,
        None => {
            let can_begin_within = operator.info().capability().list_with_start_after;
            let start_after = Some(after.to_owned()).filter(|after| can_begin_within && !after.is_empty());
            let options =
                ListOptions { recursive: true, start_after, limit: Some(PAGE), ..ListOptions::default() };
            operator.lister_options(prefix, options).await?
        }
    };
    let mut found: Vec<Entry> = Vec::new();
    while found.len() < limit
        && let Some(next) = lister.try_next().await?
    {
        let next = entry(next);
        // Markers of folders are no objects of a volume.
        if next.key.ends_with('/') || next.key.as_str() <= after || !next.key.starts_with(prefix) {
            continue;
        }
        if let Some(last) = found.last().filter(|last| last.key >= next.key) {
            let text = format!("the listing has {:?} after {:?}, which is out of order", next.key, last.key);
            return Err(opendal::Error::new(ErrorKind::Unexpected, text));
        }
        found.push(next);
    }
    if found.len() >= limit
        && let Some(last) = found.last()
    {
        *begun.lock() = Some(Begun { prefix: prefix.to_owned(), last: last.key.clone(), lister });
    }
    Ok(found)
}

/// What is directly in a directory, in the order of keys. Nothing is in one that does not exist.
async fn directory(operator: &Operator, path: &str) -> Result<std::vec::IntoIter<opendal::Entry>> {
    let mut all = match operator.list(path).await {
        Ok(all) => all,
        Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e),
    };
    all.retain(|entry| entry.path() != path && entry.path() != "/");
    all.sort_unstable_by(|a, b| a.path().cmp(b.path()));
    Ok(all.into_iter())
}

async fn walk(operator: &Operator, prefix: &str, after: &str, limit: usize) -> Result<Vec<Entry>> {
    let top = prefix.rfind('/').map_or("", |at| &prefix[..=at]);
    let mut open = vec![directory(operator, if top.is_empty() { "/" } else { top }).await?];
    let mut found = Vec::new();
    while let Some(last) = open.last_mut() {
        if found.len() >= limit {
            break;
        }
        let Some(next) = last.next() else {
            open.pop();
            continue;
        };
        let path = next.path();
        if path.ends_with('/') {
            let may_match = path.starts_with(prefix) || prefix.starts_with(path);
            let may_follow = path > after || after.starts_with(path);
            if may_match && may_follow {
                let below = directory(operator, path).await?;
                open.push(below);
            }
        } else if is_left_behind(&next) {
            // Whoever may not delete need not.
            if let Err(e) = operator.delete(path).await {
                tracing::debug!("{path} is left: {e}");
            }
        } else if path.starts_with(prefix) && path > after && !is_temp(path) {
            found.push(entry(next));
        }
    }
    Ok(found)
}
