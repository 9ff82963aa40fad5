//! Two clients on the same names at the same time: one of them wins, and the tree stays a tree.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use ciderfs_testkit::official::Official;
use rustix::fs::{CWD, RenameFlags};
use support::client::wait_for;
use support::random::{Rng, Seed};
use support::tree::walk_usage;
use support::{Engine, Tree, Volume, assert_same};

/// Rounds of each contest.
const ROUNDS: usize = 25;
/// Contenders on each mount.
const EACH: usize = 2;
/// How long directories are moved about.
const MOVES: Duration = Duration::from_secs(6);
/// Directories that are moved into one another.
const DIRS: usize = 6;

/// What everybody tries at once. The contender's number is for names of its own.
type Try = fn(&Path, usize, usize) -> io::Result<()>;

/// A contest: what is there before a round, what all try, and the errors of those who lose.
struct Contest {
    name: &'static str,
    prepare: fn(&Path, usize),
    attempt: Try,
    lost: &'static [i32],
}

const CONTESTS: &[Contest] = &[
    Contest {
        name: "exclusive create",
        prepare: |_, _| {},
        attempt: |root, round, _| {
            OpenOptions::new().write(true).create_new(true).open(root.join(format!("x{round}"))).map(drop)
        },
        lost: &[libc::EEXIST],
    },
    Contest {
        name: "mkdir",
        prepare: |_, _| {},
        attempt: |root, round, _| fs::create_dir(root.join(format!("d{round}"))),
        lost: &[libc::EEXIST],
    },
    Contest {
        name: "symlink",
        prepare: |_, _| {},
        attempt: |root, round, me| symlink(format!("{me}"), root.join(format!("s{round}"))),
        lost: &[libc::EEXIST],
    },
    Contest {
        name: "link",
        prepare: |_, _| {},
        attempt: |root, round, _| fs::hard_link(root.join("source"), root.join(format!("l{round}"))),
        lost: &[libc::EEXIST],
    },
    Contest {
        name: "rename without replacing",
        prepare: |root, round| {
            for me in 0..2 * EACH {
                fs::write(root.join(format!("own{round}.{me}")), [me as u8]).unwrap();
            }
        },
        attempt: |root, round, me| {
            let (old, new) = (root.join(format!("own{round}.{me}")), root.join(format!("r{round}")));
            Ok(rustix::fs::renameat_with(CWD, old, CWD, new, RenameFlags::NOREPLACE)?)
        },
        lost: &[libc::EEXIST],
    },
    Contest {
        name: "rename of one source",
        prepare: |root, round| fs::write(root.join(format!("moved{round}")), b"x").unwrap(),
        attempt: |root, round, me| {
            fs::rename(root.join(format!("moved{round}")), root.join(format!("m{round}.{me}")))
        },
        lost: &[libc::ENOENT],
    },
    Contest {
        name: "unlink",
        prepare: |root, round| fs::write(root.join(format!("u{round}")), b"x").unwrap(),
        attempt: |root, round, _| fs::remove_file(root.join(format!("u{round}"))),
        lost: &[libc::ENOENT],
    },
    Contest {
        name: "rmdir",
        prepare: |root, round| fs::create_dir(root.join(format!("e{round}"))).unwrap(),
        attempt: |root, round, _| fs::remove_dir(root.join(format!("e{round}"))),
        lost: &[libc::ENOENT],
    },
    Contest {
        name: "directories into each other",
        prepare: |root, round| {
            fs::create_dir(root.join(format!("p{round}"))).unwrap();
            fs::create_dir(root.join(format!("q{round}"))).unwrap();
        },
        attempt: |root, round, me| {
            let (p, q) = (format!("p{round}"), format!("q{round}"));
            // Each mount has its direction: one that still knows a name that the other has moved to the same place would
            // find that there is nothing to do.
            if me / EACH == 0 {
                fs::rename(root.join(&p), root.join(&q).join(&p))
            } else {
                fs::rename(root.join(&q), root.join(&p).join(&q))
            }
        },
        // The loser's target has moved below its source, or its source away. The official client says EPERM.
        lost: &[libc::EINVAL, libc::ENOENT, libc::EPERM],
    },
];

/// Holds all contests, of which each round has exactly one winner.
fn contend(first: &Path, second: &Path, contests: &[Contest]) {
    fs::write(first.join("source"), b"source").unwrap();
    let all = 2 * EACH;
    for contest in contests {
        let start = Barrier::new(all);
        let results: Vec<Vec<io::Result<()>>> = std::thread::scope(|scope| {
            let contenders: Vec<_> = (0..all)
                .map(|me| {
                    let root = if me / EACH == 0 { first } else { second };
                    let start = &start;
                    scope.spawn(move || {
                        let mut results = Vec::new();
                        for round in 0..ROUNDS {
                            if me == 0 {
                                (contest.prepare)(root, round);
                            }
                            start.wait();
                            results.push((contest.attempt)(root, round, me));
                            start.wait();
                        }
                        results
                    })
                })
                .collect();
            contenders.into_iter().map(|c| c.join().unwrap()).collect()
        });
        for round in 0..ROUNDS {
            let of_round: Vec<&io::Result<()>> = results.iter().map(|r| &r[round]).collect();
            let winners = of_round.iter().filter(|r| r.is_ok()).count();
            assert_eq!(winners, 1, "{}, round {round}: {of_round:?}", contest.name);
            for e in of_round.iter().filter_map(|r| r.as_ref().err()) {
                let known = e.raw_os_error().is_some_and(|n| contest.lost.contains(&n));
                assert!(known, "{}, round {round}: {of_round:?}", contest.name);
            }
        }
    }
    for root in [first, second] {
        let count = |prefix: &str| {
            let digit = |n: &str| n.starts_with(|c: char| c.is_ascii_digit());
            let names = fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            names.filter(|n| n.strip_prefix(prefix).is_some_and(digit)).count()
        };
        for (prefix, want) in
            [("x", ROUNDS), ("d", ROUNDS), ("s", ROUNDS), ("l", ROUNDS), ("r", ROUNDS), ("m", ROUNDS)]
        {
            assert_eq!(count(prefix), want, "names {prefix}* at {}", root.display());
        }
        assert_eq!((count("u"), count("e"), count("own")), (0, 0, ROUNDS * (all - 1)));
        // One of each two directories is left, with the other one in it.
        let moved = contests.len() == CONTESTS.len();
        assert_eq!(count("p") + count("q"), if moved { ROUNDS } else { 0 });
        wait_for("the link count", || {
            fs::metadata(root.join("source")).unwrap().nlink() == 1 + ROUNDS as u64
        });
    }
}

/// Moves directories into one another, from both mounts; all of them stay reachable, each at one place.
fn shuffle(seed: u64, first: &Path, second: &Path) {
    let base = "shuffled";
    fs::create_dir(first.join(base)).unwrap();
    for n in 0..DIRS {
        fs::create_dir(first.join(base).join(n.to_string())).unwrap();
        fs::write(first.join(base).join(n.to_string()).join("content"), n.to_string()).unwrap();
    }
    let until = Instant::now() + MOVES;
    let moved: Vec<usize> = std::thread::scope(|scope| {
        let movers: Vec<_> = (0..2 * EACH)
            .map(|me| {
                let root = if me / EACH == 0 { first } else { second }.join(base);
                scope.spawn(move || {
                    let mut rng = Rng::new(seed ^ (me as u64) << 50);
                    let mut moved = 0;
                    while Instant::now() < until {
                        let mut found = Vec::new();
                        list(&root, &mut found);
                        let (Some(from), Some(to)) = (choose(&mut rng, &found), choose(&mut rng, &found))
                        else {
                            continue;
                        };
                        let to = if rng.percent(20) { root.clone() } else { to };
                        match fs::rename(&from, to.join(from.file_name().unwrap())) {
                            Ok(()) => moved += 1,
                            // Somebody else was faster, or the target is below the source, or holds the source already.
                            // EPERM is the official client's word for it; the kernel says ELOOP while it remembers one
                            // directory below the other.
                            Err(e)
                                if matches!(
                                    e.raw_os_error(),
                                    Some(
                                        libc::ENOENT
                                            | libc::EINVAL
                                            | libc::ENOTEMPTY
                                            | libc::ESTALE
                                            | libc::EBUSY
                                    )
                                ) => {}
                            Err(e) => panic!("{} to {}: {e}", from.display(), to.display()),
                        }
                    }
                    moved
                })
            })
            .collect();
        movers.into_iter().map(|m| m.join().unwrap()).collect()
    });
    println!("directories moved: {moved:?}");
    assert!(moved.iter().sum::<usize>() > 20, "{moved:?}");
    for root in [first, second] {
        let names = || {
            let mut found = Vec::new();
            list(&root.join(base), &mut found);
            found.into_iter().map(|p| p.file_name().unwrap().to_owned()).collect::<Vec<_>>()
        };
        wait_for("all directories to be seen once", || {
            let names = names();
            names.len() == DIRS && names.iter().collect::<BTreeSet<_>>().len() == DIRS
        });
    }
}

fn choose(rng: &mut Rng, list: &[std::path::PathBuf]) -> Option<std::path::PathBuf> {
    (!list.is_empty()).then(|| list[rng.below(list.len() as u64) as usize].clone())
}

/// All directories below one; what is moved away meanwhile is left out.
fn list(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    // Deeper than there are directories: a cycle.
    assert!(dir.components().count() < 40, "a directory is below itself: {}", dir.display());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            list(&entry.path(), found);
            found.push(entry.path());
        }
    }
}

fn two_of_ours(engine: Engine) {
    let seed = Seed::new();
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let (first, second) = (volume.mount(&[]), volume.mount(&[]));
    contend(first.path(), second.path(), CONTESTS);
    shuffle(seed.0, first.path(), second.path());
    wait_for("both to see the same", || Tree::read(first.path()) == Tree::read(second.path()));
    let seen = Tree::read(first.path());
    second.unmount();
    assert_eq!(volume.used(), walk_usage(first.path()));
    first.unmount();
    let again = volume.mount(&[]);
    assert_same("after both have gone", &seen, &Tree::read(again.path()));
    again.unmount();
    volume.check();
}

on_engines!(two_of_ours);

#[test]
fn ours_and_the_official_client() {
    let official = Official::locate().unwrap_or_else(|e| panic!("{e:#}"));
    let volume = Volume::new(Engine::Redis, &["--trash-days=0"]);
    let ours = volume.mount(&[]);
    let theirs = official.mount(&volume.meta, &volume.new_path(), &[]).unwrap_or_else(|e| panic!("{e:#}"));
    // Directories are not moved into one another here: the official client looks at a target's ancestors before its
    // transaction, not in it, and detaches a cycle when somebody moves one of them meanwhile.
    contend(ours.path(), theirs.path(), &CONTESTS[..CONTESTS.len() - 1]);
    wait_for("both to see the same", || Tree::read(ours.path()) == Tree::read(theirs.path()));
    let seen = Tree::read(ours.path());
    // It writes its directories' statistics every second.
    std::thread::sleep(Duration::from_millis(1500));
    theirs.unmount().unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!(volume.used(), walk_usage(ours.path()));
    ours.unmount();
    let again = volume.mount(&[]);
    assert_same("after both have gone", &seen, &Tree::read(again.path()));
    again.unmount();
    volume.repair_statistics(&official);
    volume.check();
}
