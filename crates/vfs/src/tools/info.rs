//! What `info` tells of an inode (`docs/reference/commands.md#info-path`).
#![deny(clippy::arithmetic_side_effects, reason = "users and damaged records control these numbers")]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use ciderfs_format::lock::LockRecord;
use ciderfs_format::objname::{block_key, block_len, full_key};
use ciderfs_format::slice::{chunk_count, chunk_start};
use ciderfs_format::{CHUNK_SIZE, Extent, Ino, shown};
use ciderfs_meta::{Caller, Errno, Error, Result, TreeUsage};
use serde_json::{Value, json};

use crate::tools::control::Progress;
use crate::vfs::Vfs;

/// Entries of the list of chunks or objects: those of 128 GiB in blocks of 4 MiB. They take some 20 MiB while an answer is made,
/// and a file may be said to have any length.
const LISTED_MAX: usize = 1 << 15;
/// Told instead of a longer list.
const TOO_MANY: &str = "the file has too many chunks and objects to list";
/// Of a file with more chunks than this, the existing lists are looked up.
const PROBED_CHUNKS_MAX: u32 = 1024;
/// Chunks read in one turn.
const CHUNKS_AT_ONCE: usize = 64;

impl Vfs {
    /// The document, also of an inode that cannot be looked at: `Failed` says so then. An inode to which no path leads that the
    /// caller may walk is as good as none.
    pub(crate) async fn info(
        self: &Arc<Self>,
        c: &Caller,
        ino: Ino,
        recursive: bool,
        raw: bool,
        progress: &Progress,
    ) -> Value {
        self.try_info(c, ino, recursive, raw, progress).await.unwrap_or_else(|e: Error| {
            json!({
                "Ino": ino.0, "Failed": true, "Reason": e.to_string(),
                "Summary": summary(TreeUsage::default()), "Paths": null, "Chunks": null, "Objects": null,
                "PLocks": null, "FLocks": null, "Tier": { "ID": 0, "StorageClass": "", "Tag": "" },
                "RestoreStatus": "",
            })
        })
    }

    async fn try_info(
        self: &Arc<Self>,
        c: &Caller,
        ino: Ino,
        recursive: bool,
        raw: bool,
        progress: &Progress,
    ) -> Result<Value> {
        let paths = self.meta.paths(c, ino).await?;
        // What has no name any more is in no directory that somebody might have closed, or mounted alone.
        if paths.is_empty() && (c.uid != 0 || self.meta.is_subdir()) {
            return Err(Errno::ENOENT.into());
        }
        let paths: Vec<String> = paths.iter().map(|p| shown(OsStr::from_bytes(p)).into_owned()).collect();
        if let Some(file) = self.files.get(ino) {
            self.flush(&file).await?;
        }
        let usage = self.meta.tree_usage(c, ino, recursive, &|u| progress.set(u.files, u.size)).await?;
        progress.set(usage.files, usage.size);
        let attr = self.meta.getattr(ino).await?;
        let (mut chunks, mut objects, mut reason) = (Vec::new(), Vec::new(), "");
        progress.turn().await;
        if attr.is_file() {
            'lists: for lists in self.listed_chunks(ino, attr.length).await?.chunks(CHUNKS_AT_ONCE) {
                let wanted: Vec<(Ino, u32)> = lists.iter().map(|indx| (ino, *indx)).collect();
                let views = self.meta.read_chunks(&wanted).await?;
                for (indx, view) in lists.iter().copied().zip(views) {
                    let length = attr.length.saturating_sub(chunk_start(indx)).min(CHUNK_SIZE) as u32;
                    for e in visible(&view.extents, length) {
                        if raw {
                            let size = if e.id == 0 { 0 } else { e.size };
                            chunks.push(json!({
                                "ChunkIndex": indx, "Id": e.id, "Size": size, "Off": e.off, "Len": e.len,
                            }));
                        } else {
                            objects.extend(self.objects_of(indx, &e));
                        }
                        if chunks.len().max(objects.len()) > LISTED_MAX {
                            reason = TOO_MANY;
                            (chunks, objects) = (Vec::new(), Vec::new());
                            break 'lists;
                        }
                    }
                }
            }
        }
        let (flocks, plocks) = self.meta.locks(ino).await?;
        let flocks: Vec<Value> = flocks
            .iter()
            .map(
                |((sid, owner), w)| json!({ "Sid": sid, "Owner": owner, "Type": if *w { "W" } else { "R" } }),
            )
            .collect();
        let mut records = Vec::new();
        for ((sid, owner), list) in &plocks {
            for r in LockRecord::decode_list(list).map_err(|e| Error::Volume(e.to_string()))? {
                records.push(json!({
                    "Sid": sid, "Owner": owner, "Type": r.kind, "Pid": r.pid, "Start": r.start, "End": r.end,
                }));
            }
        }
        let tier = self.meta.settings().tier(attr.tier);
        let some = |list: Vec<Value>| if list.is_empty() { Value::Null } else { Value::Array(list) };
        Ok(json!({
            "Ino": ino.0, "Failed": false, "Reason": reason, "Summary": summary(usage), "Paths": paths,
            "Chunks": some(chunks), "Objects": some(objects), "PLocks": records, "FLocks": flocks,
            "Tier": { "ID": attr.tier, "StorageClass": tier.storage_class, "Tag": tier.tag },
            "RestoreStatus": "",
        }))
    }

    /// Indexes of the chunks of a file of this length that may have lists. Of a long file, which may be sparse, those that there
    /// are: the length alone could stand for two billions.
    async fn listed_chunks(&self, ino: Ino, length: u64) -> Result<Vec<u32>> {
        let count = chunk_count(length);
        if count <= PROBED_CHUNKS_MAX {
            return Ok((0..count).collect());
        }
        let mut there = self.meta.chunk_indexes(ino).await?;
        there.retain(|indx| *indx < count);
        Ok(there)
    }

    /// The objects of an extent, block by block.
    fn objects_of(&self, indx: u32, e: &Extent) -> Vec<Value> {
        let place = |key: String, size: u32, off: u32, len: u32| json!({ "ChunkIndex": indx, "Key": key, "Size": size, "Off": off, "Len": len });
        if e.id == 0 {
            return vec![place(String::new(), 0, 0, e.len)];
        }
        let settings = self.meta.settings();
        let block = self.blocks.block_size();
        // A damaged record may tell of more than its slice holds.
        let end = e.off.saturating_add(e.len).min(e.size);
        let (mut out, mut off) = (Vec::new(), e.off);
        while off < end {
            let (n, at) = (off.checked_div(block).unwrap_or(0), off.checked_rem(block).unwrap_or(0));
            let size = block_len(e.size, n, block);
            let len = size.saturating_sub(at).min(end.saturating_sub(off));
            if len == 0 {
                break;
            }
            let key = full_key(&settings.name, &block_key(e.id, n, size, settings.hash_prefix));
            out.push(place(key, size, at, len));
            off = off.saturating_add(len);
        }
        out
    }
}

/// The same for people and for tools that know only the older command.
pub(crate) fn text(info: &Value) -> String {
    let mut out = String::new();
    if info["Failed"] == true {
        return info["Reason"].as_str().unwrap_or_default().to_owned();
    }
    let s = &info["Summary"];
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    let _ = writeln!(out, "  inode: {}\n  files: {}\n   dirs: {}", info["Ino"], s["Files"], s["Dirs"]);
    let _ = writeln!(out, " length: {}\n   size: {}", size(number(&s["Length"])), size(number(&s["Size"])));
    let list = |name: &str| info[name].as_array().cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    match list("Paths").as_slice() {
        [only] => {
            let _ = writeln!(out, "   path: {}", text(only));
        }
        several => {
            let _ = writeln!(out, "  paths:");
            for path in several {
                let _ = writeln!(out, "\t{}", text(path));
            }
        }
    }
    if info["Reason"] == TOO_MANY {
        let _ = writeln!(out, "{TOO_MANY}");
    }
    for (title, name, key) in [("objects", "Objects", "Key"), ("chunks", "Chunks", "Id")] {
        let rows = list(name);
        if !rows.is_empty() {
            let _ = writeln!(out, "{title}:");
        }
        for r in rows {
            let key = r[key].as_str().map_or_else(|| r[key].to_string(), str::to_owned);
            let _ = writeln!(out, "\t{}:\t{key}\t{}\t{}\t{}", r["ChunkIndex"], r["Size"], r["Off"], r["Len"]);
        }
    }
    out
}

/// `9.00 MiB (9437184 Bytes)`, or `3 Bytes`.
fn size(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} Bytes");
    }
    let unit = (n.ilog2() / 10).saturating_sub(1).min(5);
    format!(
        "{:.2} {} ({n} Bytes)",
        n as f64 / f64::from(1024).powi(unit.saturating_add(1) as i32),
        UNITS[unit as usize]
    )
}

fn summary(u: TreeUsage) -> Value {
    json!({ "Length": u.length, "Size": u.size, "Files": u.files, "Dirs": u.dirs })
}

/// The extents of a chunk as far as the file goes.
fn visible(extents: &[Extent], length: u32) -> Vec<Extent> {
    extents
        .iter()
        .filter(|e| e.pos < length)
        .map(|e| Extent { len: e.len.min(length.saturating_sub(e.pos)), ..*e })
        .collect()
}
