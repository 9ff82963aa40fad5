//! What a mount tells about itself: `.config`, with the names and types that the official CSI driver and its users read there.

use std::net::SocketAddr;
use std::time::Duration;

use ciderfs_block::BlockConfig;
use ciderfs_format::{Settings, shown};
use ciderfs_mount::ServeOptions;
use ciderfs_volume::Volume;
use serde_json::{Value, json};

use crate::cli::args::Args;
use crate::cli::table::HEARTBEAT;
use crate::config;
use crate::failure::Result;
use crate::supervise::{custody, worker};

/// A cache without a directory, as the official client calls it.
const MEMORY: &str = "memory";

/// Where blocks are kept, and how many.
pub fn chunk(blocks: &BlockConfig, settings: &Settings) -> Value {
    let dirs: Vec<String> =
        blocks.cache_dirs.iter().map(|dir| shown(&dir.join(&settings.uuid)).into_owned()).collect();
    json!({
        "CacheDir": if dirs.is_empty() { MEMORY.to_owned() } else { dirs.join(":") },
        "CacheSize": blocks.cache_size,
        "BufferSize": blocks.buffer_size,
        "BlockSize": u64::from(settings.block_size_kib) * 1024,
        "Compress": if settings.compression.is_empty() { "none" } else { settings.compression.as_str() },
        // Nothing is acknowledged that is not stored.
        "Writeback": false,
    })
}

/// The document.
pub fn document(
    args: &Args,
    volume: &Volume,
    options: &ServeOptions,
    chunk: Value,
    metrics: Option<SocketAddr>,
) -> Result<Value> {
    let format: Value = serde_json::from_str(&volume.settings.to_display_json()?)?;
    let (at, parent) = (shown(args.place(1)), std::os::unix::process::parent_id());
    // Without the official driver there is no such way to take the mount over: the official mount command then mounts on top.
    let driver = custody::socket().and(worker::get()).map(|_| parent);
    Ok(json!({
        "Meta": {
            "ReadOnly": options.mount.read_only,
            "Heartbeat": nanoseconds(args.get(HEARTBEAT)),
            "MountPoint": at,
            "Subdir": config::subdir(args).unwrap_or_default(),
            "Sid": volume.meta.sid(),
        },
        "Format": format,
        "Chunk": chunk,
        "Port": { "PrometheusAgent": metrics.map(|at| at.to_string()).unwrap_or_default() },
        "Version": ciderfs_format::version::presented_version(env!("CARGO_PKG_VERSION")),
        "AttrTimeout": nanoseconds(options.attr_valid),
        "DirEntryTimeout": nanoseconds(options.dir_entry_valid),
        "NegEntryTimeout": nanoseconds(options.negative_valid),
        "EntryTimeout": nanoseconds(options.entry_valid),
        "Pid": std::process::id(),
        "PPid": parent,
        "CommPath": driver.map(custody::comm_path).unwrap_or_default(),
        "StatePath": driver.map(custody::state_path).unwrap_or_default(),
        "Mountpoint": at,
        "Supervised": worker::get().is_some(),
    }))
}

/// As durations stand there.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
