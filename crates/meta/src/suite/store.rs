//! Tests of one store against the contract of [`crate::store`].

mod concurrent;
mod guards;
mod listing;
mod quotas;
mod records;
mod slices;
mod sums;
mod upkeep;

pub use concurrent::*;
pub use guards::*;
pub use listing::*;
pub use quotas::*;
pub use records::*;
pub use slices::*;
pub use sums::*;
pub use upkeep::*;

use std::sync::Arc;

use ciderfs_format::{Attr, Edge, FileType, Ino, Time};

use super::Engine;
use crate::store::{Commit, Guard, Outcome, Output, Read, Store, Value, Write};

/// A store with its schema in place.
async fn ready(engine: &Engine) -> Arc<dyn Store> {
    let store = engine.open().await;
    store.create_schema().await.unwrap();
    store
}

/// Commits without guards.
async fn write(store: &dyn Store, writes: Vec<Write>) -> Vec<Output> {
    match store.commit(&Commit { guards: Vec::new(), writes }).await.unwrap() {
        Outcome::Done(out) => out,
        Outcome::Conflict(values) => panic!("conflict without guards: {values:?}"),
    }
}

async fn write_one(store: &dyn Store, w: Write) -> Output {
    let mut out = write(store, vec![w]).await;
    assert_eq!(out.len(), 1, "one output per write");
    out.remove(0)
}

async fn read(store: &dyn Store, r: Read) -> Value {
    let mut values = store.read(std::slice::from_ref(&r)).await.unwrap();
    assert_eq!(values.len(), 1, "one value per read");
    values.remove(0)
}

/// A commit of guards and one harmless write, by which one sees whether it was applied.
fn probe(guards: Vec<Guard>) -> Commit {
    Commit { guards, writes: vec![Write::PutSymlink(Ino(999), "applied".into())] }
}

async fn probed(store: &dyn Store) -> bool {
    let there = read(store, Read::Symlink(Ino(999))).await != Value::Bytes(None);
    write(store, vec![Write::DelSymlink(Ino(999))]).await;
    there
}

fn time(n: i64) -> Time {
    Time { sec: 1_700_000_000 + n, nsec: 123_456_789 }
}

/// Attributes with a different value in every field.
fn attr(kind: FileType) -> Attr {
    Attr {
        flags: 0x21,
        kind,
        mode: 0o4751,
        uid: 4_000_000_001,
        gid: 4_000_000_002,
        atime: time(1),
        mtime: time(2),
        ctime: time(3),
        nlink: 3,
        length: (1 << 40) + 7,
        rdev: 0x0801_0203,
        parent: Ino(5),
        access_acl: 0,
        default_acl: 0,
        tier: 0,
    }
}

fn file(ino: u64) -> Edge {
    Edge { kind: FileType::File, ino: Ino(ino) }
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list
}
