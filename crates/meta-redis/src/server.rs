//! What a server must be like (`docs/redis.md#rights`).

use ciderfs_meta::store::{EngineMemory, StoreError};
use redis::aio::MultiplexedConnection;
use redis::{Value as Reply, cmd};

use crate::encode::NOTHING;
use crate::error::{Refusal, explain, explain_connect, is_read_only};
use crate::reply;

/// Oldest server that we test.
const OLDEST: (u32, u32) = (6, 2);

/// What a server told of itself.
#[derive(Default)]
pub(crate) struct Server {
    pub cluster: bool,
    /// It takes no writes; whose replica it is, as far as it told.
    pub replica_of: Option<String>,
}

/// A field of what `INFO` answers.
pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|l| l.strip_prefix(name).and_then(|l| l.strip_prefix(':'))).map(str::trim)
}

/// The oldest version that will do, if the server is older.
pub(crate) fn too_old(info: &str) -> Option<String> {
    let mut parts = field(info, "redis_version")?.split('.').map(|p| p.parse().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    (found < OLDEST).then(|| format!("{}.{}", OLDEST.0, OLDEST.1))
}

/// What the server acknowledged may be lost when it dies.
pub(crate) fn is_without_aof(info: &str) -> bool {
    field(info, "aof_enabled") == Some("0")
}

/// The policy by which the server drops keys when it is full, if it does.
pub(crate) fn evicts(info: &str) -> Option<&str> {
    let is_other =
        |policy: &&str| *policy != "noeviction" && field(info, "storage_provider") != Some("flash");
    field(info, "maxmemory_policy").filter(is_other)
}

/// What `INFO memory` tells.
pub(crate) fn memory(raw: &[u8]) -> Option<EngineMemory> {
    let info = String::from_utf8_lossy(raw);
    let number = |name| field(&info, name).and_then(|n| n.parse::<u64>().ok());
    let limit = [number("maxmemory"), number("total_system_memory")].into_iter().flatten().find(|n| *n > 0);
    Some(EngineMemory { used: number("used_memory")?, limit: limit.unwrap_or(0) })
}

/// Asks for what is nice to know: `None`, and a word about it, if that is refused.
async fn comfort(
    shown: &str,
    conn: &mut MultiplexedConnection,
    ask: &redis::Cmd,
    without: &str,
) -> Result<Option<Reply>, StoreError> {
    match conn.send_packed_command(ask).await.and_then(Reply::extract_error) {
        Ok(answer) => Ok(Some(answer)),
        Err(e) if Refusal::of(&e).is_some() => {
            if !without.is_empty() {
                tracing::warn!("{}; {without}", explain(shown, &e, false));
            }
            Ok(None)
        }
        Err(e) => Err(explain_connect(shown, &e)),
    }
}

/// Looks at a server. Warns of settings that endanger data.
pub(crate) async fn check(
    shown: &str,
    conn: &mut MultiplexedConnection,
    read_only: bool,
) -> Result<Server, StoreError> {
    let without = "its version and its settings are not looked at";
    let Some(answer) = comfort(shown, conn, &cmd("INFO"), without).await? else {
        return ask_otherwise(shown, conn, read_only).await;
    };
    let raw = reply::bytes(answer)?.unwrap_or_default();
    let info = String::from_utf8_lossy(&raw).into_owned();
    let field = |name: &str| field(&info, name);
    if let (Some(oldest), Some(version)) = (too_old(&info), field("redis_version")) {
        return Err(StoreError::Fatal(format!(
            "{shown} runs Redis {version}; CiderFS needs {oldest} or later, or Valkey"
        )));
    }
    if is_without_aof(&info) {
        tracing::warn!(
            "AOF is not enabled on {shown}: what Redis acknowledged may be lost if it is not shut down properly"
        );
    }
    if let Some(policy) = evicts(&info).filter(|_| !read_only) {
        let mut set = cmd("CONFIG");
        set.arg("SET").arg("maxmemory-policy").arg("noeviction");
        match conn.send_packed_command(&set).await.and_then(Reply::extract_error) {
            Ok(_) => tracing::info!("maxmemory-policy of {shown} was {policy}, now noeviction"),
            Err(e) => tracing::warn!(
                "maxmemory-policy of {shown} is {policy}: Redis may drop metadata; set it to noeviction ({})",
                explain(shown, &e, false)
            ),
        }
    }
    let replica_of = (field("role") == Some("slave"))
        .then(|| format!("{}:{}", field("master_host").unwrap_or("?"), field("master_port").unwrap_or("?")));
    Ok(Server { cluster: field("cluster_enabled") == Some("1"), replica_of })
}

/// The same without `INFO`.
async fn ask_otherwise(
    shown: &str,
    conn: &mut MultiplexedConnection,
    read_only: bool,
) -> Result<Server, StoreError> {
    let mut slots = cmd("CLUSTER");
    slots.arg("SLOTS");
    let cluster = match conn.send_packed_command(&slots).await.and_then(Reply::extract_error) {
        Ok(_) => true,
        // A server that is not part of a cluster says no, too.
        Err(e) if e.code().is_some() => false,
        Err(e) => return Err(explain_connect(shown, &e)),
    };
    if read_only || cluster {
        return Ok(Server { cluster, replica_of: None });
    }
    if let Some(role) = comfort(shown, conn, &cmd("ROLE"), "").await? {
        let mut parts = reply::array(role)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let role = reply::bytes(next())?.unwrap_or_default();
        let replica_of = match &role[..] {
            b"slave" => {
                let host = reply::bytes(next())?.unwrap_or_default();
                let port = reply::int(next())?.unwrap_or(0);
                Some(format!("{}:{port}", String::from_utf8_lossy(&host)))
            }
            _ => None,
        };
        return Ok(Server { cluster, replica_of });
    }
    // A removal of nothing changes nothing, and a replica refuses it.
    let mut nothing = cmd("DEL");
    nothing.arg(NOTHING);
    match conn.send_packed_command(&nothing).await.and_then(Reply::extract_error) {
        Err(e) if is_read_only(&e) => {
            Ok(Server { cluster, replica_of: Some("a server that it does not name".to_owned()) })
        }
        Err(e) if e.code().is_none() => Err(explain_connect(shown, &e)),
        _ => Ok(Server { cluster, replica_of: None }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_memory_is_the_setting_or_else_the_machine() {
        let info = |maxmemory: u64| {
            format!("# Memory\r\nused_memory:1000\r\ntotal_system_memory:9000\r\nmaxmemory:{maxmemory}\r\n")
        };
        let memory = |info: String| memory(info.as_bytes());
        assert_eq!(memory(info(2000)), Some(EngineMemory { used: 1000, limit: 2000 }));
        assert_eq!(memory(info(0)), Some(EngineMemory { used: 1000, limit: 9000 }));
        assert_eq!(memory("used_memory:7".into()), Some(EngineMemory { used: 7, limit: 0 }));
        assert_eq!(memory("# Memory".into()), None);
    }
}
