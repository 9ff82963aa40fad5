//! The second copy of what the supervisors of this machine's mounts hold. The mounter has the first; when its container dies, it dies
//! together with all clients, and the next mounter goes on with what is given here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ciderfs_handover::held::{Held, Holder};
use ciderfs_mounter::{Client, Info, State};
use parking_lot::Mutex;

/// A mount that nobody serves for so long is let go: programs that wait for it get an error.
const MOST: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug)]
pub struct Holdings {
    dir: PathBuf,
    all: Mutex<BTreeMap<String, Holding>>,
}

#[derive(Debug)]
struct Holding {
    holder: Holder,
    served: Instant,
}

impl Holdings {
    /// With sockets in a directory.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), all: Mutex::default() }
    }

    /// Takes copies of what is served and not held yet, and lets go what is no more.
    pub fn follow(&self, mounter: &Client, mounts: Option<&[Info]>) {
        let mut all = self.all.lock();
        for info in mounts.unwrap_or_default().iter().filter(|info| info.state == State::Ready) {
            let Some(from) = info.holder.as_ref() else { continue };
            let is_held = |held: &Holding| info.device.is_some() && held.holder.device() == info.device;
            if let Some(held) = all.get_mut(&info.key).filter(|held| is_held(held)) {
                held.served = Instant::now();
                continue;
            }
            all.remove(&info.key);
            match self.take(mounter, &info.key, from) {
                Ok(holder) => _ = all.insert(info.key.clone(), Holding { holder, served: Instant::now() }),
                Err(e) => tracing::warn!("{}: its mount would end with the mounter: {e}", info.volume),
            }
        }
        let is_there = |key: &String| mounts.is_none_or(|mounts| mounts.iter().any(|info| info.key == *key));
        all.retain(|key, held| is_there(key) && held.served.elapsed() < MOST);
    }

    fn take(&self, mounter: &Client, key: &str, from: &Path) -> io::Result<Holder> {
        let holder = Holder::at(self.dir.join(key), Held::from(from)?)?;
        mounter.held(key, holder.path()).map_err(io::Error::other)?;
        Ok(holder)
    }
}
