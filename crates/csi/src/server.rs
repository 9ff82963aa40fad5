//! Serves the interface on a Unix socket.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, Stream};
use rustix::fs::{FileType, Mode as Bits};
use tokio::net::{UnixListener, UnixStream};
use tonic::Status;
use tonic::transport::Server;

use crate::authority::Renamed;
use crate::controller::ControllerService;
use crate::identity::IdentityService;
use crate::node::NodeService;
use crate::proto::controller_server::ControllerServer;
use crate::proto::identity_server::IdentityServer;
use crate::proto::node_server::NodeServer;
use crate::secrets::Secrets;

/// The name of the driver, where none is chosen.
pub const DEFAULT_NAME: &str = "csi.ciderfs.io";

/// Which services a driver has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Makes and removes volumes.
    Controller,
    /// Mounts them on one machine.
    Node,
    /// Both.
    #[default]
    All,
}

/// Makes the volume that secrets describe, where there is none.
pub trait Formatter: Send + Sync {
    /// Makes it, or finds that somebody else has.
    fn format(&self, secrets: Secrets) -> BoxFuture<'_, Result<(), Status>>;
}

/// A driver.
#[derive(Clone, Default)]
pub struct Driver {
    /// What objects of Kubernetes call it.
    pub name: String,
    /// What the cluster calls this machine.
    pub node_id: String,
    /// Its services.
    pub mode: Mode,
    /// A Secret as a directory, for calls that come without any.
    pub secrets_dir: Option<PathBuf>,
    /// Makes volumes where StorageClasses ask for it.
    pub formatter: Option<Arc<dyn Formatter>>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {:?} ({:?})", self.name, self.node_id, self.mode)
    }
}

/// The place of a socket in the words of Kubernetes: `unix:///csi/csi.sock`, or a path.
pub fn socket_path(endpoint: &str) -> Option<PathBuf> {
    let path =
        endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:")).unwrap_or(endpoint);
    (!path.is_empty() && !path.contains("://")).then(|| PathBuf::from(path))
}

/// Listens at a place. A socket that nobody listens at any more is removed first; anything else that is there stays.
///
/// # Errors
/// Somebody listens there, something else is there, or the system refuses.
pub async fn listen(path: &Path) -> io::Result<UnixListener> {
    match rustix::fs::lstat(path) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::Socket => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something that is no socket"));
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another driver listens there"));
        }
        Ok(_) => std::fs::remove_file(path)?,
        Err(rustix::io::Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let listener = UnixListener::bind(path)?;
    // Connecting takes the right to write, which others do not get meanwhile either.
    rustix::fs::chmod(path, Bits::from_raw_mode(0o660))?;
    Ok(listener)
}

/// Those that come, whatever they call this machine.
pub(crate) fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<Renamed>> {
    stream::unfold(listener, async |listener| {
        let connection = listener.accept().await.map(|(connection, _)| Renamed::new(connection));
        Some((connection, listener))
    })
}

/// Serves a driver without volumes of this machine until `stop` is done; calls under way are answered first.
///
/// # Errors
/// Of the socket.
pub async fn serve(
    driver: Driver,
    listener: UnixListener,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    serve_with(driver, None, listener, stop).await
}

/// Serves a driver with its node service, if it has one.
///
/// # Errors
/// Of the socket.
pub async fn serve_with(
    driver: Driver,
    node: Option<NodeService>,
    listener: UnixListener,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let has = |mode| driver.mode == mode || driver.mode == Mode::All;
    let controller =
        has(Mode::Controller).then(|| ControllerServer::new(ControllerService::new(driver.clone())));
    let node = node.filter(|_| has(Mode::Node)).map(NodeServer::new);
    Server::builder()
        .add_service(IdentityServer::new(IdentityService::new(driver)))
        .add_optional_service(controller)
        .add_optional_service(node)
        .serve_with_incoming_shutdown(connections(listener), stop)
        .await
}
