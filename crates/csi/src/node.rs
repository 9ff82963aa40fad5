//! Volumes for the pods of one machine. Clients are the mounter's, a process of its own; pods get bind mounts of what they serve, so
//! that this service may end and begin again whenever it likes.

mod bind;
mod hold;
mod keep;
mod state;
mod volume;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ciderfs_mounter::disposable::Failure;
use ciderfs_mounter::probe::{self, Seen};
use tonic::{Request, Response, Status};

use crate::locks::Held;
use crate::proto::node_server::Node;
use crate::proto::node_service_capability::{Rpc, Type, rpc};
use crate::proto::volume_usage::Unit;
use crate::proto::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse, NodeGetVolumeStatsRequest,
    NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability,
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
    NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, VolumeCapability, VolumeCondition, VolumeUsage,
};
use crate::server::Driver;
use keep::{Volumes, Wanted};
use volume::{Map, access, needed, selinux, spec};

/// Bytes that the name of a node may have.
pub const NODE_ID_MAX: usize = 192;

/// How a node service works.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Where the mounter listens.
    pub mounter: PathBuf,
    /// What is remembered; in memory (tmpfs), as long as mounts are there.
    pub dir: PathBuf,
    /// Between looks whether targets have to be bound again.
    pub interval: Duration,
}

/// The node service.
#[derive(Debug, Clone)]
pub struct NodeService {
    node_id: String,
    volumes: Arc<Volumes>,
}

impl NodeService {
    /// That of a driver. From now on it looks after what an earlier one has bound. Call it within a runtime.
    ///
    /// # Errors
    /// The name of the node is too long; of the system.
    pub fn start(driver: &Driver, config: &NodeConfig) -> std::io::Result<Self> {
        if driver.node_id.len() > NODE_ID_MAX {
            return Err(std::io::Error::other(format!(
                "the name of the node is longer than {NODE_ID_MAX} bytes"
            )));
        }
        let volumes = Arc::new(Volumes::open(&config.mounter, &config.dir)?);
        let (looked_after, interval) = (Arc::downgrade(&volumes), config.interval);
        tokio::spawn(async move {
            while let Some(volumes) = looked_after.upgrade() {
                let _ = tokio::task::spawn_blocking(move || volumes.reconcile()).await;
                tokio::time::sleep(interval).await;
            }
        });
        Ok(Self { node_id: driver.node_id.clone(), volumes })
    }

    /// Does something about a volume, and nothing else about it meanwhile, even if the caller does not wait for it.
    async fn run<T: Send + 'static>(
        &self,
        held: impl Send + 'static,
        work: impl FnOnce(&Volumes) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let volumes = Arc::clone(&self.volumes);
        let work = move || {
            let _held = held;
            work(&volumes)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|e| Status::internal(e.to_string()))?.map(Response::new)
    }

    fn hold(&self, volume: &str) -> Result<Held, Status> {
        self.volumes.locks.hold(volume)
    }

    /// A target, too: two volumes may be meant for the same one.
    fn hold_at(&self, volume: &str, target: &Path) -> Result<(Held, Held), Status> {
        Ok((self.hold(volume)?, self.hold(&format!("the target {}", target.display()))?))
    }
}

/// What a request wants to have mounted.
fn wanted(
    volume: &str,
    context: &Map,
    secrets: &Map,
    capability: Option<&VolumeCapability>,
) -> Result<Wanted, Status> {
    let selinux = selinux(context, capability)?;
    Ok(Wanted { spec: spec(volume, context, secrets, capability)?, selinux })
}

/// A path that a request names.
fn path(name: &str, text: &str) -> Result<PathBuf, Status> {
    let path = PathBuf::from(needed(name, text)?);
    let is_plain = path.components().all(|part| part != std::path::Component::ParentDir);
    if !path.is_absolute() || !is_plain {
        return Err(Status::invalid_argument(format!("{name}: {text} is no absolute path without `..`")));
    }
    Ok(path)
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let r = request.into_inner();
        let volume = needed("volume_id", &r.volume_id)?.to_owned();
        let path = path("staging_target_path", &r.staging_target_path)?;
        access(r.volume_capability.as_ref())?;
        let wanted = wanted(&volume, &r.volume_context, &r.secrets, r.volume_capability.as_ref())?;
        let held = self.hold(&volume)?;
        let work = move |volumes: &Volumes| volumes.stage(&volume, &path, wanted);
        self.run(held, |volumes| work(volumes).map(|()| NodeStageVolumeResponse {})).await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let r = request.into_inner();
        let volume = needed("volume_id", &r.volume_id)?.to_owned();
        path("staging_target_path", &r.staging_target_path)?;
        let held = self.hold(&volume)?;
        self.run(held, move |volumes| volumes.unstage(&volume).map(|()| NodeUnstageVolumeResponse {})).await
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let r = request.into_inner();
        let volume = needed("volume_id", &r.volume_id)?.to_owned();
        let target = path("target_path", &r.target_path)?;
        let mut access = access(r.volume_capability.as_ref())?;
        access.read_only |= r.readonly;
        if r.staging_target_path.is_empty() {
            return Err(Status::failed_precondition(
                "staging_target_path is missing: stage the volume first",
            ));
        }
        let wanted = wanted(&volume, &r.volume_context, &r.secrets, r.volume_capability.as_ref())?;
        let held = self.hold_at(&volume, &target)?;
        let work = move |volumes: &Volumes| volumes.publish(&volume, &target, access, wanted);
        self.run(held, |volumes| work(volumes).map(|()| NodePublishVolumeResponse {})).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let r = request.into_inner();
        let volume = needed("volume_id", &r.volume_id)?.to_owned();
        let target = path("target_path", &r.target_path)?;
        let held = self.hold_at(&volume, &target)?;
        self.run(held, move |volumes| {
            volumes.unpublish(&volume, &target).map(|()| NodeUnpublishVolumeResponse {})
        })
        .await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let r = request.into_inner();
        let volume = needed("volume_id", &r.volume_id)?.to_owned();
        // One that cannot be a path of ours has no volume: that is what is asked.
        let path = PathBuf::from(needed("volume_path", &r.volume_path)?);
        self.run((), move |volumes| {
            let (place, key) = volumes
                .place(&volume, &path)
                .ok_or_else(|| Status::not_found(format!("{volume} is not at {}", path.display())))?;
            Ok(stats(volumes, &place, &key))
        })
        .await
    }

    async fn node_expand_volume(
        &self,
        _: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        // Nor is it one of our capabilities.
        Err(Status::unimplemented("the quota that the controller has set is all there is to it"))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        // VOLUME_MOUNT_GROUP is not among them: owners and modes are the volume's own and seen by every node; kubelet's
        // fsGroupChangePolicy decides whether they are changed.
        let all = [
            rpc::Type::StageUnstageVolume,
            rpc::Type::GetVolumeStats,
            rpc::Type::VolumeCondition,
            rpc::Type::SingleNodeMultiWriter,
        ];
        let capabilities =
            all.map(|t| NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: t.into() })) }).into();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse { node_id: self.node_id.clone(), ..Default::default() }))
    }
}

/// Room and condition of what is at a place, asked by a child that can be left behind.
fn stats(volumes: &Volumes, place: &Path, key: &str) -> NodeGetVolumeStatsResponse {
    let wrong = match probe::look(place, bind::PATIENCE) {
        Seen::Dead => Some("the client has died; the volume comes back when it is started again".to_owned()),
        Seen::Hung => Some("the client does not answer".to_owned()),
        Seen::Missing => Some(format!("{} is gone", place.display())),
        Seen::Wrong(e) => Some(format!("the volume answers: {e}")),
        Seen::Alive { inode, device } => {
            let is_volume = inode == probe::ROOT_INODE && volumes.is_of(key, device);
            (!is_volume).then(|| format!("the volume is not mounted at {}", place.display()))
        }
    };
    let room = match &wrong {
        None => probe::space(place, bind::PATIENCE),
        Some(_) => Err(Failure::TimedOut),
    };
    let (wrong, usage) = match (wrong, room) {
        (None, Ok(s)) => {
            let row = |unit: Unit, total: u64, left: u64| VolumeUsage {
                unit: unit.into(),
                total: number(total),
                available: number(left),
                used: number(total.saturating_sub(left)),
            };
            (None, vec![row(Unit::Bytes, s.bytes, s.bytes_left), row(Unit::Inodes, s.inodes, s.inodes_left)])
        }
        (None, Err(e)) => (Some(format!("the volume does not tell its room: {e}")), Vec::new()),
        (wrong, _) => (wrong, Vec::new()),
    };
    let condition = VolumeCondition {
        abnormal: wrong.is_some(),
        message: wrong.unwrap_or_else(|| "the volume answers".into()),
    };
    NodeGetVolumeStatsResponse { usage, volume_condition: Some(condition) }
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
