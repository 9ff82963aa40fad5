//! `ciderfs csi`: the driver for Kubernetes.

mod make;

use std::sync::Arc;

use ciderfs_csi::{Driver, Mode};
use ciderfs_format::shown;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::args::Args;
use crate::cli::table::{CSI_ENDPOINT, CSI_MODE, DRIVER_NAME, NODEID, SECRETS_DIR};
use crate::failure::{Failure, Result};

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
        let listener = listener.map_err(|e| Failure::new(format!("{}: {e}", shown(&socket))))?;
        tracing::info!("{} listens at {}", driver.name, shown(&socket));
        ciderfs_csi::serve(driver, listener, stop).await?;
        let _ = std::fs::remove_file(&socket);
        Ok(())
    })
}
