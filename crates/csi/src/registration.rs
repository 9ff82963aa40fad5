//! Makes kubelet know the driver, as the side-car node-driver-registrar does; for installations of one image.

use std::io;
use std::path::{Path, PathBuf};

use tonic::transport::Server;
use tonic::{Request, Response, Status};

use made::registration_server::{Registration, RegistrationServer};
pub use made::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse, registration_client,
};

#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "made of proto/pluginregistration.proto")]
mod made {
    tonic::include_proto!("pluginregistration");
}

/// What kubelet is told.
#[derive(Debug, Clone)]
struct Plugin {
    name: String,
    endpoint: String,
}

#[tonic::async_trait]
impl Registration for Plugin {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".into(),
            name: self.name.clone(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec!["1.0.0".into()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        match status.plugin_registered {
            true => tracing::info!("kubelet knows {}", self.name),
            // It tries again when the socket is made anew.
            false => tracing::error!("kubelet does not take {}: {}", self.name, status.error),
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

/// The socket that kubelet finds.
pub fn socket(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}-reg.sock"))
}

/// Tells kubelet, in whose directory for it the socket is made, that the driver `name` listens at `endpoint`, which is a path as kubelet
/// sees it. Ends with `stop`, and takes the socket away.
///
/// # Errors
/// Of the socket.
pub async fn serve(dir: &Path, name: &str, endpoint: &str, stop: impl Future<Output = ()>) -> io::Result<()> {
    let path = socket(dir, name);
    let listener = crate::server::listen(&path).await?;
    let plugin = Plugin { name: name.into(), endpoint: endpoint.into() };
    let served = Server::builder()
        .add_service(RegistrationServer::new(plugin))
        .serve_with_incoming_shutdown(crate::server::connections(listener), stop)
        .await;
    let _ = std::fs::remove_file(&path);
    served.map_err(io::Error::other)
}
