//! Creating a volume and changing its settings.

use bytes::Bytes;
use ciderfs_format::settings::Settings;
use ciderfs_format::{Attr, Ino};

use crate::error::{Error, Result};
use crate::store::{Commit, Guard, Outcome, Read, Store, StoreError, Value, Write};
use crate::volume::{Clock as _, Meta, SystemClock, synthetic_dir};

/// Attempts to write settings against concurrent changes.
const ATTEMPTS_MAX: usize = 10;

impl Meta {
    /// Writes the settings of a new volume with its root, or replaces those of an existing one. `expect` is what the caller
    /// decided upon: the settings as they were read, or `None` for a volume that did not exist.
    ///
    /// # Errors
    /// [`Error::Volume`] if the settings changed meanwhile.
    pub async fn write_settings(
        store: &dyn Store,
        settings: &Settings,
        expect: Option<&Settings>,
    ) -> Result<()> {
        if expect.is_none() {
            store.create_schema().await?;
        }
        let raw = Bytes::from(settings.to_json().map_err(|e| Error::Volume(e.to_string()))?);
        for _ in 0..ATTEMPTS_MAX {
            let reads = [Read::Setting, Read::Attr(Ino::TRASH), Read::Attr(Ino::ROOT)];
            let values = store.read(&reads).await?;
            let [Value::Bytes(old), Value::Attr(trash), Value::Attr(root)] = &values[..] else {
                return Err(StoreError::another_question().into());
            };
            let found = old
                .as_ref()
                .map(|r| Settings::parse(r))
                .transpose()
                .map_err(|e| Error::Volume(e.to_string()))?;
            if found.as_ref() != expect {
                return Err(Error::Volume(match (&found, expect) {
                    (Some(f), None) => format!("there is a volume already: {} ({})", f.name, f.uuid),
                    _ => "somebody else changed the settings at the same time; try again".into(),
                }));
            }
            let now = SystemClock.now();
            let dir = |ino: Ino| Attr { atime: now, mtime: now, ctime: now, ..synthetic_dir(ino) };
            let mut commit = Commit { guards: vec![Guard::Setting(old.clone())], writes: Vec::new() };
            if settings.trash_enabled() && trash.is_none() {
                commit.writes.push(Write::PutAttr(Ino::TRASH, dir(Ino::TRASH)));
            }
            commit.writes.push(Write::PutSetting(raw.clone()));
            // What was counted before is out of date when counting begins again.
            if settings.dir_stats && expect.is_some_and(|old| !old.dir_stats) {
                commit.writes.push(Write::DropDirStats);
            }
            if settings.user_group_quota && expect.is_some_and(|old| !old.user_group_quota) {
                commit.writes.push(Write::DropOwnerQuotas);
            }
            if expect.is_none() {
                if root.is_none() {
                    commit.writes.push(Write::PutAttr(Ino::ROOT, dir(Ino::ROOT)));
                    if settings.dir_stats {
                        commit.writes.push(Write::InitDirStat(Ino::ROOT));
                    }
                }
                commit.writes.push(Write::InitCounters);
            }
            match store.commit(&commit).await? {
                Outcome::Done(_) => return Ok(()),
                Outcome::Conflict(_) => {}
            }
        }
        Err(Error::Volume("the settings keep changing; try again later".into()))
    }

    /// Takes back the settings of a volume that was just made and cannot be used; false if they are others by now.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn withdraw_settings(store: &dyn Store, uuid: &str) -> Result<bool> {
        let Some(Value::Bytes(Some(raw))) = store.read(&[Read::Setting]).await?.into_iter().next() else {
            return Ok(false);
        };
        if !Settings::parse(&raw).is_ok_and(|found| found.uuid == uuid) {
            return Ok(false);
        }
        let commit = Commit { guards: vec![Guard::Setting(Some(raw))], writes: vec![Write::DelSetting] };
        Ok(matches!(store.commit(&commit).await?, Outcome::Done(_)))
    }
}
