//! Locks between processes, mounts and clients. What processes expect of one another is tried on a local file system too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use ciderfs_testkit::official::{self, Official};
use rustix::process::{Pid, Signal, kill_process};
use support::agent::{Agent, helper};
use support::client::{self, succeed, wait_for};
use support::{Engine, Mount, Volume};

/// Lines that each process appends.
const LINES: u32 = 12;
/// Processes of each mount that append.
const WRITERS: u32 = 3;
/// An interrupted wait ends at once; this is for a busy machine.
const PROMPT: Duration = Duration::from_secs(5);
/// A client with a heartbeat of one second is declared dead after five.
const SHORT_LIFE: &[&str] = &["--heartbeat=1", "--attr-cache=0", "--entry-cache=0"];

on_engines!(
    processes_of_one_mount,
    processes_of_two_mounts,
    beside_the_official_client,
    a_killed_client_gives_its_locks_back,
    a_frozen_client_writes_nothing_under_lost_locks,
    appends_under_locks_arrive_whole_and_in_order,
    a_lock_and_its_end_cost_two_turns,
    what_is_shown_and_refused,
);

/// Two processes at two places where they see the same files.
struct Pair {
    a: Agent,
    b: Agent,
    dirs: [String; 2],
    /// Both places are one mount.
    local: bool,
    /// One of them is the official client's.
    mixed: bool,
    /// The first is.
    official_first: bool,
}

impl Pair {
    fn new(a: &Path, b: &Path, mixed: bool) -> Self {
        let dirs = [a, b].map(|d| d.display().to_string());
        Self { a: Agent::start(), b: Agent::start(), local: a == b, dirs, mixed, official_first: false }
    }

    /// Opens a new file as `f` in both processes.
    #[track_caller]
    fn open(&mut self, name: &str) {
        self.a.must(&format!("open f {}/{name} rw", self.dirs[0]));
        self.b.must(&format!("open f {}/{name} rw", self.dirs[1]));
    }

    #[track_caller]
    fn close(&mut self) {
        self.a.must("close f");
        self.b.must("close f");
    }

    /// Everything that holds between any two processes.
    #[track_caller]
    fn rules(&mut self) {
        self.ranges();
        self.forms_of_ranges();
        self.ends();
        self.waits();
        self.flocks();
        self.open_file_descriptions();
        if self.local {
            self.circles();
        }
    }

    #[track_caller]
    fn ranges(&mut self) {
        self.open("ranges");
        let (a, b) = (&mut self.a, &mut self.b);
        a.must("try f w 10 10");
        b.refused("EAGAIN", "try f w 19 1");
        b.refused("EAGAIN", "try f r 0 11");
        b.must("try f w 0 10");
        b.must("try f w 20 5");
        a.refused("EAGAIN", "try f w 0 30");
        let pid = if self.local { a.pid() } else { 0 };
        assert_eq!(b.ask("get f w 5 100"), format!("w 10 10 {pid}"));
        assert_eq!(b.ask("get f w 0 10"), "free");
        assert_eq!(a.ask("get f r 12 3"), "free", "one's own lock");
        // Split by unlocking, by reading; joined again.
        a.must("try f u 14 2");
        b.must("try f w 14 2");
        b.must("try f u 14 2");
        a.must("try f r 12 2");
        b.must("try f r 12 2");
        b.refused("EAGAIN", "try f r 11 1");
        a.refused("EAGAIN", "try f w 12 2");
        b.must("try f u 12 2");
        a.must("try f w 12 2");
        a.must("try f w 14 2");
        b.refused("EAGAIN", "try f r 15 1");
        if !self.mixed {
            // The official client leaves such runs in pieces.
            assert_eq!(b.ask("get f r 15 1"), format!("w 10 10 {pid}"), "one range again");
        }
        // To the end of any file.
        a.must("try f r 100 0");
        b.refused("EAGAIN", "try f w 9223372036854775806 1");
        b.must("try f r 1000000000000 0");
        b.refused("EAGAIN", "try f w 99 2");
        a.must("try f u 0 0");
        b.must("try f w 0 0");
        a.refused("EAGAIN", "try f r 12345 1");
        b.must("try f u 0 0");
        a.must("try f r 12345 1");
        a.refused("EINVAL", "try f r -1 1");
        self.close();
    }

    #[track_caller]
    fn forms_of_ranges(&mut self) {
        self.open("forms");
        let (a, b) = (&mut self.a, &mut self.b);
        assert_eq!(a.ask("write f 0123456789"), "10");
        a.must("fsync f");
        a.must("try f w -2 1 2");
        b.must("try f w 7 1");
        b.refused("EAGAIN", "try f w 8 1");
        b.must("try f w 9 1");
        assert_eq!(a.ask("seek f 100 0"), "100");
        a.must("try f w 5 0 1");
        b.must("try f w 104 1");
        b.refused("EAGAIN", "try f w 105 1");
        // A negative length reaches back.
        a.must("try f w 60 -10");
        b.must("try f w 49 1");
        b.refused("EAGAIN", "try f w 50 1");
        b.refused("EAGAIN", "try f w 59 1");
        b.must("try f w 60 1");
        self.close();
    }

    /// Locks end when any descriptor of the file is closed, are not inherited, and end with the process.
    #[track_caller]
    fn ends(&mut self) {
        self.open("ends");
        let (a, b) = (&mut self.a, &mut self.b);
        a.must("try f w 0 10");
        assert_eq!(a.ask("childtry f w 5 1"), "EAGAIN");
        b.refused("EAGAIN", "try f w 0 1");
        a.must(&format!("open g {}/ends r", self.dirs[0]));
        a.must("close g");
        if self.official_first {
            // The official client looks only at the descriptor with which the lock was taken.
            a.must("try f u 0 0");
        }
        b.must("try f w 0 1");
        b.must("dup f g");
        b.must("close g");
        a.must("try f w 0 10");
        let mut c = Agent::start();
        c.must(&format!("open f {}/ends rw", self.dirs[1]));
        c.must("try f w 20 5");
        c.must("flock f ex");
        b.refused("EAGAIN", "try f r 24 1");
        c.kill();
        wait_for("the locks of a killed process", || b.ask("try f r 24 1").is_empty());
        wait_for("the flock of a killed process", || b.ask("flock f ex nb").is_empty());
        self.close();
    }

    /// A wait ends with the lock, with a signal, with the process.
    #[track_caller]
    fn waits(&mut self) {
        self.open("waits");
        let (a, b) = (&mut self.a, &mut self.b);
        for (lock, wait, unlock) in [
            ("try f w 0 10", "wait f r 9 1", "try f u 0 0"),
            ("flock f ex", "flock f sh", "flock f un"),
            ("flock f sh", "flock f ex", "flock f un"),
        ] {
            a.must(lock);
            b.blocks(wait);
            a.must(unlock);
            assert_eq!(b.answer(), "", "{wait}");
            b.must(unlock);
            // Interrupted.
            a.must(lock);
            b.must("alarm 0.3");
            let start = Instant::now();
            b.refused("EINTR", wait);
            assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
            // And it has not got the lock later.
            a.must(unlock);
            a.must("try f w 0 0");
            a.must("flock f ex nb");
            // Killed.
            let mut c = Agent::start();
            c.must(&format!("open f {}/waits rw", self.dirs[1]));
            c.blocks(wait);
            c.kill();
            a.must(unlock);
            a.must("try f u 0 0");
            a.must("flock f un");
            wait_for("the lock to be free", || b.ask("try f w 0 0").is_empty());
            wait_for("the flock to be free", || b.ask("flock f ex nb").is_empty());
            b.must("flock f un");
            b.must("try f u 0 0");
        }
        self.close();
    }

    #[track_caller]
    fn flocks(&mut self) {
        self.open("flocks");
        let (a, b) = (&mut self.a, &mut self.b);
        a.must("flock f sh nb");
        b.must("flock f sh nb");
        b.refused("EAGAIN", "flock f ex nb");
        if self.mixed {
            b.must("flock f un");
            b.must("flock f sh nb");
        } else {
            // The conversion that failed has given up the lock.
            a.must("flock f ex nb");
            b.refused("EAGAIN", "flock f sh nb");
            a.must("flock f sh nb");
            b.must("flock f sh nb");
            // Two conversions cannot block each other.
            a.blocks("flock f ex");
            b.must("flock f ex");
            b.must("flock f un");
            assert_eq!(a.answer(), "");
            a.must("flock f sh nb");
            b.must("flock f sh nb");
        }
        // Record locks do not care.
        a.must("try f w 0 0");
        // A second open is another owner; a duplicate and a child share one.
        a.must("flock f un");
        b.must("flock f ex nb");
        b.must(&format!("open g {}/flocks rw", self.dirs[1]));
        b.refused("EAGAIN", "flock g sh nb");
        b.must("dup f h");
        let child = b.ask("childholds");
        b.must("close f");
        b.must("flock h ex nb");
        b.must("close h");
        a.refused("EAGAIN", "flock f sh nb");
        b.must(&format!("kill {child}"));
        wait_for("the last close", || a.ask("flock f sh nb").is_empty());
        b.must("close g");
        b.must(&format!("open f {}/flocks rw", self.dirs[1]));
        if self.local && !self.mixed {
            // The kernel tells of the last close only afterwards; nobody must notice.
            for _ in 0..20 {
                a.must("flock f ex nb");
                a.must("close f");
                b.must("flock f ex nb");
                b.must("flock f un");
                a.must(&format!("open f {}/flocks rw", self.dirs[0]));
            }
        }
        self.close();
    }

    /// Locks of open file descriptions belong to the open file, not to the process.
    #[track_caller]
    fn open_file_descriptions(&mut self) {
        self.open("ofd");
        let (a, b) = (&mut self.a, &mut self.b);
        a.must("ofdtry f w 0 10");
        a.must(&format!("open g {}/ofd rw", self.dirs[0]));
        a.refused("EAGAIN", "ofdtry g w 9 1");
        a.refused("EAGAIN", "try g w 9 1");
        b.refused("EAGAIN", "ofdtry f r 0 1");
        b.refused("EAGAIN", "try f r 0 1");
        a.must("ofdtry g w 10 10");
        // Closing another descriptor changes nothing, nor does a duplicate.
        a.must("dup f h");
        a.must("close h");
        b.refused("EAGAIN", "try f r 0 1");
        b.blocks("ofdwait f w 0 5");
        a.must("close f");
        assert_eq!(b.answer(), "");
        b.refused("EAGAIN", "try f w 10 1");
        b.refused("EAGAIN", "ofdtry f w 10 1");
        a.must("close g");
        wait_for("the last close", || b.ask("ofdtry f w 10 1").is_empty());
        b.must("ofdtry f u 0 0");
        a.must(&format!("open f {}/ofd rw", self.dirs[0]));
        self.close();
    }

    /// Processes that would wait for each other for ever.
    #[track_caller]
    fn circles(&mut self) {
        self.open("circles");
        let mut c = Agent::start();
        c.must(&format!("open f {}/other rw", self.dirs[0]));
        self.a.must(&format!("open g {}/other rw", self.dirs[0]));
        self.b.must(&format!("open g {}/other rw", self.dirs[1]));
        let (a, b) = (&mut self.a, &mut self.b);
        a.must("try f w 1 1");
        b.must("try f w 2 1");
        c.must("try f w 3 1");
        c.must(&format!("open g {}/circles rw", self.dirs[0]));
        a.blocks("wait f w 2 1");
        b.blocks("wait g w 3 1");
        c.refused("EDEADLK", "wait g w 1 1");
        c.refused("EAGAIN", "try g w 1 1");
        c.must("try f u 0 0");
        assert_eq!(b.answer(), "");
        b.must("try f u 0 0");
        assert_eq!(a.answer(), "");
        a.must("try f u 0 0");
        b.must("try g u 0 0");
        // Two readers that both want to write.
        a.must("try f r 0 10");
        b.must("try f r 0 10");
        a.blocks("wait f w 0 10");
        b.refused("EDEADLK", "wait f w 0 10");
        b.must("try f u 0 0");
        assert_eq!(a.answer(), "");
        self.a.must("close g");
        self.b.must("close g");
        self.close();
    }
}

fn processes_of_one_mount(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let local = volume.dir.path().join("local");
    fs::create_dir(&local).unwrap();
    Pair::new(&local, &local, false).rules();
    let mount = volume.mount(&[]);
    Pair::new(mount.path(), mount.path(), false).rules();
    mount.unmount();
    volume.check();
}

fn processes_of_two_mounts(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let (one, two) = (volume.mount(&[]), volume.mount(&[]));
    Pair::new(one.path(), two.path(), false).rules();
    let mut far = Pair::new(one.path(), two.path(), false);
    what_was_written_is_seen(&mut far);
    far.circles();
    drop(far);
    one.unmount();
    two.unmount();
    volume.check();
}

/// A lock shows what others wrote under theirs, at once, also through files that were open and cached before.
fn what_was_written_is_seen(pair: &mut Pair) {
    pair.open("seen");
    let (a, b) = (&mut pair.a, &mut pair.b);
    let mut content = String::new();
    for round in 0..6 {
        for turn in 0..2 {
            let (writer, reader) = if turn == 0 { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
            let (lock, unlock) =
                if round % 2 == 0 { ("wait f w 0 0", "try f u 0 0") } else { ("flock f ex", "flock f un") };
            writer.must(lock);
            assert_eq!(writer.ask("seek f 0 2"), content.len().to_string());
            let word = format!("{}-{round};", content.len());
            assert_eq!(writer.ask(&format!("write f {word}")), word.len().to_string());
            content.push_str(&word);
            writer.must(unlock);
            reader.must(lock);
            assert_eq!(reader.ask("size f"), content.len().to_string());
            assert_eq!(reader.ask("read f"), content);
            reader.must(unlock);
        }
    }
    pair.close();
}

fn official() -> Official {
    Official::locate().unwrap_or_else(|e| panic!("{e:#}"))
}

#[track_caller]
fn mount_official(official: &Official, volume: &Volume, flags: &[&str]) -> official::Mount {
    official.mount(&volume.meta, &volume.new_path(), flags).unwrap_or_else(|e| panic!("{e:#}"))
}

fn beside_the_official_client(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let ours = volume.mount(&[]);
    let theirs = mount_official(&official(), &volume, &["--entry-cache=0", "--attr-cache=0"]);
    Pair::new(ours.path(), theirs.path(), true).rules();
    let mut turned = Pair::new(theirs.path(), ours.path(), true);
    turned.official_first = true;
    turned.rules();
    std::thread::sleep(Duration::from_millis(1500));
    theirs.unmount().unwrap_or_else(|e| panic!("{e:#}"));
    ours.unmount();
    volume.check_official();
}

fn a_killed_client_gives_its_locks_back(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let (lost, other) = (volume.mount(SHORT_LIFE), volume.mount(SHORT_LIFE));
    let mut a = Agent::start();
    let mut b = Agent::start();
    a.must(&format!("open f {}/f rw", lost.path().display()));
    b.must(&format!("open f {}/f rw", other.path().display()));
    b.must(&format!("open g {}/f rw", other.path().display()));
    a.must("try f w 0 10");
    a.must("flock f sh");
    lost.kill();
    b.refused("EAGAIN", "try f w 0 10");
    b.must("flock f sh nb");
    b.must("flock f un");
    b.blocks("wait f w 5 1");
    assert_eq!(b.answer(), "");
    wait_for("the flock", || b.ask("flock g ex nb").is_empty());
    drop((a, b));
    other.unmount();
    volume.check();
}

#[track_caller]
fn signal(mount: &Mount, signal: Signal) {
    kill_process(Pid::from_raw(mount.pid() as i32).unwrap(), signal).unwrap();
}

/// The client is stopped for longer than its session lives, another one takes the lock and writes; then it goes on.
fn a_frozen_client_writes_nothing_under_lost_locks(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let (frozen, other) = (volume.mount(SHORT_LIFE), volume.mount(SHORT_LIFE));
    let mut a = Agent::start();
    let mut flocked = Agent::start();
    let mut b = Agent::start();
    let at = |m: &Mount, name: &str| m.path().join(name).display().to_string();
    a.must(&format!("open f {} rw", at(&frozen, "f")));
    a.must(&format!("open free {} rw", at(&frozen, "free")));
    flocked.must(&format!("open f {} rw", at(&frozen, "g")));
    b.must(&format!("open f {} rw", at(&other, "f")));
    b.must(&format!("open g {} rw", at(&other, "g")));
    a.must("wait f w 0 0");
    flocked.must("flock f ex");
    assert_eq!(a.ask("write f stored-before"), "13");
    a.must("fsync f");
    // Not stored when the client stops.
    assert_eq!(a.ask("write f lost"), "4");
    assert_eq!(a.ask("write free kept"), "4");
    signal(&frozen, Signal::STOP);
    b.begin("wait f w 0 0");
    assert_eq!(b.answer(), "");
    b.must("flock g ex");
    // On a slow machine the last words were stored in time.
    let before = b.ask("read f");
    let stored = before.strip_prefix("stored-before").unwrap().to_owned();
    assert_eq!(b.ask("write f b-wrote-this."), "13");
    assert_eq!(b.ask("write g theirs"), "6");
    b.must("try f u 0 0");
    b.must("flock g un");
    signal(&frozen, Signal::CONT);
    a.refused("EIO", "write f late");
    flocked.refused("EIO", "write f late");
    if stored.is_empty() {
        a.refused("EIO", "fsync f");
    }
    a.refused("EIO", "try f r 0 1");
    a.must("fsync free");
    wait_for("the log to tell", || frozen.log().contains("revoked"));
    // A new start is a new start.
    a.ask("close f");
    flocked.ask("close f");
    a.must(&format!("open f {} rw", at(&frozen, "f")));
    a.must("wait f w 0 0");
    assert_eq!(a.ask("read f"), format!("b-wrote-this.{stored}"));
    assert_eq!(a.ask("seek f 0 2"), (13 + stored.len()).to_string());
    assert_eq!(a.ask("write f again"), "5");
    a.must("close f");
    b.must("wait f r 0 0");
    assert_eq!(b.ask("read f"), format!("b-wrote-this.{stored}again"));
    assert_eq!(b.ask("read g"), "theirs");
    assert_eq!(fs::read_to_string(at(&other, "free")).unwrap(), "kept");
    drop((a, b, flocked));
    frozen.unmount_after_errors();
    other.unmount();
    volume.check();
}

/// Starts processes that append to one file, by turns in either place.
fn append(places: &[&Path], name: &str, how: &str, lock: &str, fresh: bool) {
    let start = |me: u32| -> Child {
        let path = places[me as usize % places.len()].join(name);
        let fresh = if fresh { "fresh" } else { "open" };
        let mut c: Command = helper();
        c.arg("append").arg(path).args([how, lock, &me.to_string(), &LINES.to_string(), fresh]);
        c.spawn().unwrap()
    };
    let children: Vec<Child> = (0..WRITERS * places.len() as u32).map(start).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success(), "{name}");
    }
    for place in places {
        let path = place.join(name);
        let expected = (WRITERS * LINES) as usize * places.len();
        wait_for("all lines", || fs::read_to_string(&path).unwrap().lines().count() >= expected);
        let text = fs::read_to_string(&path).unwrap();
        let mut next: HashMap<u32, u32> = HashMap::new();
        for (n, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(words.len(), 4, "{name}: {line:?}");
            let number =
                |i: usize| words[i].parse::<u32>().unwrap_or_else(|e| panic!("{name}: {line:?}: {e}"));
            assert_eq!(number(0), n as u32 + 1, "{name}: lines in order\n{text}");
            let own = next.entry(number(1)).or_default();
            assert_eq!((number(2), words[3].len() as u32), (*own, 7 * *own % 60), "{name}: {line:?}");
            *own += 1;
        }
        assert_eq!(text.lines().count(), expected, "{name}");
    }
}

fn appends_under_locks_arrive_whole_and_in_order(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let (one, two) = (volume.mount(&[]), volume.mount(&[]));
    let places = [one.path(), two.path()];
    append(&places, "seek-fcntl", "seek", "fcntl", false);
    append(&places, "append-flock", "append", "flock", false);
    append(&places, "append-fcntl", "append", "fcntl", true);
    append(&places, "seek-flock", "seek", "flock", true);
    if engine == Engine::Redis {
        let theirs = mount_official(&official(), &volume, &["--attr-cache=0", "--entry-cache=0"]);
        append(&[one.path(), theirs.path()], "mixed-fcntl", "seek", "fcntl", true);
        append(&[one.path(), theirs.path()], "mixed-flock", "seek", "flock", true);
        std::thread::sleep(Duration::from_millis(1500));
        theirs.unmount().unwrap_or_else(|e| panic!("{e:#}"));
    }
    one.unmount();
    two.unmount();
    volume.check_official();
}

/// Turns to the engine that a mount has made.
fn turns(mount: &Mount) -> u64 {
    let stats = fs::read_to_string(mount.join(".stats")).unwrap();
    let line = stats.lines().find(|l| l.contains("meta_turns")).unwrap_or_else(|| panic!("{stats}"));
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

fn a_lock_and_its_end_cost_two_turns(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let mount = volume.mount(&["--heartbeat=60"]);
    let mut a = Agent::start();
    a.must(&format!("open f {}/f rw", mount.path().display()));
    for (lock, unlock) in [("try f w 0 0", "try f u 0 0"), ("flock f ex", "flock f un")] {
        a.must(lock);
        a.must(unlock);
        let before = turns(&mount);
        for _ in 0..50 {
            a.must(lock);
            a.must(unlock);
        }
        let made = turns(&mount) - before;
        // Looking at the virtual file costs a few.
        assert!((100..=105).contains(&made), "{lock}: {made} turns");
    }
    drop(a);
    mount.unmount();
}

fn what_is_shown_and_refused(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let mount = volume.mount(&[]);
    let mut a = Agent::start();
    a.must(&format!("open f {}/f rw", mount.path().display()));
    a.must("try f w 3 4");
    a.must("flock f sh");
    let path = mount.join("f").display().to_string();
    let said = succeed(&["info", "--json", &path]).stdout;
    assert!(
        said.contains(&format!("\"Pid\": {}", a.pid())) || said.contains(&format!("\"Pid\":{}", a.pid())),
        "{said}"
    );
    let said = succeed(&["info", &path]).stdout;
    assert!(said.contains("plocks") && said.contains("flocks"), "{said}");
    // Both clients tell the same of the session.
    let ours: serde_json::Value =
        serde_json::from_str(&succeed(&["status", "-s", "1", &volume.meta]).stdout).unwrap();
    let theirs = official().run(["status", "-s", "1", &volume.meta]).unwrap_or_else(|e| panic!("{e:#}"));
    let theirs: serde_json::Value = serde_json::from_str(&theirs.stdout).unwrap();
    for list in ["Flocks", "Plocks", "Sustained"] {
        assert_eq!(ours[list], theirs[list], "{list}");
    }
    assert_eq!(ours["Plocks"][0]["Records"][0]["Pid"], a.pid());
    // The official client finds them in the same records.
    let theirs = client::run_within(Command::new(official().exe()).args(["info", &path]), client::PATIENCE);
    assert!(
        theirs.stdout.contains("plocks") && theirs.stdout.contains("flocks"),
        "{}{}",
        theirs.stdout,
        theirs.stderr
    );
    // Virtual files have no locks; a mount that changes nothing takes none.
    a.must(&format!("open v {}/.stats r", mount.path().display()));
    a.refused("EPERM", "flock v sh nb");
    a.refused("EPERM", "try v r 0 0");
    let reader = volume.mount(&["--read-only"]);
    a.must(&format!("open r {}/f r", reader.path().display()));
    a.refused("EROFS", "try r r 0 1");
    a.refused("EROFS", "flock r sh nb");
    assert_eq!(a.ask("get r r 0 1"), "free");
    assert_eq!(a.ask("get r r 0 10"), "w 3 4 0");
    drop(a);
    reader.unmount();
    mount.unmount();
    volume.check_official();
}
