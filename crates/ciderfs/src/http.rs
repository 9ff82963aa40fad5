//! The Prometheus endpoint: `GET /metrics`, nothing else.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

/// Longest request head.
const HEAD_MAX: usize = 8192;
/// A client that does not send its request in this time is dropped.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at a time.
const CONNECTIONS_MAX: usize = 32;

/// Makes the text that is served. It may take its time.
pub type Text = Arc<dyn Fn() -> String + Send + Sync>;

/// Listens on `address`; if it is taken and was not asked for, on any free port. Also says where.
pub async fn listen(address: &str, explicit: bool) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = match TcpListener::bind(address).await {
        Err(_) if !explicit => TcpListener::bind("127.0.0.1:0").await?,
        other => other?,
    };
    let at = listener.local_addr()?;
    Ok((listener, at))
}

/// Answers whoever connects there.
pub fn serve(listener: TcpListener, text: Text) {
    answer_all(move |cx| listener.poll_accept(cx).map_ok(|(stream, _)| stream), text);
}

/// The same at a socket of this machine. What another process has left there is removed.
pub fn serve_at(path: &Path, text: Text) -> std::io::Result<()> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    answer_all(move |cx| listener.poll_accept(cx).map_ok(|(stream, _)| stream), text);
    Ok(())
}

fn answer_all<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    mut accept: impl FnMut(&mut Context<'_>) -> Poll<std::io::Result<S>> + Send + 'static,
    text: Text,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        loop {
            let Ok(stream) = poll_fn(&mut accept).await else { continue };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let text = Arc::clone(&text);
            tokio::spawn(async move {
                let _place = place;
                let _ = tokio::time::timeout(PATIENCE, answer(stream, text)).await;
            });
        }
    });
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: Text) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < HEAD_MAX {
        let n = stream.read(&mut part).await?;
        if n == 0 {
            return Ok(());
        }
        head.extend_from_slice(&part[..n]);
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split_whitespace().nth(1).unwrap_or_default();
    let (status, body) = if path.split('?').next() == Some("/metrics") {
        ("200 OK", tokio::task::spawn_blocking(move || text()).await?)
    } else {
        ("404 Not Found", "not found\n".to_owned())
    };
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
