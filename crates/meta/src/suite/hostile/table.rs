//! The damaged records.

use ciderfs_format::{Ino, SessionId, Slice, SliceId, excerpt};

use super::raw::{Field, Harm};
use super::{Case, Dialect, Spot, Want};
use crate::error::Errno;
use crate::store::{Counter, Write};
use Want::{Fails, Hides, Shows};

/// All parts.
pub(super) const ALL: [fn(&Spot) -> Vec<Case>; 6] = [attributes, entries, chunks, counters, usage, others];

/// Told by a session of this kind.
const LONG_LIFE: &str = r#"{"Life":9223372036854775807,"EngineClock":true}"#;
const LONG_LIFE_SQL: &str = r#"'{"Life":-9223372036854775808,"EngineClock":true}'"#;

/// Bytes of what is longer than any record.
const LONG: usize = 20 << 20;

/// A damaged session hides no other, and keeps nobody from beginning one.
const BESIDE: [(&str, Want); 3] =
    [("stat", Shows("length")), ("sessions", Shows("SessionId(5)")), ("session", Shows(""))];

/// Every sound entry of a spot that a listing must show.
const SOUND: &str = "<dir><file><guarded><hard><link><other>";

#[derive(Default)]
struct Table {
    cases: Vec<Case>,
    /// Is the case that was told last in the table?
    added: bool,
}

impl Table {
    /// Adds a case, unless there is no such record in this engine.
    fn add(&mut self, name: impl Into<String>, harm: Vec<Harm>, wants: &[(&'static str, Want)]) -> &mut Self {
        self.added = !harm.is_empty();
        if self.added {
            let (name, wants) = (name.into(), wants.to_vec());
            self.cases.push(Case {
                name,
                harm,
                heal: Vec::new(),
                wants,
                bad_name: None,
                stops_changes: false,
            });
        }
        self
    }

    /// The last case is about the whole volume.
    fn healed(&mut self, heal: Vec<Harm>, stops_changes: bool) {
        if let Some(last) = self.cases.last_mut().filter(|_| self.added) {
            (last.heal, last.stops_changes) = (heal, stops_changes);
        }
    }

    fn named(&mut self, name: &[u8]) {
        if let Some(last) = self.cases.last_mut().filter(|_| self.added) {
            last.bad_name = Some(name.to_vec());
        }
    }
}

fn set(ino: Ino, column: &str, value: &str) -> String {
    format!("UPDATE jfs_node SET {column}={value} WHERE inode={ino}")
}

pub(super) fn attributes(s: &Spot) -> Vec<Case> {
    let (r, mut t) = (&s.raw, Table::default());
    // A length that no file has is shown as the greatest that one can have, and can be cut.
    let longest = "length: 144115188075855871";
    for (name, n) in [
        ("i64::MAX", i64::MAX as u64),
        ("-1", u64::MAX),
        ("2^62", 1 << 62),
        ("2^57", 1 << 57),
        ("i64::MIN", i64::MIN as u64),
    ] {
        let wants = [
            ("stat", Shows(longest)),
            ("list", Shows(SOUND)),
            ("truncate", Shows("length: 5")),
            ("append", Fails(Errno::EFBIG)),
        ];
        t.add(format!("length {name}"), r.attr(s.file, Field::Length, n), &wants);
    }
    t.add(
        "length of a sparse file",
        r.attr(s.file, Field::Length, (1 << 57) - 1),
        &[("stat", Shows(longest))],
    );
    t.add("length of a directory -1", r.attr(s.dir, Field::Length, u64::MAX), &[("list", Shows(SOUND))]);
    t.add("length of a link -1", r.attr(s.link, Field::Length, u64::MAX), &[("readlink", Shows("target"))]);
    t.add(
        "length of a hard link -1",
        r.attr(s.hard, Field::Length, u64::MAX),
        &[("stat hard", Shows(longest))],
    );
    for kind in [0, 8, 9, 15] {
        let wants = [("stat", Fails(Errno::EIO)), ("names", Shows(SOUND)), ("stat dir", Shows("Directory"))];
        t.add(format!("file of type {kind}"), r.attr(s.file, Field::Kind, kind), &wants);
    }
    t.add("a file that is a directory", r.attr(s.file, Field::Kind, 2), &[("names", Shows(SOUND))]);
    t.add("a directory that is a file", r.attr(s.dir, Field::Kind, 1), &[("names", Shows(SOUND))]);
    t.add("a link that is a file", r.attr(s.link, Field::Kind, 1), &[("names", Shows(SOUND))]);
    t.add("a file that is a link", r.attr(s.file, Field::Kind, 3), &[("names", Shows(SOUND))]);
    for n in [0, 1 << 31, u64::from(u32::MAX)] {
        let shown: &'static str = ["nlink: 0", "nlink: 2147483648", "nlink: 4294967295"]
            [usize::from(n > 0) + usize::from(n > 1 << 31)];
        t.add(format!("nlink {n}"), r.attr(s.file, Field::Nlink, n), &[("stat", Shows(shown))]);
        t.add(format!("nlink {n} of a directory"), r.attr(s.dir, Field::Nlink, n), &[]);
        t.add(format!("nlink {n} of a hard link"), r.attr(s.hard, Field::Nlink, n), &[]);
    }
    let top = s.top.0;
    for (name, parent) in [
        ("missing", 1 << 40),
        ("none", 0),
        ("itself", s.dir.0),
        ("-1", u64::MAX),
        ("in the trash", Ino::TRASH.0 + 7),
    ] {
        t.add(format!("parent of a directory: {name}"), r.attr(s.dir, Field::Parent, parent), &[]);
    }
    for (name, parent) in
        [("missing", 1 << 40), ("none", 0), ("itself", s.file.0), ("in the trash", Ino::TRASH.0 + 7)]
    {
        t.add(format!("parent of a file: {name}"), r.attr(s.file, Field::Parent, parent), &[]);
    }
    t.add("parents in a circle", r.attr(s.top, Field::Parent, s.dir.0), &[("list", Shows(SOUND))]);
    let circle = [r.attr(s.top, Field::Parent, s.dir.0), r.entry(s.dir, b"up", 2, s.top.0)].concat();
    t.add(
        "directories in a circle",
        circle,
        &[("paths", Fails(Errno::ELOOP)), ("paths dir", Fails(Errno::ELOOP))],
    );
    t.add("parent of a hard link", r.attr(s.hard, Field::Parent, top), &[]);
    for (name, n) in [("i64::MAX", i64::MAX as u64), ("i64::MIN", i64::MIN as u64), ("-1", u64::MAX)] {
        t.add(format!("mtime {name}"), r.attr(s.file, Field::Mtime, n), &[("list", Shows(SOUND))]);
        t.add(format!("atime {name}"), r.attr(s.file, Field::Atime, n), &[("list", Shows(SOUND))]);
    }
    t.add("nanoseconds", r.attr(s.file, Field::MtimeNsec, u64::from(u32::MAX)), &[("list", Shows(SOUND))]);
    t.add("device number", r.attr(s.file, Field::Rdev, u64::from(u32::MAX)), &[("list", Shows(SOUND))]);
    t.add("an ACL that is missing", r.attr(s.file, Field::AccessAcl, 4_000_000), &[("list", Shows(SOUND))]);
    let (record, key) = (r.record(s.file), format!("i{}", s.file));
    for n in [0, 1, 2, 10, 30, 50, 58, 62] {
        let wants = [("stat", Fails(Errno::EIO)), ("names", Shows(SOUND)), ("list", Shows("<other>"))];
        t.add(format!("{n} bytes of a record"), r.redis(&[b"SET", key.as_bytes(), &record[..n]]), &wants);
    }
    t.add(
        "a record without parent",
        r.redis(&[b"SET", key.as_bytes(), &record[..63]]),
        &[("list", Shows(SOUND))],
    );
    for n in [100, 1 << 20] {
        let long = [&record[..], &vec![0xff; n]].concat();
        t.add(format!("a record with {n} bytes more"), r.redis(&[b"SET", key.as_bytes(), &long]), &[]);
    }
    let long = vec![b'x'; LONG];
    let wants = [("stat", Fails(Errno::EIO)), ("names", Shows(SOUND)), ("list", Shows("<other>"))];
    t.add("a record that is longer than any", r.redis(&[b"SET", key.as_bytes(), &long]), &wants);
    for (column, value) in [
        ("length", "'text'"),
        ("length", "x'00ff'"),
        ("length", "1.5"),
        ("length", "9.3e18"),
        ("nlink", "-1"),
        ("nlink", "4294967296"),
        ("nlink", "'x'"),
        ("mode", "65536"),
        ("mode", "-1"),
        ("uid", "-1"),
        ("flags", "256"),
        ("flags", "-1"),
        ("type", "'x'"),
        ("type", "256"),
        ("type", "-1"),
        ("atimensec", "9223372036854775807"),
        ("mtimensec", "-1"),
        ("ctimensec", "1000000000"),
        ("parent", "NULL"),
        ("parent", "'x'"),
        ("rdev", "-1"),
        ("access_acl_id", "-1"),
        ("default_acl_id", "'x'"),
        ("tier_id", "300"),
        ("tier_id", "-1"),
    ] {
        let wants = [("names", Shows(SOUND)), ("list", Shows("<other>"))];
        t.add(format!("{column} is {value}"), r.sql(&set(s.file, column, value), &[]), &wants);
    }
    t.cases
}

pub(super) fn entries(s: &Spot) -> Vec<Case> {
    let (r, mut t) = (&s.raw, Table::default());
    let hidden = [("list", Shows(SOUND)), ("names", Shows(SOUND))];
    let names: [(&str, Vec<u8>, &'static str); 10] = [
        ("a/b", b"a/b".to_vec(), "a/b"),
        ("/", b"/".to_vec(), "</>"),
        ("..", b"..".to_vec(), "<..>"),
        (".", b".".to_vec(), "<.>"),
        ("empty", Vec::new(), "<>"),
        ("256 bytes", vec![b'n'; 256], "nnn"),
        ("300 bytes", vec![b'n'; 300], "nnn"),
        ("70,000 bytes", vec![b'n'; 70_000], "nnn"),
        ("with a NUL", b"nu\0l".to_vec(), "x00"),
        ("longer than any", vec![b'n'; LONG], "nnn"),
    ];
    for (what, name, shown) in names {
        let wants = [&hidden[..], &[("list", Hides(shown)), ("names", Hides(shown))]].concat();
        t.add(format!("name {what}"), r.entry(s.top, &name, 1, s.file.0), &wants).named(&name);
    }
    for kind in [0, 8, 99, 255] {
        let wants = [&hidden[..], &[("list", Hides("<odd>")), ("names", Hides("<odd>"))]].concat();
        t.add(format!("kind {kind}"), r.entry(s.top, b"odd", kind, s.file.0), &wants).named(b"odd");
    }
    // They lead nowhere.
    for (what, ino) in [("missing", 1 << 40), ("0", 0), ("-1", u64::MAX), ("virtual", Ino::VIRTUAL.0 + 1)] {
        let wants = [("list", Shows(SOUND)), ("list", Hides("<odd>")), ("lookup bad", Fails(Errno::EIO))];
        t.add(format!("inode {what}"), r.entry(s.top, b"odd", 1, ino), &wants[..2]).named(b"odd");
    }
    for (what, name, ino) in
        [("itself", "self", s.top), ("its parent", "up", Ino::ROOT), ("the trash", "bin", Ino::TRASH)]
    {
        t.add(
            format!("directory that holds {what}"),
            r.entry(s.top, name.as_bytes(), 2, ino.0),
            &[("names", Shows("<other>"))],
        )
        .named(name.as_bytes());
    }
    t.add("a circle below", r.entry(s.dir, b"up", 2, s.top.0), &[("names", Shows(SOUND))]);
    t.add("kind other than the inode's: directory", r.entry(s.top, b"odd", 2, s.file.0), &[]).named(b"odd");
    t.add("kind other than the inode's: file", r.entry(s.top, b"odd", 1, s.dir.0), &[]).named(b"odd");
    let key = format!("d{}", s.top);
    for n in [0, 1, 8, 10, 5000, LONG] {
        let wants = [&hidden[..], &[("list", Hides("<odd>"))]].concat();
        let value = vec![1; n];
        t.add(format!("{n} bytes for an entry"), r.redis(&[b"HSET", key.as_bytes(), b"odd", &value]), &wants)
            .named(b"odd");
    }
    let statement = |kind: &str, ino: &str| {
        format!("INSERT INTO jfs_edge(parent,name,inode,type) VALUES({},?1,{ino},{kind})", s.top)
    };
    for (kind, ino) in [("'x'", "5"), ("1", "'x'"), ("-1", "5"), ("1", "1.5"), ("x'01'", "5"), ("1000", "7")]
    {
        let wants = [&hidden[..], &[("list", Hides("<odd>"))]].concat();
        t.add(format!("entry of kind {kind} to {ino}"), r.sql(&statement(kind, ino), &[b"odd"]), &wants)
            .named(b"odd");
    }
    let text = format!("INSERT INTO jfs_edge(parent,name,inode,type) VALUES({},'text',{},1)", s.top, s.file);
    t.add("a name that is text", r.sql(&text, &[]), &[("list", Shows("<other>"))]).named(b"text");
    t.cases
}

pub(super) fn chunks(s: &Spot) -> Vec<Case> {
    let (r, mut t) = (&s.raw, Table::default());
    let good = Slice { pos: 0, id: SliceId(5), size: 100, off: 0, len: 100 };
    const MAX: u32 = u32::MAX;
    for (name, slice) in [
        ("len beyond the slice", Slice { len: 5000, ..good }),
        ("off beyond the slice", Slice { off: 500, ..good }),
        ("pos beyond the chunk", Slice { pos: 1 << 26, ..good }),
        ("pos at the end", Slice { pos: MAX, ..good }),
        ("len at the end", Slice { len: MAX, ..good }),
        ("pos and len at the end", Slice { pos: MAX, len: MAX, ..good }),
        ("off and len over", Slice { off: MAX, len: MAX, size: MAX, ..good }),
        ("off over", Slice { off: MAX - 10, ..good }),
        ("size at the end", Slice { size: MAX, ..good }),
        ("size 0", Slice { size: 0, ..good }),
        ("id 0 with a size", Slice { id: SliceId::ZEROS, size: MAX, ..good }),
        ("id -1", Slice { id: SliceId(u64::MAX), ..good }),
        ("id 2^63", Slice { id: SliceId(1 << 63), ..good }),
        ("id unused", Slice { id: SliceId(1 << 40), ..good }),
        ("all bits", Slice { pos: MAX, id: SliceId(u64::MAX), size: MAX, off: MAX, len: MAX }),
        ("no length", Slice { len: 0, ..good }),
        ("reserved beyond", Slice { off: MAX, ..Slice::reserved(MAX - 4, MAX) }),
        ("zeros with an offset", Slice { off: MAX, ..Slice::zeros(0, MAX) }),
    ] {
        t.add(
            name,
            r.chunk(s.file, 0, &[slice]),
            &[("stat", Shows("length")), ("truncate", Shows("length: 5"))],
        );
        t.add(
            format!("{name}, twice, and a good one"),
            r.chunk(s.file, 0, &[slice, slice, good, slice]),
            &[],
        );
    }
    let many: Vec<Slice> =
        (0..5000).map(|i| Slice { pos: i * 10, id: SliceId(u64::MAX - u64::from(i)), ..good }).collect();
    t.add("5000 records", r.chunk(s.file, 0, &many), &[]);
    for n in [1, 23, 25, 47, 24_001, LONG] {
        let wants = [("read", Fails(Errno::EIO)), ("stat", Shows("length")), ("list", Shows(SOUND))];
        t.add(format!("{n} bytes"), r.chunk_bytes(s.file, 0, &vec![0xff; n]), &wants);
    }
    t.add("no list", r.chunk(s.file, 0, &[]), &[("stat", Shows("length"))]);
    t.add("a list far beyond the end", r.chunk(s.file, MAX, &[good]), &[("chunks", Shows("4294967295"))]);
    t.add("a list of a number", r.redis(&[b"SET", format!("c{}_0", s.hard).as_bytes(), b"x"]), &[]);
    t.add(
        "a list beyond 32 bits",
        r.redis(&[b"RPUSH", format!("c{}_4294967296", s.file).as_bytes(), &good.encode()]),
        &[],
    );
    t.add("a list at -1", r.redis(&[b"RPUSH", format!("c{}_-1", s.file).as_bytes(), &good.encode()]), &[]);
    t.add("a list at text", r.redis(&[b"RPUSH", format!("c{}_x", s.file).as_bytes(), &good.encode()]), &[]);
    for (indx, slices) in
        [("-1", "x'00'"), ("4294967296", "x''"), ("'x'", "x''"), ("1", "'text of no length'"), ("1", "7")]
    {
        let insert = format!("INSERT INTO jfs_chunk(inode,indx,slices) VALUES({},{indx},{slices})", s.file);
        t.add(format!("list {slices} at {indx}"), r.sql(&insert, &[]), &[("stat", Shows("length"))]);
    }
    for n in ["-9223372036854775808", "9223372036854775807", "text", ""] {
        let redis = r.redis(&[b"HSET", b"sliceRef", b"k5_100", n.as_bytes()]);
        let sql = r.sql(&format!("INSERT OR REPLACE INTO jfs_chunk_ref VALUES(5,100,'{n}')"), &[]);
        let harm = [r.chunk(s.file, 0, &[good]), redis, sql].concat();
        let heal = [
            r.redis(&[b"HDEL", b"sliceRef", b"k5_100"]),
            r.sql("INSERT OR REPLACE INTO jfs_chunk_ref VALUES(5,100,1)", &[]),
        ];
        if r.dialect != Dialect::Typed {
            t.add(format!("{n:?} references"), harm, &[("truncate", Shows("length: 5"))])
                .healed(heal.concat(), false);
        }
    }
    for field in ["", "x", "1_x", "99999999999999999999_1", "-1_-1"] {
        t.add(format!("delayed {field:?}"), r.redis(&[b"HSET", b"delSlices", field.as_bytes(), b"odd"]), &[])
            .healed(r.redis(&[b"DEL", b"delSlices"]), false);
    }
    for (id, at) in [("-1", "-1"), ("9223372036854775807", "9223372036854775807"), ("5", "'x'")] {
        let insert = format!("INSERT INTO jfs_delslices VALUES({id},{at},x'00')");
        t.add(format!("delayed {id} at {at}"), r.sql(&insert, &[]), &[])
            .healed(r.sql("DELETE FROM jfs_delslices", &[]), false);
    }
    t.cases
}

/// A counter at each end, and as something else.
pub(super) fn counters(s: &Spot) -> Vec<Case> {
    let (r, mut t) = (&s.raw, Table::default());
    const LIMIT: i64 = 1 << 62;
    let ends = [i64::MAX, i64::MAX - 1, i64::MIN, i64::MIN + 1, LIMIT, LIMIT + 1, -1];
    for c in [Counter::UsedSpace, Counter::TotalInodes] {
        for n in ends {
            let full = n >= LIMIT;
            let wants = [
                ("load", Shows("Loaded")),
                ("statfs", Shows("VolumeStat")),
                ("near", if full { Fails(Errno::ENOSPC) } else { Shows("") }),
                // What gives back is never refused.
                ("unlink other", Shows("Removed")),
                ("statfs afterwards", Shows("VolumeStat")),
                ("list afterwards", Hides("<other>")),
            ];
            t.add(format!("{c:?} {n}"), r.counter(c, &n.to_string(), 0), &wants)
                .healed(r.counter(c, "0", n), full);
        }
        for text in ["text", "", "1.5", "99999999999999999999"] {
            // SQLite makes numbers of some.
            let number = r.dialect == Dialect::Sql && text.len() > 2 && text != "text";
            let statfs = if number { Shows("VolumeStat") } else { Fails(Errno::EIO) };
            let wants = [("statfs", statfs), ("stat", Shows("length")), ("list", Shows(SOUND))];
            t.add(format!("{c:?} {text:?}"), r.counter(c, text, 0), &wants)
                .healed(r.counter(c, "0", 0), true);
        }
    }
    t.add(
        "usedSpace a fraction",
        r.sql("UPDATE jfs_counter SET value=9.3e18 WHERE name='usedSpace'", &[]),
        &[("statfs", Shows("VolumeStat"))],
    )
    .healed(r.counter(Counter::UsedSpace, "0", 0), true);
    for c in [Counter::NextInode, Counter::NextChunk] {
        let bad = ["-1", "-9223372036854775808", "9223372036854775807", "9223372036854775000", "text", ""];
        for (i, n) in bad.into_iter().enumerate() {
            let number = n.parse::<i64>().is_ok();
            let wants = [("stat", Shows("length")), ("list", Shows(SOUND)), ("near", Fails(Errno::EIO))];
            // Through the trait it can only be brought near a value.
            if r.dialect != Dialect::Typed || number && n != "-1" {
                t.add(format!("{c:?} {n:?}"), r.counter(c, n, 4096), &wants[..if number { 3 } else { 2 }]);
                // Numbers that were not handed out before.
                let sound = (i + 1) * 1_000_000;
                t.healed(r.counter(c, &sound.to_string(), n.parse().unwrap_or(0)), true);
            }
        }
    }
    if r.dialect != Dialect::Typed {
        let wants = [("near", Fails(Errno::EIO)), ("list", Shows(SOUND)), ("stat", Shows("length"))];
        t.add("nextInode set back", r.counter(Counter::NextInode, "2", 0), &wants)
            .healed(r.counter(Counter::NextInode, "50000000", 2), true);
    }
    for c in [Counter::NextSession, Counter::NextTrash] {
        for n in ["-1", "-2", "9223372036854775807", "-9223372036854775808", "text", ""] {
            // No session has such a number, and none has that of another. There is no trash here.
            let session = if c == Counter::NextSession { Fails(Errno::EIO) } else { Shows("") };
            if r.dialect != Dialect::Typed {
                let wants = [("list", Shows(SOUND)), ("session", session)];
                t.add(format!("{c:?} {n:?}"), r.counter(c, n, 0), &wants)
                    .healed(r.counter(c, "100", 0), false);
            }
        }
    }
    if r.dialect != Dialect::Typed {
        let living = [
            r.redis(&[b"ZADD", b"allSessions", b"9000000000", b"1"]),
            r.redis(&[b"HSET", b"sessionInfos", b"1", b"{}"]),
            r.sql("INSERT OR REPLACE INTO jfs_session2 VALUES(1,9000000000,'{}')", &[]),
        ];
        let heal = [
            r.redis(&[b"DEL", b"allSessions", b"sessionInfos"]),
            r.sql("DELETE FROM jfs_session2", &[]),
            r.counter(Counter::NextSession, "100", 0),
        ];
        // It keeps its number.
        t.add(
            "NextSession set back",
            [living.concat(), r.counter(Counter::NextSession, "0", 0)].concat(),
            &[("session", Shows("")), ("sessions afterwards", Shows("SessionId(1)"))],
        )
        .healed(heal.concat(), false);
    }
    let long = vec![b'1'; LONG];
    t.add(
        "usedSpace longer than any",
        r.redis(&[b"SET", b"usedSpace", &long]),
        &[("statfs", Fails(Errno::EIO)), ("stat", Shows("length")), ("list", Shows(SOUND))],
    )
    .healed(r.redis(&[b"SET", b"usedSpace", b"0"]), true);
    t.add(
        "usedSpace a list",
        r.redis(&[b"DEL", b"usedSpace"])
            .into_iter()
            .chain(r.redis(&[b"RPUSH", b"usedSpace", b"x"]))
            .collect(),
        &[("stat", Shows("length"))],
    )
    .healed(r.redis(&[b"DEL", b"usedSpace"]), true);
    t.cases
}

pub(super) fn usage(s: &Spot) -> Vec<Case> {
    let (r, mut t) = (&s.raw, Table::default());
    const MAX: &str = "9223372036854775807";
    const MIN: &str = "-9223372036854775808";
    for text in [[MAX; 3], [MIN; 3], [MAX, "0", "0"], ["0", MAX, "0"], ["0", "0", MAX], ["-1"; 3]] {
        let wants = [
            ("list", Shows(SOUND)),
            ("near", Shows("")),
            ("unlink other", Shows("Removed")),
            ("truncate", Shows("length: 5")),
        ];
        t.add(format!("usage {text:?} of the directory"), r.dir_stat(s.top, text), &wants);
        t.add(format!("usage {text:?} below"), r.dir_stat(s.dir, text), &wants);
    }
    for text in ["text", "", "1.5", "99999999999999999999"] {
        t.add(
            format!("usage {text:?}"),
            r.dir_stat(s.dir, [text; 3]),
            &[("list", Shows(SOUND)), ("near", Shows(""))],
        );
    }
    for (limits, used) in [
        ([1 << 40, 1000], [MAX, MAX]),
        ([1 << 40, 1000], [MIN, MIN]),
        ([i64::MAX, i64::MAX], [MAX, MAX]),
        ([i64::MAX, i64::MAX], ["0", "0"]),
        ([i64::MIN, i64::MIN], [MAX, MAX]),
        ([i64::MIN, i64::MIN], [MIN, MIN]),
        ([-1, -1], [MAX, MAX]),
        ([0, 0], [MAX, MIN]),
        ([1, 1], ["-1", "-1"]),
    ] {
        let wants = [
            ("list", Shows(SOUND)),
            ("statfs dir", Shows("VolumeStat")),
            ("unlink inner", Shows("Removed")),
            ("near", Shows("")),
        ];
        t.add(format!("quota {limits:?} with {used:?} used"), r.dir_quota(s.dir, limits, used), &wants);
    }
    for text in ["text", "", "1.5"] {
        let clean = [
            r.redis(&[b"HDEL", b"dirQuotaUsedInodes", s.dir.to_string().as_bytes()]),
            r.sql(&format!("DELETE FROM jfs_dir_quota WHERE inode={}", s.dir), &[]),
        ];
        t.add(
            format!("quota with {text:?} used"),
            r.dir_quota(s.dir, [1 << 40, 1000], [text; 2]),
            &[("stat", Shows("length")), ("quotas", Shows("Dir(Ino(")), ("session", Shows(""))],
        )
        .healed(clean.concat(), false);
    }
    for raw in [&b""[..], b"x", &[0xff; 15], &[0xff; 17], &[0; 100], &vec![0; LONG]] {
        t.add(
            format!("{} bytes for a quota", raw.len()),
            r.redis(&[b"HSET", b"dirQuota", s.dir.to_string().as_bytes(), raw]),
            &[("quotas", Shows("Dir(Ino(")), ("session", Shows(""))],
        )
        .healed(r.redis(&[b"HDEL", b"dirQuotaUsedInodes", s.dir.to_string().as_bytes()]), false);
    }
    for field in ["", "x", "-1", "99999999999999999999"] {
        t.add(
            format!("quota of {field:?}"),
            r.redis(&[b"HSET", b"dirQuotaUsedInodes", field.as_bytes(), b"1"]),
            &[("stat", Shows("length")), ("quotas", Shows("Dir(Ino(")), ("session", Shows(""))],
        )
        .healed(r.redis(&[b"HDEL", b"dirQuotaUsedInodes", field.as_bytes()]), false);
    }
    for (key, n) in [
        ("userQuotaUsedSpace", MAX),
        ("userQuotaUsedInodes", MAX),
        ("groupQuotaUsedSpace", MIN),
        ("userQuotaUsedSpace", "text"),
        ("groupQuotaUsedInodes", ""),
    ] {
        t.add(
            format!("{key} {n:?}"),
            r.redis(&[b"HSET", key.as_bytes(), b"0", n.as_bytes()]),
            &[("stat", Shows("length")), ("near", Shows("")), ("quotas", Shows("Dir(Ino("))],
        )
        .healed(r.redis(&[b"HDEL", key.as_bytes(), b"0"]), false);
    }
    for (space, inodes) in [(MAX, MAX), (MIN, MIN), ("'text'", "''"), ("9.3e18", "1.5")] {
        let update = format!("UPDATE jfs_user_group_quota SET used_space={space},used_inodes={inodes}");
        t.add(
            format!("usage of owners {space} {inodes}"),
            r.sql(&update, &[]),
            &[("stat", Shows("length")), ("near", Shows("")), ("quotas", Shows("Dir(Ino("))],
        )
        .healed(r.sql("UPDATE jfs_user_group_quota SET used_space=0,used_inodes=0", &[]), false);
    }
    t.cases
}

pub(super) fn others(s: &Spot) -> Vec<Case> {
    let (r, mut t) = (&s.raw, Table::default());
    for (name, target) in [
        ("empty", Vec::new()),
        ("with a NUL", b"a\0b".to_vec()),
        ("of 5000 bytes", vec![b'x'; 5000]),
        ("of a megabyte", vec![b'x'; 1 << 20]),
        ("longer than any", vec![b'x'; LONG]),
    ] {
        let harm = [
            r.redis(&[b"SET", format!("s{}", s.link).as_bytes(), &target]),
            r.sql(&format!("UPDATE jfs_symlink SET target=?1 WHERE inode={}", s.link), &[&target]),
            r.typed(Write::PutSymlink(s.link, target.clone().into())),
        ];
        t.add(format!("target {name}"), harm.concat(), &[("list", Shows(SOUND)), ("stat", Shows("length"))]);
    }
    let gone = [
        r.redis(&[b"DEL", format!("s{}", s.link).as_bytes()]),
        r.sql(&format!("DELETE FROM jfs_symlink WHERE inode={}", s.link), &[]),
        r.typed(Write::DelSymlink(s.link)),
    ];
    t.add("no target", gone.concat(), &[("readlink", Fails(Errno::EIO)), ("unlink link", Shows("Removed"))]);
    for (name, key, value) in [
        ("empty name", Vec::new(), b"v".to_vec()),
        ("name with a NUL", b"user.\0".to_vec(), b"v".to_vec()),
        ("name without namespace", b"x".to_vec(), b"v".to_vec()),
        ("name of 5000 bytes", vec![b'u'; 5000], b"v".to_vec()),
        ("value of a megabyte", b"user.x".to_vec(), vec![1; 1 << 20]),
        ("value longer than any", b"user.x".to_vec(), vec![1; LONG]),
        ("name of an ACL", b"system.posix_acl_access".to_vec(), b"v".to_vec()),
    ] {
        let harm = [
            r.redis(&[b"HSET", format!("x{}", s.file).as_bytes(), &key, &value]),
            r.sql(
                &format!(
                    "INSERT OR REPLACE INTO jfs_xattr(inode,name,value) VALUES({},CAST(?1 AS TEXT),?2)",
                    s.file
                ),
                &[&key, &value],
            ),
            r.typed(Write::PutXattr(s.file, key.clone(), value.clone().into())),
        ];
        t.add(format!("xattr: {name}"), harm.concat(), &[("stat", Shows("length")), ("list", Shows(SOUND))]);
    }
    for (name, rule) in [
        ("empty", Vec::new()),
        ("3 bytes", vec![0; 3]),
        ("15 bytes", vec![0; 15]),
        ("2^32 users", [&[0; 8][..], &[0xff; 4], &[0; 4]].concat()),
        ("more behind", vec![0; 40]),
        ("all bits", vec![0xff; 22]),
        ("longer than any", vec![0xff; LONG]),
    ] {
        // The rule of the guarded file is the first one.
        let harm = [r.redis(&[b"HSET", b"acl", b"1", &rule]), r.typed(Write::PutAcl(1, rule.clone().into()))];
        t.add(format!("ACL: {name}"), harm.concat(), &[("stat", Shows("length")), ("names", Shows(SOUND))])
            .healed(good_acl(s), false);
    }
    t.add(
        "ACL: none",
        [r.redis(&[b"DEL", b"acl"]), r.sql("DELETE FROM jfs_acl", &[])].concat(),
        &[("names", Shows(SOUND))],
    )
    .healed(good_acl(s), false);
    for (column, value) in [
        ("owner", "-1"),
        ("mask", "70000"),
        ("owner", "'x'"),
        ("named_users", "x'00'"),
        ("named_groups", "'text'"),
        ("named_users", "zeroblob(60000)"),
    ] {
        t.add(
            format!("ACL: {column} {value}"),
            r.sql(&format!("UPDATE jfs_acl SET `{column}`={value}"), &[]),
            &[("names", Shows(SOUND))],
        )
        .healed(good_acl(s), false);
    }
    for (sid, score, info) in [
        ("x", "1", "{}"),
        ("-1", "1", "{}"),
        ("77", "inf", "{}"),
        ("77", "-inf", "{}"),
        ("77", "1e300", "no JSON"),
        ("77", "5", ""),
        ("99999999999999999999", "5", "[]"),
        ("77", "5", "{\"Version\":5}"),
        ("77", "-9e18", LONG_LIFE),
        ("77", "9e18", LONG_LIFE),
        ("77", "5", &"x".repeat(LONG)),
    ] {
        let harm = [
            r.redis(&[b"ZADD", b"allSessions", score.as_bytes(), sid.as_bytes()]),
            r.redis(&[b"HSET", b"sessionInfos", sid.as_bytes(), info.as_bytes()]),
            r.redis(&[b"ZADD", b"allSessions", b"9000000000", b"5"]),
            r.redis(&[b"HSET", b"sessionInfos", b"5", b"{}"]),
        ];
        let heal = [r.redis(&[b"DEL", b"allSessions"]), r.redis(&[b"DEL", b"sessionInfos"])];
        t.add(format!("session {sid} until {score} {:?}", excerpt(info)), harm.concat(), &BESIDE)
            .healed(heal.concat(), false);
    }
    for (sid, expire, info) in [
        ("-1", "1", "'{}'"),
        ("77", "9223372036854775807", "'no JSON'"),
        ("77", "-9223372036854775808", "NULL"),
        ("77", "'x'", "x'00ff'"),
        ("9223372036854775807", "5", "'[]'"),
        ("77", "-9223372036854775808", LONG_LIFE_SQL),
    ] {
        let insert = format!("INSERT OR REPLACE INTO jfs_session2 VALUES({sid},{expire},{info})");
        let beside = r.sql("INSERT OR REPLACE INTO jfs_session2 VALUES(5,9000000000,'{}')", &[]);
        t.add(
            format!("session {sid} until {expire} {info}"),
            [r.sql(&insert, &[]), beside].concat(),
            &BESIDE,
        )
        .healed(r.sql("DELETE FROM jfs_session2", &[]), false);
    }
    for (sid, expire, info) in [
        (u64::MAX, 1, "{}"),
        (77, i64::MAX, "no JSON"),
        (77, i64::MIN, ""),
        (77, i64::MIN, LONG_LIFE),
        (77, i64::MAX, LONG_LIFE),
    ] {
        let harm = r.typed(Write::PutSession(SessionId(sid), expire, info.as_bytes().into()));
        t.add(format!("session {sid} until {expire} {info:?}"), harm, &[("stat", Shows("length"))])
            .healed(r.typed(Write::DelSession(SessionId(sid))), false);
    }
    for member in ["", "x", "-1", "99999999999999999999", "1", "123456789"] {
        let harm = [
            r.redis(&[b"SADD", b"session77", member.as_bytes()]),
            r.redis(&[b"ZADD", b"allSessions", b"1", b"77"]),
        ];
        let heal = [r.redis(&[b"DEL", b"session77"]), r.redis(&[b"DEL", b"allSessions"])];
        t.add(format!("held: {member:?}"), harm.concat(), &[("stat", Shows("length"))])
            .healed(heal.concat(), false);
    }
    for ino in ["-1", "1", "'x'", "123456789"] {
        let harm = [
            r.sql(&format!("INSERT INTO jfs_sustained(sid,inode) VALUES(77,{ino})"), &[]),
            r.sql("INSERT OR REPLACE INTO jfs_session2 VALUES(77,1,NULL)", &[]),
        ];
        let heal = [r.sql("DELETE FROM jfs_sustained", &[]), r.sql("DELETE FROM jfs_session2", &[])];
        t.add(format!("held: {ino}"), harm.concat(), &[("stat", Shows("length"))])
            .healed(heal.concat(), false);
    }
    for (field, value) in
        [("", "W"), ("x", "W"), ("1_x", "R"), ("77_1", "?"), ("99999999999999999999_1", "W")]
    {
        t.add(
            format!("flock {field:?} {value}"),
            r.redis(&[b"HSET", format!("lockf{}", s.file).as_bytes(), field.as_bytes(), value.as_bytes()]),
            &[("stat", Shows("length"))],
        );
    }
    for list in [&b"x"[..], &[0xff; 23], &[0xff; 24], &[0; 48], &[0xff; 2400], &vec![0; LONG]] {
        let harm = [
            r.redis(&[b"HSET", format!("lockp{}", s.file).as_bytes(), b"77_1", list]),
            r.sql(
                &format!("INSERT INTO jfs_plock(inode,sid,owner,records) VALUES({},77,1,?1)", s.file),
                &[list],
            ),
            r.typed(Write::PutPlock(s.file, (SessionId(77), 1), Some(list.to_vec().into()))),
        ];
        t.add(
            format!("{} bytes for locks", list.len()),
            harm.concat(),
            &[("stat", Shows("length")), ("list", Shows(SOUND))],
        );
    }
    for kind in ["-1", "'x'", "300"] {
        t.add(
            format!("flock {kind}"),
            r.sql(
                &format!("INSERT INTO jfs_flock(inode,sid,owner,ltype) VALUES({},77,1,{kind})", s.file),
                &[],
            ),
            &[("stat", Shows("length"))],
        );
    }
    for (dir, n) in
        [("x", "1"), ("1", "x"), ("-1", "1"), ("99", "9223372036854775807"), ("99", "-9223372036854775808")]
    {
        t.add(
            format!("parent {dir:?} {n:?} times"),
            r.redis(&[b"HSET", format!("p{}", s.hard).as_bytes(), dir.as_bytes(), n.as_bytes()]),
            &[("list", Shows(SOUND))],
        );
    }
    for member in [
        "",
        "x",
        "1:x",
        "123456:9223372036854775807",
        "123456:18446744073709551615",
        "99999999999999999999:1",
    ] {
        t.add(
            format!("deleted {member:?}"),
            r.redis(&[b"ZADD", b"delfiles", b"1", member.as_bytes()]),
            &[("jobs", Shows("()"))],
        )
        .healed(r.redis(&[b"DEL", b"delfiles"]), false);
    }
    for (length, expire) in [("9223372036854775807", "1"), ("-1", "1"), ("5", "-9223372036854775808")] {
        t.add(
            format!("deleted with {length} bytes at {expire}"),
            r.sql(&format!("INSERT INTO jfs_delfile VALUES(123456,{length},{expire})"), &[]),
            &[("jobs", Shows("()"))],
        )
        .healed(r.sql("DELETE FROM jfs_delfile", &[]), false);
    }
    for length in [u64::MAX, i64::MAX as u64, 1 << 57] {
        let heal = r.typed(Write::DelDelfile(Ino(123_456), length));
        t.add(
            format!("deleted with {length} bytes"),
            r.typed(Write::PutDelfile(Ino(123_456), length, 1)),
            &[("jobs", Shows("()"))],
        )
        .healed(heal, false);
    }
    let heal = || {
        [
            r.redis(&[b"SET", b"setting", &s.setting]),
            r.sql("UPDATE jfs_setting SET value=CAST(?1 AS TEXT) WHERE name='format'", &[&s.setting]),
            r.typed(Write::PutSetting(s.setting.clone().into())),
        ]
        .concat()
    };
    for (name, doc) in [
        ("empty", Vec::new()),
        ("text", b"text".to_vec()),
        ("a list", b"[]".to_vec()),
        ("nothing in it", b"{}".to_vec()),
        ("no UTF-8", vec![0xff; 100]),
        ("cut", s.setting[..s.setting.len() / 2].to_vec()),
        ("deep", vec![b'['; 100_000]),
        ("longer than any", vec![b' '; 50 << 20]),
        ("numbers", br#"{"Name":5,"UUID":-1,"Capacity":-1}"#.to_vec()),
    ] {
        let harm = [
            r.redis(&[b"SET", b"setting", &doc]),
            r.sql("UPDATE jfs_setting SET value=CAST(?1 AS TEXT) WHERE name='format'", &[&doc]),
            r.typed(Write::PutSetting(doc.clone().into())),
        ];
        t.add(
            format!("settings: {name}"),
            harm.concat(),
            &[("load", Fails(Errno::EIO)), ("stat", Shows("length")), ("list", Shows(SOUND))],
        )
        .healed(heal(), false);
    }
    t.cases
}

/// Puts the rule of the guarded files back.
fn good_acl(s: &Spot) -> Vec<Harm> {
    let rule = [&[0, 6, 0, 4, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7, 0, 4][..], &[0; 4]].concat();
    let columns = "INSERT OR REPLACE INTO jfs_acl VALUES(1,6,4,4,0,x'000000070004',x'')";
    [
        s.raw.redis(&[b"HSET", b"acl", b"1", &rule]),
        s.raw.sql(columns, &[]),
        s.raw.typed(Write::PutAcl(1, rule.clone().into())),
    ]
    .concat()
}
