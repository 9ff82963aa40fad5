//! The bytes that the kernel is told, over a volume in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::HashMap;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use ciderfs_block::{BlockConfig, BlockStore};
use ciderfs_format::{FileType, Ino, Settings};
use ciderfs_fuse::abi::{init as cap, opcode};
use ciderfs_fuse::{Session, SessionConfig};
use ciderfs_meta::memory::MemoryStore;
use ciderfs_meta::store::Store;
use ciderfs_meta::{Caller, Meta, MetaConfig, NewNode};
use ciderfs_vfs::{Metrics, OpenCache, Vfs, VfsConfig};
use tokio::runtime::Runtime;

use crate::handler::{Bridge, Front, Validity};
use crate::identity::Identity;
use crate::xattr::XattrOptions;

/// The kernel's number for what a mount shows as its root.
const ROOT: u64 = 1;
const HEADER: usize = 16;
/// An answer of LOOKUP, which begins with the number and the generation of the node.
const ENTRY: usize = 128;

/// The kernel's side of a connection.
struct Kernel(UnixDatagram);

impl Kernel {
    /// Sends a request of root; the answer without its header.
    fn ask(&self, opcode: u32, node: u64, args: &[u8]) -> Vec<u8> {
        let mut request = Vec::new();
        request.extend(u32::try_from(40 + args.len()).unwrap().to_ne_bytes());
        request.extend(opcode.to_ne_bytes());
        for word in [7, node, 0, 1] {
            request.extend(word.to_ne_bytes());
        }
        request.extend(args);
        self.0.send(&request).unwrap();
        self.answer()
    }

    fn answer(&self) -> Vec<u8> {
        let mut answer = vec![0; 64 << 10];
        let n = self.0.recv(&mut answer).unwrap();
        answer.truncate(n);
        assert_eq!(word(&answer, 0) >> 32, 0, "refused");
        answer.split_off(HEADER)
    }

    /// Number and generation of a node.
    fn lookup(&self, dir: u64, name: &str) -> (u64, u64) {
        let answer = self.ask(opcode::LOOKUP, dir, format!("{name}\0").as_bytes());
        assert_eq!(answer.len(), ENTRY);
        (word(&answer, 0), word(&answer, 8))
    }

    /// The names of a directory, each with the number that it leads to and what else is told of it: number and generation, 0
    /// where nothing is.
    fn list(&self, dir: u64) -> Vec<(String, u64, (u64, u64))> {
        let fh = word(&self.ask(opcode::OPENDIR, dir, &[0; 8]), 0);
        let args = [fh, 0, 16 << 10, 0, 0].map(u64::to_ne_bytes).concat();
        let answer = self.ask(opcode::READDIRPLUS, dir, &args);
        let (mut out, mut at) = (Vec::new(), &answer[..]);
        while !at.is_empty() {
            let len = (word(at, ENTRY + 16) & 0xffff_ffff) as usize;
            let name = &at[ENTRY + 24..][..len];
            let name = String::from_utf8(name.to_vec()).unwrap();
            out.push((name, word(at, ENTRY), (word(at, 0), word(at, 8))));
            at = &at[(ENTRY + 24 + len).next_multiple_of(8)..];
        }
        out
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Serves a volume with the directory `top/sub`, or a part of it.
fn serve(runtime: &Runtime, subdir: Option<&[u8]>) -> Kernel {
    let vfs = runtime.block_on(async {
        let mut settings = Settings::new("vol", "5d2b1c9a-7d0c-4a2b-9a35-3a1f6a4d2c11", "mem", "mem");
        settings.trash_days = 1;
        let store = Arc::new(MemoryStore::new());
        store.create_schema().await.unwrap();
        Meta::write_settings(store.as_ref(), &settings, None).await.unwrap();
        let config = |subdir| MetaConfig { heartbeat: Duration::ZERO, subdir, ..MetaConfig::default() };
        let meta = Meta::load(Arc::clone(&store) as Arc<dyn Store>, config(None)).await.unwrap();
        let (root, node) = (
            Caller::root(),
            NewNode { kind: FileType::Directory, mode: 0o755, umask: 0, rdev: 0, target: b"" },
        );
        let (top, _) = meta.create(&root, Ino::ROOT, b"top", &node).await.unwrap();
        let (sub, _) = meta.create(&root, top, b"sub", &node).await.unwrap();
        meta.create(&root, sub, b"deep", &node).await.unwrap();
        let meta = Meta::load(store, config(subdir.map(<[u8]>::to_vec))).await.unwrap();
        let objects = Arc::new(ciderfs_object::MemoryStore::default());
        let blocks = BlockStore::new(objects, BlockConfig::default()).unwrap();
        let cfg = VfsConfig {
            max_readahead: None,
            hide_internal: false,
            prefix_internal: false,
            sort_dir: false,
            attr_valid: Duration::from_secs(1),
            open_cache: OpenCache::default(),
            config_json: serde_json::Value::Null,
            metrics: Arc::new(Metrics::new(HashMap::new()).unwrap()),
            handover: None,
        };
        Vfs::new(meta, blocks, cfg)
    });
    let second = Duration::from_secs(1);
    let bridge = Arc::new(Bridge {
        vfs,
        runtime: runtime.handle().clone(),
        valid: Validity { attr: second, entry: second, dir_entry: second, negative: second },
        xattr: XattrOptions::default(),
        identity: Identity::default(),
        masks: false,
        ioctl: true,
        begun: None,
        keep_listings: false,
    });
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let kernel = Kernel(theirs);
    let flags = (cap::EXPORT_SUPPORT | cap::DO_READDIRPLUS) as u32;
    let init = [7, 45, 128 << 10, flags].map(u32::to_ne_bytes).concat();
    let session = std::thread::spawn(move || {
        let config = SessionConfig { threads: Some(1), clone_fd: false, ..SessionConfig::default() };
        Session::new(ours.into(), config, Front(bridge)).unwrap()
    });
    kernel.ask(opcode::INIT, 0, &init);
    let session = session.join().unwrap();
    assert!(session.negotiated().has(cap::EXPORT_SUPPORT), "the kernel asks for `..` itself");
    // It serves as long as the test runs.
    session.spawn().unwrap();
    kernel
}

/// "root generation should be zero" is what the kernel says otherwise, whichever way it comes to the root.
#[test]
fn the_root_has_generation_0_however_it_is_reached() {
    let runtime = Runtime::new().unwrap();
    for (subdir, first) in [(None, "top"), (Some(&b"top"[..]), "sub"), (Some(b"top/sub"), "deep")] {
        let kernel = serve(&runtime, subdir);
        let (dir, generation) = kernel.lookup(ROOT, first);
        assert!(dir > ROOT && generation == 1, "{first}: {dir} {generation}");
        assert_eq!(kernel.lookup(dir, "."), (dir, 1));
        for (at, name) in [(ROOT, "."), (ROOT, ".."), (dir, "..")] {
            assert_eq!(kernel.lookup(at, name), (ROOT, 0), "{first}: {name} of {at}");
        }
        for (at, below) in [(ROOT, Some(first)), (dir, None)] {
            let list = kernel.list(at);
            for (name, ino, told) in &list {
                let expected = match name.as_str() {
                    "." => at,
                    ".." => ROOT,
                    _ => *ino,
                };
                assert_eq!(*ino, expected, "{first}: {name} of {at}");
                assert!(told.0 != ROOT || told.1 == 0, "{first}: {name} of {at} is told as {told:?}");
            }
            for name in [".", ".."].into_iter().chain(below) {
                assert!(list.iter().any(|(n, ..)| n == name), "{first}: {name} of {at}: {list:?}");
            }
        }
        if subdir.is_none() {
            assert_eq!(kernel.lookup(ROOT, ".trash").1, 1);
        }
    }
}
