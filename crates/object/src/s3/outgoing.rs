//! Requests on their way out: class and tag of what is stored, and the share of the bandwidth that bodies get.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ciderfs_format::settings::Tier;
use futures_util::stream;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, Response};
use opendal::raw::oio::ReadStream as _;
use opendal::raw::{Operation, new_request_sign_error};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport as _, Result};
use opendal_http_transport_reqwest::ReqwestTransport;
use reqsign_aws_v4::Credential;
use reqsign_core::Signer;
use reqwest::Client;

use super::address::Address;
use super::answers::{MAX_ANSWER, read_answer, unexpected, whole};
use super::client::http_client;
use crate::bandwidth::{Bandwidth, Waits};
use crate::error::ObjectError;

const STORAGE_CLASS: &str = "x-amz-storage-class";
const TAGGING: &str = "x-amz-tagging";

/// What opendal's requests are sent with.
#[derive(Clone)]
pub(super) struct Outgoing {
    client: Client,
    /// For uploads that take longer than any silence may: the store answers when it has all. Made when it is needed.
    patient: Arc<OnceLock<Client>>,
    address: Arc<Address>,
    bandwidth: Arc<Bandwidth>,
    placement: Option<Arc<Placement>>,
}

/// Class and tag of what is stored: opendal has no place for a tag, and the signature covers it.
struct Placement {
    headers: HeaderMap,
    /// None for anonymous requests.
    signer: Option<Signer<Credential>>,
}

impl Outgoing {
    pub(super) fn new(client: &Client, address: &Address, bandwidth: &Arc<Bandwidth>) -> Self {
        Self {
            client: client.clone(),
            patient: Arc::default(),
            address: Arc::new(address.clone()),
            bandwidth: Arc::clone(bandwidth),
            placement: None,
        }
    }

    /// The same for unsigned requests that get these headers.
    pub(super) fn placing(&self, headers: HeaderMap, signer: Option<Signer<Credential>>) -> Self {
        Self { placement: Some(Arc::new(Placement { headers, signer })), ..self.clone() }
    }

    pub(super) async fn fetch(&self, mut req: Request<Buffer>) -> Result<Response<HttpBody>> {
        let operation = req.extensions().get::<Operation>().copied();
        if let Some(placement) = &self.placement {
            req = placement.applied(req).await?;
        }
        match operation {
            Some(Operation::Write) if self.bandwidth.upload.is_limited() => self.upload(req).await,
            Some(Operation::Read) if self.bandwidth.download.is_limited() => {
                let (parts, body) = self.transport().fetch(req).await?.into_parts();
                Ok(Response::from_parts(parts, slowed(body, Arc::clone(&self.bandwidth))))
            }
            // While a body is sent the store is silent, for as long as that takes: the deadline of an upload is enough.
            Some(Operation::Write) => ReqwestTransport::new(self.patient().clone()).fetch(req).await,
            _ => self.transport().fetch(req).await,
        }
    }

    /// A client that lets the store be silent.
    fn patient(&self) -> &Client {
        self.patient.get_or_init(|| http_client(&self.address, None).unwrap_or(self.client.clone()))
    }

    fn transport(&self) -> ReqwestTransport {
        ReqwestTransport::new(self.client.clone())
    }

    /// Sends a request whose body goes out as its shares come.
    async fn upload(&self, req: Request<Buffer>) -> Result<Response<HttpBody>> {
        let patient = self.patient();
        let uri = req.uri().clone();
        let failed = |e: reqwest::Error| {
            let temporary = e.is_request() || e.is_body() || e.is_decode();
            Error::new(ErrorKind::Unexpected, "send http request")
                .with_temporary(temporary)
                .set_source(e.without_url())
        };
        let bandwidth = Arc::clone(&self.bandwidth);
        let req = req.map(|body| shares(body.to_bytes(), bandwidth));
        let mut answer =
            patient.execute(reqwest::Request::try_from(req).map_err(failed)?).await.map_err(failed)?;
        let (text, all) = read_answer(&mut answer).await.map_err(failed)?;
        if !all {
            return Err(unexpected(format!("the answer has more than {MAX_ANSWER} bytes")));
        }
        let (mut parts, _) = Response::<reqwest::Body>::from(answer).into_parts();
        // opendal tells it with errors.
        parts.extensions.insert(uri);
        Ok(Response::from_parts(parts, whole(text)))
    }
}

impl Placement {
    async fn applied(&self, req: Request<Buffer>) -> Result<Request<Buffer>> {
        let (mut parts, body) = req.into_parts();
        parts.headers.extend(self.headers.clone());
        if let Some(signer) = &self.signer {
            signer.sign(&mut parts, None).await.map_err(|e| new_request_sign_error(e.into()))?;
            // The client sets it.
            parts.headers.remove(HOST);
        }
        Ok(Request::from_parts(parts, body))
    }
}

/// A body that is sent share by share.
fn shares(body: Bytes, bandwidth: Arc<Bandwidth>) -> reqwest::Body {
    // It is sent by a task of the connection.
    let waits = Waits::current();
    reqwest::Body::wrap_stream(stream::unfold(body, move |mut left| {
        let (bandwidth, waits) = (Arc::clone(&bandwidth), Arc::clone(&waits));
        async move {
            if left.is_empty() {
                return None;
            }
            let share = waits.during(bandwidth.upload.share(left.len() as u64)).await;
            Some((Ok::<_, std::convert::Infallible>(left.split_to(share as usize)), left))
        }
    }))
}

/// A body that is read no faster than it may come; what is not read yet stays with the kernel, and then with the store.
fn slowed(body: HttpBody, bandwidth: Arc<Bandwidth>) -> HttpBody {
    let waits = Waits::current();
    let parts = stream::unfold(Some(body), move |body| {
        let (bandwidth, waits) = (Arc::clone(&bandwidth), Arc::clone(&waits));
        async move {
            let mut body = body?;
            match body.read().await {
                Ok(part) if part.is_empty() => None,
                Ok(part) => {
                    waits.during(bandwidth.download.take(part.len() as u64)).await;
                    Some((Ok(part), Some(body)))
                }
                Err(e) => Some((Err(e), None)),
            }
        }
    });
    HttpBody::new(Box::pin(parts), None)
}

/// The headers that store an object as the tier says; none for the store's default.
pub(super) fn headers(tier: &Tier) -> crate::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let value = |name: &str, text: &str| {
        HeaderValue::from_str(text).map_err(|_| {
            ObjectError::Config(format!(
                "{name} {text:?} of tier {} cannot be sent: set another one",
                tier.id
            ))
        })
    };
    if !tier.storage_class.is_empty() {
        headers.insert(STORAGE_CLASS, value("storage class", &tier.storage_class)?);
    }
    if !tier.tag.is_empty() {
        headers.insert(TAGGING, value("tag", &encoded(&tier.tag))?);
    }
    Ok(headers)
}

/// A tag as in the query of an address, letter by letter as the official client has it.
fn encoded(tag: &str) -> String {
    let (key, value) = tag.split_once('=').unwrap_or((tag, ""));
    let escaped = |text: &str| -> String {
        let escape = |b: u8| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            b' ' => "+".to_owned(),
            _ => format!("%{b:02X}"),
        };
        text.bytes().map(escape).collect()
    };
    format!("{}={}", escaped(key), escaped(value))
}
