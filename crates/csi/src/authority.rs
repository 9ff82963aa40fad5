//! Lets in clients that call this machine by the path of a socket: kubelet does when it asks who has appeared among its plugins, and before
//! Kubernetes 1.26 whenever it calls a driver; so does what is made of gRPC's core in C. HTTP has no such hosts, and the server
//! refuses their requests. Which host is meant says nothing on a socket, so such a name becomes [`HOST`] before the server reads it.
//!
//! What comes is HTTP/2 (RFC 9113): a preface, and frames. The name is in a frame of headers (RFC 7541), at its first mention as a text.
//! What is put there is shorter than what was, so the server forgets earlier headers later than the client, and never sooner:
//! numbers of remembered headers mean the same to both.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;

const HOST: &[u8] = b"localhost";
/// Bytes before the first frame.
const PREFACE: usize = 24;
/// Bytes before what is in a frame.
const FRAME_HEAD: usize = 9;
/// Longest frame that the server takes by default.
const FRAME_MAX: usize = 16_384;
const HEADERS: u8 = 1;
/// Flags of such a frame.
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_LEN: usize = 5;
/// The number of `:authority` among the names that all know.
const AUTHORITY: usize = 1;
/// As a text, not packed: gRPC's core in C does not use the number.
const AUTHORITY_TEXT: &[u8] = b"\x0a:authority";
const CHUNK: usize = 8192;

/// A connection of such a client, or of any other one.
#[derive(Debug)]
pub struct Renamed {
    stream: UnixStream,
    filter: Filter,
}

impl Renamed {
    /// One that nothing was read of yet.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, filter: Filter { passing: PREFACE, ..Filter::default() } }
    }
}

impl Connected for Renamed {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Renamed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.filter.give(buf) {
                return Poll::Ready(Ok(()));
            }
            let mut chunk = [0; CHUNK];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                // What is incomplete stays so.
                self.filter.end();
                self.filter.give(buf);
                return Poll::Ready(Ok(()));
            }
            self.filter.take(chunk.filled());
        }
    }
}

impl AsyncWrite for Renamed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What has come and was not given on: at most a frame of headers, and what came with it.
#[derive(Debug, Default)]
struct Filter {
    come: Vec<u8>,
    /// Bytes from here on that nothing is looked for in.
    passing: usize,
    ready: Vec<u8>,
    given: usize,
}

impl Filter {
    /// Gives what is ready, if there is anything.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = self.ready.get(self.given..).unwrap_or_default();
        let n = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..n).unwrap_or_default());
        self.given += n;
        if self.given == self.ready.len() {
            self.ready.clear();
            self.given = 0;
        }
        n > 0
    }

    fn take(&mut self, bytes: &[u8]) {
        self.come.extend_from_slice(bytes);
        while !self.come.is_empty() {
            if self.passing > 0 {
                let n = self.passing.min(self.come.len());
                self.ready.extend(self.come.drain(..n));
                self.passing -= n;
                continue;
            }
            let &[a, b, c, kind, ..] = self.come.as_slice() else { return };
            let frame = FRAME_HEAD + u32::from_be_bytes([0, a, b, c]) as usize;
            if kind != HEADERS || frame > FRAME_HEAD + FRAME_MAX {
                self.passing = frame;
                continue;
            }
            if self.come.len() < frame {
                return;
            }
            let frame: Vec<u8> = self.come.drain(..frame).collect();
            self.ready.extend(renamed(frame));
        }
    }

    fn end(&mut self) {
        self.ready.append(&mut self.come);
    }
}

/// A frame of headers with a host that HTTP knows.
fn renamed(mut frame: Vec<u8>) -> Vec<u8> {
    let Some(text) = authority(&frame).filter(|text| is_path(frame.get(text.clone()).unwrap_or_default()))
    else {
        return frame;
    };
    let new: Vec<u8> = [HOST.len() as u8].into_iter().chain(HOST.iter().copied()).collect();
    let len = frame.len() - FRAME_HEAD - text.len() + new.len();
    drop(frame.splice(text, new));
    drop(frame.splice(..3, (len as u32).to_be_bytes().into_iter().skip(1)));
    frame
}

/// Is a text the path of a socket, as it is or with its slashes as `%2F`, and long enough? Of a packed one the beginning has to do.
fn is_path(text: &[u8]) -> bool {
    let mut block = Block { bytes: text, at: 0 };
    let Some((is_packed, len)) = block.text_len() else { return false };
    let text = text.get(block.at..).unwrap_or_default();
    let is_path = match is_packed {
        false => text.iter().any(|c| matches!(c, b'/' | b'%')),
        // The codes of the two have six bits.
        true => text.first().is_some_and(|first| matches!(first >> 2, 0b01_1000 | 0b01_0101)),
    };
    is_path && len >= HOST.len()
}

/// Where the text of `:authority` is, with its length before it.
fn authority(frame: &[u8]) -> Option<Range<usize>> {
    let flags = *frame.get(4)?;
    let mut at = FRAME_HEAD;
    let mut end = frame.len();
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*frame.get(at)?))?;
        at += 1;
    }
    if flags & PRIORITY != 0 {
        at += PRIORITY_LEN;
    }
    let mut block = Block { bytes: frame.get(..end)?, at };
    while let Some(&first) = block.bytes.get(block.at) {
        let bits = match first {
            // A header that both remember.
            0x80.. => {
                block.number(7)?;
                continue;
            }
            0x40.. => 6,
            // How much is to be remembered.
            0x20.. => {
                block.number(5)?;
                continue;
            }
            _ => 4,
        };
        let is_authority = match block.number(bits)? {
            0 => {
                let start = block.at;
                block.skip_text()?;
                block.bytes.get(start..block.at)? == AUTHORITY_TEXT
            }
            number => number == AUTHORITY,
        };
        let start = block.at;
        block.skip_text()?;
        if is_authority {
            return Some(start..block.at);
        }
    }
    None
}

/// Headers as they are sent.
struct Block<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Block<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// A number in the last bits of a byte, and in more of them if it is large.
    fn number(&mut self, bits: u32) -> Option<usize> {
        let most = (1 << bits) - 1;
        let mut number = usize::from(self.next()?) & most;
        if number < most {
            return Some(number);
        }
        for shift in [0, 7, 14] {
            let byte = self.next()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        // Longer than a frame.
        None
    }

    /// The length of a text, and whether it is packed.
    fn text_len(&mut self) -> Option<(bool, usize)> {
        let is_packed = self.bytes.get(self.at)? & 0x80 != 0;
        Some((is_packed, self.number(7)?))
    }

    fn skip_text(&mut self) -> Option<()> {
        let (_, len) = self.text_len()?;
        self.at += len;
        (self.at <= self.bytes.len()).then_some(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Requests of GetInfo, packed and remembered (by python-hpack): with a path as the host, with its slashes as `%2F`, with localhost.
    const PATH: &str = "8386449c62ba2d98d558598c84d83498f52fb4b31909b06931ea63115392a94f41a963b8ec628346c75b632d054b15d16cc6a91158598c84d9e98220cb90d216c950b98eb58599741c9d7f5f8b1d75d0620d263d4c4d65647a8a9acac8b4c7602bba25c34082497f864d833505b11f";
    const ESCAPED: &str = "8386449c62ba2d98d558598c84d83498f52fb4b31909b06931ea63115392a94f419854587b8ec545868346a8b0f5b632d054aa2c361665d072755f8b1d75d0620d263d4c4d65647a8a9acac8b4c7602bba25c34082497f864d833505b11f";
    const LOCALHOST: &str = "8386449c62ba2d98d558598c84d83498f52fb4b31909b06931ea63115392a94f4186a0e41d139d095f8b1d75d0620d263d4c4d65647a8a9acac8b4c7602bba25c34082497f864d833505b11f";
    /// One more on the same connection.
    const AGAIN: &str = "8386c2c1c0bfbe";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().map(|c| (c as char).to_digit(16).unwrap() as u8).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
    }

    fn frame(kind: u8, flags: u8, stream: u8, content: &[u8]) -> Vec<u8> {
        let len = content.len() as u32;
        [&len.to_be_bytes()[1..], &[kind, flags, 0, 0, 0, stream], content].concat()
    }

    /// The request in plain text, which nobody packs.
    fn plain(host: &str) -> Vec<u8> {
        let path = b"/pluginregistration.Registration/GetInfo";
        let host = [&[0x41, host.len() as u8][..], host.as_bytes()].concat();
        let rest = bytes(&LOCALHOST[LOCALHOST.find("5f8b").unwrap()..]);
        [&[0x83, 0x86, 0x44, path.len() as u8][..], path, &host, &rest].concat()
    }

    /// The same by gRPC's core in C: names as texts, and no slash at the beginning.
    fn in_texts(host: &str) -> Vec<u8> {
        let text = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
        let header = |name: &str, value: &str| [&[0x40][..], &text(name), &text(value)].concat();
        let path = header(":path", "/pluginregistration.Registration/GetInfo");
        let kind = header("content-type", "application/grpc");
        [path, header(":authority", host), vec![0x83, 0x86], kind, header("te", "trailers")].concat()
    }

    /// What a client sends for calls one after the other.
    fn calls(blocks: &[Vec<u8>]) -> Vec<u8> {
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        sent.extend(frame(4, 0, 0, &[]));
        for (block, stream) in blocks.iter().zip([1, 3, 5]) {
            sent.extend(frame(HEADERS, 4, stream, block));
            sent.extend(frame(0, 1, stream, &[0; 5]));
        }
        sent
    }

    #[tokio::test]
    async fn kubelet_is_heard_whatever_it_calls_us() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_owned();
        let served = tokio::spawn(async move {
            crate::registration::serve(&at, "d", "/csi.sock", std::future::pending()).await
        });
        let socket = crate::registration::socket(dir.path(), "d");
        while !socket.exists() {
            tokio::task::yield_now().await;
        }
        let path = plain("/var/lib/kubelet/plugins_registry/csi.ciderfs.io-reg.sock");
        let mut all = [bytes(PATH), bytes(ESCAPED), bytes(LOCALHOST), path, plain("%2Fcsi%2Fcsi.sock")]
            .map(|first| [first, bytes(AGAIN), bytes(AGAIN)])
            .to_vec();
        // By their places among what is remembered, of which the last one has 62.
        let again = vec![0xc1, 0xc0, 0x83, 0x86, 0xbf, 0xbe];
        all.push([in_texts("csi%2Fcsi.sock"), in_texts("csi%2Fcsi.sock"), again]);
        for blocks in all {
            let mut client = UnixStream::connect(&socket).await.unwrap();
            client.write_all(&calls(&blocks)).await.unwrap();
            let mut answers = Vec::new();
            while answers.windows(9).filter(|w| *w == b"CSIPlugin").count() < 3 {
                let n = client.read_buf(&mut answers).await.unwrap();
                assert!(n > 0, "the server hung up: {answers:?}");
                // RST_STREAM of one of them.
                assert!(!answers.windows(9).any(|w| w[..5] == [0, 0, 4, 3, 0]), "refused: {answers:?}");
            }
        }
        served.abort();
    }

    #[test]
    fn all_else_passes_as_it_is() {
        let filtered = |sent: &[u8], chunk: usize| {
            let mut filter = Filter { passing: PREFACE, ..Filter::default() };
            let mut got = Vec::new();
            let mut give = |filter: &mut Filter| {
                let mut buf = [0; 7];
                let mut buf = ReadBuf::new(&mut buf);
                while filter.give(&mut buf) {
                    got.extend_from_slice(buf.filled());
                    buf.clear();
                }
            };
            for part in sent.chunks(chunk) {
                filter.take(part);
                give(&mut filter);
            }
            filter.end();
            give(&mut filter);
            got
        };
        let long = frame(HEADERS, 4, 1, &[b'/'; FRAME_MAX + 1]);
        let odd =
            [vec![], vec![0x41], vec![0x41, 0xff, 0xff, 0xff, 0xff], vec![0x41, 0x7f, 0x80], vec![0xff; 40]];
        let mut all: Vec<Vec<u8>> = odd.iter().map(|block| calls(std::slice::from_ref(block))).collect();
        all.extend([calls(&[plain("example.org")]), calls(&[plain("/short")]), calls(&[bytes(LOCALHOST)])]);
        all.extend([[calls(&[]), long].concat(), b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![1; 100]]);
        // Padding that is longer than the frame; a frame that ends within a text.
        all.extend([
            [calls(&[]), frame(HEADERS, PADDED, 1, &[200, 0x41, 9])].concat(),
            calls(&[plain("/a/long/path")])[..100].to_vec(),
        ]);
        for sent in all {
            for chunk in [1, 10, 100_000] {
                assert_eq!(filtered(&sent, chunk), sent);
            }
        }
        // The same whatever comes at once; padding and priority are found.
        let block = plain("/run/csi/csi.sock");
        let want = calls(&[plain("localhost")]);
        assert!(
            [1, 10, 100_000]
                .iter()
                .all(|chunk| filtered(&calls(std::slice::from_ref(&block)), *chunk) == want)
        );
        let padded = |block: &[u8]| {
            frame(HEADERS, PADDED | PRIORITY, 1, &[&[3, 0, 0, 0, 0, 9][..], block, &[0; 3]].concat())
        };
        let sent = [calls(&[]), padded(&block)].concat();
        assert_eq!(filtered(&sent, 50), [calls(&[]), padded(&plain("localhost"))].concat());
    }
}
