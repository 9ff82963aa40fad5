//! Who is alive, and what time the fleet has.
//!
//! Clocks of two machines are never compared: each may be hours off, and jump. What an engine with a clock of its own has measured
//! counts ([`Store::now`](crate::store::Store::now)); else a session is dead when what it last stored has not changed for its
//! whole life while this client looked.

use ciderfs_format::SessionId;
use std::collections::HashMap;
use std::time::Duration;

use ciderfs_format::session::SessionInfo;
use parking_lot::Mutex;

use crate::error::Result;
use crate::types::SessionRow;
use crate::volume::Meta;

/// Refreshes that a session may miss.
const LIFE_HEARTBEATS: u32 = 5;
/// Life of a session of the official client that was not seen to be refreshed yet: of its usual heartbeat.
const USUAL_LIFE: Duration = Duration::from_secs(60);
/// Who expires later than this is not refreshed at all, by whatever clock.
const NOT_REFRESHED: i64 = 86_400;
/// A client that looks less often than this many heartbeats was frozen itself, and so may others have been.
const LOOK_MAX: u32 = 2;
/// From so many seconds on a clock is off.
const SKEW_MAX: i64 = 2;

/// What the fleet's time is known from.
#[derive(Default)]
pub(crate) struct Liveness {
    /// The engine's clock, and this machine's steady one at that time.
    engine: Mutex<Option<(i64, Duration)>>,
    /// The engine's clock has jumped (another server took over): nobody is declared dead by it before this.
    jumped_until: Mutex<Duration>,
    seen: Mutex<HashMap<SessionId, Seen>>,
}

/// How a session was seen.
#[derive(Debug, Clone, Copy)]
struct Seen {
    expire: i64,
    /// How far the expiry has moved when it changed last.
    step: Option<i64>,
    /// Time under observation since then.
    unchanged: Duration,
    looked: Duration,
}

/// What our sessions tell beside the official client's fields.
struct Told {
    life: i64,
    engine_clock: bool,
}

impl Told {
    fn by(row: &SessionRow) -> Option<Self> {
        let info = SessionInfo::decode(&row.info).ok()?;
        Some(Self { life: info.life?, engine_clock: info.engine_clock? })
    }
}

impl Meta {
    /// Unix seconds by the engine's clock, if it has one.
    pub(crate) async fn engine_now(&self) -> Result<Option<i64>> {
        if self.clock.is_the_engines() {
            return Ok(Some(self.clock.now().sec));
        }
        let begun = self.clock.steady();
        let Some(now) = self.retry(|| self.store.now()).await? else { return Ok(None) };
        let mut last = self.liveness.engine.lock();
        if let Some((before, at)) = *last {
            let ahead = now.saturating_sub(before).saturating_sub(begun.saturating_sub(at).as_secs() as i64);
            if ahead > SKEW_MAX {
                tracing::warn!("the clock of the metadata engine has jumped by {ahead} s");
                *self.liveness.jumped_until.lock() = begun + self.life();
            }
        }
        *last = Some((now, begun));
        Ok(Some(now))
    }

    /// The fleet's unix seconds without asking: as the engine told last, else by this machine's clock.
    pub(crate) fn fleet_now(&self) -> i64 {
        match *self.liveness.engine.lock() {
            Some((now, at)) => now + self.clock.steady().saturating_sub(at).as_secs() as i64,
            None => self.clock.now().sec,
        }
    }

    /// Says so if this machine's clock is not the engine's.
    pub(crate) async fn compare_clocks(&self) -> Result<()> {
        let Some(now) = self.engine_now().await? else { return Ok(()) };
        let off = self.clock.now().sec - now;
        if off.abs() >= SKEW_MAX {
            tracing::warn!(
                "the clock of this machine is {} s {} that of {}: times of files come from it, and the official client \
                 may take sessions for dead by it; set it, best by NTP",
                off.abs(),
                if off > 0 { "ahead of" } else { "behind" },
                self.store.describe()
            );
        }
        Ok(())
    }

    fn life(&self) -> Duration {
        self.cfg.heartbeat * LIFE_HEARTBEATS
    }

    /// Looks at all sessions. Those that are dead, and whether somebody else should have ended them long ago.
    pub(crate) fn look_at(&self, rows: &[SessionRow], engine: Option<i64>) -> Vec<(SessionId, bool)> {
        let now = self.clock.steady();
        let engine = engine.filter(|_| now >= *self.liveness.jumped_until.lock());
        let most = self.cfg.heartbeat * LOOK_MAX;
        let mut seen = self.liveness.seen.lock();
        seen.retain(|sid, _| rows.iter().any(|r| r.sid == *sid));
        let mut dead = Vec::new();
        for row in rows.iter().filter(|r| r.sid != self.sid()) {
            let fresh = Seen { expire: row.expire, step: None, unchanged: Duration::ZERO, looked: now };
            let s = seen.entry(row.sid).or_insert(fresh);
            if s.expire == row.expire {
                s.unchanged += now.saturating_sub(s.looked).min(most);
            } else {
                *s = Seen { step: Some(row.expire.saturating_sub(s.expire)), ..fresh };
            }
            s.looked = now;
            if let Some(overdue) = judge(row, s, engine, self.clock.now().sec) {
                dead.push((row.sid, overdue));
            }
        }
        dead
    }
}

/// `None` for who lives, else whether it has been dead for a life already.
fn judge(row: &SessionRow, seen: &Seen, engine: Option<i64>, machine: i64) -> Option<bool> {
    let told = Told::by(row);
    let life = match &told {
        Some(told) => Duration::from_secs(told.life.max(1).unsigned_abs()),
        None if row.expire.saturating_sub(engine.unwrap_or(machine)) > NOT_REFRESHED => return None,
        None => match seen.step {
            Some(step) if (1..NOT_REFRESHED).contains(&step) => {
                Duration::from_secs(step.unsigned_abs()) * LIFE_HEARTBEATS
            }
            _ => USUAL_LIFE,
        },
    };
    if seen.unchanged >= life {
        return Some(seen.unchanged >= life.saturating_mul(2));
    }
    let now = engine?;
    told.filter(|told| told.engine_clock && row.expire <= now)
        .map(|told| row.expire.saturating_add(told.life) <= now)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn row(expire: i64, info: &str) -> SessionRow {
        SessionRow { sid: SessionId(1), expire, info: info.to_owned().into() }
    }

    fn seen(step: Option<i64>, unchanged: u64) -> Seen {
        Seen { expire: 0, step, unchanged: Duration::from_secs(unchanged), looked: Duration::ZERO }
    }

    const OURS: &str = r#"{"Life":60,"EngineClock":true}"#;
    const IN_A_FILE: &str = r#"{"Life":60,"EngineClock":false}"#;

    /// Whatever this machine's clock says.
    #[test]
    fn only_the_engine_clock_and_what_was_seen_count() {
        for machine in [0, 1_000, 1_000_000] {
            let judged = |row: &SessionRow, seen, engine| judge(row, &seen, engine, machine);
            assert_eq!(judged(&row(1_000, OURS), seen(None, 0), Some(999)), None);
            assert_eq!(judged(&row(1_000, OURS), seen(None, 0), Some(1_000)), Some(false));
            assert_eq!(judged(&row(1_000, OURS), seen(None, 0), Some(1_060)), Some(true));
            assert_eq!(
                judged(&row(90_000, OURS), seen(None, 60), Some(0)),
                Some(false),
                "the engine's clock went back"
            );
            for engine in [None, Some(5_000)] {
                assert_eq!(judged(&row(1_000, IN_A_FILE), seen(None, 59), engine), None);
                assert_eq!(judged(&row(1_000, IN_A_FILE), seen(None, 60), engine), Some(false));
            }
        }
    }

    /// The official client's expiry is of its own clock.
    #[test]
    fn the_official_client_is_judged_by_what_it_does() {
        let judged = |expire, seen| judge(&row(expire, r#"{"Version":"1.4.2"}"#), &seen, Some(1_000_000), 0);
        for expire in [990_000, 1_000_000, 1_050_000] {
            assert_eq!(judged(expire, seen(Some(2), 9)), None);
            assert_eq!(judged(expire, seen(Some(2), 10)), Some(false));
            assert_eq!(judged(expire, seen(None, 59)), None);
            assert_eq!(judged(expire, seen(None, 60)), Some(false));
        }
        assert_eq!(judged(1_000_000 + 30_000_000, seen(None, 1_000)), None, "mounted without a heartbeat");
    }
}
