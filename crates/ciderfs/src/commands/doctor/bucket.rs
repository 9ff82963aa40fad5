//! The place of the objects.

use std::time::{Duration, SystemTime};

use ciderfs_format::objname::UUID_KEY;
use ciderfs_format::{Settings, shown_address};
use ciderfs_object::layers::Limits;
use ciderfs_object::{ObjectError, ObjectStore, StoreConfig, Trial, has_other_objects, try_rights};
use ciderfs_volume::{Bounds, storage, store_config};
use jiff::Timestamp;

use super::reach::{Names, reach};
use super::report::Finding;
use super::{CORRECT_FIRST, Clock, certificate, engine, within};

/// Deadline of a request.
const DEADLINE: Duration = Duration::from_secs(3);
/// Clocks that differ more are odd; the store refuses requests from fifteen minutes on.
const CLOCKS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// Certificates are told of so many days before they end.
const NOTICE_DAYS: i64 = 14;
/// Most bytes of the object that tells whose prefix it is.
const MARKER_MAX: u64 = 64;
/// Every right, in the order in which they are tried.
const RIGHTS: [(&str, &str); 5] = [
    ("delete", "bucket delete"),
    ("put", "bucket put"),
    ("get", "bucket get"),
    ("range", "bucket range"),
    ("list", "bucket list"),
];
const REGION: &str = "bucket region";
const VERSIONS: &str = "bucket versions";
const MULTI_DELETE: &str = "bucket multi-delete";
const VOLUME: &str = "bucket volume";

/// Looks at the place of a volume: of one that is there, or of one to come.
pub async fn check(settings: &Settings, is_there: bool, time: &Clock, out: &mut Vec<Finding>) {
    let config = store_config(settings);
    // What is tried is not encrypted.
    let plain = Settings { encrypt_key: "".into(), ..settings.clone() };
    let limits = Limits { get_timeout: DEADLINE, put_timeout: DEADLINE, ..Limits::default() };
    let opened = storage(&plain, None, Bounds { limits, retries: 0 }, None)
        .map_err(|e| e.to_string())
        .and_then(|store| Ok((store, ciderfs_object::service(&config).map_err(|e| e.to_string())?)));
    let (store, service) = match opened {
        Ok(opened) => opened,
        Err(e) => return out.push(Finding::error("bucket address", &e, "correct --bucket and --storage")),
    };
    let region = match service {
        None => {
            let dir = std::path::Path::new(&settings.bucket);
            if settings.storage.eq_ignore_ascii_case("file") && !dir.is_dir() {
                let text = format!("{} is no directory", settings.bucket);
                return out.push(Finding::failed(
                    "bucket address",
                    text,
                    "mount what has the objects, or correct --bucket",
                ));
            }
            out.push(Finding::ok("bucket address", store.describe()));
            None
        }
        Some((url, region)) => {
            out.push(Finding::ok("bucket address", store.describe()));
            if !is_reached(&url, &config, time, out).await {
                skip_rights(&[], out);
                let skipped = |check| Finding::skipped(check, "not tried", CORRECT_FIRST);
                return out.extend([MULTI_DELETE, VOLUME].map(skipped));
            }
            region
        }
    };
    let trials = try_rights(store.as_ref(), &settings.name, settings.shard_count()).await;
    tell_region(&trials, region.as_deref(), out);
    for trial in &trials {
        let check =
            RIGHTS.iter().find(|(right, _)| *right == trial.right).map_or("bucket", |(_, check)| check);
        out.push(match &trial.outcome {
            Ok(()) => Finding::ok(check, "it is allowed"),
            Err(e) => Finding::error(check, &e.to_string(), "check the bucket and the keys"),
        });
    }
    let is_allowed = trials.iter().all(|trial| trial.outcome.is_ok());
    multi_delete(&config, settings, is_allowed, time, out).await;
    if is_allowed && let Some(Ok(warnings)) = within(time, ciderfs_object::bucket_warnings(&config)).await {
        let remedy = "switch it off for this bucket, or have a lifecycle rule remove old versions";
        out.extend(warnings.into_iter().map(|text| Finding::warning(VERSIONS, text, remedy)));
    }
    skip_rights(&trials, out);
    let can_read = |right| trials.iter().any(|trial| trial.right == right && trial.outcome.is_ok());
    whose(store.as_ref(), settings, is_there, can_read("get"), can_read("list"), time, out).await;
}

/// Name, connection, TLS and clock of a service.
async fn is_reached(url: &str, config: &StoreConfig, time: &Clock, out: &mut Vec<Finding>) -> bool {
    let has_tls = url.starts_with("https://");
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, port) = match rest.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some(found) => found,
        None => (rest, if has_tls { 443 } else { 80 }),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Some(proxy) = proxy(has_tls, host) {
        let text = format!("requests go through the proxy of {proxy}");
        out.push(Finding::skipped(
            "bucket TCP",
            text,
            format!("unset {proxy}, or name the host in NO_PROXY"),
        ));
    } else {
        let nodes = [(host.to_owned(), port)];
        let (is_there, findings) =
            reach(&Names { dns: "bucket DNS", tcp: "bucket TCP" }, &nodes, time.left()).await;
        out.extend(findings);
        if !is_there {
            return false;
        }
    }
    let before = SystemTime::now();
    let greeting = match within(time, ciderfs_object::greet(config)).await {
        Some(Ok(greeting)) => greeting,
        Some(Err(e)) => {
            let check = if has_tls { "bucket TLS" } else { "bucket answers" };
            out.push(Finding::error(check, &e.to_string(), "check the address of the bucket"));
            return false;
        }
        None => {
            let text = format!("{} takes connections and does not answer", shown_address(url));
            out.push(Finding::failed("bucket answers", text, "check host and port, and http:// or https://"));
            return false;
        }
    };
    if has_tls {
        out.push(tls(greeting.certificate.as_deref()));
    }
    out.push(match greeting.date {
        // Whole seconds, in the middle of which it was.
        Some(date) => engine::clocks("bucket clock", date + Duration::from_millis(500), before, CLOCKS),
        None => Finding::skipped("bucket clock", "the store does not tell its time", "compare it by hand"),
    });
    true
}

fn tls(certificate: Option<&[u8]>) -> Finding {
    let check = "bucket TLS";
    let Some(ends) = certificate.and_then(certificate::ends) else {
        return Finding::ok(check, "the certificate is valid");
    };
    let days = ends.duration_since(Timestamp::now()).as_hours() / 24;
    let text = format!("the certificate is valid until {}", ends.strftime("%Y-%m-%d"));
    match days < NOTICE_DAYS {
        true => Finding::warning(check, text, "have it renewed by whoever runs the store"),
        false => Finding::ok(check, text),
    }
}

/// The variable that sends requests to a proxy.
fn proxy(has_tls: bool, host: &str) -> Option<&'static str> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let direct = set("NO_PROXY").or_else(|| set("no_proxy")).unwrap_or_default();
    let is_direct = |name: &str| {
        let name = name.trim().trim_start_matches('.');
        name == "*" || host == name || (!name.is_empty() && host.ends_with(&format!(".{name}")))
    };
    if direct.split(',').any(is_direct) {
        return None;
    }
    let names = if has_tls { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] };
    names.into_iter().chain(["ALL_PROXY", "all_proxy"]).find(|name| set(name).is_some())
}

/// Refusals that are about more than one right.
fn tell_region(trials: &[Trial], region: Option<&str>, out: &mut Vec<Finding>) {
    let errors = || trials.iter().filter_map(|trial| trial.outcome.as_ref().err()).map(ToString::to_string);
    if let Some(text) = errors().find(|text| text.contains("region") && text.contains("the bucket is ")) {
        out.push(Finding::error(REGION, &text, "add ?region=REGION to --bucket"));
    } else if let Some(region) = region {
        out.push(Finding::ok(REGION, format!("requests are signed for {region}")));
    }
    if let Some(text) = errors().find(|text| text.contains("the clocks of this machine")) {
        out.push(Finding::error("bucket clock", &text, "set the clock of this machine right"));
    }
}

/// Nothing needs it, and it is the cheap way to delete many objects.
async fn multi_delete(
    config: &StoreConfig,
    settings: &Settings,
    is_allowed: bool,
    time: &Clock,
    out: &mut Vec<Finding>,
) {
    if !is_allowed {
        return out.push(Finding::skipped(MULTI_DELETE, "not tried", CORRECT_FIRST));
    }
    let id = uuid::Uuid::new_v4();
    let objects = [1, 2].map(|n| format!("{}/testing/{id}-{n}", settings.name));
    match within(time, ciderfs_object::delete_many(config, &objects)).await {
        Some(Ok(Some(()))) => out.push(Finding::ok(MULTI_DELETE, "it is allowed")),
        Some(Ok(None)) => {}
        Some(Err(e)) => {
            let error = Finding::error(MULTI_DELETE, &e.to_string(), "check the rights of the key");
            // Other requests are sent again with the region that the store names, one refused request for each start.
            let is_elsewhere = error.text.contains("the bucket is in another region");
            out.push(Finding::warning(
                if is_elsewhere { REGION } else { MULTI_DELETE },
                format!("{}; objects are deleted one by one", error.text),
                error.remedy,
            ));
        }
        None => out.push(Finding::warning(
            MULTI_DELETE,
            "no answer; objects are deleted one by one",
            "ask who runs the store",
        )),
    }
}

/// Says which rights were not tried.
fn skip_rights(trials: &[Trial], out: &mut Vec<Finding>) {
    for (right, check) in RIGHTS {
        if !trials.iter().any(|trial| trial.right == right) {
            out.push(Finding::skipped(check, "not tried", CORRECT_FIRST));
        }
    }
}

/// Whose objects are below the prefix?
async fn whose(
    store: &dyn ObjectStore,
    settings: &Settings,
    is_there: bool,
    can_get: bool,
    can_list: bool,
    time: &Clock,
    out: &mut Vec<Finding>,
) {
    let check = VOLUME;
    let skipped = |why: &str| Finding::skipped(check, why, CORRECT_FIRST);
    if !is_there {
        if !can_list {
            return out.push(skipped("without the right to list nobody can know what is there"));
        }
        return out.push(match within(time, has_other_objects(store)).await {
            Some(Ok(false)) => Finding::ok(check, format!("no objects below {}/ yet", settings.name)),
            Some(Ok(true)) => Finding::failed(
                check,
                format!(
                    "there are objects of a volume below {}/ already, and the engine has none",
                    settings.name
                ),
                "check META-URL, or choose another name or bucket",
            ),
            Some(Err(e)) => Finding::error(check, &e.to_string(), "check the bucket"),
            None => skipped("no answer in time"),
        });
    }
    if !settings.encrypt_key.is_empty() {
        return out.push(Finding::skipped(
            check,
            "the mark of an encrypted volume is encrypted",
            "mount it: that tells",
        ));
    }
    if !can_get {
        return out.push(skipped("the mark of the volume cannot be read"));
    }
    out.push(match within(time, store.get_whole(UUID_KEY, MARKER_MAX)).await {
        Some(Ok(mark)) if mark.trim_ascii() == settings.uuid.as_bytes() => {
            Finding::ok(check, "the objects are those of the volume")
        }
        Some(Ok(_)) => Finding::failed(
            check,
            format!("the objects below {}/ are of another volume of this name", settings.name),
            "check META-URL and --bucket: one of them belongs to another volume",
        ),
        Some(Err(ObjectError::NotFound(_) | ObjectError::AccessDenied(_))) => Finding::warning(
            check,
            format!("there is no {} below {}/: is it the bucket of this volume?", UUID_KEY, settings.name),
            "check --bucket; an old volume may have no such object",
        ),
        Some(Err(e)) => Finding::error(check, &e.to_string(), "check the bucket"),
        None => skipped("no answer in time"),
    });
}
