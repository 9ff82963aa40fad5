//! The store.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ciderfs_format::redis_keys::{self, Keys};
use ciderfs_format::{Ino, Secret, Slice};
use ciderfs_meta::store::{
    Commit, Counter, DirCursor, DirEntry, EngineMemory, Guard, Job, LeftOut, Outcome, Output, Read, Scan,
    Scanned, Store, StoreError, Value, Write,
};
use redis::{Cmd, Value as Reply};

use crate::address::{Address, Place};
use crate::encode::{Existing, Reports, encode};
use crate::error::{Refusal, explain, is_no_script, is_nobody};
use crate::limits;
use crate::link::{CallError, Link};
use crate::reads::{self, Ask};
use crate::reply::{self, Result};
use crate::script::{Lua, Scripts};
use crate::server::{self, Server};
use crate::topology::Servers;

/// Directories up to this size are listed whole, in one turn.
const WHOLE_DIR_MAX: usize = 1000;
/// Ranges of chunks longer than this are found by a walk over the keys instead of a loop of the script, which stops the
/// server for as long as it runs.
const LOOPED_CHUNKS_MAX: u32 = 1 << 14;
/// Commits that hold although the script says no: records that are equal in meaning but not in bytes.
const REPHRASED_MAX: usize = 3;
/// First pause before a server that is not ready is asked again, and the longest.
const READY_PAUSE_MIN: Duration = Duration::from_millis(50);
const READY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Where nobody answers it is said after this.
const NOBODY_PATIENCE: Duration = Duration::from_secs(10);

/// How a store is opened.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// For an address without a password, before the environment (`REDIS_PASSWORD`, `META_PASSWORD`, `META_PASSWORD_FILE`).
    pub password: Option<Secret>,
    /// Never write.
    pub read_only: bool,
    /// How long a server may have to become ready before the store is opened.
    pub patience: Duration,
}

/// A volume in Redis.
pub struct RedisStore {
    pub(crate) keys: Keys,
    pub(crate) scripts: Scripts,
    /// Reads and commits.
    quick: Link,
    /// Long answers.
    long: Link,
    shown: String,
    options: Options,
    turns: AtomicU64,
    /// The server does not tell its time.
    clockless: AtomicBool,
    /// The user may not ask for parts of values.
    rangeless: AtomicBool,
    pub(crate) left_out: LeftOut,
}

impl RedisStore {
    /// Opens an address (see [`Address`]) and looks at the server. One that is not ready yet is waited for.
    ///
    /// # Errors
    /// `Fatal` with a remedy for a wrong address, password or version, for missing rights, and for a replica that is to be
    /// written; `Unavailable` if the server was not ready in time.
    pub async fn open(url: &str, options: Options) -> Result<Self> {
        let address = Address::parse(url)?;
        let shown = address.to_string();
        let mut servers = Servers::new(address, options.password.clone())?;
        let found = wait_until_ready(options.patience, || look(&servers, &shown, options.read_only)).await?;
        if let (true, None, Place::Single(node)) = (found.cluster, &servers.cluster, &servers.address.place) {
            servers.cluster = Some(vec![node.clone()]);
        }
        let keys = match &servers.cluster {
            Some(_) => Keys::cluster(servers.address.db),
            None => Keys::plain(),
        };
        let servers = Arc::new(servers);
        Ok(Self {
            keys,
            scripts: Scripts::new(),
            quick: Link::new(Arc::clone(&servers)),
            long: Link::new(servers),
            shown,
            options,
            turns: AtomicU64::new(0),
            clockless: AtomicBool::new(false),
            rangeless: AtomicBool::new(false),
            left_out: LeftOut::default(),
        })
    }

    pub(crate) fn read_only(&self) -> bool {
        self.options.read_only
    }

    fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// What a failed call means; `writes` if it may have changed something before the connection broke.
    fn error(&self, e: CallError, writes: bool) -> StoreError {
        match e {
            CallError::Unsent(e) => e,
            CallError::Failed(e) => explain(&self.shown, &e, writes),
        }
    }

    /// One command on the connection for long answers.
    pub(crate) async fn bulk(&self, cmd: &Cmd) -> Result<Reply> {
        self.turn();
        self.long.send(cmd).await.map_err(|e| self.error(e, false))
    }

    /// A script that may be repeated, on the connection for long answers.
    pub(crate) async fn script_bulk(
        &self,
        lua: &Lua,
        keys: &[impl AsRef<[u8]>],
        args: &[impl AsRef<[u8]>],
    ) -> Result<Reply> {
        self.script(&self.long, lua, keys, args, false).await
    }

    async fn script(
        &self,
        link: &Link,
        lua: &Lua,
        keys: &[impl AsRef<[u8]>],
        args: &[impl AsRef<[u8]>],
        writes: bool,
    ) -> Result<Reply> {
        self.turn();
        match link.send(&lua.call(false, keys, args)).await {
            Err(CallError::Failed(e)) if is_no_script(&e) => {}
            other => return other.map_err(|e| self.error(e, writes)),
        }
        self.turn();
        link.send(&lua.call(true, keys, args)).await.map_err(|e| self.error(e, writes))
    }

    fn refuse_if_read_only(&self) -> Result<()> {
        if self.options.read_only {
            return Err(StoreError::fatal(format!("{} is open read-only", self.shown)));
        }
        Ok(())
    }

    /// The record of an inode, which is asked for most: a plain command costs the server a fraction of a script, and this one has
    /// a bound as well. `None` where the script is to answer: for a record that is not there, too long or none, and for a user who
    /// may not use the command.
    async fn record(&self, ino: Ino) -> Result<Option<Reply>> {
        if self.rangeless.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.turn();
        let mut ask = redis::cmd("GETRANGE");
        ask.arg(self.keys.node(ino)).arg(0).arg(limits::SMALL);
        match self.quick.send(&ask).await {
            Ok(Reply::BulkString(raw)) if !raw.is_empty() && raw.len() <= limits::SMALL => {
                Ok(Some(Reply::BulkString(raw)))
            }
            Ok(_) => Ok(None),
            Err(CallError::Failed(e)) if Refusal::of(&e).is_some() => {
                if !self.rangeless.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "{} does not let us use GETRANGE: asking for attributes costs it several times as much",
                        self.shown
                    );
                }
                Ok(None)
            }
            Err(e) => Err(self.error(e, false)),
        }
    }

    /// The answers to all commands of some reads, by a script, which bounds them and tells them as they are at one moment: a
    /// pipeline may be served in pieces, and of a transaction a server that is full refuses even what only reads.
    async fn ask(&self, reads: &[Read]) -> Result<Vec<Reply>> {
        if let [Read::Attr(ino)] = reads
            && let Some(record) = self.record(*ino).await?
        {
            return Ok(vec![record]);
        }
        let asks: Vec<Ask> = reads.iter().flat_map(|r| reads::commands(&self.keys, r)).collect();
        let (keys, args) = reads::script_args(asks);
        reply::array(self.script(&self.quick, &self.scripts.read, &keys, &args, false).await?)
    }

    /// Finds the existing chunks of files that a commit appends to over very long ranges.
    async fn find_chunks(&self, commit: &Commit) -> Result<Existing> {
        let mut found = Existing::new();
        for write in &commit.writes {
            if let Write::AppendSliceIfExists(ino, range, _) = write
                && range.len() > LOOPED_CHUNKS_MAX as usize
                && !found.contains_key(ino)
            {
                found.insert(*ino, self.chunk_indexes(*ino).await?);
            }
        }
        Ok(found)
    }

    /// Runs the commit script. `Err` holds the true values and, for attribute records, their stored bytes.
    async fn run(
        &self,
        commit: &Commit,
        raw: &[Option<Vec<u8>>],
        chunks: &Existing,
    ) -> Result<std::result::Result<Vec<Output>, Truths>> {
        let encoded = encode(&self.keys, commit, raw, chunks);
        let answer =
            self.script(&self.quick, &self.scripts.commit, &encoded.keys, &encoded.args, true).await?;
        let mut parts = reply::array(answer)?.into_iter();
        let done = reply::int(parts.next().unwrap_or_default())? == Some(1);
        let rest = reply::array(parts.next().unwrap_or_default())?;
        if done {
            return Ok(Ok(outputs(&encoded.reports, rest)?));
        }
        let mut truths = Truths::default();
        let mut rest = rest.into_iter();
        for guard in &commit.guards {
            let v = rest.next().unwrap_or_default();
            truths.raw.push(match (guard, &v) {
                (Guard::Attr { .. }, Reply::BulkString(raw)) => Some(raw.clone()),
                _ => None,
            });
            truths.values.push(reads::truth(&guard.read(), v)?);
        }
        Ok(Err(truths))
    }
}

/// Connects and looks at the server.
async fn look(servers: &Servers, shown: &str, read_only: bool) -> Result<Server> {
    let mut conn = servers.probe().await?;
    let found = server::check(shown, &mut conn, read_only).await?;
    match (&found.replica_of, &servers.address.place) {
        (Some(master), _) if read_only => tracing::debug!("{shown} is a replica of {master}"),
        // The sentinels have not agreed on another master yet, or this one does not know that it is one.
        (Some(master), Place::Sentinel { .. }) => {
            return Err(StoreError::unavailable(format!(
                "{shown}: the master is still a replica of {master}"
            )));
        }
        (Some(master), _) => {
            return Err(StoreError::fatal(format!(
                "{shown} is a read-only replica of {master}; use the address of its master"
            )));
        }
        (None, _) => {}
    }
    Ok(found)
}

/// Tries again as long as a server is not ready. Where nobody answers at all, the address is probably wrong: that is said soon.
async fn wait_until_ready<T, F: Future<Output = Result<T>>>(
    patience: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    let begun = Instant::now();
    let mut pause = READY_PAUSE_MIN;
    loop {
        let e = match attempt().await {
            Err(e @ StoreError::Unavailable(_)) => e,
            other => return other,
        };
        let whole = if is_nobody(&e) { patience.min(NOBODY_PATIENCE) } else { patience };
        if begun.elapsed() >= whole {
            return Err(e);
        }
        if pause == READY_PAUSE_MIN {
            tracing::warn!("{e}; trying again for {} s", whole.as_secs());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(READY_PAUSE_MAX);
    }
}

#[derive(Default)]
struct Truths {
    values: Vec<Value>,
    raw: Vec<Option<Vec<u8>>>,
}

fn outputs(reports: &[Reports], answers: Vec<Reply>) -> Result<Vec<Output>> {
    let mut answers = answers.into_iter();
    let mut next = || answers.next().ok_or_else(|| StoreError::corrupt("an output of a commit is missing"));
    reports
        .iter()
        .map(|r| {
            Ok(match r {
                Reports::Nothing => Output::None,
                Reports::Int(plus) => Output::Int(reply::int(next()?)?.unwrap_or(0).saturating_add(*plus)),
                Reports::Attr => Output::Attr(reply::attr(next()?)?),
                Reports::Taken => {
                    let mut flat = reply::array(next()?)?.into_iter();
                    let mut taken = Vec::with_capacity(flat.len() / 2);
                    while let (Some(record), Some(n)) = (flat.next(), flat.next()) {
                        let slice = Slice::decode(&reply::bytes(record)?.unwrap_or_default())?;
                        let slice = Slice { id: slice.id, size: slice.size, ..Slice::default() };
                        taken.push((slice, reply::int(n)?.unwrap_or(0).saturating_add(1)));
                    }
                    Output::Slices(taken)
                }
            })
        })
        .collect()
}

#[async_trait]
impl Store for RedisStore {
    fn engine(&self) -> &'static str {
        "redis"
    }

    fn lists_in_order(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        self.shown.clone()
    }

    async fn read(&self, reads: &[Read]) -> Result<Vec<Value>> {
        if reads.is_empty() {
            return Ok(Vec::new());
        }
        let mut replies = self.ask(reads).await?.into_iter();
        reads.iter().map(|r| reads::value(r, &mut replies)).collect()
    }

    async fn commit(&self, commit: &Commit) -> Result<Outcome> {
        self.refuse_if_read_only()?;
        let chunks = self.find_chunks(commit).await?;
        let mut raw = Vec::new();
        for _ in 0..REPHRASED_MAX {
            match self.run(commit, &raw, &chunks).await? {
                Ok(outputs) => return Ok(Outcome::Done(outputs)),
                Err(truths) => {
                    let holds = commit.guards.iter().zip(&truths.values).all(|(g, v)| g.holds(v));
                    if !holds {
                        return Ok(Outcome::Conflict(truths.values));
                    }
                    raw = truths.raw;
                }
            }
        }
        Err(StoreError::corrupt(format!(
            "a record in {} is stored in a form that cannot be compared",
            self.shown
        )))
    }

    async fn list_dir(
        &self,
        dir: Ino,
        cursor: &DirCursor,
        limit: usize,
        attrs: bool,
    ) -> Result<(Vec<DirEntry>, DirCursor)> {
        let from = match cursor {
            DirCursor::Start => 0,
            DirCursor::Scan(at) => *at,
            DirCursor::After(_) => {
                return Err(StoreError::corrupt("a listing goes on at a cursor of another engine"));
            }
            DirCursor::End => return Ok((Vec::new(), DirCursor::End)),
        };
        let args = [
            from.to_string(),
            limit.max(1).to_string(),
            WHOLE_DIR_MAX.to_string(),
            u8::from(attrs).to_string(),
            self.keys.prefix.clone(),
        ];
        let answer = self.script_bulk(&self.scripts.list, &[self.keys.dir(dir)], &args).await?;
        let mut parts = reply::array(answer)?.into_iter();
        let mut part = || parts.next().unwrap_or_default();
        let next: u64 = reply::number(&reply::bytes(part())?.unwrap_or_default())?;
        let names = reply::pairs(part())?;
        let mut records = reply::array(part())?.into_iter();
        let mut entries = Vec::with_capacity(names.len());
        for (name, edge) in names {
            let attr =
                if attrs { reply::attr(records.next().unwrap_or_default()).unwrap_or(None) } else { None };
            let edge = ciderfs_format::Edge::decode(&edge).unwrap_or(DirEntry::UNREADABLE);
            entries.push(DirEntry { name: name.to_vec(), edge, attr });
        }
        Ok((entries, if next == 0 { DirCursor::End } else { DirCursor::Scan(next) }))
    }

    async fn allocate(&self, counter: Counter, count: u64) -> Result<Range<u64>> {
        self.refuse_if_read_only()?;
        let first = match counter {
            // 0 and 1 are no numbers of new inodes, 0 is no slice.
            Counter::NextInode => 2,
            Counter::NextChunk => 1,
            other => return Err(StoreError::corrupt(format!("{other:?} hands out no numbers"))),
        };
        loop {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            // Numbers take no room, and compaction, which frees some, needs them.
            let ask = Commit { guards: Vec::new(), writes: vec![Write::AddCounter(counter, count)] };
            let answer = self.run(&ask, &[], &Existing::new()).await.map_err(|e| match e {
                // A lost reply burns numbers, nothing more.
                StoreError::Ambiguous(reason) => StoreError::Unavailable(reason),
                other => other,
            })?;
            let last = match answer.unwrap_or_default().first() {
                Some(Output::Int(n)) => u64::try_from(*n).ok(),
                _ => None,
            };
            let last = last.unwrap_or(0);
            // What was negative before would lead to numbers that are in use.
            let Some(before) = last.checked_sub(count.unsigned_abs()) else {
                // Else the next to ask would find it sound.
                let back = Write::AddCounter(counter, count.saturating_neg());
                let back = Commit { guards: Vec::new(), writes: vec![back] };
                drop(self.run(&back, &[], &Existing::new()).await);
                let text = format!("the counter {counter:?} is damaged: it must be above all numbers in use");
                return Err(StoreError::corrupt(text));
            };
            let end = last.saturating_add(1);
            let range = before.saturating_add(1).max(first)..end;
            if !range.is_empty() {
                return Ok(range);
            }
        }
    }

    async fn claim(&self, job: Job, now: i64, min_interval: i64) -> Result<bool> {
        self.refuse_if_read_only()?;
        let stamp = self.keys.counter(match job {
            Job::CleanupSessions => redis_keys::Counter::LastCleanupSessions,
            Job::CleanupFiles => redis_keys::Counter::LastCleanupFiles,
            Job::CleanupTrash => redis_keys::Counter::LastCleanupTrash,
            Job::CleanupSlices => redis_keys::Counter::NextCleanupSlices,
        });
        let args = [now, now.saturating_sub(min_interval), now.saturating_add(min_interval)];
        let args = args.map(|at| at.to_string());
        let answer = self.script(&self.quick, &self.scripts.claim, &[stamp], &args, false).await?;
        Ok(reply::int(answer)? == Some(1))
    }

    async fn scan(&self, scan: &Scan, limit: usize) -> Result<Vec<Scanned>> {
        self.walk(scan, limit).await
    }

    async fn create_schema(&self) -> Result<()> {
        Ok(())
    }

    async fn now(&self) -> Result<Option<i64>> {
        self.turn();
        match self.quick.send(&redis::cmd("TIME")).await {
            Ok(answer) => {
                let mut parts = reply::array(answer)?.into_iter();
                reply::int(parts.next().unwrap_or_default())
            }
            Err(CallError::Failed(e)) if Refusal::of(&e).is_some() => {
                if !self.clockless.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "{}; sessions are judged by what this client sees of them",
                        explain(&self.shown, &e, false)
                    );
                }
                Ok(None)
            }
            Err(e) => Err(self.error(e, false)),
        }
    }

    async fn memory(&self) -> Result<Option<EngineMemory>> {
        match self.quick.send(redis::cmd("INFO").arg("memory")).await {
            Ok(answer) => Ok(reply::bytes(answer)?.and_then(|raw| server::memory(&raw))),
            Err(CallError::Failed(e)) if Refusal::of(&e).is_some() => Ok(None),
            Err(e) => Err(self.error(e, false)),
        }
    }

    fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }
}
