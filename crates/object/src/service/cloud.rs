//! Which operator of opendal a storage and its address mean, as the official client reads them.

use std::sync::atomic::AtomicBool;

use ciderfs_format::{Secret, shown_bucket};
use opendal::services::{Azblob, Cos, Gcs, Obs, Oss, Sftp, Tos, Webdav};
use opendal::{Builder, HttpTransporter, OperationContext, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;

use super::address::InHost;
use super::blobs::Blobs;
use super::list::Listing;
use super::sending::Sending;
use crate::error::{ObjectError, Result};
use crate::open::StoreConfig;
use crate::s3::{Parts, bad, client_for, process_env, split};

/// What is read of the environment.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Opens the place, if opendal serves the storage; `storage` is in lower case.
pub(crate) fn open(storage: &str, cfg: &StoreConfig, bucket: &str) -> Result<Option<Blobs>> {
    let (cfg, env): (_, Env<'_>) = (Given { storage, bucket, cfg }, &process_env);
    match storage {
        "webdav" => webdav(&cfg),
        "sftp" => sftp(&cfg, env),
        "gs" => gs(&cfg, env),
        "wasb" => wasb(&cfg, env),
        "oss" => oss(&cfg, env),
        "cos" => cos(&cfg, env),
        "obs" => obs(&cfg, env),
        "tos" => tos(&cfg),
        _ => return Ok(None),
    }
    .map(Some)
}

/// What the settings say.
struct Given<'a> {
    storage: &'a str,
    bucket: &'a str,
    cfg: &'a StoreConfig,
}

impl Given<'_> {
    /// Keys and token: those that are given, else those of the environment.
    fn keys(&self, env: Env<'_>, [access, secret, token]: [&str; 3]) -> [String; 3] {
        let cfg = self.cfg;
        if cfg.access_key.is_empty() {
            return [access, secret, token].map(|name| env(name).unwrap_or_default());
        }
        [&cfg.access_key, cfg.secret_key.expose(), cfg.session_token.expose()].map(str::to_owned)
    }

    /// A place below a directory, or a bucket, in which keys have their order.
    fn blobs(&self, builder: impl Builder, parts: Option<&Parts>, secrets: &[&str]) -> Result<Blobs> {
        let is_directory = matches!(self.storage, "webdav" | "sftp");
        let name = format!("{} {}", self.storage, shown_bucket(self.storage, self.bucket));
        let mut operator =
            Operator::new(builder).map_err(|e| ObjectError::Config(format!("{name}: {}", e.message())))?;
        if let Some(parts) = parts {
            let client = client_for(&parts.query.tls)?;
            let transport = HttpTransporter::new(Sending(ReqwestTransport::new(client)));
            operator = operator.with_context(OperationContext::new().with_http_transport(transport));
        }
        let known = secrets.iter().filter_map(|text| Secret::given(Some((*text).to_owned())));
        Ok(Blobs {
            operator,
            name,
            before: String::new(),
            listing: if is_directory { Listing::Directories } else { Listing::Keys(Mutex::default()) },
            has_checksums: matches!(self.storage, "oss" | "cos" | "tos")
                && parts.is_none_or(|parts| parts.query.checksum),
            renames: self.storage == "sftp",
            is_directory,
            secrets: known.chain([self.cfg.secret_key.clone(), self.cfg.session_token.clone()]).collect(),
            keys: remedy(self.storage),
            sends_whole: AtomicBool::new(false),
        })
    }

    fn no_token(&self) -> Result<()> {
        if self.cfg.session_token.is_empty() {
            return Ok(());
        }
        Err(ObjectError::Config(format!("storage {} takes no --session-token", self.storage)))
    }
}

/// What to do where the keys are refused.
fn remedy(storage: &str) -> &'static str {
    match storage {
        "gs" => {
            "check GOOGLE_APPLICATION_CREDENTIALS, or the service account of the machine, and its rights on the bucket"
        }
        "wasb" => {
            "check --access-key, which is the storage account, and --secret-key, or AZURE_STORAGE_CONNECTION_STRING"
        }
        "webdav" => "check --access-key, which is the user, and --secret-key, the password",
        "sftp" => {
            "check --access-key, which is the user, and SSH_PRIVATE_KEY_PATH or the SSH agent; `sftp USER@HOST` must work without a question"
        }
        _ => "check --access-key and --secret-key, and their rights on the bucket",
    }
}

fn webdav(given: &Given<'_>) -> Result<Blobs> {
    let parts = split(given.bucket, |_| "http")?;
    let endpoint = format!("{}://{}/{}", parts.scheme, parts.authority, parts.path);
    let mut builder = Webdav::default().endpoint(endpoint.trim_end_matches('/'));
    if !given.cfg.access_key.is_empty() {
        builder = builder.username(&given.cfg.access_key).password(given.cfg.secret_key.expose());
    }
    given.no_token()?;
    given.blobs(builder, Some(&parts), &[])
}

/// `[sftp://][USER@]HOST[:PORT]:PATH`. What follows the last slash stands before each key.
fn sftp(given: &Given<'_>, env: Env<'_>) -> Result<Blobs> {
    let form = || {
        let text = "does not fit storage sftp: write HOST:/DIRECTORY/ or HOST:PORT:/DIRECTORY/";
        bad(given.bucket, text)
    };
    let text = given.bucket.strip_prefix("sftp://").unwrap_or(given.bucket);
    let (place, path) = text.rsplit_once(':').ok_or_else(form)?;
    let (host, port) = match place.rsplit_once(':').filter(|_| !place.ends_with(']')) {
        Some((host, port)) => (host, port.parse::<u16>().map_err(|_| form())?),
        None => (place, 22),
    };
    if host.is_empty() || host.contains('@') || path.is_empty() {
        return Err(form());
    }
    if !given.cfg.secret_key.is_empty() {
        return Err(ObjectError::Config(
            "storage sftp takes no password: have the server accept a key, which SSH_PRIVATE_KEY_PATH, the SSH agent or ~/.ssh \
             offers, and leave --secret-key out"
                .to_owned(),
        ));
    }
    given.no_token()?;
    let (dir, before) = path.rfind('/').map_or(("", path), |at| path.split_at(at + 1));
    // Below the home of the user unless it begins with a slash.
    let (root, before) = if dir.starts_with('/') { (dir, before) } else { ("", path) };
    let mut builder = Sftp::default()
        .endpoint(&format!("ssh://{host}:{port}"))
        // As the official client, unless it is told what hosts to trust.
        .known_hosts_strategy(if env("SSH_KNOWN_HOSTS").is_some() { "strict" } else { "accept" });
    if !root.is_empty() {
        builder = builder.root(root);
    }
    if !given.cfg.access_key.is_empty() {
        builder = builder.user(&given.cfg.access_key);
    }
    if let Some(file) = env("SSH_PRIVATE_KEY_PATH") {
        builder = builder.key(&file);
    }
    let mut blobs = given.blobs(builder, None, &[])?;
    blobs.before = before.to_owned();
    Ok(blobs)
}

/// `[gs://]BUCKET[.REGION]`.
fn gs(given: &Given<'_>, env: Env<'_>) -> Result<Blobs> {
    let text = given.bucket.strip_prefix("gs://").unwrap_or(given.bucket);
    let place = InHost::parse(text, "gs", "gs://BUCKET")?;
    if !given.cfg.access_key.is_empty() {
        return Err(ObjectError::Config(
            "storage gs takes no --access-key: set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account".to_owned(),
        ));
    }
    let mut builder = Gcs::default().bucket(&place.bucket);
    if let Some(host) = env("STORAGE_EMULATOR_HOST") {
        let url = if host.contains("://") { host } else { format!("http://{host}") };
        builder = builder.endpoint(url.trim_end_matches('/')).skip_signature();
    }
    given.blobs(builder, Some(&place.parts), &[])
}

/// `[https://]CONTAINER[.ENDPOINT]`: the account is the access key.
fn wasb(given: &Given<'_>, env: Env<'_>) -> Result<Blobs> {
    let form = "https://CONTAINER.core.windows.net, and the storage account as --access-key";
    let place = InHost::parse(given.bucket, "wasb", form)?;
    if let Some(text) = env("AZURE_STORAGE_CONNECTION_STRING") {
        let builder = Azblob::from_connection_string(&text)
            .map_err(|e| ObjectError::Config(format!("AZURE_STORAGE_CONNECTION_STRING: {}", e.message())))?;
        let secrets = secrets_of_connection(&text);
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        return given.blobs(builder.container(&place.bucket), Some(&place.parts), &secrets);
    }
    let cfg = given.cfg;
    if cfg.access_key.is_empty() {
        return Err(bad(given.bucket, &format!("names no storage account: write {form}")));
    }
    let rest = if place.rest.is_empty() { "core.windows.net" } else { &place.rest };
    let blob = if rest.starts_with("blob") { "" } else { "blob." };
    let mut builder = Azblob::default()
        .container(&place.bucket)
        .endpoint(&format!("{}://{}.{blob}{rest}", place.scheme, cfg.access_key))
        .account_name(&cfg.access_key);
    if !cfg.secret_key.is_empty() {
        builder = builder.account_key(cfg.secret_key.expose());
    }
    given.blobs(builder, Some(&place.parts), &[])
}

/// What a connection string of Azure has that no text may tell: key, shared access signature, and what proves that one. Each as it
/// is written, and plain.
fn secrets_of_connection(text: &str) -> Vec<String> {
    let mut all = vec![text.to_owned()];
    for part in text.split(';').filter_map(|part| part.split_once('=')) {
        match (part.0.trim().to_ascii_lowercase().as_str(), part.1.trim()) {
            ("accountkey", key) => all.push(key.to_owned()),
            ("sharedaccesssignature", signature) => {
                all.push(signature.trim_start_matches('?').to_owned());
                all.extend(
                    signature
                        .split(['?', '&'])
                        .filter_map(|pair| pair.strip_prefix("sig="))
                        .map(str::to_owned),
                );
            }
            _ => {}
        }
    }
    let plain = all.iter().map(|text| percent_decode_str(text).decode_utf8_lossy().into_owned());
    let plain: Vec<String> = plain.collect();
    all.extend(plain);
    all.retain(|text| !text.is_empty());
    all.sort_unstable_by_key(|text| std::cmp::Reverse(text.len()));
    all.dedup();
    all
}

fn oss(given: &Given<'_>, env: Env<'_>) -> Result<Blobs> {
    let form = "https://BUCKET.oss-REGION.aliyuncs.com";
    let place = InHost::parse(given.bucket, "oss", form)?;
    let endpoint = match (place.rest.as_str(), env("ALICLOUD_REGION_ID")) {
        ("", Some(region)) => format!("{}://oss-{region}.aliyuncs.com", place.scheme),
        ("", None) => return Err(bad(given.bucket, &format!("tells no region: write {form}"))),
        _ => place.endpoint(),
    };
    let names = ["ALICLOUD_ACCESS_KEY_ID", "ALICLOUD_ACCESS_KEY_SECRET", "SECURITY_TOKEN"];
    let [access, secret, token] = given.keys(env, names);
    let mut builder = Oss::default().bucket(&place.bucket).endpoint(&endpoint);
    if !access.is_empty() {
        builder = builder.access_key_id(&access).access_key_secret(&secret);
    }
    if !token.is_empty() {
        builder = builder.security_token(&token);
    }
    given.blobs(builder, Some(&place.parts), &[&secret, &token])
}

fn cos(given: &Given<'_>, env: Env<'_>) -> Result<Blobs> {
    let form = "https://BUCKET-APPID.cos.REGION.myqcloud.com";
    let place = InHost::parse(given.bucket, "cos", form)?;
    if place.rest.is_empty() {
        return Err(bad(given.bucket, &format!("tells no region: write {form}")));
    }
    let [access, secret, token] = given.keys(env, ["COS_SECRETID", "COS_SECRETKEY", ""]);
    let mut builder = Cos::default().bucket(&place.bucket).endpoint(&place.endpoint());
    if !access.is_empty() {
        builder = builder.secret_id(&access).secret_key(&secret);
    }
    if !token.is_empty() {
        builder = builder.security_token(&token);
    }
    given.blobs(builder, Some(&place.parts), &[&secret, &token])
}

fn obs(given: &Given<'_>, env: Env<'_>) -> Result<Blobs> {
    let form = "https://BUCKET.obs.REGION.myhuaweicloud.com";
    let place = InHost::parse(given.bucket, "obs", form)?;
    let endpoint = match (place.rest.as_str(), env("HWCLOUD_DEFAULT_REGION")) {
        ("", Some(region)) => format!("{}://obs.{region}.myhuaweicloud.com", place.scheme),
        ("", None) => return Err(bad(given.bucket, &format!("tells no region: write {form}"))),
        _ => place.endpoint(),
    };
    given.no_token()?;
    let [access, secret, _] = given.keys(env, ["HWCLOUD_ACCESS_KEY", "HWCLOUD_SECRET_KEY", ""]);
    let mut builder = Obs::default().bucket(&place.bucket).endpoint(&endpoint);
    if !access.is_empty() {
        builder = builder.access_key_id(&access).secret_access_key(&secret);
    }
    given.blobs(builder, Some(&place.parts), &[&secret])
}

fn tos(given: &Given<'_>) -> Result<Blobs> {
    let form = "https://BUCKET.tos-REGION.volces.com";
    let place = InHost::parse(given.bucket, "tos", form)?;
    let region = place.rest.split('.').next().and_then(|label| label.strip_prefix("tos-"));
    let region = region.ok_or_else(|| bad(given.bucket, &format!("tells no region: write {form}")))?;
    let cfg = given.cfg;
    let mut builder = Tos::default().bucket(&place.bucket).endpoint(&place.endpoint()).region(region);
    if !cfg.access_key.is_empty() {
        builder = builder.access_key_id(&cfg.access_key).secret_access_key(cfg.secret_key.expose());
    }
    if !cfg.session_token.is_empty() {
        builder = builder.security_token(cfg.session_token.expose());
    }
    given.blobs(builder, Some(&place.parts), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_of_connection_strings_are_hidden() {
        let text = "BlobEndpoint=https://a.blob.core.windows.net;SharedAccessSignature=?sv=2022-11-02&se=2030&sig=SiG%2Bn%2FaTuReOfTwenty%3D&sp=rw";
        let env = |name: &str| (name == "AZURE_STORAGE_CONNECTION_STRING").then(|| text.to_owned());
        let cfg = StoreConfig::default();
        let given = Given { storage: "wasb", bucket: "https://box.core.windows.net", cfg: &cfg };
        let blobs = wasb(&given, &env).unwrap();
        for told in [
            "GET https://a/box/k?sv=2022-11-02&se=2030&sig=SiG%2Bn%2FaTuReOfTwenty%3D&sp=rw failed",
            "sig=SiG%2Bn%2FaTuReOfTwenty%3D",
            "signature SiG+n/aTuReOfTwenty= did not match",
            "SiG%2bn%2faTuReOfTwenty%3d",
        ] {
            let shown = blobs.hidden(told);
            assert!(!shown.contains("SiG") && !shown.contains("Twenty") && shown.contains("****"), "{shown}");
        }
        let key = secrets_of_connection("AccountName=a;AccountKey=a2V5a2V5==;EndpointSuffix=x");
        assert!(key.contains(&"a2V5a2V5==".to_owned()), "{key:?}");
    }
}
