//! What becomes of calls about snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ciderfs_meta::CloneProgress;
use futures_util::future::BoxFuture;
use tonic::Status;

use super::{ControllerService, existing, snapshot_lock};
use crate::engine::{Opened, meta_status};
use crate::proto::{
    CreateSnapshotRequest, CreateSnapshotResponse, DeleteSnapshotRequest, DeleteSnapshotResponse,
    GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest, ListSnapshotsResponse, Snapshot,
    list_snapshots_response,
};
use crate::snapshots::{self, Snapshot as Tree};
use crate::{ids, paging, volumes};

impl ControllerService {
    pub(super) async fn snapshot_made(
        &self,
        r: CreateSnapshotRequest,
    ) -> Result<CreateSnapshotResponse, Status> {
        let volume = ids::check_id("source_volume_id", &r.source_volume_id)?.to_owned();
        let name = ids::check_name("name", &r.name)?.to_owned();
        let id = ids::of_name("snap", &name);
        let held = self.locks.hold(&snapshot_lock(&id))?;
        let volume_held = self.locks.share(&volume)?;
        let opened = self.open(&r.secrets).await?;
        let work = |progress: Arc<CloneProgress>| -> BoxFuture<'static, Result<Tree, Status>> {
            let id = id.clone();
            Box::pin(async move {
                let _held = (held, volume_held);
                let failed = |e| meta_status(&opened.place, e);
                let meta = &opened.meta;
                match snapshots::find_anywhere(meta, &id).await.map_err(failed)? {
                    Some(found) if found.volume == volume => return Ok(found),
                    Some(_) => {
                        return Err(Status::already_exists(format!(
                            "{name}: there is such a snapshot of another volume"
                        )));
                    }
                    None => {}
                }
                let from = existing(&opened, &volume).await?;
                let dir = from.dir.ok_or_else(|| Status::not_found(format!("{volume} has no directory")))?;
                let size = volumes::capacity(meta, &from).await.map_err(failed)?;
                let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
                let mark = snapshots::Mark { name, created, size };
                snapshots::create(meta, &id, &volume, dir, &mark, &progress).await.map_err(failed)?;
                let made = snapshots::find(meta, &id, &volume).await.map_err(failed)?;
                made.ok_or_else(|| Status::aborted(format!("{id} was removed while it was made")))
            })
        };
        let made = self.copying(&id, work).await?;
        Ok(CreateSnapshotResponse { snapshot: Some(snapshot_told(&made)) })
    }

    pub(super) async fn snapshot_deleted(
        &self,
        r: DeleteSnapshotRequest,
    ) -> Result<DeleteSnapshotResponse, Status> {
        let handle = ids::check_id("snapshot_id", &r.snapshot_id)?;
        let Some((id, volume)) = ids::of_snapshot(handle) else { return Ok(DeleteSnapshotResponse {}) };
        let _held = self.locks.hold(&snapshot_lock(id))?;
        let opened = self.open(&r.secrets).await?;
        let failed = |e| meta_status(&opened.place, e);
        snapshots::forget(&opened.meta, id).await.map_err(failed)?;
        snapshots::remove(&opened.meta, id, volume).await.map_err(failed)?;
        self.sweeper.wake(&opened);
        Ok(DeleteSnapshotResponse {})
    }

    pub(super) async fn snapshots_listed(
        &self,
        r: ListSnapshotsRequest,
    ) -> Result<ListSnapshotsResponse, Status> {
        // What is wrong with the request is said whatever else is wrong.
        paging::check(r.max_entries, &r.starting_token)?;
        let wanted = (!r.snapshot_id.is_empty()).then_some(r.snapshot_id.as_str());
        let source = (!r.source_volume_id.is_empty()).then_some(r.source_volume_id.as_str());
        let trees = match wanted.map(ids::of_snapshot) {
            Some(None) => Vec::new(),
            Some(Some((id, volume))) => {
                let one = self.snapshot_found(&r.secrets, id.to_owned(), volume.to_owned()).await?;
                one.into_iter().filter(|one| source.is_none_or(|source| source == one.volume)).collect()
            }
            None => {
                let source = source.map(str::to_owned);
                let list = move |opened: Opened| -> BoxFuture<'static, _> {
                    let source = source.clone();
                    Box::pin(async move {
                        let found = snapshots::all(&opened.meta, source.as_deref()).await;
                        found.map_err(|e| meta_status(&opened.place, e))
                    })
                };
                if r.secrets.is_empty() {
                    self.of_all_known(list).await?.into_iter().flatten().collect()
                } else {
                    list(self.open(&r.secrets).await?).await?
                }
            }
        };
        let found: BTreeMap<_, _> =
            trees.into_iter().map(|tree| (tree.handle(), snapshot_told(&tree))).collect();
        let (page, next_token) = paging::page(found.into_iter().collect(), r.max_entries, &r.starting_token)?;
        let entries = page
            .into_iter()
            .map(|snapshot| list_snapshots_response::Entry { snapshot: Some(snapshot) })
            .collect();
        Ok(ListSnapshotsResponse { entries, next_token })
    }

    pub(super) async fn snapshot_looked_at(
        &self,
        r: GetSnapshotRequest,
    ) -> Result<GetSnapshotResponse, Status> {
        let handle = ids::check_id("snapshot_id", &r.snapshot_id)?;
        let found = match ids::of_snapshot(handle) {
            Some((id, volume)) => self.snapshot_found(&r.secrets, id.to_owned(), volume.to_owned()).await?,
            None => None,
        };
        let found = found.ok_or_else(|| Status::not_found(format!("there is no snapshot {handle}")))?;
        Ok(GetSnapshotResponse { snapshot: Some(snapshot_told(&found)) })
    }

    async fn snapshot_found(
        &self,
        secrets: &BTreeMap<String, String>,
        id: String,
        volume: String,
    ) -> Result<Option<Tree>, Status> {
        let look = move |opened: Opened| -> BoxFuture<'static, _> {
            let (id, volume) = (id.clone(), volume.clone());
            Box::pin(async move {
                let found = snapshots::find(&opened.meta, &id, &volume).await;
                found.map_err(|e| meta_status(&opened.place, e))
            })
        };
        if secrets.is_empty() { self.find_known(look).await } else { look(self.open(secrets).await?).await }
    }
}

fn snapshot_told(tree: &Tree) -> Snapshot {
    Snapshot {
        size_bytes: tree.size,
        snapshot_id: tree.handle(),
        source_volume_id: tree.volume.clone(),
        creation_time: Some(prost_types::Timestamp { seconds: tree.created, nanos: 0 }),
        ready_to_use: true,
        group_snapshot_id: String::new(),
    }
}
