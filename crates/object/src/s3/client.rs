//! HTTP client.

use std::time::Duration;

use ciderfs_bounded::KEY_FILE_MAX;
use reqwest::{Certificate, Client, ClientBuilder, Identity, redirect};

use super::address::{Address, TlsOptions};
use crate::error::{ObjectError, Result};

/// Longest time for a TCP connection and for the TLS handshake on it.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence of the store within a request; whole requests have deadlines of their own.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an unused connection stays open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Unused connections that are kept per host.
const IDLE_CONNECTIONS: usize = 256;

fn pem(path: &str, what: &str) -> Result<Vec<u8>> {
    ciderfs_bounded::read(path, KEY_FILE_MAX).map_err(|e| ObjectError::Config(format!("{what} {path}: {e}")))
}

/// A client for one store: connections are kept and reused, HTTP/1.1, nothing is retried or decompressed. `silence`: how long the
/// store may say nothing.
pub(crate) fn http_client(address: &Address, silence: Option<Duration>) -> Result<Client> {
    build(http_settings(address, silence)?)
}

/// The same for a store that is known by its certificates alone.
pub(crate) fn client_for(tls: &TlsOptions) -> Result<Client> {
    build(settings(tls, None)?)
}

pub(super) fn build(settings: ClientBuilder) -> Result<Client> {
    settings.build().map_err(|e| ObjectError::Config(format!("HTTP client cannot be set up: {e}")))
}

/// How such a client is set up.
pub(super) fn http_settings(address: &Address, silence: Option<Duration>) -> Result<ClientBuilder> {
    settings(&address.tls, silence)
}

fn settings(tls: &TlsOptions, silence: Option<Duration>) -> Result<ClientBuilder> {
    let mut builder = Client::builder()
        .http1_only()
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .user_agent(concat!("ciderfs/", env!("CARGO_PKG_VERSION")));
    if let Some(silence) = silence {
        builder = builder.read_timeout(silence);
    }
    let TlsOptions { insecure, ca_certs, cert, key } = tls;
    if *insecure {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    if let Some(path) = ca_certs {
        let certs = Certificate::from_pem_bundle(&pem(path, "ca-certs")?)
            .map_err(|e| ObjectError::Config(format!("ca-certs {path}: no certificate in PEM form: {e}")))?;
        builder = builder.tls_certs_merge(certs);
    }
    if let (Some(cert), Some(key)) = (cert, key) {
        let mut both = pem(cert, "ssl-cert")?;
        both.push(b'\n');
        both.extend(pem(key, "ssl-key")?);
        let identity = Identity::from_pem(&both)
            .map_err(|e| ObjectError::Config(format!("ssl-cert {cert}, ssl-key {key}: {e}")))?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}
