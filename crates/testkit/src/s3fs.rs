//! An S3 server of other people's making, `s3s-fs`, behind the same front as [`crate::s3`]: what works with both does not
//! lean on a mistake of ours.

use std::io;
use std::path::Path;

use crate::s3::{S3Options, S3Server};

/// Serves the directories below `dir` as buckets. Of the options it uses port, keys, buckets and seed.
pub fn start(dir: &Path, options: S3Options) -> io::Result<S3Server> {
    for bucket in &options.buckets {
        std::fs::create_dir_all(dir.join(bucket))?;
    }
    let fs = s3s_fs::FileSystem::new(dir).map_err(|e| io::Error::other(format!("{e:?}")))?;
    S3Server::serve(fs, options.port, options.access_key, options.secret_key, options.seed)
}
