//! The metadata engine and the volume in it.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ciderfs_format::{Secret, Settings, shown, shown_address};
use ciderfs_meta::{Meta, MetaConfig};
use ciderfs_meta_redis::Survey;
use ciderfs_meta_redis::address::{Address, Place};
use ciderfs_volume::{Engine, Purpose};
use rustix::fs::Access;

use super::machine::network;
use super::reach::{Names, reach};
use super::report::Finding;
use super::{CORRECT_FIRST, Clock, within};

/// Share of `maxmemory` from which it is near, and from which writes will fail soon.
const NEAR: (u64, u64) = (75, 90);
/// Turns that take longer make everything slow.
const SLOW: Duration = Duration::from_millis(10);
/// Clocks that differ more tell wrong times of files, and so much more are refused.
const CLOCKS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// Keys that are named.
const SAMPLE: usize = 3;

/// Looks at the engine. The settings of the volume, if there is one.
pub async fn check(
    address: &OsStr,
    password: Option<Secret>,
    time: &Clock,
    out: &mut Vec<Finding>,
) -> Option<Settings> {
    let text = shown(address);
    let is_ready = match text.split_once("://").map_or("redis", |(scheme, _)| scheme) {
        "sqlite3" | "sqlite" => sqlite(address, time, out).await,
        "redis" | "rediss" | "unix" => redis(&text, password.clone(), time, out).await,
        // In the words of who opens it.
        _ => true,
    };
    if !is_ready {
        out.push(Finding::skipped("volume", "the engine cannot be used", CORRECT_FIRST));
        return None;
    }
    volume(address, password, time, out).await
}

async fn sqlite(address: &OsStr, time: &Clock, out: &mut Vec<Finding>) -> bool {
    let check = "engine file";
    let file = match ciderfs_meta_sql::Address::parse(address) {
        Ok(address) => address.file().to_owned(),
        Err(e) => {
            out.push(Finding::error("engine address", &e.to_string(), "correct META-URL"));
            return false;
        }
    };
    let found = time.blocking(check, move || look_at_file(check, &file)).await;
    let is_ready = !found.iter().any(Finding::is_failed);
    out.extend(found);
    is_ready
}

fn look_at_file(check: &'static str, file: &Path) -> Vec<Finding> {
    let name = shown(file);
    let dir = file.parent().unwrap_or(Path::new("/"));
    let failed = |text: String, remedy: String| vec![Finding::failed(check, text, remedy)];
    match std::fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return failed(format!("{} is no directory", shown(dir)), "correct META-URL".into()),
        Err(e) => return failed(format!("{}: {e}", shown(dir)), format!("mkdir -p {}", shown(dir))),
    }
    if let Err(e) = rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK) {
        let text = format!("SQLite needs to write to the directory {}, too: {e}", shown(dir));
        return failed(
            text,
            format!("give this user the right to write there (chown, chmod u+w {})", shown(dir)),
        );
    }
    match std::fs::metadata(file) {
        Ok(meta) if !meta.is_file() => {
            return failed(format!("{name} is no file"), "correct META-URL".into());
        }
        Ok(meta) => {
            if let Err(e) = rustix::fs::access(file, Access::READ_OK | Access::WRITE_OK) {
                let text =
                    format!("{name}, of user {}, is not for this one to read and write: {e}", meta.uid());
                return failed(text, format!("give this user the right (chown, chmod u+rw {name})"));
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return failed(format!("{name}: {e}"), "correct META-URL".into()),
    }
    if let Some(kind) = network(dir) {
        return vec![Finding::warning(
            check,
            format!("{name} is on {kind}: SQLite needs locks that such file systems may not have"),
            "keep the file on a disk of this machine, or use Redis",
        )];
    }
    vec![Finding::ok(check, format!("{name} can be read and written"))]
}

async fn redis(text: &str, password: Option<Secret>, time: &Clock, out: &mut Vec<Finding>) -> bool {
    let address = match Address::parse(text) {
        Ok(address) => address,
        Err(e) => {
            out.push(Finding::error("engine address", &e.to_string(), "correct META-URL"));
            return false;
        }
    };
    let nodes = match &address.place {
        Place::Single(node) => vec![node.clone()],
        Place::Sentinel { sentinels: nodes, .. } | Place::Cluster(nodes) => nodes.clone(),
        Place::Unix(_) => Vec::new(),
    };
    if !nodes.is_empty() {
        let (is_there, findings) =
            reach(&Names { dns: "engine DNS", tcp: "engine TCP" }, &nodes, time.left()).await;
        out.extend(findings);
        if !is_there {
            return false;
        }
    }
    let has_tls = address.tls.is_some();
    let survey = within(time, ciderfs_meta_redis::survey(text, password)).await;
    let survey = match survey {
        Some(Ok(survey)) => survey,
        Some(Err(e)) => {
            let said = e.to_string();
            let is_tls = has_tls
                && ["certificate", "Certificate", "TLS", "tls", "handshake", "corrupt message"]
                    .iter()
                    .any(|w| said.contains(w));
            out.push(if is_tls {
                let remedy = "name the authority by tls-ca-cert-file=FILE in the address, and the host as in the certificate";
                Finding::failed("engine TLS", said.split("; is Redis").next().unwrap_or(&said), remedy)
            } else {
                Finding::error("engine login", &said, "check META-URL and the password")
            });
            return false;
        }
        None => {
            let text = format!("{} takes connections and does not answer", shown_address(text));
            out.push(Finding::failed(
                "engine login",
                text,
                "check that it is Redis, and rediss:// for a port with TLS",
            ));
            return false;
        }
    };
    if has_tls {
        out.push(Finding::ok("engine TLS", "the certificate is valid"));
    }
    out.push(Finding::ok("engine login", format!("{} lets us in", survey.shown)));
    let found = server(&survey);
    let is_usable = survey.too_old.is_none() && survey.replica_of.is_none();
    out.extend(found);
    is_usable
}

/// What a server that answers is like.
fn server(s: &Survey) -> Vec<Finding> {
    let untold = |check| {
        Finding::skipped(
            check,
            "this user may not ask (INFO, CONFIG)",
            "grant +info and +config|get to the user, or look at it on the server",
        )
    };
    let mut out = vec![match (&s.version, &s.too_old) {
        (Some(version), Some(oldest)) => Finding::failed(
            "engine version",
            format!("Redis {version} is too old"),
            format!("install Redis {oldest} or later, or Valkey"),
        ),
        (Some(version), None) => Finding::ok("engine version", format!("Redis {version}")),
        (None, _) => untold("engine version"),
    }];
    out.extend(s.replica_of.as_ref().map(|master| {
        Finding::failed(
            "engine role",
            format!("it is a replica of {master} and takes no writes"),
            "name the master in META-URL, or the sentinels",
        )
    }));
    out.push(match (s.aof, s.snapshots) {
        (Some(true), _) => Finding::ok("engine persistence", "AOF is on"),
        (Some(false), Some(false)) => Finding::failed(
            "engine persistence",
            "neither AOF nor snapshots: the volume is lost when Redis ends",
            "set appendonly yes (redis-cli config set appendonly yes, and in its configuration)",
        ),
        (Some(false), _) => Finding::warning(
            "engine persistence",
            "AOF is off: what was done since the last snapshot is lost when Redis dies",
            "set appendonly yes (redis-cli config set appendonly yes, and in its configuration)",
        ),
        (None, _) => untold("engine persistence"),
    });
    out.push(match (&s.evicts, &s.version) {
        (Some(policy), _) => Finding::failed(
            "engine eviction",
            format!("maxmemory-policy is {policy}: Redis drops metadata when it is full"),
            "set maxmemory-policy noeviction",
        ),
        (None, Some(_)) => Finding::ok("engine eviction", "noeviction"),
        (None, None) => untold("engine eviction"),
    });
    out.push(memory(s).unwrap_or_else(|| untold("engine memory")));
    out.push(match (s.serves_strangers, s.is_public) {
        (true, true) => Finding::failed(
            "engine password",
            "others can reach it, and it asks for no password",
            "set requirepass (or users with passwords), give it to the clients as META_PASSWORD, and bind to the addresses that need it",
        ),
        (true, false) => Finding::ok("engine password", "none, and only this machine reaches it"),
        (false, _) => Finding::ok("engine password", "it is required"),
    });
    out.extend(keys(s));
    let latency = format!("{:.1} ms", s.latency.as_secs_f64() * 1000.0);
    out.push(if s.latency > SLOW {
        Finding::warning(
            "engine latency",
            format!("a turn takes {latency}; each change of a file is one"),
            "use an engine in the same place as this machine",
        )
    } else {
        Finding::ok("engine latency", latency)
    });
    out.push(match s.clocks {
        Some((theirs, ours)) => clocks("engine clock", theirs, ours, CLOCKS),
        None => Finding::skipped("engine clock", "it does not tell its time", "grant +time to the user"),
    });
    out
}

fn memory(s: &Survey) -> Option<Finding> {
    let check = "engine memory";
    let (used, most) = s.memory?;
    if most == 0 {
        return Some(Finding::ok(check, format!("{} MiB used, no limit", used >> 20)));
    }
    let share = used.saturating_mul(100) / most;
    let text = format!("{share}% of maxmemory is used, {} of {} MiB", used >> 20, most >> 20);
    let remedy = "raise maxmemory; a file takes about 300 bytes";
    Some(match share {
        _ if share >= NEAR.1 => Finding::failed(check, text, remedy),
        _ if share >= NEAR.0 => Finding::warning(check, text, remedy),
        _ => Finding::ok(check, text),
    })
}

fn keys(s: &Survey) -> Option<Finding> {
    let check = "engine keys";
    let count = s.keys?;
    if s.foreign.is_empty() {
        return Some(Finding::ok(check, format!("{count}, and no others than those of a volume")));
    }
    let mut some = s.foreign.clone();
    some.truncate(SAMPLE);
    Some(Finding::warning(
        check,
        format!("something else has keys in this database ({}): {}", s.foreign.len(), some.join(", ")),
        "give each volume a database of its own: another number at the end of META-URL",
    ))
}

/// Compares a clock with ours.
pub fn clocks(
    check: &'static str,
    theirs: SystemTime,
    ours: SystemTime,
    (odd, bad): (Duration, Duration),
) -> Finding {
    let (gap, way) = match ours.duration_since(theirs) {
        Ok(gap) => (gap, "ahead of"),
        Err(e) => (e.duration(), "behind"),
    };
    let text = format!("this machine is {} seconds {way} it", gap.as_secs());
    let remedy = "set the clock of this machine right (timedatectl set-ntp true); if it is right, that of the other end";
    match gap {
        _ if gap > bad => Finding::failed(check, text, remedy),
        _ if gap > odd => Finding::warning(check, text, remedy),
        _ => Finding::ok(check, "it agrees with ours"),
    }
}

/// The volume.
async fn volume(
    address: &OsStr,
    password: Option<Secret>,
    time: &Clock,
    out: &mut Vec<Finding>,
) -> Option<Settings> {
    let check = "volume";
    let is_file = shown(address).starts_with("sqlite");
    if is_file && ciderfs_meta_sql::Address::parse(address).is_ok_and(|address| !address.file().exists()) {
        out.push(none(address));
        return None;
    }
    let opened = within(time, async {
        let store = Engine { address, password }.open(Purpose::Look).await?;
        if Meta::read_settings(store.as_ref()).await?.is_none() {
            return Ok(None);
        }
        let config = MetaConfig { read_only: true, ..MetaConfig::default() };
        Ok::<_, ciderfs_volume::Error>(Some(Meta::load(store, config).await?.settings()))
    });
    match opened.await {
        Some(Ok(Some(settings))) => {
            let text = format!(
                "{} ({}), version {} of the format",
                settings.name, settings.uuid, settings.meta_version
            );
            out.push(Finding::ok(check, text));
            Some((*settings).clone())
        }
        Some(Ok(None)) => {
            out.push(none(address));
            None
        }
        Some(Err(e)) => {
            out.push(Finding::error(check, &e.to_string(), "use a newer version of CiderFS"));
            None
        }
        None => {
            out.push(Finding::failed(
                check,
                "the engine does not answer in time",
                "look at the log of the engine",
            ));
            None
        }
    }
}

fn none(address: &OsStr) -> Finding {
    let address = shown_address(address);
    Finding::warning(
        "volume",
        format!("there is none at {address} yet"),
        format!("ciderfs format {address} NAME"),
    )
}
