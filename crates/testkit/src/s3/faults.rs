//! What goes wrong, and what was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::policy::{Policy, Scripted};
use super::profile::{Profile, Strict};

/// Requests that the log keeps; later ones are only counted.
const MAX_LOG: usize = 100_000;

/// Kinds of S3 requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// PUT of an object.
    Put,
    /// GET of an object.
    Get,
    /// HEAD of an object or bucket.
    Head,
    /// DELETE of an object or bucket.
    Delete,
    /// GET of a bucket.
    List,
    /// PUT of a bucket.
    CreateBucket,
    /// Anything else.
    Other,
}

impl Op {
    /// By method and path, path style.
    pub(crate) fn of(method: &str, path: &str) -> Self {
        let object = path.trim_start_matches('/').split_once('/').is_some_and(|(_, key)| !key.is_empty());
        match (method, object) {
            ("PUT", true) => Self::Put,
            ("GET", true) => Self::Get,
            ("HEAD", _) => Self::Head,
            ("DELETE", _) => Self::Delete,
            ("GET", false) => Self::List,
            ("PUT", false) => Self::CreateBucket,
            _ => Self::Other,
        }
    }

    /// By the name in metrics: PUT, GET, HEAD, DELETE, LIST or CREATE.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "PUT" => Self::Put,
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "DELETE" => Self::Delete,
            "LIST" => Self::List,
            "CREATE" => Self::CreateBucket,
            _ => return None,
        })
    }
}

/// What goes wrong from now on. Of the counted faults the first that is not used up happens, in the order of the fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// Kinds of requests that are affected; empty means all.
    pub only: Vec<Op>,
    /// This many requests are answered with `status` and not done.
    pub fail_next: u32,
    /// This many requests never get an answer and are not done.
    pub hang_next: u32,
    /// This many requests are done, then the connection is cut instead of answering.
    pub lose_reply_next: u32,
    /// This many answers break off in the middle of the body.
    pub truncate_next: u32,
    /// This many answers have a wrong byte in the body.
    pub corrupt_next: u32,
    /// Part of the other requests, 0 to 1, that is answered with `status`.
    pub fail_rate: f64,
    /// Part of the rest, 0 to 1, that is done without an answer.
    pub lose_reply_rate: f64,
    /// 503 says `SlowDown`, 403 `AccessDenied`, other statuses `InternalError`.
    pub status: u16,
    /// Before each answer.
    pub latency: Duration,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            only: Vec::new(),
            fail_next: 0,
            hang_next: 0,
            lose_reply_next: 0,
            truncate_next: 0,
            corrupt_next: 0,
            fail_rate: 0.0,
            lose_reply_rate: 0.0,
            status: 500,
            latency: Duration::ZERO,
        }
    }
}

impl Faults {
    /// Reads `name=value` pairs: the fields' names, `latency_ms`, and `only` with commas.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut faults = Self::default();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| format!("{pair}: no value"))?;
            let number = || value.parse::<u32>().map_err(|e| format!("{pair}: {e}"));
            let rate = || value.parse::<f64>().map_err(|e| format!("{pair}: {e}"));
            match name {
                "only" => {
                    let ops =
                        value.split(',').map(|v| Op::parse(v).ok_or_else(|| format!("{pair}: unknown")));
                    faults.only = ops.collect::<Result<_, _>>()?;
                }
                "fail_next" => faults.fail_next = number()?,
                "hang_next" => faults.hang_next = number()?,
                "lose_reply_next" => faults.lose_reply_next = number()?,
                "truncate_next" => faults.truncate_next = number()?,
                "corrupt_next" => faults.corrupt_next = number()?,
                "fail_rate" => faults.fail_rate = rate()?,
                "lose_reply_rate" => faults.lose_reply_rate = rate()?,
                "status" => faults.status = value.parse().map_err(|e| format!("{pair}: {e}"))?,
                "latency_ms" => faults.latency = Duration::from_millis(number()?.into()),
                _ => return Err(format!("{pair}: unknown")),
            }
        }
        Ok(faults)
    }
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Normal,
    Fail(u16),
    Hang,
    LoseReply,
    Truncate,
    Corrupt,
}

/// A request that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its kind.
    pub op: Op,
    /// Bucket and key, percent-encoded, with a slash before each.
    pub path: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `X-Amz-Content-Sha256` header.
    pub payload_hash: Option<String>,
    /// The `X-Amz-Storage-Class` header.
    pub storage_class: Option<String>,
    /// The `X-Amz-Tagging` header, as it was sent.
    pub tagging: Option<String>,
    /// HTTP status of the answer; 0 if there was none.
    pub status: u16,
    /// Bytes of the request's body by its header.
    pub received: u64,
    /// Bytes of the answer's body by its header.
    pub sent: u64,
}

#[derive(Debug, Default)]
struct Log {
    requests: Vec<Request>,
    counts: HashMap<Op, u64>,
}

/// Handle on a server's faults and log.
#[derive(Debug)]
pub struct Control {
    faults: Mutex<(Faults, SmallRng)>,
    policy: Mutex<Policy>,
    script: Mutex<Vec<Scripted>>,
    strict: Mutex<Option<Arc<Strict>>>,
    log: Mutex<Log>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            faults: Mutex::new((Faults::default(), SmallRng::seed_from_u64(seed))),
            policy: Mutex::default(),
            script: Mutex::default(),
            strict: Mutex::default(),
            log: Mutex::default(),
        }
    }

    /// Restricts the key.
    pub fn restrict(&self, policy: Policy) {
        *lock(&self.policy) = policy;
    }

    /// Makes the server as strict as a certain service, or as lenient as it was.
    pub fn behave_as(&self, profile: Option<Profile>) {
        *lock(&self.strict) = profile.map(|profile| Arc::new(Strict::new(profile)));
    }

    pub(crate) fn strict(&self) -> Option<Arc<Strict>> {
        lock(&self.strict).clone()
    }

    /// Replaces the prescribed answers.
    pub fn prescribe(&self, script: Vec<Scripted>) {
        *lock(&self.script) = script;
    }

    pub(crate) fn allows(&self, op: Op, path: &str, query: &str) -> bool {
        lock(&self.policy).allows(op, path, query)
    }

    pub(crate) fn prescribed(&self, op: Op) -> Option<Scripted> {
        let mut script = lock(&self.script);
        let next = script.iter_mut().find(|s| s.op == op && s.times > 0)?;
        next.times -= 1;
        Some(next.clone())
    }

    /// Replaces the faults.
    pub fn set(&self, faults: Faults) {
        lock(&self.faults).0 = faults;
    }

    /// The faults as they are: counted ones have been counted down.
    pub fn faults(&self) -> Faults {
        lock(&self.faults).0.clone()
    }

    /// Requests that have been answered, or will never be, by kind.
    pub fn count(&self, op: Op) -> u64 {
        lock(&self.log).counts.get(&op).copied().unwrap_or(0)
    }

    /// The requests since the start or the last [`Control::clear`], up to a limit of 100000.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.log).requests.clone()
    }

    /// Forgets requests and counts.
    pub fn clear(&self) {
        *lock(&self.log) = Log::default();
    }

    pub(crate) fn record(&self, request: Request) {
        let mut log = lock(&self.log);
        *log.counts.entry(request.op).or_default() += 1;
        if log.requests.len() < MAX_LOG {
            log.requests.push(request);
        }
    }

    pub(crate) fn fate(&self, op: Op) -> (Fate, Duration) {
        let mut state = lock(&self.faults);
        let (faults, rng) = &mut *state;
        if !faults.only.is_empty() && !faults.only.contains(&op) {
            return (Fate::Normal, Duration::ZERO);
        }
        let status = faults.status;
        for (left, fate) in [
            (&mut faults.fail_next, Fate::Fail(status)),
            (&mut faults.hang_next, Fate::Hang),
            (&mut faults.lose_reply_next, Fate::LoseReply),
            (&mut faults.truncate_next, Fate::Truncate),
            (&mut faults.corrupt_next, Fate::Corrupt),
        ] {
            if *left > 0 {
                *left -= 1;
                return (fate, faults.latency);
            }
        }
        let mut hit = |rate: f64| rate > 0.0 && rng.random_bool(rate.min(1.0));
        let fate = if hit(faults.fail_rate) {
            Fate::Fail(status)
        } else if hit(faults.lose_reply_rate) {
            Fate::LoseReply
        } else {
            Fate::Normal
        };
        (fate, faults.latency)
    }
}
