//! What programs have done and seen, and what they may see.
//!
//! Each file is looked at byte by byte, each name and mode as a whole. A change is *over* for another one if it was stored before
//! that one began (or had returned, on the same mount). A change *must be seen* by who opened the file after it was stored, and by
//! everybody on its own mount once it has returned. A program may see whatever was begun, unless it is over for something that
//! must be seen.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use ciderfs_format::{Ino, Time};
use parking_lot::Mutex;

/// A moment: milliseconds of the run, and a number that grows with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At(u64, u64);

impl At {
    /// The moment so much earlier.
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by.as_millis() as u64), if by.is_zero() { self.1 } else { 0 })
    }
}

/// What a change does.
#[derive(Debug, Clone)]
pub enum Deed {
    /// Bytes of this value.
    Write {
        off: u64,
        len: u64,
        value: u8,
    },
    Truncate {
        to: u64,
    },
    Punch {
        off: u64,
        len: u64,
    },
    Mode(u16),
    /// A name leads here, or nowhere.
    Name(Option<Ino>),
}

/// A change.
#[derive(Debug, Clone)]
pub struct Change {
    deed: Deed,
    mount: usize,
    begun: At,
    /// When it returned with success.
    returned: Option<At>,
    /// When it was stored, as far as anybody was told.
    stored: Option<At>,
    /// It has failed, or nobody knows.
    failed: bool,
}

impl Change {
    fn is_over_for(&self, other: &Self) -> bool {
        self.stored.is_some_and(|at| at <= other.begun)
            || (self.mount == other.mount
                && self.is_kept()
                && self.returned.is_some_and(|at| at <= other.begun))
    }

    /// It is not lost by a failure of which nobody has been told yet.
    fn is_kept(&self) -> bool {
        self.stored.is_some() || !crate::engine::profile().loses
    }
}

/// Who looks.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub mount: usize,
    pub begun: At,
    pub ended: At,
    /// What was stored before must be seen.
    pub fresh: At,
}

impl View {
    fn must_see(&self, c: &Change) -> bool {
        !c.failed
            && (c.stored.is_some_and(|at| at <= self.fresh)
                || (c.mount == self.mount && c.is_kept() && c.returned.is_some_and(|at| at <= self.begun)))
    }

    fn may_see(&self, c: &Change) -> bool {
        c.begun <= self.ended
    }
}

/// A length that somebody was told.
#[derive(Debug, Clone, Copy)]
struct Length {
    mount: usize,
    size: u64,
    begun: At,
    ended: At,
    /// The kernel goes by it.
    taken: bool,
}

#[derive(Default)]
struct FileHistory {
    changes: Vec<Change>,
    lengths: Vec<Length>,
    /// The latest ctime that each mount was told, and when.
    ctimes: Vec<(usize, At, Time)>,
}

#[derive(Default)]
struct Inner {
    count: u64,
    files: BTreeMap<Ino, FileHistory>,
    names: BTreeMap<Vec<u8>, Vec<Change>>,
    /// Names as somebody has found them: what has made them so may turn out later.
    found: Vec<(Vec<u8>, View, Option<Ino>, &'static str)>,
    complaints: Vec<String>,
    hasher: DefaultHasher,
}

/// All of a run.
pub struct History {
    inner: Mutex<Inner>,
    show: bool,
}

/// A change that has begun: of which file or name, and its number there.
#[derive(Debug, Clone)]
pub struct Begun {
    of: Of,
    number: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Of {
    File(Ino),
    Name(Vec<u8>),
}

impl Inner {
    fn now(&mut self) -> At {
        self.count += 1;
        At(ciderfs_rt::replay::elapsed().unwrap_or_default().as_millis() as u64, self.count)
    }

    fn changes(&mut self, of: &Of) -> &mut Vec<Change> {
        match of {
            Of::File(ino) => &mut self.files.entry(*ino).or_default().changes,
            Of::Name(name) => self.names.entry(name.clone()).or_default(),
        }
    }
}

impl History {
    pub fn new(show: bool) -> Self {
        Self { inner: Mutex::default(), show }
    }

    pub fn now(&self) -> At {
        self.inner.lock().now()
    }

    /// Notes what happened, for whoever looks and for the number of the run.
    pub fn tell(&self, text: impl FnOnce() -> String) {
        let mut inner = self.inner.lock();
        let At(ms, n) = inner.now();
        let text = text();
        (ms, &text).hash(&mut inner.hasher);
        if self.show {
            eprintln!("{ms:>6} {n:>5} {text}");
        }
    }

    fn complain(&self, inner: &mut Inner, text: String) {
        if self.show {
            eprintln!("!!! {text}");
        }
        inner.complaints.push(text);
    }

    pub fn complaints(&self) -> Vec<String> {
        self.inner.lock().complaints.clone()
    }

    pub fn hash(&self) -> u64 {
        self.inner.lock().hasher.finish()
    }

    pub fn accuse(&self, text: String) {
        let mut inner = self.inner.lock();
        self.complain(&mut inner, text);
    }

    // Changes.

    pub fn begin(&self, mount: usize, of: Of, deed: Deed) -> Begun {
        let mut inner = self.inner.lock();
        let begun = inner.now();
        let changes = inner.changes(&of);
        changes.push(Change { deed, mount, begun, returned: None, stored: None, failed: false });
        Begun { number: changes.len() - 1, of }
    }

    /// A change of a file that was made without waiting for anything: it is there.
    pub fn end(&self, begun: &Begun, ok: bool, stored: bool) {
        let mut inner = self.inner.lock();
        let now = inner.now();
        let c = &mut inner.changes(&begun.of)[begun.number];
        if ok {
            c.returned = Some(now);
            c.stored = c.stored.or(stored.then_some(now));
        } else {
            c.failed = true;
        }
    }

    /// It turned out to be of this inode.
    pub fn resolve(&self, begun: &Begun, ino: Ino) {
        let mut inner = self.inner.lock();
        inner.changes(&begun.of)[begun.number].deed = Deed::Name(Some(ino));
    }

    /// What a mount had written of a file when a flush began is stored now.
    ///
    /// Where replies are lost a handle tells of what was written since it was `opened`.
    pub fn stored(&self, mount: usize, ino: Ino, flushed_from: At, opened: At) {
        let mut inner = self.inner.lock();
        let now = inner.now();
        for c in inner.changes(&Of::File(ino)) {
            let told = !crate::engine::profile().loses || c.begun >= opened;
            if c.mount == mount
                && c.stored.is_none()
                && c.returned.is_some_and(|at| at <= flushed_from)
                && !c.failed
                && told
            {
                c.stored = Some(now);
            }
        }
    }

    /// What a mount had written of a file and not stored may be lost.
    pub fn lost(&self, mount: usize, ino: Ino) {
        for c in self.inner.lock().changes(&Of::File(ino)) {
            c.failed |= c.mount == mount && c.stored.is_none();
        }
    }

    // What was seen.

    /// Somebody has read `data`, where `len` bytes were asked for.
    pub fn read(&self, ino: Ino, view: View, off: u64, len: u64, data: &[u8], how: &str) {
        let mut inner = self.inner.lock();
        let Some(file) = inner.files.get(&ino) else { return };
        // While it changes the length itself the kernel goes by no answer: it may not know where the file ends.
        let resizes = file.changes.iter().any(|c| {
            matches!(c.deed, Deed::Write { .. } | Deed::Truncate { .. })
                && (c.mount == view.mount && c.begun <= view.ended)
                && c.returned.is_none_or(|at| at >= view.begun)
        });
        let mut wrong = Vec::new();
        for at in off..off + len {
            let seen = data.get((at - off) as usize).copied();
            if resizes && seen.is_none_or(|v| v == 0) {
                continue;
            }
            if let Err(why) = file.may_be(view, at, seen, how != "mapped") {
                wrong.push(format!("byte {at} of inode {ino} {seen:?} ({how}, mount {}): {why}", view.mount));
                break;
            }
        }
        for text in wrong {
            self.complain(&mut inner, text);
        }
    }

    /// Somebody was told attributes; an open makes the length fresh, and nothing else (`names`).
    pub fn stat(&self, view: View, names: View, s: &crate::kernel::Stat, how: &str) {
        let mut inner = self.inner.lock();
        let Some(file) = inner.files.get_mut(&s.ino) else { return };
        let mut wrong = Vec::new();
        if s.size > 0
            && let Err(why) = file.may_reach(view, s.size - 1)
        {
            wrong.push(format!("length {} is too long: {why}", s.size));
        }
        if let Err(why) = file.may_end(view, s.size) {
            wrong.push(format!("length {} is too short: {why}", s.size));
        }
        let modes = |c: &&Change| matches!(c.deed, Deed::Mode(_));
        let is = |c: &Change| matches!(c.deed, Deed::Mode(m) if m == s.mode);
        let all: Vec<&Change> = file.changes.iter().filter(modes).collect();
        if let Some(why) = not_allowed(&all, names, is, s.mode == 0o644) {
            wrong.push(format!("mode {:o}: {why}", s.mode));
        }
        // A change of others that was under way then may be stored with the time when it was asked for.
        let overtaken = |ctime: &Time| {
            let at = (ctime.sec - 1_700_000_000) as u64 * 1000 + u64::from(ctime.nsec) / 1_000_000;
            let is_later = |end: Option<At>| end.is_none_or(|end| end.0 >= at);
            file.changes.iter().any(|c| c.mount != view.mount && c.begun.0 <= at && is_later(c.stored))
        };
        for (mount, ended, ctime) in &file.ctimes {
            if *mount == view.mount
                && *ended <= view.begun.before(crate::engine::profile().valid * 3)
                && *ctime > s.ctime
                && !overtaken(ctime)
            {
                wrong.push(format!("ctime {:?} after {ctime:?}", s.ctime));
                break;
            }
        }
        file.ctimes.push((view.mount, view.ended, s.ctime));
        file.lengths.push(Length {
            mount: view.mount,
            size: s.size,
            begun: view.begun,
            ended: view.ended,
            taken: s.taken,
        });
        for text in wrong {
            let text = format!("inode {} ({how}, mount {}): {text}", s.ino, view.mount);
            self.complain(&mut inner, text);
        }
    }

    /// Has this mount a change under way, or one that is not stored, of all that began up to now, at this moment or later?
    pub fn is_changing(&self, mount: usize, ino: Ino, since: At) -> bool {
        let mut inner = self.inner.lock();
        let mut all = inner.changes(&Of::File(ino)).iter();
        all.any(|c| c.mount == mount && !c.failed && c.stored.is_none_or(|at| at >= since))
    }

    /// Somebody has found a name, or not.
    pub fn found(&self, name: &[u8], view: View, ino: Option<Ino>, how: &'static str) {
        self.inner.lock().found.push((name.to_vec(), view, ino, how));
    }

    /// Looks at all names that were found.
    pub fn check_names(&self) {
        let mut inner = self.inner.lock();
        for (name, view, ino, how) in std::mem::take(&mut inner.found) {
            let Some(all) = inner.names.get(&name) else { continue };
            let all: Vec<&Change> = all.iter().collect();
            let may_be = |c: &Change| !c.failed || crate::engine::profile().loses;
            let is = |c: &Change| may_be(c) && matches!(c.deed, Deed::Name(to) if to == ino);
            if let Some(why) = not_allowed(&all, view, is, ino.is_none()) {
                let name = String::from_utf8_lossy(&name);
                let text = format!("name {name} leads to {ino:?} ({how}, mount {}): {why}", view.mount);
                self.complain(&mut inner, text);
            }
        }
    }
}

/// Why none of the changes that `is` may be seen; `first`: it was so in the beginning.
fn not_allowed(all: &[&Change], view: View, is: impl Fn(&Change) -> bool, first: bool) -> Option<String> {
    let over = |c: Option<&Change>| {
        all.iter().find(|later| view.must_see(later) && !is(later) && c.is_none_or(|c| c.is_over_for(later)))
    };
    let mut why = None;
    if first {
        match over(None) {
            None => return None,
            Some(later) => why = Some(later),
        }
    }
    for c in all.iter().filter(|c| is(c) && view.may_see(c)) {
        match over(Some(c)) {
            None => return None,
            Some(later) => why = Some(later),
        }
    }
    Some(match why {
        Some(later) => format!("{later:?} must be seen from {:?} on", view.fresh),
        None => "nobody has made it so".to_owned(),
    })
}

impl Change {
    fn covers(&self, at: u64) -> bool {
        matches!(self.deed, Deed::Write { off, len, .. } if (off..off + len).contains(&at))
    }

    /// Has the file a byte there afterwards?
    fn reaches(&self, at: u64) -> bool {
        match self.deed {
            Deed::Write { off, len, .. } => off + len > at,
            Deed::Truncate { to } => to > at,
            _ => false,
        }
    }

    fn cuts(&self, at: u64) -> bool {
        matches!(self.deed, Deed::Truncate { to } if to <= at)
    }

    fn punches(&self, at: u64) -> bool {
        matches!(self.deed, Deed::Punch { off, len } if (off..off + len).contains(&at))
    }
}

impl FileHistory {
    /// May this byte be seen there? `None`: the file has ended, `asks` by what the kernel has asked for.
    fn may_be(&self, view: View, at: u64, seen: Option<u8>, asks: bool) -> Result<(), String> {
        let Some(value) = seen else {
            self.may_end(view, at)?;
            // What somebody was told can be read.
            let holds = |l: &&Length| l.mount == view.mount && l.ended <= view.begun && l.size > at;
            let told = self.lengths.iter().find(|l| holds(l) && l.taken);
            if let Some(told) = told {
                let since = told.begun.before(crate::engine::profile().age());
                let cut = self.changes.iter().any(|c| c.cuts(at) && c.stored.is_none_or(|s| s > since));
                if !cut {
                    return Err(format!("{told:?} was told"));
                }
            }
            return Ok(());
        };
        // A mapping of a file that is shorter by now shows zeros until the kernel has asked for the length: nothing else tells it one
        // that is shorter, and the short answer to a read of a page is thrown away when it overtakes a message.
        if asks || value != 0 {
            self.may_reach(view, at)?;
        }
        if value == 0 {
            return self.may_be_zero(view, at);
        }
        let mut why = "nobody has written it".to_owned();
        for c in self.changes.iter().filter(|c| view.may_see(c) && c.covers(at)) {
            if !matches!(c.deed, Deed::Write { value: v, .. } if v == value) {
                continue;
            }
            let over = self.changes.iter().find(|later| {
                (later.covers(at) || later.cuts(at) || later.punches(at))
                    && view.must_see(later)
                    && c.is_over_for(later)
            });
            match over {
                None => return Ok(()),
                Some(later) => {
                    why = format!("{later:?} must be seen since {:?}, and was made after {c:?}", view.fresh)
                }
            }
        }
        Err(why)
    }

    fn may_be_zero(&self, view: View, at: u64) -> Result<(), String> {
        let written = |c: Option<&Change>| {
            self.changes.iter().find(|later| {
                later.covers(at) && view.must_see(later) && c.is_none_or(|c| c.is_over_for(later))
            })
        };
        let Some(write) = written(None) else { return Ok(()) };
        let cleared = self.changes.iter().filter(|c| view.may_see(c) && (c.cuts(at) || c.punches(at)));
        for c in cleared {
            if written(Some(c)).is_none() {
                return Ok(());
            }
        }
        Err(format!("{write:?} must be seen from {:?} on", view.fresh))
    }

    /// May the file reach beyond this byte?
    fn may_reach(&self, view: View, at: u64) -> Result<(), String> {
        let mut why = "nobody has made it so long".to_owned();
        for c in self.changes.iter().filter(|c| view.may_see(c) && c.reaches(at)) {
            let over =
                self.changes.iter().find(|cut| cut.cuts(at) && view.must_see(cut) && c.is_over_for(cut));
            match over {
                None => return Ok(()),
                Some(cut) => why = format!("{cut:?} must be seen from {:?} on", view.fresh),
            }
        }
        Err(why)
    }

    /// May the file have ended before this byte?
    fn may_end(&self, view: View, at: u64) -> Result<(), String> {
        let longer = |c: Option<&Change>| {
            self.changes.iter().find(|later| {
                later.reaches(at) && view.must_see(later) && c.is_none_or(|c| c.is_over_for(later))
            })
        };
        let Some(why) = longer(None) else { return Ok(()) };
        for c in self.changes.iter().filter(|c| view.may_see(c) && c.cuts(at)) {
            if longer(Some(c)).is_none() {
                return Ok(());
            }
        }
        Err(format!("{why:?} must be seen from {:?} on", view.fresh))
    }
}
