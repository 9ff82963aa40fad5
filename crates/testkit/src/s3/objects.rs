//! Buckets and objects, in memory or as files of a directory.
//!
//! In a directory, an object is the file `BUCKET/ENCODED-KEY`: the length of a JSON header (u64, little-endian), the header,
//! the body.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use bytes::Bytes;

/// End of the names of files that are being written.
const TMP: &str = ".tmp";

/// An object without its body.
#[derive(Debug, Clone)]
pub(crate) struct Info {
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) content_type: Option<String>,
    pub(crate) metadata: HashMap<String, String>,
    /// Empty for the standard one.
    pub(crate) storage_class: String,
    pub(crate) modified: SystemTime,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Memory(Bytes),
    /// The body begins there.
    File(u64),
}

type Bucket = BTreeMap<String, Info>;

#[derive(Debug)]
pub(crate) struct Objects {
    dir: Option<PathBuf>,
    buckets: RwLock<BTreeMap<String, Bucket>>,
    /// Held while an object is stored: looking whether there is one is one step with that.
    new: Mutex<()>,
}

/// `None` inside: no such bucket.
type Found<T> = io::Result<Option<T>>;

/// What is stored with a body.
pub(crate) struct About {
    pub(crate) content_type: Option<String>,
    pub(crate) metadata: HashMap<String, String>,
    pub(crate) storage_class: String,
}

impl Objects {
    pub(crate) fn open(dir: Option<PathBuf>) -> io::Result<Self> {
        let mut buckets = BTreeMap::new();
        if let Some(dir) = &dir {
            fs::create_dir_all(dir)?;
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    buckets.insert(entry.file_name().to_string_lossy().into_owned(), load(&entry.path())?);
                }
            }
        }
        Ok(Self { dir, buckets: RwLock::new(buckets), new: Mutex::default() })
    }

    fn read<T>(&self, f: impl FnOnce(&BTreeMap<String, Bucket>) -> T) -> T {
        f(&self.buckets.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, f: impl FnOnce(&mut BTreeMap<String, Bucket>) -> T) -> T {
        f(&mut self.buckets.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// False if it existed.
    pub(crate) fn create_bucket(&self, bucket: &str) -> io::Result<bool> {
        if let Some(dir) = &self.dir {
            fs::create_dir_all(dir.join(bucket))?;
        }
        Ok(self.write(|buckets| {
            let new = !buckets.contains_key(bucket);
            buckets.entry(bucket.to_owned()).or_default();
            new
        }))
    }

    pub(crate) fn buckets(&self) -> Vec<String> {
        self.read(|buckets| buckets.keys().cloned().collect())
    }

    pub(crate) fn has_bucket(&self, bucket: &str) -> bool {
        self.read(|buckets| buckets.contains_key(bucket))
    }

    pub(crate) fn put(&self, bucket: &str, key: &str, body: Bytes, about: About) -> Found<Info> {
        Ok(self.put_if(bucket, key, body, about, false)?.flatten())
    }

    /// Inner `None`: there is one already, and only a new one was wanted.
    pub(crate) fn put_if(
        &self,
        bucket: &str,
        key: &str,
        body: Bytes,
        about: About,
        only_new: bool,
    ) -> Found<Option<Info>> {
        let About { content_type, metadata, storage_class } = about;
        if !self.has_bucket(bucket) {
            return Ok(None);
        }
        let _turn = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        if only_new && self.read(|buckets| buckets.get(bucket).is_some_and(|b| b.contains_key(key))) {
            return Ok(Some(None));
        }
        let mut info = Info {
            size: body.len() as u64,
            etag: md5_hex(&body),
            content_type,
            metadata,
            storage_class,
            modified: SystemTime::now(),
            place: Place::Memory(body.clone()),
        };
        if let Some(path) = self.path(bucket, key) {
            let header = serde_json::json!({
                "etag": info.etag, "content_type": info.content_type, "metadata": info.metadata,
                "storage_class": info.storage_class,
            });
            let header = serde_json::to_vec(&header)?;
            let mut file = Vec::with_capacity(8 + header.len() + body.len());
            file.extend_from_slice(&(header.len() as u64).to_le_bytes());
            file.extend_from_slice(&header);
            info.place = Place::File(file.len() as u64);
            file.extend_from_slice(&body);
            let tmp = path.with_extension(format!("{:016x}{TMP}", rand::random::<u64>()));
            fs::write(&tmp, file)?;
            fs::rename(&tmp, &path)?;
        }
        Ok(self.write(|buckets| {
            buckets.get_mut(bucket)?.insert(key.to_owned(), info.clone());
            Some(Some(info))
        }))
    }

    /// Inner `None`: no such object.
    pub(crate) fn info(&self, bucket: &str, key: &str) -> Option<Option<Info>> {
        self.read(|buckets| buckets.get(bucket).map(|b| b.get(key).cloned()))
    }

    pub(crate) fn body(&self, bucket: &str, key: &str, info: &Info, range: Range<u64>) -> io::Result<Bytes> {
        match (&info.place, self.path(bucket, key)) {
            (Place::Memory(body), _) => Ok(body.slice(range.start as usize..range.end as usize)),
            (Place::File(start), Some(path)) => {
                let mut file = fs::File::open(path)?;
                file.seek(SeekFrom::Start(start + range.start))?;
                let mut body = vec![0; (range.end - range.start) as usize];
                file.read_exact(&mut body)?;
                Ok(body.into())
            }
            (Place::File(_), None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// `None`: no such bucket.
    pub(crate) fn delete(&self, bucket: &str, key: &str) -> Found<()> {
        let Some(removed) = self.write(|buckets| buckets.get_mut(bucket).map(|b| b.remove(key))) else {
            return Ok(None);
        };
        if let (Some(_), Some(path)) = (removed, self.path(bucket, key)) {
            fs::remove_file(path)?;
        }
        Ok(Some(()))
    }

    /// Keys that start with `prefix` and come after `after`, in order.
    pub(crate) fn list(&self, bucket: &str, prefix: &str, after: &str) -> Option<Vec<(String, Info)>> {
        self.read(|buckets| {
            let found =
                buckets.get(bucket)?.iter().filter(|(k, _)| k.starts_with(prefix) && k.as_str() > after);
            Some(found.map(|(k, i)| (k.clone(), i.clone())).collect())
        })
    }

    fn path(&self, bucket: &str, key: &str) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(bucket).join(encode(key)))
    }
}

fn md5_hex(body: &[u8]) -> String {
    use md5::Digest;
    md5::Md5::digest(body).iter().map(|b| format!("{b:02x}")).collect()
}

fn load(dir: &Path) -> io::Result<Bucket> {
    let mut bucket = Bucket::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(TMP) {
            fs::remove_file(entry.path())?;
            continue;
        }
        let mut file = fs::File::open(entry.path())?;
        let mut len = [0; 8];
        file.read_exact(&mut len)?;
        let len = u64::from_le_bytes(len);
        let mut header = Vec::new();
        file.by_ref().take(len).read_to_end(&mut header)?;
        let header: serde_json::Value = serde_json::from_slice(&header)?;
        let text = |v: &serde_json::Value| v.as_str().map(str::to_owned);
        let meta = file.metadata()?;
        let info = Info {
            size: meta.len().saturating_sub(8 + len),
            etag: text(&header["etag"]).unwrap_or_default(),
            content_type: text(&header["content_type"]),
            metadata: header["metadata"]
                .as_object()
                .map(|m| m.iter().filter_map(|(k, v)| Some((k.clone(), text(v)?))).collect())
                .unwrap_or_default(),
            storage_class: text(&header["storage_class"]).unwrap_or_default(),
            modified: meta.modified()?,
            place: Place::File(8 + len),
        };
        bucket.insert(decode(&name)?, info);
    }
    Ok(bucket)
}

/// A file name for a key. Dots are encoded, so no name ends like that of a file being written.
fn encode(key: &str) -> String {
    key.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// What was percent-encoded.
pub(crate) fn decode(name: &str) -> io::Result<String> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("{name} is not an object"));
    let mut key = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok()).ok_or_else(bad)?;
            key.push(u8::from_str_radix(hex, 16).map_err(|_| bad())?);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            key.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(key).map_err(|_| bad())
}

/// A key as in listings with `encoding-type=url`.
pub(crate) fn url_encode(key: &str) -> String {
    key.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}
