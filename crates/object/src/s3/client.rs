//! HTTP client and credentials.

use std::time::Duration;

use ciderfs_bounded::KEY_FILE_MAX;
use ciderfs_format::Secret;
use reqsign_aws_v4::{Credential, DefaultCredentialProvider, StaticCredentialProvider};
use reqsign_core::ProvideCredentialChain;
use reqwest::{Certificate, Client, ClientBuilder, Identity, redirect};

use super::address::{Address, TlsOptions, process_env};
use crate::error::{ObjectError, Result};

/// Longest time for a TCP connection and for the TLS handshake on it.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence of the store within a request; whole requests have deadlines of their own.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an unused connection stays open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Unused connections that are kept per host.
const IDLE_CONNECTIONS: usize = 256;

/// Who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// Requests are not signed.
    Anonymous,
    /// Given keys.
    Static {
        /// Access key.
        access_key: String,
        /// Secret key.
        secret_key: Secret,
        /// Session token, for temporary keys.
        session_token: Option<Secret>,
    },
    /// Whatever the environment offers: variables, files, web identity, container and instance roles.
    Environment,
}

impl Credentials {
    /// From the volume's settings. An empty access key means the environment.
    pub(crate) fn new(access_key: &str, secret_key: &Secret, session_token: &Secret) -> Result<Self> {
        match (access_key, secret_key.expose()) {
            ("anonymous", _) => Ok(Self::Anonymous),
            ("", "") => Ok(Self::Environment),
            ("", _) => {
                Err(ObjectError::Config("secret key given without an access key: set --access-key".into()))
            }
            (_, "") => {
                Err(ObjectError::Config("access key given without a secret key: set --secret-key".into()))
            }
            _ => Ok(Self::Static {
                access_key: access_key.to_owned(),
                secret_key: secret_key.clone(),
                session_token: Some(session_token).filter(|t| !t.is_empty()).cloned(),
            }),
        }
    }

    /// A text of the store without the secrets: the token is part of every request, and stores repeat in errors what they were
    /// sent.
    pub(crate) fn hidden_in(&self, text: &str) -> String {
        let hide = |text: &str, secret: Option<&Secret>| {
            secret.map_or_else(|| text.to_owned(), |secret| secret.hidden_in(text))
        };
        match self {
            Self::Anonymous => text.to_owned(),
            Self::Static { secret_key, session_token, .. } => {
                hide(&hide(text, Some(secret_key)), session_token.as_ref())
            }
            Self::Environment => {
                let known = ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
                    .map(|name| Secret::given(process_env(name)));
                known.iter().fold(text.to_owned(), |text, secret| hide(&text, secret.as_ref()))
            }
        }
    }

    /// Where signatures get their keys. `aws`: the store is of AWS, so an instance role may be what is meant; elsewhere the
    /// search for one would only delay the error.
    pub(crate) fn provider(&self, aws: bool) -> ProvideCredentialChain<Credential> {
        let chain = ProvideCredentialChain::new();
        match self {
            Self::Anonymous => chain,
            Self::Static { access_key, secret_key, session_token } => {
                let keys = StaticCredentialProvider::new(access_key, secret_key.expose());
                chain.push(match session_token {
                    Some(token) => keys.with_session_token(token.expose()),
                    None => keys,
                })
            }
            Self::Environment => {
                let all = DefaultCredentialProvider::builder();
                chain.push(if aws { all.build() } else { all.no_imds().build() })
            }
        }
    }
}

fn pem(path: &str, what: &str) -> Result<Vec<u8>> {
    ciderfs_bounded::read(path, KEY_FILE_MAX).map_err(|e| ObjectError::Config(format!("{what} {path}: {e}")))
}

/// A client for one store: connections are kept and reused, HTTP/1.1, nothing is retried or decompressed.
pub(crate) fn http_client(address: &Address) -> Result<Client> {
    build(http_settings(address)?)
}

pub(super) fn build(settings: ClientBuilder) -> Result<Client> {
    settings.build().map_err(|e| ObjectError::Config(format!("HTTP client cannot be set up: {e}")))
}

/// How such a client is set up.
pub(super) fn http_settings(address: &Address) -> Result<ClientBuilder> {
    let mut builder = Client::builder()
        .http1_only()
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .user_agent(concat!("ciderfs/", env!("CARGO_PKG_VERSION")));
    let TlsOptions { insecure, ca_certs, cert, key } = &address.tls;
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
