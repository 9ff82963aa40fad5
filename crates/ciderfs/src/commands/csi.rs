//! `ciderfs csi`: the driver for Kubernetes.

mod make;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ciderfs_csi::{Driver, Mode, NodeConfig, NodeService, registration};
use ciderfs_format::shown;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::args::Args;
use crate::cli::table::{
    CSI_ENDPOINT, CSI_MODE, DRIVER_NAME, KUBELET_SOCKET, MOUNTER_SOCKET, NODE_DIR, NODEID, RECONCILE,
    REGISTRATION_DIR, SECRETS_DIR,
};
use crate::failure::{Failure, Result};

/// For calls under way when the driver is to end.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Runs the command until SIGTERM or SIGINT.
pub fn run(args: &Args) -> Result<()> {
    args.exactly()?;
    let endpoint = args.get(CSI_ENDPOINT);
    let socket = ciderfs_csi::server::socket_path(endpoint)
        .ok_or_else(|| Failure::new(format!("--endpoint {endpoint}: name a socket: unix:///csi/csi.sock")))?;
    let mode = match args.get(CSI_MODE) {
        "controller" => Mode::Controller,
        "node" => Mode::Node,
        _ => Mode::All,
    };
    let node_id = args.find(NODEID).unwrap_or_default().to_owned();
    if mode != Mode::Controller && node_id.is_empty() {
        return Err(Failure::new("--nodeid is missing: the name of this machine in the cluster"));
    }
    let driver = Driver {
        name: args.get(DRIVER_NAME).to_owned(),
        node_id,
        mode,
        secrets_dir: args.find(SECRETS_DIR).map(Into::into),
        formatter: Some(Arc::new(make::Make)),
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        };
        let listener = ciderfs_csi::server::listen(&socket).await;
        let listener = listener.map_err(|e| Failure::new(format!("{}: {e}", socket.display())))?;
        tracing::info!("{} listens at {}", driver.name, shown(&socket));
        let node = node(&driver, args)?;
        let registration_dir = PathBuf::from(args.get(REGISTRATION_DIR));
        let registers = node.is_some() && !registration_dir.as_os_str().is_empty();
        let name = driver.name.clone();
        let seen = args.find(KUBELET_SOCKET).map_or_else(|| socket.display().to_string(), str::to_owned);
        let (end, ended) = tokio::sync::watch::channel(false);
        let stopped = || {
            let mut ended = ended.clone();
            async move { _ = ended.wait_for(|is_over| *is_over).await }
        };
        let served =
            async { Ok::<_, Failure>(ciderfs_csi::serve_with(driver, node, listener, stopped()).await?) };
        let registered = async {
            if !registers {
                return Ok(());
            }
            let registered = registration::serve(&registration_dir, &name, &seen, stopped()).await;
            registered
                .map_err(|e| Failure::new(format!("registering at {}: {e}", registration_dir.display())))
        };
        let told = async {
            stop.await;
            let _ = end.send(true);
            // Whoever is connected need not hang up.
            tokio::time::sleep(STOP_PATIENCE).await;
        };
        tokio::select! {
            both = async { tokio::try_join!(served, registered) } => { both?; }
            () = told => {}
        }
        if registers {
            let _ = std::fs::remove_file(registration::socket(&registration_dir, &name));
        }
        let _ = std::fs::remove_file(&socket);
        Ok(())
    })
}

/// The node service, if this driver has one.
fn node(driver: &Driver, args: &Args) -> Result<Option<NodeService>> {
    if driver.mode == Mode::Controller {
        return Ok(None);
    }
    let config = NodeConfig {
        mounter: args.get(MOUNTER_SOCKET).into(),
        dir: args.get(NODE_DIR).into(),
        interval: args.get(RECONCILE),
    };
    let started = NodeService::start(driver, &config);
    started.map(Some).map_err(|e| Failure::new(format!("the node service in {}: {e}", config.dir.display())))
}
