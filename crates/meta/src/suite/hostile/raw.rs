//! How a record is damaged in the words of each engine.

use ciderfs_format::{Attr, Edge, FileType, Ino, Slice};

use super::Dialect;
use crate::store::{Counter, DirStat, QuotaKey, Write};

/// One step of a damage.
#[derive(Debug, Clone)]
pub enum Harm {
    /// A command of Redis, or a statement of SQL with blobs for its parameters.
    Raw(Vec<Vec<u8>>),
    /// What can be damaged through the trait.
    Typed(Write),
}

/// A field of an attribute record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Kind,
    Atime,
    Mtime,
    MtimeNsec,
    Nlink,
    Length,
    Rdev,
    Parent,
    AccessAcl,
}

impl Field {
    /// Offset and width in the record, column in the table.
    fn place(self) -> (usize, usize, &'static str) {
        match self {
            Self::Kind => (1, 1, "type"),
            Self::Atime => (11, 8, "atime"),
            Self::Mtime => (23, 8, "mtime"),
            Self::MtimeNsec => (31, 4, "mtimensec"),
            Self::Nlink => (47, 4, "nlink"),
            Self::Length => (51, 8, "length"),
            Self::Rdev => (59, 4, "rdev"),
            Self::Parent => (63, 8, "parent"),
            Self::AccessAcl => (71, 4, "access_acl_id"),
        }
    }
}

/// Records as they are before the damage, and the engine's words.
pub(super) struct Raw {
    pub(super) dialect: Dialect,
    attrs: Vec<(Ino, Attr)>,
}

fn words(parts: &[&[u8]]) -> Vec<Harm> {
    vec![Harm::Raw(parts.iter().map(|p| p.to_vec()).collect())]
}

fn counter_name(c: Counter) -> (&'static str, &'static str) {
    match c {
        Counter::NextInode => ("nextinode", "nextInode"),
        Counter::NextChunk => ("nextchunk", "nextChunk"),
        Counter::NextSession => ("nextsession", "nextSession"),
        Counter::NextTrash => ("nextTrash", "nextTrash"),
        Counter::UsedSpace => ("usedSpace", "usedSpace"),
        Counter::TotalInodes => ("totalInodes", "totalInodes"),
        Counter::AclMaxId => ("aclMaxId", "aclMaxId"),
    }
}

impl Raw {
    pub(super) fn new(dialect: Dialect, attrs: Vec<(Ino, Attr)>) -> Self {
        Self { dialect, attrs }
    }

    pub(super) fn redis(&self, parts: &[&[u8]]) -> Vec<Harm> {
        if self.dialect == Dialect::Redis { words(parts) } else { Vec::new() }
    }

    pub(super) fn sql(&self, statement: &str, blobs: &[&[u8]]) -> Vec<Harm> {
        let parts = [&[statement.as_bytes()], blobs].concat();
        if self.dialect == Dialect::Sql { words(&parts) } else { Vec::new() }
    }

    pub(super) fn typed(&self, write: Write) -> Vec<Harm> {
        if self.dialect == Dialect::Typed { vec![Harm::Typed(write)] } else { Vec::new() }
    }

    fn of(&self, ino: Ino) -> Vec<u8> {
        let found = self.attrs.iter().find(|(i, _)| *i == ino);
        found.map(|(_, a)| a.encode()).expect("a record of the spot")
    }

    /// The stored record of attributes, as Redis has it.
    pub(super) fn record(&self, ino: Ino) -> Vec<u8> {
        self.of(ino)
    }

    /// One field of an attribute record. Times are seconds in Redis, microseconds in SQL.
    pub(super) fn attr(&self, ino: Ino, field: Field, value: u64) -> Vec<Harm> {
        let (at, width, column) = field.place();
        let mut record = self.of(ino);
        let value_bytes = match field {
            Field::Kind => vec![(value as u8) << 4 | record[1] & 0xf],
            Field::AccessAcl => [&(value as u32).to_be_bytes()[..], &[0; 4]].concat(),
            _ => value.to_be_bytes()[8 - width..].to_vec(),
        };
        record.resize(record.len().max(at + value_bytes.len()), 0);
        record[at..at + value_bytes.len()].copy_from_slice(&value_bytes);
        match self.dialect {
            Dialect::Redis => words(&[b"SET", format!("i{ino}").as_bytes(), &record]),
            Dialect::Sql => {
                words(
                    &[format!("UPDATE jfs_node SET {column}={} WHERE inode={ino}", value as i64).as_bytes()],
                )
            }
            // Such a store holds what the decoder makes of it.
            Dialect::Typed => match Attr::decode(&record) {
                Ok(attr) => vec![Harm::Typed(Write::PutAttr(ino, attr))],
                Err(_) => Vec::new(),
            },
        }
    }

    /// An entry of any name and kind.
    pub(super) fn entry(&self, dir: Ino, name: &[u8], kind: u8, ino: u64) -> Vec<Harm> {
        match self.dialect {
            Dialect::Redis => {
                let value = [&[kind][..], &ino.to_be_bytes()].concat();
                words(&[b"HSET", format!("d{dir}").as_bytes(), name, &value])
            }
            Dialect::Sql => self.sql(
                &format!(
                    "INSERT OR REPLACE INTO jfs_edge(parent,name,inode,type) VALUES({dir},?1,{},{kind})",
                    ino as i64
                ),
                &[name],
            ),
            Dialect::Typed => match FileType::from_u8(kind) {
                Some(kind) => self.typed(Write::PutEdge(dir, name.to_vec(), Edge { kind, ino: Ino(ino) })),
                None => Vec::new(),
            },
        }
    }

    /// The whole list of a chunk.
    pub(super) fn chunk(&self, ino: Ino, indx: u32, list: &[Slice]) -> Vec<Harm> {
        let key = format!("c{ino}_{indx}");
        match self.dialect {
            Dialect::Redis => {
                let mut harm = words(&[b"DEL", key.as_bytes()]);
                for s in list {
                    harm.extend(words(&[b"RPUSH", key.as_bytes(), &s.encode()]));
                }
                harm
            }
            Dialect::Sql => self.chunk_bytes(ino, indx, &Slice::encode_list(list)),
            Dialect::Typed => {
                let mut harm = self.typed(Write::TakeSlices(ino, indx));
                harm.extend(self.typed(Write::AppendSlices(ino, indx, list.to_vec())));
                harm
            }
        }
    }

    /// Any bytes for a list: the only record of it in Redis.
    pub(super) fn chunk_bytes(&self, ino: Ino, indx: u32, raw: &[u8]) -> Vec<Harm> {
        let key = format!("c{ino}_{indx}");
        let mut harm = self.redis(&[b"DEL", key.as_bytes()]);
        harm.extend(self.redis(&[b"RPUSH", key.as_bytes(), raw]));
        harm.extend(self.sql(
            &format!("INSERT OR REPLACE INTO jfs_chunk(inode,indx,slices) VALUES({ino},{indx},?1)"),
            &[raw],
        ));
        harm
    }

    /// A counter as text: a number, or not.
    pub(super) fn counter(&self, c: Counter, text: &str, now: i64) -> Vec<Harm> {
        let (redis, sql) = counter_name(c);
        match self.dialect {
            Dialect::Redis => words(&[b"SET", redis.as_bytes(), text.as_bytes()]),
            Dialect::Sql => {
                let value = if text.parse::<i64>().is_ok() { text.to_owned() } else { format!("'{text}'") };
                words(&[format!("INSERT OR REPLACE INTO jfs_counter(name,value) VALUES('{sql}',{value})")
                    .as_bytes()])
            }
            Dialect::Typed => match text.parse::<i64>() {
                Ok(n) => {
                    // In two steps, each of which fits.
                    let half = (i128::from(n) - i128::from(now)) / 2;
                    let rest = i128::from(n) - i128::from(now) - half;
                    [half, rest].iter().map(|n| Harm::Typed(Write::AddCounter(c, *n as i64))).collect()
                }
                Err(_) => Vec::new(),
            },
        }
    }

    /// Usage of a directory: length, space, inodes.
    pub(super) fn dir_stat(&self, dir: Ino, text: [&str; 3]) -> Vec<Harm> {
        let field = dir.to_string();
        match self.dialect {
            Dialect::Redis => ["dirDataLength", "dirUsedSpace", "dirUsedInodes"]
                .iter()
                .zip(text)
                .flat_map(|(key, v)| words(&[b"HSET", key.as_bytes(), field.as_bytes(), v.as_bytes()]))
                .collect(),
            Dialect::Sql => {
                let [a, b, c] = text.map(literal);
                words(&[format!("INSERT OR REPLACE INTO jfs_dir_stats VALUES({dir},{a},{b},{c})").as_bytes()])
            }
            Dialect::Typed => match text.map(str::parse::<i64>) {
                [Ok(length), Ok(space), Ok(inodes)] => {
                    self.typed(Write::PutDirStat(dir, DirStat { length, space, inodes }))
                }
                _ => Vec::new(),
            },
        }
    }

    /// Limits and usage of a directory's quota.
    pub(super) fn dir_quota(&self, dir: Ino, limits: [i64; 2], used: [&str; 2]) -> Vec<Harm> {
        let field = dir.to_string();
        match self.dialect {
            Dialect::Redis => {
                let raw = [limits[0].to_be_bytes(), limits[1].to_be_bytes()].concat();
                let mut harm = words(&[b"HSET", b"dirQuota", field.as_bytes(), &raw]);
                for (key, v) in ["dirQuotaUsedSpace", "dirQuotaUsedInodes"].iter().zip(used) {
                    harm.extend(words(&[b"HSET", key.as_bytes(), field.as_bytes(), v.as_bytes()]));
                }
                harm
            }
            Dialect::Sql => {
                let [a, b] = used.map(literal);
                let [c, d] = limits;
                words(&[
                    format!("INSERT OR REPLACE INTO jfs_dir_quota VALUES({dir},{c},{d},{a},{b})").as_bytes()
                ])
            }
            Dialect::Typed => match used.map(str::parse::<i64>) {
                [Ok(space), Ok(inodes)] => {
                    let (key, [max_space, max_inodes]) = (QuotaKey::Dir(dir), limits);
                    let limits = ciderfs_format::quota::QuotaLimits { max_space, max_inodes };
                    vec![
                        Harm::Typed(Write::PutQuotaLimits(key, limits)),
                        Harm::Typed(Write::PutQuotaUsage(key, space, inodes)),
                    ]
                }
                _ => Vec::new(),
            },
        }
    }
}

fn literal(text: &str) -> String {
    if text.parse::<i64>().is_ok() { text.to_owned() } else { format!("'{text}'") }
}
