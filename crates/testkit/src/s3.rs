//! An S3 server inside the test's process: checks signatures, keeps objects in memory or in a directory, and fails on
//! demand.

mod faults;
mod front;
mod objects;
mod policy;
mod profile;
mod service;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};

pub use faults::{Control, Faults, Op, Request};
use front::Running;
use objects::Objects;
pub use policy::{Policy, Scripted};
pub use profile::{OVH_REGIONS, Profile};
use service::Service;

/// How to start a server.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// 0 picks a free one, which [`S3Server::restart`] keeps.
    pub port: u16,
    /// Directory of the objects; in memory without one. Objects in a directory survive the end of the process.
    pub dir: Option<PathBuf>,
    /// The only key that is accepted.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// Buckets that exist from the start.
    pub buckets: Vec<String>,
    /// Seed of the faults that come by chance.
    pub seed: u64,
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            port: 0,
            dir: None,
            access_key: "test-access-key".to_owned(),
            secret_key: "test-secret-key".to_owned(),
            buckets: Vec::new(),
            seed: 1,
        }
    }
}

/// A running server on 127.0.0.1, with a thread and a runtime of its own. Stops when dropped.
#[derive(Debug)]
pub struct S3Server {
    service: S3Service,
    running: Option<Running>,
    port: u16,
    control: Arc<Control>,
    /// The key that is accepted.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
}

impl S3Server {
    /// Starts a server; it answers when this returns.
    pub async fn start(options: S3Options) -> io::Result<Self> {
        Self::start_now(options)
    }

    /// [`S3Server::start`] for callers without a runtime.
    pub fn start_now(options: S3Options) -> io::Result<Self> {
        let S3Options { port, dir, access_key, secret_key, buckets, seed } = options;
        let objects = Objects::open(dir)?;
        for bucket in &buckets {
            objects.create_bucket(bucket)?;
        }
        Self::serve(Service::new(objects), port, access_key, secret_key, seed)
    }

    /// Serves any S3 implementation with the same front: keys, faults and the log of requests.
    pub(crate) fn serve(
        s3: impl s3s::S3,
        port: u16,
        access_key: String,
        secret_key: String,
        seed: u64,
    ) -> io::Result<Self> {
        let mut builder = S3ServiceBuilder::new(s3);
        builder.set_auth(SimpleAuth::from_single(access_key.clone(), secret_key.clone()));
        builder.set_host(profile::Hosts);
        let service = builder.build();
        let control = Arc::new(Control::new(seed));
        let running = Running::start(service.clone(), Arc::clone(&control), port)?;
        Ok(Self { port: running.port(), service, running: Some(running), control, access_key, secret_key })
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `--bucket` of a volume here.
    pub fn bucket_url(&self, bucket: &str) -> String {
        format!("{}/{bucket}", self.endpoint())
    }

    /// Faults and the log of requests. They outlive [`S3Server::stop`].
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Cuts all connections and frees the port. The objects stay.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// Serves the same objects at the same port again.
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop();
        self.running = Some(Running::start(self.service.clone(), Arc::clone(&self.control), self.port)?);
        Ok(())
    }
}
