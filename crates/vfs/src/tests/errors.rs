//! Nothing acknowledged is lost, and who must know of an error learns of it, once.

use std::time::Duration;

use ciderfs_meta::Errno;
use ciderfs_meta::memory::FaultPlan;
use ciderfs_object::layers::Faults;

use super::support::*;

fn failing(method: &'static str) -> Faults {
    Faults { only: vec![method], fail_rate: 1.0, ..Faults::default() }
}

#[tokio::test]
async fn a_failed_upload_is_told_by_fsync_and_close_of_every_handle() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (ino, fh) = c.create("a").await;
    let other = c.open(ino).await;
    c.write(fh, 0, b"safe").await;
    c.fsync(fh).await.unwrap();
    w.objects.set(failing("PUT"));
    c.write(fh, 0, &pattern(1, 100 * KIB)).await;
    assert_eq!(errno(c.fsync(fh).await), Errno::EIO);
    // Told once per handle, and the handle works again.
    c.fsync(fh).await.unwrap();
    assert_eq!(errno(c.close(other).await), Errno::EIO);
    w.objects.set(Faults::default());
    // What was acknowledged before is there; what failed is gone, not half there.
    assert_eq!(c.read(fh, 0, 200 * KIB).await, b"safe");
    assert_eq!(c.length(ino).await, 4);
    c.write(fh, 4, b" again").await;
    c.close(fh).await.unwrap();
    let late = c.open(ino).await;
    assert_eq!(c.read(late, 0, 100).await, b"safe again");
    c.close(late).await.unwrap();
}

#[tokio::test]
async fn a_copy_of_a_descriptor_that_is_closed_keeps_no_error_from_fsync() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (_, fh) = c.create("a").await;
    w.objects.set(failing("PUT"));
    c.write(fh, 0, &pattern(1, 100 * KIB)).await;
    // A child that runs another program closes its copies: nobody looks at what it is told.
    assert_eq!(errno(c.vfs.close_descriptor(fh, 7).await), Errno::EIO);
    assert_eq!(errno(c.fsync(fh).await), Errno::EIO);
    c.vfs.close_descriptor(fh, 7).await.unwrap();
    c.fsync(fh).await.unwrap();
    c.write(fh, 0, b"again").await;
    assert_eq!(errno(c.vfs.close_descriptor(fh, 7).await), Errno::EIO);
    assert_eq!(errno(c.close(fh).await), Errno::EIO);
}

#[tokio::test]
async fn fsync_returns_only_when_all_is_stored() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (_, fh) = c.create("a").await;
    w.objects.set(Faults { only: vec!["PUT"], latency: Duration::from_millis(300), ..Faults::default() });
    let data = pattern(3, 200 * KIB);
    c.write(fh, 0, &data).await;
    c.fsync(fh).await.unwrap();
    // A client that starts now, as after a crash of the first, sees everything.
    let late = w.client().await;
    let ino =
        late.vfs.lookup(&ciderfs_meta::Caller::root(), ciderfs_format::Ino::ROOT, b"a").await.unwrap().ino;
    let fh = late.open(ino).await;
    assert_eq!(late.read(fh, 0, MIB).await, data);
    assert_eq!(w.objects().await.len(), 4);
}

#[tokio::test]
async fn a_volume_that_others_fill_meanwhile_is_told_at_fsync_and_leaves_no_objects() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (ino, fh) = c.create("a").await;
    c.write(fh, 0, b"safe").await;
    c.fsync(fh).await.unwrap();
    w.set(|s| s.capacity = 128 << 10).await;
    let (c1, c2) = (w.client().await, w.client().await);
    let fh2 = c2.open(ino).await;
    // Each has room for its own as far as it can see.
    c2.write(fh2, 0, &pattern(1, 100 * KIB)).await;
    let (_, fh1) = c1.create("b").await;
    c1.write(fh1, 0, &pattern(2, 100 * KIB)).await;
    c1.close(fh1).await.unwrap();
    c1.unlink("b").await;
    let (_, fh1) = c1.create("b").await;
    c1.write(fh1, 0, &pattern(2, 64 * KIB)).await;
    c1.close(fh1).await.unwrap();
    assert_eq!(errno(c2.fsync(fh2).await), Errno::ENOSPC);
    assert_eq!(c2.read(fh2, 0, 100).await, b"safe");
    until("the objects of the lost slice are gone", async || w.objects().await.len() == 2).await;
    c2.close(fh2).await.unwrap();
    c.close(fh).await.unwrap();
}

#[tokio::test]
async fn a_lost_reply_of_the_engine_loses_and_doubles_nothing() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (ino, fh) = c.create("a").await;
    for (n, plan) in [
        FaultPlan { lost_reply: 1, ..FaultPlan::default() },
        FaultPlan { lost_request: 1, ..FaultPlan::default() },
        FaultPlan { unavailable: 3, ..FaultPlan::default() },
    ]
    .into_iter()
    .enumerate()
    {
        c.write(fh, n * 10, b"0123456789").await;
        w.meta.set_fault(plan);
        c.fsync(fh).await.unwrap();
        w.meta.set_fault(FaultPlan::default());
        assert_eq!(c.meta.read_raw_chunk(ino, 0).await.unwrap().len(), n + 1);
    }
    assert_eq!(c.read(fh, 0, 100).await, b"012345678901234567890123456789");
}

#[tokio::test]
async fn a_missing_object_is_an_error_not_zeros() {
    use ciderfs_object::ObjectStore as _;
    let w = World::new(0).await;
    let c = w.client().await;
    let (ino, fh) = c.create("a").await;
    c.write(fh, 0, &pattern(1, 10)).await;
    c.close(fh).await.unwrap();
    for key in w.objects().await {
        w.objects.delete(&key).await.unwrap();
    }
    let late = w.client().await;
    let fh = late.open(ino).await;
    assert_eq!(errno(soon(late.try_read(fh, 0, 10)).await), Errno::EIO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_is_bounded_while_uploads_are_slow() {
    let mut w = World::new(0).await;
    w.buffer_size = 32 << 20;
    let c = w.client().await;
    w.objects.set(Faults { only: vec!["PUT"], latency: Duration::from_millis(2), ..Faults::default() });
    let data = pattern(1, MIB);
    let mut handles = Vec::new();
    for n in 0..6 {
        handles.push(c.create(&format!("f{n}")).await.1);
    }
    let writers: Vec<_> = handles
        .iter()
        .map(|&fh| {
            let (vfs, data) = (std::sync::Arc::clone(&c.vfs), data.clone());
            tokio::spawn(async move {
                for i in 0..16_u64 {
                    vfs.write(fh, i << 20, &data).await.unwrap();
                }
                vfs.fsync(fh).await.unwrap();
            })
        })
        .collect();
    for writer in writers {
        soon(writer).await.unwrap();
    }
    let peak = c.vfs.blocks.stats().buffer_peak;
    assert!(peak <= 32 << 20, "{peak}");
    for fh in handles {
        assert_eq!(c.read(fh, 15 << 20, MIB).await, data);
    }
}
