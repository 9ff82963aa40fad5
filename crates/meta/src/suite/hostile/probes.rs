//! What is done to a damaged record and near it.

use std::fmt::Debug;
use std::io::Write as _;
use std::time::Duration;

use ciderfs_format::acl::XATTR_ACCESS;
use ciderfs_format::{FileType, Ino, SessionId, Slice};

use super::{Spot, Want};
use crate::Result;
use crate::error::Errno;
use crate::store::{DirCursor, QuotaKey};
use crate::suite::world::*;
use crate::types::{Allocate, NewSlice, OpenFlags, SetAttr};

/// The longest that anything may take.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// The most memory that anything may take, in KiB. Other cases run in the same process.
const MEMORY_LIMIT: u64 = 512 << 10;

/// Letters of a wrong result that are told.
const SHOWN_MAX: usize = 300;

/// What became of the probes of a case.
pub(super) struct Report {
    case: String,
    /// What is not as it should be.
    pub(super) wrong: Vec<String>,
    rows: Vec<(&'static str, Result<String, Errno>)>,
}

/// A figure of this process in KiB.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

impl Report {
    pub(super) fn new(case: &str) -> Self {
        Self { case: case.to_owned(), wrong: Vec::new(), rows: Vec::new() }
    }

    /// Runs something within the limits, in a task of its own.
    pub(super) async fn probe<T: Debug + Send + 'static>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Option<T> {
        let before = memory("VmRSS");
        // The peak starts anew.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let answer = tokio::time::timeout(TIME_LIMIT, tokio::spawn(work)).await;
        let Ok(ended) = answer else {
            // A task that spins cannot be ended, and the runtime would wait for it.
            let text = format!("\n{}: {name}: no answer within {TIME_LIMIT:?}\n", self.case);
            let _ = std::io::stderr().write_all(text.as_bytes());
            std::process::abort();
        };
        let result = match ended {
            Ok(result) => result,
            Err(e) => {
                self.wrong.push(format!("{}: {name}: {e}", self.case));
                return None;
            }
        };
        let took = memory("VmHWM").saturating_sub(before);
        if took > MEMORY_LIMIT {
            self.wrong.push(format!("{}: {name} took {took} KiB", self.case));
        }
        match result {
            Ok(v) => {
                self.rows.push((name, Ok(format!("{v:?}"))));
                Some(v)
            }
            Err(e) => {
                assert_ne!(e.to_string(), "", "{}: {name}", self.case);
                self.rows.push((name, Err(e.errno())));
                None
            }
        }
    }

    pub(super) fn check(&mut self, wants: &[(&'static str, Want)]) {
        for (name, want) in wants {
            // One that panicked has told it already.
            let Some((_, got)) = self.rows.iter().find(|(n, _)| n == name) else { continue };
            let right = match want {
                Want::Shows(text) => got.as_ref().is_ok_and(|v| v.contains(text)),
                Want::Hides(text) => got.as_ref().is_ok_and(|v| !v.contains(text)),
                Want::Fails(errno) => got.as_ref().is_err_and(|e| e == errno),
            };
            if !right {
                let got: String = format!("{got:?}").chars().take(SHOWN_MAX).collect();
                self.wrong.push(format!("{}: {name}: {want:?}, not {got}", self.case));
            }
        }
    }

    /// The rest of the volume goes on.
    pub(super) async fn sound(&mut self, c: &Client, s: &Spot, changes: bool) {
        let look = async {
            let file = c.find(s.top, "file").await?;
            let found = c.meta.read_chunk(file, 0).await?;
            Ok::<_, crate::Error>((file, found.records, names(c, s.top, true).await?))
        };
        match look.await {
            Ok((file, 2, names)) if file == s.file && names == "<dir><file><guarded><hard><link><other>" => {}
            other => self.wrong.push(format!("{}: looking elsewhere: {other:?}", self.case)),
        }
        if changes && let Err(e) = write_near(c, s.top).await {
            self.wrong.push(format!("{}: writing elsewhere: {e}", self.case));
        }
    }
}

/// Names of a directory, in one string.
async fn names(c: &Client, dir: Ino, attrs: bool) -> Result<String> {
    let (mut out, mut cursor) = (Vec::new(), DirCursor::Start);
    while cursor != DirCursor::End {
        let page = c.meta.list_dir(&root(), dir, &cursor, 1000, attrs).await?;
        out.extend(page.entries.iter().map(|e| format!("<{}>", e.name.escape_ascii())));
        cursor = page.next;
    }
    out.sort_unstable();
    Ok(out.concat())
}

macro_rules! probes {
    ($report:ident, $c:ident, $($name:literal => $work:expr;)*) => {
        $({
            let $c = $c.clone();
            $report.probe($name, async move { $work.await }).await;
        })*
    };
}

/// All that only looks.
pub(super) async fn look(report: &mut Report, c: &Client, s: &Spot, bad: Option<&[u8]>) {
    let Spot { top, dir, file, link, hard, guarded, .. } = *s;
    let bad = bad.unwrap_or(b"file").to_vec();
    let how = OpenFlags { read: true, write: true, ..OpenFlags::default() };
    let somebody = user(7, 7);
    probes! { report, c,
        "stat" => c.meta.getattr(file);
        "stat dir" => c.meta.getattr(dir);
        "stat link" => c.meta.getattr(link);
        "stat hard" => c.meta.getattr(hard);
        "lookup" => c.meta.lookup(&root(), top, b"file");
        "lookup dir" => c.meta.lookup(&root(), top, b"dir");
        "lookup bad" => c.meta.lookup(&root(), top, &bad);
        "list" => names(&c, top, true);
        "names" => names(&c, top, false);
        "list dir" => names(&c, dir, true);
        "parent" => c.meta.parent_of(dir);
        "read" => c.meta.read_chunks_and_attr(file, 0..4);
        "read hard" => c.meta.read_chunks(&[(hard, 0), (hard, 1)]);
        "chunks" => c.meta.chunk_indexes(file);
        "statfs" => c.meta.statfs();
        "statfs dir" => c.meta.statfs_at(dir);
        "access" => c.meta.access(&somebody, guarded, 4);
        "readlink" => c.meta.readlink(link);
        "xattrs" => c.meta.list_xattrs(&root(), file);
        "xattr" => c.meta.get_xattr(&root(), file, b"user.x");
        "acl" => c.meta.get_xattr(&root(), guarded, XATTR_ACCESS.as_bytes());
        "usage" => c.meta.tree_usage(&root(), top, true, &|_| ());
        "paths" => c.meta.paths(&root(), file);
        "paths dir" => c.meta.paths(&root(), dir);
        "paths hard" => c.meta.paths(&root(), hard);
        "locks" => c.meta.locks(file);
        "sessions" => c.meta.sessions();
        "quota" => c.meta.quota(QuotaKey::Dir(dir));
        "quotas" => c.meta.quotas();
        "settings" => crate::Meta::read_settings(c.meta.store.as_ref());
        "holdings" => c.meta.holdings(SessionId(77));
        "open" => async {
            c.meta.open(&root(), file, how).await?;
            c.meta.close(file).await
        };
    }
}

async fn fresh(c: &Client) -> Result<Slice> {
    Ok(Slice { pos: 0, id: c.meta.new_slice_id().await?, size: 100, off: 0, len: 100 })
}

async fn write_near(c: &Client, top: Ino) -> Result<()> {
    let near = c.make(top, "near", FileType::File).await?;
    c.append(near, 0, vec![fresh(c).await?]).await?;
    c.truncate(near, 10).await?;
    c.rename((top, "near"), (top, "nearer")).await?;
    c.unlink(top, "nearer").await.map(drop)
}

async fn append(c: &Client, file: Ino) -> Result<()> {
    let slice = NewSlice::at_end(fresh(c).await?);
    c.meta.write(file, &[slice], c.meta.clock.now()).await.map(drop)
}

async fn copy(c: &Client, from: (Ino, u64), top: Ino) -> Result<u64> {
    let to = c.make(top, "copy", FileType::File).await?;
    let mut done = 0;
    for _ in 0..4 {
        let copied = c.meta.copy_range(&root(), (from.0, from.1 + done), (to, done), 1 << 57).await?;
        done += copied.bytes;
        if copied.bytes == 0 {
            break;
        }
    }
    Ok(done)
}

async fn one_session(c: &Client) -> Result<()> {
    c.meta.start_session().await?;
    let started = c.meta.clean_stale_sessions().await;
    c.meta.close_session().await?;
    started
}

/// All that changes something, the damaged things last.
pub(super) async fn change(report: &mut Report, c: &Client, s: &Spot, bad: Option<&[u8]>) {
    let Spot { top, dir, file, link, hard, .. } = *s;
    let bad = bad.unwrap_or(b"link").to_vec();
    let lock = crate::Lock::Flock(Some(true));
    let somebody = root();
    let by = crate::LockCaller { owner: 9, pid: 9 };
    probes! { report, c,
        "near" => write_near(&c, top);
        "near in dir" => write_near(&c, dir);
        "chmod" => c.meta.setattr(&somebody, file, &SetAttr { mode: Some(0o4755), ..SetAttr::default() });
        "append" => append(&c, file);
        "grow" => c.meta.fallocate(&root(), file, Allocate::Grow, 0, 1 << 20);
        "punch" => c.meta.fallocate(&root(), file, Allocate::Punch, 0, 1 << 56);
        "reserve" => c.meta.fallocate(&root(), file, Allocate::Reserve, 0, 1 << 20);
        "copy" => copy(&c, (file, 0), top);
        "copy far" => async {
            c.unlink(top, "copy").await?;
            copy(&c, (file, 1 << 50), top).await
        };
        "truncate up" => c.truncate(file, 1 << 40);
        "truncate" => c.truncate(file, 5);
        "rename" => c.rename((top, "file"), (top, "renamed"));
        "link" => c.link(file, dir, "linked");
        "rename dir" => c.rename((top, "dir"), (top, "dir2"));
        "rename back" => c.rename((top, "dir2"), (top, "dir"));
        "unlink other" => c.unlink(top, "other");
        "unlink hard" => c.unlink(top, "hard");
        "append hard" => append(&c, hard);
        "unlink inner" => c.unlink(dir, "inner");
        "unlink" => c.unlink(top, "renamed");
        "unlink link" => c.unlink(top, "link");
        "rmdir" => c.rmdir(top, "dir");
        "unlink bad" => c.meta.unlink(&root(), top, &bad);
        "link count" => c.meta.getattr(link);
        "lock" => c.meta.lock(file, by, lock, false, std::future::pending());
        "jobs" => c.meta.run_hourly_jobs();
        "drain" => async { c.meta.drain_deletions().await; Ok(()) };
        "session" => one_session(&c);
        "sessions afterwards" => c.meta.sessions();
        "quotas afterwards" => c.meta.quotas();
        "reload" => c.meta.reload_settings();
        "statfs afterwards" => c.meta.statfs();
        "list afterwards" => names(&c, top, true);
    }
}
