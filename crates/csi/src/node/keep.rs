//! What is done about volumes on a machine. All of it may block, for a bounded time: it runs on threads for that.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ciderfs_mounter::protocol::Error;
use ciderfs_mounter::{Client, Info, Refusal, Spec, State};
use rustix::fs::Mode;
use tonic::Status;

use super::bind::{self, There};
use super::hold::Holdings;
use super::state::{Known, Memory, Stage, Target};
use super::volume::Access;
use crate::locks::Locks;

/// For a client to start, or to store what is left: less than kubelet waits.
const CLIENT: Duration = Duration::from_secs(90);

/// What a request wants to have mounted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// All of it, if the request has the Secret for it.
    pub spec: Option<Spec>,
    /// The option with its SELinux context.
    pub selinux: Option<String>,
}

/// The volumes of a machine.
#[derive(Debug)]
pub struct Volumes {
    mounter: Client,
    memory: Memory,
    holdings: Holdings,
    /// Volumes that something is being done with.
    pub locks: Locks,
}

fn status(e: Error) -> Status {
    let text = e.to_string();
    match e {
        Error::Refused(Refusal::Busy, _) => Status::failed_precondition(text),
        Error::Refused(Refusal::UnderWay, _) => Status::aborted(text),
        Error::Refused(Refusal::Unknown, _) => Status::not_found(text),
        Error::Refused(Refusal::Failed | Refusal::Internal, _) => Status::internal(text),
        Error::Silent { .. } => Status::unavailable(text),
    }
}

fn written(result: std::io::Result<()>) -> Result<(), Status> {
    result.map_err(|e| Status::internal(format!("the record of this node's volumes cannot be written: {e}")))
}

impl Volumes {
    /// Of a mounter, with what is remembered in a directory.
    ///
    /// # Errors
    /// Of the system.
    pub fn open(mounter: &Path, dir: &Path) -> std::io::Result<Self> {
        let memory = Memory::open(dir)?;
        let (mounter, holdings) = (Client::new(mounter), Holdings::new(dir));
        Ok(Self { mounter, memory, holdings, locks: Locks::default() })
    }

    /// What is known now.
    pub fn known(&self) -> Known {
        self.memory.get()
    }

    /// Has the volume mounted by a client, if it is known how. Nothing is mounted at the staging path itself: kubelet takes every
    /// mount of the same directory for a user of a staged volume, the client's own among them, and would never unstage it.
    ///
    /// # Errors
    /// Of the mounter.
    pub fn stage(&self, volume: &str, path: &Path, wanted: Wanted) -> Result<(), Status> {
        let before = self.known().stages.get(volume).cloned();
        if let Some(before) = before.as_ref().filter(|before| before.path != path) {
            return Err(Status::already_exists(format!("{volume} is staged at {}", before.path.display())));
        }
        let key = wanted
            .spec
            .map(|spec| self.mounter.mount(spec, CLIENT))
            .transpose()
            .map_err(status)?
            .map(|info| info.key);
        let stage = Stage { path: path.to_owned(), key: key.clone(), selinux: wanted.selinux };
        written(self.memory.change(|known| _ = known.stages.insert(volume.to_owned(), stage)))?;
        // Staged again with other secrets or options.
        if let Some(old) = before.and_then(|before| before.key).filter(|old| Some(old) != key.as_ref()) {
            self.drop_unused(&old);
        }
        Ok(())
    }

    /// Ends the clients of a volume.
    ///
    /// # Errors
    /// Of the mounter; the volume is in use.
    pub fn unstage(&self, volume: &str) -> Result<(), Status> {
        let known = self.known();
        if let Some(place) = known.places_of(volume).next() {
            return Err(Status::failed_precondition(format!("{volume} is still at {}", place.display())));
        }
        for info in self.of(volume)? {
            self.mounter.unmount(&info.key, CLIENT).map_err(status)?;
        }
        written(self.memory.change(|known| _ = known.stages.remove(volume)))
    }

    fn of(&self, volume: &str) -> Result<Vec<Info>, Status> {
        let all = self.mounter.list().map_err(status)?;
        Ok(all.into_iter().filter(|info| info.volume == volume).collect())
    }

    /// Ends a client that nothing is bound of. If it cannot be ended now, the end of the volume's stage does it.
    fn drop_unused(&self, key: &str) {
        if !self.known().uses(key)
            && let Err(e) = self.mounter.unmount(key, CLIENT)
        {
            tracing::warn!("{key}: {e}");
        }
    }

    /// Shows a volume at a target.
    ///
    /// # Errors
    /// Of the mounter; what is in the way.
    pub fn publish(&self, volume: &str, target: &Path, access: Access, wanted: Wanted) -> Result<(), Status> {
        let known = self.known();
        if access.is_single
            && let Some(other) = known.places_of(volume).find(|place| *place != target)
        {
            return Err(Status::failed_precondition(format!(
                "{volume} is for one pod only (ReadWriteOncePod), and is at {}",
                other.display()
            )));
        }
        if let Some(there) = known.targets.get(target).filter(|there| there.volume != volume) {
            return Err(Status::already_exists(format!(
                "{} is of the volume {}",
                target.display(),
                there.volume
            )));
        }
        // What is there stays with its client, though the Secret or the options are others by now.
        let own = known.targets.get(target).and_then(|own| self.ready(&own.key));
        let info = match own {
            Some(info) => info,
            None => self.mount_of(volume, &known, wanted)?,
        };
        let device =
            info.device.ok_or_else(|| Status::unavailable(format!("the client of {volume} is not ready")))?;
        // Then a bind is, too.
        let read_only =
            access.read_only || info.options.iter().any(|o| matches!(o.as_str(), "ro" | "read-only"));
        let record = Target { volume: volume.to_owned(), key: info.key, read_only };
        let before = known.targets.get(target).cloned();
        written(self.memory.change(|known| _ = known.targets.insert(target.to_owned(), record)))?;
        let bound = bind::publish(&info.mountpoint, device, target, read_only);
        if bound.is_err() {
            let undone = self.memory.change(|known| match before {
                Some(before) => _ = known.targets.insert(target.to_owned(), before),
                None => _ = known.targets.remove(target),
            });
            written(undone)?;
        }
        bound
    }

    /// A mount that can be used now.
    fn ready(&self, key: &str) -> Option<Info> {
        let all = self.mounter.list().ok()?;
        all.into_iter().find(|info| info.key == key && info.state == State::Ready && info.device.is_some())
    }

    /// The mount of a volume: that of its stage, else that of the request.
    fn mount_of(&self, volume: &str, known: &Known, wanted: Wanted) -> Result<Info, Status> {
        let stage = known.stages.get(volume);
        let staged = stage.and_then(|stage| stage.key.as_deref());
        let differs = staged.is_some() && stage.is_some_and(|stage| stage.selinux != wanted.selinux);
        if let Some(key) = staged.filter(|_| !differs) {
            match self.mounter.wait(key, CLIENT) {
                Err(Error::Refused(Refusal::Unknown, _)) => {}
                other => return other.map_err(status),
            }
        }
        let spec = wanted.spec.ok_or_else(|| match staged {
            // Another mount, for which the Secret is needed.
            Some(_) if differs => Status::failed_precondition(format!(
                "{volume} is staged for pods of another SELinux context: name its Secret in nodePublishSecretRef, too, or give the pods \
                 one seLinuxOptions"
            )),
            Some(_) => Status::failed_precondition(format!("{volume}: its mount is not known any more; stage it again")),
            None => Status::invalid_argument(format!(
                "{volume}: it is not staged, and no Secret with metaurl came with the request; name one in nodeStageSecretRef or \
                 nodePublishSecretRef"
            )),
        })?;
        self.mounter.mount(spec, CLIENT).map_err(status)
    }

    /// Takes a volume from a target.
    ///
    /// # Errors
    /// What is in the way.
    pub fn unpublish(&self, volume: &str, target: &Path) -> Result<(), Status> {
        let record = self.known().targets.get(target).cloned();
        if let Some(other) = record.as_ref().filter(|record| record.volume != volume) {
            tracing::warn!("{volume} is not at {}: {} is, and stays", target.display(), other.volume);
            return Ok(());
        }
        bind::unmount(target)?;
        // Before the directory goes, which may fail: nobody is to bind there again.
        written(self.memory.change(|known| _ = known.targets.remove(target)))?;
        // A volume that was never staged has nobody else to end its client.
        if let Some(record) = record.filter(|record| !self.known().stages.contains_key(&record.volume)) {
            self.drop_unused(&record.key);
        }
        bind::remove(target)
    }

    /// Where a path of a volume is to be looked at.
    pub fn place(&self, volume: &str, path: &Path) -> Option<(PathBuf, String)> {
        let known = self.known();
        if let Some(target) = known.targets.get(path).filter(|target| target.volume == volume) {
            return Some((path.to_owned(), target.key.clone()));
        }
        let stage = known.stages.get(volume).filter(|stage| stage.path == path)?;
        let key = stage.key.clone()?;
        let info = self.mounter.list().ok()?.into_iter().find(|info| info.key == key)?;
        Some((info.mountpoint, key))
    }

    /// Is a device that of a client's mount? While the mounter does not answer, whatever it was is believed.
    pub fn is_of(&self, key: &str, device: (u32, u32)) -> bool {
        let Ok(all) = self.mounter.list() else { return true };
        all.iter().any(|info| info.key == key && info.device == Some(device))
    }

    /// Holds mounts from now on whatever becomes of the mounter ([`Holdings`]). Brings targets back whose client is another one now: those of a mount that has died, and those that have disappeared. Targets
    /// whose pod is gone are forgotten.
    pub fn reconcile(&self) {
        let known = self.known();
        let listed = self.mounter.list();
        self.holdings.follow(&self.mounter, listed.as_deref().ok());
        if known.targets.is_empty() {
            return;
        }
        let mounts = match listed {
            Ok(mounts) => mounts,
            Err(e) => return tracing::warn!("{e}"),
        };
        let mut hung = BTreeSet::new();
        for (path, target) in &known.targets {
            let mount = mounts.iter().find(|info| info.key == target.key && info.state == State::Ready);
            let Some((mount, device)) = mount.and_then(|mount| Some((mount, mount.device?))) else {
                continue;
            };
            // One look at a client that does not answer is enough: others wait for their turn.
            let at = bind::device_at(path);
            if at.is_some_and(|at| hung.contains(&at)) {
                continue;
            }
            // Only what has to be changed keeps others waiting.
            let there = bind::look(path, Some(device), target.read_only);
            let Ok(There::Nothing | There::Dead) = there else {
                match there {
                    Ok(There::Hung) => hung.extend(at),
                    Ok(There::OtherMode | There::OtherClient | There::Foreign) => {
                        tracing::warn!("{}: {there:?} is mounted there; it stays", path.display());
                    }
                    Err(e) => tracing::warn!("{}: {e}", path.display()),
                    _ => {}
                }
                continue;
            };
            // Somebody changes it already.
            let Ok(_held) = self.locks.hold(&target.volume) else { continue };
            if self.known().targets.get(path) != Some(target) {
                continue;
            }
            match bind::look(path, Some(device), target.read_only) {
                Ok(There::Nothing) if !is_there(path) => {
                    tracing::info!("{}: the pod is gone", path.display());
                    let _ = self.memory.change(|known| _ = known.targets.remove(path));
                }
                Ok(There::Nothing | There::Dead) => {
                    match bind::publish(&mount.mountpoint, device, path, target.read_only) {
                        Ok(()) => tracing::info!("{} is bound again at {}", target.volume, path.display()),
                        Err(e) => tracing::warn!("{}: {}", path.display(), e.message()),
                    }
                }
                _ => {}
            }
        }
    }
}

/// Is the directory there? Asked of one that nothing is mounted on.
fn is_there(path: &Path) -> bool {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).is_ok()
}
