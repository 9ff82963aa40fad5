//! How fast bodies may be sent and received.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What a request may send or receive at a time, and what may be made up for after a delay: this much time's worth.
const SHARE: Duration = Duration::from_millis(50);
/// Bytes that are worth a turn at least.
const MIN_SHARE: u64 = 1 << 10;
/// Bytes per second of 1 Mbps.
const MBPS: u64 = 1_000_000 / 8;

/// Bandwidth of a client, for the bodies of PUTs and GETs. Every store that is opened with it shares it; a change has effect at once,
/// on requests under way too. Waiting for a share is not part of a request's deadline.
#[derive(Debug, Default)]
pub struct Bandwidth {
    pub(crate) upload: Pace,
    pub(crate) download: Pace,
}

impl Bandwidth {
    /// Sets the limits of both directions, Mbps; 0 for none.
    pub fn set(&self, upload: u64, download: u64) {
        for (pace, mbps) in [(&self.upload, upload), (&self.download, download)] {
            pace.rate.store(mbps.saturating_mul(MBPS), Relaxed);
        }
    }
}

/// One direction: a bucket that holds [`SHARE`]. Whoever waits gets a share in turn, so that a small body does not wait for the end
/// of large ones.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Bytes per second; 0 for any number.
    rate: AtomicU64,
    /// Who comes first is served first.
    turns: tokio::sync::Mutex<()>,
    /// When everything that was given out is used up.
    used_up: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn is_limited(&self) -> bool {
        self.rate.load(Relaxed) > 0
    }

    /// Waits until `bytes` may pass.
    pub(crate) async fn take(&self, bytes: u64) {
        let mut left = bytes;
        while left > 0 {
            left -= self.share(left).await;
        }
    }

    /// Waits until some of `wanted` bytes may pass; how many.
    pub(crate) async fn share(&self, wanted: u64) -> u64 {
        if !self.is_limited() {
            return wanted;
        }
        let _turn = self.turns.lock().await;
        loop {
            let rate = self.rate.load(Relaxed);
            if rate == 0 {
                return wanted;
            }
            let now = Instant::now();
            let free = {
                let mut used_up = self.used_up.lock();
                let free = used_up.unwrap_or(now);
                if free <= now {
                    let most = (rate as f64 * SHARE.as_secs_f64()) as u64;
                    let share = wanted.min(most.max(MIN_SHARE));
                    // What a late timer has left over is used, what was not asked for is not.
                    let from = now.checked_sub(SHARE).map_or(free, |earliest| free.max(earliest));
                    *used_up = Some(from + Duration::from_secs_f64(share as f64 / rate as f64));
                    return share;
                }
                free
            };
            tokio::time::sleep_until(free).await;
        }
    }
}

tokio::task_local! {
    static WAITS: Arc<Waits>;
}

/// How long a request has waited for its share.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<(Duration, Option<Instant>)>);

impl Waits {
    /// Those of the request that this task is about.
    pub(crate) fn current() -> Arc<Self> {
        WAITS.try_with(Arc::clone).unwrap_or_default()
    }

    /// Counts the wait. A request has one at a time.
    pub(crate) async fn during<T>(&self, wait: impl Future<Output = T>) -> T {
        let _counted = Counted::begin(self);
        wait.await
    }

    fn so_far(&self) -> Duration {
        let (total, since) = *self.0.lock();
        total + since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// Ends a wait, also one that is given up.
struct Counted<'a>(&'a Waits);

impl<'a> Counted<'a> {
    fn begin(waits: &'a Waits) -> Self {
        waits.0.lock().1 = Some(Instant::now());
        Self(waits)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let (total, since) = &mut *self.0.0.lock();
        *total += since.take().map_or(Duration::ZERO, |since| since.elapsed());
    }
}

/// The result of a request that ends within its time, which is not what it waits for its share. `None` if it does not.
pub(crate) async fn within<T>(time: Duration, request: impl Future<Output = T>) -> Option<T> {
    let waits = Arc::new(Waits::default());
    let mut request = std::pin::pin!(WAITS.scope(Arc::clone(&waits), request));
    let start = Instant::now();
    let end = || start.checked_add(time.saturating_add(waits.so_far()));
    loop {
        let Some(asked) = end() else { return Some(request.await) };
        if let Ok(result) = tokio::time::timeout_at(asked, &mut request).await {
            return Some(result);
        }
        // It has waited since.
        if end().is_some_and(|end| end <= Instant::now()) {
            return None;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    fn limited(mbps: u64) -> Arc<Bandwidth> {
        let bandwidth = Arc::new(Bandwidth::default());
        bandwidth.set(mbps, 0);
        bandwidth
    }

    async fn timed<T>(work: impl Future<Output = T>) -> Duration {
        let start = Instant::now();
        work.await;
        start.elapsed()
    }

    fn is_about(found: Duration, seconds: f64) -> bool {
        (found.as_secs_f64() - seconds).abs() <= 0.1 + seconds / 100.0
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_passes_than_the_limit() {
        let bandwidth = limited(8);
        // A second's worth each.
        let took = timed(join_all((0..10).map(|_| bandwidth.upload.take(1_000_000)))).await;
        assert!(is_about(took, 10.0), "{took:?}");
        assert!(timed(bandwidth.download.take(u64::MAX)).await.is_zero(), "the other way has no limit");
        // What was not used for a while is not there later.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let took = timed(bandwidth.upload.take(2_000_000)).await;
        assert!(is_about(took, 2.0), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_is_short_and_comes_in_turn() {
        let bandwidth = limited(8);
        let large: Vec<_> = (0..9)
            .map(|_| {
                let bandwidth = Arc::clone(&bandwidth);
                tokio::spawn(async move { bandwidth.upload.take(100_000_000).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(bandwidth.upload.share(1_000_000).await, 50_000);
        // A tenth of the bandwidth for 100 KB.
        let took = timed(bandwidth.upload.take(100_000)).await;
        assert!(is_about(took, 1.0), "{took:?}");
        large.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_have_effect_on_what_is_under_way() {
        let bandwidth = limited(1);
        let change = async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            bandwidth.set(16, 0);
            tokio::time::sleep(Duration::from_secs(2)).await;
            bandwidth.set(0, 0);
        };
        // 1 MB in the first part, 4 MB in the second, the rest at once.
        let took = timed(async { tokio::join!(bandwidth.upload.take(50_000_000), change) }).await;
        assert!(is_about(took, 10.0), "{took:?}");
        let bandwidth = limited(16);
        let change = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            bandwidth.set(8, 0);
        };
        let took = timed(async { tokio::join!(bandwidth.upload.take(12_000_000), change) }).await;
        assert!(is_about(took, 10.0), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_counts_what_is_not_a_wait() {
        let second = Duration::from_secs(1);
        let bandwidth = limited(8);
        let request = |before: Duration, bytes| {
            let bandwidth = Arc::clone(&bandwidth);
            async move {
                tokio::time::sleep(before).await;
                Waits::current().during(bandwidth.upload.take(bytes)).await;
                tokio::time::sleep(before).await;
            }
        };
        assert!(within(second, request(second / 4, 60_000_000)).await.is_some());
        assert!(within(second, request(second / 3 * 2, 1_000_000)).await.is_none());
        // It hangs after its wait, or before.
        let start = Instant::now();
        let hang = async {
            request(Duration::ZERO, 5_000_000).await;
            std::future::pending::<()>().await;
        };
        assert!(within(second, hang).await.is_none());
        assert!(is_about(start.elapsed(), 6.0), "{:?}", start.elapsed());
        assert!(within(second, std::future::pending::<()>()).await.is_none());
        assert!(within(Duration::MAX, async {}).await.is_some());
    }
}
