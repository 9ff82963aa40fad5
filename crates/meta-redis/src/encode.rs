//! A commit as keys and arguments of `scripts/commit.lua`.

use std::collections::{BTreeSet, HashMap};

use ciderfs_format::delslice::DelayedSlice;
use ciderfs_format::redis_keys::{
    self, Keys, QuotaKind, delayed_slices_field, delfile_member, slice_ref_field,
};
use ciderfs_format::session::lock_owner_field;
use ciderfs_format::{Ino, Slice};
use ciderfs_meta::store::{AttrMask, AttrPatch, Commit, Counter, DirStat, Guard, LockKind, LockOwner, Write};

use crate::quota;

/// Ranges of chunks up to this size are spelled out as commands, larger ones as a loop of the script.
const SPELLED_CHUNKS_MAX: u32 = 64;
/// Arguments of one command within the script (`unpack` of Lua has a limit near 8,000).
const COMMAND_ARGS_MAX: usize = 1000;

/// A key that no volume has.
pub(crate) const NOTHING: &str = "ciderfs-nothing";

/// How the output of a write is found in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reports {
    /// It has none.
    Nothing,
    /// The next element, a number, plus this.
    Int(i64),
    /// The next element: records and counts in turn.
    Taken,
    /// The next element, an attribute record.
    Attr,
}

/// Keys and arguments of one commit.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    pub keys: Vec<String>,
    pub args: Vec<Vec<u8>>,
    /// One per write.
    pub reports: Vec<Reports>,
    index: HashMap<String, usize>,
}

/// Indexes of the chunks that files are known to have.
pub(crate) type Existing = HashMap<Ino, BTreeSet<u32>>;

/// The key of a counter.
pub(crate) fn counter_key(keys: &Keys, c: Counter) -> String {
    keys.counter(match c {
        Counter::NextInode => redis_keys::Counter::NextInode,
        Counter::NextChunk => redis_keys::Counter::NextChunk,
        Counter::NextSession => redis_keys::Counter::NextSession,
        Counter::NextTrash => redis_keys::Counter::NextTrash,
        Counter::UsedSpace => redis_keys::Counter::UsedSpace,
        Counter::TotalInodes => redis_keys::Counter::TotalInodes,
        Counter::AclMaxId => redis_keys::Counter::AclMaxId,
    })
}

/// The hash with an inode's locks of a kind.
pub(crate) fn lock_key(keys: &Keys, ino: Ino, kind: LockKind) -> String {
    match kind {
        LockKind::Flock => keys.flock(ino),
        LockKind::Record => keys.plock(ino),
    }
}

/// Encodes a commit. `raw` may hold the stored bytes of guarded attribute records (by guard), to be expected instead of
/// our encoding of the same values. `chunks` names the chunks of files over which a commit reaches far.
pub(crate) fn encode(keys: &Keys, commit: &Commit, raw: &[Option<Vec<u8>>], chunks: &Existing) -> Encoded {
    let mut e = Encoded::default();
    let always = !commit.adds();
    e.arg(if always { "1" } else { "0" });
    e.num(commit.guards.len());
    for (i, guard) in commit.guards.iter().enumerate() {
        e.guard(keys, guard, raw.get(i).and_then(Option::as_ref));
    }
    if always {
        e.key(format!("{}{NOTHING}", keys.prefix));
    }
    for write in &commit.writes {
        let reports = e.write(keys, write, chunks);
        e.reports.push(reports);
    }
    e
}

impl Encoded {
    pub(crate) fn arg(&mut self, v: impl Into<Vec<u8>>) {
        self.args.push(v.into());
    }

    pub(crate) fn num(&mut self, n: impl ToString) {
        self.args.push(n.to_string().into_bytes());
    }

    pub(crate) fn key(&mut self, key: String) {
        let next = self.keys.len() + 1;
        let at = *self.index.entry(key).or_insert_with_key(|k| {
            self.keys.push(k.clone());
            next
        });
        self.num(at);
    }

    fn optional(&mut self, v: Option<&[u8]>) {
        self.arg(if v.is_some() { "1" } else { "0" });
        self.arg(v.unwrap_or_default());
    }

    fn guard(&mut self, keys: &Keys, guard: &Guard, raw: Option<&Vec<u8>>) {
        match guard {
            Guard::Attr { ino, expect, mask } => {
                self.arg("A");
                self.key(keys.node(*ino));
                let ours = || expect.as_ref().map(ciderfs_format::Attr::encode).unwrap_or_default();
                self.arg(raw.cloned().unwrap_or_else(ours));
                let letters = [
                    (AttrMask::IDENTITY, 'i'),
                    (AttrMask::NLINK, 'n'),
                    (AttrMask::LENGTH, 'l'),
                    (AttrMask::TIMES, 't'),
                    (AttrMask::PARENT, 'p'),
                    (AttrMask::CTIME, 'c'),
                ];
                let mask: String =
                    letters.iter().filter(|(m, _)| mask.contains(*m)).map(|(_, letter)| *letter).collect();
                self.arg(mask);
            }
            Guard::Edge { dir, name, expect } => {
                self.arg("E");
                self.key(keys.dir(*dir));
                self.arg(name.clone());
                self.arg(expect.map(|e| e.encode().to_vec()).unwrap_or_default());
            }
            Guard::DirEmpty(dir) => {
                self.arg("D");
                self.key(keys.dir(*dir));
            }
            Guard::SlicesPrefix { ino, indx, prefix } => {
                self.slices(keys.chunk(*ino, u64::from(*indx)), prefix, false)
            }
            Guard::Slices { ino, indx, list } => self.slices(keys.chunk(*ino, u64::from(*indx)), list, true),
            Guard::Xattr { ino, name, expect } => {
                self.arg("X");
                self.key(keys.xattr(*ino));
                self.arg(name.clone());
                self.optional(expect.as_deref());
            }
            Guard::XattrExists { ino, name } => {
                self.arg("Y");
                self.key(keys.xattr(*ino));
                self.arg(name.clone());
            }
            Guard::XattrRoom { ino, name, len, most } => {
                self.arg("B");
                self.key(keys.xattr(*ino));
                self.arg(name.clone());
                self.num(len);
                self.num(most);
            }
            Guard::Counter(c, n) => {
                self.arg("N");
                self.key(counter_key(keys, *c));
                self.num(n);
            }
            Guard::CounterRoom(c, most) => {
                self.arg("M");
                self.key(counter_key(keys, *c));
                self.num(most);
            }
            Guard::QuotaRoom { key, space, inodes } => {
                self.arg("Q");
                for k in quota::hashes(keys, *key) {
                    self.key(k);
                }
                self.arg(quota::field(*key));
                self.num(space);
                self.num(inodes);
            }
            Guard::DirStat(dir, expect) => {
                self.arg("U");
                for key in [keys.dir_used_space(), keys.dir_data_length(), keys.dir_used_inodes()] {
                    self.key(key);
                }
                self.num(dir);
                self.arg(if expect.is_some() { "1" } else { "0" });
                let expect = expect.unwrap_or_default();
                for n in [expect.space, expect.length, expect.inodes] {
                    self.num(n);
                }
            }
            Guard::Setting(expect) => {
                self.arg("V");
                self.key(keys.setting());
                self.optional(expect.as_deref());
            }
            Guard::Session(sid) => {
                self.arg("H");
                self.key(keys.session_infos());
                self.num(sid);
            }
            Guard::Holds(ino, kind, (sid, owner)) => {
                self.arg("H");
                self.key(lock_key(keys, *ino, *kind));
                self.arg(lock_owner_field(*sid, *owner));
            }
            Guard::Parents { ino, expect } => self.hash(
                keys.parents(*ino),
                true,
                expect.iter().map(|(p, n)| (p.to_string(), n.to_string().into_bytes())),
            ),
            Guard::NamedOutside(ino) => {
                self.arg("O");
                self.key(keys.parents(*ino));
                self.num(Ino::TRASH);
            }
            Guard::Flocks { ino, expect } => self.hash(
                keys.flock(*ino),
                false,
                expect.iter().map(|((sid, owner), w)| (lock_owner_field(*sid, *owner), flock_value(*w))),
            ),
            Guard::Plocks { ino, expect } => self.hash(
                keys.plock(*ino),
                false,
                expect.iter().map(|((sid, owner), l)| (lock_owner_field(*sid, *owner), l.to_vec())),
            ),
        }
    }

    fn slices(&mut self, key: String, list: &[Slice], exact: bool) {
        self.arg("S");
        self.key(key);
        self.num(list.len());
        self.arg(if exact { "1" } else { "0" });
        self.arg(Slice::encode_list(list));
    }

    fn hash(
        &mut self,
        key: String,
        positive: bool,
        fields: impl ExactSizeIterator<Item = (String, Vec<u8>)>,
    ) {
        self.arg("L");
        self.key(key);
        self.arg(if positive { "1" } else { "0" });
        self.num(fields.len());
        for (field, value) in fields {
            self.arg(field);
            self.arg(value);
        }
    }

    /// A command whose answer is dropped or reported.
    fn command(&mut self, reports: Reports, name: &str, key: String, args: &[&[u8]]) -> Reports {
        self.arg("C");
        self.arg(if reports == Reports::Nothing { "0" } else { "1" });
        self.num(args.len());
        self.arg(name);
        self.key(key);
        for a in args {
            self.arg(*a);
        }
        reports
    }

    /// A command that adds to a number, which never fails half-way.
    fn sum(&mut self, reports: Reports, name: &str, key: String, args: &[&[u8]]) -> Reports {
        let at = self.args.len();
        self.command(reports, name, key, args);
        if let Some(kind) = self.args.get_mut(at) {
            *kind = b"I".to_vec();
        }
        reports
    }

    pub(crate) fn run(&mut self, name: &str, key: String, args: &[&[u8]]) -> Reports {
        self.command(Reports::Nothing, name, key, args)
    }

    fn write(&mut self, keys: &Keys, write: &Write, chunks: &Existing) -> Reports {
        match write {
            Write::PutAttr(i, a) => self.run("SET", keys.node(*i), &[&a.encode()]),
            Write::PatchAttr(i, p) => self.patch(keys.node(*i), p),
            Write::DelAttr(i) => self.run("DEL", keys.node(*i), &[]),
            Write::PutEdge(d, name, e) => self.run("HSET", keys.dir(*d), &[name, &e.encode()]),
            Write::DelEdge(d, name) => self.run("HDEL", keys.dir(*d), &[name]),
            Write::PutSymlink(i, target) => self.run("SET", keys.symlink(*i), &[target]),
            Write::DelSymlink(i) => self.run("DEL", keys.symlink(*i), &[]),
            Write::PutXattr(i, name, v) => self.run("HSET", keys.xattr(*i), &[name, v]),
            Write::DelXattr(i, name) => self.run("HDEL", keys.xattr(*i), &[name]),
            Write::DelXattrs(i) => self.run("DEL", keys.xattr(*i), &[]),
            Write::AddParent(i, p, n) => {
                let args = [text(p), text(n)];
                let args = args.each_ref().map(String::as_bytes);
                self.sum(Reports::Nothing, "HINCRBY", keys.parents(*i), &args)
            }
            Write::DelParents(i) => self.run("DEL", keys.parents(*i), &[]),
            Write::AppendSlices(..)
            | Write::AppendSliceIfExists(..)
            | Write::ReplaceSlices { .. }
            | Write::TakeSlices(..) => self.chunk(keys, write, chunks),
            // A missing count means one reference.
            Write::NewSliceRef(..) | Write::InitCounters => Reports::Nothing,
            Write::AddSliceRef(id, size, n) => {
                let field = slice_ref_field(*id, *size);
                // The stored number is one less than the references.
                self.sum(Reports::Int(1), "HINCRBY", keys.slice_ref(), &[field.as_ref(), text(n).as_ref()])
            }
            Write::DropSliceRef(id, size) => {
                self.run("HDEL", keys.slice_ref(), &[slice_ref_field(*id, *size).as_ref()])
            }
            Write::PutDelayedSlices(id, at, list) => {
                let list: Vec<_> = list.iter().map(|&(id, size)| DelayedSlice { id, size }).collect();
                let value = DelayedSlice::encode_list(&list);
                self.run("HSET", keys.del_slices(), &[delayed_slices_field(*id, *at).as_ref(), &value])
            }
            Write::DelDelayedSlices(id, at) => {
                self.run("HDEL", keys.del_slices(), &[delayed_slices_field(*id, *at).as_ref()])
            }
            Write::AddCounter(c @ (Counter::UsedSpace | Counter::TotalInodes), n) => {
                self.sum(Reports::Int(0), "INCRBY", counter_key(keys, *c), &[text(n).as_ref()])
            }
            // Numbers that are handed out: the same one twice would be worse than none.
            Write::AddCounter(c, n) => {
                self.command(Reports::Int(0), "INCRBY", counter_key(keys, *c), &[text(n).as_ref()])
            }
            Write::PutDelfile(i, length, at) => {
                let member = delfile_member(*i, *length);
                self.run("ZADD", keys.delfiles(), &[text(at).as_ref(), member.as_ref()])
            }
            Write::DelDelfile(i, length) => {
                self.run("ZREM", keys.delfiles(), &[delfile_member(*i, *length).as_ref()])
            }
            Write::PutDetached(i, at) => {
                self.run("ZADD", keys.detached_nodes(), &[text(at).as_ref(), text(i).as_ref()])
            }
            Write::DelDetached(i) => self.run("ZREM", keys.detached_nodes(), &[text(i).as_ref()]),
            Write::PutSustained(sid, i) => self.run("SADD", keys.sustained(*sid), &[text(i).as_ref()]),
            Write::DelSustained(sid, i) => self.run("SREM", keys.sustained(*sid), &[text(i).as_ref()]),
            Write::InitDirStat(i) => self.put_dir_stat(keys, *i, &DirStat::default()),
            Write::PutDirStat(i, stat) => self.put_dir_stat(keys, *i, stat),
            Write::AddDirStat(i, d) => {
                self.arg("G");
                for key in [keys.dir_used_space(), keys.dir_data_length(), keys.dir_used_inodes()] {
                    self.key(key);
                }
                self.num(i);
                for n in [d.space, d.length, d.inodes] {
                    self.num(n);
                }
                Reports::Int(0)
            }
            Write::DelDirStat(i) => {
                let quota = QuotaKind::Dir;
                for key in [
                    keys.dir_used_space(),
                    keys.dir_data_length(),
                    keys.dir_used_inodes(),
                    keys.quota(quota),
                    keys.quota_used_space(quota),
                    keys.quota_used_inodes(quota),
                ] {
                    self.run("HDEL", key, &[text(i).as_ref()]);
                }
                Reports::Nothing
            }
            Write::DropDirStats
            | Write::PutQuotaLimits(..)
            | Write::PutQuotaUsage(..)
            | Write::AddQuota(..)
            | Write::DelQuota(_)
            | Write::DropOwnerQuotas => self.quota(keys, write),
            Write::PutSetting(raw) => self.run("SET", keys.setting(), &[raw]),
            Write::DelSetting => self.run("DEL", keys.setting(), &[]),
            Write::PutSession(sid, expire, info) => {
                self.arg("Z");
                self.key(keys.all_sessions());
                self.key(keys.session_infos());
                self.num(expire);
                self.num(sid);
                self.arg(&info[..]);
                Reports::Int(0)
            }
            Write::DelSession(sid) => {
                self.run("ZREM", keys.all_sessions(), &[text(sid).as_ref()]);
                self.run("HDEL", keys.session_infos(), &[text(sid).as_ref()])
            }
            Write::TellAttr(i) => self.command(Reports::Attr, "GET", keys.node(*i), &[]),
            Write::PutAcl(id, rule) => self.run("HSET", keys.acl(), &[text(id).as_ref(), rule]),
            Write::PutFlock(i, owner, lock) => self.lock(keys, keys.flock(*i), *owner, lock.map(flock_value)),
            Write::PutPlock(i, owner, list) => {
                let list = list.as_ref().filter(|l| !l.is_empty()).map(|l| l.to_vec());
                self.lock(keys, keys.plock(*i), *owner, list)
            }
        }
    }

    /// Writes to the lists of chunks.
    fn chunk(&mut self, keys: &Keys, write: &Write, chunks: &Existing) -> Reports {
        match write {
            Write::AppendSlices(i, indx, list) => {
                let key = keys.chunk(*i, u64::from(*indx));
                let records: Vec<_> = list.iter().map(Slice::encode).collect();
                let Some(last) = records.len().checked_sub(1) else {
                    return self.command(Reports::Int(0), "LLEN", key, &[]);
                };
                let last = last / COMMAND_ARGS_MAX;
                for (n, part) in records.chunks(COMMAND_ARGS_MAX).enumerate() {
                    let part: Vec<&[u8]> = part.iter().map(|r| &r[..]).collect();
                    let reports = if n == last { Reports::Int(0) } else { Reports::Nothing };
                    self.command(reports, "RPUSH", key.clone(), &part);
                }
                Reports::Int(0)
            }
            Write::AppendSliceIfExists(i, range, slice) => {
                let record = slice.encode();
                if range.is_empty() {
                    return Reports::Nothing;
                }
                if let Some(there) = chunks.get(i) {
                    for &indx in there.range(range.clone()) {
                        self.run("RPUSHX", keys.chunk(*i, u64::from(indx)), &[&record]);
                    }
                } else if range.end - range.start <= SPELLED_CHUNKS_MAX {
                    for indx in range.clone() {
                        self.run("RPUSHX", keys.chunk(*i, u64::from(indx)), &[&record]);
                    }
                } else {
                    self.arg("R");
                    self.arg(format!("{}c{i}_", keys.prefix));
                    self.num(range.start);
                    self.num(range.end - 1);
                    self.arg(&record[..]);
                }
                Reports::Nothing
            }
            Write::ReplaceSlices { ino, indx, drop, insert } => {
                let key = keys.chunk(*ino, u64::from(*indx));
                self.run("LTRIM", key.clone(), &[text(drop).as_ref(), b"-1"]);
                // Each push to the head turns the order round.
                let records: Vec<_> = insert.iter().rev().map(Slice::encode).collect();
                for part in records.chunks(COMMAND_ARGS_MAX) {
                    let part: Vec<&[u8]> = part.iter().map(|r| &r[..]).collect();
                    self.run("LPUSH", key.clone(), &part);
                }
                Reports::Nothing
            }
            Write::TakeSlices(i, indx) => {
                self.arg("T");
                self.key(keys.chunk(*i, u64::from(*indx)));
                self.key(keys.slice_ref());
                Reports::Taken
            }
            _ => Reports::Nothing,
        }
    }

    fn put_dir_stat(&mut self, keys: &Keys, dir: Ino, stat: &DirStat) -> Reports {
        let field = text(dir);
        for (key, n) in [
            (keys.dir_used_space(), stat.space),
            (keys.dir_data_length(), stat.length),
            (keys.dir_used_inodes(), stat.inodes),
        ] {
            self.run("HSET", key, &[field.as_ref(), text(n).as_ref()]);
        }
        Reports::Nothing
    }

    fn lock(&mut self, keys: &Keys, key: String, (sid, owner): LockOwner, value: Option<Vec<u8>>) -> Reports {
        let field = lock_owner_field(sid, owner);
        match value {
            Some(value) => {
                self.run("HSET", key.clone(), &[field.as_ref(), &value]);
                self.run("SADD", keys.locked(sid), &[key.as_ref()])
            }
            None => {
                self.arg("K");
                self.key(key);
                self.key(keys.locked(sid));
                self.arg(field);
                self.arg(format!("{sid}_"));
                Reports::Nothing
            }
        }
    }

    /// Offsets are those of the record (`docs/format/inodes-and-attributes.md#the-record`), counted from 1.
    fn patch(&mut self, key: String, p: &AttrPatch) -> Reports {
        let mut parts: Vec<(usize, Vec<u8>)> = Vec::new();
        parts.extend(p.flags.map(|v| (1, vec![v])));
        parts.extend(p.uid.map(|v| (4, v.to_be_bytes().to_vec())));
        parts.extend(p.gid.map(|v| (8, v.to_be_bytes().to_vec())));
        for (at, time) in [(12, p.atime), (24, p.mtime), (36, p.ctime)] {
            parts.extend(time.map(|t| (at, t.to_bytes().to_vec())));
        }
        parts.extend(p.length.map(|v| (52, v.to_be_bytes().to_vec())));
        parts.extend(p.parent.map(|v| (64, v.0.to_be_bytes().to_vec())));
        if let Some((access, default, tier)) = p.tail {
            let mut tail = Vec::with_capacity(10);
            if access != 0 || default != 0 {
                tail.extend_from_slice(&access.to_be_bytes());
                tail.extend_from_slice(&default.to_be_bytes());
            }
            if tier != 0 {
                tail.push(tier);
            }
            tail.push(0);
            parts.push((72, tail));
        }
        self.arg("P");
        self.key(key);
        self.num(p.nlink);
        self.arg(p.mode.map(|m| (m & 0xFFF).to_string()).unwrap_or_default());
        self.num(parts.len());
        for (at, bytes) in parts {
            self.num(at);
            self.arg(bytes);
        }
        Reports::Attr
    }
}

fn text(n: impl ToString) -> String {
    n.to_string()
}

fn flock_value(write: bool) -> Vec<u8> {
    if write { b"W".to_vec() } else { b"R".to_vec() }
}
