//! A driver on a socket, with a file system on a real engine.
#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use ciderfs_csi::proto::controller_client::ControllerClient;
use ciderfs_csi::proto::identity_client::IdentityClient;
use ciderfs_csi::proto::volume_capability::access_mode::Mode as Access;
use ciderfs_csi::proto::volume_capability::{AccessMode, AccessType, MountVolume};
use ciderfs_csi::proto::*;
use ciderfs_csi::{Driver, Mode};
use ciderfs_format::{Ino, Settings};
use ciderfs_meta::{Caller, Meta, MetaConfig};
use ciderfs_testkit::redis::{RedisOptions, RedisServer};
use ciderfs_volume::{Engine as Address, Purpose};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

pub const GIB: i64 = 1 << 30;
/// Stands in addresses and Secrets; nowhere else.
pub const HUSH: &str = "hush-7f3a";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Redis,
    Sqlite,
}

pub struct Kit {
    pub redis: Option<RedisServer>,
    pub url: String,
    pub dir: TempDir,
    with_secret: bool,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    channel: Option<Channel>,
}

impl Kit {
    /// A file system with a driver that keeps a Secret of it, or not.
    pub async fn new(engine: Engine, with_secret: bool) -> Self {
        listen_to_logs();
        let dir = tempfile::Builder::new().prefix("ciderfs-csi").tempdir().unwrap();
        let (url, redis) = match engine {
            Engine::Sqlite => (format!("sqlite3://{}", dir.path().join("meta.db").display()), None),
            Engine::Redis => {
                let redis =
                    RedisServer::start(RedisOptions { password: Some(HUSH.into()), ..Default::default() });
                let redis = redis.unwrap();
                (redis.url_db(1), Some(redis))
            }
        };
        let mut kit = Self { redis, url, dir, with_secret, running: None, channel: None };
        let bucket = kit.dir.path().join("objects");
        std::fs::create_dir(&bucket).unwrap();
        let mut settings = Settings::new(
            "vol",
            "5d2b1c9a-7d0c-4a2b-9a35-3a1f6a4d2c11",
            "file",
            &format!("{}/", bucket.display()),
        );
        settings.trash_days = 0;
        let store = kit.address().open(Purpose::Create).await.unwrap();
        store.create_schema().await.unwrap();
        Meta::write_settings(store.as_ref(), &settings, None).await.unwrap();
        kit.start().await;
        kit
    }

    fn address(&self) -> Address<'_> {
        Address { address: OsStr::new(&self.url), password: None }
    }

    pub fn secrets(&self) -> BTreeMap<String, String> {
        let pairs = [("name", "vol"), ("metaurl", &self.url), ("secret-key", HUSH)];
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("csi.sock")
    }

    async fn start(&mut self) {
        let secrets_dir = self.with_secret.then(|| {
            let dir = self.dir.path().join("secret");
            std::fs::create_dir_all(&dir).unwrap();
            for (key, value) in self.secrets() {
                std::fs::write(dir.join(key), value).unwrap();
            }
            dir
        });
        let driver = Driver {
            name: "csi.test".into(),
            node_id: "node-1".into(),
            mode: Mode::Controller,
            secrets_dir,
            formatter: None,
        };
        let listener = ciderfs_csi::server::listen(&self.socket()).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let stopped = async { _ = stopped.await };
            ciderfs_csi::serve(driver, listener, stopped).await.unwrap();
        });
        let uri = format!("unix://{}", self.socket().display());
        self.channel = Some(Endpoint::from_shared(uri).unwrap().connect().await.unwrap());
        self.running = Some((stop, task));
    }

    /// Ends the driver as if it was killed, and starts another one.
    pub async fn restart(&mut self) {
        self.channel = None;
        if let Some((stop, task)) = self.running.take() {
            drop(stop);
            task.await.unwrap();
        }
        self.start().await;
    }

    pub fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone().unwrap())
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone().unwrap()
    }

    pub fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel.clone().unwrap())
    }

    /// The file system, past the driver.
    pub async fn meta(&self) -> Arc<Meta> {
        let store = self.address().open(Purpose::Change).await.unwrap();
        Meta::load(store, MetaConfig { no_bgjob: true, ..MetaConfig::default() }).await.unwrap()
    }

    pub fn request(&self, name: &str) -> CreateVolumeRequest {
        CreateVolumeRequest {
            name: name.into(),
            volume_capabilities: vec![capability(Access::MultiNodeMultiWriter)],
            capacity_range: Some(CapacityRange { required_bytes: GIB, limit_bytes: 0 }),
            secrets: self.secrets(),
            ..Default::default()
        }
    }

    pub async fn create(&self, name: &str) -> Volume {
        self.create_as(self.request(name)).await.unwrap()
    }

    pub async fn create_as(&self, request: CreateVolumeRequest) -> Result<Volume, Status> {
        Ok(self.controller().create_volume(request).await?.into_inner().volume.unwrap())
    }

    pub async fn delete(&self, id: &str) -> Result<(), Status> {
        let request = DeleteVolumeRequest { volume_id: id.into(), secrets: self.secrets() };
        self.controller().delete_volume(request).await.map(|_| ())
    }

    pub async fn expand(
        &self,
        id: &str,
        required_bytes: i64,
    ) -> Result<ControllerExpandVolumeResponse, Status> {
        let request = ControllerExpandVolumeRequest {
            volume_id: id.into(),
            capacity_range: Some(CapacityRange { required_bytes, limit_bytes: 0 }),
            secrets: self.secrets(),
            volume_capability: None,
        };
        self.controller().controller_expand_volume(request).await.map(tonic::Response::into_inner)
    }

    pub async fn snapshot(&self, name: &str, volume: &str) -> Result<Snapshot, Status> {
        let request = CreateSnapshotRequest {
            source_volume_id: volume.into(),
            name: name.into(),
            secrets: self.secrets(),
            parameters: BTreeMap::new(),
        };
        Ok(self.controller().create_snapshot(request).await?.into_inner().snapshot.unwrap())
    }
}

pub fn capability(mode: Access) -> VolumeCapability {
    VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

/// The code of a refusal.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> tonic::Code {
    let status = answer.unwrap_err();
    assert!(!status.message().contains(HUSH) && !format!("{status:?}").contains(HUSH), "{status}");
    status.code()
}

/// Is there something at a path?
pub async fn at(meta: &Arc<Meta>, path: &str) -> Option<Ino> {
    let mut ino = Ino::ROOT;
    for name in path.split('/') {
        ino = meta.lookup(&Caller::root(), ino, name.as_bytes()).await.ok()?.0;
    }
    Some(ino)
}

/// Waits until something holds.
pub async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

static LOGS: OnceLock<Logs> = OnceLock::new();

#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<Vec<u8>>>);

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn listen_to_logs() {
    LOGS.get_or_init(|| {
        let logs = Logs::default();
        let to = logs.clone();
        let filter =
            tracing_subscriber::EnvFilter::new("off,ciderfs=trace,ciderfs_csi=trace,ciderfs_meta=debug");
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_writer(move || to.clone())
            .try_init();
        logs
    });
}

/// All that was logged so far.
pub fn logs() -> String {
    String::from_utf8_lossy(&LOGS.get().unwrap().0.lock().unwrap()).into_owned()
}
