//! The protocol. What is secret in a message is never shown.

use std::fmt;

#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::large_futures,
    reason = "made of proto/csi.proto"
)]
mod made {
    tonic::include_proto!("csi.v1");
}
pub use made::*;

/// Shows a message without its secrets: no more than the keys that are there.
macro_rules! without_secrets {
    ($($message:ident { $($field:ident),* })+) => {
        $(impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($field), &self.$field))*
                    .field("secrets", &self.secrets.keys())
                    .finish()
            }
        })+
    };
}

without_secrets! {
    CreateVolumeRequest { name, capacity_range, volume_capabilities, parameters, volume_content_source, accessibility_requirements, mutable_parameters }
    DeleteVolumeRequest { volume_id }
    ControllerPublishVolumeRequest { volume_id, node_id, volume_capability, readonly, volume_context }
    ControllerUnpublishVolumeRequest { volume_id, node_id }
    ValidateVolumeCapabilitiesRequest { volume_id, volume_context, volume_capabilities, parameters, mutable_parameters }
    ControllerModifyVolumeRequest { volume_id, mutable_parameters }
    CreateSnapshotRequest { source_volume_id, name, parameters }
    DeleteSnapshotRequest { snapshot_id }
    ListSnapshotsRequest { max_entries, starting_token, source_volume_id, snapshot_id }
    GetSnapshotRequest { snapshot_id }
    ControllerExpandVolumeRequest { volume_id, capacity_range, volume_capability }
    NodeStageVolumeRequest { volume_id, publish_context, staging_target_path, volume_capability, volume_context }
    NodePublishVolumeRequest { volume_id, publish_context, staging_target_path, target_path, volume_capability, readonly, volume_context }
    NodeExpandVolumeRequest { volume_id, volume_path, capacity_range, staging_target_path, volume_capability }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let secrets = [("secret-key".to_owned(), "hidden-value".to_owned())].into();
        let shown =
            format!("{:?}", CreateVolumeRequest { name: "pvc-1".into(), secrets, ..Default::default() });
        assert!(shown.contains("pvc-1") && shown.contains("secret-key"), "{shown}");
        assert!(!shown.contains("hidden-value"), "{shown}");
    }

    /// Every message with secrets has its own way to be shown; one that is forgotten in `build.rs` would show them.
    #[test]
    fn every_message_with_secrets_is_covered() {
        let (protocol, build) = (include_str!("../proto/csi.proto"), include_str!("../build.rs"));
        let mut message = "";
        for line in protocol.lines() {
            if let Some(name) = line.strip_prefix("message ") {
                message = name.split(' ').next().unwrap_or_default();
            }
            if line.contains(" secrets = ") {
                assert!(build.contains(&format!("\"{message}\"")), "{message}");
            }
        }
    }
}
