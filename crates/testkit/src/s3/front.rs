//! The HTTP side: accepts, lets faults happen, logs, and hands the rest to the S3 service.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::service::S3Service;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::faults::{Control, Fate, Faults, Op, Request};
use super::policy::Scripted;
use super::profile::{Look, is_about_bucket, ovh_host};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// Paths below this control the server itself.
const CONTROL: &str = "/-/";
/// How long a port may stay taken by what was there before.
const BIND_PATIENCE: Duration = Duration::from_secs(5);

/// A listening server. Stops when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(service: S3Service, control: Arc<Control>, port: u16) -> io::Result<Self> {
        let listener = bind(port)?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("test-s3")
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("test-s3".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    result = accept(listener, service, control) => {
                        if let Err(e) = result {
                            tracing::error!("test S3 server: {e}");
                        }
                    }
                    _ = stopped => {}
                }
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
        })?;
        Ok(Self { port, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

fn bind(port: u16) -> io::Result<TcpListener> {
    let start = Instant::now();
    loop {
        match TcpListener::bind(("127.0.0.1", port)) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && start.elapsed() < BIND_PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

async fn accept(listener: TcpListener, service: S3Service, control: Arc<Control>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    // Dropped, and with it all connections, when the server stops.
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await?;
        // Without it small answers wait for the peer's delayed acknowledgement, 40 ms.
        socket.set_nodelay(true)?;
        let (service, control) = (service.clone(), Arc::clone(&control));
        connections.spawn(async move {
            let answer = service_fn(|req| answer(req, &service, &control));
            // Errors are those of clients, or faults that we made.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(socket), answer)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    req: hyper::Request<Incoming>,
    service: &S3Service,
    control: &Control,
) -> Result<Answer, BoxError> {
    let path = req.uri().path().to_owned();
    if let Some(command) = path.strip_prefix(CONTROL) {
        return Ok(command_answer(command, req.uri().query().unwrap_or_default(), control));
    }
    let header = |name: &str| req.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let query = req.uri().query().unwrap_or_default().to_owned();
    let path = match header("host").as_deref().and_then(ovh_host) {
        Some((_, Some(bucket))) => format!("/{bucket}{path}"),
        _ => path,
    };
    let op = match is_about_bucket(&query) {
        true => Op::Other,
        false => Op::of(req.method().as_str(), &path),
    };
    let strict = control.strict();
    let look = Look { op, method: req.method().as_str(), query: &query, headers: req.headers() };
    let refused = strict.as_ref().and_then(|strict| strict.refusal(&look));
    let mut seen = Request {
        op,
        path,
        range: header("range"),
        payload_hash: header("x-amz-content-sha256"),
        storage_class: header("x-amz-storage-class"),
        tagging: header("x-amz-tagging"),
        status: 0,
        received: header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0),
        sent: 0,
    };
    let (fate, latency) = control.fate(op);
    if latency > Duration::ZERO {
        tokio::time::sleep(latency).await;
    }
    let answer = match fate {
        Fate::Hang => {
            control.record(seen);
            // Keeps the request, so that its body stays unread and the connection open.
            let _req = req;
            return std::future::pending().await;
        }
        Fate::Fail(status) => {
            // Reads the body, or the client would see a broken connection instead of the answer.
            let _ = req.into_body().collect().await;
            refusal(status)
        }
        _ if !control.allows(op, req.uri().path(), req.uri().query().unwrap_or_default()) => {
            let _ = req.into_body().collect().await;
            refusal(403)
        }
        _ if let Some(name) = unsigned(req.headers()) => {
            let _ = req.into_body().collect().await;
            let message = format!("There were headers present in the request which were not signed: {name}");
            error(StatusCode::FORBIDDEN, "AccessDenied", &message)
        }
        _ if let Some(script) = control.prescribed(op) => {
            let _ = req.into_body().collect().await;
            prescribed(&script)
        }
        _ if let Some((status, code, message)) = refused => {
            let _ = req.into_body().collect().await;
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let text = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
            full(status, "application/xml", text)
        }
        _ if let Some((status, text)) = strict.as_ref().and_then(|s| s.about_bucket(&query)) => {
            full(status, "application/xml", text)
        }
        _ => {
            let req = req.map(s3s::Body::from);
            service.call(req).await?.map(|body| body.map_err(|e| e.to_string().into()).boxed_unsync())
        }
    };
    let mut answer = answer;
    if let Some(date) = strict.and_then(|s| s.date().parse().ok()) {
        answer.headers_mut().insert("date", date);
    }
    seen.status = answer.status().as_u16();
    seen.sent = answer.body().size_hint().exact().unwrap_or(0);
    if fate == Fate::LoseReply {
        seen.status = 0;
        control.record(seen);
        return Err("the reply is lost".into());
    }
    control.record(seen);
    match fate {
        Fate::Truncate => truncated(answer).await,
        Fate::Corrupt => corrupted(answer).await,
        _ => Ok(answer),
    }
}

fn full(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let body = Full::new(Bytes::from(text)).map_err(|e: Infallible| match e {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(kind));
    answer
}

fn refusal(status: u16) -> Answer {
    let code = match status {
        503 => "SlowDown",
        403 => "AccessDenied",
        _ => "InternalError",
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    error(status, code, "injected fault")
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    full(status, "application/xml", text)
}

/// A header of Amazon's that the signature leaves out: S3 refuses such requests.
fn unsigned(headers: &HeaderMap) -> Option<String> {
    let signature = headers.get("authorization")?.to_str().ok()?;
    let (_, signed) = signature.split_once("SignedHeaders=")?;
    let signed: Vec<&str> = signed.split([',', ' ']).next()?.split(';').collect();
    let mut names = headers.keys().map(|name| name.as_str());
    names.find(|name| name.starts_with("x-amz-") && !signed.contains(name)).map(str::to_owned)
}

fn prescribed(script: &Scripted) -> Answer {
    let status = StatusCode::from_u16(script.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = full(status, "application/xml", script.document());
    if let Some(region) = script.region {
        let region = hyper::header::HeaderValue::from_static(region);
        answer.headers_mut().insert("x-amz-bucket-region", region);
    }
    if let Some(location) = script.location.as_ref().and_then(|l| l.parse().ok()) {
        answer.headers_mut().insert("location", location);
    }
    answer
}

/// The answer with half of its body, then an end of the connection.
async fn truncated(answer: Answer) -> Result<Answer, BoxError> {
    let (parts, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    let half = body.slice(..body.len() / 2);
    let frames = stream::iter([Ok(Frame::data(half)), Err("the body breaks off".into())]);
    Ok(Response::from_parts(parts, StreamBody::new(frames).boxed_unsync()))
}

/// The answer with its middle byte inverted.
async fn corrupted(answer: Answer) -> Result<Answer, BoxError> {
    let (parts, body) = answer.into_parts();
    let mut body = body.collect().await?.to_bytes().to_vec();
    let middle = body.len() / 2;
    if let Some(byte) = body.get_mut(middle) {
        *byte = !*byte;
    }
    let body = Full::new(Bytes::from(body)).map_err(|e: Infallible| match e {}).boxed_unsync();
    Ok(Response::from_parts(parts, body))
}

/// `control?FAULTS` sets faults, `stats` counts requests, `requests` lists them, `clear` forgets them.
fn command_answer(command: &str, query: &str, control: &Control) -> Answer {
    let text = |status, text| full(status, "text/plain", text);
    match command {
        "control" => match Faults::parse(query) {
            Ok(faults) => {
                control.set(faults);
                text(StatusCode::OK, "ok\n".to_owned())
            }
            Err(e) => text(StatusCode::BAD_REQUEST, format!("{e}\n")),
        },
        "stats" => {
            let ops = [Op::Put, Op::Get, Op::Head, Op::Delete, Op::List, Op::CreateBucket, Op::Other];
            let counts = ops.map(|op| format!("\"{op:?}\": {}", control.count(op))).join(", ");
            full(StatusCode::OK, "application/json", format!("{{{counts}}}\n"))
        }
        "requests" => {
            let lines = control.requests().into_iter().map(|r| format!("{r:?}\n"));
            text(StatusCode::OK, lines.collect())
        }
        "clear" => {
            control.clear();
            text(StatusCode::OK, "ok\n".to_owned())
        }
        _ => text(StatusCode::NOT_FOUND, "known are control, stats, requests and clear\n".to_owned()),
    }
}
