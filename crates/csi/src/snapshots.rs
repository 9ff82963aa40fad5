//! Snapshots: copies in `/.snapshots/VOLUME/SNAPSHOT`, as the official driver has them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ciderfs_format::Ino;
use ciderfs_meta::{Caller, CloneProgress, Errno, Meta, Result, XattrSet};
use serde::{Deserialize, Serialize};

use crate::sweep::discard;
use crate::volumes::{NOREPLACE, dir_in, dirs_in, hidden_dir, is_gone, make_dir, read_mark, write_mark};
use crate::{copy, ids, volumes};

/// The directory of snapshots.
pub const SNAPSHOTS: &str = ".snapshots";
/// Where trees are until they are complete.
const CREATING: &str = ".creating";
/// On such a tree: when somebody was last at it, in unix seconds.
const RENEWED: &[u8] = b"trusted.ciderfs.csi.lease";
/// How often whoever copies says so.
const RENEW: Duration = Duration::from_secs(60);
/// A tree is abandoned when nobody has said so for this long.
const ABANDONED: Duration = Duration::from_secs(3600);

/// What the mark of a snapshot says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The name that was asked for.
    pub name: String,
    /// When, in unix seconds.
    pub created: i64,
    /// The quota of the volume then, 0 for none.
    pub size: i64,
}

/// A snapshot that is complete.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its own id.
    pub id: String,
    /// The id of its volume.
    pub volume: String,
    /// The tree.
    pub dir: Ino,
    /// When it was made, in unix seconds.
    pub created: i64,
    /// Bytes that a volume made from it needs.
    pub size: i64,
}

impl Snapshot {
    /// Its id in the words of the interface.
    pub fn handle(&self) -> String {
        ids::snapshot_handle(&self.id, &self.volume)
    }
}

/// Finds a snapshot.
///
/// # Errors
/// Those of the engine.
pub async fn find(meta: &Meta, id: &str, volume: &str) -> Result<Option<Snapshot>> {
    let Some(all) = dir_in(meta, Ino::ROOT, SNAPSHOTS).await? else { return Ok(None) };
    let Some(of_volume) = dir_in(meta, all, volume).await? else { return Ok(None) };
    match dir_in(meta, of_volume, id).await? {
        Some(dir) => told(meta, id, volume, dir).await,
        None => Ok(None),
    }
}

async fn told(meta: &Meta, id: &str, volume: &str, dir: Ino) -> Result<Option<Snapshot>> {
    let (id, volume) = (id.to_owned(), volume.to_owned());
    if let Some(Mark { created, size, .. }) = read_mark(meta, dir).await? {
        return Ok(Some(Snapshot { id, volume, dir, created, size }));
    }
    // One of the official driver, whose copies appear when they are complete.
    match meta.getattr(dir).await {
        Ok(attr) => Ok(Some(Snapshot { id, volume, dir, created: attr.ctime.sec, size: 0 })),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Finds a snapshot of any volume.
///
/// # Errors
/// Those of the engine.
pub async fn find_anywhere(meta: &Meta, id: &str) -> Result<Option<Snapshot>> {
    let Some(all) = dir_in(meta, Ino::ROOT, SNAPSHOTS).await? else { return Ok(None) };
    for (volume, dir) in dirs_in(meta, all).await? {
        if let Some(dir) = dir_in(meta, dir, id).await? {
            return told(meta, id, &volume, dir).await;
        }
    }
    Ok(None)
}

/// All snapshots, or those of one volume.
///
/// # Errors
/// Those of the engine.
pub async fn all(meta: &Meta, of: Option<&str>) -> Result<Vec<Snapshot>> {
    let Some(all) = dir_in(meta, Ino::ROOT, SNAPSHOTS).await? else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for (volume, dir) in dirs_in(meta, all).await? {
        if of.is_some_and(|of| of != volume) || !ids::is_usable(&volume) {
            continue;
        }
        for (id, dir) in dirs_in(meta, dir).await? {
            if ids::is_usable(&id) {
                out.extend(told(meta, &id, &volume, dir).await?);
            }
        }
    }
    Ok(out)
}

/// Makes a snapshot.
///
/// # Errors
/// Those of the engine.
pub async fn create(
    meta: &Arc<Meta>,
    id: &str,
    volume: &str,
    from: Ino,
    mark: &Mark,
    progress: &Arc<CloneProgress>,
) -> Result<()> {
    let stage = Stage::new(meta, id).await?;
    let filled = async {
        stage.copy(meta, from, progress).await?;
        // Another driver may have removed the volume, and what was copied is a part of it then.
        if volumes::find(meta, volume).await?.and_then(|volume| volume.dir) != Some(from) {
            return Err(Errno::ENOENT.into());
        }
        write_mark(meta, stage.dir, mark).await?;
        let all = hidden_dir(meta, SNAPSHOTS).await?;
        match make_dir(meta, all, volume, 0o700).await {
            Err(e) if e.errno() == Errno::EEXIST => {
                dir_in(meta, all, volume).await?.ok_or_else(|| Errno::ENOTDIR.into())
            }
            other => other,
        }
    };
    match filled.await {
        Ok(of_volume) => stage.place(meta, of_volume, id).await,
        Err(e) => {
            stage.discard(meta).await;
            Err(e)
        }
    }
}

/// Removes a snapshot; one that is not there is no error.
///
/// # Errors
/// Those of the engine.
pub async fn remove(meta: &Meta, id: &str, volume: &str) -> Result<()> {
    let Some(all) = dir_in(meta, Ino::ROOT, SNAPSHOTS).await? else { return Ok(()) };
    let Some(of_volume) = dir_in(meta, all, volume).await? else { return Ok(()) };
    match discard(meta, of_volume, id).await {
        Err(e) if is_gone(&e) => {}
        other => other?,
    }
    match meta.rmdir(&Caller::root(), all, volume.as_bytes()).await {
        Err(e) if is_gone(&e) || e.errno() == Errno::ENOTEMPTY => Ok(()),
        other => other.map(|_| ()),
    }
}

/// A tree that has no place yet.
pub struct Stage {
    above: Ino,
    name: String,
    /// The tree.
    pub dir: Ino,
}

impl Stage {
    /// An empty directory for an id. What an earlier attempt has left goes away.
    ///
    /// # Errors
    /// Those of the engine; no room.
    pub async fn new(meta: &Meta, id: &str) -> Result<Self> {
        forget(meta, id).await?;
        let above = hidden_dir(meta, CREATING).await?;
        let name = format!("{id}~{}", uuid::Uuid::new_v4().simple());
        let dir = make_dir(meta, above, &name, 0o777).await?;
        Ok(Self { above, name, dir })
    }

    /// Copies a tree into it. Other drivers see that somebody is at it.
    ///
    /// # Errors
    /// Those of the engine; no room.
    pub async fn copy(&self, meta: &Arc<Meta>, from: Ino, progress: &Arc<CloneProgress>) -> Result<()> {
        let renewing = async {
            loop {
                // One that fails is made up for by the next; the copy tells what is wrong.
                let text = unix_now().to_string().into();
                let _ = meta.set_xattr(&Caller::root(), self.dir, RENEWED, text, XattrSet::default()).await;
                tokio::time::sleep(RENEW).await;
            }
        };
        tokio::select! {
            biased;
            () = renewing => {}
            result = copy::tree(meta, from, self.dir, progress) => result?,
        }
        // From here on the time of the last change says it.
        match meta.remove_xattr(&Caller::root(), self.dir, RENEWED).await {
            Err(e) if e.errno() == Errno::ENODATA => Ok(()),
            other => other,
        }
    }

    /// Gives the tree its place. Where somebody was faster theirs stays.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn place(self, meta: &Meta, dir: Ino, name: &str) -> Result<()> {
        let root = Caller::root();
        match meta.rename(&root, self.above, self.name.as_bytes(), dir, name.as_bytes(), NOREPLACE).await {
            Err(e) => {
                self.discard(meta).await;
                if e.errno() == Errno::EEXIST { Ok(()) } else { Err(e) }
            }
            Ok(_) => Ok(()),
        }
    }

    /// Removes it, after something that matters more.
    pub async fn discard(self, meta: &Meta) {
        if let Err(e) = discard(meta, self.above, &self.name).await
            && !is_gone(&e)
        {
            tracing::warn!("/{CREATING}/{} could not be removed yet: {e}", self.name);
        }
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Removes copies that nobody is at any more: those of drivers that died.
///
/// # Errors
/// Those of the engine.
pub async fn collect(meta: &Meta) -> Result<()> {
    let Some(above) = dir_in(meta, Ino::ROOT, CREATING).await? else { return Ok(()) };
    for (name, dir) in dirs_in(meta, above).await? {
        let renewed = match meta.get_xattr(&Caller::root(), dir, RENEWED).await {
            Ok(text) => String::from_utf8_lossy(&text).parse().unwrap_or(0),
            Err(e) if e.errno() == Errno::ENODATA => match meta.getattr(dir).await {
                Ok(attr) => u64::try_from(attr.ctime.sec).unwrap_or(0),
                Err(e) if is_gone(&e) => continue,
                Err(e) => return Err(e),
            },
            Err(e) if is_gone(&e) => continue,
            Err(e) => return Err(e),
        };
        if unix_now().saturating_sub(renewed) < ABANDONED.as_secs() {
            continue;
        }
        tracing::info!("/{CREATING}/{name}: nobody is at it any more, it is removed");
        match discard(meta, above, &name).await {
            Err(e) if is_gone(&e) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Removes what attempts to copy something for an id have left.
///
/// # Errors
/// Those of the engine.
pub async fn forget(meta: &Meta, id: &str) -> Result<()> {
    let Some(above) = dir_in(meta, Ino::ROOT, CREATING).await? else { return Ok(()) };
    for (name, _) in dirs_in(meta, above).await? {
        if name.rsplit_once('~').is_some_and(|(of, _)| of == id) {
            match discard(meta, above, &name).await {
                Err(e) if is_gone(&e) => {}
                other => other?,
            }
        }
    }
    Ok(())
}
