//! The keys of a store: where they come from, and that nobody is told of them.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;

use ciderfs_bounded::KEY_FILE_MAX;
use ciderfs_format::{Secret, excerpt};
use parking_lot::Mutex;
use reqsign_aws_v4::{Credential, DefaultCredentialProvider, StaticCredentialProvider};
use reqsign_core::{Context, FileRead, ProvideCredential, ProvideCredentialChain};

use super::address::process_env;
use crate::error::{ObjectError, Result};

/// Secrets of the last credentials that are remembered: those of requests that may still be under way.
const MOST_USED: usize = 16;
/// Variables with secrets that the environment offers.
const SECRET_VARIABLES: [&str; 3] =
    ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN"];

/// Who we are, as the settings say.
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
}

/// The keys of a store. Copies share what they remember.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    given: Credentials,
    seen: Arc<Mutex<Seen>>,
}

/// What the search for credentials has met.
#[derive(Debug, Default)]
struct Seen {
    /// Secrets that requests may have been signed with, or credentials been asked for with.
    secrets: VecDeque<Secret>,
    /// The last file that could not be used.
    trouble: Option<String>,
}

impl Seen {
    fn remember(&mut self, secret: Option<String>) {
        let Some(secret) = Secret::given(secret).filter(|secret| !self.secrets.contains(secret)) else {
            return;
        };
        if self.secrets.len() == MOST_USED {
            self.secrets.pop_front();
        }
        self.secrets.push_back(secret);
    }
}

impl Keys {
    /// The keys that the settings say.
    pub(crate) fn new(given: Credentials) -> Self {
        Self { given, seen: Arc::default() }
    }

    /// Are requests not signed?
    pub(crate) fn is_anonymous(&self) -> bool {
        self.given == Credentials::Anonymous
    }

    /// A text of the store without the secrets: the token is part of every request, and stores repeat in errors what they were
    /// sent.
    pub(crate) fn hidden_in(&self, text: &str) -> String {
        let hide = |text: String, secret: &Secret| secret.hidden_in(&text);
        let text = text.to_owned();
        match &self.given {
            Credentials::Anonymous => text,
            Credentials::Static { secret_key, session_token, .. } => {
                [Some(secret_key), session_token.as_ref()].into_iter().flatten().fold(text, hide)
            }
            Credentials::Environment => {
                let known = SECRET_VARIABLES.map(|name| Secret::given(process_env(name)));
                let text = known.iter().flatten().fold(text, hide);
                self.seen.lock().secrets.iter().fold(text, hide)
            }
        }
    }

    /// A short text of the store without the secrets. They are hidden before it is cut: half of one is too much.
    pub(crate) fn excerpt(&self, text: &str) -> String {
        excerpt(&self.hidden_in(text))
    }

    /// Why a file with credentials was not used, if one was not.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.seen.lock().trouble.clone()
    }

    /// Where signatures get their keys. `aws`: the store is of AWS, so an instance role may be what is meant; elsewhere the
    /// search for one would only delay the error.
    pub(crate) fn provider(&self, aws: bool) -> ProvideCredentialChain<Credential> {
        let chain = ProvideCredentialChain::new();
        match &self.given {
            Credentials::Anonymous => chain,
            Credentials::Static { access_key, secret_key, session_token } => {
                let keys = StaticCredentialProvider::new(access_key, secret_key.expose());
                chain.push(match session_token {
                    Some(token) => keys.with_session_token(token.expose()),
                    None => keys,
                })
            }
            Credentials::Environment => {
                let all = DefaultCredentialProvider::builder();
                let all = if aws { all.build() } else { all.no_imds().build() };
                chain.push(Watched { all, seen: Arc::clone(&self.seen) })
            }
        }
    }
}

/// The search of the environment: files are read with bounds, and what is found is remembered.
#[derive(Debug)]
struct Watched {
    all: DefaultCredentialProvider,
    seen: Arc<Mutex<Seen>>,
}

impl ProvideCredential for Watched {
    type Credential = Credential;

    async fn provide_credential(&self, ctx: &Context) -> reqsign_core::Result<Option<Credential>> {
        let ctx = ctx.clone().with_file_read(BoundedFiles(Arc::clone(&self.seen)));
        let found = self.all.provide_credential(&ctx).await?;
        if let Some(found) = &found {
            let mut seen = self.seen.lock();
            seen.remember(Some(found.secret_access_key.clone()));
            seen.remember(found.session_token.clone());
        }
        Ok(found)
    }
}

/// Reads the files that the environment names: configuration, keys and tokens. They are read again and again, so only regular
/// ones will do.
#[derive(Debug)]
struct BoundedFiles(Arc<Mutex<Seen>>);

impl FileRead for BoundedFiles {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        let own = path.to_owned();
        let read =
            tokio::task::spawn_blocking(move || ciderfs_bounded::read_regular(own, KEY_FILE_MAX)).await;
        let failed = |text: &str| reqsign_core::Error::unexpected(text.to_owned());
        match read.map_err(|e| failed(&e.to_string()))? {
            Ok(content) => {
                // A token is all that its file has; it is sent to whoever gives keys for it.
                let text = String::from_utf8_lossy(&content);
                if !text.trim().contains(char::is_whitespace) {
                    self.0.lock().remember(Some(text.trim().to_owned()));
                }
                Ok(content)
            }
            Err(e) => {
                let text = format!("{path}: {e}");
                if e.kind() != ErrorKind::NotFound {
                    self.0.lock().trouble = Some(excerpt(&text));
                }
                Err(failed(&text).with_source(e))
            }
        }
    }
}
