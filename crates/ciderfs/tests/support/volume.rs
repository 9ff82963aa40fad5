//! Volumes on both metadata engines, and what must hold for every one of them.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ciderfs_testkit::official::{Official, Output};
use ciderfs_testkit::redis::{RedisOptions, RedisServer};
use tempfile::TempDir;

use super::client::{self, Mount, program, succeed};
use super::tree;

/// Name of every test volume.
pub const NAME: &str = "vol";

/// A metadata engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A file.
    Sqlite,
    /// A server of its own.
    Redis,
}

/// A volume with objects in a directory, unless the flags of its format say otherwise.
pub struct Volume {
    // Before the directory, so that the server ends first.
    pub redis: Option<RedisServer>,
    /// URL of the metadata.
    pub meta: String,
    /// Directory of the objects.
    pub objects: PathBuf,
    mounts: Cell<u32>,
    pub dir: TempDir,
}

impl Volume {
    /// An engine and a place for objects, without a volume.
    #[track_caller]
    pub fn unformatted(engine: Engine) -> Self {
        let dir = tempfile::Builder::new().prefix("ciderfs-e2e").tempdir().unwrap();
        // Other users must get through to the mounts.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let (meta, redis) = match engine {
            Engine::Sqlite => (format!("sqlite3://{}", dir.path().join("meta.db").display()), None),
            Engine::Redis => {
                let options = RedisOptions { append_only: true, ..RedisOptions::default() };
                let redis = RedisServer::start(options).unwrap_or_else(|e| panic!("{e:#}"));
                (redis.url_db(1), Some(redis))
            }
        };
        let objects = dir.path().join("objects");
        Self { dir, redis, meta, objects, mounts: Cell::new(0) }
    }

    /// A volume made by our `format`.
    #[track_caller]
    pub fn new(engine: Engine, flags: &[&str]) -> Self {
        let volume = Self::unformatted(engine);
        volume.format(flags);
        volume
    }

    /// Flags of `format` for the objects.
    pub fn storage_flags(&self, flags: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        if !flags.iter().any(|f| f.starts_with("--storage")) {
            all.extend(["--storage=file".into(), format!("--bucket={}/", self.objects.display())]);
        }
        all
    }

    /// Our `format`.
    #[track_caller]
    pub fn format(&self, flags: &[&str]) {
        let mut args = vec!["format".to_owned()];
        args.extend(self.storage_flags(flags));
        args.extend([self.meta.clone(), NAME.into()]);
        succeed(&args);
    }

    /// The official `format`.
    #[track_caller]
    pub fn format_official(&self, official: &Official, flags: &[&str]) {
        let flags = self.storage_flags(flags);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        official.format(&self.meta, NAME, &flags).unwrap_or_else(|e| panic!("{e:#}"));
    }

    /// A new mount point, not there yet.
    pub fn new_path(&self) -> PathBuf {
        self.mounts.set(self.mounts.get() + 1);
        self.dir.path().join(format!("mnt{}", self.mounts.get()))
    }

    /// Mounts with our client at a new place.
    #[track_caller]
    pub fn mount(&self, flags: &[&str]) -> Mount {
        let path = self.new_path();
        let mut command = program();
        let cache = path.with_extension("cache").display().to_string();
        command.arg("mount");
        if !flags.iter().any(|f| f.starts_with("--cache-dir")) {
            command.arg(format!("--cache-dir={cache}"));
        }
        // The disk of the machine that tests may be nearly full.
        if !flags.iter().any(|f| f.starts_with("--free-space-ratio")) {
            command.arg("--free-space-ratio=0");
        }
        command.arg("--metrics=").args(flags).arg(&self.meta).arg(&path);
        Mount::start(command, &path, &path.with_extension("log"))
    }

    /// Space and inodes that the metadata says are used.
    #[track_caller]
    pub fn used(&self) -> (u64, u64) {
        let out = succeed(&["status", &self.meta]).stdout;
        let status: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
        let number = |name: &str| status["Stat"][name].as_u64().unwrap();
        (number("UsedSpace"), number("UsedInodes"))
    }

    /// The whole truth about an idle volume: a full walk agrees with the counters, and the official `fsck` and `gc` have
    /// nothing to say.
    #[track_caller]
    pub fn check(&self) {
        self.check_counters();
        self.check_official();
    }

    /// The same where data of deleted files may still wait for its removal, and where the official client may have forgotten
    /// chunk lists. Its `gc` calls a list leaked when the inode is gone. That is so for two reasons that are no leak of ours:
    ///
    /// * It ended while it still held a deleted file open. It notes such a file in `delfiles` and goes before its data are
    ///   removed; whoever does the hourly work removes them.
    /// * It leaves the list of a file that it made empty and that was deleted afterwards. Such a list holds the record of that,
    ///   zeros from the beginning, which CiderFS never writes: it gives the whole list back.
    #[track_caller]
    pub fn check_but_for_pending(&self) {
        self.check_counters();
        let said = self.ask_official(&[(" leaked (", "leaked")]);
        let lists: Vec<&str> = said.lines().filter_map(|l| l.split("found leaked chunk ").nth(1)).collect();
        if lists.is_empty() {
            return;
        }
        let waiting = self.script("return redis.call('ZRANGE', 'delfiles', 0, -1)", &["0"]);
        for list in lists {
            let list = list.split(' ').next().unwrap();
            let inode = list.trim_start_matches('c').split('_').next().unwrap();
            let is_noted = waiting.lines().any(|file| file.split(':').next() == Some(inode));
            let records = self.records(list);
            let emptied = "0".repeat(24);
            let was_emptied = records.iter().any(|r| r.starts_with(&emptied));
            assert!(is_noted || was_emptied, "{list} left behind, {records:?}, delfiles: {waiting}\n{said}");
        }
    }

    /// The same after processes were killed, which leaves objects that were stored and not committed: `gc` finds them, and nothing
    /// else.
    #[track_caller]
    pub fn check_after_crash(&self) {
        self.check_counters();
        let official = Official::locate().unwrap_or_else(|e| panic!("{e:#}"));
        let waiting = [(" pending delete", "pending"), (" delslices", "slices"), (" delfiles", "files")];
        let said = self.ask_official(&waiting);
        assert!(!said.contains("leaked chunk"), "{said}");
        self.collect_leaked(&official);
        self.check_official();
    }

    /// The records of a chunk list on Redis, in hexadecimal.
    fn records(&self, list: &str) -> Vec<String> {
        const HEX: &str = "local out = {} \
            for i, r in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do \
            out[i] = string.gsub(r, '.', function(c) return string.format('%02x', string.byte(c)) end) end return out";
        self.script(HEX, &["1", list]).lines().filter(|l| l.len() == 48).map(str::to_owned).collect()
    }

    /// What a script says that runs in the database of a volume on Redis.
    #[track_caller]
    fn script(&self, script: &str, keys: &[&str]) -> String {
        let script = format!("redis.call('SELECT', 1) {script}");
        let redis = self.redis.as_ref().expect("only on Redis");
        let said = redis.command(&[&["EVAL", &script], keys].concat());
        said.unwrap_or_else(|e| panic!("{e:#}"))
    }

    /// Lets the official client correct the statistics of directories that it has written itself. It keeps them apart from its
    /// transactions: they drift when a directory gets its first ones while it is written to, and when it is one of several
    /// clients; two official clients, without us, end the test of both at once with wrong ones too. Ours must never need it.
    pub fn repair_statistics(&self, official: &Official) {
        // It complains about what it repairs; the check that follows decides.
        let _ = official.fsck(&self.meta, &["--path", "/", "--recursive", "--sync-dir-stat", "--repair"]);
    }

    #[track_caller]
    fn check_counters(&self) {
        let mount = self.mount(&["--no-bgjob"]);
        let walked = tree::walk_usage(mount.path());
        mount.unmount();
        assert_eq!(self.used(), walked, "used space and inodes: counters, full walk");
    }

    /// The official `fsck` and `gc` have nothing to say.
    #[track_caller]
    pub fn check_official(&self) {
        self.ask_official(&[
            (" pending delete", "pending"),
            (" leaked", "leaked"),
            (" delslices", "slices"),
            (" delfiles", "files"),
        ]);
    }

    /// Ids of slices that nobody uses and that are noted as such: the hourly work of either client deletes them.
    #[track_caller]
    pub fn unused_slices(&self) -> BTreeSet<u64> {
        let said = if self.redis.is_some() {
            const UNUSED: &str = "local out, all = {}, redis.call('HGETALL', 'sliceRef') \
                for i = 1, #all, 2 do if tonumber(all[i + 1]) < 0 then \
                out[#out + 1] = string.match(all[i], '^k(%d+)_') end end return out";
            self.script(UNUSED, &["0"])
        } else {
            client::sh(self.dir.path(), "sqlite3 meta.db 'SELECT chunkid FROM jfs_chunk_ref WHERE refs <= 0'")
        };
        said.lines().filter_map(|id| id.trim().parse().ok()).collect()
    }

    /// Has the official `gc` delete objects that nothing refers to, and tells the ids of their slices.
    #[track_caller]
    pub fn collect_leaked(&self, official: &Official) -> BTreeSet<u64> {
        let before = self.object_names();
        official.gc(&self.meta, &["--delete"]).unwrap_or_else(|e| panic!("{e:#}"));
        let after = self.object_names();
        let id = |name: &String| name.split('_').next().and_then(|n| n.parse().ok());
        before.difference(&after).filter_map(id).collect()
    }

    /// Names of the objects of blocks, without their directories.
    fn object_names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut left = vec![self.objects.clone()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    left.push(entry.path());
                } else {
                    names.insert(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        names
    }

    /// `fsck`, and `gc`, which must count none of these; what `gc` said.
    #[track_caller]
    fn ask_official(&self, none: &[(&str, &str)]) -> String {
        let official = Official::locate().unwrap_or_else(|e| panic!("{e:#}"));
        let text = |out: Result<Output, _>| -> String {
            let e: ciderfs_testkit::Error = match out {
                Ok(out) => return out.text(),
                Err(e) => e,
            };
            panic!("{e:#}")
        };
        quiet(&text(official.fsck(&self.meta, &[])));
        quiet(&text(official.fsck(&self.meta, &["--path", "/", "--recursive", "--sync-dir-stat"])));
        let said = text(official.gc(&self.meta, &[]));
        quiet(&said);
        for (what, name) in none.iter().copied() {
            let count = said.split(what).next().and_then(|s| s.rsplit(' ').next());
            assert_eq!(count, Some("0"), "{name} left behind:\n{said}");
        }
        said
    }
}

/// Nothing but remarks on the engine.
#[track_caller]
fn quiet(said: &str) {
    for line in said.lines() {
        let loud = ["<WARNING>", "<ERROR>", "<FATAL>", "panic"].iter().any(|w| line.contains(w));
        let known = ["Set storage tier", "AOF is not enabled", "latency to database"]
            .iter()
            .any(|w| line.contains(w));
        assert!(!loud || known, "the official client complains:\n{said}");
    }
}
