//! Listing large directories: memory, going back, changes on the way.

use std::collections::HashSet;

use ciderfs_format::{FileType, Ino};
use ciderfs_meta::{Caller, NewNode};

use super::support::*;
use crate::io::handles::Handle;

/// Entries of the large directory.
const ENTRIES: usize = 100_000;
/// Clients' tasks that fill it.
const TASKS: usize = 8;

async fn fill(c: &Client, entries: usize) {
    let each = entries / TASKS;
    let tasks = (0..TASKS).map(|t| {
        let meta = std::sync::Arc::clone(&c.meta);
        tokio::spawn(async move {
            for i in 0..each {
                let node = NewNode { kind: FileType::File, mode: 0o644, umask: 0, rdev: 0, target: b"" };
                let name = format!("entry-{t}-{i:06}");
                meta.create(&Caller::root(), Ino::ROOT, name.as_bytes(), &node).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

/// Names of one request of the kernel's size from an offset on, and the offset after them.
async fn page(c: &Client, fh: u64, offset: u64) -> (Vec<Vec<u8>>, u64) {
    let (mut names, mut next) = (Vec::new(), offset);
    let mut sink = |item: crate::DirItem<'_>| {
        if names.len() == 300 {
            return true;
        }
        names.push(item.name.to_vec());
        next = item.next_offset;
        false
    };
    c.vfs.readdir(fh, offset, true, &mut sink).await.unwrap();
    (names, next)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_entries_are_listed_in_bounded_memory() {
    let w = World::new(0).await;
    let c = w.client().await;
    fill(&c, ENTRIES).await;
    let fh = c.vfs.opendir(&Caller::root(), Ino::ROOT).await.unwrap();
    let (mut seen, mut at, mut most) = (HashSet::new(), 0, 0);
    loop {
        let (names, next) = page(&c, fh, at).await;
        if names.is_empty() {
            break;
        }
        for name in names {
            assert!(seen.insert(name));
        }
        at = next;
        if let Ok(Handle::Dir(stream)) = c.vfs.handles.get(fh) {
            most = most.max(stream.lock().await.entries_at_hand());
        }
    }
    // `.`, `..`, `.stats`, `.config`.
    assert_eq!(seen.len(), ENTRIES + 4);
    assert!((1000..=12_000).contains(&most), "{most} entries were held at a time");
    // Far back, it begins anew.
    let (names, _) = page(&c, fh, 0).await;
    assert_eq!(names[0], b".");
    c.vfs.releasedir(fh);
}
