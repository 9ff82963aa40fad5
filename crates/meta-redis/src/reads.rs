//! Reads: the command of each, and its answer.

use ciderfs_format::redis_keys::{Keys, slice_ref_field};
use ciderfs_format::session::{lock_owner_field, parse_lock_owner_field};
use ciderfs_format::{Ino, excerpt};
use ciderfs_meta::store::{DirStat, LockOwner, Read, StoreError, Value};
use redis::Value as Reply;

use crate::encode::{counter_key, lock_key};
use crate::limits;
use crate::quota;
use crate::reply::{self, Result};

/// A command that reads, or one that only the script for reads knows.
pub(crate) struct Ask {
    /// Most bytes of its answer.
    most: usize,
    command: &'static str,
    key: String,
    args: Vec<Vec<u8>>,
}

/// An entry and the attributes of its target. Arguments: its name, the prefix of keys.
const LOOKUP: &str = "LOOKUP";
/// What an extended attribute and all others of an inode take. Argument: its name.
const XATTR_SIZES: &str = "XATTRSIZES";

/// Keys and arguments of the script for reads.
pub(crate) fn script_args(asks: Vec<Ask>) -> (Vec<String>, Vec<Vec<u8>>) {
    let (mut keys, mut out) = (Vec::with_capacity(asks.len()), Vec::new());
    for ask in asks {
        keys.push(ask.key);
        out.push(ask.most.to_string().into());
        out.push(ask.command.into());
        out.push(ask.args.len().to_string().into());
        out.extend(ask.args);
    }
    (keys, out)
}

/// The commands of a read: three for a directory's usage and for a quota, one for everything else.
pub(crate) fn commands(keys: &Keys, read: &Read) -> Vec<Ask> {
    let most = match read {
        Read::Symlink(_) | Read::Xattr(..) | Read::Setting | Read::Acl(_) => limits::VALUE,
        Read::Slices(..) | Read::XattrNames(_) | Read::Parents(_) | Read::Flocks(_) | Read::Plocks(_) => {
            limits::LIST
        }
        _ => limits::SMALL,
    };
    let one = |command, key| Ask { most, command, key, args: Vec::new() };
    let field = |command, key, field: &[u8]| Ask { most, command, key, args: vec![field.to_vec()] };
    vec![match read {
        Read::Attr(i) => one("GET", keys.node(*i)),
        Read::Edge(d, name) => field("HGET", keys.dir(*d), name),
        Read::Lookup(d, name) => Ask {
            most,
            command: LOOKUP,
            key: keys.dir(*d),
            args: vec![name.clone(), keys.prefix.as_bytes().to_vec()],
        },
        Read::DirEmpty(d) => one("EXISTS", keys.dir(*d)),
        Read::Slices(i, indx) => Ask {
            most,
            command: "LRANGE",
            key: keys.chunk(*i, u64::from(*indx)),
            args: vec![b"0".to_vec(), b"-1".to_vec()],
        },
        Read::Symlink(i) => one("GET", keys.symlink(*i)),
        Read::Xattr(i, name) => field("HGET", keys.xattr(*i), name),
        Read::XattrNames(i) => one("HKEYS", keys.xattr(*i)),
        Read::XattrSizes(i, name) => field(XATTR_SIZES, keys.xattr(*i), name),
        Read::Parents(i) => one("HGETALL", keys.parents(*i)),
        Read::Counter(c) => one("GET", counter_key(keys, *c)),
        Read::Setting => one("GET", keys.setting()),
        Read::SliceRefs(id, size) => field("HGET", keys.slice_ref(), slice_ref_field(*id, *size).as_bytes()),
        Read::DirStat(i) => {
            let dir = i.to_string();
            return [keys.dir_used_space(), keys.dir_data_length(), keys.dir_used_inodes()]
                .map(|key| field("HGET", key, dir.as_bytes()))
                .into();
        }
        Read::Quota(key) => {
            let name = quota::field(*key);
            return quota::hashes(keys, *key).map(|hash| field("HGET", hash, name.as_bytes())).into();
        }
        Read::Acl(id) => field("HGET", keys.acl(), id.to_string().as_bytes()),
        Read::Session(sid) => field("HEXISTS", keys.session_infos(), sid.to_string().as_bytes()),
        Read::Holds(i, kind, (sid, owner)) => {
            field("HEXISTS", lock_key(keys, *i, *kind), lock_owner_field(*sid, *owner).as_bytes())
        }
        Read::Flocks(i) => one("HGETALL", keys.flock(*i)),
        Read::Plocks(i) => one("HGETALL", keys.plock(*i)),
    }]
}

/// The value of a read from the answers to its commands.
pub(crate) fn value(read: &Read, replies: &mut impl Iterator<Item = Reply>) -> Result<Value> {
    let mut next = || replies.next().ok_or_else(|| StoreError::corrupt("an answer is missing"));
    if matches!(read, Read::DirStat(_)) {
        return dir_stat(next()?, next()?, next()?);
    }
    if matches!(read, Read::Quota(_)) {
        return Ok(Value::Quota(quota::row(next()?, next()?, next()?)?));
    }
    let v = next()?;
    Ok(match read {
        Read::Lookup(..) => Value::Lookup(match v {
            Reply::Nil => None,
            other => {
                let mut both = reply::array(other)?.into_iter();
                let edge = reply::edge(both.next().unwrap_or_default())?;
                let attr = reply::attr(both.next().unwrap_or_default())?;
                edge.map(|e| (e, attr))
            }
        }),
        // A missing count means one reference.
        Read::SliceRefs(..) => Value::Int(reply::int(v)?.unwrap_or(0).saturating_add(1)),
        Read::Counter(_) => Value::Int(reply::int(v)?.unwrap_or(0)),
        Read::DirEmpty(_) => Value::Bool(reply::int(v)? == Some(0)),
        Read::Session(_) | Read::Holds(..) => Value::Bool(reply::int(v)? == Some(1)),
        Read::XattrNames(_) => Value::Names(reply::strings(v)?.into_iter().map(|n| n.to_vec()).collect()),
        Read::XattrSizes(..) => {
            let mut both = reply::array(v)?.into_iter();
            let others = reply::int(both.next().unwrap_or_default())?.unwrap_or(0);
            let own = reply::int(both.next().unwrap_or_default())?;
            Value::XattrSizes(others as u64, own.map(|n| n as u64))
        }
        other => plain(other, v)?,
    })
}

/// The true value of a guarded record.
pub(crate) fn truth(read: &Read, v: Reply) -> Result<Value> {
    match read {
        Read::DirStat(_) => {
            let mut parts = reply::array(v)?.into_iter();
            let mut part = || parts.next().unwrap_or_default();
            dir_stat(part(), part(), part())
        }
        Read::Quota(_) => Ok(Value::Quota(quota::truth(v)?)),
        _ => value(read, &mut std::iter::once(v)),
    }
}

fn dir_stat(space: Reply, length: Reply, inodes: Reply) -> Result<Value> {
    let (space, length, inodes) = (reply::int(space)?, reply::int(length)?, reply::int(inodes)?);
    Ok(Value::DirStat(space.map(|space| DirStat {
        space,
        length: length.unwrap_or(0),
        inodes: inodes.unwrap_or(0),
    })))
}

/// Answers that look alike whether they come from a command or as the truth about a guard.
fn plain(read: &Read, v: Reply) -> Result<Value> {
    Ok(match read {
        Read::Attr(_) => Value::Attr(reply::attr(v)?),
        Read::Edge(..) => Value::Edge(reply::edge(v)?),
        Read::Slices(..) => Value::Slices(reply::slices(v)?),
        Read::Parents(_) => {
            let mut parents = Vec::new();
            for (dir, n) in reply::pairs(v)? {
                let n: i64 = reply::number(&n)?;
                if n > 0 {
                    parents.push((Ino(reply::number(&dir)?), n));
                }
            }
            Value::Parents(parents)
        }
        Read::Flocks(_) => Value::Flocks(
            reply::pairs(v)?
                .into_iter()
                .map(|(f, lock)| Ok((owner(&f)?, lock == "W")))
                .collect::<Result<_>>()?,
        ),
        Read::Plocks(_) => Value::Plocks(
            reply::pairs(v)?.into_iter().map(|(f, list)| Ok((owner(&f)?, list))).collect::<Result<_>>()?,
        ),
        _ => Value::Bytes(reply::bytes(v)?),
    })
}

fn owner(field: &[u8]) -> Result<LockOwner> {
    std::str::from_utf8(field).ok().and_then(parse_lock_owner_field).ok_or_else(|| {
        StoreError::corrupt(format!("lock owner {:?}", excerpt(&String::from_utf8_lossy(field))))
    })
}
