//! Directory pages, odd names, big values.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ciderfs_format::{Attr, FileType, Ino, SliceId};

use super::*;
use crate::store::{DirCursor, DirEntry};

/// Walks a directory to its end.
async fn walk(s: &dyn Store, dir: Ino, limit: usize, attrs: bool) -> Vec<DirEntry> {
    let mut out = Vec::new();
    let mut cursor = DirCursor::Start;
    for _ in 0..100_000 {
        let (page, next) = s.list_dir(dir, &cursor, limit, attrs).await.unwrap();
        out.extend(page);
        if next == DirCursor::End {
            return out;
        }
        cursor = next;
    }
    panic!("the listing does not end");
}

async fn fill(s: &dyn Store, dir: Ino, names: impl Iterator<Item = (String, u64)>) {
    let writes: Vec<Write> =
        names.map(|(name, ino)| Write::PutEdge(dir, name.into_bytes(), file(ino))).collect();
    for batch in writes.chunks(500) {
        write(s, batch.to_vec()).await;
    }
}

/// A small directory with attributes, without, and with a damaged entry.
pub async fn listing(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    assert_eq!(walk(s, Ino(1), 10, true).await, []);
    let a = Attr { length: 5, ..attr(FileType::File) };
    fill(s, Ino(1), [("a", 7), ("b", 8), ("c", 7)].into_iter().map(|(n, i)| (n.into(), i))).await;
    fill(s, Ino(2), [("other", 7)].into_iter().map(|(n, i)| (n.into(), i))).await;
    write(s, vec![Write::PutAttr(Ino(7), a.clone())]).await;
    let mut plain = walk(s, Ino(1), 10, false).await;
    plain.sort_by(|a, b| a.name.cmp(&b.name));
    let want = |attrs: bool| {
        [("a", 7), ("b", 8), ("c", 7)].map(|(name, ino)| DirEntry {
            name: name.into(),
            edge: file(ino),
            attr: (attrs && ino == 7).then(|| a.clone()),
        })
    };
    assert_eq!(plain, want(false));
    let mut full = walk(s, Ino(1), 10, true).await;
    full.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(full, want(true));
    assert_eq!(s.list_dir(Ino(1), &DirCursor::End, 10, true).await.unwrap(), (Vec::new(), DirCursor::End));
}

/// Large directories come in pages, whatever their size.
pub async fn listing_pages(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    fill(s, Ino(1), (0..3000).map(|i| (format!("entry-{i:05}"), 100 + i))).await;
    for (limit, attrs) in [(1000, false), (256, true), (3000, false), (100_000, false)] {
        let mut seen = BTreeMap::new();
        for e in walk(s, Ino(1), limit, attrs).await {
            if let Some(before) = seen.insert(e.name, e.edge) {
                assert_eq!(before, e.edge, "repeated names tell the same");
            }
        }
        let want: BTreeMap<_, _> =
            (0..3000).map(|i| (format!("entry-{i:05}").into_bytes(), file(100 + i))).collect();
        assert_eq!(seen, want, "pages of {limit}");
    }
    fill(s, Ino(2), (0..10).map(|i| (format!("{i}"), 100 + i))).await;
    let names: BTreeSet<_> = walk(s, Ino(2), 1, false).await.into_iter().map(|e| e.name).collect();
    assert_eq!(names.len(), 10, "pages of one");
}

/// What stays during the walk is seen, whatever else changes; what never was is not.
pub async fn listing_under_change(engine: Engine) {
    let s = ready(&engine).await;
    let other = engine.open().await;
    let (s, other) = (s.as_ref(), other.as_ref());
    let kept = |i: u64| format!("kept-{i:04}");
    fill(s, Ino(1), (0..800).map(|i| (kept(i), 100 + i))).await;
    fill(s, Ino(1), (0..800).map(|i| (format!("gone-{i:04}"), 2000 + i))).await;
    let mut seen = BTreeMap::new();
    let mut cursor = DirCursor::Start;
    let mut round = 0_u64;
    while cursor != DirCursor::End {
        let (page, next) = s.list_dir(Ino(1), &cursor, 50, round.is_multiple_of(2)).await.unwrap();
        seen.extend(page.into_iter().map(|e| (e.name, e.edge.ino.0)));
        cursor = next;
        // Removals before, at and after the position; many new names, so that tables are rebuilt.
        let mut writes: Vec<Write> = (0..60)
            .map(|i| (round * 60 + i) * 7 % 800)
            .map(|i| Write::DelEdge(Ino(1), format!("gone-{i:04}").into_bytes()))
            .collect();
        writes.extend((0..100).map(|i| {
            Write::PutEdge(Ino(1), format!("new-{round:04}-{i}").into_bytes(), file(10_000 + round * 100 + i))
        }));
        if round < 40 {
            write(other, writes).await;
        }
        round += 1;
        assert!(round < 10_000, "the listing does not end");
    }
    for i in 0..800 {
        assert_eq!(seen.get(kept(i).as_bytes()), Some(&(100 + i)), "{} was there all the time", kept(i));
    }
    for (name, ino) in seen {
        let known = [b"kept-", b"gone-", b"new-0"].iter().any(|p| name.starts_with(*p));
        assert!(known && ino >= 100, "{} never was", String::from_utf8_lossy(&name));
    }
}

/// Names are bytes: 255 of them, not UTF-8, with quotes and blanks, sorted as bytes.
pub async fn odd_names(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let names: Vec<Vec<u8>> = vec![
        vec![b'x'; 255],
        vec![0xff; 255],
        (1..=255).filter(|b| *b != b'/').collect(),
        b"'; DROP TABLE jfs_node; --".to_vec(),
        b"\"quoted\" {braces} %41".to_vec(),
        b" ".to_vec(),
        b"\xe4\xb8\xad".to_vec(),
        b"\x80".to_vec(),
        b"a\n".to_vec(),
        b"\r\n".to_vec(),
        b"1".to_vec(),
        b"01".to_vec(),
        b"1.0".to_vec(),
        b"A".to_vec(),
        b"a".to_vec(),
    ];
    for (i, name) in names.iter().enumerate() {
        write(s, vec![Write::PutEdge(Ino(1), name.clone(), file(100 + i as u64))]).await;
    }
    for (i, name) in names.iter().enumerate() {
        let found = read(s, Read::Edge(Ino(1), name.clone())).await;
        assert_eq!(found, Value::Edge(Some(file(100 + i as u64))), "{}", name.escape_ascii());
    }
    for limit in [1, 4, 100] {
        let listed: BTreeSet<_> = walk(s, Ino(1), limit, false).await.into_iter().map(|e| e.name).collect();
        assert_eq!(listed, names.iter().cloned().collect(), "pages of {limit}");
    }
    for name in &names {
        write(s, vec![Write::DelEdge(Ino(1), name.clone())]).await;
        assert_eq!(read(s, Read::Edge(Ino(1), name.clone())).await, Value::Edge(None));
    }
}

/// Long lists and values, large commits.
pub async fn big_values(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let list: Vec<_> = (0..20_000_u32)
        .map(|i| ciderfs_format::Slice { pos: i, id: SliceId(u64::from(i) + 1), size: i, off: 0, len: 1 })
        .collect();
    for part in list.chunks(5000) {
        write(s, vec![Write::AppendSlices(Ino(7), 0, part.to_vec())]).await;
    }
    assert_eq!(read(s, Read::Slices(Ino(7), 0)).await, Value::Slices(list));
    let value = Bytes::from((0..=255).cycle().take(65_536).collect::<Vec<u8>>());
    write(s, vec![Write::PutXattr(Ino(7), b"user.big".to_vec(), value.clone())]).await;
    assert_eq!(read(s, Read::Xattr(Ino(7), b"user.big".to_vec())).await, Value::Bytes(Some(value)));
    let many: Vec<Write> = (0..5000).map(|i| Write::PutAttr(Ino(1000 + i), attr(FileType::File))).collect();
    assert_eq!(write(s, many).await.len(), 5000);
    let reads: Vec<Read> = (0..5001).map(|i| Read::Attr(Ino(1000 + i))).collect();
    let values = s.read(&reads).await.unwrap();
    assert!(values[..5000].iter().all(|v| *v == Value::Attr(Some(attr(FileType::File)))));
    assert_eq!(values[5000], Value::Attr(None));
}
