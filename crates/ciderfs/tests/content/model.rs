//! What a file must contain, byte for byte.

use std::collections::BTreeMap;

/// Bytes per page of the model.
pub const PAGE: u64 = 4096;

/// A sparse file in memory. Pages that are absent are zeros.
#[derive(Default, Clone)]
pub struct Content {
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
    len: u64,
}

impl Content {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes `[off, off + len)`, cut at the end of the file.
    pub fn read(&self, off: u64, len: u64) -> Vec<u8> {
        let end = (off + len).min(self.len);
        let mut out = vec![0; end.saturating_sub(off) as usize];
        self.each(off, end, |page, within, n, at| {
            if let Some(p) = self.pages.get(&page) {
                out[at..at + n].copy_from_slice(&p[within..within + n]);
            }
        });
        out
    }

    /// Writes; a gap before it becomes zeros.
    pub fn write(&mut self, off: u64, data: &[u8]) {
        let end = off + data.len() as u64;
        let mut places = Vec::new();
        self.each(off, end, |page, within, n, at| places.push((page, within, n, at)));
        for (page, within, n, at) in places {
            let p = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE as usize]));
            p[within..within + n].copy_from_slice(&data[at..at + n]);
        }
        if !data.is_empty() {
            self.len = self.len.max(end);
        }
    }

    /// Makes `[off, off + len)` zeros, without a change of the length.
    pub fn zero(&mut self, off: u64, len: u64) {
        let mut places = Vec::new();
        self.each(off, off + len, |page, within, n, _| places.push((page, within, n)));
        for (page, within, n) in places {
            if n as u64 == PAGE {
                self.pages.remove(&page);
            } else if let Some(p) = self.pages.get_mut(&page) {
                p[within..within + n].fill(0);
            }
        }
    }

    /// Sets the length.
    pub fn resize(&mut self, len: u64) {
        if len < self.len {
            self.zero(len, (self.len - len).next_multiple_of(PAGE) + PAGE);
        }
        self.len = len;
    }

    /// Takes `[off, off + len)` out. Both are multiples of a page.
    pub fn collapse(&mut self, off: u64, len: u64) {
        let (first, count) = (off / PAGE, len / PAGE);
        self.pages = std::mem::take(&mut self.pages)
            .into_iter()
            .filter(|(n, _)| *n < first || *n >= first + count)
            .map(|(n, p)| (if n < first { n } else { n - count }, p))
            .collect();
        self.len -= len;
    }

    /// Moves what is at `off` and behind it by `len`, and leaves zeros there. Both are multiples of a page.
    pub fn insert(&mut self, off: u64, len: u64) {
        let (first, count) = (off / PAGE, len / PAGE);
        self.pages = std::mem::take(&mut self.pages)
            .into_iter()
            .map(|(n, p)| (if n < first { n } else { n + count }, p))
            .collect();
        self.len += len;
    }

    /// Is there a byte in `[from, to)` that is not 0? The first one.
    pub fn first_non_zero(&self, from: u64, to: u64) -> Option<u64> {
        let to = to.min(self.len);
        for (n, page) in self.pages.range(from / PAGE..) {
            let start = n * PAGE;
            if start >= to {
                break;
            }
            for (i, b) in page.iter().enumerate() {
                let at = start + i as u64;
                if *b != 0 && at >= from && at < to {
                    return Some(at);
                }
            }
        }
        None
    }

    /// The pieces of a range page by page: page, offset in it, bytes, offset in the range.
    fn each(&self, off: u64, end: u64, mut f: impl FnMut(u64, usize, usize, usize)) {
        let mut at = off;
        while at < end {
            let within = at % PAGE;
            let n = (PAGE - within).min(end - at);
            f(at / PAGE, within as usize, n as usize, (at - off) as usize);
            at += n;
        }
    }
}
