//! A service whose volume another process has mounted already, such as `mount` in a shell. The manager is told that all is well,
//! and this process lives as long as that mount: the unit is active while it is there, a stop unmounts it, and a death of its
//! server is a failure of the unit, which then mounts anew.

use ciderfs_format::shown;

use super::stop::Signals;
use crate::commands::mountpoint::{End, Occupant};
use crate::failure::{Failure, Result};
use crate::service::Manager;

/// Waits for the end of a mount of somebody else. A signal ends only the waiting.
pub async fn follow(occupant: &Occupant, manager: &'static Manager, text: &str) -> Result<()> {
    let mut signals = Signals::new()?;
    let hangups = signals.hup.take();
    tokio::spawn(async move {
        let Some(mut hangups) = hangups else { return };
        while hangups.recv().await.is_some() {
            tracing::warn!("another process serves the mount: send SIGHUP to that one");
        }
    });
    manager.ready(&format!("{text}, by another process"));
    manager.watch(|| true);
    tokio::select! {
        end = occupant.end() => match end {
            End::Gone => Ok(()),
            End::Dead => Err(Failure::new(format!("the process that served {} has died", shown(occupant.place())))),
        },
        _ = signals.end() => Ok(()),
    }
}
