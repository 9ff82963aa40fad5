//! What `stat` tells, whole: a front door asks once.

use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::{Attr, Ino};
use ciderfs_meta::{Caller, Result, SetAttr};

use crate::vfs::Vfs;

/// What `stat` tells of a node.
#[derive(Debug, Clone)]
pub struct Stat {
    /// Attributes, with what is not flushed yet.
    pub attr: Attr,
    /// Blocks of 512 bytes that hold a file's data, or are reserved for some.
    pub blocks: u64,
    /// Names that lead to it.
    pub links: u32,
    /// How long ago all this was so for certain: whoever may believe it for a while may do so for that much less.
    pub age: Duration,
}

impl Vfs {
    /// Tells of a node, to somebody who may believe it for `valid`.
    pub async fn stat(&self, ino: Ino, valid: Duration) -> Result<Stat> {
        let (attr, age) = self.getattr_within(ino, valid).await?;
        self.measure(ino, &attr).await;
        Ok(Stat { age, ..self.stat_at_hand(ino, attr) })
    }

    /// Changes attributes and, if given, the length, and tells of the node as it is then: unlike others, this answer counts for the
    /// kernel whatever it was told meanwhile.
    pub async fn set_stat(
        self: &Arc<Self>,
        c: &Caller,
        ino: Ino,
        set: &SetAttr,
        size: Option<u64>,
        fh: Option<u64>,
    ) -> Result<Stat> {
        let (attr, since) = self.setattr_at(c, ino, set, size, fh).await?;
        self.measure(ino, &attr).await;
        let attr = self.tell_now(ino, attr, since).await;
        Ok(self.stat_at_hand(ino, attr))
    }

    /// Finds out what [`Vfs::stat_at_hand`] tells beyond the record, as far as that is due.
    pub(crate) async fn measure(&self, ino: Ino, attr: &Attr) {
        self.count_blocks(ino, attr).await;
        self.count_links(std::iter::once((ino, attr))).await;
    }

    /// What can be told of a node without asking anybody.
    pub(crate) fn stat_at_hand(&self, ino: Ino, attr: Attr) -> Stat {
        let (blocks, links) = (self.blocks(ino, &attr), self.links(ino, &attr));
        Stat { attr, blocks, links, age: Duration::ZERO }
    }
}
