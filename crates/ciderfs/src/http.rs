//! The Prometheus endpoint: `GET /metrics`, nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ciderfs_vfs::Vfs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Longest request head.
const HEAD_MAX: usize = 8192;
/// A client that does not send its request in this time is dropped.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at a time.
const CONNECTIONS_MAX: usize = 32;

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
pub fn serve(listener: TcpListener, vfs: Arc<Vfs>) {
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let vfs = Arc::clone(&vfs);
            tokio::spawn(async move {
                let _place = place;
                let _ = tokio::time::timeout(PATIENCE, answer(stream, &vfs)).await;
            });
        }
    });
}

async fn answer(mut stream: TcpStream, vfs: &Vfs) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < HEAD_MAX {
        let n = stream.read(&mut part).await?;
        if n == 0 {
            return Ok(());
        }
        head.extend_from_slice(&part[..n]);
    }
    let text = String::from_utf8_lossy(&head);
    let path = text.split_whitespace().nth(1).unwrap_or_default();
    let (status, body) = if path.split('?').next() == Some("/metrics") {
        ("200 OK", vfs.metrics().prometheus_text())
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
