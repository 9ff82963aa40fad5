//! What a server is like, for whoever asks before a volume is used there.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::time::{Duration, Instant, SystemTime};

use ciderfs_format::redis_keys::Keys;
use ciderfs_format::{Secret, excerpt};
use ciderfs_meta::store::StoreError;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value as Reply, cmd};

use crate::address::{Address, Place};
use crate::reply::{self, Result};
use crate::server::{evicts, field, is_without_aof, too_old};
use crate::topology::Servers;

/// Turns that the latency is measured with.
const TURNS: usize = 5;
/// Turns of a walk over keys, and keys of a turn.
const WALK: (usize, usize) = (8, 500);

/// What a server is like. `None` is what it does not tell.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// The server without its password.
    pub shown: String,
    /// Its version.
    pub version: Option<String>,
    /// The oldest version that is supported, if this one is older.
    pub too_old: Option<String>,
    /// Whose replica it is: it takes no writes.
    pub replica_of: Option<String>,
    /// Is there an append-only file?
    pub aof: Option<bool>,
    /// Are there snapshots: `save` has rules?
    pub snapshots: Option<bool>,
    /// A policy by which it drops keys when it is full.
    pub evicts: Option<String>,
    /// Bytes that are used and that may be used at most.
    pub memory: Option<(u64, u64)>,
    /// It serves whoever has no password.
    pub serves_strangers: bool,
    /// Others than this machine can get there.
    pub is_public: bool,
    /// Keys of the database.
    pub keys: Option<u64>,
    /// Some that no volume has.
    pub foreign: Vec<String>,
    /// How long a turn takes, in the middle.
    pub latency: Duration,
    /// Its clock, and ours at the same moment.
    pub clocks: Option<(SystemTime, SystemTime)>,
}

/// Looks at the server of an address; changes nothing there. `password` is for an address that has none.
///
/// # Errors
/// Those of opening a volume there: nobody answers, the password is wrong.
pub async fn survey(url: &str, password: Option<Secret>) -> Result<Survey> {
    let address = Address::parse(url)?;
    let mut survey = Survey { shown: address.to_string(), ..Survey::default() };
    let mut servers = Servers::new(address.clone(), password.clone())?;
    let mut conn = servers.probe().await?;
    let info = ask(&mut conn, &cmd("INFO")).await.map(text).unwrap_or_default();
    if let (Some("1"), None, Place::Single(node)) =
        (field(&info, "cluster_enabled"), &servers.cluster, &address.place)
    {
        servers.cluster = Some(vec![node.clone()]);
    }
    let number = |name| field(&info, name).and_then(|n| n.parse::<u64>().ok());
    survey.version = field(&info, "redis_version").map(excerpt);
    survey.too_old = too_old(&info);
    survey.evicts = evicts(&info).map(excerpt);
    survey.aof = field(&info, "aof_enabled").map(|_| !is_without_aof(&info));
    survey.memory = number("used_memory").map(|used| (used, number("maxmemory").unwrap_or(0)));
    survey.replica_of = (field(&info, "role") == Some("slave")).then(|| {
        excerpt(&format!(
            "{}:{}",
            field(&info, "master_host").unwrap_or("?"),
            field(&info, "master_port").unwrap_or("?")
        ))
    });
    survey.snapshots = config(&mut conn, "save").await.map(|rules| !rules.trim().is_empty());
    (survey.latency, survey.clocks) = clock(&mut conn).await?;
    let mut strangers = Servers::new(address.clone(), password)?;
    strangers.forget_password();
    strangers.cluster.clone_from(&servers.cluster);
    survey.serves_strangers = match strangers.probe().await {
        Ok(mut conn) => ask(&mut conn, &cmd("DBSIZE")).await.is_some(),
        Err(_) => false,
    };
    survey.is_public = is_public(&address.place, &mut conn).await;
    let mut conn = servers.connect().await?;
    let keys = if servers.cluster.is_some() { Keys::cluster(address.db) } else { Keys::plain() };
    if servers.cluster.is_none() {
        survey.keys = ask(&mut conn, &cmd("DBSIZE")).await.and_then(|n| reply::int(n).ok()??.try_into().ok());
        survey.foreign = foreign(&mut conn, &keys).await;
    }
    Ok(survey)
}

async fn ask(conn: &mut MultiplexedConnection, cmd: &Cmd) -> Option<Reply> {
    conn.send_packed_command(cmd).await.and_then(Reply::extract_error).ok()
}

fn text(answer: Reply) -> String {
    let raw = reply::bytes(answer).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&raw).into_owned()
}

/// A setting, if it may be asked for.
async fn config(conn: &mut MultiplexedConnection, name: &str) -> Option<String> {
    let mut get = cmd("CONFIG");
    get.arg("GET").arg(name);
    let pair = reply::strings(ask(conn, &get).await?).ok()?;
    pair.get(1).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// The time of a turn, and the two clocks.
async fn clock(conn: &mut MultiplexedConnection) -> Result<(Duration, Option<(SystemTime, SystemTime)>)> {
    let mut turns = Vec::new();
    let mut clocks = None;
    for _ in 0..TURNS {
        let started = Instant::now();
        let before = SystemTime::now();
        let answer = conn.send_packed_command(&cmd("TIME")).await;
        let took = started.elapsed();
        turns.push(took);
        let answer = answer.map_err(|e| StoreError::unavailable(e.to_string()).because(e))?;
        let parts = answer.extract_error().ok().and_then(|answer| reply::strings(answer).ok());
        let parts: Vec<u64> = parts.iter().flatten().filter_map(|part| reply::number(part).ok()).collect();
        if let [seconds, micros] = parts[..] {
            let theirs = Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros));
            clocks = SystemTime::UNIX_EPOCH.checked_add(theirs).map(|theirs| (theirs, before + took / 2));
        }
    }
    turns.sort();
    Ok((turns[TURNS / 2], clocks))
}

/// Can others than this machine get to the server?
async fn is_public(place: &Place, conn: &mut MultiplexedConnection) -> bool {
    let nodes = match place {
        Place::Unix(_) => return listens_beyond(conn).await,
        Place::Single(node) => vec![node.clone()],
        Place::Sentinel { sentinels: nodes, .. } | Place::Cluster(nodes) => nodes.clone(),
    };
    let is_elsewhere = tokio::task::spawn_blocking(move || {
        nodes.iter().any(|(host, port)| {
            let found = (host.as_str(), *port).to_socket_addrs();
            found.is_ok_and(|mut found| found.any(|address| !is_local(address.ip())))
        })
    });
    is_elsewhere.await.unwrap_or(false) || listens_beyond(conn).await
}

fn is_local(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Does it listen to others? One in protected mode turns them away as long as it has no password.
async fn listens_beyond(conn: &mut MultiplexedConnection) -> bool {
    if config(conn, "protected-mode").await.as_deref() != Some("no") {
        return false;
    }
    if config(conn, "port").await.as_deref() == Some("0") {
        return false;
    }
    let Some(bind) = config(conn, "bind").await else { return false };
    let addresses = || bind.split_ascii_whitespace().map(|name| name.trim_start_matches('-'));
    addresses().next().is_none()
        || addresses().any(|name| name.parse().map_or(name != "localhost", |ip| !is_local(ip)))
}

/// Some keys that no volume has.
async fn foreign(conn: &mut MultiplexedConnection, keys: &Keys) -> Vec<String> {
    let mut cursor = "0".to_owned();
    let mut found = Vec::new();
    for _ in 0..WALK.0 {
        let mut scan = cmd("SCAN");
        scan.arg(&cursor).arg("COUNT").arg(WALK.1);
        let Some(Ok(mut parts)) = ask(conn, &scan).await.map(reply::array) else { break };
        let (Some(page), Some(next)) = (parts.pop(), parts.pop()) else { break };
        let page = reply::strings(page).unwrap_or_default();
        let names = page.iter().map(|name| String::from_utf8_lossy(name));
        found.extend(names.filter(|name| !keys.is_ours(name)).map(|name| excerpt(&name)));
        cursor = text(next);
        if cursor == "0" {
            break;
        }
    }
    found
}
