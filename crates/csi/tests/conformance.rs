//! What the interface's text says of a whole driver: capabilities that are told and kept, lists, snapshots one by one, engines that are
//! gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use ciderfs_csi::controller::ControllerService;
use ciderfs_csi::proto::controller_server::Controller as _;
use ciderfs_csi::proto::controller_service_capability::{Type, rpc};
use ciderfs_csi::proto::*;
use ciderfs_csi::{Driver, Mode};
use common::{Engine, GIB, Kit, refused};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};

/// The codes of all calls of a controller, by the capabilities that they belong to.
async fn codes(kit: &Kit) -> Vec<(rpc::Type, Code)> {
    use rpc::Type as T;
    let mut c = kit.controller();
    let code = |answer: Result<(), tonic::Status>| answer.map_or_else(|e| e.code(), |()| Code::Ok);
    macro_rules! call {
        ($call:ident, $request:expr) => {
            code(c.$call($request).await.map(drop))
        };
    }
    vec![
        (T::CreateDeleteVolume, call!(create_volume, CreateVolumeRequest::default())),
        (T::CreateDeleteVolume, call!(delete_volume, DeleteVolumeRequest::default())),
        (
            T::PublishUnpublishVolume,
            call!(controller_publish_volume, ControllerPublishVolumeRequest::default()),
        ),
        (
            T::PublishUnpublishVolume,
            call!(controller_unpublish_volume, ControllerUnpublishVolumeRequest::default()),
        ),
        (T::ListVolumes, call!(list_volumes, ListVolumesRequest::default())),
        (T::GetCapacity, call!(get_capacity, GetCapacityRequest::default())),
        (T::CreateDeleteSnapshot, call!(create_snapshot, CreateSnapshotRequest::default())),
        (T::CreateDeleteSnapshot, call!(delete_snapshot, DeleteSnapshotRequest::default())),
        (T::ListSnapshots, call!(list_snapshots, ListSnapshotsRequest::default())),
        (T::GetSnapshot, call!(get_snapshot, GetSnapshotRequest::default())),
        (T::ExpandVolume, call!(controller_expand_volume, ControllerExpandVolumeRequest::default())),
        (T::GetVolume, call!(controller_get_volume, ControllerGetVolumeRequest::default())),
        (T::ModifyVolume, call!(controller_modify_volume, ControllerModifyVolumeRequest::default())),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_can_what_it_tells_and_nothing_else() {
    for with_secret in [false, true] {
        let kit = Kit::new(Engine::Sqlite, with_secret).await;
        let told = kit.controller().controller_get_capabilities(ControllerGetCapabilitiesRequest {}).await;
        let told: BTreeSet<i32> = told
            .unwrap()
            .into_inner()
            .capabilities
            .into_iter()
            .map(|c| match c.r#type {
                Some(Type::Rpc(rpc)) => rpc.r#type,
                None => panic!("a capability without a type"),
            })
            .collect();
        for (capability, code) in codes(&kit).await {
            let can = told.contains(&i32::from(capability));
            assert_eq!(code != Code::Unimplemented, can, "{capability:?} {code:?}");
        }
    }
}

/// Services of newer versions that are not there answer as calls that are not.
#[tokio::test(flavor = "multi_thread")]
async fn other_services_are_unimplemented() {
    let kit = Kit::new(Engine::Sqlite, true).await;
    for call in [
        "/csi.v1.GroupController/GroupControllerGetCapabilities",
        "/csi.v1.GroupController/CreateVolumeGroupSnapshot",
        "/csi.v1.SnapshotMetadata/GetMetadataAllocated",
        "/csi.v1.Controller/NoSuchCall",
        "/csi.v1.Node/NodeGetInfo",
    ] {
        let mut client = tonic::client::Grpc::new(kit.channel());
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<ProbeRequest, ProbeResponse>::default();
        let answer =
            client.unary(Request::new(ProbeRequest {}), PathAndQuery::from_static(call), codec).await;
        assert_eq!(refused(answer), Code::Unimplemented, "{call}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_found_one_by_one() {
    for engine in [Engine::Redis, Engine::Sqlite] {
        let kit = Kit::new(engine, true).await;
        kit.create("a").await;
        let made = kit.snapshot("snapshot-1", "a").await.unwrap();
        kit.snapshot("snapshot-2", "a").await.unwrap();
        let get = async |id: &str, secrets| {
            let request = GetSnapshotRequest { snapshot_id: id.into(), secrets };
            kit.controller().get_snapshot(request).await.map(|found| found.into_inner().snapshot.unwrap())
        };
        // With its Secret, and with that of the driver.
        assert_eq!(get(&made.snapshot_id, kit.secrets()).await.unwrap(), made);
        assert_eq!(get(&made.snapshot_id, Default::default()).await.unwrap(), made);
        assert_eq!(refused(get("snapshot-1|b", kit.secrets()).await), Code::NotFound);
        assert_eq!(refused(get("snapshot-1", kit.secrets()).await), Code::NotFound);
        let request = DeleteSnapshotRequest { snapshot_id: made.snapshot_id.clone(), secrets: kit.secrets() };
        kit.controller().delete_snapshot(request).await.unwrap();
        assert_eq!(refused(get(&made.snapshot_id, kit.secrets()).await), Code::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_lists() {
    let kit = Kit::new(Engine::Sqlite, true).await;
    for n in 0..4 {
        kit.create(&format!("v{n}")).await;
        kit.snapshot(&format!("s{n}"), "v0").await.unwrap();
    }
    let mut c = kit.controller();
    let list = ListSnapshotsRequest { max_entries: -1, ..Default::default() };
    assert_eq!(refused(c.list_snapshots(list).await), Code::InvalidArgument);
    let list = ListSnapshotsRequest { starting_token: "invalid-token".into(), ..Default::default() };
    assert_eq!(refused(c.list_snapshots(list).await), Code::Aborted);
    // Volumes may come and go between pages: a token stays valid, and nothing is told twice.
    let list = ListVolumesRequest { max_entries: 2, starting_token: String::new() };
    let first = c.list_volumes(list).await.unwrap().into_inner();
    for entry in &first.entries {
        kit.delete(&entry.volume.as_ref().unwrap().volume_id).await.unwrap();
    }
    kit.create("v9").await;
    let list = ListVolumesRequest { max_entries: 0, starting_token: first.next_token };
    let rest = c.list_volumes(list).await.unwrap().into_inner();
    let ids: Vec<_> = rest.entries.into_iter().map(|e| e.volume.unwrap().volume_id).collect();
    assert_eq!((ids.as_slice(), rest.next_token.as_str()), (&["v2", "v3", "v9"].map(String::from)[..], ""));
}

/// One more volume of a name, whose size is exactly another one.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_name_with_another_exact_size() {
    let kit = Kit::new(Engine::Sqlite, true).await;
    let exactly = |bytes: i64| {
        let mut request = kit.request("v");
        request.capacity_range = Some(CapacityRange { required_bytes: bytes, limit_bytes: bytes });
        request
    };
    assert_eq!(kit.create_as(exactly(10 * GIB + 5)).await.unwrap().capacity_bytes, 10 * GIB + 5);
    assert_eq!(refused(kit.create_as(exactly(20 * GIB)).await), Code::AlreadyExists);
    assert_eq!(refused(kit.create_as(exactly(GIB)).await), Code::AlreadyExists);
    assert_eq!(kit.expand("v", 11 * GIB).await.unwrap().capacity_bytes, 11 * GIB);
}

/// An engine that is gone for good does not keep lists from being made.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_gone_is_left_out_of_lists_after_a_while() {
    let kit = Kit::new(Engine::Sqlite, true).await;
    let mut other = Kit::new(Engine::Redis, false).await;
    let driver = Driver {
        name: "csi.test".into(),
        node_id: String::new(),
        mode: Mode::Controller,
        secrets_dir: Some(kit.dir.path().join("secret")),
        formatter: None,
    };
    let service = ControllerService::forgetting(driver.clone(), Duration::ZERO);
    let patient = ControllerService::forgetting(driver, Duration::from_secs(3600));
    for service in [&service, &patient] {
        for request in [kit.request("here"), other.request("there")] {
            service.create_volume(Request::new(request)).await.unwrap();
        }
    }
    let list = async |service: &ControllerService| {
        let listed = service.list_volumes(Request::new(ListVolumesRequest::default())).await?.into_inner();
        Ok::<_, tonic::Status>(
            listed.entries.into_iter().map(|e| e.volume.unwrap().volume_id).collect::<Vec<_>>(),
        )
    };
    assert_eq!(list(&service).await.unwrap(), ["here", "there"]);
    let port = other.redis.as_ref().unwrap().port().to_string();
    other.redis.as_mut().unwrap().kill();
    let (first, later) = tokio::join!(list(&service), list(&patient));
    for failure in [first.unwrap_err(), later.unwrap_err()] {
        assert!(matches!(failure.code(), Code::Unavailable | Code::DeadlineExceeded), "{failure}");
        assert!(failure.message().contains(&port), "the engine is named: {failure}");
    }
    assert_eq!(list(&service).await.unwrap(), ["here"]);
    assert!(common::logs().contains("calls that bring no Secret are answered without it from now on"));
    let snapshots = service.list_snapshots(Request::new(ListSnapshotsRequest::default())).await.unwrap();
    assert!(snapshots.into_inner().entries.is_empty());
    let get = Request::new(ControllerGetVolumeRequest { volume_id: "there".into() });
    assert_eq!(refused(service.controller_get_volume(get).await), Code::NotFound);
}
