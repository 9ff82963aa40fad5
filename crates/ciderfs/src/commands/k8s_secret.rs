//! `ciderfs k8s-secret --from-env-file F`: the Secret of a volume, with the keys of the official CSI driver, from the file that the
//! units of a node read. Nothing is asked over the network.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ciderfs_format::envelope::PASSPHRASE_ENV;
use ciderfs_format::settings::validate_name;

use super::doctor::env_file::EnvFile;
use super::doctor::named_place;
use super::doctor::report::Status;
use crate::cli::args::Args;
use crate::cli::command::Command as Ours;
use crate::cli::flag::{Row, Value};
use crate::cli::table::{
    ACCESS_KEY, APPLY, BUCKET, ENCRYPT_PASSPHRASE, ENCRYPT_RSA_KEY, ENDPOINT, FORCE, FROM_ENV_FILE,
    IF_ABSENT, META_PASSWORD, NAME, NAMESPACE, NO_UPDATE, REGION, SECRET_KEY, SESSION_TOKEN, STORAGE,
};
use crate::failure::{Failure, Result};

/// Flags of `format` that a Secret says otherwise, or that say how that call ran.
const LEFT_OUT: [&Row; 12] = [
    STORAGE.row,
    BUCKET.row,
    ENDPOINT.row,
    REGION.row,
    ACCESS_KEY.row,
    SECRET_KEY.row,
    SESSION_TOKEN.row,
    META_PASSWORD.row,
    ENCRYPT_RSA_KEY.row,
    FORCE.row,
    NO_UPDATE.row,
    IF_ABSENT.row,
];
/// The group of flags that are of every command.
const GENERAL: &str = "General";
/// Longest names: of an object, and of a namespace (RFC 1123).
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    if args.count() > 1 {
        args.exactly()?;
    }
    let path = args.find(FROM_ENV_FILE).ok_or_else(|| {
        Failure::new(
            "nothing says what the volume is: name the file of a node, --from-env-file /etc/juicefs/config",
        )
    })?;
    let (name, namespace) = (args.get(NAME), args.get(NAMESPACE));
    rfc1123("--name", name, NAME_MAX, true)?;
    rfc1123("--namespace", namespace, LABEL_MAX, false)?;
    let (file, findings) = EnvFile::read(path);
    for finding in findings {
        match finding.status {
            Status::Failed => {
                return Err(Failure::new(format!("--from-env-file: {}; {}", finding.text, finding.remedy)));
            }
            Status::Warning => tracing::warn!("{}; {}", finding.text, finding.remedy),
            Status::Ok | Status::Skipped => {}
        }
    }
    let volume = (args.count() == 1).then(|| args.word(0));
    let object = object(name, namespace, &data(&file, volume)?);
    if args.get(APPLY) {
        return apply(&object);
    }
    print!("{object}");
    Ok(())
}

/// Keys of the official driver, with their values.
fn data(file: &EnvFile, volume: Option<&str>) -> Result<BTreeMap<&'static str, String>> {
    let volume = volume.or_else(|| file.plain("VOLUME")).ok_or_else(|| {
        Failure::new(
            "the file does not name the volume: set VOLUME in it, or add the name to the command line",
        )
    })?;
    validate_name(volume)?;
    let url = file
        .meta_url()
        .ok_or_else(|| Failure::new("the file has no address of the metadata: set META_URL in it"))?;
    let bucket =
        file.plain("BUCKET").ok_or_else(|| Failure::new("the file names no bucket: set BUCKET in it"))?;
    check_reach(url)?;
    let (given_storage, options) = format_options(file)?;
    let (storage, bucket) =
        named_place(given_storage.as_deref(), bucket, file.plain("ENDPOINT"), file.plain("REGION"))?;
    if storage == "file" {
        return Err(Failure::new(
            "BUCKET is a directory of this node, which pods do not have: name a bucket with its endpoint",
        ));
    }
    let mut data = BTreeMap::from([
        ("name", volume.to_owned()),
        ("metaurl", url.to_owned()),
        ("storage", storage),
        ("bucket", bucket),
    ]);
    for (key, name) in [("access-key", "ACCESS_KEY"), ("secret-key", "SECRET_KEY")] {
        data.extend(file.plain(name).map(|value| (key, value.to_owned())));
    }
    // What has no key of its own reaches the client through its environment.
    let password = file.meta_password().map(|secret| (META_PASSWORD.row.env, secret.expose()));
    let passphrase = file.get(PASSPHRASE_ENV).map(|secret| (Some(PASSPHRASE_ENV), secret.expose()));
    let envs: BTreeMap<_, _> =
        password.into_iter().chain(passphrase).filter_map(|(name, value)| Some((name?, value))).collect();
    if !envs.is_empty() {
        data.insert("envs", serde_json::to_string(&envs)?);
    }
    if !options.is_empty() {
        data.insert("format-options", options.join(","));
    }
    Ok(data)
}

/// Another node cannot use an address that means this one.
fn check_reach(url: &str) -> Result<()> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("sqlite3", url));
    if scheme == "sqlite3" || scheme == "unix" || rest.starts_with('/') {
        return Err(Failure::new(
            "META_URL is a file of this node, which pods do not have: use an engine with a network address",
        ));
    }
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let hosts = place.split(['/', '?']).next().unwrap_or_default();
    let is_local = |host: &str| {
        let host = host.strip_prefix('[').map_or_else(
            || host.split(':').next().unwrap_or_default(),
            |ip| ip.split(']').next().unwrap_or_default(),
        );
        host == "localhost" || host == "::1" || host.starts_with("127.")
    };
    if hosts.split(',').any(is_local) {
        return Err(Failure::new(
            "META_URL is an address of this node only, other nodes and pods would find themselves there: write the address that all nodes use",
        ));
    }
    Ok(())
}

/// The storage, and further flags of `format` for a Secret, of FORMAT_OPTIONS and of a session token.
fn format_options(file: &EnvFile) -> Result<(Option<String>, Vec<String>)> {
    let text = file.plain("FORMAT_OPTIONS").unwrap_or_default();
    let words: Vec<OsString> = text.split_whitespace().map(OsString::from).collect();
    let args = Args::parse(Ours::Format, &words)
        .map_err(|e| Failure::new(format!("FORMAT_OPTIONS in the file: {}", e.text)))?;
    if args.is_explicit(ENCRYPT_RSA_KEY) {
        tracing::warn!(
            "--encrypt-rsa-key stays on the node: the volume has its key, and pods need {PASSPHRASE_ENV} only"
        );
    }
    let mut options = Vec::new();
    for (row, value, text, origin) in args.settings() {
        let is_ours = row.group != GENERAL && row.name != ENCRYPT_PASSPHRASE.row.name;
        if origin.is_ambient() || !is_ours || LEFT_OUT.iter().any(|out| out.name == row.name) {
            continue;
        }
        options.push(match value {
            Value::Switch(true) => row.name.to_owned(),
            Value::Switch(false) => format!("{}=false", row.name),
            _ => format!("{}={text}", row.name),
        });
    }
    options.extend(file.plain("SESSION_TOKEN").map(|token| format!("{}={token}", SESSION_TOKEN.row.name)));
    if options.iter().any(|option| option.contains(',')) {
        return Err(Failure::new(
            "a value of FORMAT_OPTIONS has a comma, which separates options in a Secret: leave that option to the node that formats",
        ));
    }
    let storage = args.is_explicit(STORAGE).then(|| args.get(STORAGE).to_owned());
    Ok((storage, options))
}

/// The object as YAML. Values are of base64 alone, so nothing in them needs quotes.
fn object(name: &str, namespace: &str, data: &BTreeMap<&'static str, String>) -> String {
    let mut out = format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: \"{name}\"\n  namespace: \"{namespace}\"\ntype: Opaque\ndata:\n"
    );
    for (key, value) in data {
        let _ = writeln!(out, "  {key}: {}", STANDARD.encode(value));
    }
    out
}

/// Hands the object to kubectl, through a pipe: its command line is everybody's to read. Applied by the server, no second copy of
/// the values stays in an annotation.
fn apply(object: &str) -> Result<()> {
    const ARGS: [&str; 6] =
        ["apply", "--server-side", "--force-conflicts", "--field-manager=ciderfs", "-f", "-"];
    let start = |program: &str, first: &[&str]| {
        Command::new(program).args(first).args(ARGS).stdin(Stdio::piped()).spawn()
    };
    let mut child = match start("kubectl", &[]) {
        // The servers of k3s have it under this name.
        Err(e) if e.kind() == ErrorKind::NotFound => start("k3s", &["kubectl"]),
        other => other,
    }
    .map_err(|e| {
        Failure::new(format!(
            "kubectl cannot be started: {e}; install it, or leave --apply out and pipe the output"
        ))
    })?;
    // One that ends early says why by itself.
    let sent = child.stdin.take().map(|mut pipe| pipe.write_all(object.as_bytes()));
    let status = child.wait()?;
    if !status.success() {
        return Err(Failure::new(format!(
            "kubectl has not applied the Secret ({status}); it says why above"
        )));
    }
    sent.transpose()?;
    Ok(())
}

/// Is it a name as Kubernetes wants them?
fn rfc1123(what: &str, name: &str, max: usize, dots: bool) -> Result<()> {
    let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|c| is_plain(*c))
            && bytes.last().is_some_and(|c| is_plain(*c))
            && bytes.iter().all(|c| is_plain(*c) || *c == b'-')
    };
    let is_name = if dots { name.split('.').all(is_label) } else { is_label(name) };
    if is_name && name.len() <= max {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{what} {name:?} is no name for Kubernetes: use up to {max} lower-case letters, digits and inner hyphens{} (RFC 1123)",
        if dots { ", with dots between parts" } else { "" }
    )))
}
