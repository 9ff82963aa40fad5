//! Who we are, and whether we can work.

use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::proto::identity_server::Identity;
use crate::proto::plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion};
use crate::proto::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    PluginCapability, ProbeRequest, ProbeResponse,
};
use crate::server::Driver;

/// How long the runtime may take to run something.
const PATIENCE: Duration = Duration::from_secs(2);

/// The identity service.
#[derive(Debug, Clone)]
pub struct IdentityService {
    driver: Driver,
}

impl IdentityService {
    /// That of a driver.
    pub fn new(driver: Driver) -> Self {
        Self { driver }
    }
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.driver.name.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").into(),
            manifest: Default::default(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let types = [
            Type::Service(Service { r#type: service::Type::ControllerService.into() }),
            Type::VolumeExpansion(VolumeExpansion { r#type: volume_expansion::Type::Online.into() }),
        ];
        let capabilities = types.map(|t| PluginCapability { r#type: Some(t) }).into();
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        // One that hangs answers nothing; one that is short of threads says so.
        let thread = tokio::task::spawn_blocking(|| ());
        let ready = tokio::time::timeout(PATIENCE, thread).await.is_ok_and(|ran| ran.is_ok());
        Ok(Response::new(ProbeResponse { ready: Some(ready) }))
    }
}
