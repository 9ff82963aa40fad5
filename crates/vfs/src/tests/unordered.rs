//! Listings that go on in the next process over an engine that lists in no order, as Redis does: a walk of a hash table.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use async_trait::async_trait;
use ciderfs_format::Ino;
use ciderfs_handover::State;
use ciderfs_meta::Caller;
use ciderfs_meta::memory::MemoryStore;
use ciderfs_meta::store::{DirCursor, DirEntry, Store, StoreError};

use super::resume::list;
use super::support::*;

struct Unordered(Arc<MemoryStore>);

fn place(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish() >> 1
}

#[async_trait]
impl Store for Unordered {
    ciderfs_meta::forward_store! {
        |self| self.0 =>
            engine, describe, read, commit, allocate, claim, scan, create_schema, now, memory,
            turns
    }

    fn lists_in_order(&self) -> bool {
        false
    }

    async fn list_dir(
        &self,
        dir: Ino,
        cursor: &DirCursor,
        limit: usize,
        attrs: bool,
    ) -> Result<(Vec<DirEntry>, DirCursor), StoreError> {
        let from = match cursor {
            DirCursor::Start => 0,
            DirCursor::Scan(from) => *from,
            DirCursor::End => return Ok((Vec::new(), DirCursor::End)),
            DirCursor::After(_) => return Err(StoreError::fatal("no order")),
        };
        let (mut all, _) = self.0.list_dir(dir, &DirCursor::Start, usize::MAX, attrs).await?;
        all.sort_by_key(|e| place(&e.name));
        all.retain(|e| place(&e.name) >= from);
        let next = match all.get(limit) {
            Some(e) => DirCursor::Scan(place(&e.name)),
            None => DirCursor::End,
        };
        all.truncate(limit);
        Ok((all, next))
    }
}

#[tokio::test]
async fn a_listing_goes_on_where_it_was() {
    let w = World::new(0).await;
    let state = Arc::new(State::create("test", 8 << 20).unwrap());
    let store = Arc::new(Unordered(Arc::clone(&w.meta)));
    let (c, _) = w.process_on(Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&state), false).await;
    let mut all: BTreeSet<String> = (0..7000).map(|n| format!("f{n}")).collect();
    for name in &all {
        let node = ciderfs_meta::NewNode { kind: ciderfs_format::FileType::File, ..dir_node() };
        c.vfs.create(&Caller::root(), Ino::ROOT, name.as_bytes(), &node).await.unwrap();
    }
    let dir = async || c.vfs.opendir(&Caller::root(), Ino::ROOT).await.unwrap();
    let (plain, removing) = (dir().await, dir().await);
    let special = 2 + c.vfs.virtual_names().count();
    // The second page is longer than the first one, and then once more the first of another process.
    let (names, mut at) = list(&c, plain, 0, 4500 + special).await;
    let mut seen: BTreeSet<String> = names.into_iter().skip(special).collect();
    let (names, mut from) = list(&c, removing, 0, 4200 + special).await;
    let removed = &names[special..];
    let next = State::from_fd(state.fd().try_clone_to_owned().unwrap()).unwrap();
    let (c2, found) = w.process_on(store, Arc::new(next), true).await;
    assert_eq!(found.handles, 2);
    while let (names, end) = list(&c2, plain, at, 800).await
        && !names.is_empty()
    {
        assert!(names.iter().all(|name| seen.insert(name.clone())), "given twice");
        at = end;
    }
    assert_eq!(seen, all, "passed over");
    for name in removed {
        c2.unlink(name).await;
        all.remove(name);
    }
    while let (names, end) = list(&c2, removing, from, 800).await
        && !names.is_empty()
    {
        for name in &names {
            c2.unlink(name).await;
            all.remove(name);
        }
        from = end;
    }
    assert!(all.is_empty(), "{} names were passed over", all.len());
}
