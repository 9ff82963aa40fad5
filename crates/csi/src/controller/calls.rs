//! The calls of the controller service.

use std::collections::BTreeMap;

use tonic::{Request, Response, Status};

use super::ControllerService;
use crate::proto::controller_server::Controller;
use crate::proto::*;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Controller for ControllerService {
    async fn create_volume(&self, r: Request<CreateVolumeRequest>) -> Answer<CreateVolumeResponse> {
        let r = r.into_inner();
        let (id, secrets) = (r.name.clone(), r.secrets.clone());
        self.answer("CreateVolume", &id, &secrets, self.created(r)).await
    }

    async fn delete_volume(&self, r: Request<DeleteVolumeRequest>) -> Answer<DeleteVolumeResponse> {
        let r = r.into_inner();
        let (id, secrets) = (r.volume_id.clone(), r.secrets.clone());
        self.answer("DeleteVolume", &id, &secrets, self.deleted(r)).await
    }

    async fn validate_volume_capabilities(
        &self,
        r: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<ValidateVolumeCapabilitiesResponse> {
        let r = r.into_inner();
        let (id, secrets) = (r.volume_id.clone(), r.secrets.clone());
        self.answer("ValidateVolumeCapabilities", &id, &secrets, self.validated(r)).await
    }

    async fn list_volumes(&self, r: Request<ListVolumesRequest>) -> Answer<ListVolumesResponse> {
        let r = r.into_inner();
        let (id, secrets) = (String::new(), BTreeMap::new());
        self.answer("ListVolumes", &id, &secrets, self.listed(r)).await
    }

    async fn get_capacity(&self, r: Request<GetCapacityRequest>) -> Answer<GetCapacityResponse> {
        let r = r.into_inner();
        let (id, secrets) = (String::new(), BTreeMap::new());
        self.answer("GetCapacity", &id, &secrets, self.room(r)).await
    }

    async fn create_snapshot(&self, r: Request<CreateSnapshotRequest>) -> Answer<CreateSnapshotResponse> {
        let r = r.into_inner();
        let (id, secrets) = (r.name.clone(), r.secrets.clone());
        self.answer("CreateSnapshot", &id, &secrets, self.snapshot_made(r)).await
    }

    async fn delete_snapshot(&self, r: Request<DeleteSnapshotRequest>) -> Answer<DeleteSnapshotResponse> {
        let r = r.into_inner();
        let (id, secrets) = (r.snapshot_id.clone(), r.secrets.clone());
        self.answer("DeleteSnapshot", &id, &secrets, self.snapshot_deleted(r)).await
    }

    async fn list_snapshots(&self, r: Request<ListSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        let r = r.into_inner();
        let (id, secrets) = (String::new(), r.secrets.clone());
        self.answer("ListSnapshots", &id, &secrets, self.snapshots_listed(r)).await
    }

    async fn controller_expand_volume(
        &self,
        r: Request<ControllerExpandVolumeRequest>,
    ) -> Answer<ControllerExpandVolumeResponse> {
        let r = r.into_inner();
        let (id, secrets) = (r.volume_id.clone(), r.secrets.clone());
        self.answer("ControllerExpandVolume", &id, &secrets, self.expanded(r)).await
    }

    async fn controller_get_volume(
        &self,
        r: Request<ControllerGetVolumeRequest>,
    ) -> Answer<ControllerGetVolumeResponse> {
        let r = r.into_inner();
        let (id, secrets) = (r.volume_id.clone(), BTreeMap::new());
        self.answer("ControllerGetVolume", &id, &secrets, self.looked_at(r)).await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Answer<ControllerGetCapabilitiesResponse> {
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities: self.capabilities() }))
    }

    async fn controller_publish_volume(
        &self,
        _: Request<ControllerPublishVolumeRequest>,
    ) -> Answer<ControllerPublishVolumeResponse> {
        Err(Status::unimplemented("volumes are not attached to machines"))
    }

    async fn controller_unpublish_volume(
        &self,
        _: Request<ControllerUnpublishVolumeRequest>,
    ) -> Answer<ControllerUnpublishVolumeResponse> {
        Err(Status::unimplemented("volumes are not attached to machines"))
    }

    async fn get_snapshot(&self, r: Request<GetSnapshotRequest>) -> Answer<GetSnapshotResponse> {
        let r = r.into_inner();
        let (id, secrets) = (r.snapshot_id.clone(), r.secrets.clone());
        self.answer("GetSnapshot", &id, &secrets, self.snapshot_looked_at(r)).await
    }

    async fn controller_modify_volume(
        &self,
        _: Request<ControllerModifyVolumeRequest>,
    ) -> Answer<ControllerModifyVolumeResponse> {
        Err(Status::unimplemented("volumes have no parameters that change"))
    }
}
