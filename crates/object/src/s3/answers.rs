//! How much is read of what a store answers, and what of it counts: a store may be broken, or not be the one that is meant.

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use futures_util::stream::{self, Stream, StreamExt as _};
use http::header::{CONTENT_LENGTH, RANGE, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response, StatusCode, response};
use opendal::raw::oio::ReadStream as _;
use opendal::raw::{Operation, parse_content_range};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, Result};

use super::outgoing::Outgoing;

use super::bucket::element;

/// Bytes that are read of the body of a refusal: an error document has some hundred. What is behind is not waited for.
const MAX_REFUSAL: usize = 16 << 10;
/// Bytes of an answer that is neither an object nor a listing.
pub(super) const MAX_ANSWER: usize = 64 << 10;
/// Bytes of a page of a listing: a thousand keys of full length with every character written out (`&quot;`).
const MAX_PAGE: usize = 8 << 20;

/// Bytes of all headers of an answer. S3 services send 8 KiB at most; opendal breaks down at values of 64 KiB.
const MAX_HEADERS: usize = 32 << 10;
/// Bytes of a value in a listing: a key of full length, written out. opendal breaks down at 64 KiB.
const MAX_VALUE: usize = 10 << 10;

/// Where a bucket is.
const BUCKET_REGION: &str = "x-amz-bucket-region";

/// Sends requests and bounds the answers. Bodies of whole objects pass: whoever asks knows how long they may be.
pub(super) struct Bounded(pub(super) Outgoing);

impl HttpTransport for Bounded {
    async fn fetch(&self, req: Request<Buffer>) -> Result<Response<HttpBody>> {
        // Requests for credentials have none.
        let operation = req.extensions().get::<Operation>().copied();
        let range = asked_range(req.headers());
        let (mut parts, mut body) = self.0.fetch(req).await?.into_parts();
        let size = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
        if size > MAX_HEADERS {
            return Err(unexpected(format!("the answer has {size} bytes of headers")));
        }
        if !parts.status.is_success() {
            // The status says enough where the rest does not come.
            let (text, _) = start_of(&mut body, MAX_REFUSAL).await;
            // opendal keeps the headers of a refusal, and of the document only what all have.
            if !parts.headers.contains_key(BUCKET_REGION)
                && let Some(region) = element(&String::from_utf8_lossy(&text), "Region")
                && let Ok(region) = region.parse()
            {
                parts.headers.insert(BUCKET_REGION, region);
            }
            return Ok(Response::from_parts(parts, whole(text)));
        }
        if operation == Some(Operation::Read) {
            let body = part_of(&mut parts, body, range)?;
            return Ok(Response::from_parts(parts, body));
        }
        let most = if operation == Some(Operation::List) { MAX_PAGE } else { MAX_ANSWER };
        let (text, rest) = start_of(&mut body, most).await;
        match rest {
            Rest::Nothing => {}
            Rest::More => return Err(unexpected(format!("the answer has more than {most} bytes"))),
            Rest::Broken(e) => return Err(e),
        }
        match (operation, root_of(&text)) {
            // Parsed as if it were one, anything else is an empty listing.
            (Some(Operation::List), Some(b"ListBucketResult")) if has_short_values(&text) => {}
            (Some(Operation::List), Some(b"ListBucketResult")) => {
                return Err(unexpected("the listing has values that no object has"));
            }
            (Some(Operation::List), root) if root != Some(b"Error") => {
                return Err(unexpected(
                    "the answer is no listing: does the address belong to an S3 service?",
                ));
            }
            // Begun before the store knew how it would end.
            (Some(_), Some(b"Error")) => parts.status = StatusCode::INTERNAL_SERVER_ERROR,
            // Not every service says that there is no content.
            (Some(Operation::Delete), _) if parts.status == StatusCode::OK => {
                parts.status = StatusCode::NO_CONTENT;
            }
            _ => {}
        }
        Ok(Response::from_parts(parts, whole(text)))
    }
}

pub(super) fn unexpected(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unexpected, text)
}

pub(super) fn whole(text: Vec<u8>) -> HttpBody {
    HttpBody::new(stream::iter([Ok(Buffer::from(text))]), None)
}

/// What follows the start of a body.
enum Rest {
    Nothing,
    More,
    Broken(Error),
}

async fn start_of(body: &mut HttpBody, most: usize) -> (Vec<u8>, Rest) {
    let mut text = Vec::new();
    loop {
        match body.read().await {
            Err(e) => return (text, Rest::Broken(e)),
            Ok(part) if part.is_empty() => return (text, Rest::Nothing),
            Ok(mut part) => {
                let room = most - text.len();
                if part.len() > room {
                    part.truncate(room);
                    text.extend_from_slice(&part.to_bytes());
                    return (text, Rest::More);
                }
                text.extend_from_slice(&part.to_bytes());
            }
        }
    }
}

/// [`start_of`] for requests that do not pass through opendal; says, too, whether that was all.
pub(super) async fn read_answer(answer: &mut reqwest::Response) -> reqwest::Result<(Vec<u8>, bool)> {
    let mut text = Vec::new();
    while let Some(part) = answer.chunk().await? {
        let room = MAX_ANSWER - text.len();
        text.extend_from_slice(part.get(..room).unwrap_or(&part));
        if part.len() > room {
            return Ok((text, false));
        }
    }
    Ok((text, true))
}

/// Name of the outermost element of a document, without a prefix.
fn root_of(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text).trim_ascii_start();
    while let Some(prolog) = ["<?", "<!--"].into_iter().find_map(|open| behind(rest, open)) {
        rest = prolog?.trim_ascii_start();
    }
    let name = rest.strip_prefix(b"<")?;
    let end = name.iter().position(|b| b.is_ascii_whitespace() || matches!(b, b'>' | b'/'))?;
    name.get(..end)?.rsplit(|b| *b == b':').next()
}

/// What follows the markup that `text` begins with, if it begins with `open`: `Some(None)` where that does not end.
fn behind<'a>(text: &'a [u8], open: &str) -> Option<Option<&'a [u8]>> {
    let close: &[u8] = match open {
        "<?" => b"?>",
        "<!--" => b"-->",
        _ => b"]]>",
    };
    let inner = text.strip_prefix(open.as_bytes())?;
    Some(inner.windows(close.len()).position(|w| w == close).and_then(|at| inner.get(at + close.len()..)))
}

/// Are all values of a listing short? Comments and instructions are no part of a value and do not end it, either; sections are
/// a part of it. A declaration could make a long one of a short one, and no listing has one.
fn has_short_values(text: &[u8]) -> bool {
    let mut value = 0;
    let mut rest = text;
    while let Some(next) = rest.get(1..) {
        if !rest.starts_with(b"<") {
            value += 1;
            rest = next;
        } else if let Some(skipped) = behind(rest, "<!--").or_else(|| behind(rest, "<?")) {
            let Some(behind) = skipped else { return false };
            rest = behind;
        } else if let Some(section) = behind(rest, "<![CDATA[") {
            let Some(behind) = section else { return false };
            value += rest.len() - behind.len();
            rest = behind;
        } else if next.starts_with(b"!") {
            return false;
        } else {
            value = 0;
            rest = next;
        }
        if value > MAX_VALUE {
            return false;
        }
    }
    true
}

fn asked_range(headers: &HeaderMap) -> Option<Range<u64>> {
    let (first, last) = headers.get(RANGE)?.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    Some(first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?)
}

/// Told in the place of the length of an object that the store does not tell. No object is so long.
pub(super) const UNKNOWN_LENGTH: u64 = u64::MAX;

/// The body of an object, or the part of it that was asked for. Without a length of the whole object in the headers, they say
/// [`UNKNOWN_LENGTH`] afterwards.
fn part_of(parts: &mut response::Parts, body: HttpBody, range: Option<Range<u64>>) -> Result<HttpBody> {
    let is_part = parts.status == StatusCode::PARTIAL_CONTENT;
    // The end of chunks is seen. Without them and without a length a connection that breaks looks like the end of the body.
    let encoding = parts.headers.get_all(TRANSFER_ENCODING).iter().next_back().and_then(|v| v.to_str().ok());
    let is_chunked =
        encoding.and_then(|e| e.rsplit(',').next()).is_some_and(|e| e.trim().eq_ignore_ascii_case("chunked"));
    let Some(range) = range else {
        if is_part {
            return Err(unexpected("a part was sent instead of the whole object"));
        }
        if is_chunked {
            parts.headers.insert(CONTENT_LENGTH, UNKNOWN_LENGTH.into());
        }
        return Ok(body);
    };
    let told = if is_part { parse_content_range(&parts.headers)? } else { None };
    if let Some(told) = &told {
        let sent = told.range_inclusive();
        if sent.as_ref().is_none_or(|sent| *sent.start() != range.start || *sent.end() >= range.end) {
            return Err(unexpected(format!("bytes {range:?} were asked for, and {sent:?} were sent")));
        }
    }
    // The length of a part is not that of the object.
    let is_unknown = if is_part { told.is_none_or(|told| told.size().is_none()) } else { is_chunked };
    if is_unknown {
        parts.headers.insert(CONTENT_LENGTH, UNKNOWN_LENGTH.into());
    }
    let mut inner: Option<Inner> = None;
    let _ = body.map_inner(|body| {
        inner = Some(body);
        Box::new(stream::empty())
    });
    let asked = range.end.saturating_sub(range.start);
    // A server that does not know ranges sends everything.
    let skip = if is_part { 0 } else { range.start };
    let window = inner.map(|inner| Window { inner, skip, left: asked, asked, is_part });
    Ok(HttpBody::new(stream::iter(window).flatten(), None))
}

type Inner = Box<dyn Stream<Item = Result<Buffer>> + Send + Sync + Unpin>;

/// A part of a body. The rest of the whole is not read; more than a part that was asked for is an error.
struct Window {
    inner: Inner,
    skip: u64,
    left: u64,
    asked: u64,
    is_part: bool,
}

impl Stream for Window {
    type Item = Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.left == 0 && !self.is_part {
                return Poll::Ready(None);
            }
            let mut data = match ready!(self.inner.poll_next_unpin(cx)) {
                Some(Ok(data)) => data,
                other => return Poll::Ready(other),
            };
            let skipped = self.skip.min(data.len() as u64);
            data.advance(skipped as usize);
            self.skip -= skipped;
            if data.is_empty() {
                continue;
            }
            if self.is_part && data.len() as u64 > self.left {
                return Poll::Ready(Some(Err(too_much(self.asked))));
            }
            data.truncate(self.left.min(data.len() as u64) as usize);
            self.left -= data.len() as u64;
            return Poll::Ready(Some(Ok(data)));
        }
    }
}

/// The error of an answer that does not end.
pub(super) fn too_much(asked: u64) -> Error {
    unexpected(format!("the store sent more than the {asked} bytes that were asked for"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn documents_have_a_root() {
        for (text, root) in [
            ("<Error><Code>x</Code></Error>", Some("Error")),
            ("\u{feff}<?xml version=\"1.0\"?>\n<?a b?> <Error xmlns='x'>", Some("Error")),
            ("<ListBucketResult/>", Some("ListBucketResult")),
            ("<!-- <a> --><?xml?><!----><s3:ListBucketResult xmlns:s3='x'>", Some("ListBucketResult")),
            ("<!-- never ends -> <a>", None),
            ("<!DOCTYPE html><html>", Some("!DOCTYPE")),
            ("<?xml never ends", None),
            ("<Error", None),
            ("Error", None),
            ("", None),
        ] {
            assert_eq!(root_of(text.as_bytes()), root.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn values_of_listings_are_short() {
        let long = "k".repeat(MAX_VALUE - 10);
        for (text, fits) in [
            (format!("<a><Key>{long}</Key><Key>{long}</Key></a>"), true),
            (format!("<a><Key>{long}{long}</Key></a>"), false),
            (format!("<a><Key>{long}<?x?>{long}</Key></a>"), false),
            (format!("<a><Key>{long}<!-- -->{long}</Key></a>"), false),
            (format!("<a><Key>{long}<![CDATA[{long}]]></Key></a>"), false),
            (format!("<a><!-- <!ENTITY {long}{long} <> --><Key>{long}</Key></a>"), true),
            (format!("<a><?x {long}{long} <> ?><Key>{long}</Key></a>"), true),
            ("<a><Key><![CDATA[k<!ENTITY>]]></Key></a>".to_owned(), true),
            ("<a><!ENTITY k \"k\"></a>".to_owned(), false),
            ("<a><!-- never ends".to_owned(), false),
            ("<a><![CDATA[ never ends".to_owned(), false),
        ] {
            assert_eq!(has_short_values(text.as_bytes()), fits, "{text}");
        }
    }

    #[test]
    fn ranges_are_read_from_requests() {
        let asked = |text: &str| asked_range(&HeaderMap::from_iter([(RANGE, text.parse().unwrap())]));
        assert_eq!(asked("bytes=5-9"), Some(5..10));
        assert_eq!(asked("bytes=5-"), None);
        assert_eq!(asked("bytes=0-18446744073709551615"), None);
        assert_eq!(asked_range(&HeaderMap::new()), None);
    }
}
