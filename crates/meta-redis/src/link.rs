//! A connection that is replaced when it breaks.

use std::sync::Arc;
use std::time::Instant;

use ciderfs_meta::store::StoreError;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, RedisResult, Value as Reply};
use tokio::sync::Mutex;

use crate::error::is_lost;
use crate::topology::Servers;

/// A failed attempt to connect answers everybody who waited for it; no storm of attempts.
struct Failed {
    at: Instant,
    error: StoreError,
}

#[derive(Default)]
struct State {
    generation: u64,
    conn: Option<MultiplexedConnection>,
    failed: Option<Failed>,
}

/// One multiplexed connection.
pub(crate) struct Link {
    servers: Arc<Servers>,
    state: Mutex<State>,
}

/// A call that went wrong.
pub(crate) enum CallError {
    /// There was no connection: nothing was sent.
    Unsent(StoreError),
    /// The call failed.
    Failed(RedisError),
}

impl Link {
    pub fn new(servers: Arc<Servers>) -> Self {
        Self { servers, state: Mutex::default() }
    }

    async fn get(&self) -> Result<(u64, MultiplexedConnection), StoreError> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(conn) = &state.conn {
            return Ok((state.generation, conn.clone()));
        }
        if let Some(failed) = state.failed.as_ref().filter(|f| f.at > asked) {
            return Err(failed.error.clone());
        }
        match self.servers.connect().await {
            Ok(conn) => {
                state.generation += 1;
                state.failed = None;
                state.conn = Some(conn.clone());
                Ok((state.generation, conn))
            }
            Err(error) => {
                state.failed = Some(Failed { at: Instant::now(), error: error.clone() });
                Err(error)
            }
        }
    }

    async fn drop_generation(&self, generation: u64) {
        let mut state = self.state.lock().await;
        if state.generation == generation {
            state.conn = None;
        }
    }

    /// Sends one command.
    pub async fn send(&self, cmd: &Cmd) -> Result<Reply, CallError> {
        let (generation, mut conn) = self.get().await.map_err(CallError::Unsent)?;
        let result = conn.send_packed_command(cmd).await.and_then(Reply::extract_error);
        self.judge(generation, result).await
    }

    async fn judge<T>(&self, generation: u64, result: RedisResult<T>) -> Result<T, CallError> {
        match result {
            Ok(v) => Ok(v),
            Err(e) => {
                if is_lost(&e) {
                    self.drop_generation(generation).await;
                }
                Err(CallError::Failed(e))
            }
        }
    }
}
