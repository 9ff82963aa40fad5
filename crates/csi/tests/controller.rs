//! What the interface's text asks of a controller, on both engines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures, reason = "tests")]

mod common;

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use ciderfs_csi::proto::volume_capability::access_mode::Mode as Access;
use ciderfs_csi::proto::volume_capability::{AccessType, BlockVolume};
use ciderfs_csi::proto::*;
use ciderfs_format::{FileType, Ino};
use ciderfs_meta::store::QuotaKey;
use ciderfs_meta::{Caller, NewNode};
use common::{Engine, GIB, HUSH, Kit, at, capability, eventually, logs, refused};
use tonic::Code;

const ENGINES: [Engine; 2] = [Engine::Redis, Engine::Sqlite];
const CLAIM: &str = "pvc-5d2b1c9a-7d0c-4a2b-9a35-3a1f6a4d2c11";

async fn quota(kit: &Kit, path: &str) -> i64 {
    let meta = kit.meta().await;
    let ino = at(&meta, path).await.unwrap();
    meta.quota(QuotaKey::Dir(ino)).await.unwrap().map_or(0, |q| q.limits.max_space)
}

async fn put_file(kit: &Kit, dir: &str, name: &str) {
    let meta = kit.meta().await;
    let parent = at(&meta, dir).await.unwrap();
    let node = NewNode { kind: FileType::File, mode: 0o644, umask: 0, rdev: 0, target: b"" };
    meta.create(&Caller::root(), parent, name.as_bytes(), &node).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_we_are() {
    let kit = Kit::new(Engine::Sqlite, true).await;
    let info = kit.identity().get_plugin_info(GetPluginInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.name, "csi.test");
    assert!(!info.vendor_version.is_empty());
    let can =
        kit.identity().get_plugin_capabilities(GetPluginCapabilitiesRequest {}).await.unwrap().into_inner();
    assert_eq!(can.capabilities.len(), 2);
    let ready = kit.identity().probe(ProbeRequest {}).await.unwrap().into_inner().ready;
    assert_eq!(ready, Some(true));
    let socket = std::fs::symlink_metadata(kit.socket()).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.mode() & 0o777, 0o660);
}

#[tokio::test]
async fn a_socket_is_taken_over_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("csi.sock");
    drop(ciderfs_csi::server::listen(&path).await.unwrap());
    let alive = ciderfs_csi::server::listen(&path).await.unwrap();
    assert_eq!(ciderfs_csi::server::listen(&path).await.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    drop(alive);
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(ciderfs_csi::server::listen(&file).await.is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said() {
    for engine in ENGINES {
        let kit = Kit::new(engine, false).await;
        let mut c = kit.controller();
        let ok = || kit.request("a");
        let block = VolumeCapability {
            access_type: Some(AccessType::Block(BlockVolume {})),
            ..capability(Access::SingleNodeWriter)
        };
        let without = |change: &dyn Fn(&mut CreateVolumeRequest)| {
            let mut request = ok();
            change(&mut request);
            request
        };
        for (what, request) in [
            ("name", without(&|r| r.name.clear())),
            ("control", without(&|r| r.name = "a\u{1}b".into())),
            ("too long", without(&|r| r.name = "x".repeat(129))),
            ("capabilities", without(&|r| r.volume_capabilities.clear())),
            ("block", without(&|r| r.volume_capabilities = vec![block.clone()])),
            ("access type", without(&|r| r.volume_capabilities[0].access_type = None)),
            ("access mode", without(&|r| r.volume_capabilities[0].access_mode = None)),
            ("unknown mode", without(&|r| r.volume_capabilities = vec![capability(Access::Unknown)])),
            (
                "negative",
                without(&|r| r.capacity_range = Some(CapacityRange { required_bytes: -1, limit_bytes: 0 })),
            ),
            ("secrets", without(&|r| r.secrets.clear())),
            ("metaurl", without(&|r| _ = r.secrets.remove("metaurl"))),
            ("volume name", without(&|r| _ = r.secrets.remove("name"))),
            ("source", without(&|r| r.volume_content_source = Some(VolumeContentSource { r#type: None }))),
            ("format", without(&|r| _ = r.parameters.insert("format".into(), "perhaps".into()))),
            ("mutable", without(&|r| _ = r.mutable_parameters.insert("a".into(), "b".into()))),
        ] {
            assert_eq!(refused(c.create_volume(request).await), Code::InvalidArgument, "{what}");
        }
        let range = CapacityRange { required_bytes: 2 * GIB, limit_bytes: GIB };
        let request = without(&|r| r.capacity_range = Some(range));
        assert_eq!(refused(c.create_volume(request).await), Code::OutOfRange);

        let secrets = kit.secrets();
        let invalid = Code::InvalidArgument;
        assert_eq!(refused(kit.delete("").await), invalid);
        assert_eq!(refused(kit.expand("", GIB).await), invalid);
        let no_range = ControllerExpandVolumeRequest {
            volume_id: "a".into(),
            secrets: secrets.clone(),
            ..Default::default()
        };
        assert_eq!(refused(c.controller_expand_volume(no_range).await), invalid);
        for (volume_id, volume_capabilities) in
            [("", vec![capability(Access::SingleNodeWriter)]), ("a", Vec::new())]
        {
            let request = ValidateVolumeCapabilitiesRequest {
                volume_id: volume_id.into(),
                volume_capabilities,
                secrets: secrets.clone(),
                ..Default::default()
            };
            assert_eq!(refused(c.validate_volume_capabilities(request).await), invalid);
        }
        assert_eq!(refused(kit.snapshot("", "a").await), invalid);
        assert_eq!(refused(kit.snapshot("s", "").await), invalid);
        let request = DeleteSnapshotRequest { snapshot_id: String::new(), secrets: secrets.clone() };
        assert_eq!(refused(c.delete_snapshot(request).await), invalid);
        let request = GetSnapshotRequest { snapshot_id: String::new(), secrets: secrets.clone() };
        assert_eq!(refused(c.get_snapshot(request).await), invalid);
        let own = Kit::new(engine, true).await;
        let mut c = own.controller();
        assert_eq!(refused(c.controller_get_volume(ControllerGetVolumeRequest::default()).await), invalid);
        let request = ListVolumesRequest { max_entries: -1, ..Default::default() };
        assert_eq!(refused(c.list_volumes(request).await), invalid);
        let request = ListVolumesRequest { starting_token: "invalid-token".into(), ..Default::default() };
        assert_eq!(refused(c.list_volumes(request).await), Code::Aborted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_is_said() {
    for engine in ENGINES {
        let kit = Kit::new(engine, true).await;
        let mut c = kit.controller();
        for id in ["no-such-volume", CLAIM, "a/../b", "..", ".trash", ".snapshots", "/", &"x".repeat(300)] {
            kit.delete(id).await.unwrap();
            assert_eq!(refused(kit.expand(id, GIB).await), Code::NotFound, "{id}");
            let request = ValidateVolumeCapabilitiesRequest {
                volume_id: id.into(),
                volume_capabilities: vec![capability(Access::SingleNodeWriter)],
                secrets: kit.secrets(),
                ..Default::default()
            };
            assert_eq!(refused(c.validate_volume_capabilities(request).await), Code::NotFound, "{id}");
            assert_eq!(refused(kit.snapshot("s", id).await), Code::NotFound, "{id}");
            let request = ControllerGetVolumeRequest { volume_id: id.into() };
            assert_eq!(refused(c.controller_get_volume(request).await), Code::NotFound, "{id}");
        }
        for handle in ["no-such", "a|b", "|", "../..|..", "a|b|c"] {
            let request = DeleteSnapshotRequest { snapshot_id: handle.into(), secrets: kit.secrets() };
            c.delete_snapshot(request).await.unwrap();
            let request = ListSnapshotsRequest {
                snapshot_id: handle.into(),
                secrets: kit.secrets(),
                ..Default::default()
            };
            assert!(c.list_snapshots(request).await.unwrap().into_inner().entries.is_empty(), "{handle}");
            let request = GetSnapshotRequest { snapshot_id: handle.into(), secrets: kit.secrets() };
            assert_eq!(refused(c.get_snapshot(request).await), Code::NotFound, "{handle}");
        }
        for source in [
            volume_content_source::Type::Snapshot(volume_content_source::SnapshotSource {
                snapshot_id: "s|v".into(),
            }),
            volume_content_source::Type::Volume(volume_content_source::VolumeSource {
                volume_id: "v".into(),
            }),
        ] {
            let mut request = kit.request("from-nothing");
            request.volume_content_source = Some(VolumeContentSource { r#type: Some(source) });
            assert_eq!(refused(kit.create_as(request).await), Code::NotFound);
        }
        let meta = kit.meta().await;
        assert!(at(&meta, "from-nothing").await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_made_found_again_and_removed() {
    for engine in ENGINES {
        let mut kit = Kit::new(engine, true).await;
        let made = kit.create(CLAIM).await;
        assert_eq!(made.volume_id, CLAIM);
        assert_eq!(made.capacity_bytes, GIB);
        assert_eq!(made.volume_context["subPath"], CLAIM);
        assert_eq!(made.volume_context["capacity"], GIB.to_string());
        let shown = format!("{made:?}");
        assert!(!shown.contains(HUSH), "{shown}");
        let meta = kit.meta().await;
        let dir = at(&meta, CLAIM).await.unwrap();
        let attr = meta.getattr(dir).await.unwrap();
        assert_eq!((attr.mode & 0o7777, attr.kind), (0o777, FileType::Directory));
        assert_eq!(quota(&kit, CLAIM).await, GIB);

        // The same again, also by a driver that has never heard of it.
        assert_eq!(kit.create(CLAIM).await, made);
        kit.restart().await;
        assert_eq!(kit.create(CLAIM).await, made);
        let mut other = kit.request(CLAIM);
        other.capacity_range = Some(CapacityRange { required_bytes: 2 * GIB, limit_bytes: 0 });
        assert_eq!(refused(kit.create_as(other.clone()).await), Code::AlreadyExists);
        other.capacity_range = Some(CapacityRange { required_bytes: 0, limit_bytes: GIB / 2 });
        assert_eq!(refused(kit.create_as(other.clone()).await), Code::AlreadyExists);
        other.capacity_range = Some(CapacityRange { required_bytes: GIB / 2, limit_bytes: 3 * GIB });
        assert_eq!(kit.create_as(other).await.unwrap(), made);

        let request = ValidateVolumeCapabilitiesRequest {
            volume_id: CLAIM.into(),
            volume_capabilities: vec![
                capability(Access::SingleNodeSingleWriter),
                capability(Access::MultiNodeReaderOnly),
            ],
            secrets: kit.secrets(),
            ..Default::default()
        };
        let answer =
            kit.controller().validate_volume_capabilities(request.clone()).await.unwrap().into_inner();
        assert_eq!(answer.confirmed.unwrap().volume_capabilities, request.volume_capabilities);
        let mut unsupported = request;
        unsupported.volume_capabilities[0].access_type = Some(AccessType::Block(BlockVolume {}));
        let answer = kit.controller().validate_volume_capabilities(unsupported).await.unwrap().into_inner();
        assert!(answer.confirmed.is_none() && !answer.message.is_empty());

        // Larger, not smaller; a retry of an older call changes nothing.
        let answer = kit.expand(CLAIM, 2 * GIB + 1).await.unwrap();
        assert_eq!((answer.capacity_bytes, answer.node_expansion_required), (3 * GIB, false));
        assert_eq!(kit.expand(CLAIM, GIB).await.unwrap().capacity_bytes, 3 * GIB);
        // What is larger than allowed already is not called done.
        for (limit_bytes, expect) in [(2 * GIB, Err(Code::OutOfRange)), (3 * GIB, Ok(3 * GIB))] {
            let request = ControllerExpandVolumeRequest {
                volume_id: CLAIM.into(),
                capacity_range: Some(CapacityRange { required_bytes: GIB, limit_bytes }),
                secrets: kit.secrets(),
                volume_capability: None,
            };
            let answer = kit.controller().controller_expand_volume(request).await;
            assert_eq!(answer.map(|a| a.into_inner().capacity_bytes).map_err(|e| e.code()), expect);
        }
        kit.restart().await;
        assert_eq!(quota(&kit, CLAIM).await, 3 * GIB);

        put_file(&kit, CLAIM, "data").await;
        kit.delete(CLAIM).await.unwrap();
        let meta = kit.meta().await;
        assert!(at(&meta, CLAIM).await.is_none());
        kit.delete(CLAIM).await.unwrap();
        eventually("the tree is removed", async || {
            meta.getattr(dir).await.is_err() && meta.quotas().await.unwrap().is_empty()
        })
        .await;
        // A new one of the name has nothing of the old one.
        let again = kit.create(CLAIM).await;
        assert_eq!(again.capacity_bytes, GIB);
        assert!(at(&kit.meta().await, &format!("{CLAIM}/data")).await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_sizes_of_every_kind() {
    for engine in ENGINES {
        let kit = Kit::new(engine, false).await;
        let mut seen = std::collections::HashSet::new();
        for name in [
            "x".repeat(128),
            "a/b".into(),
            "..".into(),
            ".trash".into(),
            "Größe \u{1f34e}".into(),
            "A".into(),
        ] {
            let made = kit.create(&name).await;
            assert!(made.volume_id.len() <= 128 && seen.insert(made.volume_id.clone()), "{name}");
            assert_eq!(kit.create(&name).await, made);
            assert!(at(&kit.meta().await, &made.volume_context["subPath"]).await.is_some());
            kit.delete(&made.volume_id).await.unwrap();
        }
        for (required_bytes, limit_bytes, capacity) in
            [(0, 0, 0), (1, 0, GIB), (GIB + 1, 0, 2 * GIB), (GIB + 1, GIB + 4096, GIB + 4096)]
        {
            let mut request = kit.request("sized");
            request.capacity_range = Some(CapacityRange { required_bytes, limit_bytes });
            assert_eq!(kit.create_as(request).await.unwrap().capacity_bytes, capacity);
            assert_eq!(quota(&kit, "sized").await, capacity);
            kit.delete("sized").await.unwrap();
        }
        let mut request = kit.request("sized");
        request.capacity_range = None;
        assert_eq!(kit.create_as(request).await.unwrap().capacity_bytes, 0);
    }
}

/// Asks for a directory by a pattern, for the claim `data` of `team`.
fn request(kit: &Kit, name: &str, pattern: &str) -> CreateVolumeRequest {
    let mut request = kit.request(name);
    for (key, value) in [
        ("pathPattern", pattern),
        ("csi.storage.k8s.io/pvc/name", "data"),
        ("csi.storage.k8s.io/pvc/namespace", "team"),
        ("csi.storage.k8s.io/pv/name", name),
        ("mountOptions", "cache-size=1"),
    ] {
        request.parameters.insert(key.into(), value.into());
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_by_a_pattern_are_shared_and_kept_while_needed() {
    for engine in ENGINES {
        let mut kit = Kit::new(engine, true).await;
        let pattern = "${.pvc.namespace}/${.pvc.name}";
        let one = kit.create_as(request(&kit, "pv-1", pattern)).await.unwrap();
        assert_eq!((one.volume_id.as_str(), one.volume_context["subPath"].as_str()), ("pv-1", "team/data"));
        assert_eq!(one.volume_context["mountOptions"], "cache-size=1");
        assert!(!one.volume_context.contains_key("csi.storage.k8s.io/pvc/name"));
        kit.restart().await;
        assert_eq!(kit.create_as(request(&kit, "pv-1", pattern)).await.unwrap(), one);
        assert_eq!(refused(kit.create_as(request(&kit, "pv-1", "elsewhere")).await), Code::AlreadyExists);
        kit.create_as(request(&kit, "pv-2", pattern)).await.unwrap();
        kit.create_as(request(&kit, "pv-3", "team")).await.unwrap();
        assert_eq!(kit.expand("pv-1", 5 * GIB).await.unwrap().capacity_bytes, 5 * GIB);
        put_file(&kit, "team/data", "precious").await;
        for wrong in ["/", "..", ".snapshots/x", "${.pvc.labels.app}", "a,b", "a\nb", "a/\u{7f}"] {
            assert_eq!(
                refused(kit.create_as(request(&kit, "pv-4", wrong)).await),
                Code::InvalidArgument,
                "{wrong}"
            );
        }
        kit.delete("pv-3").await.unwrap();
        kit.delete("pv-1").await.unwrap();
        assert!(at(&kit.meta().await, "team/data/precious").await.is_some());
        assert_eq!(refused(kit.expand("pv-1", GIB).await), Code::NotFound);
        kit.delete("pv-2").await.unwrap();
        let meta = kit.meta().await;
        assert!(at(&meta, "team/data").await.is_none());
        assert!(at(&meta, "team").await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_there_before_stays() {
    for engine in ENGINES {
        let mut kit = Kit::new(engine, true).await;
        kit.meta().await.dir_at(b"home/user", true).await.unwrap();
        put_file(&kit, "home/user", "precious").await;
        let made = kit.create_as(request(&kit, "pv-1", "home/user")).await.unwrap();
        assert_eq!(made.volume_context["subPath"], "home/user");
        kit.create_as(request(&kit, "pv-2", "home/user")).await.unwrap();
        kit.restart().await;
        assert_eq!(kit.create_as(request(&kit, "pv-1", "home/user")).await.unwrap(), made);
        for id in ["pv-1", "pv-2"] {
            kit.delete(id).await.unwrap();
            assert_eq!(refused(kit.expand(id, GIB).await), Code::NotFound);
            assert!(at(&kit.meta().await, "home/user/precious").await.is_some());
        }
        // One that was made here goes, whichever of its volumes goes last; a clone of it is not made here.
        kit.create_as(request(&kit, "pv-3", "home/new")).await.unwrap();
        let (meta, root, note) = (kit.meta().await, Caller::root(), b"trusted.ciderfs.csi.made");
        let (new, clone) = (at(&meta, "home/new").await.unwrap(), at(&meta, "home/user").await.unwrap());
        let value = meta.get_xattr(&root, new, note).await.unwrap();
        meta.set_xattr(&root, clone, note, value, Default::default()).await.unwrap();
        kit.create_as(request(&kit, "pv-5", "home/user")).await.unwrap();
        kit.delete("pv-5").await.unwrap();
        assert!(at(&kit.meta().await, "home/user/precious").await.is_some());
        kit.create_as(request(&kit, "pv-4", "home/new")).await.unwrap();
        // One of a version that wrote no note cannot be told from one that was there before.
        kit.create_as(request(&kit, "pv-6", "home/old")).await.unwrap();
        put_file(&kit, "home/old", "precious").await;
        let old = at(&meta, "home/old").await.unwrap();
        kit.meta().await.remove_xattr(&root, old, note).await.unwrap();
        kit.delete("pv-6").await.unwrap();
        assert!(at(&kit.meta().await, "home/old/precious").await.is_some());
        assert!(logs().contains("pv-6: nothing shows that /home/old was made for a volume"));
        assert_eq!(refused(kit.expand("pv-6", GIB).await), Code::NotFound);
        kit.delete("pv-3").await.unwrap();
        kit.delete("pv-4").await.unwrap();
        assert!(at(&kit.meta().await, "home/new").await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_no_volume() {
    for engine in ENGINES {
        let kit = Kit::new(engine, true).await;
        let mut large = kit.request("large");
        large.capacity_range = Some(CapacityRange { required_bytes: 3 * GIB, limit_bytes: 0 });
        kit.create_as(large).await.unwrap();
        let of = |volume: &str| VolumeContentSource {
            r#type: Some(volume_content_source::Type::Volume(volume_content_source::VolumeSource {
                volume_id: volume.into(),
            })),
        };
        kit.meta().await.dir_at(b"taken", true).await.unwrap();
        put_file(&kit, "taken", "precious").await;
        for (path, source, expect) in [
            ("taken", "large", Code::AlreadyExists),
            ("free/one", "nothing", Code::NotFound),
            ("free/two", "large", Code::OutOfRange),
        ] {
            let mut wanted = request(&kit, "refused", path);
            wanted.volume_content_source = Some(of(source));
            assert_eq!(refused(kit.create_as(wanted).await), expect, "{path}");
            let get = ControllerGetVolumeRequest { volume_id: "refused".into() };
            let found = kit.controller().controller_get_volume(get).await;
            assert_eq!(refused(found), Code::NotFound, "{path}");
            assert!(at(&kit.meta().await, ".volumes/refused").await.is_none(), "{path}");
            kit.delete("refused").await.unwrap();
        }
        assert!(at(&kit.meta().await, "taken/precious").await.is_some());
        // The id is free.
        kit.create_as(request(&kit, "refused", "free/three")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_claim_names_the_volume_of_another() {
    for engine in ENGINES {
        let kit = Kit::new(engine, true).await;
        kit.create(CLAIM).await;
        kit.create("archive").await;
        let absent = CLAIM.replace('5', "6");
        for name in [CLAIM, "archive", &absent] {
            for pattern in ["${.pvc.name}", "${.pvc.name}/x/y"] {
                let mut wanted = request(&kit, "pv-1", pattern);
                wanted.parameters.insert("csi.storage.k8s.io/pvc/name".into(), name.into());
                assert_eq!(refused(kit.create_as(wanted).await), Code::InvalidArgument, "{name} {pattern}");
                assert!(at(&kit.meta().await, ".volumes/pv-1").await.is_none());
            }
            assert!(at(&kit.meta().await, &format!("{name}/x")).await.is_none());
        }
        // A volume may lie below its own name.
        let own = kit.create_as(request(&kit, &absent, "${.pv.name}/data")).await.unwrap();
        assert_eq!(own.volume_context["subPath"], format!("{absent}/data"));
        // And none takes the directory of one that is listed, while it is still empty.
        kit.create_as(request(&kit, "pv-2", "${.pvc.name}")).await.unwrap();
        assert_eq!(refused(kit.create_as(kit.request("data")).await), Code::AlreadyExists);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_in_each_other_follow_each_other() {
    for engine in ENGINES {
        let kit = Kit::new(engine, false).await;
        for n in 0..40 {
            let (outer, inner) = (format!("outer-{n}"), format!("inner-{n}"));
            let (dir, below) = (format!("team-{n}"), format!("team-{n}/data"));
            kit.create_as(request(&kit, &outer, &dir)).await.unwrap();
            let ((), made) = tokio::join!(
                retried(async || kit.delete(&outer).await),
                retried(async || kit.create_as(request(&kit, &inner, &below)).await),
            );
            assert_eq!(made.volume_id, inner);
            assert!(at(&kit.meta().await, &below).await.is_some(), "{below} is gone");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_does_not_hide_the_others() {
    let kit = Kit::new(Engine::Sqlite, true).await;
    let mut other = Kit::new(Engine::Redis, false).await;
    let get = async |id: &str| {
        kit.controller().controller_get_volume(ControllerGetVolumeRequest { volume_id: id.into() }).await
    };
    kit.create("here").await;
    let snapshot = kit.snapshot("snapshot-1", "here").await.unwrap().snapshot_id;
    kit.create_as(other.request("there")).await.unwrap();
    // A Secret may be mounted before there is anything in it.
    for file in std::fs::read_dir(kit.dir.path().join("secret")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let listed = kit.controller().list_volumes(ListVolumesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.entries.len(), 2);
    other.redis.as_mut().unwrap().kill();
    assert_eq!(get("here").await.unwrap().into_inner().volume.unwrap().volume_id, "here");
    let list = async |snapshot_id: &str| {
        let request = ListSnapshotsRequest { snapshot_id: snapshot_id.into(), ..Default::default() };
        kit.controller().list_snapshots(request).await.map(|page| page.into_inner().entries.len())
    };
    assert_eq!(list(&snapshot).await.unwrap(), 1);
    let room = kit.controller().get_capacity(GetCapacityRequest::default()).await.unwrap().into_inner();
    assert!(room.available_capacity > 0);
    // What was not found may be there; a list would lack a part.
    let away = |code| matches!(code, Code::Unavailable | Code::DeadlineExceeded);
    assert!(away(refused(get("there").await)));
    assert!(away(refused(list("snapshot-2|there").await)));
    assert!(away(refused(kit.controller().list_volumes(ListVolumesRequest::default()).await)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_made() {
    for engine in ENGINES {
        let kit = Kit::new(engine, false).await;
        let meta = kit.meta().await;
        let foreign = "pvc-00000000-1111-2222-3333-444444444444";
        for path in ["home/user", CLAIM, foreign] {
            meta.dir_at(path.as_bytes(), true).await.unwrap();
        }
        meta.set_quota(QuotaKey::Dir(at(&meta, CLAIM).await.unwrap()), Some(GIB), None).await.unwrap();
        put_file(&kit, CLAIM, "data").await;
        // A directory of somebody's is no volume.
        kit.delete("home").await.unwrap();
        assert_eq!(refused(kit.expand("home", GIB).await), Code::NotFound);
        assert_eq!(refused(kit.create_as(kit.request("home")).await), Code::AlreadyExists);
        assert!(at(&kit.meta().await, "home/user").await.is_some());
        let now = kit.meta().await;
        let all = ciderfs_csi::volumes::all(&now).await.unwrap();
        assert_eq!(all.into_keys().collect::<Vec<_>>(), [foreign, CLAIM]);
        // Those of the official driver are: they grow, are taken over, and are removed.
        assert_eq!(kit.expand(CLAIM, 2 * GIB).await.unwrap().capacity_bytes, 2 * GIB);
        assert_eq!(quota(&kit, CLAIM).await, 2 * GIB);
        let snapshot = kit.snapshot("snapshot-1", CLAIM).await.unwrap();
        assert_eq!(snapshot.snapshot_id, format!("snapshot-1|{CLAIM}"));
        kit.delete(CLAIM).await.unwrap();
        kit.delete(foreign).await.unwrap();
        let meta = kit.meta().await;
        assert!(at(&meta, CLAIM).await.is_none() && at(&meta, foreign).await.is_none());
        assert!(at(&meta, &format!(".snapshots/{CLAIM}/snapshot-1/data")).await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_pages() {
    for engine in ENGINES {
        let mut kit = Kit::new(engine, true).await;
        for n in 0..7 {
            kit.create(&format!("v{n}")).await;
        }
        kit.restart().await;
        let mut c = kit.controller();
        let mut names = Vec::new();
        let mut starting_token = String::new();
        loop {
            let request = ListVolumesRequest { max_entries: 3, starting_token };
            let page = c.list_volumes(request).await.unwrap().into_inner();
            assert!(page.entries.len() <= 3);
            names.extend(page.entries.into_iter().map(|e| {
                assert!(!e.status.unwrap().volume_condition.unwrap().abnormal);
                e.volume.unwrap().volume_id
            }));
            starting_token = page.next_token;
            if starting_token.is_empty() {
                break;
            }
        }
        assert_eq!(names, (0..7).map(|n| format!("v{n}")).collect::<Vec<_>>());
        let room = c.get_capacity(GetCapacityRequest::default()).await.unwrap().into_inner();
        assert!(room.available_capacity > 0);
        let get = ControllerGetVolumeRequest { volume_id: "v3".into() };
        let found = c.controller_get_volume(get).await.unwrap().into_inner();
        assert_eq!(found.volume.unwrap().capacity_bytes, GIB);
        let can =
            c.controller_get_capabilities(ControllerGetCapabilitiesRequest {}).await.unwrap().into_inner();
        assert_eq!(can.capabilities.len(), 11);
    }
    let bare = Kit::new(Engine::Sqlite, false).await;
    let mut c = bare.controller();
    let can = c.controller_get_capabilities(ControllerGetCapabilitiesRequest {}).await.unwrap().into_inner();
    assert_eq!(can.capabilities.len(), 7);
    // What it does not tell that it can it does not do.
    assert_eq!(refused(c.list_volumes(ListVolumesRequest::default()).await), Code::Unimplemented);
    assert_eq!(refused(c.get_capacity(GetCapacityRequest::default()).await), Code::Unimplemented);
    let get = ControllerGetVolumeRequest { volume_id: "v".into() };
    assert_eq!(refused(c.controller_get_volume(get).await), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once() {
    for engine in ENGINES {
        let kit = Kit::new(engine, false).await;
        // For one name: one does it, the others are told to come again or find it.
        let calls = (0..16).map(|_| {
            let (mut c, request) = (kit.controller(), kit.request("same"));
            tokio::spawn(async move { c.create_volume(request).await })
        });
        let calls: Vec<_> = calls.collect();
        let mut made = 0;
        for call in calls {
            match call.await.unwrap() {
                Ok(answer) => {
                    made += 1;
                    assert_eq!(answer.into_inner().volume.unwrap().volume_id, "same");
                }
                Err(e) => assert_eq!(e.code(), Code::Aborted, "{e}"),
            }
        }
        assert!(made > 0);
        // For many names: all.
        let calls = (0..50).map(|n| {
            let (mut c, request) = (kit.controller(), kit.request(&format!("v{n}")));
            tokio::spawn(async move { c.create_volume(request).await.unwrap() })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        for n in 0..50 {
            kit.delete(&format!("v{n}")).await.unwrap();
        }
        kit.delete("same").await.unwrap();
        let meta = kit.meta().await;
        eventually("all trees are removed", async || meta.quotas().await.unwrap().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cut_off_is_completed_by_the_next() {
    for engine in ENGINES {
        let kit = Kit::new(engine, false).await;
        for micros in (0..3000).step_by(150) {
            let name = format!("v{micros}");
            let (mut c, request) = (kit.controller(), kit.request(&name));
            let call = tokio::spawn(async move { c.create_volume(request).await });
            tokio::time::sleep(std::time::Duration::from_micros(micros)).await;
            call.abort();
            let made = retried(async || kit.create_as(kit.request(&name)).await).await;
            assert_eq!(made.capacity_bytes, GIB);
            assert_eq!(quota(&kit, &name).await, GIB);
            let (mut c, request) =
                (kit.controller(), DeleteVolumeRequest { volume_id: name.clone(), secrets: kit.secrets() });
            let call = tokio::spawn(async move { c.delete_volume(request).await });
            tokio::time::sleep(std::time::Duration::from_micros(micros)).await;
            call.abort();
            retried(async || kit.delete(&name).await).await;
            assert!(at(&kit.meta().await, &name).await.is_none());
        }
    }
}

/// Repeats a call as a side-car does.
async fn retried<T>(call: impl AsyncFn() -> Result<T, tonic::Status>) -> T {
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(e) => assert_eq!(e.code(), Code::Aborted, "{e}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_goes_on_after_a_restart() {
    for engine in ENGINES {
        let mut kit = Kit::new(engine, true).await;
        kit.create("big").await;
        let meta = kit.meta().await;
        let root = Caller::root();
        for n in 0..20 {
            let dir = meta.dir_at(format!("big/{n}/deep/er").as_bytes(), true).await.unwrap();
            for f in 0..10 {
                let node = NewNode { kind: FileType::File, mode: 0o600, umask: 0, rdev: 0, target: b"" };
                let (ino, _) = meta.create(&root, dir, format!("f{f}").as_bytes(), &node).await.unwrap();
                if f == 3 {
                    let set = ciderfs_meta::SetAttr {
                        flags: Some(ciderfs_format::attr::flags::IMMUTABLE),
                        ..Default::default()
                    };
                    meta.setattr(&root, ino, &set).await.unwrap();
                }
            }
        }
        // Moved away as a driver does that dies then.
        let dir = at(&meta, "big").await.unwrap();
        ciderfs_csi::sweep::discard(&meta, Ino::ROOT, "big").await.unwrap();
        assert!(at(&meta, "big").await.is_none());
        assert!(meta.getattr(dir).await.is_ok());
        kit.restart().await;
        // Nobody calls: the driver has a Secret.
        let meta = kit.meta().await;
        eventually("what was left is removed", async || {
            let trees = at(&meta, ".deleting").await.unwrap();
            meta.getattr(dir).await.is_err()
                && meta
                    .list_dir(&root, trees, &Default::default(), 10, false)
                    .await
                    .unwrap()
                    .entries
                    .is_empty()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_is_named_without_its_password() {
    let mut kit = Kit::new(Engine::Redis, false).await;
    kit.create("v").await;
    let port = kit.redis.as_ref().unwrap().port();
    // It takes connections and calls, and answers none of them.
    let pid = rustix::process::Pid::from_raw(kit.redis.as_ref().unwrap().pid().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let began = std::time::Instant::now();
    let e = kit.create_as(kit.request("w")).await.unwrap_err();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert!(matches!(e.code(), Code::Unavailable | Code::DeadlineExceeded), "{e}");
    assert!(e.message().contains(&port.to_string()) && !e.message().contains(HUSH), "{e}");
    assert!(began.elapsed() < std::time::Duration::from_secs(35));
    assert!(kit.create_as(kit.request("w")).await.is_ok());
    kit.redis.as_mut().unwrap().kill();
    let began = std::time::Instant::now();
    let e = kit.create_as(kit.request("y")).await.unwrap_err();
    assert!(matches!(e.code(), Code::Unavailable | Code::DeadlineExceeded), "{e}");
    assert!(e.message().contains(&port.to_string()) && !e.message().contains(HUSH), "{e}");
    assert!(began.elapsed() < std::time::Duration::from_secs(35));
    kit.redis.as_mut().unwrap().restart().unwrap();
    // The data of this server was in its memory.
    assert_eq!(refused(kit.create_as(kit.request("w")).await), Code::FailedPrecondition);
    kit.restart().await;
    let mut wrong = kit.request("x");
    wrong.secrets.insert("metaurl".into(), format!("redis://:{HUSH}-wrong@127.0.0.1:{port}/1"));
    assert_eq!(refused(kit.create_as(wrong).await), Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_no_answer_and_no_log() {
    for engine in ENGINES {
        let kit = Kit::new(engine, true).await;
        let made = kit.create("quiet").await;
        assert!(!format!("{made:?}").contains(HUSH));
        let mut other = kit.request("quiet");
        other.secrets.insert("name".into(), "another".into());
        assert_eq!(refused(kit.create_as(other).await), Code::FailedPrecondition);
        kit.delete("quiet").await.unwrap();
    }
    let logs = logs();
    assert!(logs.contains("CreateVolume"), "calls are logged");
    assert!(!logs.contains(HUSH), "{logs}");
}
