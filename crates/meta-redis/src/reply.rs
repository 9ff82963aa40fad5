//! Taking answers apart. A server that answers something else than asked is damaged data to us, never a panic.

use bytes::Bytes;
use ciderfs_format::{Attr, Edge, Slice, excerpt};
use ciderfs_meta::store::StoreError;
use redis::Value as Reply;

pub(crate) type Result<T> = std::result::Result<T, StoreError>;

/// Bytes of an answer that are looked at for a text.
const ODD_MAX: usize = 4096;

/// What a script tells in the place of an answer that takes too much: this, the bytes, the key.
const OVERLONG: &str = "OVERLONG ";

fn overlong(said: &str) -> Option<StoreError> {
    let (bytes, key) = said.strip_prefix(OVERLONG)?.split_once(' ')?;
    Some(StoreError::corrupt(format!(
        "a record ({}) takes {} bytes, more than any sound one; it was not fetched",
        excerpt(key),
        excerpt(bytes)
    )))
}

pub(crate) fn odd(what: &str, got: &Reply) -> StoreError {
    let got = match got {
        // Whole, it might fill a log.
        Reply::BulkString(b) => excerpt(&String::from_utf8_lossy(b.get(..ODD_MAX).unwrap_or(b))),
        Reply::SimpleString(s) => excerpt(s),
        Reply::Array(list) | Reply::Set(list) => format!("a list of {}", list.len()),
        Reply::Int(n) => n.to_string(),
        Reply::Nil => "nothing".to_owned(),
        _ => "something".to_owned(),
    };
    StoreError::corrupt(format!("the server answered {got:?} where {what} was expected"))
}

/// A string, or nothing.
pub(crate) fn bytes(v: Reply) -> Result<Option<Bytes>> {
    match v {
        Reply::Nil => Ok(None),
        Reply::BulkString(b) => Ok(Some(b.into())),
        Reply::SimpleString(s) => match overlong(&s) {
            Some(e) => Err(e),
            None => Ok(Some(s.into_bytes().into())),
        },
        other => Err(odd("a string", &other)),
    }
}

/// A number: an integer, or text; nothing is `None`.
pub(crate) fn int(v: Reply) -> Result<Option<i64>> {
    if let Reply::Int(n) = v {
        return Ok(Some(n));
    }
    bytes(v)?.map(|b| number(&b)).transpose()
}

/// A number in decimal text.
pub(crate) fn number<T: std::str::FromStr>(b: &[u8]) -> Result<T> {
    let parsed = std::str::from_utf8(b).ok().and_then(|s| s.trim().parse().ok());
    parsed.ok_or_else(|| {
        StoreError::corrupt(format!(
            "{:?} is not a number",
            excerpt(&String::from_utf8_lossy(b.get(..ODD_MAX).unwrap_or(b)))
        ))
    })
}

/// A list of answers.
pub(crate) fn array(v: Reply) -> Result<Vec<Reply>> {
    match v {
        Reply::Array(list) | Reply::Set(list) => Ok(list),
        Reply::Nil => Ok(Vec::new()),
        Reply::SimpleString(s) => Err(overlong(&s).unwrap_or_else(|| odd("a list", &Reply::SimpleString(s)))),
        other => Err(odd("a list", &other)),
    }
}

/// A list of strings.
pub(crate) fn strings(v: Reply) -> Result<Vec<Bytes>> {
    array(v)?.into_iter().map(needed).collect()
}

/// A string.
pub(crate) fn needed(v: Reply) -> Result<Bytes> {
    bytes(v)?.ok_or_else(|| odd("a string", &Reply::Nil))
}

/// Fields and values as they came: each may be damaged.
pub(crate) fn twos(v: Reply) -> Result<Vec<(Reply, Reply)>> {
    let mut flat = array(v)?.into_iter();
    let mut out = Vec::with_capacity(flat.len() / 2);
    while let (Some(field), Some(value)) = (flat.next(), flat.next()) {
        out.push((field, value));
    }
    Ok(out)
}

/// Fields and values.
pub(crate) fn pairs(v: Reply) -> Result<Vec<(Bytes, Bytes)>> {
    let mut flat = strings(v)?.into_iter();
    let mut out = Vec::with_capacity(flat.len() / 2);
    while let (Some(field), Some(value)) = (flat.next(), flat.next()) {
        out.push((field, value));
    }
    Ok(out)
}

pub(crate) fn attr(v: Reply) -> Result<Option<Attr>> {
    Ok(bytes(v)?.map(|raw| Attr::decode(&raw)).transpose()?)
}

pub(crate) fn edge(v: Reply) -> Result<Option<Edge>> {
    Ok(bytes(v)?.map(|raw| Edge::decode(&raw)).transpose()?)
}

pub(crate) fn slices(v: Reply) -> Result<Vec<Slice>> {
    strings(v)?.iter().map(|raw| Ok(Slice::decode(raw)?)).collect()
}
