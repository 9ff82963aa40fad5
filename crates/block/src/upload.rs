//! How much may be under way to the object store before writers wait.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::sync::Notify;

use crate::config::BlockConfig;

/// Bytes under way that keep a local disk busy.
const LOCAL: u64 = 32 << 20;

/// Bytes that are being uploaded, or wait for a free upload.
pub(crate) struct UploadRoom {
    used: AtomicU64,
    limit: u64,
    freed: Notify,
}

impl UploadRoom {
    /// Room for all uploads and a quarter of them that waits.
    pub(crate) fn new(cfg: &BlockConfig, local: bool) -> Self {
        let all = (cfg.max_uploads as u64).saturating_mul(u64::from(cfg.block_size) / 4 * 5);
        let limit = if local { all.min(LOCAL) } else { all };
        Self { used: AtomicU64::new(0), limit, freed: Notify::new() }
    }

    /// Counts an upload, whether there is room or not.
    pub(crate) fn take(&self, bytes: u64) -> Taken<'_> {
        self.used.fetch_add(bytes, SeqCst);
        Taken { room: self, bytes }
    }

    /// Returns as soon as there is room.
    pub(crate) async fn wait(&self) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Before the look, so that no end of an upload is missed.
            freed.as_mut().enable();
            if self.used.load(SeqCst) < self.limit {
                return;
            }
            freed.await;
        }
    }
}

/// Gives the room back when the upload has ended, well or not.
pub(crate) struct Taken<'a> {
    room: &'a UploadRoom,
    bytes: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, SeqCst);
        self.room.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_room_goes_on_when_an_upload_ends() {
        let cfg = BlockConfig { max_uploads: 2, block_size: 4 << 20, ..BlockConfig::default() };
        let room = UploadRoom::new(&cfg, false);
        let one = room.take(6 << 20);
        room.wait().await;
        let two = room.take(4 << 20);
        let mut waiting = Box::pin(room.wait());
        assert!(waiting.as_mut().now_or_never().is_none(), "10 MiB are what two uploads and a quarter need");
        drop(two);
        waiting.await;
        drop(one);
        assert_eq!(room.used.load(SeqCst), 0);
        assert_eq!(UploadRoom::new(&BlockConfig::default(), true).limit, LOCAL);
    }
}
