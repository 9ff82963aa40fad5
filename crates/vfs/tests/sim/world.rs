//! A volume in memory and two mounts of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ciderfs_block::{BlockConfig, BlockStore};
use ciderfs_format::Settings;
use ciderfs_meta::memory::MemoryStore;
use ciderfs_meta::store::Store as _;
use ciderfs_meta::{AtimeMode, Meta, MetaConfig};
use ciderfs_object::ObjectStore;
use ciderfs_vfs::{Metrics, OpenCache, Vfs, VfsConfig};

use crate::engine::{Profile, Slow, SlowObjects, one_in, profile};
use crate::history::History;
use crate::kernel::Kernel;

pub struct World {
    pub mounts: Vec<Arc<Kernel>>,
    pub history: Arc<History>,
    metas: Vec<Arc<Meta>>,
}

impl World {
    pub async fn new(show: bool) -> Self {
        Profile::draw();
        let mut settings = Settings::new("vol", "5d2b1c9a-7d0c-4a2b-9a35-3a1f6a4d2c11", "mem", "mem");
        settings.trash_days = 1;
        settings.block_size_kib = 64;
        let engine = Arc::new(MemoryStore::new());
        engine.create_schema().await.unwrap();
        Meta::write_settings(engine.as_ref(), &settings, None).await.unwrap();
        let objects = Arc::new(ciderfs_object::MemoryStore::default());
        let atime_mode = if one_in(4) { AtimeMode::Strict } else { AtimeMode::NoAtime };
        let (mut mounts, mut metas) = (Vec::new(), Vec::new());
        for n in 0..2 {
            let cfg =
                MetaConfig { heartbeat: Duration::ZERO, no_bgjob: true, atime_mode, ..MetaConfig::default() };
            let meta = Meta::load(Arc::new(Slow(Arc::clone(&engine))), cfg).await.unwrap();
            meta.start_session().await.unwrap();
            let blocks =
                BlockConfig { block_size: 64 << 10, buffer_size: 64 << 20, ..BlockConfig::default() };
            let objects = Arc::new(SlowObjects(Arc::clone(&objects))) as Arc<dyn ObjectStore>;
            let cfg = VfsConfig {
                max_readahead: None,
                hide_internal: true,
                prefix_internal: false,
                sort_dir: false,
                attr_valid: profile().valid,
                open_cache: OpenCache { valid: profile().open_cache, ..OpenCache::default() },
                config_json: serde_json::Value::Null,
                metrics: Arc::new(Metrics::new(HashMap::new()).unwrap()),
                handover: None,
            };
            let vfs = Vfs::new(Arc::clone(&meta), BlockStore::new(objects, blocks).unwrap(), cfg);
            mounts.push(Kernel::new(n, vfs));
            metas.push(meta);
        }
        Self { mounts, history: Arc::new(History::new(show)), metas }
    }

    /// Ends both.
    pub async fn end(&self) {
        for (kernel, meta) in self.mounts.iter().zip(&self.metas) {
            kernel.vfs.shutdown().await;
            meta.close_session().await.unwrap();
        }
    }
}
