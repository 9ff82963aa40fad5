//! Several handles and tasks at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use ciderfs_format::{Attr, FileType, Ino};

use super::*;
use crate::store::{AttrMask, AttrPatch, Counter, Job, StoreError};

/// Calls again while the engine is busy.
async fn patiently<T, Fut: Future<Output = Result<T, StoreError>>>(call: impl Fn() -> Fut) -> T {
    for _ in 0..1000 {
        match call().await {
            Ok(v) => return v,
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            Err(e) => panic!("{e:?}"),
        }
    }
    panic!("the engine stays unavailable");
}

/// What one handle wrote another reads, and guards see it.
pub async fn two_handles(engine: Engine) {
    let (a, b) = (ready(&engine).await, engine.open().await);
    let (a, b) = (a.as_ref(), b.as_ref());
    for i in 0..20 {
        let (writer, reader) = if i % 2 == 0 { (a, b) } else { (b, a) };
        write(writer, vec![Write::PutEdge(Ino(1), b"a".to_vec(), file(100 + i))]).await;
        assert_eq!(read(reader, Read::Edge(Ino(1), b"a".to_vec())).await, Value::Edge(Some(file(100 + i))));
        let stale = Guard::Edge { dir: Ino(1), name: b"a".to_vec(), expect: None };
        let outcome = reader.commit(&probe(vec![stale])).await.unwrap();
        assert_eq!(outcome, Outcome::Conflict(vec![Value::Edge(Some(file(100 + i)))]));
    }
}

/// Guarded increments by several tasks over two handles lose nothing.
pub async fn concurrent_increments(engine: Engine) {
    const TASKS: u64 = 6;
    const EACH: u64 = 20;
    let first = ready(&engine).await;
    let handles = [Arc::clone(&first), engine.open().await];
    write(first.as_ref(), vec![Write::PutAttr(Ino(7), Attr { length: 0, ..attr(FileType::File) })]).await;
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let s = Arc::clone(&handles[task as usize % 2]);
        tasks.push(tokio::spawn(async move {
            for i in 0..EACH {
                let reads = [Read::Attr(Ino(7))];
                let mut known = patiently(|| s.read(&reads)).await.remove(0);
                loop {
                    let Value::Attr(Some(a)) = known else { panic!("{known:?}") };
                    let patch = AttrPatch { length: Some(a.length + 1), nlink: 1, ..AttrPatch::default() };
                    let commit = Commit {
                        guards: vec![Guard::Attr { ino: Ino(7), expect: Some(a), mask: AttrMask::LENGTH }],
                        writes: vec![
                            Write::PatchAttr(Ino(7), patch),
                            Write::PutEdge(Ino(1), format!("{task}-{i}").into_bytes(), file(7)),
                            Write::AddCounter(Counter::TotalInodes, 1),
                        ],
                    };
                    match patiently(|| s.commit(&commit)).await {
                        Outcome::Done(_) => break,
                        Outcome::Conflict(mut truth) => known = truth.remove(0),
                    }
                }
            }
        }));
    }
    for t in tasks {
        t.await.unwrap();
    }
    let s = first.as_ref();
    let Value::Attr(Some(a)) = read(s, Read::Attr(Ino(7))).await else { panic!() };
    assert_eq!((a.length, u64::from(a.nlink)), (TASKS * EACH, 3 + TASKS * EACH));
    assert_eq!(read(s, Read::Counter(Counter::TotalInodes)).await, Value::Int((TASKS * EACH) as i64));
}

/// Ranges handed out to several handles at once do not overlap.
pub async fn concurrent_allocations(engine: Engine) {
    let first = ready(&engine).await;
    let handles = [first, engine.open().await];
    let mut tasks = Vec::new();
    for task in 0..6 {
        let s = Arc::clone(&handles[task % 2]);
        tasks.push(tokio::spawn(async move {
            let mut got = Vec::new();
            for n in 1..15 {
                got.extend(patiently(|| s.allocate(Counter::NextInode, n)).await);
            }
            got
        }));
    }
    let mut all = BTreeSet::new();
    let mut count = 0;
    for t in tasks {
        let got = t.await.unwrap();
        count += got.len();
        all.extend(got);
    }
    assert_eq!(all.len(), count, "a number was handed out twice");
    assert!(all.first().is_some_and(|n| *n >= 2));
}

/// Of many claimants at once one wins.
pub async fn concurrent_claims(engine: Engine) {
    let first = ready(&engine).await;
    let handles = [first, engine.open().await];
    for round in 0..5 {
        let now = 1_700_000_000 + round * 10_000;
        let mut tasks = Vec::new();
        for task in 0..6 {
            let s = Arc::clone(&handles[task % 2]);
            tasks
                .push(tokio::spawn(async move { patiently(|| s.claim(Job::CleanupTrash, now, 3240)).await }));
        }
        let mut won = 0;
        for t in tasks {
            won += i32::from(t.await.unwrap());
        }
        assert_eq!(won, 1);
    }
}

/// Reads of one call are of one moment: a sum that every commit keeps never shows otherwise.
pub async fn consistent_reads(engine: Engine) {
    const SUM: u64 = 1000;
    let first = ready(&engine).await;
    let other = engine.open().await;
    let half = Attr { length: SUM / 2, ..attr(FileType::File) };
    write(first.as_ref(), vec![Write::PutAttr(Ino(7), half.clone()), Write::PutAttr(Ino(8), half)]).await;
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (s, done) = (Arc::clone(&other), Arc::clone(&done));
        async move {
            for i in 0..150 {
                let part = i * 7 % SUM;
                let patch = |n| AttrPatch { length: Some(n), ..AttrPatch::default() };
                let writes =
                    vec![Write::PatchAttr(Ino(7), patch(part)), Write::PatchAttr(Ino(8), patch(SUM - part))];
                let commit = Commit { guards: Vec::new(), writes };
                patiently(|| s.commit(&commit)).await;
            }
            done.store(true, Ordering::SeqCst);
        }
    });
    let mut rounds = 0;
    while !done.load(Ordering::SeqCst) || rounds == 0 {
        // Enough between them that no server takes all of it from the wire at once.
        let filler = (1000..3000).map(|i| Read::Attr(Ino(i)));
        let reads: Vec<Read> =
            [Read::Attr(Ino(7))].into_iter().chain(filler).chain([Read::Attr(Ino(8))]).collect();
        let values = patiently(|| first.read(&reads)).await;
        let (Some(Value::Attr(Some(a))), Some(Value::Attr(Some(b)))) = (values.first(), values.last()) else {
            panic!("{values:?}")
        };
        assert_eq!(a.length + b.length, SUM);
        // The truths of a conflict are of one moment too.
        let wrong = |ino| Guard::Attr { ino: Ino(ino), expect: None, mask: AttrMask::EXISTS };
        let commit = probe(vec![wrong(7), wrong(8)]);
        let outcome = patiently(|| first.commit(&commit)).await;
        let Outcome::Conflict(values) = outcome else { panic!() };
        let [Value::Attr(Some(a)), Value::Attr(Some(b))] = &values[..] else { panic!("{values:?}") };
        assert_eq!(a.length + b.length, SUM);
        rounds += 1;
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}
