//! Volumes and snapshots, in the metadata alone: nothing is mounted, no program is run.
//!
//! The service keeps nothing that a call depends on. Each of them may be cut off anywhere, and the next one of its kind completes
//! it. Copies go on when a call has run out of time; until they are complete the answer is `ABORTED`.

mod calls;
mod known;
mod snapshots;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ciderfs_meta::CloneProgress;
use futures_util::future::BoxFuture;
use tonic::{Code, Response, Status};

use crate::capability::{self, Size};
use crate::create::{self, Wanted};
use crate::engine::{Engines, Opened, RETIRED, meta_status};
use crate::locks::{Held, Locks};
use crate::proto::volume_content_source::{SnapshotSource, Type as From, VolumeSource};
use crate::proto::*;
use crate::secrets::Secrets;
use crate::server::{Driver, Formatter};
use crate::sweep::Sweeper;
use crate::volumes::{self, Source, Volume as Found};
use crate::{ids, paging};

/// A call ends after this long, whatever it waits for. Side-cars wait longer by default.
const DEADLINE: Duration = Duration::from_secs(30);
/// A call waits so long for a copy.
const COPY_WAIT: Duration = Duration::from_secs(20);

/// And for another volume of its directory: most take a moment.
const PLACE_WAIT: Duration = Duration::from_secs(5);

/// The controller service.
#[derive(Clone)]
pub struct ControllerService {
    driver: Driver,
    engines: Arc<Engines>,
    locks: Locks,
    sweeper: Sweeper,
}

impl ControllerService {
    /// That of a driver. What an earlier one has left to be removed is removed, if a Secret is known already.
    pub fn new(driver: Driver) -> Self {
        Self::forgetting(driver, RETIRED)
    }

    /// One that asks no engine any more, for calls that bring no Secret, which has not answered for so long.
    pub fn forgetting(driver: Driver, retired: Duration) -> Self {
        let engines = Arc::new(Engines::new(retired));
        let this = Self { driver, engines, locks: Locks::default(), sweeper: Sweeper::default() };
        if this.driver.secrets_dir.is_some() {
            let first = this.clone();
            tokio::spawn(async move {
                if let Err(e) = first.open(&BTreeMap::new()).await {
                    tracing::warn!("the Secret of this driver: {}", e.message());
                }
            });
        }
        this
    }

    /// The secrets of a call, or those of this driver.
    fn secrets(&self, given: &BTreeMap<String, String>) -> Result<Secrets, Status> {
        match &self.driver.secrets_dir {
            Some(dir) if given.is_empty() => Secrets::in_dir(dir)
                .map_err(|e| Status::failed_precondition(format!("the Secret in {}: {e}", dir.display()))),
            _ => Ok(Secrets::of(given)),
        }
    }

    async fn open(&self, given: &BTreeMap<String, String>) -> Result<Opened, Status> {
        self.open_with(&self.secrets(given)?, None).await
    }

    async fn open_with(
        &self,
        secrets: &Secrets,
        formatter: Option<&dyn Formatter>,
    ) -> Result<Opened, Status> {
        let opened = Box::pin(self.engines.open(secrets, formatter)).await?;
        // After a restart the first call finds what was left.
        self.sweeper.wake(&opened);
        Ok(opened)
    }

    /// Volumes whose directories may lie in each other follow each other: those below one directory of the root.
    async fn place_held(&self, path: &str) -> Result<Held, Status> {
        let (first, _) = path.split_once('/').unwrap_or((path, ""));
        self.locks.hold_within(PLACE_WAIT, &format!("/{first}")).await
    }

    /// Runs a call within its time, and logs what became of it. Messages are never logged, so no secret is.
    async fn answer<T>(
        &self,
        rpc: &'static str,
        id: &str,
        secrets: &BTreeMap<String, String>,
        work: impl Future<Output = Result<T, Status>> + Send,
    ) -> Result<Response<T>, Status> {
        let began = Instant::now();
        let answer = tokio::time::timeout(DEADLINE, Box::pin(work)).await.unwrap_or_else(|_| {
            let place =
                self.secrets(secrets).map_or_else(|_| "the Secret".into(), |secrets| secrets.shown_place());
            Err(Status::deadline_exceeded(format!("{place} did not answer within {} s", DEADLINE.as_secs())))
        });
        let took = began.elapsed().as_millis();
        match &answer {
            Ok(_) => tracing::info!("{rpc} {id:?}: done in {took} ms"),
            Err(e) if e.code() == Code::Unimplemented => {}
            Err(e) => tracing::warn!("{rpc} {id:?}: {:?} after {took} ms: {}", e.code(), e.message()),
        }
        answer.map(Response::new)
    }

    /// Runs what may copy much: it goes on when the call has no time left, or is given up.
    async fn copying<T: Send + 'static>(
        &self,
        id: &str,
        work: impl FnOnce(Arc<CloneProgress>) -> BoxFuture<'static, Result<T, Status>>,
    ) -> Result<T, Status> {
        let progress = Arc::<CloneProgress>::default();
        let task = tokio::spawn(work(Arc::clone(&progress)));
        match tokio::time::timeout(COPY_WAIT, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Status::internal(format!("{id}: the copy broke off"))),
            Err(_) => {
                let done = progress.done.load(Ordering::Relaxed);
                Err(Status::aborted(format!(
                    "{id}: the copy is under way, {done} files and directories so far"
                )))
            }
        }
    }

    async fn created(&self, r: CreateVolumeRequest) -> Result<CreateVolumeResponse, Status> {
        let name = ids::check_name("name", &r.name)?;
        capability::check_all(&r.volume_capabilities)?;
        if !r.mutable_parameters.is_empty() {
            return Err(Status::invalid_argument("mutable_parameters: volumes have none"));
        }
        let source = r.volume_content_source.as_ref().map(source_of).transpose()?;
        let wanted = Wanted::new(name, Size::of(r.capacity_range.as_ref())?, source, &r.parameters)?;
        let formatter = match r.parameters.get("format").map_or("auto", String::as_str) {
            "auto" => self.driver.formatter.clone(),
            "never" => None,
            other => return Err(Status::invalid_argument(format!("format {other:?}: say auto or never"))),
        };
        let held = self.locks.hold(&wanted.id)?;
        let place_held = self.place_held(wanted.path.as_ref().unwrap_or(&wanted.id)).await?;
        // What is copied stays meanwhile.
        let source_held =
            wanted.source.as_ref().map(|source| self.locks.share(&lock_of(source))).transpose()?;
        let opened = self.open_with(&self.secrets(&r.secrets)?, formatter.as_deref()).await?;
        let id = wanted.id.clone();
        let work = |progress: Arc<CloneProgress>| -> BoxFuture<'static, Result<Found, Status>> {
            Box::pin(async move {
                let _held = (held, place_held, source_held);
                create::create(&opened.meta, &opened.place, &wanted, &progress).await
            })
        };
        let found = self.copying(&id, work).await?;
        let mut volume_context = r.parameters;
        volume_context.retain(|key, _| !key.starts_with("csi.storage.k8s.io/"));
        let volume = told(found, r.volume_content_source, volume_context);
        Ok(CreateVolumeResponse { volume: Some(volume) })
    }

    async fn deleted(&self, r: DeleteVolumeRequest) -> Result<DeleteVolumeResponse, Status> {
        let id = ids::check_id("volume_id", &r.volume_id)?;
        if !ids::is_usable(id) {
            return Ok(DeleteVolumeResponse {});
        }
        let _held = self.locks.hold(id)?;
        let opened = self.open(&r.secrets).await?;
        let failed = |e| meta_status(&opened.place, e);
        crate::snapshots::forget(&opened.meta, id).await.map_err(failed)?;
        if let Some(found) = volumes::find(&opened.meta, id).await.map_err(failed)? {
            // Who else uses the directory is looked up afterwards.
            let _place_held = self.place_held(&found.path).await?;
            volumes::remove(&opened.meta, &found).await.map_err(failed)?;
            self.sweeper.wake(&opened);
        }
        Ok(DeleteVolumeResponse {})
    }

    async fn validated(
        &self,
        r: ValidateVolumeCapabilitiesRequest,
    ) -> Result<ValidateVolumeCapabilitiesResponse, Status> {
        let id = ids::check_id("volume_id", &r.volume_id)?;
        if r.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("volume_capabilities is missing"));
        }
        let opened = self.open(&r.secrets).await?;
        existing(&opened, id).await?;
        if let Err(e) = capability::check_all(&r.volume_capabilities) {
            return Ok(ValidateVolumeCapabilitiesResponse { confirmed: None, message: e.message().into() });
        }
        let confirmed = validate_volume_capabilities_response::Confirmed {
            volume_context: r.volume_context,
            volume_capabilities: r.volume_capabilities,
            parameters: r.parameters,
            mutable_parameters: r.mutable_parameters,
        };
        Ok(ValidateVolumeCapabilitiesResponse { confirmed: Some(confirmed), message: String::new() })
    }

    async fn expanded(
        &self,
        r: ControllerExpandVolumeRequest,
    ) -> Result<ControllerExpandVolumeResponse, Status> {
        let id = ids::check_id("volume_id", &r.volume_id)?;
        let range = r.capacity_range.as_ref().filter(|range| **range != CapacityRange::default());
        let size =
            Size::of(Some(range.ok_or_else(|| Status::invalid_argument("capacity_range is missing"))?))?;
        r.volume_capability.as_ref().map(capability::check).transpose()?;
        let wanted = size.quota()?;
        let _held = self.locks.hold(id)?;
        let opened = self.open(&r.secrets).await?;
        let failed = |e| meta_status(&opened.place, e);
        let found = existing(&opened, id).await?;
        let now = volumes::capacity(&opened.meta, &found).await.map_err(failed)?;
        // Volumes do not shrink; one without a quota has room for anything.
        let capacity = if now == 0 || now >= wanted { now } else { wanted };
        if size.is_exceeded(capacity) {
            return Err(Status::out_of_range(format!(
                "{id} has {capacity} bytes, more than limit_bytes, and volumes do not shrink"
            )));
        }
        volumes::resize(&opened.meta, &found, capacity).await.map_err(failed)?;
        let capacity_bytes = if capacity == 0 { wanted } else { capacity };
        Ok(ControllerExpandVolumeResponse { capacity_bytes, node_expansion_required: false })
    }

    async fn listed(&self, r: ListVolumesRequest) -> Result<ListVolumesResponse, Status> {
        self.has_own()?;
        // What is wrong with the request is said whatever else is wrong.
        paging::check(r.max_entries, &r.starting_token)?;
        let list = |opened: Opened| -> BoxFuture<'static, _> {
            Box::pin(
                async move { volumes::all(&opened.meta).await.map_err(|e| meta_status(&opened.place, e)) },
            )
        };
        let found: BTreeMap<_, _> = self.of_all_known(list).await?.into_iter().flatten().collect();
        let (page, next_token) = paging::page(found.into_iter().collect(), r.max_entries, &r.starting_token)?;
        let entry = |volume: Found| {
            let status = list_volumes_response::VolumeStatus {
                published_node_ids: Vec::new(),
                volume_condition: Some(condition(&volume)),
            };
            let volume = told(volume, None, BTreeMap::new());
            list_volumes_response::Entry { volume: Some(volume), status: Some(status) }
        };
        Ok(ListVolumesResponse { entries: page.into_iter().map(entry).collect(), next_token })
    }

    async fn looked_at(&self, r: ControllerGetVolumeRequest) -> Result<ControllerGetVolumeResponse, Status> {
        self.has_own()?;
        let id = ids::check_id("volume_id", &r.volume_id)?;
        let wanted = id.to_owned();
        let look = move |opened: Opened| -> BoxFuture<'static, _> {
            let id = wanted.clone();
            Box::pin(async move {
                volumes::find(&opened.meta, &id).await.map_err(|e| meta_status(&opened.place, e))
            })
        };
        let found = self.find_known(look).await?.ok_or_else(|| unknown(id))?;
        let status = controller_get_volume_response::VolumeStatus {
            published_node_ids: Vec::new(),
            volume_condition: Some(condition(&found)),
        };
        let volume = told(found, None, BTreeMap::new());
        Ok(ControllerGetVolumeResponse { volume: Some(volume), status: Some(status) })
    }

    /// Calls that never bring a Secret are there for a driver that has one: others do not tell that they can do them.
    fn has_own(&self) -> Result<(), Status> {
        match self.driver.secrets_dir {
            Some(_) => Ok(()),
            None => Err(Status::unimplemented(
                "this call brings no Secret: give the driver one with --secrets-dir",
            )),
        }
    }

    fn capabilities(&self) -> Vec<ControllerServiceCapability> {
        use controller_service_capability::rpc::Type;
        let mut types = vec![
            Type::CreateDeleteVolume,
            Type::CreateDeleteSnapshot,
            Type::ListSnapshots,
            Type::GetSnapshot,
            Type::CloneVolume,
            Type::ExpandVolume,
            Type::SingleNodeMultiWriter,
        ];
        // These calls bring no Secret.
        if self.driver.secrets_dir.is_some() {
            types.extend([Type::ListVolumes, Type::GetCapacity, Type::GetVolume, Type::VolumeCondition]);
        }
        let capability = |of: Type| ControllerServiceCapability {
            r#type: Some(controller_service_capability::Type::Rpc(controller_service_capability::Rpc {
                r#type: of.into(),
            })),
        };
        types.into_iter().map(capability).collect()
    }
}

fn unknown(id: &str) -> Status {
    Status::not_found(format!("there is no volume {id}"))
}

async fn existing(opened: &Opened, id: &str) -> Result<Found, Status> {
    let found = volumes::find(&opened.meta, id).await.map_err(|e| meta_status(&opened.place, e))?;
    found.ok_or_else(|| unknown(id))
}

/// What is held while a source is read.
fn lock_of(source: &Source) -> String {
    match source {
        Source::Snapshot(handle) => snapshot_lock(ids::of_snapshot(handle).map_or(handle, |(id, _)| id)),
        Source::Volume(id) => id.clone(),
    }
}

fn snapshot_lock(id: &str) -> String {
    format!("snapshot {id}")
}

fn source_of(source: &VolumeContentSource) -> Result<Source, Status> {
    match &source.r#type {
        Some(From::Snapshot(SnapshotSource { snapshot_id })) => {
            ids::check_id("snapshot_id", snapshot_id).map(|id| Source::Snapshot(id.into()))
        }
        Some(From::Volume(VolumeSource { volume_id })) => {
            ids::check_id("volume_id", volume_id).map(|id| Source::Volume(id.into()))
        }
        None => Err(Status::invalid_argument("volume_content_source says nothing")),
    }
}

/// A volume in the words of the interface; the context with the keys of the official driver.
fn told(found: Found, source: Option<VolumeContentSource>, mut context: BTreeMap<String, String>) -> Volume {
    let capacity_bytes = found.mark.as_ref().map_or(0, |mark| mark.capacity);
    context.insert("subPath".into(), found.path);
    if found.mark.is_some() {
        context.insert(ids::MADE.into(), "true".into());
    }
    context.insert("capacity".into(), capacity_bytes.to_string());
    let content_source = source.or_else(|| found.mark.and_then(|mark| mark.source).map(content));
    Volume {
        capacity_bytes,
        volume_id: found.id,
        volume_context: context,
        content_source,
        accessible_topology: Vec::new(),
    }
}

fn content(source: Source) -> VolumeContentSource {
    let from = match source {
        Source::Snapshot(snapshot_id) => From::Snapshot(SnapshotSource { snapshot_id }),
        Source::Volume(volume_id) => From::Volume(VolumeSource { volume_id }),
    };
    VolumeContentSource { r#type: Some(from) }
}

fn condition(found: &Found) -> VolumeCondition {
    let abnormal = found.dir.is_none();
    let state = if abnormal { "is missing" } else { "is there" };
    VolumeCondition { abnormal, message: format!("the directory /{} {state}", found.path) }
}
