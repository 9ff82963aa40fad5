//! Access times (`docs/format/inodes-and-attributes.md#times`).

use ciderfs_format::{Attr, Ino, Time};

use crate::error::Result;
use crate::store::{AttrMask, AttrPatch, Write};
use crate::volume::{AtimeMode, Meta};

/// In both modes an access time older than this is renewed, in seconds.
const DAY: i64 = 24 * 3600;

impl AtimeMode {
    /// Does an access at `at` change the access time of a node with these attributes?
    pub fn wants(self, a: &Attr, at: Time) -> bool {
        match self {
            Self::NoAtime => false,
            Self::Relatime => {
                a.mtime >= a.atime || a.ctime >= a.atime || at.sec.saturating_sub(a.atime.sec) >= DAY
            }
            Self::Strict => at > a.atime,
        }
    }
}

impl Meta {
    /// When access times are written; never on a read-only client.
    pub fn atime_mode(&self) -> AtimeMode {
        if self.cfg.read_only { AtimeMode::NoAtime } else { self.cfg.atime_mode }
    }

    /// Are access times of directories written, where those of files are?
    pub fn dir_atime(&self) -> bool {
        self.cfg.dir_atime
    }

    /// Now, by the clock that operations use.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Writes the access time if the mode still wants it, judged by the attributes as they are now. Nodes in the trash keep
    /// theirs, but for those that are held.
    ///
    /// # Errors
    /// `ENOENT`. An access time is not worth more than a warning.
    pub async fn touch_atime(&self, ino: Ino, at: Time) -> Result<()> {
        let real = self.real(ino);
        let mode = self.atime_mode();
        self.run("Touch", |t| {
            let a = t.attr(real, AttrMask::TIMES)?;
            if mode.wants(&a, at) && !real.is_trash() && !self.keeps(t, real, &a) {
                t.write(Write::PatchAttr(real, AttrPatch { atime: Some(at), ..AttrPatch::default() }));
            }
            Ok(())
        })
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_decide() {
        let at = |sec| Time { sec, nsec: 0 };
        let attr = |atime, mtime, ctime| Attr {
            atime: at(atime),
            mtime: at(mtime),
            ctime: at(ctime),
            ..crate::volume::synthetic_dir(Ino::ROOT)
        };
        let now = at(1_000_000);
        for (a, relatime, strict) in [
            (attr(999_000, 998_000, 998_000), false, true),
            (attr(999_000, 999_000, 998_000), true, true),
            (attr(999_000, 998_000, 999_500), true, true),
            (attr(1_000_000 - DAY, 1, 1), true, true),
            (attr(1_000_000, 1, 1), false, false),
            (attr(2_000_000, 1, 1), false, false),
        ] {
            assert_eq!(AtimeMode::Relatime.wants(&a, now), relatime, "{a:?}");
            assert_eq!(AtimeMode::Strict.wants(&a, now), strict, "{a:?}");
            assert!(!AtimeMode::NoAtime.wants(&a, now));
        }
    }
}
