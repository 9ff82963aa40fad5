//! The same random calls of several users on two trees, one on ext4 and one on a mount: the same results, the same errors, the
//! same attributes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

#[path = "two_trees/calls.rs"]
mod calls;
#[path = "two_trees/compare.rs"]
mod compare;
#[path = "two_trees/local.rs"]
mod local;
#[path = "two_trees/random.rs"]
mod random;
#[path = "two_trees/users.rs"]
mod users;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use calls::{Call, Outcome};
use compare::{differences, effects, look, whole};
use local::Ext4;
use random::{ALL, Kind, Source};
use support::random::{Rng, Seed, steps};
use support::{Engine, Volume};
use users::{USERS, User};

on_engines!(random_calls_of_several_users_do_what_they_do_on_ext4);

/// Calls in an ordinary test run.
const STEPS: usize = 3000;
/// Calls after which the whole trees are compared.
const ROUND: usize = 500;
/// Calls after which the source of calls looks at the tree again.
const LEARN: usize = 10;
/// Calls shown after a failure.
const SHOWN: usize = 25;

/// Families of calls that the file system does not have yet.
const NOT_YET: &[Kind] = &[];

/// A call that was made.
struct Made {
    who: &'static str,
    call: Call,
    outcome: Outcome,
}

/// Differences that are right.
fn accepted(here: &Path, call: &Call, local: &Outcome, mounted: &Outcome) -> bool {
    // A change of nothing by somebody else than the owner: FUSE cannot tell it from what precedes a write.
    let nothing = matches!(call, Call::Chown { uid: None, gid: None, .. });
    if nothing && *local == Err(Errno::PERM) && mounted.is_ok() {
        return true;
    }
    // The kernel does not ask us to take a default ACL from what is no directory.
    let no_acl = matches!(call, Call::RemoveXattr { name: "system.posix_acl_default", .. });
    if no_acl && *local == Err(Errno::PERM) && mounted.is_ok() {
        return call.paths().iter().any(|p| is_protected(here, p) && !here.join(p).is_dir());
    }
    // Immutable and append-only nodes are known to us but not to the kernel, which finds other reasons to refuse before it asks
    // us: there is an error in both trees, but not the same one.
    let refused = matches!((local, mounted), (Err(Errno::PERM), Err(_))) || refused_a_name(local, mounted);
    // access(2) is answered by the kernel from the mode, without asking us; the write itself is refused.
    let refused =
        refused || (matches!(call, Call::Access { .. }) && *local == Err(Errno::PERM) && mounted.is_ok());
    local == mounted || (refused && call.paths().iter().any(|p| is_protected(here, p)))
}

/// Was a nameless file made in both trees and refused a name in both, by ext4 with `EPERM`?
fn refused_a_name(local: &Outcome, mounted: &Outcome) -> bool {
    let parts = |outcome: &Outcome| {
        let (before, rest) = outcome.as_ref().ok()?.split_once("linked: Err(")?;
        let (error, after) = rest.split_once("), ")?;
        Some((format!("{before}{after}"), error.to_owned()))
    };
    let (Some(local), Some(mounted)) = (parts(local), parts(mounted)) else { return false };
    local.0 == mounted.0 && local.1 == format!("{:?}", Errno::PERM)
}

/// Is there an immutable or append-only node at a path, or is its directory one?
fn is_protected(root: &Path, path: &Path) -> bool {
    let protection = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
    [path, path.parent().unwrap_or(Path::new(""))].iter().any(|p| {
        [AtFlags::empty(), AtFlags::SYMLINK_NOFOLLOW].into_iter().any(|flags| {
            let s = rustix::fs::statx(CWD, root.join(p), flags, StatxFlags::BASIC_STATS);
            s.is_ok_and(|s| s.stx_attributes.intersects(protection))
        })
    })
}

/// The calls before a difference, those on the same paths first.
fn story(made: &[Made]) -> String {
    let from = made.len().saturating_sub(SHOWN);
    let line = |(n, m): (usize, &Made)| format!("{n:6} {}: {} = {:?}", m.who, m.call, m.outcome);
    let last: Vec<String> = made.iter().enumerate().skip(from).map(line).collect();
    let Some(failed) = made.last() else { return String::new() };
    let mut touching: Vec<String> = made[..from]
        .iter()
        .enumerate()
        .filter(|(_, m)| {
            m.outcome.is_ok() && m.call.paths().iter().any(|p| failed.call.paths().iter().any(|f| p == f))
        })
        .map(line)
        .collect();
    touching = touching.split_off(touching.len().saturating_sub(SHOWN));
    format!("on the same paths:\n{}\nthe last calls:\n{}", touching.join("\n"), last.join("\n"))
}

/// Does a path lead out of the tree?
fn escapes(root: &Path, path: &Path) -> bool {
    let full = root.join(path);
    let outside = |p: &Path| fs::canonicalize(p).is_ok_and(|p| !p.starts_with(root));
    outside(&full) || full.parent().is_some_and(outside)
}

/// Makes the tree, deep enough that a link which leads out of it shows the same on both sides.
fn make_root(base: &Path) -> PathBuf {
    let root = base.join("up/here/tree");
    fs::create_dir_all(&root).unwrap();
    fs::set_permissions(&root, Permissions::from_mode(0o777)).unwrap();
    root
}

/// The trash is on, as users have it, with one engine and off with another.
fn trash_days(engine: Engine) -> &'static str {
    match engine {
        Engine::Redis => "--trash-days=1",
        Engine::Sqlite => "--trash-days=0",
    }
}

fn random_calls_of_several_users_do_what_they_do_on_ext4(engine: Engine) {
    let seed = Seed::new();
    let local = Ext4::new();
    let volume = Volume::new(engine, &[trash_days(engine), "--enable-acl"]);
    let mount = volume.mount(&["-o", "dev,suid"]);
    let (here, there) = (make_root(&local.path()), make_root(mount.path()));
    let users: Vec<User> = USERS.into_iter().map(User::new).collect();
    let kinds = ALL.iter().copied().filter(|(_, k)| !NOT_YET.contains(k)).collect();
    let mut source = Source::new(Rng::new(seed.0), kinds);
    let mut made: Vec<Made> = Vec::new();
    let total = steps(STEPS);
    for step in 0..total {
        let call = source.call();
        let who = source.rng.weighted(&[(4, 0), (3, 1), (3, 2)]);
        if call.paths().iter().any(|p| escapes(&here, p)) {
            continue;
        }
        let user = &users[who];
        let before = (look(&here, &call), look(&there, &call));
        let outcome = user.run(&call, &here);
        let mounted = user.run(&call, &there);
        made.push(Made { who: user.identity.name, call: call.clone(), outcome: outcome.clone() });
        assert!(
            accepted(&here, &call, &outcome, &mounted),
            "call {step}, {}: {call}\n  ext4  {outcome:?}\n  mount {mounted:?}\n{}",
            user.identity.name,
            story(&made)
        );
        let after = (look(&here, &call), look(&there, &call));
        let wrong = differences(
            &effects(&call, outcome.is_ok(), &before.0, &after.0),
            &effects(&call, outcome.is_ok(), &before.1, &after.1),
        );
        assert!(
            wrong.is_empty(),
            "call {step}, {}: {call} = {outcome:?}\n{}\n{}",
            user.identity.name,
            wrong.join("\n"),
            story(&made)
        );
        if made.len().is_multiple_of(LEARN) {
            source.learn(&here);
        }
        if step % ROUND == ROUND - 1 {
            let wrong = differences(&whole(&here), &whole(&there));
            // Else more and more would be immutable.
            [&here, &there].into_iter().for_each(|root| local::thaw(root));
            assert!(wrong.is_empty(), "after {step} calls\n{}\n{}", wrong.join("\n"), story(&made));
        }
    }
    let succeeded = made.iter().filter(|m| m.outcome.is_ok()).count();
    println!("{} calls, {succeeded} of them succeeded", made.len());
    assert!(succeeded * 8 > total, "too few calls do anything: {succeeded} of {total}");
    drop(users);
    let want = whole(&here);
    mount.unmount();
    let mount = volume.mount(&[]);
    let wrong = differences(&want, &whole(&mount.join("up/here/tree")));
    assert!(wrong.is_empty(), "after a remount\n{}", wrong.join("\n"));
    local::thaw(&here);
    mount.unmount();
    volume.check();
}
