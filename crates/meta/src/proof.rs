//! How an attempt whose reply was lost is recognised, and kept from being applied twice.

use bytes::Bytes;
use ciderfs_format::{Edge, Ino, Time};

use crate::store::{AttrMask, Guard, LockOwner, Name, Read, StoreError, Value};

/// How to find out whether a commit whose reply was lost has been applied.
#[derive(Debug, Clone)]
pub(crate) enum Proof {
    /// The entry points there only if it was.
    Edge(Ino, Name, Edge),
    /// The entry points there, and its old name is gone, or another node's and the moved one changed at that time, only if it
    /// was: (directory, name) before and after, entry, time. That another client has made the same move is taken for it.
    Moved((Ino, Name), (Ino, Name), Edge, Time),
    /// One of two nodes that change places carries this ctime only if they did: place, inode there, and the other ones.
    Exchanged((Ino, Name, Ino), (Ino, Name, Ino), Time),
    /// The entry is gone, and its inode too or changed at that time, only if it was; or the entry is another inode's, and this one
    /// changed at that time. The entry alone proves nothing: another client may have moved it.
    Removed(Ino, Name, Ino, Time),
    /// The attributes carry this ctime only if it was.
    Ctime(Ino, Time),
    /// The inode, whose number nobody else was given, exists only if it was. Its entry proves less: another client may have
    /// moved it.
    Made(Ino),
    /// The directory, which had no parent, has one other than the trash only if it was.
    Attached(Ino),
    /// The inode's record is gone only if it was.
    Gone(Ino),
    /// The chunk's list holds this slice id only if it was; and if it was, length or mtime of the file changed. (inode, chunk,
    /// id, length and mtime of the file before.)
    SliceId(Ino, u32, u64, (u64, Time)),
    /// The same of a slice for the end of the file, which was at this position of the chunk: (inode, chunk, id, position and bytes
    /// there, length and mtime of the file before). Written once more it would be there twice.
    Appended(Ino, u32, u64, (u32, u32), (u64, Time)),
    /// These holders, whose locks nobody else changes, have these locks on the file (`None`: none) only if it was.
    Locks(Ino, Vec<(LockOwner, Option<bool>)>, Vec<(LockOwner, Option<Bytes>)>),
}

impl Proof {
    pub(crate) fn reads(&self) -> Vec<Read> {
        match self {
            Self::Edge(dir, name, _) => vec![Read::Edge(*dir, name.clone())],
            Self::Moved(from, to, edge, ..) => {
                let places = [from, to].map(|(dir, name)| Read::Edge(*dir, name.clone()));
                places.into_iter().chain([Read::Attr(edge.ino)]).collect()
            }
            Self::Exchanged(a, b, _) => {
                let places = [a, b].map(|(dir, name, _)| Read::Edge(*dir, name.clone()));
                places.into_iter().chain([a, b].map(|(_, _, ino)| Read::Attr(*ino))).collect()
            }
            Self::Removed(dir, name, ino, _) => vec![Read::Edge(*dir, name.clone()), Read::Attr(*ino)],
            Self::Made(ino) | Self::Attached(ino) | Self::Ctime(ino, _) | Self::Gone(ino) => {
                vec![Read::Attr(*ino)]
            }
            Self::SliceId(ino, indx, ..) | Self::Appended(ino, indx, ..) => {
                vec![Read::Slices(*ino, *indx), Read::Attr(*ino)]
            }
            Self::Locks(ino, ..) => vec![Read::Flocks(*ino), Read::Plocks(*ino)],
        }
    }

    /// Do the answers to the reads show it?
    pub(crate) fn shows(&self, values: &[Value]) -> bool {
        match (self, values) {
            (Self::Edge(_, _, want), [Value::Edge(found)]) => Some(*want) == *found,
            (Self::Moved(_, _, edge, at), [Value::Edge(from), Value::Edge(to), Value::Attr(found)]) => {
                let changed = found.as_ref().is_some_and(|a| a.ctime == *at);
                *to == Some(*edge) && from.is_none_or(|now| now != *edge && changed)
            }
            (Self::Exchanged(_, _, at), [_, _, Value::Attr(a), Value::Attr(b)]) => {
                [a, b].into_iter().flatten().any(|a| a.ctime == *at)
            }
            (Self::Removed(_, _, ino, at), [Value::Edge(now), Value::Attr(found)]) => match found {
                Some(a) => a.ctime == *at && now.is_none_or(|e| e.ino != *ino),
                None => now.is_none(),
            },
            (Self::Ctime(_, want), [Value::Attr(Some(found))]) => found.ctime == *want,
            (Self::Made(_), [Value::Attr(found)]) => found.is_some(),
            (Self::Attached(_), [Value::Attr(found)]) => {
                found.as_ref().is_some_and(|a| a.parent.0 != 0 && a.parent != Ino::TRASH)
            }
            (Self::Gone(_), [Value::Attr(found)]) => found.is_none(),
            (Self::SliceId(_, _, id, _) | Self::Appended(_, _, id, ..), [Value::Slices(list), _]) => {
                list.iter().any(|s| s.id == *id)
            }
            // Locks that were held before show nothing.
            (Self::Locks(_, flocks, plocks), _) if flocks.is_empty() && plocks.is_empty() => false,
            (Self::Locks(_, flocks, plocks), [Value::Flocks(f), Value::Plocks(p)]) => {
                flocks.iter().all(|(o, want)| f.iter().find(|(h, _)| h == o).map(|(_, l)| *l) == *want)
                    && plocks
                        .iter()
                        .all(|(o, want)| p.iter().find(|(h, _)| h == o).map(|(_, l)| l) == want.as_ref())
            }
            _ => false,
        }
    }

    /// What the next attempt must find unchanged, so that nothing is applied twice: what this one would have changed.
    ///
    /// # Errors
    /// [`StoreError::Ambiguous`] if the attempt may have been applied, and what shows it be gone again.
    pub(crate) fn pin(&self, values: Vec<Value>) -> Result<Vec<Guard>, StoreError> {
        let ambiguous = |why: &str| Err(StoreError::Ambiguous(format!("a reply was lost, and {why}")));
        match self {
            Self::Made(ino) => {
                return Ok(vec![Guard::Attr { ino: *ino, expect: None, mask: AttrMask::EXISTS }]);
            }
            Self::Removed(_, _, ino, _) | Self::Moved(_, _, Edge { ino, .. }, ..) => {
                if let Some(Value::Edge(Some(now))) = values.first()
                    && now.ino != *ino
                {
                    return ambiguous("the name is that of another node by now");
                }
            }
            Self::Exchanged(a, b, _) => {
                if let [Value::Edge(Some(at_a)), Value::Edge(Some(at_b)), ..] = &values[..]
                    && (at_a.ino, at_b.ino) == (b.2, a.2)
                {
                    return ambiguous("the two have changed places, and been changed since");
                }
            }
            Self::SliceId(.., before) | Self::Appended(.., before) => {
                if let [Value::Slices(list), Value::Attr(Some(a))] = &values[..]
                    && (a.length, a.mtime) != *before
                    && self.may_be_rewritten(list, a.length < before.0)
                {
                    return ambiguous("somebody else has changed the file since");
                }
            }
            _ => return Ok(Vec::new()),
        }
        // Names, nodes and lists stay as they were seen: a list that is empty again would not tell that it was not in between.
        let mask = match self {
            Self::SliceId(..) | Self::Appended(..) => AttrMask::LENGTH | AttrMask::TIMES,
            _ => AttrMask::CTIME,
        };
        let guards = self.reads().into_iter().zip(values).filter_map(|pair| match pair {
            (Read::Edge(dir, name), Value::Edge(expect)) => Some(Guard::Edge { dir, name, expect }),
            (Read::Slices(ino, indx), Value::Slices(list)) => Some(Guard::Slices { ino, indx, list }),
            (Read::Attr(ino), Value::Attr(expect)) => Some(Guard::Attr { ino, expect, mask }),
            _ => None,
        });
        Ok(guards.collect())
    }

    /// The slice is not in the list of a file that others have changed. May it have been there, and its data be deleted by
    /// now? Others that append leave such traces only where the file was cut or a compaction took it.
    fn may_be_rewritten(&self, list: &[ciderfs_format::Slice], cut: bool) -> bool {
        let Self::Appended(_, _, id, (pos, len), _) = self else { return true };
        // A compaction puts a slice there that is no shorter, or begins earlier.
        cut || list
            .iter()
            .filter(|s| ![0, *id].contains(&s.id) && s.end() > u64::from(*pos))
            .any(|s| s.pos < *pos || (s.pos == *pos && s.len >= *len))
    }
}

#[cfg(test)]
mod tests {
    use ciderfs_format::{Attr, Slice};

    use super::*;

    fn attr(length: u64, sec: i64) -> Attr {
        Attr { length, mtime: Time { sec, nsec: 0 }, ..crate::volume::synthetic_dir(Ino(2)) }
    }

    /// Is it recognised, and if not, may the next attempt go on?
    fn look(proof: &Proof, values: Vec<Value>) -> (bool, bool) {
        (proof.shows(&values), proof.pin(values).is_ok())
    }

    /// After a lost reply an append is repeated only where it cannot have been applied.
    #[test]
    fn an_append_is_not_repeated_blindly() {
        let proof = Proof::Appended(Ino(2), 0, 7, (100, 10), (100, Time { sec: 1, nsec: 0 }));
        let record = |pos, id, len| Slice { pos, id, size: len, off: 0, len };
        let look = |list: &[Slice], a| look(&proof, vec![Value::Slices(list.to_vec()), Value::Attr(Some(a))]);
        let old = record(0, 1, 100);
        assert_eq!(look(&[old, record(100, 7, 10)], attr(110, 2)), (true, true), "it is there");
        assert_eq!(look(&[old], attr(100, 1)), (false, true), "nothing has happened");
        assert_eq!(
            look(&[old, record(100, 8, 5)], attr(105, 2)),
            (false, true),
            "somebody else has appended"
        );
        assert_eq!(look(&[record(0, 9, 110)], attr(110, 2)), (false, false), "it may have been compacted");
        let shared = [Slice::reserved(0, 4096), record(90, 9, 30)];
        assert_eq!(look(&shared, attr(120, 2)), (false, false));
        assert_eq!(look(&[record(100, 9, 30)], attr(130, 2)), (false, false));
        assert_eq!(look(&[], attr(0, 2)), (false, false), "the file was cut, and the slice may be deleted");
        assert_eq!(
            look(&[old, record(100, 9, 10)], attr(110, 2)),
            (false, false),
            "behind a record that stays"
        );
    }

    /// A write is repeated only if nobody else has changed the file: its slice may have been in the list, and be deleted.
    #[test]
    fn a_write_is_not_repeated_blindly() {
        let proof = Proof::SliceId(Ino(2), 0, 7, (100, Time { sec: 1, nsec: 0 }));
        let look = |list: &[Slice], a| look(&proof, vec![Value::Slices(list.to_vec()), Value::Attr(Some(a))]);
        let slice = |id| Slice { pos: 0, id, size: 100, off: 0, len: 100 };
        assert_eq!(look(&[slice(1)], attr(100, 1)), (false, true), "nothing has happened");
        assert!(look(&[slice(1), slice(7)], attr(100, 2)).0, "it is there");
        assert_eq!(look(&[], attr(0, 3)), (false, false), "somebody cut the file");
        assert_eq!(look(&[slice(8)], attr(100, 2)), (false, false), "it was compacted");
    }

    /// A move is recognised where others have used its old name or changed the node, and not where they exchanged the two.
    #[test]
    fn moves_are_recognised() {
        let attr = |sec| Attr { ctime: Time { sec, nsec: 0 }, ..crate::volume::synthetic_dir(Ino(2)) };
        let edge = |ino| Edge { kind: ciderfs_format::FileType::File, ino: Ino(ino) };
        let at = Time { sec: 5, nsec: 0 };
        let place = |name: &[u8]| (Ino(1), name.to_vec());
        let moved = Proof::Moved(place(b"a"), place(b"b"), edge(2), at);
        let found = |from: Option<Edge>, to, ctime| {
            vec![Value::Edge(from), Value::Edge(to), Value::Attr(Some(attr(ctime)))]
        };
        assert_eq!(look(&moved, found(None, Some(edge(2)), 5)), (true, true));
        assert!(look(&moved, found(None, Some(edge(2)), 9)).0, "somebody changed it since");
        assert!(look(&moved, found(Some(edge(4)), Some(edge(2)), 5)).0, "the old name is new");
        assert_eq!(look(&moved, found(Some(edge(4)), Some(edge(2)), 9)), (false, false), "or was so before");
        assert_eq!(
            look(&moved, found(Some(edge(2)), Some(edge(3)), 1)),
            (false, true),
            "nothing has happened"
        );
        assert_eq!(
            look(&moved, found(Some(edge(3)), Some(edge(2)), 9)),
            (false, false),
            "exchanged by others"
        );
        assert_eq!(
            look(&moved, found(Some(edge(4)), None, 9)),
            (false, false),
            "moved on, and the name anew"
        );
        let removed = Proof::Removed(Ino(1), b"a".to_vec(), Ino(2), at);
        let found =
            |now: Option<Edge>, ctime: Option<i64>| vec![Value::Edge(now), Value::Attr(ctime.map(attr))];
        assert_eq!(look(&removed, found(None, None)), (true, true));
        assert_eq!(look(&removed, found(Some(edge(2)), Some(1))), (false, true), "nothing has happened");
        assert_eq!(look(&removed, found(None, Some(9))), (false, true), "moved by others, perhaps");
        assert!(look(&removed, found(Some(edge(4)), Some(5))).0, "the name is new");
        assert_eq!(look(&removed, found(Some(edge(4)), None)), (false, false), "or was so before");
        let exchanged =
            Proof::Exchanged((Ino(1), b"a".to_vec(), Ino(2)), (Ino(1), b"b".to_vec(), Ino(3)), at);
        let found = |a, b, ctimes: [i64; 2]| {
            let attrs = ctimes.map(|ctime| Value::Attr(Some(attr(ctime))));
            [Value::Edge(Some(edge(a))), Value::Edge(Some(edge(b)))]
                .into_iter()
                .chain(attrs)
                .collect::<Vec<_>>()
        };
        assert!(look(&exchanged, found(3, 2, [9, 5])).0);
        assert_eq!(look(&exchanged, found(2, 3, [1, 1])), (false, true), "nothing has happened");
        assert_eq!(look(&exchanged, found(3, 2, [9, 9])), (false, false), "by others, or changed since");
    }
}
