//! Damaged records: whatever somebody wrote into the engine under us, each operation on it and near it answers in time,
//! in bounded memory, with a right value or an errno; and the rest of the volume goes on.

mod probes;
mod raw;
mod table;

use std::sync::Arc;

use ciderfs_format::acl::{AclEntry, AclRule, XATTR_ACCESS};
use ciderfs_format::{Attr, FileType, Ino, SliceId};

use super::Engine;
use super::world::*;
use crate::error::Errno;
use crate::store::{QuotaKey, Store};
use crate::types::XattrSet;
use crate::volume::{MetaConfig, SliceRemover};
use probes::Report;
pub use raw::Harm;
use raw::Raw;

/// Kinds of engines: in what words a record is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Redis,
    Sql,
    /// Only what can be written through the trait.
    Typed,
}

impl Dialect {
    fn of(store: &dyn Store) -> Self {
        match store.engine() {
            "redis" => Self::Redis,
            "sqlite3" => Self::Sql,
            _ => Self::Typed,
        }
    }
}

/// What a case expects of a probe.
#[derive(Debug, Clone)]
enum Want {
    /// It succeeds, and its result in debugging form holds this text.
    Shows(&'static str),
    /// Its result does not hold this text.
    Hides(&'static str),
    Fails(Errno),
}

/// One damage.
struct Case {
    name: String,
    harm: Vec<Harm>,
    /// Takes it back, where it is about more than the directory that is damaged.
    heal: Vec<Harm>,
    wants: Vec<(&'static str, Want)>,
    /// A name that the damage puts into the directory.
    bad_name: Option<Vec<u8>>,
    /// Can nothing of the volume be changed as long as it lasts?
    stops_changes: bool,
}

/// A directory with one of each, to be damaged.
struct Spot {
    raw: Raw,
    top: Ino,
    dir: Ino,
    file: Ino,
    link: Ino,
    /// Under two names.
    hard: Ino,
    /// With an ACL.
    guarded: Ino,
    /// The settings document.
    setting: Vec<u8>,
}

/// Deletes nothing.
struct Keeper;

#[async_trait::async_trait]
impl SliceRemover for Keeper {
    async fn remove_slice(&self, _: SliceId, _: u32) -> Result<(), String> {
        Ok(())
    }
}

async fn spot(w: &World, c: &Client, name: &str) -> Spot {
    let top = c.dir(ROOT, name).await;
    let dir = c.dir(top, "dir").await;
    let file = c.file(top, "file").await;
    c.put(file, 0, 0, 10_000).await;
    c.put(file, 0, 5_000, 10_000).await;
    c.put(file, 2, 100, 1000).await;
    c.file(top, "other").await;
    c.file(dir, "inner").await;
    let link = c.make(top, "link", FileType::Symlink).await.unwrap();
    let hard = c.file(top, "hard").await;
    c.put(hard, 0, 0, 100).await;
    c.link(hard, dir, "hard2").await.unwrap();
    let guarded = c.file(top, "guarded").await;
    let entry = AclEntry { id: 7, perm: 4 };
    let rule =
        AclRule { owner: 6, group: 4, mask: 4, other: 0, named_users: vec![entry], named_groups: Vec::new() };
    let set = XattrSet::default();
    c.meta.set_xattr(&root(), guarded, XATTR_ACCESS.as_bytes(), rule.to_xattr().into(), set).await.unwrap();
    c.meta.set_xattr(&root(), file, b"user.x", b"value".as_slice().into(), set).await.unwrap();
    c.meta.set_quota(QuotaKey::Dir(dir), Some(1 << 40), Some(1000)).await.unwrap();
    let mut attrs = Vec::<(Ino, Attr)>::new();
    for ino in [top, dir, file, link, hard, guarded] {
        attrs.push((ino, c.stat(ino).await));
    }
    let raw = Raw::new(Dialect::of(w.store.as_ref()), attrs);
    let setting = w.settings.to_json().unwrap().into();
    Spot { raw, top, dir, file, link, hard, guarded, setting }
}

fn config() -> MetaConfig {
    // A damaged record passes for nothing that is worth waiting for.
    MetaConfig { retry_patience: std::time::Duration::from_secs(2), ..World::config() }
}

/// A client that has been loaded.
struct Loaded(Client);

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Loaded")
    }
}

fn client(w: &World) -> impl Future<Output = crate::Result<Loaded>> + Send + 'static {
    let (opening, clock) = (w.engine.opening(), Arc::clone(&w.clock));
    async move {
        let meta =
            crate::Meta::load_with_clock(opening.await, config(), clock as Arc<dyn crate::Clock>).await?;
        meta.set_slice_remover(Arc::new(Keeper));
        Ok(Loaded(Client { meta }))
    }
}

async fn apply(w: &World, harm: &[Harm], name: &str) {
    for h in harm {
        match h {
            Harm::Raw(words) => {
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                let done = w.engine.raw(&words);
                done.unwrap_or_else(|e| panic!("{name}: {:?}: {e}", String::from_utf8_lossy(words[0])));
            }
            Harm::Typed(write) => {
                let commit = crate::store::Commit { guards: Vec::new(), writes: vec![write.clone()] };
                w.store.commit(&commit).await.unwrap();
            }
        }
    }
}

/// Does a part of the table, each case in a directory of its own. All that is wrong is told at the end.
async fn run(engine: Engine, cases: fn(&Spot) -> Vec<Case>) {
    let w = World::with(engine, |s| (s.enable_acl, s.user_group_quota) = (true, true)).await;
    let maker = client(&w).await.unwrap().0;
    let sound = spot(&w, &maker, "sound").await;
    let mut wrong = Vec::new();
    for at in 0..cases(&sound).len() {
        let maker = client(&w).await.unwrap().0;
        let spot = spot(&w, &maker, &format!("{at}")).await;
        let case = cases(&spot).remove(at);
        let before = client(&w).await.unwrap().0;
        apply(&w, &case.harm, &case.name).await;
        let mut report = Report::new(&case.name);
        let c = report.probe("load", client(&w)).await.map_or(before, |loaded| loaded.0);
        probes::look(&mut report, &c, &spot, case.bad_name.as_deref()).await;
        probes::change(&mut report, &c, &spot, case.bad_name.as_deref()).await;
        report.check(&case.wants);
        report.sound(&c, &sound, !case.stops_changes).await;
        apply(&w, &case.heal, &case.name).await;
        match client(&w).await {
            Ok(c) => report.sound(&c.0, &sound, true).await,
            Err(e) => report.wrong.push(format!("{}: after healing: {e}", case.name)),
        }
        wrong.append(&mut report.wrong);
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Attribute records.
pub async fn attributes(engine: Engine) {
    run(engine, table::attributes).await;
}

/// Entries of directories.
pub async fn entries(engine: Engine) {
    run(engine, table::entries).await;
}

/// Lists of slices.
pub async fn chunks(engine: Engine) {
    run(engine, table::chunks).await;
}

/// Counters of the volume.
pub async fn counters(engine: Engine) {
    run(engine, table::counters).await;
}

/// Usage of directories, and quotas.
pub async fn usage(engine: Engine) {
    run(engine, table::usage).await;
}

/// Links, extended attributes, ACLs, sessions, locks, settings.
pub async fn others(engine: Engine) {
    run(engine, table::others).await;
}

/// The table is as long as it has to be.
pub async fn number_of_cases(engine: Engine) {
    let w = World::with(engine, |s| s.enable_acl = true).await;
    let spot = spot(&w, &client(&w).await.unwrap().0, "spot").await;
    let all = table::ALL.iter().map(|cases| cases(&spot).len()).sum::<usize>();
    let least = if spot.raw.dialect == Dialect::Typed { 60 } else { 100 };
    assert!(all > least, "{all} damaged records");
}
