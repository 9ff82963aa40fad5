//! `.accesslog`: a line for each request, told to whoever reads it (`docs/monitoring.md#accesslog-and-ciderfs-profile`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ciderfs_meta::Errno;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes that wait for one reader at most; what does not fit is left out.
const WAITING_MAX: usize = 1 << 20;
/// Readers at a time.
const READERS_MAX: usize = 64;
/// A reader for whom there is nothing hears that after this long.
const IDLE: Duration = Duration::from_secs(1);
/// What it hears.
const NOTHING: &[u8] = b"#\n";

/// Who reads.
#[derive(Default)]
pub struct AccessLog {
    readers: Mutex<Vec<Weak<Reader>>>,
    is_read: AtomicBool,
}

impl AccessLog {
    /// Does anybody read? Otherwise nothing needs to be written.
    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    /// Tells a request, in one line without its time of day.
    pub fn tell(&self, line: &str) {
        let line = format!("{} {line}\n", moment(ciderfs_rt::wall_clock()));
        let mut readers = self.readers.lock();
        readers.retain(|reader| reader.upgrade().map(|reader| reader.hear(line.as_bytes())).is_some());
        self.is_read.store(!readers.is_empty(), Ordering::Relaxed);
    }

    pub(crate) fn open(&self) -> Result<Arc<Reader>, Errno> {
        let mut readers = self.readers.lock();
        readers.retain(|reader| reader.strong_count() > 0);
        if readers.len() >= READERS_MAX {
            return Err(Errno::EBUSY);
        }
        let reader = Arc::new(Reader::default());
        readers.push(Arc::downgrade(&reader));
        self.is_read.store(true, Ordering::Relaxed);
        Ok(reader)
    }
}

/// An open handle.
#[derive(Default)]
pub(crate) struct Reader {
    waiting: Mutex<Vec<u8>>,
    news: Notify,
}

impl Reader {
    fn hear(&self, line: &[u8]) {
        let mut waiting = self.waiting.lock();
        if waiting.len() + line.len() <= WAITING_MAX {
            waiting.extend_from_slice(line);
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// What has happened, at most so many bytes.
    pub(crate) async fn read(&self, size: usize) -> Bytes {
        loop {
            {
                let mut waiting = self.waiting.lock();
                if !waiting.is_empty() {
                    let first = waiting.len().min(size);
                    let rest = waiting.split_off(first);
                    return std::mem::replace(&mut *waiting, rest).into();
                }
            }
            if ciderfs_rt::timeout(IDLE, self.news.notified()).await.is_err() {
                return Bytes::from_static(NOTHING).slice(..NOTHING.len().min(size));
            }
        }
    }
}

/// The time of day in UTC.
fn moment(at: SystemTime) -> String {
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (at.as_secs() / 86_400, at.as_secs() % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}.{month:02}.{day:02} {:02}:{:02}:{:02}.{:06}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        at.subsec_micros()
    )
}

/// The date so many days after the first of January 1970.
fn date(days: u64) -> (u64, u64, u64) {
    // Years begin with March, so that the day that some years have more is their last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_is_told() {
        let at = |seconds, micros: u32| UNIX_EPOCH + Duration::new(seconds, micros * 1000);
        assert_eq!(moment(at(0, 0)), "1970.01.01 00:00:00.000000");
        assert_eq!(moment(at(951_782_399, 5)), "2000.02.28 23:59:59.000005");
        assert_eq!(moment(at(951_782_400, 0)), "2000.02.29 00:00:00.000000");
        assert_eq!(moment(at(1_796_038_656, 192_090)), "2026.11.30 11:37:36.192090");
        assert_eq!(moment(at(4_107_542_399, 0)), "2100.02.28 23:59:59.000000");
        assert_eq!(moment(at(4_107_542_400, 0)), "2100.03.01 00:00:00.000000");
    }

    #[tokio::test]
    async fn each_reader_hears_every_line_and_nobody_grows_without_bound() {
        let log = AccessLog::default();
        assert!(!log.is_read());
        let (a, b) = (log.open().unwrap(), log.open().unwrap());
        assert!(log.is_read());
        log.tell("lookup (1,a) - OK <0.000001>");
        for reader in [&a, &b] {
            let all = [reader.read(10).await, reader.read(1000).await].concat();
            assert!(String::from_utf8(all).unwrap().ends_with(" lookup (1,a) - OK <0.000001>\n"));
        }
        drop(b);
        let long = "x".repeat(100_000);
        (0..100).for_each(|_| log.tell(&long));
        let waiting = a.read(usize::MAX).await;
        assert!(waiting.len() <= WAITING_MAX && waiting.ends_with(b"x\n"));
        assert_eq!(a.read(10).await, NOTHING);
        drop(a);
        log.tell("nobody");
        assert!(!log.is_read());
        let all: Vec<_> = (0..READERS_MAX).map(|_| log.open().unwrap()).collect();
        assert_eq!(log.open().err(), Some(Errno::EBUSY));
        drop(all);
    }
}
