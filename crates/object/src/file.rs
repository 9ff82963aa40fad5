//! A directory as an object store: the object's path is the directory plus the key (`docs/format/objects.md#objects-in-a-directory`).

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::buffers::Buffers;
use crate::direct::{Bounce, NewFiles};
use crate::error::{ObjectError, Result};
use crate::store::{Entry, MAX_OBJECT, Meta, ObjectStore, too_long};

/// Longest part of a key's last component that a temporary name repeats.
const TEMP_NAME_MAX: usize = 200;

/// Modes of what is made: file permissions of the volume are kept by the client that is mounted, so nobody may pass it by.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// File systems whose data come from elsewhere, by the `f_type` that `statfs` tells (`linux/magic.h` and their own headers).
const REMOTE: &[u32] = &[
    0x6969,      // nfs
    0xFF53_4D42, // cifs
    0xFE53_4D42, // smb2
    0x6573_5546, // fuse
    0x00C3_6400, // ceph
    0x0102_1997, // 9p
    0x5346_414F, // afs
    0x0BD0_0BD0, // lustre
    0x4750_4653, // gpfs
    0x7461_636F, // ocfs2
];

/// Objects as files below a directory.
#[derive(Debug, Clone)]
pub struct FileStore {
    root: PathBuf,
    buffers: Arc<Buffers>,
    new_files: Arc<NewFiles>,
}

impl FileStore {
    /// A store below `root`, which [`ObjectStore::create_bucket`] creates.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), buffers: Buffers::new(u64::MAX), new_files: Arc::default() }
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        // An absolute key would replace the root; a NUL cannot be in a path.
        if key.contains('\0') || key.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(ObjectError::Other(format!(
                "{key:?} cannot be the name of an object in a directory"
            )));
        }
        Ok(self.root.join(key))
    }

    async fn read(&self, key: &str, asked: Asked) -> Result<Bytes> {
        let (path, key, buffers) = (self.path(key)?, key.to_owned(), Arc::clone(&self.buffers));
        blocking(move || read_file(&path, &key, asked, &buffers)).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| ObjectError::Other(e.to_string()))?
}

fn io_error(key: &str, e: &std::io::Error) -> ObjectError {
    match e.kind() {
        ErrorKind::NotFound => ObjectError::NotFound(key.to_owned()),
        ErrorKind::AlreadyExists => ObjectError::Exists(key.to_owned()),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => ObjectError::AccessDenied(format!(
            "{key}: {e}; check owner and mode of the directory, and how it is mounted"
        )),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ObjectError::NoSpace(format!("{key}: {e}")),
        ErrorKind::Interrupted | ErrorKind::TimedOut | ErrorKind::StaleNetworkFileHandle => {
            ObjectError::Server(format!("{key}: {e}"))
        }
        // EIO, ENFILE, EMFILE: perhaps only for a moment.
        _ if matches!(e.raw_os_error(), Some(5 | 23 | 24)) => ObjectError::Server(format!("{key}: {e}")),
        _ => ObjectError::Other(format!("{key}: {e}")),
    }
}

/// Creates a directory, and its parents where they are missing.
fn make_dirs(dir: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)
}

/// Takes the name for a file, as `rename` does it or one that keeps what is there.
type Name = fn(&Path, &Path) -> std::io::Result<()>;

/// Gives a file a name that no other has.
fn name_new(temp: &Path, path: &Path) -> std::io::Result<()> {
    let renamed = renameat_with(CWD, temp, CWD, path, RenameFlags::NOREPLACE);
    match renamed {
        // Not every file system has that, and of these not every one has links.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(temp, path)?;
            fs::remove_file(temp)
        }
        other => Ok(other?),
    }
}

/// Writes beside the target, makes it durable, then takes the name.
fn write_file(
    path: &Path,
    key: &str,
    body: &[u8],
    files: &NewFiles,
    mut bounce: Bounce,
    take_name: Name,
) -> Result<()> {
    let fail = |e: &std::io::Error| io_error(key, e);
    let dir = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let cut = name.char_indices().take_while(|(i, _)| *i < TEMP_NAME_MAX).count();
    let short: String = name.chars().take(cut).collect();
    let temp = dir.join(format!(".jfs.{short}.tmp.{:016x}", rand::random::<u64>()));
    let mut made = None;
    let mut create = || files.create(&temp, FILE_MODE, [body, &[]], &mut bounce);
    let file = match create() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            made = dir.ancestors().take_while(|d| !d.exists()).last();
            make_dirs(dir).map_err(|e| fail(&e))?;
            create()
        }
        other => other,
    };
    let written = file.and_then(|file| file.sync_data()).and_then(|()| take_name(&temp, path));
    if let Err(e) = written {
        let _ = fs::remove_file(&temp);
        return Err(fail(&e));
    }
    // The name, too, must survive a power loss before metadata refers to it, and so must the directories made for it.
    let top = made.and_then(Path::parent).unwrap_or(dir);
    for dir in dir.ancestors() {
        let path = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(path).and_then(|d| d.sync_all()).map_err(|e| fail(&e))?;
        if dir == top {
            break;
        }
    }
    Ok(())
}

/// What is read of an object: a part, or the whole with its greatest length.
enum Asked {
    Part(Range<u64>),
    Whole(u64),
}

fn read_file(path: &Path, key: &str, asked: Asked, buffers: &Arc<Buffers>) -> Result<Bytes> {
    let fail = |e: std::io::Error| io_error(key, &e);
    let mut file = File::open(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    let range = match asked {
        Asked::Part(range) => range,
        Asked::Whole(most) if size > most => return Err(too_long(key, most)),
        Asked::Whole(_) => 0..size,
    };
    let (start, end) = (range.start.min(size), range.end.min(size));
    if start > 0 {
        file.seek(SeekFrom::Start(start)).map_err(fail)?;
    }
    let mut out = buffers.get((end - start) as usize);
    let mut filled = 0;
    while let Some(room) = out.as_mut().get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read(room) {
            // It became shorter meanwhile.
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(fail(e)),
        }
    }
    out.truncate(filled);
    Ok(out.freeze())
}

/// Collects entries below `dir` in key order. Directories compare as their name with a slash, as in a flat key space.
fn walk(
    dir: &Path,
    key: &str,
    prefix: &str,
    after: &str,
    limit: usize,
    out: &mut Vec<Entry>,
) -> std::io::Result<()> {
    let mut names: Vec<(String, bool)> = match fs::read_dir(dir) {
        Ok(read) => read
            .map(|e| {
                let e = e?;
                let kind = e.file_type()?;
                let is_dir = kind.is_dir() || (kind.is_symlink() && e.path().is_dir());
                // Keys are UTF-8: a file with another name is no object.
                let Ok(name) = e.file_name().into_string() else { return Ok(None) };
                Ok(Some((if is_dir { name + "/" } else { name }, is_dir)))
            })
            .filter_map(std::io::Result::transpose)
            .collect::<std::io::Result<_>>()?,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    names.sort_unstable();
    for (name, is_dir) in names {
        if out.len() >= limit {
            break;
        }
        let full = format!("{key}{name}");
        if is_dir {
            let may_match = full.starts_with(prefix) || prefix.starts_with(&full);
            let may_follow = full.as_str() > after || after.starts_with(&full);
            if may_match && may_follow {
                walk(&dir.join(&name), &full, prefix, after, limit, out)?;
            }
        } else if full.starts_with(prefix)
            && full.as_str() > after
            && !is_temp(&name)
            && let Ok(meta) = fs::metadata(dir.join(&name))
        {
            out.push(Entry { key: full, size: meta.len(), mtime: meta.modified().ok() });
        }
    }
    Ok(())
}

fn is_temp(name: &str) -> bool {
    name.starts_with(".jfs.") && name.contains(".tmp.")
}

#[async_trait]
impl ObjectStore for FileStore {
    async fn put_in_tier(&self, key: &str, body: Bytes, _tier: u8) -> Result<()> {
        let (path, key, files) = (self.path(key)?, key.to_owned(), Arc::clone(&self.new_files));
        let bounce = Bounce::new(&self.buffers);
        blocking(move || write_file(&path, &key, &body, &files, bounce, |temp, path| fs::rename(temp, path)))
            .await
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<bool> {
        let (path, key, files) = (self.path(key)?, key.to_owned(), Arc::clone(&self.new_files));
        let bounce = Bounce::new(&self.buffers);
        match blocking(move || write_file(&path, &key, &body, &files, bounce, name_new)).await {
            Err(ObjectError::Exists(_)) => Ok(false),
            other => other.map(|()| true),
        }
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        self.read(key, range.map_or(Asked::Whole(MAX_OBJECT), Asked::Part)).await
    }

    async fn get_whole(&self, key: &str, most: u64) -> Result<Bytes> {
        self.read(key, Asked::Whole(most)).await
    }

    async fn head(&self, key: &str) -> Result<Meta> {
        let (path, key) = (self.path(key)?, key.to_owned());
        blocking(move || {
            let meta = fs::metadata(&path).map_err(|e| io_error(&key, &e))?;
            Ok(Meta { size: meta.len(), mtime: meta.modified().ok() })
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let (path, key) = (self.path(key)?, key.to_owned());
        blocking(move || match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(io_error(&key, &e)),
            _ => Ok(()),
        })
        .await
    }

    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>> {
        let (root, prefix, after) = (self.root.clone(), prefix.to_owned(), start_after.to_owned());
        blocking(move || {
            let mut out = Vec::new();
            walk(&root, "", &prefix, &after, limit, &mut out).map_err(|e| io_error(&prefix, &e))?;
            Ok(out)
        })
        .await
    }

    async fn create_bucket(&self, _key: &str) -> Result<()> {
        let root = self.root.clone();
        blocking(move || make_dirs(&root).map_err(|e| io_error(&root.to_string_lossy(), &e))).await
    }

    fn device(&self) -> Option<u64> {
        let type_of = rustix::fs::statfs(&self.root).ok()?.f_type;
        let remote = REMOTE.iter().any(|magic| i64::from(*magic) == type_of);
        fs::metadata(&self.root).ok().filter(|_| !remote).map(|m| m.dev())
    }

    fn describe(&self) -> String {
        format!("file://{}", self.root.display())
    }
}
