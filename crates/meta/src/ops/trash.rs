//! The hourly trash directories.

use ciderfs_format::trash::hour_name;
use ciderfs_format::{Attr, Edge, FileType, Ino, Time};

use crate::error::Result;
use crate::ledger::{Hold, Place};
use crate::proof::Proof;
use crate::store::{Counter, Read, StoreError, Value, Write};
use crate::volume::{Meta, synthetic_dir};

/// Bytes that a directory of the trash takes.
const TRASH_DIR_SPACE: i64 = 4096;

impl Meta {
    /// How many names of each of these files are in the trash; files with one name only are not asked about that way.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn names_in_trash(&self, inos: &[Ino]) -> Result<Vec<u32>> {
        let reads: Vec<Read> = inos.iter().map(|ino| Read::Parents(*ino)).collect();
        let mut counts = Vec::with_capacity(inos.len());
        for value in self.read(&reads).await? {
            let Value::Parents(parents) = value else { return Err(StoreError::another_question().into()) };
            let names: i64 = parents.iter().filter(|(dir, _)| dir.is_trash()).map(|(_, n)| *n).sum();
            counts.push(u32::try_from(names.max(0)).unwrap_or(u32::MAX));
        }
        Ok(counts)
    }

    /// Where a removal in `dir` puts what it removes; `None` deletes for real (the trash is off, or this is the trash).
    pub(crate) async fn trash_for(&self, dir: Ino) -> Result<Option<Ino>> {
        if dir.is_trash() || !self.settings().trash_enabled() {
            return Ok(None);
        }
        self.trash_hour_dir().await.map(Some)
    }

    /// Must the next removal in `dir` make the trash's directory of this hour? It gets its room whether there is any or not:
    /// whoever holds data that was promised room commits it first, while this holds what the directory takes.
    pub fn hold_trash_room(&self, dir: Ino) -> Option<Hold> {
        if dir.is_trash() || !self.settings().trash_enabled() || self.settings().capacity == 0 {
            return None;
        }
        let hour = hour_name(self.clock.now().sec);
        let there = self.trash_hour.lock().as_ref().is_some_and(|(name, _)| *name == hour);
        (!there).then(|| Hold::new(&self.ledger, vec![(Place::Volume, TRASH_DIR_SPACE)]))
    }

    /// The directory of the current hour (UTC), created by whoever comes first.
    async fn trash_hour_dir(&self) -> Result<Ino> {
        let hour = hour_name(self.fleet_now());
        if let Some((name, ino)) = &*self.trash_hour.lock()
            && *name == hour
        {
            return Ok(*ino);
        }
        let stats = self.settings().dir_stats;
        let name = hour.as_bytes();
        let ran = self
            .run("Trash", |t| {
                t.want([Read::Edge(Ino::TRASH, name.to_vec()), Read::Counter(Counter::NextTrash)])?;
                if let Some(e) = t.edge(Ino::TRASH, name)? {
                    return Ok(e.ino);
                }
                let n = t.counter(Counter::NextTrash)?;
                // Numbers of hours are signed in every client.
                let next =
                    n.checked_add(1).filter(|n| *n > 0).and_then(|n| Ino::TRASH.0.checked_add(n as u64));
                let ino = next.filter(|n| *n <= i64::MAX as u64).map(Ino).ok_or_else(|| {
                    StoreError::corrupt(format!("the counter nextTrash is damaged: it cannot be {n}"))
                })?;
                t.write(Write::AddCounter(Counter::NextTrash, 1));
                t.write(Write::PutAttr(ino, hour_attr(t.now)));
                t.write(Write::PutEdge(Ino::TRASH, name.to_vec(), Edge { kind: FileType::Directory, ino }));
                if stats {
                    t.write(Write::InitDirStat(ino));
                }
                // Nobody's: the official client charges no owner either.
                t.charge(None, TRASH_DIR_SPACE, 1);
                // Removing must work on a full volume.
                t.charges.exempt = true;
                t.proof(Proof::Edge(Ino::TRASH, name.to_vec(), Edge { kind: FileType::Directory, ino }));
                Ok(ino)
            })
            .await?;
        *self.trash_hour.lock() = Some((hour, ran.value));
        Ok(ran.value)
    }
}

fn hour_attr(now: Time) -> Attr {
    Attr { atime: now, mtime: now, ctime: now, parent: Ino::TRASH, ..synthetic_dir(Ino::TRASH) }
}
