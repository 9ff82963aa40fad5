//! What an operation adds to usage, gathered while it runs and charged in its commit.
#![deny(clippy::arithmetic_side_effects, reason = "users and damaged records control these numbers")]

use std::collections::BTreeMap;

use ciderfs_format::Ino;

use crate::store::QuotaKey;

/// Bytes and inodes.
pub(crate) type Amount = (i64, i64);

/// Growth of the volume, of owners and of directories; negative for what is given back.
#[derive(Debug, Default)]
pub(crate) struct Charges {
    pub(crate) volume: Amount,
    pub(crate) owners: BTreeMap<QuotaKey, Amount>,
    /// What the entries of a directory take more.
    pub(crate) dirs: BTreeMap<Ino, Amount>,
    /// Room was claimed before (see [`crate::Claim`]): other claims do not stand in the way.
    pub(crate) claimed: bool,
    /// Limits are checked, nothing is charged.
    pub(crate) probe: bool,
    /// Limits do not bind; usage is charged all the same.
    pub(crate) exempt: bool,
}

impl Charges {
    pub(crate) fn is_empty(&self) -> bool {
        self.volume == (0, 0) && self.owners.is_empty() && self.dirs.is_empty()
    }

    /// Adds to the volume, and to the owner's share.
    pub(crate) fn node(&mut self, owner: Option<(u32, u32)>, space: i64, inodes: i64) {
        add(&mut self.volume, space, inodes);
        if let Some(owner) = owner {
            self.owner(owner, space, inodes);
        }
    }

    /// Adds to the shares of a user and a group.
    pub(crate) fn owner(&mut self, (uid, gid): (u32, u32), space: i64, inodes: i64) {
        for key in [QuotaKey::User(uid), QuotaKey::Group(gid)] {
            add(self.owners.entry(key).or_default(), space, inodes);
        }
    }

    /// Adds to what lies in a directory.
    pub(crate) fn dir(&mut self, dir: Ino, space: i64, inodes: i64) {
        add(self.dirs.entry(dir).or_default(), space, inodes);
    }
}

pub(crate) fn add(to: &mut Amount, space: i64, inodes: i64) {
    to.0 = to.0.saturating_add(space);
    to.1 = to.1.saturating_add(inodes);
}
