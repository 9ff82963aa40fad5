//! Requests about the bucket itself, which opendal does not offer.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use bytes::Bytes;
use ciderfs_format::excerpt;
use http::{Method, Request, Response};
use md5::{Digest as _, Md5};
use reqsign_aws_v4::RequestSigner;
use reqsign_core::{Context, HttpSend, OsEnv, Signer};
use reqwest::Client;

use super::address::{Address, is_region_name};
use super::answers::{MAX_ANSWER, read_answer};
use super::error::{Asked, Call, WRONG_REGION, expected_region, from_code, from_status, from_transport};
use super::keys::Keys;
use crate::error::{ObjectError, Result};

/// Lets the credential chain make its requests with our client.
#[derive(Debug, Clone)]
pub(super) struct Sender(pub(super) Client);

impl HttpSend for Sender {
    async fn http_send(&self, req: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        let failed = |e: reqwest::Error| {
            reqsign_core::Error::unexpected("request for credentials").with_source(e).set_retryable(true)
        };
        let req = reqwest::Request::try_from(req).map_err(failed)?;
        let mut answer = self.0.execute(req).await.map_err(failed)?;
        let (body, all) = read_answer(&mut answer).await.map_err(failed)?;
        if !all {
            let text = format!("the answer with the credentials has more than {MAX_ANSWER} bytes");
            return Err(reqsign_core::Error::unexpected(text));
        }
        let (parts, _) = Response::<reqwest::Body>::from(answer).into_parts();
        Ok(Response::from_parts(parts, body.into()))
    }
}

/// Region of a bucket of AWS, by an unsigned request: AWS tells it even to strangers.
pub(super) async fn find_region(client: &Client, address: &Address, store: &str) -> Result<String> {
    let url = format!("{}/{}", address.endpoint, address.bucket);
    let answer = client.head(url).send().await.map_err(|e| from_transport(store, &e))?;
    let region = answer.headers().get("x-amz-bucket-region").and_then(|v| v.to_str().ok());
    Ok(region.filter(|region| is_region_name(region)).unwrap_or("us-east-1").to_owned())
}

/// What a store answers to a request without a body of interest.
struct Answer {
    status: http::StatusCode,
    region: Option<String>,
    /// Without secrets that it repeats.
    text: String,
}

/// Sends a signed request.
async fn send(
    client: &Client,
    address: &Address,
    keys: &Keys,
    store: &str,
    (method, url, body): (Method, String, String),
) -> Result<Answer> {
    let other = |detail: String| ObjectError::Other(format!("{store}: {detail}"));
    let mut request = Request::builder().method(&method).uri(url).header("content-length", body.len());
    if method == Method::POST {
        // Not every service deletes several objects without it.
        request = request.header("content-md5", BASE64.encode(Md5::digest(&body)));
    }
    let (mut parts, ()) = request.body(()).map_err(|e| other(e.to_string()))?.into_parts();
    if !keys.is_anonymous() {
        let context = Context::new().with_http_send(Sender(client.clone())).with_env(OsEnv);
        let region = address.region.as_deref().unwrap_or("us-east-1");
        Signer::new(context, keys.provider(address.is_aws()), RequestSigner::new("s3", region))
            .sign(&mut parts, None)
            .await
            .map_err(|e| {
                let said = keys.excerpt(&e.to_string());
                let trouble = keys.trouble().map_or_else(String::new, |trouble| format!(" ({trouble})"));
                ObjectError::AccessDenied(format!(
                    "{store}: request cannot be signed: {said}{trouble}; check the keys"
                ))
            })?;
        parts.headers.remove("host");
    }
    let request =
        reqwest::Request::try_from(Request::from_parts(parts, body)).map_err(|e| other(e.to_string()))?;
    let mut answer = client.execute(request).await.map_err(|e| from_transport(store, &e))?;
    let status = answer.status();
    let header = answer.headers().get("x-amz-bucket-region");
    let region = header.and_then(|v| v.to_str().ok()).map(|region| keys.excerpt(region));
    let (text, _) = read_answer(&mut answer).await.map_err(|e| from_transport(store, &e))?;
    Ok(Answer { status, region, text: keys.hidden_in(&String::from_utf8_lossy(&text)) })
}

/// Makes the bucket; one that is ours already is fine.
pub(super) async fn create(client: &Client, address: &Address, keys: &Keys, store: &str) -> Result<()> {
    let body = address.location_constraint().map_or_else(String::new, |region| {
        format!(
            "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>{region}\
             </LocationConstraint></CreateBucketConfiguration>"
        )
    });
    let put = |body| send(client, address, keys, store, (Method::PUT, address.bucket_url(), body));
    let mut answer = put(body).await?;
    // Elsewhere a region may be no more than part of the signature, and not a place that a bucket can be in.
    let unknown = element(&answer.text, "Code").is_some_and(|code| code.contains("LocationConstraint"));
    if unknown && !address.is_aws() && address.location_constraint().is_some() {
        answer = put(String::new()).await?;
    }
    if answer.status.is_success() {
        return Ok(());
    }
    let code = element(&answer.text, "Code").unwrap_or_default();
    if code == "BucketAlreadyOwnedByYou" {
        return Ok(());
    }
    let mut message = element(&answer.text, "Message").unwrap_or_default();
    if let Some(region) = element(&answer.text, "Region").or(answer.region) {
        message = format!("{message} expecting '{region}'");
    }
    let asked = Asked { store, bucket: &address.bucket, call: Call::CreateBucket, key: "", keys };
    let said = format!("{} {code} {message}", answer.status);
    Err(from_code(&asked, &code, message.trim())
        .unwrap_or_else(|| from_status(&asked, answer.status.as_u16(), said.trim())))
}

/// Does the bucket keep what is deleted, or forbid to delete? Both as the store tells; what it does not tell is not the case.
pub(super) async fn keeps_deleted(client: &Client, address: &Address, keys: &Keys) -> (bool, bool) {
    let mut address = address.clone();
    let mut is_on = [false, false];
    for (on, (about, name)) in
        is_on.iter_mut().zip([("versioning", "Status"), ("object-lock", "ObjectLockEnabled")])
    {
        for _ in 0..2 {
            let url = format!("{}?{about}", address.bucket_url());
            let answer = match send(client, &address, keys, "", (Method::GET, url, String::new())).await {
                Ok(answer) => answer,
                Err(e) => {
                    tracing::debug!("{about} of the bucket: {e}");
                    break;
                }
            };
            *on = answer.status.is_success() && element(&answer.text, name).as_deref() == Some("Enabled");
            // With the region that it names, if that is what it minds.
            let code = element(&answer.text, "Code").filter(|code| WRONG_REGION.contains(&code.as_str()));
            let Some(region) = code.and_then(|_| expected_region(&answer.text)).filter(|r| is_region_name(r))
            else {
                break;
            };
            address = address.with_region(region);
        }
    }
    is_on.into()
}

/// Deletes several objects with one request. Keys are plain words.
pub(super) async fn delete_many(
    client: &Client,
    address: &Address,
    keys: &Keys,
    store: &str,
    objects: &[String],
) -> Result<()> {
    let list: String = objects.iter().map(|key| format!("<Object><Key>{key}</Key></Object>")).collect();
    let body = format!(
        "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>{list}</Delete>"
    );
    let url = format!("{}?delete=", address.bucket_url());
    let answer = send(client, address, keys, store, (Method::POST, url, body)).await?;
    let code = element(&answer.text, "Code").unwrap_or_default();
    // Some objects may be refused within an answer that is none.
    if answer.status.is_success() && code.is_empty() {
        return Ok(());
    }
    let message = element(&answer.text, "Message").unwrap_or_default();
    let key = objects.first().map_or("", String::as_str);
    let asked = Asked { store, bucket: &address.bucket, call: Call::DeleteMany, key, keys };
    let said = format!("{} {code} {message}", answer.status);
    Err(from_code(&asked, &code, message.trim())
        .unwrap_or_else(|| from_status(&asked, answer.status.as_u16(), said.trim())))
}

/// Where a store says that the bucket is, when it refuses to serve it here: region and endpoint.
pub(super) async fn locate(
    client: &Client,
    address: &Address,
    keys: &Keys,
    key: &str,
) -> (Option<String>, Option<String>) {
    let url = format!("{}/{key}", address.bucket_url().trim_end_matches('/'));
    // Only makes a text better: what fails here was told already.
    match send(client, address, keys, "", (Method::GET, url, String::new())).await {
        Ok(answer) => {
            let said = expected_region(&answer.text).map(str::to_owned);
            (element(&answer.text, "Region").or(answer.region).or(said), element(&answer.text, "Endpoint"))
        }
        Err(_) => (None, None),
    }
}

pub(super) fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(value, _)| excerpt(value))
}
