//! Snapshots, and volumes made from them and from each other. The official client sees what was made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ciderfs_csi::proto::volume_content_source::{SnapshotSource, Type as From, VolumeSource};
use ciderfs_csi::proto::*;
use ciderfs_format::{FileType, Ino};
use ciderfs_meta::{Caller, Meta, NewNode};
use ciderfs_testkit::official::Official;
use common::{Engine, GIB, Kit, at, eventually, refused};
use tokio::task::JoinHandle;
use tonic::{Code, Response, Status};

const ENGINES: [Engine; 2] = [Engine::Redis, Engine::Sqlite];
const CLAIM: &str = "pvc-5d2b1c9a-7d0c-4a2b-9a35-3a1f6a4d2c11";

async fn create_from(kit: &Kit, name: &str, from: From, required_bytes: i64) -> Result<Volume, Status> {
    let mut request = kit.request(name);
    request.capacity_range = Some(CapacityRange { required_bytes, limit_bytes: 0 });
    request.volume_content_source = Some(VolumeContentSource { r#type: Some(from) });
    kit.create_as(request).await
}

fn of_volume(id: &str) -> From {
    From::Volume(VolumeSource { volume_id: id.into() })
}

fn of_snapshot(id: &str) -> From {
    From::Snapshot(SnapshotSource { snapshot_id: id.into() })
}

async fn list(kit: &Kit, request: ListSnapshotsRequest) -> (Vec<String>, String) {
    let request = ListSnapshotsRequest { secrets: kit.secrets(), ..request };
    let page = kit.controller().list_snapshots(request).await.unwrap().into_inner();
    (page.entries.into_iter().map(|e| e.snapshot.unwrap().snapshot_id).collect(), page.next_token)
}

/// A volume of so many files, and a call under way that copies it, with its request.
async fn copying(
    kit: &Kit,
    files: usize,
) -> (Arc<Meta>, CreateVolumeRequest, JoinHandle<Result<Response<CreateVolumeResponse>, Status>>) {
    kit.create("source").await;
    let meta = kit.meta().await;
    let dir = at(&meta, "source").await.unwrap();
    for n in 0..files {
        let node = NewNode { kind: FileType::File, mode: 0o600, umask: 0, rdev: 0, target: b"" };
        meta.create(&Caller::root(), dir, format!("f{n}").as_bytes(), &node).await.unwrap();
    }
    let (mut c, mut request) = (kit.controller(), kit.request("copy"));
    request.volume_content_source = Some(VolumeContentSource { r#type: Some(of_volume("source")) });
    let again = request.clone();
    let call = tokio::spawn(async move { c.create_volume(request).await });
    eventually("the copy begins", async || at(&meta, ".creating").await.is_some()).await;
    (meta, again, call)
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_made_listed_and_removed() {
    for engine in ENGINES {
        let mut kit = Kit::new(engine, false).await;
        for volume in ["a", "b"] {
            kit.create(volume).await;
        }
        let meta = kit.meta().await;
        meta.dir_at(b"a/x/y", true).await.unwrap();
        let one = kit.snapshot("snapshot-1", "a").await.unwrap();
        assert!(one.ready_to_use && one.creation_time.is_some());
        assert_eq!((one.snapshot_id.as_str(), one.source_volume_id.as_str()), ("snapshot-1|a", "a"));
        assert_eq!(one.size_bytes, GIB);
        meta.dir_at(b"a/x/later", true).await.unwrap();
        kit.restart().await;
        assert_eq!(kit.snapshot("snapshot-1", "a").await.unwrap(), one);
        assert_eq!(refused(kit.snapshot("snapshot-1", "b").await), Code::AlreadyExists);
        let long = kit.snapshot(&"s".repeat(128), "b").await.unwrap();
        assert!(long.snapshot_id.len() <= 128);
        kit.snapshot("snapshot-2", "a").await.unwrap();
        let meta = kit.meta().await;
        assert!(at(&meta, ".snapshots/a/snapshot-1/x/y").await.is_some());
        assert!(at(&meta, ".snapshots/a/snapshot-1/x/later").await.is_none());
        assert!(at(&meta, ".snapshots/a/snapshot-2/x/later").await.is_some());

        let all = ListSnapshotsRequest::default;
        let (ids, next) = list(&kit, ListSnapshotsRequest { max_entries: 2, ..all() }).await;
        assert_eq!((ids.len(), next.is_empty()), (2, false));
        let (rest, end) = list(&kit, ListSnapshotsRequest { starting_token: next, ..all() }).await;
        assert_eq!((rest.len(), end.as_str()), (1, ""));
        let (of_a, _) = list(&kit, ListSnapshotsRequest { source_volume_id: "a".into(), ..all() }).await;
        assert_eq!(of_a, ["snapshot-1|a", "snapshot-2|a"]);
        let (found, _) =
            list(&kit, ListSnapshotsRequest { snapshot_id: "snapshot-2|a".into(), ..all() }).await;
        assert_eq!(found, ["snapshot-2|a"]);
        let (none, _) = list(&kit, ListSnapshotsRequest { source_volume_id: "no".into(), ..all() }).await;
        assert!(none.is_empty());

        // The volume may go; the snapshot is a volume afterwards.
        kit.delete("a").await.unwrap();
        let restored = create_from(&kit, "restored", of_snapshot("snapshot-1|a"), 2 * GIB).await.unwrap();
        assert_eq!(restored.content_source.clone().unwrap().r#type, Some(of_snapshot("snapshot-1|a")));
        assert_eq!(restored.capacity_bytes, 2 * GIB);
        kit.restart().await;
        assert_eq!(
            create_from(&kit, "restored", of_snapshot("snapshot-1|a"), 2 * GIB).await.unwrap(),
            restored
        );
        assert_eq!(
            refused(create_from(&kit, "restored", of_volume("b"), 2 * GIB).await),
            Code::AlreadyExists
        );
        assert_eq!(refused(kit.create_as(kit.request("restored")).await), Code::AlreadyExists);
        let meta = kit.meta().await;
        assert!(at(&meta, "restored/x/y").await.is_some());
        for handle in ["snapshot-1|a", "snapshot-2|a", "snapshot-1|a"] {
            let request = DeleteSnapshotRequest { snapshot_id: handle.into(), secrets: kit.secrets() };
            kit.controller().delete_snapshot(request).await.unwrap();
        }
        let meta = kit.meta().await;
        assert!(at(&meta, ".snapshots/a").await.is_none());
        assert!(at(&meta, "restored/x/y").await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_must_fit() {
    for engine in ENGINES {
        let kit = Kit::new(engine, false).await;
        let mut request = kit.request("large");
        request.capacity_range = Some(CapacityRange { required_bytes: 3 * GIB, limit_bytes: 0 });
        kit.create_as(request).await.unwrap();
        assert_eq!(refused(create_from(&kit, "small", of_volume("large"), GIB).await), Code::OutOfRange);
        assert!(at(&kit.meta().await, "small").await.is_none());
        create_from(&kit, "small", of_volume("large"), 3 * GIB).await.unwrap();
        // A directory that is there already is not replaced by a copy, nor taken for it.
        let mut request = kit.request("by-pattern");
        request.parameters.insert("pathPattern".into(), "taken".into());
        request.volume_content_source = Some(VolumeContentSource { r#type: Some(of_volume("large")) });
        request.capacity_range = None;
        kit.meta().await.dir_at(b"taken", true).await.unwrap();
        assert_eq!(refused(kit.create_as(request.clone()).await), Code::AlreadyExists);
        request.name = "by-another".into();
        request.parameters.insert("pathPattern".into(), "free/place".into());
        let made = kit.create_as(request.clone()).await.unwrap();
        assert_eq!(kit.create_as(request).await.unwrap(), made);
        assert!(at(&kit.meta().await, "free/place").await.is_some());
    }
}

/// What there is to know about a tree: names, kinds, modes, owners, times, content, links.
fn told(root: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let m = std::fs::symlink_metadata(&path).unwrap();
            let content = if m.is_file() {
                format!(
                    "{:?}",
                    std::fs::read(&path).map(|b| (b.len(), b.iter().map(|b| u64::from(*b)).sum::<u64>()))
                )
            } else if m.is_symlink() {
                format!("{:?}", std::fs::read_link(&path))
            } else {
                format!("fifo {}", m.file_type().is_fifo())
            };
            let links = if m.is_dir() { 0 } else { m.nlink() };
            let row = format!("{:o} {}:{} {} {links} {content}", m.mode(), m.uid(), m.gid(), m.mtime());
            out.insert(path.strip_prefix(root).unwrap().display().to_string(), row);
            if m.is_dir() {
                waiting.push(path);
            }
        }
    }
    out
}

/// Everything that a tree can hold, written by the official client.
fn fill(dir: &Path) {
    let run = |script: &str| {
        let out = Command::new("sh").args(["-euc", script]).current_dir(dir).output().unwrap();
        assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    };
    run(
        "mkdir -p a/b/c many && printf hello > a/file && ln a/file a/b/link && ln -s ../file a/b/symlink && mkfifo a/pipe",
    );
    run("head -c 9000000 /dev/urandom > a/b/c/big && truncate -s 300000000 a/sparse && printf x >> a/sparse");
    run("for n in $(seq 1 600); do echo $n > many/$n; done");
    run("chown 1000:1001 a/b a/file && chmod 4755 a/b/c/big && chmod 2750 a/b && chmod 0600 a/sparse");
    run("touch -d @1000000000 a/b/c/big a/b a many");
    run("python3 -c 'import os; os.setxattr(\"a/file\", \"user.note\", b\"kept\")'");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_sees_volumes_quotas_and_copies() {
    for engine in ENGINES {
        let kit = Kit::new(engine, false).await;
        let official = Official::locate().unwrap();
        let made = kit.create(CLAIM).await;
        let mount = official.mount(&kit.url, &kit.dir.path().join("mnt"), &["--enable-xattr"]).unwrap();
        let volume = mount.path().join(&made.volume_context["subPath"]);
        assert_eq!(std::fs::metadata(&volume).unwrap().permissions().mode() & 0o7777, 0o777);
        let out = official.run(["quota", "get", &kit.url, "--path", &format!("/{CLAIM}")]).unwrap();
        assert!(out.code == 0 && out.text().contains("1.0 GiB"), "{}", out.text());
        fill(&volume);
        let before = told(&volume);

        let snapshot = kit.snapshot("snapshot-1", CLAIM).await.unwrap();
        std::fs::write(volume.join("a/file"), "changed afterwards").unwrap();
        let restored = create_from(&kit, "restored", of_snapshot(&snapshot.snapshot_id), GIB).await.unwrap();
        let cloned = create_from(&kit, "cloned", of_volume(CLAIM), GIB).await.unwrap();
        assert_eq!(cloned.capacity_bytes, GIB);
        let copy = mount.path().join(&restored.volume_context["subPath"]);
        eventually("the copy appears", async || copy.exists()).await;
        assert_eq!(told(&copy), before);
        let note = Command::new("getfattr")
            .args(["--only-values", "-n", "user.note"])
            .arg(copy.join("a/file"))
            .output();
        if let Ok(note) = note {
            assert_eq!(String::from_utf8_lossy(&note.stdout), "kept");
        }
        let changed = std::fs::read_to_string(mount.path().join("cloned/a/file")).unwrap();
        assert_eq!(changed, "changed afterwards");
        // Each of them lives by itself.
        std::fs::remove_dir_all(volume.join("a")).unwrap();
        kit.delete(CLAIM).await.unwrap();
        let request = DeleteSnapshotRequest { snapshot_id: snapshot.snapshot_id, secrets: kit.secrets() };
        kit.controller().delete_snapshot(request).await.unwrap();
        let meta = kit.meta().await;
        eventually("what was deleted is gone", async || {
            let trees = at(&meta, ".deleting").await.unwrap();
            let page = meta.list_dir(&Caller::root(), trees, &Default::default(), 10, false).await.unwrap();
            page.entries.is_empty()
        })
        .await;
        mount.unmount().unwrap();
        official.gc(&kit.url, &["--delete"]).unwrap();
        official.fsck(&kit.url, &["--path", "/", "--recursive"]).unwrap();
        let check = official.run(["quota", "check", &kit.url, "--path", "/restored"]).unwrap();
        assert_eq!(check.code, 0, "{}", check.text());
        let mount = official.mount(&kit.url, &kit.dir.path().join("mnt"), &["--enable-xattr"]).unwrap();
        assert_eq!(told(&mount.path().join("restored")), before);
        mount.unmount().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_on_without_its_call() {
    for engine in ENGINES {
        let mut kit = Kit::new(engine, false).await;
        let (meta, again, call) = copying(&kit, 300).await;
        call.abort();
        // While it is under way nobody begins another one or removes it.
        if at(&meta, "copy").await.is_none() {
            let e = kit.delete("copy").await;
            assert!(e.is_ok() || refused(e) == Code::Aborted);
        }
        eventually("the copy ends", async || match kit.create_as(again.clone()).await {
            Ok(_) => true,
            Err(e) => {
                assert_eq!(e.code(), Code::Aborted, "{e}");
                false
            }
        })
        .await;
        // A driver that died amid a copy has left this; the next attempt removes it.
        let left = ciderfs_csi::volumes::hidden_dir(&meta, ".creating").await.unwrap();
        ciderfs_csi::volumes::make_dir(&meta, left, "other~0123", 0o700).await.unwrap();
        kit.restart().await;
        assert!(create_from(&kit, "other", of_volume("source"), GIB).await.is_ok());
        let meta = kit.meta().await;
        for n in [0, 299] {
            assert!(at(&meta, &format!("other/f{n}")).await.is_some());
        }
        let left = meta.list_dir(&Caller::root(), left, &Default::default(), 10, false).await.unwrap();
        assert!(left.entries.is_empty());
        assert_ne!(at(&meta, "other").await, Some(Ino::ROOT));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_what_is_deleted_meanwhile_is_whole_or_none() {
    const FILES: usize = 400;
    for engine in ENGINES {
        let kit = Kit::new(engine, false).await;
        let (meta, again, call) = copying(&kit, FILES).await;
        // This driver refuses; one that knows nothing of the copy does it.
        let refusal = kit.delete("source").await;
        let is_over = at(&meta, "copy").await.is_some();
        assert!(is_over || refused(refusal) == Code::Aborted);
        if at(&meta, "source").await.is_some() {
            ciderfs_csi::sweep::discard(&meta, Ino::ROOT, "source").await.unwrap();
            assert!(ciderfs_csi::sweep::sweep(&meta, "another").await.unwrap());
        }
        let made = call.await.unwrap().is_ok();
        let meta = kit.meta().await;
        let mut files = 0;
        if let Some(copy) = at(&meta, "copy").await {
            files = meta.tree_usage(&Caller::root(), copy, true, &|_| ()).await.unwrap().files as usize;
        }
        assert_eq!(files, if made { FILES } else { 0 });
        if !made {
            assert_eq!(refused(kit.create_as(again).await), Code::NotFound);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_failed_leave_nothing() {
    for engine in ENGINES {
        let kit = Kit::new(engine, false).await;
        kit.create("source").await;
        let meta = kit.meta().await;
        meta.dir_at(b"source/x/y", true).await.unwrap();
        let creating = ciderfs_csi::volumes::hidden_dir(&meta, ".creating").await.unwrap();
        // What is in the way of the place lets the copy fail when it is complete.
        let node = NewNode { kind: FileType::File, mode: 0o600, umask: 0, rdev: 0, target: b"" };
        meta.create(&Caller::root(), Ino::ROOT, b"file", &node).await.unwrap();
        let mut request = kit.request("copy");
        request.parameters.insert("pathPattern".into(), "file/below".into());
        request.volume_content_source = Some(VolumeContentSource { r#type: Some(of_volume("source")) });
        assert!(kit.create_as(request).await.is_err());
        assert!(ciderfs_csi::volumes::dirs_in(&meta, creating).await.unwrap().is_empty());
        // What a driver that died has left goes when nobody has renewed it for long; what is new stays.
        let lease = b"trusted.ciderfs.csi.lease";
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        for (name, renewed) in [("old~1", Some(now - 7200)), ("renewed~2", Some(now)), ("fresh~3", None)] {
            let dir = ciderfs_csi::volumes::make_dir(&meta, creating, name, 0o700).await.unwrap();
            if let Some(renewed) = renewed {
                let text = renewed.to_string().into();
                meta.set_xattr(&Caller::root(), dir, lease, text, Default::default()).await.unwrap();
            }
        }
        kit.create("another").await;
        eventually("what was left is collected", async || at(&meta, ".creating/old~1").await.is_none()).await;
        let left = ciderfs_csi::volumes::dirs_in(&meta, creating).await.unwrap();
        assert_eq!(left.into_keys().collect::<Vec<_>>(), ["fresh~3", "renewed~2"]);
    }
}
