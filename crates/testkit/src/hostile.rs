//! A server that answers as no S3 service should: every byte is up to the test.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Bytes of a request's head that are kept.
const MAX_HEAD: usize = 64 << 10;

/// One thing that the server does with a connection.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends the same bytes until the client has gone.
    Forever(Vec<u8>),
    /// Sends one byte at a time.
    Drip(Vec<u8>, Duration),
    /// Does nothing until the client has gone.
    Hang,
    /// Ends the connection as usual. The end of the steps keeps it open for the next request.
    Close,
    /// Ends it with a reset.
    Reset,
}

/// A request, as far as scripts look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// How many came before it.
    pub number: usize,
    /// `GET`, ...
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// Bytes of the body that arrived.
    pub body: u64,
}

/// What the server does with a request.
pub type Script = Arc<dyn Fn(&Request) -> Vec<Step> + Send + Sync>;

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Request>>,
    sent: AtomicU64,
}

/// A server on 127.0.0.1 that plays a script. Stops when dropped; needs a runtime.
pub struct Hostile {
    address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Hostile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hostile").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hostile {
    /// Starts a server.
    pub async fn start(script: Script) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, script) = (Arc::clone(&shared), Arc::clone(&script));
                connections.spawn(async move {
                    // The client may go at any time.
                    let _ = serve(stream, &seen, &script).await;
                });
            }
        });
        Ok(Self { address, seen, task })
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes that the client's side took, buffers of the kernel included.
    pub fn sent(&self) -> u64 {
        self.seen.sent.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, seen: &Seen, script: &Script) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer, seen).await? {
        for step in script(&request) {
            match step {
                Step::Send(bytes) => send(&mut stream, &bytes, seen).await?,
                Step::Forever(bytes) => loop {
                    send(&mut stream, &bytes, seen).await?;
                },
                Step::Drip(bytes, pause) => {
                    for byte in bytes {
                        send(&mut stream, &[byte], seen).await?;
                        tokio::time::sleep(pause).await;
                    }
                }
                Step::Hang => while stream.read(&mut [0; 4096]).await? > 0 {},
                Step::Close => return stream.shutdown().await,
                // What is not sent yet is thrown away, and the client is told so.
                Step::Reset => return stream.set_zero_linger(),
            }
        }
    }
    Ok(())
}

async fn send(stream: &mut TcpStream, bytes: &[u8], seen: &Seen) -> io::Result<()> {
    stream.write_all(bytes).await?;
    seen.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    Ok(())
}

/// The next request, its body read; `None` at the end of the connection. `buffer` is what came behind the last one.
async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    seen: &Seen,
) -> io::Result<Option<Request>> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if buffer.len() > MAX_HEAD || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let rest = buffer.split_off(end);
    let head = String::from_utf8_lossy(buffer).into_owned();
    let header = |name: &str| {
        head.lines().skip(1).find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length: usize = header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    *buffer = rest;
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    buffer.drain(..length);
    let mut words = head.split(' ').map(str::to_owned);
    let mut requests = seen.requests.lock().unwrap_or_else(PoisonError::into_inner);
    let request = Request {
        number: requests.len(),
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        range: header("range"),
        body: length as u64,
    };
    requests.push(request.clone());
    Ok(Some(request))
}
