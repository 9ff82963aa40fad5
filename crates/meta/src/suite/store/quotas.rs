//! Quotas: limits, usage, guards.

use ciderfs_format::Ino;
use ciderfs_format::quota::{Quota, QuotaLimits};

use super::*;
use crate::store::{Counter, DirStat, QuotaKey, Scan, Scanned};

const USER: QuotaKey = QuotaKey::User(1000);
const GROUP: QuotaKey = QuotaKey::Group(1000);
const DIR: QuotaKey = QuotaKey::Dir(Ino(1000));

fn quota(max_space: i64, max_inodes: i64, used_space: i64, used_inodes: i64) -> Quota {
    Quota { limits: QuotaLimits { max_space, max_inodes }, used_space, used_inodes }
}

fn limits(max_space: i64, max_inodes: i64) -> QuotaLimits {
    QuotaLimits { max_space, max_inodes }
}

async fn get(s: &dyn Store, key: QuotaKey) -> Option<Quota> {
    match read(s, Read::Quota(key)).await {
        Value::Quota(q) => q,
        other => panic!("{other:?}"),
    }
}

async fn scan(s: &dyn Store, scan: Scan) -> Vec<(QuotaKey, Quota)> {
    let items = s.scan(&scan, usize::MAX).await.unwrap().into_iter();
    let rows = items.map(|i| match i {
        Scanned::Quota(k, q) => (k, q),
        other => panic!("{other:?}"),
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by_key(|(k, _)| *k);
    rows
}

/// Limits and usage of each kind, apart from each other.
pub async fn quotas(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    for key in [USER, GROUP, DIR] {
        assert_eq!(get(s, key).await, None, "{key:?}");
        write(s, vec![Write::PutQuotaUsage(key, 5, 5), Write::DelQuota(key)]).await;
        assert_eq!(get(s, key).await, None, "{key:?}");
        assert_eq!(write_one(s, Write::PutQuotaLimits(key, limits(1 << 60, 7))).await, Output::None);
        assert_eq!(get(s, key).await, Some(quota(1 << 60, 7, 0, 0)));
        assert_eq!(write_one(s, Write::AddQuota(key, 1 << 55, 2)).await, Output::Int(1));
        assert_eq!(write_one(s, Write::AddQuota(key, -1, -3)).await, Output::Int(1));
        assert_eq!(get(s, key).await, Some(quota(1 << 60, 7, (1 << 55) - 1, -1)));
        // New limits leave the usage, new usage leaves the limits.
        write(s, vec![Write::PutQuotaLimits(key, limits(-1, 0))]).await;
        assert_eq!(get(s, key).await, Some(quota(-1, 0, (1 << 55) - 1, -1)));
        write(s, vec![Write::PutQuotaUsage(key, 4096, 1)]).await;
        assert_eq!(get(s, key).await, Some(quota(-1, 0, 4096, 1)));
    }
    assert_eq!(scan(s, Scan::DirQuotas).await, [(DIR, quota(-1, 0, 4096, 1))]);
    let owners = [(USER, quota(-1, 0, 4096, 1)), (GROUP, quota(-1, 0, 4096, 1))];
    assert_eq!(scan(s, Scan::OwnerQuotas).await, owners);
    write(s, vec![Write::DelQuota(USER)]).await;
    assert_eq!((get(s, USER).await, get(s, GROUP).await.is_some()), (None, true));
    // A directory takes its quota along, and only its own.
    let other = QuotaKey::Dir(Ino(7));
    write(s, vec![Write::PutQuotaLimits(other, limits(1, 1)), Write::DelDirStat(Ino(1000))]).await;
    assert_eq!((get(s, DIR).await, get(s, other).await.is_some()), (None, true));
    write(s, vec![Write::InitDirStat(Ino(7)), Write::DropOwnerQuotas, Write::DropDirStats]).await;
    assert_eq!(scan(s, Scan::OwnerQuotas).await, []);
    assert_eq!(scan(s, Scan::DirQuotas).await, [(other, quota(1, 1, 0, 0))]);
    assert_eq!(read(s, Read::DirStat(Ino(7))).await, Value::DirStat(None));
}

/// Owners get a row with their first use, directories only by a quota.
pub async fn usage_without_quotas(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    assert_eq!(write_one(s, Write::AddQuota(DIR, 4096, 1)).await, Output::Int(0));
    assert_eq!(get(s, DIR).await, None);
    for key in [USER, GROUP, QuotaKey::User(u32::MAX)] {
        assert_eq!(write_one(s, Write::AddQuota(key, 4096, 1)).await, Output::Int(1));
        assert_eq!(get(s, key).await, Some(quota(-1, -1, 4096, 1)));
    }
    let many = (10_000..12_500).map(|uid| Write::AddQuota(QuotaKey::User(uid), 1, 1));
    write(s, many.collect()).await;
    assert_eq!(scan(s, Scan::OwnerQuotas).await.len(), 2503);
}

/// Room under quotas, counters and in usage records.
pub async fn room_guards(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let stat = DirStat { length: 3, space: 4096, inodes: 1 };
    write(
        s,
        vec![
            Write::PutQuotaLimits(DIR, limits(1 << 40, 10)),
            Write::AddQuota(DIR, 1 << 39, 4),
            Write::AddCounter(Counter::UsedSpace, 1 << 50),
            Write::PutDirStat(Ino(5), stat),
        ],
    )
    .await;
    let room = |key, space, inodes| Guard::QuotaRoom { key, space, inodes };
    let counter = |n| Guard::CounterRoom(Counter::UsedSpace, n);
    for (guard, holds) in [
        (room(DIR, 1 << 39, 4), true),
        (room(DIR, i64::MAX, 4), true),
        (room(DIR, (1 << 39) - 1, 4), false),
        (room(DIR, i64::MAX, 3), false),
        (room(DIR, -5, i64::MAX), false),
        (room(USER, 0, 0), true),
        (room(USER, -1, 0), false),
        (counter(1 << 50), true),
        (counter((1 << 50) - 1), false),
        (Guard::CounterRoom(Counter::TotalInodes, 0), true),
        (Guard::CounterRoom(Counter::TotalInodes, -1), false),
        (Guard::DirStat(Ino(5), Some(stat)), true),
        (Guard::DirStat(Ino(5), Some(DirStat { inodes: 2, ..stat })), false),
        (Guard::DirStat(Ino(5), Some(DirStat { length: 0, ..stat })), false),
        (Guard::DirStat(Ino(5), None), false),
        (Guard::DirStat(Ino(6), None), true),
        (Guard::DirStat(Ino(6), Some(DirStat::default())), false),
    ] {
        let truth = read(s, guard.read()).await;
        assert_eq!(guard.holds(&truth), holds, "{guard:?}");
        let expect = if holds { Outcome::Done(vec![Output::None]) } else { Outcome::Conflict(vec![truth]) };
        assert_eq!(s.commit(&probe(vec![guard.clone()])).await.unwrap(), expect, "{guard:?}");
        assert_eq!(probed(s).await, holds, "{guard:?}");
    }
}
