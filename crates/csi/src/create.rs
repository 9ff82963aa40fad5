//! Makes volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ciderfs_format::Ino;
use ciderfs_meta::{CloneProgress, Errno, Meta};
use tonic::Status;

use crate::capability::Size;
use crate::engine::meta_status;
use crate::snapshots::{self, Stage};
use crate::volumes::{self, Mark, Source, Volume};
use crate::{ids, pattern};

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The id.
    pub id: String,
    /// The name.
    pub name: String,
    /// The directory, where the id does not name it.
    pub path: Option<String>,
    /// The size.
    pub size: Size,
    /// What it is made from.
    pub source: Option<Source>,
}

impl Wanted {
    /// What a request wants.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` and `OUT_OF_RANGE`.
    pub fn new(
        name: &str,
        size: Size,
        source: Option<Source>,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Self, Status> {
        let id = ids::of_name("vol", name);
        let pattern = parameters.get("pathPattern").filter(|pattern| !pattern.is_empty());
        let path = pattern.map(|pattern| pattern::expand(pattern, parameters)).transpose()?;
        let path = path.filter(|path| *path != id);
        size.quota()?;
        Ok(Self { id, name: name.into(), path, size, source })
    }

    fn mark(&self, capacity: i64) -> Mark {
        Mark { name: self.name.clone(), capacity, path: self.path.clone(), source: self.source.clone() }
    }

    /// Is a volume that is there what was wanted?
    fn check(&self, mark: &Mark) -> Result<(), Status> {
        let differs = |what: &str| {
            Err(Status::already_exists(format!("{}: there is such a volume with another {what}", self.name)))
        };
        if mark.name != self.name {
            return differs("name");
        }
        if mark.source != self.source {
            return differs("source");
        }
        if mark.path != self.path {
            return differs("directory");
        }
        if !self.size.fits(mark.capacity) {
            return differs("size");
        }
        Ok(())
    }
}

/// Makes a volume, or finds that it is there. What an earlier call has begun is completed.
///
/// # Errors
/// `ALREADY_EXISTS` for another volume of the name, `INVALID_ARGUMENT` for the place of another one, `NOT_FOUND` for a source that is not there, those of the engine.
pub async fn create(
    meta: &Arc<Meta>,
    place: &str,
    wanted: &Wanted,
    progress: &Arc<CloneProgress>,
) -> Result<Volume, Status> {
    let failed = |e| meta_status(place, e);
    let (id, capacity) = (&wanted.id, wanted.size.quota()?);
    let found = volumes::find(meta, id).await.map_err(failed)?;
    let mark = match found.as_ref().and_then(|found| found.mark.as_ref()) {
        Some(mark) => {
            wanted.check(mark)?;
            mark.clone()
        }
        None => {
            check_place(meta, place, wanted).await?;
            wanted.mark(capacity)
        }
    };
    let is_listed = found.as_ref().is_some_and(Volume::is_listed);
    if let Some(found) = found.filter(|found| found.mark.is_some() && found.dir.is_some())
        && !found.is_listed()
    {
        return Ok(found);
    }
    let path = wanted.path.as_deref().unwrap_or(id);
    let dir = volumes::dir_at(meta, path).await.map_err(failed)?;
    // What is there without having been copied for this volume is something else.
    if let Some(dir) = dir
        && wanted.path.is_some()
        && wanted.source.is_some()
        && !volumes::is_copy_for(meta, dir, id).await.map_err(failed)?
    {
        return Err(Status::already_exists(format!("/{path} is there already, and a copy would replace it")));
    }
    // From here on other volumes leave the directory alone.
    if wanted.path.is_some() {
        volumes::list_as(meta, id, &mark).await.map_err(failed)?;
    }
    let dir = match dir {
        Some(dir) => dir,
        None => match fresh(meta, place, wanted, &mark, path, progress).await {
            Ok(dir) => dir,
            Err(e) => {
                // Nothing was made, so nobody comes to remove it.
                if wanted.path.is_some()
                    && !is_listed
                    && let Err(e) = volumes::unlist(meta, id).await
                {
                    tracing::warn!("{id}: it is still listed, and was not made: {e}");
                }
                return Err(e);
            }
        },
    };
    if wanted.path.is_none() && volumes::read_mark::<Mark>(meta, dir).await.map_err(failed)?.is_none() {
        // Left by a call that ended before the mark was set, or made by the official driver.
        let is_ours = wanted.source.is_none()
            && (ids::is_of_a_claim(id) || volumes::is_empty(meta, dir).await.map_err(failed)?);
        if !is_ours {
            return Err(Status::already_exists(format!(
                "/{path} is there already, and no volume of this driver"
            )));
        }
    }
    volumes::set_quota(meta, dir, mark.capacity, wanted.path.is_some()).await.map_err(failed)?;
    if wanted.path.is_none() {
        volumes::write_mark(meta, dir, &mark).await.map_err(failed)?;
    }
    let found = volumes::find(meta, id).await.map_err(failed)?;
    found.ok_or_else(|| Status::aborted(format!("{id} was removed while it was made")))
}

/// Refuses a directory that is another volume's by its id. Whoever makes a claim chooses what a pattern makes of it, and may choose
/// the name of somebody's volume.
async fn check_place(meta: &Meta, place: &str, wanted: &Wanted) -> Result<(), Status> {
    let failed = |e| meta_status(place, e);
    let Some(path) = &wanted.path else {
        if volumes::dir_at(meta, &wanted.id).await.map_err(failed)?.is_none() {
            return Ok(());
        }
        let others = volumes::listed_within(meta, &wanted.id).await.map_err(failed)?;
        return match others.iter().find(|other| **other != wanted.id) {
            Some(other) => Err(Status::already_exists(format!(
                "/{} is there already, with the volume {other}",
                wanted.id
            ))),
            None => Ok(()),
        };
    };
    let taken = |of: &str| {
        Err(Status::invalid_argument(format!(
            "pathPattern means /{path}, and /{of} is the place of another volume: give the claim another name"
        )))
    };
    let (first, _) = path.split_once('/').unwrap_or((path, ""));
    if first == wanted.id {
        return Ok(());
    }
    if ids::is_of_a_claim(first) {
        return taken(first);
    }
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    for above in ends.filter_map(|end| path.get(..end)) {
        let Some(dir) = volumes::dir_at(meta, above).await.map_err(failed)? else { break };
        if volumes::read_mark::<Mark>(meta, dir).await.map_err(failed)?.is_some() {
            return taken(above);
        }
    }
    Ok(())
}

/// Makes the directory of a volume, with what is to be in it.
async fn fresh(
    meta: &Arc<Meta>,
    place: &str,
    wanted: &Wanted,
    mark: &Mark,
    path: &str,
    progress: &Arc<CloneProgress>,
) -> Result<Ino, Status> {
    let failed = |e| meta_status(place, e);
    let from = match &wanted.source {
        Some(source) => {
            let (from, size) = source_of(meta, place, source).await?;
            if wanted.size.required() > 0 && mark.capacity < size {
                return Err(Status::out_of_range(format!(
                    "the source has {size} bytes: ask for as many at least"
                )));
            }
            Some((from, source))
        }
        None if wanted.path.is_none() => return meta.dir_at(path.as_bytes(), true).await.map_err(failed),
        None => None,
    };
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    // With its note from the beginning, whenever this is cut off.
    let stage = Stage::new(meta, &wanted.id).await.map_err(failed)?;
    let filled = async {
        if let Some((from, _)) = from {
            stage.copy(meta, from, progress).await.map_err(failed)?;
        }
        volumes::set_quota(meta, stage.dir, mark.capacity, false).await.map_err(failed)?;
        match wanted.path {
            None => volumes::write_mark(meta, stage.dir, mark).await.map_err(failed)?,
            Some(_) => volumes::mark_made(meta, stage.dir).await.map_err(failed)?,
        }
        if let Some((from, source)) = from {
            if wanted.path.is_some() {
                volumes::mark_copy(meta, stage.dir, &wanted.id).await.map_err(failed)?;
            }
            // Another driver may have removed it, and what was copied is a part of it then.
            if source_of(meta, place, source).await?.0 != from {
                return Err(Status::aborted(format!(
                    "{}: the source has changed its place while it was copied",
                    wanted.id
                )));
            }
        }
        meta.dir_at(above.as_bytes(), true).await.map_err(failed)
    };
    match filled.await {
        Ok(above) => stage.place(meta, above, name).await.map_err(failed)?,
        Err(e) => {
            stage.discard(meta).await;
            return Err(e);
        }
    }
    let dir = volumes::dir_at(meta, path).await.map_err(failed)?;
    dir.ok_or_else(|| meta_status(place, Errno::ENOENT.into()))
}

/// The tree that a volume is made from, and the bytes that it needs.
async fn source_of(meta: &Meta, place: &str, source: &Source) -> Result<(Ino, i64), Status> {
    let failed = |e| meta_status(place, e);
    match source {
        Source::Snapshot(handle) => {
            let found = match ids::of_snapshot(handle) {
                Some((id, volume)) => snapshots::find(meta, id, volume).await.map_err(failed)?,
                None => None,
            };
            let found = found.ok_or_else(|| Status::not_found(format!("there is no snapshot {handle}")))?;
            Ok((found.dir, found.size))
        }
        Source::Volume(id) => {
            let found = volumes::find(meta, id).await.map_err(failed)?;
            let found = found.and_then(|volume| Some((volume.dir?, volume)));
            let (dir, volume) = found.ok_or_else(|| Status::not_found(format!("there is no volume {id}")))?;
            Ok((dir, volumes::capacity(meta, &volume).await.map_err(failed)?))
        }
    }
}
