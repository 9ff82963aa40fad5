//! Counters of the volume, usage records of directories, limits, settings.

use ciderfs_format::{Attr, FileType, Ino};

use crate::error::Errno;
use crate::store::{Commit, Counter, Read, Value, Write};
use crate::suite::Engine;
use crate::suite::world::*;
use crate::{Meta, MetaConfig};

/// Counters and usage records after a little of everything.
pub async fn usage(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (a, b) = (c.dir(ROOT, "a").await, c.dir(ROOT, "b").await);
    let f = c.file(a, "f").await;
    c.put(f, 0, 0, 5000).await;
    w.check().await;
    c.make(a, "l", FileType::Symlink).await.unwrap();
    c.rename((a, "f"), (b, "f")).await.unwrap();
    w.check().await;
    c.truncate(f, 100_000).await.unwrap();
    c.truncate(f, 4096).await.unwrap();
    c.put(f, 7, 0, 1).await;
    w.check().await;
    let stat = c.meta.statfs().await.unwrap();
    let expect = (4096 * 3 + ciderfs_format::align4k(7 * ciderfs_format::CHUNK_SIZE + 1), 4);
    assert_eq!((stat.used_space, stat.used_inodes), expect);
    assert_eq!(c.meta.used(), expect);
    c.unlink(b, "f").await.unwrap();
    c.unlink(a, "l").await.unwrap();
    c.rmdir(ROOT, "a").await.unwrap();
    c.rmdir(ROOT, "b").await.unwrap();
    let stat = c.meta.statfs().await.unwrap();
    assert_eq!((stat.used_space, stat.used_inodes), (0, 0));
    w.check().await;
}

/// A file with several links counts in each directory, also when it grows.
pub async fn usage_of_hard_links(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (a, b) = (c.dir(ROOT, "a").await, c.dir(ROOT, "b").await);
    let f = c.file(a, "f").await;
    c.put(f, 0, 0, 5000).await;
    c.link(f, b, "g").await.unwrap();
    c.link(f, b, "h").await.unwrap();
    w.check().await;
    c.put(f, 0, 5000, 50_000).await;
    w.check().await;
    c.truncate(f, 10).await.unwrap();
    w.check().await;
    c.unlink(b, "g").await.unwrap();
    c.unlink(a, "f").await.unwrap();
    c.truncate(f, 200_000).await.unwrap();
    w.check().await;
    c.unlink(b, "h").await.unwrap();
    w.check().await;
}

/// The limits of the volume: `ENOSPC` for growth and new nodes, never for anything that frees.
pub async fn limits(engine: Engine) {
    let w = World::with(engine, |s| (s.capacity, s.inodes) = (1 << 20, 5)).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    c.put(f, 0, 0, 900_000).await;
    let slice = c.fresh(900_000, 200_000).await;
    assert_eq!(errno(c.append(f, 0, vec![slice]).await), Errno::ENOSPC);
    assert_eq!(errno(c.truncate(f, 2 << 20).await), Errno::ENOSPC);
    w.check().await;
    // Overwriting and shrinking are free.
    c.put(f, 0, 0, 900_000).await;
    c.truncate(f, 100_000).await.unwrap();
    let slice = c.fresh(100_000, 200_000).await;
    c.append(f, 0, vec![slice]).await.unwrap();
    for i in 1..5 {
        c.make(ROOT, &format!("n{i}"), FileType::Directory).await.unwrap();
    }
    assert_eq!(errno(c.make(ROOT, "n5", FileType::File).await), Errno::ENOSPC);
    c.link(f, ROOT, "link").await.unwrap();
    c.rmdir(ROOT, "n1").await.unwrap();
    c.file(ROOT, "n5").await;
    let stat = c.meta.statfs().await.unwrap();
    assert_eq!((stat.total_space, stat.avail_inodes), (1 << 20, 0));
    assert_eq!(stat.avail_space + stat.used_space, stat.total_space);
    // A client that starts on a full volume knows it.
    let other = w.client().await;
    assert_eq!(errno(other.make(ROOT, "n6", FileType::File).await), Errno::ENOSPC);
    w.check().await;
}

/// A usage record that is missing is computed.
pub async fn missing_usage_records(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let d = c.dir(ROOT, "d").await;
    for i in 0..5 {
        let f = c.file(d, &format!("f{i}")).await;
        c.put(f, 0, 0, 1000 * i + 1).await;
    }
    c.dir(d, "s").await;
    let drop = Commit { guards: Vec::new(), writes: vec![Write::DelDirStat(d)] };
    w.store.commit(&drop).await.unwrap();
    c.file(d, "new").await;
    assert_eq!(w.store.read(&[Read::DirStat(d)]).await.unwrap(), [Value::DirStat(None)]);
    c.meta.recompute_dir_stats().await;
    assert!(matches!(w.store.read(&[Read::DirStat(d)]).await.unwrap()[..], [Value::DirStat(Some(_))]));
    w.check().await;
    // A directory that went away in the meantime gets none.
    w.store.commit(&drop).await.unwrap();
    let e = c.dir(ROOT, "e").await;
    let drop = Commit { guards: Vec::new(), writes: vec![Write::DelDirStat(e)] };
    w.store.commit(&drop).await.unwrap();
    c.file(e, "x").await;
    c.unlink(e, "x").await.unwrap();
    c.rmdir(ROOT, "e").await.unwrap();
    c.meta.recompute_dir_stats().await;
    w.check().await;
}

/// Creating a volume and changing its settings.
pub async fn volume_settings(engine: Engine) {
    let w = World::new(engine).await;
    let s = w.store.as_ref();
    assert_eq!(Meta::read_settings(s).await.unwrap().as_ref(), Some(&w.settings));
    let mut other = w.settings.clone();
    other.capacity = 5;
    assert!(Meta::write_settings(s, &other, None).await.is_err(), "there is a volume already");
    assert!(Meta::write_settings(s, &w.settings, Some(&other)).await.is_err(), "somebody changed it");
    let c = w.client().await;
    let d = c.dir(ROOT, "d").await;
    Meta::write_settings(s, &other, Some(&w.settings)).await.unwrap();
    assert_eq!(c.find(ROOT, "d").await.unwrap(), d, "the tree stays");
    w.check().await;
    // The trash comes with the settings.
    let mut trash = other.clone();
    trash.trash_days = 3;
    Meta::write_settings(s, &trash, Some(&other)).await.unwrap();
    assert!(s.read(&[Read::Attr(Ino::TRASH)]).await.unwrap()[0] != Value::Attr(None));
    let c = w.client().await;
    assert!(!c.rmdir(ROOT, "d").await.unwrap().last);
    w.check().await;
}

/// No volume, no client; volumes that this version cannot honour are refused.
pub async fn refused_volumes(engine: Engine) {
    let store = engine.open().await;
    store.create_schema().await.unwrap();
    let missing = Meta::load(std::sync::Arc::clone(&store), World::config()).await;
    assert!(missing.err().is_some_and(|e| e.to_string().contains("format")));
    let w = World::with(engine, |s| s.change_log = true).await;
    assert!(Meta::load(std::sync::Arc::clone(&w.store), World::config()).await.is_err());
    let read_only = MetaConfig { read_only: true, ..World::config() };
    Meta::load(std::sync::Arc::clone(&w.store), read_only).await.unwrap();
}

/// Without usage records nothing is written for them.
pub async fn usage_records_off(engine: Engine) {
    let w = World::with(engine, |s| s.dir_stats = false).await;
    let c = w.client().await;
    let d = c.dir(ROOT, "d").await;
    let f = c.file(d, "f").await;
    c.put(f, 0, 0, 100).await;
    c.meta.recompute_dir_stats().await;
    for ino in [ROOT, d] {
        assert_eq!(w.store.read(&[Read::DirStat(ino)]).await.unwrap(), [Value::DirStat(None)]);
    }
    assert_eq!(w.store.read(&[Read::Counter(Counter::TotalInodes)]).await.unwrap(), [Value::Int(2)]);
    w.check().await;
}

/// Sparse files of a few users cannot take the sum of a volume without limit to where it cannot be added to any more.
pub async fn sparse_files_end_before_sums_do(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    c.dir(ROOT, "d").await;
    let before = c.meta.statfs().await.unwrap();
    let (mut whole, mut refused) = (Vec::new(), 0);
    for i in 0..64 {
        let f = c.file(ROOT, &format!("{i}")).await;
        match c.truncate(f, Attr::LENGTH_MAX).await {
            Ok(_) => whole.push(f),
            Err(e) => {
                assert_eq!(e.errno(), Errno::ENOSPC);
                refused += 1;
            }
        }
    }
    assert_eq!((whole.len(), refused), (31, 33), "each takes a 32nd of 2^62, and the directory a little");
    let full = c.meta.statfs().await.unwrap();
    assert!(full.used_space > 31 << 57 && full.total_space > full.used_space, "{full:?}");
    // Other clients know, and what is small still fits.
    let other = w.client().await;
    let small = other.file(ROOT, "small").await;
    other.put(small, 0, 0, 100_000).await;
    assert_eq!(errno(other.truncate(small, Attr::LENGTH_MAX).await), Errno::ENOSPC);
    other.unlink(ROOT, "small").await.unwrap();
    for i in 0..64 {
        other.unlink(ROOT, &format!("{i}")).await.unwrap();
    }
    assert_eq!(c.meta.statfs().await.unwrap(), before);
    w.check().await;
}
