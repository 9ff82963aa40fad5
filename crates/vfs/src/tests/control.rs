//! The channel of tools.

use ciderfs_format::{FileType, Ino};
use ciderfs_meta::{Caller, Errno, NewNode, SetAttr};
use serde_json::Value;

use super::support::*;

async fn open(c: &Client) -> u64 {
    let root = Caller::root();
    let entry = c.vfs.lookup(&root, Ino(77), b".control").await.unwrap();
    c.vfs.open(&root, entry.ino, RW).await.unwrap().fh
}

fn request(command: u32, body: &[u8]) -> Vec<u8> {
    [&command.to_be_bytes()[..], &(body.len() as u32).to_be_bytes(), body].concat()
}

/// The answer to a request: what the stream holds behind it.
async fn answer(c: &Client, fh: u64, at: usize) -> Vec<u8> {
    until("an answer", async || !c.read(fh, at, 1).await.is_empty()).await;
    c.read(fh, at, MIB).await
}

#[tokio::test]
async fn info_of_a_file() {
    let w = World::new(1).await;
    let c = w.client().await;
    let (ino, file) = c.create("a").await;
    c.write(file, 0, &pattern(1, 100 * KIB)).await;
    let fh = open(&c).await;
    let ask = request(1005, &[&ino.0.to_be_bytes()[..], &[0, 0, 0]].concat());
    // A request may come in parts.
    for part in ask.chunks(5) {
        c.vfs.write_control(&Caller::root(), fh, part).unwrap();
    }
    let said = answer(&c, fh, ask.len()).await;
    assert_eq!(c.read(fh, 0, ask.len()).await, ask, "the stream begins with the request");
    assert_eq!(said[0], 0xFE);
    assert_eq!(said[17], 0xFF);
    let info: Value = serde_json::from_slice(&said[22..]).unwrap();
    assert_eq!(info["Summary"]["Length"], 100 * KIB);
    assert_eq!(info["Paths"], serde_json::json!(["/a"]));
    // What was only in memory has been stored for the answer.
    let keys: Vec<&str> =
        info["Objects"].as_array().unwrap().iter().filter_map(|o| o["Key"].as_str()).collect();
    assert_eq!(keys.len(), 2);
    assert!(keys[0].starts_with("vol/chunks/0/0/") && keys[0].ends_with("_0_65536"), "{keys:?}");
}

#[tokio::test]
async fn bad_requests_are_answered() {
    let w = World::new(1).await;
    let c = w.client().await;
    let fh = open(&c).await;
    let mut at = 0;
    for (ask, error) in [
        (request(999, &[0; 8]), Errno::EINVAL),
        (request(1005, &[1, 2]), Errno::EINVAL),
        ([request(1005, &[0; 8]), vec![9]].concat(), Errno::EIO),
    ] {
        c.vfs.write_control(&Caller::root(), fh, &ask).unwrap();
        at += ask.len();
        assert_eq!(answer(&c, fh, at).await, [error.0 as u8]);
        at += 1;
    }
    let ask = request(1005, &[&999_u64.to_be_bytes()[..], &[0, 0, 0]].concat());
    c.vfs.write_control(&Caller::root(), fh, &ask).unwrap();
    let said = answer(&c, fh, at + ask.len()).await;
    let info: Value = serde_json::from_slice(&said[5..]).unwrap();
    assert_eq!(
        (&info["Failed"], info["Reason"].as_str()),
        (&Value::Bool(true), Some("no such file or directory"))
    );
    assert_eq!(errno(c.vfs.write_control(&Caller::root(), fh, &vec![0; 2 * MIB])), Errno::EINVAL);
    c.vfs.release(fh).await;
}

/// What somebody is told of an inode.
async fn info(c: &Client, who: &Caller, ino: Ino) -> Value {
    let entry = c.vfs.lookup(who, Ino::ROOT, b".control").await.unwrap();
    let fh = c.vfs.open(who, entry.ino, RW).await.unwrap().fh;
    let ask = request(1005, &[&ino.0.to_be_bytes()[..], &[1, 0, 0]].concat());
    c.vfs.write_control(who, fh, &ask).unwrap();
    let at = ask.len();
    let mut said = Vec::new();
    until("the whole answer", async || {
        said = c.read(fh, at, MIB).await;
        while said.first() == Some(&0xFE) {
            said.drain(..17);
        }
        !said.is_empty()
    })
    .await;
    c.vfs.release(fh).await;
    serde_json::from_slice(&said[5..]).unwrap()
}

fn user(uid: u32) -> Caller {
    Caller { uid, gid: uid, groups: Vec::new(), pid: 1, check: true }
}

#[tokio::test]
async fn info_by_inode_is_told_to_those_who_could_walk_there() {
    let w = World::new(1).await;
    let c = w.client().await;
    let root = Caller::root();
    let node = NewNode { kind: FileType::Directory, mode: 0o700, umask: 0, rdev: 0, target: b"" };
    let dir = c.vfs.create(&root, Ino::ROOT, b"closed", &node).await.unwrap().ino;
    let made = c.vfs.create_open(&root, dir, b"secret", 0o644, 0, RW).await.unwrap();
    let (secret, fh) = (made.0.ino, made.1.fh);
    c.write(fh, 0, b"dirty").await;
    // The kernel has checked what it knows of, which is not this.
    let bob = Caller::kernel_checked(1000, 1000, 1);
    for who in [user(1000), bob] {
        for ino in [secret, Ino(999)] {
            let told = info(&c, &who, ino).await;
            let none = [&told["Paths"], &told["Objects"], &told["Chunks"]];
            assert!(told["Failed"] == true && none.iter().all(|v| v.is_null()), "{told}");
            assert_eq!(told["Reason"], "no such file or directory");
        }
        let told = info(&c, &who, dir).await;
        assert_eq!((&told["Paths"][0], &told["Summary"]["Files"]), (&"/closed".into(), &0.into()), "{told}");
    }
    assert!(c.meta.getattr(secret).await.unwrap().length == 0, "a refused request flushes nothing");
    let told = info(&c, &root, secret).await;
    assert_eq!((&told["Paths"][0], &told["Summary"]["Length"]), (&"/closed/secret".into(), &5.into()));
    let open = SetAttr { mode: Some(0o755), ..SetAttr::default() };
    c.vfs.setattr(&root, dir, &open, None, None).await.unwrap();
    assert_eq!(info(&c, &user(1000), secret).await["Paths"][0], "/closed/secret");
    c.vfs.release(fh).await;
}

#[tokio::test]
async fn commands_come_from_who_opened_the_channel() {
    let w = World::new(1).await;
    let c = w.client().await;
    let entry = c.vfs.lookup(&user(1000), Ino::ROOT, b".control").await.unwrap();
    let fh = c.vfs.open(&user(1000), entry.ino, RW).await.unwrap().fh;
    // As if a privileged program were handed the descriptor for its output.
    assert_eq!(errno(c.vfs.write_control(&Caller::root(), fh, &request(1005, &[0; 11]))), Errno::EPERM);
    assert_eq!(errno(c.vfs.write(fh, 0, b"x").await), Errno::EBADF);
    c.vfs.write_control(&user(1000), fh, &request(999, &[0; 8])).unwrap();
    assert_eq!(answer(&c, fh, 16).await, [Errno::EINVAL.0 as u8]);
}

#[tokio::test]
async fn modes_of_virtual_files_count_where_the_kernel_checks_none() {
    let w = World::new(1).await;
    let c = w.client().await;
    let open = async |who: &Caller, name: &[u8], flags| {
        let ino = c.vfs.lookup(who, Ino::ROOT, name).await.unwrap().ino;
        let opened = c.vfs.open(who, ino, flags).await.map_err(|e| e.errno())?;
        c.vfs.release(opened.fh).await;
        Ok(ino)
    };
    for (name, of_users) in
        [(&b".config"[..], Err(Errno::EACCES)), (b".stats", Ok(())), (b".control", Ok(()))]
    {
        let ino = open(&Caller::root(), name, libc::O_RDONLY).await.unwrap();
        assert_eq!(open(&user(1000), name, libc::O_RDONLY).await.map(drop), of_users);
        assert_eq!(c.vfs.access(&user(1000), ino, 4).await.map_err(|e| e.errno()), of_users);
        assert!(c.vfs.access(&Caller::root(), ino, 4).await.is_ok());
    }
    for flags in [libc::O_WRONLY, RW] {
        assert_eq!(open(&user(1000), b".stats", flags).await, Err(Errno::EACCES));
        assert!(open(&user(1000), b".control", flags).await.is_ok());
    }
}

fn nobody() -> Caller {
    Caller { uid: 65534, gid: 65534, ..Caller::root() }
}

async fn try_open(c: &Client, who: &Caller) -> crate::error::Result<u64> {
    let entry = c.vfs.lookup(who, Ino::ROOT, b".control").await.unwrap();
    Ok(c.vfs.open(who, entry.ino, RW).await?.fh)
}

#[tokio::test]
async fn nobody_makes_a_descriptor_keep_much() {
    let w = World::new(1).await;
    let c = w.client().await;
    let fh = try_open(&c, &nobody()).await.unwrap();
    // A request that never gets complete.
    c.vfs.write_control(&nobody(), fh, &[0, 0, 0x3, 0xed, 0, 0, 0x3f, 0xf0]).unwrap();
    let mut taken = 8;
    while c.vfs.write_control(&nobody(), fh, &[0; 1000]).is_ok() {
        taken += 1000;
    }
    assert!(taken <= 16 << 10, "{taken}");
    assert_eq!(errno(c.vfs.write_control(&nobody(), fh, &[0; 1000])), Errno::EINVAL);
    c.vfs.release(fh).await;
    // One that says that it will be long.
    let fh = try_open(&c, &nobody()).await.unwrap();
    assert_eq!(errno(c.vfs.write_control(&nobody(), fh, &[0, 0, 0x3, 0xed, 0x7f, 0, 0, 0])), Errno::EINVAL);
    // It was not taken, so the next one is understood.
    c.vfs.write_control(&nobody(), fh, &request(999, &[0; 8])).unwrap();
    assert_eq!(answer(&c, fh, 16).await, [Errno::EINVAL.0 as u8]);
    // Many of them, each answered: what nobody can want any more is forgotten, and places in the stream stay.
    let mut at = 17;
    let ask = [request(999, &[7; 8000]), vec![9]].concat();
    for _ in 0..200 {
        c.vfs.write_control(&nobody(), fh, &ask).unwrap();
        at += ask.len();
        assert_eq!(answer(&c, fh, at).await, [Errno::EIO.0 as u8]);
        at += 1;
    }
    assert_eq!(c.read(fh, 0, MIB).await, [0; 0], "the first bytes are still there");
    let known = c.read(fh, at - 100, MIB).await;
    assert_eq!(known.len(), 100, "the last answer is");
    c.vfs.release(fh).await;
}

#[tokio::test]
async fn descriptors_are_counted_and_root_always_gets_one() {
    let w = World::new(1).await;
    let c = w.client().await;
    let mut open = Vec::new();
    let refused = loop {
        match try_open(&c, &nobody()).await {
            Ok(fh) => open.push(fh),
            Err(e) => break e,
        }
        assert!(open.len() < 10_000);
    };
    assert_eq!((refused.errno(), open.len()), (Errno::ENFILE, 512));
    let fh = try_open(&c, &Caller::root()).await.unwrap();
    c.vfs.release(fh).await;
    c.vfs.release(open.pop().unwrap()).await;
    open.push(try_open(&c, &nobody()).await.unwrap());
    for fh in open {
        c.vfs.release(fh).await;
    }
    try_open(&c, &nobody()).await.unwrap();
}

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded() {
    let w = World::new(1).await;
    let c = w.client().await;
    let (ino, file) = c.create("a").await;
    // A thousand objects: an answer of some hundred KiB.
    for n in 0..4 {
        c.write(file, n * 16 * MIB, &pattern(1, 16 * MIB)).await;
    }
    c.close(file).await.unwrap();
    let ask = request(1005, &[&ino.0.to_be_bytes()[..], &[0, 0, 0]].concat());
    let mut open = Vec::new();
    let mut sum = 0;
    let full = loop {
        let fh = try_open(&c, &nobody()).await.unwrap();
        open.push(fh);
        c.vfs.write_control(&nobody(), fh, &ask).unwrap();
        until("an answer", async || c.read(fh, ask.len(), MIB).await.iter().any(|b| *b != 0xFE)).await;
        let said = answer(&c, fh, ask.len()).await;
        if said.last() == Some(&(Errno::ENOBUFS.0 as u8)) {
            break said;
        }
        sum += said.len();
        assert!(sum < 20 << 20);
    };
    assert_eq!(full.len(), 18, "progress, and the error");
    assert!(sum > 12 << 20, "{sum}");
    // Root gets its answer, and others again when somebody has gone.
    let fh = try_open(&c, &Caller::root()).await.unwrap();
    c.vfs.write_control(&Caller::root(), fh, &ask).unwrap();
    until("an answer", async || c.read(fh, ask.len(), MIB).await.len() > 1000).await;
    for fh in open.drain(..) {
        c.vfs.release(fh).await;
    }
    let fh = try_open(&c, &nobody()).await.unwrap();
    c.vfs.write_control(&nobody(), fh, &ask).unwrap();
    until("an answer", async || c.read(fh, ask.len(), MIB).await.len() > 1000).await;
}

#[tokio::test]
async fn info_lists_no_more_than_it_can_hold() {
    let w = World::new(1).await;
    let c = w.client().await;
    let (ino, file) = c.create("a").await;
    // A thousand objects, and copies of them, which cost nothing: two GiB.
    for n in 0..4 {
        c.write(file, n * 16 * MIB, &pattern(1, 16 * MIB)).await;
    }
    let chunk = 64 * MIB as u64;
    for n in 1..33 {
        let copy = c.vfs.copy_file_range(&Caller::root(), (file, 0), (file, n * chunk), chunk, 0).await;
        assert_eq!(copy.unwrap(), chunk);
    }
    let fh = open(&c).await;
    let ask = request(1005, &[&ino.0.to_be_bytes()[..], &[0, 0, 0]].concat());
    c.vfs.write_control(&Caller::root(), fh, &ask).unwrap();
    let said = soon(answer(&c, fh, ask.len() + 17)).await;
    let info: Value = serde_json::from_slice(&said[5..]).unwrap();
    assert_eq!(info["Summary"]["Length"], 33 * chunk);
    assert_eq!((&info["Objects"], &info["Failed"]), (&Value::Null, &Value::Bool(false)));
    assert!(info["Reason"].as_str().unwrap().contains("too many"), "{info}");
}
