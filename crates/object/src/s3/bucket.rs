//! Requests about the bucket itself, which opendal does not offer.

use bytes::Bytes;
use http::{Method, Request, Response};
use reqsign_aws_v4::RequestSigner;
use reqsign_core::{Context, HttpSend, OsEnv, Signer};
use reqsign_file_read_tokio::TokioFileRead;
use reqwest::Client;

use super::address::Address;
use super::client::Credentials;
use super::error::{from_code, from_status, from_transport};
use crate::error::{ObjectError, Result};

/// Bytes of an answer that we look at.
const MAX_ANSWER: usize = 64 << 10;

/// Lets the credential chain make its requests with our client.
#[derive(Debug, Clone)]
struct Sender(Client);

impl HttpSend for Sender {
    async fn http_send(&self, req: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        let failed = |e: reqwest::Error| {
            reqsign_core::Error::unexpected("request for credentials").with_source(e).set_retryable(true)
        };
        let req = reqwest::Request::try_from(req).map_err(failed)?;
        let answer: Response<reqwest::Body> = self.0.execute(req).await.map_err(failed)?.into();
        let (parts, body) = answer.into_parts();
        let body = reqwest::Response::from(Response::new(body)).bytes().await.map_err(failed)?;
        Ok(Response::from_parts(parts, body))
    }
}

/// Region of a bucket of AWS, by an unsigned request: AWS tells it even to strangers.
pub(super) async fn find_region(client: &Client, address: &Address, store: &str) -> Result<String> {
    let url = format!("{}/{}", address.endpoint, address.bucket);
    let answer = client.head(url).send().await.map_err(|e| from_transport(store, &e))?;
    let region = answer.headers().get("x-amz-bucket-region").and_then(|v| v.to_str().ok());
    Ok(region.unwrap_or("us-east-1").to_owned())
}

/// Makes the bucket; one that is ours already is fine.
pub(super) async fn create(
    client: &Client,
    address: &Address,
    keys: &Credentials,
    store: &str,
) -> Result<()> {
    let body = address.location_constraint().map_or_else(String::new, |region| {
        format!(
            "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>{region}\
             </LocationConstraint></CreateBucketConfiguration>"
        )
    });
    let other = |detail: String| ObjectError::Other(format!("{store}: {detail}"));
    let (mut parts, ()) = Request::builder()
        .method(Method::PUT)
        .uri(address.bucket_url())
        .header("content-length", body.len())
        .body(())
        .map_err(|e| other(e.to_string()))?
        .into_parts();
    if *keys != Credentials::Anonymous {
        let context = Context::new()
            .with_file_read(TokioFileRead)
            .with_http_send(Sender(client.clone()))
            .with_env(OsEnv);
        let region = address.region.as_deref().unwrap_or("us-east-1");
        Signer::new(context, keys.provider(address.is_aws()), RequestSigner::new("s3", region))
            .sign(&mut parts, None)
            .await
            .map_err(|e| {
                ObjectError::AccessDenied(format!("{store}: request cannot be signed: {e}; check the keys"))
            })?;
        parts.headers.remove("host");
    }
    let request =
        reqwest::Request::try_from(Request::from_parts(parts, body)).map_err(|e| other(e.to_string()))?;
    let answer = client.execute(request).await.map_err(|e| from_transport(store, &e))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let text = answer.bytes().await.map_err(|e| from_transport(store, &e))?;
    let text = String::from_utf8_lossy(text.get(..text.len().min(MAX_ANSWER)).unwrap_or_default());
    let code = element(&text, "Code").unwrap_or_default();
    if matches!(code, "BucketAlreadyOwnedByYou" | "BucketAlreadyExists") {
        return Ok(());
    }
    let message = element(&text, "Message").unwrap_or_default();
    let said = format!("bucket cannot be created: {status} {code} {message}");
    Err(from_code(store, code, message).unwrap_or_else(|| from_status(store, status.as_u16(), &said)))
}

fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(value, _)| value)
}
