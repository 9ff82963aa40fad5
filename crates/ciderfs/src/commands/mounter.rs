//! `ciderfs mounter`: keeps the clients of a machine for `ciderfs csi`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ciderfs_mounter::{Client, Config, init, metrics};

use crate::cli::args::Args;
use crate::cli::command::Command;
use crate::cli::parse;
use crate::cli::table::{CLIENT_METRICS, MOUNT_DIR, MOUNTER_SOCKET, NO_SUPERVISOR, RUN_DIR, TRANSIENT_UNITS};
use crate::failure::{Failure, Result};
use crate::http;

/// A client of an earlier configuration may have the address for a while.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// Runs the command until the process ends. Clients go on.
pub fn run(args: &Args) -> Result<()> {
    args.exactly()?;
    if init::is_needed() {
        return Ok(init::run()?);
    }
    let can_supervise = parse::find(Command::Mount, b"supervised").is_some();
    let config = Config {
        socket: PathBuf::from(args.get(MOUNTER_SOCKET)),
        run_dir: PathBuf::from(args.get(RUN_DIR)),
        mount_dir: PathBuf::from(args.get(MOUNT_DIR)),
        program: std::env::current_exe()?,
        supervised: can_supervise && !args.get(NO_SUPERVISOR),
        units: args.get(TRANSIENT_UNITS),
    };
    if !args.get(CLIENT_METRICS).is_empty() {
        serve_metrics(args.get(CLIENT_METRICS).to_owned(), &config)?;
    }
    ciderfs_mounter::serve(config).map_err(|e| Failure::new(format!("the mounter cannot work: {e}")))
}

/// Serves the figures of all clients. Mounts do not depend on it.
fn serve_metrics(address: String, config: &Config) -> Result<()> {
    let (client, run_dir) = (Client::new(&config.socket), config.run_dir.clone());
    let text: http::Text = Arc::new(move || metrics::gather(&client, &run_dir));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = async move {
        loop {
            match http::listen(&address, true).await {
                Ok((listener, at)) => {
                    tracing::info!("Prometheus metrics of all clients at http://{at}/metrics");
                    break http::serve(listener, text);
                }
                Err(e) => tracing::error!("no metrics endpoint at {address} yet: {e}"),
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
        std::future::pending::<()>().await;
    };
    std::thread::Builder::new().name("metrics".into()).spawn(move || runtime.block_on(serve))?;
    Ok(())
}
