//! Behaviours, and what is to become of the requests that meet them.

use std::sync::Arc;
use std::time::Duration;

use ciderfs_testkit::hostile::{Request, Script, Step};

use super::Ask;
use super::http::{answer, body, chunk, chunked, cut, document, endless, entry, head, page, send, whole};

/// What becomes of a request.
#[derive(Clone)]
pub(crate) enum Expect {
    /// It is done; the body, or the answer in words.
    Done(Vec<u8>),
    /// One of these kinds of errors, with this in its text.
    Fails(&'static [&'static str], &'static str),
}

/// A behaviour and a request.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) ask: Ask,
    pub(crate) script: Script,
    pub(crate) expect: Expect,
    /// Is it what a store says that has stored an object?
    pub(crate) confirms: bool,
    /// Requests that an error takes that does not pass; 0 where it does not matter.
    pub(crate) requests: usize,
}

impl Case {
    /// It says yes to a PUT.
    fn confirming(self) -> Self {
        Self { confirms: true, ..self }
    }

    /// It takes many requests.
    fn often(self) -> Self {
        Self { requests: 0, ..self }
    }
}

fn case(
    name: &str,
    ask: Ask,
    expect: Expect,
    script: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static,
) -> Case {
    Case { name: name.to_owned(), ask, script: Arc::new(script), expect, confirms: false, requests: 1 }
}

use Expect::{Done, Fails};

const CHUNKED: &str = "transfer-encoding: chunked";
/// A body that nobody wants to have.
const TERABYTE: &str = "content-length: 1099511627776";
/// A page that is not the last.
const MORE: &str = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>";
/// Broken connections.
const BROKEN: &[&str] = &["Server", "Unreachable"];
/// CRC-32C of the object, as a store keeps it.
fn crc() -> String {
    format!("x-amz-meta-crc32c: {}", crc32c::crc32c(&body()))
}

/// What any request may meet.
fn anything(ask: Ask) -> Vec<Case> {
    vec![
        case("404 with an endless document", ask, Fails(&["NotFound", "NoBucket"], ""), |_| {
            endless(head("404 Not Found", &[CHUNKED]), chunk("<x>"))
        }),
        case("403 with a body of 1 TiB", ask, Fails(&["AccessDenied"], ""), |_| {
            endless(head("403 Forbidden", &[TERABYTE]), "x ".repeat(1 << 19).into_bytes())
        }),
        case("403 with control characters", ask, Fails(&["AccessDenied"], "[31mred"), |_| {
            let text = document("AccessDenied", "\u{1b}[31mred\r\nroot: all is well\u{202e}");
            send(answer("403 Forbidden", &[], text.as_bytes()))
        }),
        case("403 with a message of 15 KB", ask, Fails(&["AccessDenied"], "..."), |_| {
            let text = document("AccessDenied", &"long ".repeat(3000));
            send(answer("403 Forbidden", &[], text.as_bytes()))
        }),
        case("403 with entities of entities", ask, Fails(&["AccessDenied"], ""), |_| {
            let bomb: String = (1..30)
                .map(|n| format!("<!ENTITY e{n} \"{}\">", format!("&e{};", n - 1).repeat(10)))
                .collect();
            let text =
                format!("<!DOCTYPE Error [<!ENTITY e0 \"lol\">{bomb}]><Error><Code>&e29;</Code></Error>");
            send(answer("403 Forbidden", &[], text.as_bytes()))
        }),
        case("500 for ever", ask, Fails(&["Server"], ""), |_| send(answer("500 Oh", &[], b""))),
        case("503 SlowDown for ever", ask, Fails(&["Throttled", "Server"], ""), |_| {
            send(answer("503 Slow Down", &[], document("SlowDown", "please").as_bytes()))
        }),
        case("412", ask, Fails(&["Other"], ""), |_| send(answer("412 Precondition Failed", &[], b""))),
        case("a status nobody knows", ask, Fails(&["Other"], ""), |_| send(answer("299 Well", &[], b""))),
        case("100 Continue for ever", ask, Fails(&["Timeout", "Server"], ""), |_| {
            endless(Vec::new(), head("100 Continue", &[]).repeat(1000))
        }),
        case("headers without end", ask, Fails(BROKEN, ""), |_| {
            endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: y\r\n".repeat(10_000))
        }),
        case("a header of 100 KB", ask, Fails(&["Other"], "bytes of headers"), |_| {
            send(answer("200 OK", &[&format!("etag: \"{}\"", "e".repeat(100_000))], b""))
        }),
        case("user metadata of 100 KB", ask, Fails(&["Other"], "bytes of headers"), |_| {
            let name = format!("x-amz-meta-{}: x", "n".repeat(60_000));
            send(answer("200 OK", &[&name, &format!("x-amz-meta-v: {}", "v".repeat(40_000))], b""))
        }),
        case("a header without end", ask, Fails(BROKEN, ""), |_| {
            endless(b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'y'; 1 << 20])
        }),
        case("the status byte by byte", ask, Fails(&["Timeout"], ""), |_| {
            vec![Step::Drip(whole(&body()), Duration::from_millis(500))]
        }),
        case("garbage", ask, Fails(BROKEN, ""), |_| endless(Vec::new(), b"\x00\xffgarbage \n".repeat(1000))),
        case("an alert of TLS", ask, Fails(BROKEN, ""), |_| cut(b"\x15\x03\x03\x00\x02\x02\x28".to_vec())),
        case("HTTP/2", ask, Fails(BROKEN, ""), |_| cut(b"\0\0\0\x04\0\0\0\0\0".to_vec())),
        case("no answer", ask, Fails(&["Timeout"], ""), |_| vec![Step::Hang]),
        case("a reset at once", ask, Fails(BROKEN, ""), |_| vec![Step::Reset]),
        case("an end at once", ask, Fails(BROKEN, ""), |_| vec![Step::Close]),
        case("an end within the headers", ask, Fails(BROKEN, ""), |_| {
            cut(b"HTTP/1.1 200 OK\r\nconte".to_vec())
        }),
        case("a length that is no number", ask, Fails(&["Server", "Unreachable", "Other"], ""), |_| {
            send(head("200 OK", &["content-length: -5"]))
        }),
        case("a length beyond numbers", ask, Fails(&["Server", "Unreachable", "Other"], ""), |_| {
            send(head("200 OK", &["content-length: 99999999999999999999999"]))
        }),
        case("two lengths", ask, Fails(&["Server", "Unreachable", "Other"], ""), |_| {
            send(head("200 OK", &["content-length: 5", "content-length: 6"]))
        }),
    ]
}

/// GETs of whole objects of 5000 bytes, where 8 KiB are asked for.
pub(crate) fn gets() -> Vec<Case> {
    let ask = Ask::Get;
    let mut all = anything(ask);
    all.extend([
        case("an object", ask, Done(body()), |_| send(answer("200 OK", &[&crc()], &body()))).confirming(),
        case("SlowDown, then an object", ask, Done(body()), |r| {
            let slow = document("SlowDown", "please");
            send(if r.number == 0 { answer("503 Slow Down", &[], slow.as_bytes()) } else { whole(&body()) })
        })
        .confirming(),
        case("a reset, then an object", ask, Done(body()), |r| {
            if r.number == 0 { vec![Step::Reset] } else { send(whole(&body())) }
        })
        .confirming(),
        case("an object of 1 TiB", ask, Fails(&["Other"], "more than the 8192 bytes"), |_| {
            endless(head("200 OK", &[TERABYTE]), vec![1; 1 << 20])
        }),
        case("one byte more", ask, Fails(&["Other"], "more than the 8192 bytes"), |_| {
            send(whole(&[1; 8193]))
        })
        .confirming(),
        // As some gateways do.
        case("a body in chunks", ask, Done(body()), |_| send(chunked("200 OK", &[&crc()], &body())))
            .confirming(),
        case("nothing in chunks", ask, Done(Vec::new()), |_| send(chunked("200 OK", &[], b""))).confirming(),
        case("a wrong byte in chunks", ask, Fails(&["Corrupt"], "CRC-32C"), |_| {
            send(chunked("200 OK", &[&crc()], &[&body()[..4999], &[1]].concat()))
        })
        .confirming(),
        case("one byte more in chunks", ask, Fails(&["Other"], "more than the 8192 bytes"), |_| {
            send(chunked("200 OK", &[], &[1; 8193]))
        })
        .confirming(),
        case("chunks that break off", ask, Fails(&["Server"], "broke"), |_| {
            let all = chunked("200 OK", &[], &body());
            cut(all[..all.len() - 5].to_vec())
        }),
        case("a part in chunks instead of the whole", ask, Fails(&["Other"], "instead of the whole"), |_| {
            send(chunked("206 Partial Content", &[], &body()))
        }),
        case("a body without a length", ask, Fails(&["Other"], "length"), |_| {
            cut([head("200 OK", &["connection: close"]), body()].concat())
        })
        .confirming(),
        case(
            "a body of unknown length without end",
            ask,
            Fails(&["Other"], "more than the 8192 bytes"),
            |_| endless(head("200 OK", &[CHUNKED]), chunk("x")),
        ),
        case("a body without end and with a length", ask, Fails(&["Other", "Server"], ""), |_| {
            endless(head("200 OK", &["content-length: 5000", CHUNKED]), chunk("x"))
        }),
        case("the body byte by byte", ask, Fails(&["Timeout"], ""), |_| {
            let begin = head("200 OK", &["content-length: 5000"]);
            vec![Step::Send(begin), Step::Drip(body(), Duration::from_millis(500))]
        }),
        case("an end within the body", ask, Fails(&["Server"], "broke"), |_| {
            cut(whole(&body()).into_iter().take(1000).collect())
        }),
        case("a reset within the body", ask, Fails(&["Server"], "broke"), |_| {
            vec![Step::Send(whole(&body()).into_iter().take(1000).collect()), Step::Reset]
        }),
        case("a length that is too great", ask, Fails(&["Server"], "broke"), |_| {
            cut([head("200 OK", &["content-length: 6000"]), body()].concat())
        }),
        case("a length that is too small", ask, Fails(&["Corrupt"], "CRC-32C"), |_| {
            send([head("200 OK", &["content-length: 4000", &crc()]), body()].concat())
        })
        .confirming(),
        case("a wrong byte", ask, Fails(&["Corrupt"], "CRC-32C"), |_| {
            let mut wrong = body();
            wrong[4000] ^= 1;
            send(answer("200 OK", &[&crc()], &wrong))
        })
        .confirming(),
        case("packed with gzip", ask, Fails(&["Corrupt"], "CRC-32C"), |_| {
            let packed = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b\x04\0\x43\xbe\xb7\xe8\x01\0\0\0";
            send(answer("200 OK", &["content-encoding: gzip", &crc()], packed))
        })
        .confirming(),
        // An ETag is the MD5 of the body only where the bucket is not encrypted.
        case("a wrong ETag", ask, Done(body()), |_| {
            send(answer("200 OK", &["etag: \"0123456789abcdef0123456789abcdef\""], &body()))
        })
        .confirming(),
        case("a part instead of the whole", ask, Fails(&["Other"], "instead of the whole"), |_| {
            send(answer("206 Partial Content", &["content-range: bytes 0-999/5000"], &[1; 1000]))
        }),
        case("204", ask, Fails(&["Other"], ""), |_| send(head("204 No Content", &[]))),
        case("416", ask, Fails(&["Other"], ""), |_| {
            send(answer("416 Range Not Satisfiable", &[], document("InvalidRange", "no").as_bytes()))
        }),
    ]);
    all
}

/// GETs of bytes 1000 to 2000.
pub(crate) fn parts() -> Vec<Case> {
    let ask = Ask::Part;
    let part = || body()[1000..2000].to_vec();
    let range = "content-range: bytes 1000-1999/5000";
    let mut all = anything(ask);
    all.extend([
        case("a part", ask, Done(part()), move |_| send(answer("206 Partial Content", &[range], &part()))),
        case("the whole instead of a part", ask, Done(part()), |_| send(whole(&body()))).confirming(),
        case("1 TiB instead of a part", ask, Done(part()), |_| {
            endless([head("200 OK", &[TERABYTE]), body()].concat(), vec![1; 1 << 20])
        }),
        case("another part", ask, Fails(&["Other"], "1000..2000 were asked for"), move |_| {
            send(answer("206 Partial Content", &["content-range: bytes 0-999/5000"], &part()))
        }),
        case("a longer part", ask, Fails(&["Other"], "1000..2000 were asked for"), |_| {
            send(answer("206 Partial Content", &["content-range: bytes 1000-2999/5000"], &body()[1000..3000]))
        }),
        case("a range that is none", ask, Fails(&["Other"], ""), move |_| {
            send(answer("206 Partial Content", &["content-range: bytes x-y/z"], &part()))
        }),
        case("a part with more behind it", ask, Fails(&["Other"], "more than the 1000 bytes"), move |_| {
            send(answer("206 Partial Content", &[range], &body()))
        }),
        case("a part without end", ask, Fails(&["Other"], "more than the 1000 bytes"), move |_| {
            endless(head("206 Partial Content", &[range, TERABYTE]), vec![1; 1 << 20])
        }),
        case("several parts", ask, Fails(&["Other"], "more than the"), |_| {
            let text =
                "--b\r\nContent-Range: bytes 1000-1999/5000\r\n\r\n".to_owned() + &"x".repeat(1000) + "--b--";
            let kind = "content-type: multipart/byteranges; boundary=b";
            send(answer("206 Partial Content", &[kind], text.as_bytes()))
        }),
        // Without the length of the whole: what came is the part, or it is not, and nothing says that the object ends there.
        case("a part of nobody knows what", ask, Done(part()), move |_| {
            send(answer("206 Partial Content", &["content-range: bytes 1000-1999/*"], &part()))
        }),
        case("a part of nobody knows what in chunks", ask, Done(part()), move |_| {
            send(chunked("206 Partial Content", &["content-range: bytes 1000-1999/*"], &part()))
        }),
        case("a short part of nobody knows what", ask, Fails(&["Other"], "too little"), move |_| {
            send(answer("206 Partial Content", &["content-range: bytes 1000-1499/*"], &part()[..500]))
        }),
        case("a part without a range", ask, Fails(&["Other"], "too little"), move |_| {
            send(answer("206 Partial Content", &[], &part()[..500]))
        }),
        case("a range beyond numbers", ask, Fails(&["Other"], "1000..2000 were asked for"), move |_| {
            let range = "content-range: bytes 1000-18446744073709551615/*";
            send(answer("206 Partial Content", &[range], &part()))
        }),
        case("the whole in chunks instead of a part", ask, Done(part()), |_| {
            send(chunked("200 OK", &[], &body()))
        })
        .confirming(),
        case("a short whole in chunks instead of a part", ask, Fails(&["Other"], "too little"), |_| {
            send(chunked("200 OK", &[], &body()[..1500]))
        })
        .confirming(),
        case("a part that is cut short", ask, Fails(&["Server"], ""), move |_| {
            cut([head("206 Partial Content", &[range, "content-length: 1000"]), part()[..500].to_vec()]
                .concat())
        }),
        case("a part that is too short", ask, Fails(&["Other", "Server"], "too little"), move |_| {
            send(answer("206 Partial Content", &[range], &part()[..500]))
        }),
        case("416 for a part", ask, Done(Vec::new()), |_| {
            send(answer("416 Range Not Satisfiable", &[], document("InvalidRange", "no").as_bytes()))
        }),
    ]);
    all
}

/// PUTs.
pub(crate) fn puts() -> Vec<Case> {
    let ask = Ask::Put;
    let mut all = anything(ask);
    all.extend([
        case("yes", ask, Done(Vec::new()), |_| send(whole(b""))).confirming(),
        case("yes with a wrong ETag", ask, Done(Vec::new()), |_| {
            send(answer("200 OK", &["etag: \"0\""], b""))
        })
        .confirming(),
        case("SlowDown, then yes", ask, Done(Vec::new()), |r| {
            let slow = document("SlowDown", "please");
            send(if r.number == 0 { answer("503 Slow Down", &[], slow.as_bytes()) } else { whole(b"") })
        })
        .confirming(),
        case("yes with an error document", ask, Fails(&["Server"], "InternalError"), |_| {
            send(whole(document("InternalError", "not stored").as_bytes()))
        }),
        case("yes with an unknown error", ask, Fails(&["Server"], "Odd"), |_| {
            send(whole(document("Odd", "not stored").as_bytes()))
        }),
        case("yes with an error document late", ask, Fails(&["AccessDenied"], "AccessDenied"), |_| {
            // White space keeps the connection alive while the store works.
            let text = " \n".repeat(1000) + &document("AccessDenied", "no");
            send(whole(text.as_bytes()))
        }),
        case("yes with a body of 1 TiB", ask, Fails(&["Other"], "more than 65536"), |_| {
            endless(head("200 OK", &[TERABYTE]), vec![b' '; 1 << 20])
        }),
        case("yes with a body that is cut", ask, Fails(&["Server"], ""), |_| {
            cut([head("200 OK", &["content-length: 100"]), b"<E".to_vec()].concat())
        }),
        case("accepted for later", ask, Fails(&["Other"], ""), |_| send(answer("202 Accepted", &[], b""))),
        case("no content", ask, Fails(&["Other"], ""), |_| send(head("204 No Content", &[]))),
        case("not modified", ask, Fails(&["Other"], ""), |_| send(head("304 Not Modified", &[]))),
        case("too large", ask, Fails(&["Other"], "--block-size"), |_| {
            send(answer("413 Too Large", &[], document("EntityTooLarge", "no").as_bytes()))
        }),
        case("full", ask, Fails(&["NoSpace"], ""), |_| send(answer("507 Insufficient Storage", &[], b""))),
        case("only 100 Continue", ask, Fails(BROKEN, ""), |_| cut(head("100 Continue", &[]))),
        case("another protocol", ask, Fails(&["Server", "Other"], ""), |_| {
            cut(head("101 Switching Protocols", &["upgrade: websocket", "connection: upgrade"]))
        }),
    ]);
    all
}

/// DELETEs, HEADs, and buckets that are made.
pub(crate) fn others() -> Vec<Case> {
    let mut all: Vec<Case> = anything(Ask::Delete)
        .into_iter()
        .map(|c| if c.name.starts_with("404") { Case { expect: Done(Vec::new()), ..c } } else { c })
        .collect();
    // A HEAD has no body that could say anything.
    all.extend(
        anything(Ask::Head).into_iter().filter(|c| !c.name.starts_with("403") && c.name != "two lengths"),
    );
    // Whoever makes a bucket looks at the status alone.
    let to_create = |c: &Case| {
        !["a status nobody knows", "a header of 100 KB", "user metadata of 100 KB"].contains(&c.name.as_str())
    };
    all.extend(anything(Ask::Create).into_iter().filter(to_create));
    all.extend([
        case("404 for a removal", Ask::Delete, Done(Vec::new()), |_| {
            send(answer("404 Not Found", &[], document("NoSuchKey", "gone").as_bytes()))
        }),
        case("200 for a removal", Ask::Delete, Done(Vec::new()), |_| send(whole(b""))).confirming(),
        case(
            "200 with an error for a removal",
            Ask::Delete,
            Fails(&["AccessDenied"], "s3:DeleteObject"),
            |_| send(whole(document("AccessDenied", "no").as_bytes())),
        ),
        case("a removal without an end", Ask::Delete, Fails(&["Other"], "more than 65536"), |_| {
            endless(head("200 OK", &[TERABYTE]), vec![b' '; 1 << 20])
        }),
        case("a look", Ask::Head, Done(b"5000".to_vec()), |_| {
            send(head("200 OK", &["content-length: 5000"]))
        }),
        case("a look without a length", Ask::Head, Fails(&["Other"], "length"), |_| cut(head("200 OK", &[])))
            .confirming(),
        case("a look with a body", Ask::Head, Done(b"5000".to_vec()), |_| send(whole(&body()))).confirming(),
        case("a bucket with an endless error", Ask::Create, Fails(&["Other", "AccessDenied"], ""), |_| {
            endless(head("400 Bad Request", &[CHUNKED]), chunk("<Code>x</Code>"))
        }),
    ]);
    all
}

/// LISTs of what is below `a/`.
pub(crate) fn lists() -> Vec<Case> {
    let ask = Ask::List;
    let whole_page = |inner: String| send(whole(page(&inner).as_bytes()));
    let listing = move |inner: String| whole_page("<IsTruncated>false</IsTruncated>".to_owned() + &inner);
    let mut all: Vec<Case> = anything(ask);
    all.extend([
        case("a listing", ask, Done(b"a/1 5\na/2 6\n".to_vec()), move |_| {
            listing(entry("a/1", "5") + &entry("a/2", "6"))
        })
        .confirming(),
        case("a page without end", ask, Fails(&["Other"], "more than 8388608"), |_| {
            let begin = b"<ListBucketResult>".to_vec();
            let first = [head("200 OK", &[CHUNKED]), b"12\r\n".to_vec(), begin, b"\r\n".to_vec()].concat();
            endless(first, chunk(&entry("a/1", "5")))
        }),
        case("pages without end and content", ask, Fails(&["Timeout"], ""), move |_| {
            whole_page(MORE.to_owned())
        })
        .confirming()
        .often(),
        case("the same page again and again", ask, Fails(&["Other"], "out of order"), move |_| {
            whole_page(entry("a/1", "5") + &entry("a/2", "6") + MORE)
        })
        .confirming()
        .often(),
        case("a key of 4 KB", ask, Fails(&["Other"], "out of order"), move |_| {
            listing(entry(&("a/".to_owned() + &"k".repeat(4 << 10)), "5"))
        })
        .confirming(),
        case("keys out of order", ask, Fails(&["Other"], "out of order"), move |_| {
            listing(entry("a/2", "5") + &entry("a/1", "6"))
        })
        .confirming(),
        case("keys outside of the prefix", ask, Fails(&["Other"], "out of order"), move |_| {
            listing(entry("b/1", "5"))
        })
        .confirming(),
        case("a key of 2 MB", ask, Fails(&["Other"], "no object has"), move |_| {
            listing(entry(&("a/".to_owned() + &"k".repeat(2 << 20)), "5"))
        }),
        // A key is a name to a store; only a directory would read it as a way, and refuses.
        case("a key with dots", ask, Done(b"a/../../etc/passwd 5\n".to_vec()), move |_| {
            listing(entry("a/../../etc/passwd", "5"))
        })
        .confirming(),
        case("a negative size", ask, Fails(&["Server"], ""), move |_| listing(entry("a/1", "-5")))
            .confirming(),
        case("a size beyond numbers", ask, Fails(&["Server"], ""), move |_| {
            listing(entry("a/1", "99999999999999999999999"))
        })
        .confirming(),
        case("a listing with all that XML may have", ask, Done(b"a/1&2 5\na/2<> 6\na/3 7\n".to_vec()), |_| {
            let text = "<!-- <x> -->\n<s3:ListBucketResult xmlns:s3='x'><!-- --><s3:IsTruncated>false</s3:IsTruncated>\
                <s3:Contents><s3:Key>a/1<!-- no -->&amp;2</s3:Key><s3:Size>5</s3:Size>\
                <s3:LastModified>2026-01-02T03:04:05.000Z</s3:LastModified></s3:Contents>\
                <s3:Contents><s3:Key><![CDATA[a/2<>]]></s3:Key><s3:Size><![CDATA[6]]></s3:Size>\
                <s3:LastModified>2026-01-02T03:04:05.000Z</s3:LastModified></s3:Contents><?x?>\
                <s3:Contents><s3:Key>a/<![CDATA[3]]></s3:Key><s3:Size>7<!-- --></s3:Size>\
                <s3:LastModified>2026-01-02T03:04:05.000Z</s3:LastModified></s3:Contents></s3:ListBucketResult>";
            send(whole(text.as_bytes()))
        })
        .confirming(),
        case("a section of 2 MB", ask, Fails(&["Other"], "no object has"), move |_| {
            listing(entry(&format!("a/<![CDATA[{}]]>", "k".repeat(2 << 20)), "5"))
        }),
        case("a comment without end", ask, Fails(&["Other"], "more than 8388608"), |_| {
            let first = [head("200 OK", &[CHUNKED]), b"16\r\n<ListBucketResult><!--\r\n".to_vec()].concat();
            endless(first, chunk("x"))
        }),
        case("entities of entities in a listing", ask, Fails(&["Other"], "no listing"), |_| {
            let bomb: String = (1..30)
                .map(|n| format!("<!ENTITY e{n} \"{}\">", format!("&e{};", n - 1).repeat(10)))
                .collect();
            let dtd = format!("<!DOCTYPE ListBucketResult [<!ENTITY e0 \"lol\">{bomb}]>");
            send(whole((dtd + &page(&entry("a/&e29;", "5"))).as_bytes()))
        })
        .confirming(),
        case("a listing that is cut", ask, Fails(&["Server"], ""), |_| {
            send(whole(b"<ListBucketResult><Contents><Key>a/1</Key>"))
        })
        .confirming(),
        case("an error instead of a listing", ask, Fails(&["AccessDenied"], "s3:ListBucket"), |_| {
            send(whole(document("AccessDenied", "no").as_bytes()))
        }),
        case("a web page instead of a listing", ask, Fails(&["Other"], "no listing"), |_| {
            send(whole(b"<!DOCTYPE html><html><body>Please log in</body></html>"))
        })
        .confirming(),
        case("nothing instead of a listing", ask, Fails(&["Other"], "no listing"), |_| send(whole(b"")))
            .confirming(),
    ]);
    all
}

/// Redirects of every kind, of every request, to every place.
pub(crate) fn redirects() -> Vec<Case> {
    let mut all = Vec::new();
    for status in
        ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        for place in [
            "",
            "location: /volume/a/object",
            "location: http://127.0.0.1:9/x",
            "location: file:///etc/passwd",
        ] {
            for ask in [Ask::Put, Ask::Get, Ask::Part, Ask::Delete, Ask::Head, Ask::List, Ask::Create] {
                let name = format!("{status}, {place:?}");
                let headers = Some(place).filter(|p| !p.is_empty());
                let script = move |_: &Request| send(answer(status, headers.as_slice(), b""));
                let expect = Fails(&["Config", "Other", "Server"], "");
                let requests = if ask == Ask::Put { 2 } else { 1 };
                all.push(Case { requests, ..case(&name, ask, expect, script) });
            }
        }
    }
    all
}
