//! What is asked of a service beside objects, to find out why it cannot be used.

use std::time::SystemTime;

use opendal::raw::Timestamp;
use reqwest::tls::TlsInfo;

use super::address::Address;
use super::bucket;
use super::client::{READ_TIMEOUT, build, http_client, http_settings};
use super::error::from_transport;
use super::keys::{Credentials, Keys};
use crate::error::Result;

/// What a service tells everybody.
#[derive(Debug, Clone, Default)]
pub struct Greeting {
    /// Its clock, in whole seconds.
    pub date: Option<SystemTime>,
    /// The certificate that was accepted, in DER.
    pub certificate: Option<Vec<u8>>,
}

/// An unsigned request: whoever answers it can be reached, and has a certificate that is believed in.
pub(crate) async fn greet(address: &Address) -> Result<Greeting> {
    let store = format!("bucket {} at {}", address.bucket, address.endpoint);
    let client = build(http_settings(address, Some(READ_TIMEOUT))?.tls_info(true))?;
    let sent = client.head(address.bucket_url()).send().await;
    let answer = sent.map_err(|e| from_transport(&store, &e))?;
    let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
    let certificate = answer.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
    Ok(Greeting {
        date: date.and_then(|date| Timestamp::parse_rfc2822(date).ok().map(SystemTime::from)),
        certificate: certificate.map(<[u8]>::to_vec),
    })
}

/// Deletes several objects with one request.
pub(crate) async fn delete_many(address: &Address, keys: Credentials, objects: &[String]) -> Result<()> {
    let store = format!("bucket {} at {}", address.bucket, address.endpoint);
    let keys = Keys::new(keys);
    let client = http_client(address, Some(READ_TIMEOUT))?;
    let address = match address.region {
        Some(_) => address.clone(),
        None => address.with_region(&bucket::find_region(&client, address, &store).await?),
    };
    let done = bucket::delete_many(&client, &address, &keys, &store, objects).await;
    done.map_err(|e| e.reworded(|text| keys.hidden_in(text)))
}
