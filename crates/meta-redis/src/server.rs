//! What a server must be like (`spec/meta-redis.md` 1.4).

use ciderfs_meta::store::StoreError;
use redis::aio::MultiplexedConnection;
use redis::{Value as Reply, cmd};

use crate::error::explain;
use crate::reply;

/// Oldest server that we test.
const OLDEST: (u32, u32) = (6, 2);

/// What `INFO` told.
pub(crate) struct Server {
    pub cluster: bool,
}

/// Looks at a server. Warns of settings that endanger data.
pub(crate) async fn check(
    shown: &str,
    conn: &mut MultiplexedConnection,
    read_only: bool,
) -> Result<Server, StoreError> {
    let answer = conn.send_packed_command(&cmd("INFO")).await.and_then(Reply::extract_error);
    let raw = reply::bytes(answer.map_err(|e| explain(shown, &e, false))?)?.unwrap_or_default();
    let info = String::from_utf8_lossy(&raw).into_owned();
    let field = |name: &str| {
        info.lines().find_map(|l| l.strip_prefix(name).and_then(|l| l.strip_prefix(':'))).map(str::trim)
    };
    if let Some(version) = field("redis_version") {
        let mut parts = version.split('.').map(|p| p.parse().unwrap_or(0));
        let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if found < OLDEST {
            return Err(StoreError::Fatal(format!(
                "{shown} runs Redis {version}; CiderFS needs {}.{} or later, or Valkey",
                OLDEST.0, OLDEST.1
            )));
        }
    }
    if field("aof_enabled") == Some("0") {
        tracing::warn!(
            "AOF is not enabled on {shown}: what Redis acknowledged may be lost if it is not shut down properly"
        );
    }
    let policy = field("maxmemory_policy").unwrap_or("noeviction");
    if policy != "noeviction" && field("storage_provider") != Some("flash") && !read_only {
        let mut set = cmd("CONFIG");
        set.arg("SET").arg("maxmemory-policy").arg("noeviction");
        match conn.send_packed_command(&set).await.and_then(Reply::extract_error) {
            Ok(_) => tracing::info!("maxmemory-policy of {shown} was {policy}, now noeviction"),
            Err(e) => tracing::warn!(
                "maxmemory-policy of {shown} is {policy}: Redis may drop metadata; set it to noeviction ({e})"
            ),
        }
    }
    Ok(Server { cluster: field("cluster_enabled") == Some("1") })
}
