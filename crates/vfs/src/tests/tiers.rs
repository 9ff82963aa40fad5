//! What is stored for a file is stored in its tier.

use std::collections::BTreeSet;

use ciderfs_format::Ino;
use ciderfs_meta::store::{AttrPatch, Commit, Store as _, Write};

use super::support::*;

/// Moves a file or directory to a tier, as the official client's `tier set` does.
async fn set_tier(w: &World, ino: Ino, tier: u8) {
    let patch = AttrPatch { tail: Some((0, 0, tier)), ..AttrPatch::default() };
    w.meta.commit(&Commit { guards: Vec::new(), writes: vec![Write::PatchAttr(ino, patch)] }).await.unwrap();
}

/// The tiers that objects are in.
async fn tiers(w: &World) -> BTreeSet<u8> {
    let objects = w.objects().await;
    objects.iter().map(|key| w.stored.tier_of(key).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_and_compactions_keep_to_the_tier_of_the_file() {
    let w = World::new(0).await;
    let c = w.client().await;
    let (plain, fh) = c.create("plain").await;
    c.write(fh, 0, &pattern(1, 100 * KIB)).await;
    c.close(fh).await.unwrap();
    assert_eq!(tiers(&w).await, [0].into());
    c.unlink("plain").await;
    until("the first file is gone", async || w.objects().await.is_empty()).await;

    set_tier(&w, Ino::ROOT, 2).await;
    let c = w.client().await;
    let (ino, fh) = c.create("f").await;
    assert_ne!(ino, plain);
    // Whole blocks go while it is written, the rest with the flush.
    c.write(fh, 0, &pattern(2, 200 * KIB)).await;
    for n in 0..60 {
        c.write(fh, n * 999, &pattern(n as u64, 500)).await;
        c.fsync(fh).await.unwrap();
    }
    let want = c.read(fh, 0, MIB).await;
    assert_eq!(tiers(&w).await, [2].into());
    until("one record", async || c.meta.read_raw_chunk(ino, 0).await.unwrap().len() == 1).await;
    until("the old objects are gone", async || w.objects().await.len() == 4).await;
    assert_eq!(tiers(&w).await, [2].into());
    assert_eq!(c.read(fh, 0, MIB).await, want);
    c.close(fh).await.unwrap();

    // Somebody moves the file: what is there stays as it is, what comes is stored in the new tier.
    set_tier(&w, ino, 3).await;
    let late = w.client().await;
    let fh = late.open(ino).await;
    late.write(fh, 0, &pattern(3, KIB)).await;
    late.close(fh).await.unwrap();
    assert_eq!(tiers(&w).await, [2, 3].into());
}
