//! Looks at the files of a cache directory and takes in, or removes, those that the index does not know.

use super::dir::CacheDir;
use super::file::file_len;

impl CacheDir {
    /// Sweeps one sub-directory, or all that are left when the index was lost. Called about once a second.
    pub fn sweep(&self, stop: impl Fn() -> bool) {
        loop {
            let (fan, lost) = {
                let sweep = self.sweep.lock();
                if sweep.is_done() {
                    return;
                }
                (sweep.next, sweep.lost)
            };
            match self.sweep_one(fan) {
                Ok(()) => self.sweep.lock().next = fan + 1,
                Err(e) => {
                    self.disk_error("sweep", &e);
                    return;
                }
            }
            if !lost || stop() {
                return;
            }
        }
    }

    fn sweep_one(&self, fan: u64) -> std::io::Result<()> {
        for entry in std::fs::read_dir(self.fan(fan))? {
            let entry = entry?;
            let name = entry.file_name();
            let block = name.to_str().and_then(Self::parse_name).filter(|b| Self::fan_of(b) == fan);
            if block.is_some_and(|b| self.knows(&b)) {
                continue;
            }
            let Ok(meta) = entry.metadata() else { continue };
            let whole = block.filter(|b| meta.is_file() && meta.len() == file_len(b.len));
            if whole.is_some_and(|b| self.adopt(b)) {
                continue;
            }
            // A directory here is none of ours, so it stays. Files being written are elsewhere until they are whole.
            if meta.is_file() {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}
