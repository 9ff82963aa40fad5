//! Objects in Redis: a key for each, with the body for value.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ciderfs_format::{Secret, excerpt, shown_address};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo as _, RedisError, RedisResult};

use crate::error::{ObjectError, Result};
use crate::store::{Entry, MAX_OBJECT, Meta, ObjectStore, too_long};

/// Longest time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for an answer; requests have deadlines of their own.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Keys that a step of a search asks for.
const SCAN: usize = 1000;

/// A database of a Redis server, used as the official client does. A listing searches all of its keys.
pub(crate) struct RedisStore {
    client: Client,
    name: String,
    connection: Mutex<Option<MultiplexedConnection>>,
    /// What a listing has still to tell: its prefix, the last key that was told, and the keys behind it in falling order.
    listing: Mutex<Option<(String, String, Vec<String>)>>,
    secrets: Vec<Secret>,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A text in which nothing stands for anything else in a pattern.
fn literally(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^') {
            out.push('\\');
        }
        out.push(c);
        out
    })
}

impl RedisStore {
    /// Reads `redis[s]://[USER:PASSWORD@]HOST[:PORT][/DB]`; user and password may be given beside it. Nothing is contacted yet.
    pub(crate) fn new(address: &str, user: &str, password: &Secret) -> Result<Self> {
        let shown = shown_address(address);
        let config = |why: &str| ObjectError::Config(format!("bucket address {shown:?} {why}"));
        let form =
            "write redis://HOST:PORT/DB, with --access-key for the user and --secret-key for the password";
        let (scheme, rest) =
            address.split_once("://").ok_or_else(|| config(&format!("is no URL: {form}")))?;
        if !matches!(scheme, "redis" | "rediss" | "unix") {
            return Err(config(&format!("does not fit storage redis: {form}")));
        }
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        if host.split('/').next().is_some_and(|hosts| hosts.contains(',')) {
            return Err(config(
                "names several servers: storage redis takes a single server here; use the address of the master, or S3",
            ));
        }
        let info =
            address.into_connection_info().map_err(|e| config(&format!("cannot be read ({e}): {form}")))?;
        let mut settings = info.redis_settings().clone();
        if !user.is_empty() {
            settings = settings.set_username(user);
        }
        if !password.is_empty() {
            settings = settings.set_password(password.expose());
        }
        let within =
            rest.rsplit_once('@').and_then(|(user, _)| user.split_once(':')).map(|(_, it)| it.to_owned());
        let secrets = Secret::given(within).into_iter().chain([password.clone()]).collect();
        let client = Client::open(info.set_redis_settings(settings)).map_err(|e| config(&e.to_string()))?;
        let name = format!("redis {shown}");
        Ok(Self { client, name, connection: Mutex::default(), listing: Mutex::default(), secrets })
    }

    fn error(&self, e: &RedisError) -> ObjectError {
        let said = self.secrets.iter().fold(e.to_string(), |text, secret| secret.hidden_in(&text));
        let at = format!("{}: {}", self.name, excerpt(&said));
        // Those of commands that were sent together are only in the text.
        let is = |codes: &[&str]| {
            codes.iter().any(|code| e.code() == Some(code) || said.contains(&format!("\"{code}\":")))
        };
        if is(&["NOAUTH", "WRONGPASS", "NOPERM"]) || e.kind() == ErrorKind::AuthenticationFailed {
            return ObjectError::AccessDenied(format!(
                "{at}; check --access-key, the user, and --secret-key"
            ));
        }
        if is(&["OOM"]) {
            return ObjectError::NoSpace(format!("{at}; raise maxmemory of the server"));
        }
        if is(&["MOVED", "ASK", "CLUSTERDOWN"]) {
            return ObjectError::Config(format!(
                "{at}; storage redis takes no cluster here: use a single server, or S3"
            ));
        }
        if e.is_connection_refusal() || e.is_io_error() && self.connection.lock().is_none() {
            return ObjectError::Unreachable(format!("{at}; check host and port in the bucket address"));
        }
        if e.is_io_error() || e.is_timeout() || is(&["LOADING", "BUSY", "TRYAGAIN", "READONLY", "EXECABORT"])
        {
            return ObjectError::Server(at);
        }
        ObjectError::Other(at)
    }

    async fn connected(&self) -> RedisResult<MultiplexedConnection> {
        if let Some(connection) = self.connection.lock().clone() {
            return Ok(connection);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        *self.connection.lock() = Some(connection.clone());
        Ok(connection)
    }

    async fn ask<T: redis::FromRedisValue>(&self, pipe: &redis::Pipeline) -> Result<T> {
        let answer = async {
            let mut connection = self.connected().await?;
            pipe.query_async(&mut connection).await
        };
        answer.await.map_err(|e: RedisError| {
            let error = self.error(&e);
            if e.is_unrecoverable_error() || e.is_io_error() {
                *self.connection.lock() = None;
            }
            error
        })
    }

    async fn command<T: redis::FromRedisValue>(&self, name: &str, args: &[&[u8]]) -> Result<T> {
        let mut pipe = redis::pipe();
        let command = pipe.cmd(name);
        for arg in args {
            command.arg(*arg);
        }
        let (answer,): (T,) = self.ask(&pipe).await?;
        Ok(answer)
    }

    /// All keys with a prefix after another, in falling order.
    async fn search(&self, prefix: &str, after: &str) -> Result<Vec<String>> {
        let pattern = format!("{}*", literally(prefix));
        let count = SCAN.to_string();
        let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
        loop {
            let args: [&[u8]; 5] =
                [cursor.as_bytes(), b"MATCH", pattern.as_bytes(), b"COUNT", count.as_bytes()];
            let (next, keys): (String, Vec<Vec<u8>>) = self.command("SCAN", &args).await?;
            // Others may keep something else here, whose names are no text.
            let keys = keys.into_iter().filter_map(|key| String::from_utf8(key).ok());
            found.extend(keys.filter(|key| key.as_str() > after && key.starts_with(prefix)));
            if next == "0" {
                break;
            }
            cursor = next;
        }
        // A search may tell a key twice.
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        Ok(found)
    }
}

#[async_trait]
impl ObjectStore for RedisStore {
    async fn put_in_tier(&self, key: &str, body: Bytes, _tier: u8) -> Result<()> {
        self.command("SET", &[key.as_bytes(), &body]).await
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<bool> {
        self.command("SETNX", &[key.as_bytes(), &body]).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let Some(range) = range else { return self.get_whole(key, MAX_OBJECT).await };
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("EXISTS").arg(key);
        pipe.cmd("GETRANGE").arg(key).arg(range.start).arg(range.end - 1);
        let (is_there, body): (bool, Vec<u8>) = self.ask(&pipe).await?;
        if is_there { Ok(body.into()) } else { Err(ObjectError::NotFound(key.to_owned())) }
    }

    async fn get_whole(&self, key: &str, most: u64) -> Result<Bytes> {
        // A byte more than it may have tells that there is more.
        let body = self.get(key, Some(0..most + 1)).await?;
        if body.len() as u64 > most { Err(too_long(key, most)) } else { Ok(body) }
    }

    async fn head(&self, key: &str) -> Result<Meta> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("EXISTS").arg(key);
        pipe.cmd("STRLEN").arg(key);
        let (is_there, size): (bool, u64) = self.ask(&pipe).await?;
        // There are no times: what looks old could be deleted as a leftover.
        if is_there { Ok(Meta { size, mtime: None }) } else { Err(ObjectError::NotFound(key.to_owned())) }
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let _: u64 = self.command("DEL", &[key.as_bytes()]).await?;
        Ok(())
    }

    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>> {
        let going = self.listing.lock().take_if(|(p, last, _)| p == prefix && last == start_after);
        let mut left = match going {
            Some((_, _, left)) => left,
            None => self.search(prefix, start_after).await?,
        };
        let mut found = Vec::new();
        while found.len() < limit && !left.is_empty() {
            let page = left.split_off(left.len().saturating_sub(SCAN.min(limit - found.len())));
            let mut pipe = redis::pipe();
            pipe.atomic();
            for key in page.iter().rev() {
                pipe.cmd("EXISTS").arg(key);
                pipe.cmd("STRLEN").arg(key);
            }
            let sizes: Vec<u64> = self.ask(&pipe).await?;
            for (key, answer) in page.into_iter().rev().zip(sizes.chunks_exact(2)) {
                // It may have been deleted since.
                if let [1, size] = answer {
                    found.push(Entry { key, size: *size, mtime: None });
                }
            }
        }
        if let Some(last) = found.last().filter(|_| !left.is_empty()) {
            *self.listing.lock() = Some((prefix.to_owned(), last.key.clone(), left));
        }
        Ok(found)
    }

    async fn create_bucket(&self, _key: &str) -> Result<()> {
        Ok(())
    }

    fn describe(&self) -> String {
        self.name.clone()
    }

    fn supports_range(&self) -> bool {
        true
    }

    fn device(&self) -> Option<u64> {
        None
    }
}
