//! Serves the interface on a Unix socket.

use std::io;
use std::path::{Path, PathBuf};

use futures_util::stream;
use rustix::fs::{FileType, Mode as Bits};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::Server;

use crate::controller::ControllerService;
use crate::identity::IdentityService;
use crate::node::NodeService;
use crate::proto::controller_server::ControllerServer;
use crate::proto::identity_server::IdentityServer;
use crate::proto::node_server::NodeServer;

/// The name of the driver, where none is chosen.
pub const DEFAULT_NAME: &str = "csi.ciderfs.io";

/// Which services a driver has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Makes and removes volumes.
    Controller,
    /// Mounts them on one machine.
    Node,
    /// Both.
    All,
}

/// A driver.
#[derive(Debug, Clone)]
pub struct Driver {
    /// What objects of Kubernetes call it.
    pub name: String,
    /// What the cluster calls this machine.
    pub node_id: String,
    /// Its services.
    pub mode: Mode,
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
    // Nobody could connect with other rights before the first call is taken: that is below.
    rustix::fs::chmod(path, Bits::from_raw_mode(0o660))?;
    Ok(listener)
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
    let connections = stream::unfold(listener, async |listener| {
        let connection = listener.accept().await.map(|(connection, _)| connection);
        Some((connection, listener))
    });
    Server::builder()
        .add_service(IdentityServer::new(IdentityService::new(driver)))
        .add_optional_service(controller)
        .add_optional_service(node)
        .serve_with_incoming_shutdown(connections, stop)
        .await
}
