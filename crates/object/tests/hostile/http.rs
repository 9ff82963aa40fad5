//! Answers, byte for byte.

use ciderfs_testkit::hostile::Step;

/// Content of the object.
pub(crate) fn body() -> Vec<u8> {
    (0..5000_u32).map(|i| (i % 251) as u8).collect()
}

/// Status line and headers.
pub(crate) fn head(status: &str, headers: &[&str]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\n");
    for header in headers {
        text += header;
        text += "\r\n";
    }
    (text + "\r\n").into_bytes()
}

/// A whole answer; its length is told.
pub(crate) fn answer(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let length = format!("content-length: {}", body.len());
    [head(status, &[headers, &[&length]].concat()), body.to_vec()].concat()
}

/// An answer with an object.
pub(crate) fn whole(body: &[u8]) -> Vec<u8> {
    answer("200 OK", &[], body)
}

/// The error document of a code.
pub(crate) fn document(code: &str, message: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>")
}

/// A page of a listing.
pub(crate) fn page(inner: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inner}</ListBucketResult>"
    )
}

/// An entry of it.
pub(crate) fn entry(key: &str, size: &str) -> String {
    format!(
        "<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>"
    )
}

/// A chunk of a body of unknown length, a mebibyte.
pub(crate) fn chunk(of: &str) -> Vec<u8> {
    let text = of.repeat((1 << 20) / of.len());
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// An answer whose length is not told: the body in chunks, and the end of it.
pub(crate) fn chunked(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut all = head(status, &[headers, &["transfer-encoding: chunked"]].concat());
    for piece in body.chunks(777) {
        all.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        all.extend(piece);
        all.extend(b"\r\n");
    }
    all.extend(b"0\r\n\r\n");
    all
}

/// One answer, then the next request.
pub(crate) fn send(bytes: Vec<u8>) -> Vec<Step> {
    vec![Step::Send(bytes)]
}

/// The beginning of an answer, then the same for ever.
pub(crate) fn endless(begin: Vec<u8>, more: Vec<u8>) -> Vec<Step> {
    vec![Step::Send(begin), Step::Forever(more)]
}

/// The beginning of an answer, then the end of the connection.
pub(crate) fn cut(begin: Vec<u8>) -> Vec<Step> {
    vec![Step::Send(begin), Step::Close]
}
