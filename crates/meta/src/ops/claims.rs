//! Room for writes that are buffered first and committed later.

use ciderfs_format::{Attr, Ino};

use super::account::{DEPTH_MAX, volume_limit};
use crate::error::{Errno, Result};
use crate::ledger::{Asked, Claim, ClaimPlaces, Hold, Place, Places};
use crate::store::{Counter, QuotaKey, Read, Scan, Scanned, StoreError, Value};
use crate::types::SetAttr;
use crate::volume::Meta;

impl Meta {
    /// A claim without bytes, for a file that is to be written.
    pub fn claim_room(&self) -> Claim {
        Claim::new(std::sync::Arc::clone(&self.ledger))
    }

    /// Bytes of the volume that are promised to what is not committed yet.
    pub fn claimed_room(&self) -> u64 {
        self.ledger.claimed(Place::Volume).max(0) as u64
    }

    /// Raises a claim to `bytes`, the growth of the file in whole blocks since its last commit. Rests on what is known
    /// here, without a turn; after [`Meta::refresh_room`] the answer rests on fetched values. False if it is not known what
    /// limits the file: then [`Meta::find_places`] finds out for [`Claim::place`].
    ///
    /// # Errors
    /// `EDQUOT`, `ENOSPC`; the claim is then what it was.
    pub fn raise_claim(&self, claim: &mut Claim, ino: Ino, attr: &Attr, bytes: u64) -> Result<bool> {
        let capacity = volume_limit(self.settings.read().capacity, self.ledger.space());
        if capacity.is_none() && !self.ledger.has_limits() {
            return Ok(true);
        }
        if !claim.is_placed() {
            let Some(places) = self.places_of(ino, attr) else { return Ok(false) };
            claim.place(ClaimPlaces(places));
        }
        match claim.raise(bytes as i64, capacity.unwrap_or(i64::MAX)) {
            Ok(()) => Ok(true),
            Err(Place::Volume) => Err(Errno::ENOSPC.into()),
            Err(Place::Quota(_)) => Err(Errno::EDQUOT.into()),
        }
    }

    /// Fetches all quotas. Those that are gone bind nobody any more.
    pub(crate) async fn reload_quotas(&self) -> Result<()> {
        let asked = self.ledger.ask();
        let mut rows = self.scan(Scan::DirQuotas, usize::MAX).await?;
        if self.settings().user_group_quota {
            rows.extend(self.scan(Scan::OwnerQuotas, usize::MAX).await?);
        }
        let rows = rows.into_iter();
        asked.quotas(
            rows.filter_map(|r| if let Scanned::Quota(k, q) = r { Some((k, q)) } else { None }).collect(),
        );
        Ok(())
    }

    /// Fetches the figures that bind a claim, in one turn.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn refresh_room(&self, places: ClaimPlaces) -> Result<()> {
        let mut reads = vec![Read::Counter(Counter::UsedSpace), Read::Counter(Counter::TotalInodes)];
        reads.extend(places.0.into_keys().filter_map(|p| match p {
            Place::Quota(key) => Some(Read::Quota(key)),
            Place::Volume => None,
        }));
        let asked = self.ledger.ask();
        let values = self.read(&reads).await?;
        for (read, value) in reads.iter().zip(&values) {
            self.note_figures(&asked, read, value);
        }
        Ok(())
    }

    /// Keeps what a fetched record says about usage.
    pub(crate) fn note_figures(&self, asked: &Asked, read: &Read, value: &Value) {
        match (read, value) {
            (Read::Counter(Counter::UsedSpace), Value::Int(n)) => asked.space(*n),
            (Read::Counter(Counter::TotalInodes), Value::Int(n)) => asked.inodes(*n),
            (Read::Quota(key), Value::Quota(q)) => asked.quota(*key, *q),
            _ => {}
        }
    }

    /// Holds what an inode will take of the quotas of the owners it is about to get.
    pub fn hold_owner_room(&self, attr: &Attr, set: &SetAttr) -> Hold {
        let owners = set.uid.map(QuotaKey::User).into_iter().chain(set.gid.map(QuotaKey::Group));
        let space = attr.charged_space() as i64;
        Hold::new(&self.ledger, owners.map(|key| (Place::Quota(key), space)).collect())
    }

    /// Are there limits that depend on who owns a file?
    pub fn has_owner_limits(&self) -> bool {
        self.settings.read().user_group_quota && self.ledger.has_limits()
    }

    /// Are there limits that depend on where a file is?
    pub fn has_dir_limits(&self) -> bool {
        self.ledger.has_dir_quotas() && self.ledger.has_limits()
    }

    /// Finds out what limits the growth of a file.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn find_places(&self, ino: Ino, attr: &Attr) -> Result<ClaimPlaces> {
        let believed = self.beliefs.attr(ino);
        let attr = believed.as_ref().unwrap_or(attr);
        let mut dirs = vec![(attr.parent, 1)];
        if attr.parent.0 == 0 {
            let values = self.read(&[Read::Parents(ino)]).await?;
            let [Value::Parents(parents)] = &values[..] else {
                return Err(StoreError::another_question().into());
            };
            dirs.clone_from(parents);
        }
        let mut places = self.places_beside_directories(attr);
        for (dir, names) in dirs {
            let mut at = dir;
            for _ in 0..DEPTH_MAX {
                if !self.add_quota_dir(&mut places, at, names) {
                    break;
                }
                at = match self.beliefs.attr(at) {
                    Some(a) => a.parent,
                    None => match self.getattr_of(at).await {
                        Ok(a) => a.parent,
                        Err(e) if e.errno() == Errno::ENOENT => break,
                        Err(e) => return Err(e),
                    },
                };
            }
        }
        Ok(ClaimPlaces(places))
    }

    /// The same as far as it is known without asking.
    fn places_of(&self, ino: Ino, attr: &Attr) -> Option<Places> {
        // It knows of what this client has just done to the file, as of a new name elsewhere.
        let believed = self.beliefs.attr(ino);
        let attr = believed.as_ref().unwrap_or(attr);
        let mut places = self.places_beside_directories(attr);
        if !self.ledger.has_dir_quotas() || attr.nlink == 0 {
            return Some(places);
        }
        if attr.parent.0 == 0 {
            return None;
        }
        let mut at = attr.parent;
        for _ in 0..DEPTH_MAX {
            if !self.add_quota_dir(&mut places, at, 1) {
                break;
            }
            at = self.beliefs.attr(at)?.parent;
        }
        Some(places)
    }

    fn places_beside_directories(&self, attr: &Attr) -> Places {
        let mut places = Places::from([(Place::Volume, 1)]);
        if self.settings.read().user_group_quota {
            places.insert(Place::Quota(QuotaKey::User(attr.uid)), 1);
            places.insert(Place::Quota(QuotaKey::Group(attr.gid)), 1);
        }
        places
    }

    /// Adds a directory that lists a file under so many names, or is above one that does, if it has a quota. Is there anything
    /// above it?
    fn add_quota_dir(&self, places: &mut Places, dir: Ino, names: i64) -> bool {
        // The trash is under nobody's quota.
        if dir.0 == 0 || dir.is_trash() {
            return false;
        }
        let key = QuotaKey::Dir(dir);
        if self.ledger.quota(key).is_some() {
            *places.entry(Place::Quota(key)).or_default() += names;
        }
        dir != Ino::ROOT
    }
}
