//! Sums at the end of 64 bits.

use bytes::Bytes;
use ciderfs_format::quota::QuotaLimits;
use ciderfs_format::{Slice, SliceId};

use super::*;
use crate::store::{Counter, DirStat, QuotaKey};

/// A commit whose sums do not fit is made whole, and what they are then can be read and added to again.
pub async fn sums_stay_in_bounds(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let (dir, user) = (QuotaKey::Dir(Ino(7)), QuotaKey::User(5));
    let unlimited = QuotaLimits::UNLIMITED;
    write(s, vec![Write::PutQuotaLimits(dir, unlimited), Write::InitDirStat(Ino(7))]).await;
    for (i, end) in [i64::MAX, i64::MIN, i64::MAX].into_iter().enumerate() {
        let all = DirStat { length: end, space: end, inodes: end };
        // From one end to the other takes more than one step; what is behind the sums is written too.
        for part in 0..4 {
            let mark = Bytes::from(format!("{i} {part}"));
            let writes = vec![
                Write::PutSymlink(Ino(8), "before".into()),
                Write::AddCounter(Counter::UsedSpace, end),
                Write::AddCounter(Counter::TotalInodes, end),
                Write::AddDirStat(Ino(7), all),
                Write::AddQuota(dir, end, end),
                Write::AddQuota(user, end, end),
                Write::AddParent(Ino(9), Ino(7), end),
                Write::PutSymlink(Ino(8), mark.clone()),
            ];
            let out = write(s, writes).await;
            assert_eq!(read(s, Read::Symlink(Ino(8))).await, Value::Bytes(Some(mark)), "half a commit");
            if part > 1 {
                assert_eq!(out[1..3], [Output::Int(end), Output::Int(end)]);
            }
        }
        assert_eq!(read(s, Read::Counter(Counter::UsedSpace)).await, Value::Int(end));
        assert_eq!(read(s, Read::Counter(Counter::TotalInodes)).await, Value::Int(end));
        assert_eq!(read(s, Read::DirStat(Ino(7))).await, Value::DirStat(Some(all)));
        for key in [dir, user] {
            let Value::Quota(Some(q)) = read(s, Read::Quota(key)).await else { panic!("{key:?}") };
            assert_eq!((q.used_space, q.used_inodes), (end, end), "{key:?}");
        }
    }
    // And back into what can be.
    write(s, vec![Write::AddCounter(Counter::UsedSpace, -4096)]).await;
    assert_eq!(read(s, Read::Counter(Counter::UsedSpace)).await, Value::Int(i64::MAX - 4096));
    // A slice whose count is damaged is not taken for dead.
    let slice = Slice { pos: 0, id: SliceId(5), size: 10, off: 0, len: 10 };
    write(
        s,
        vec![
            Write::NewSliceRef(SliceId(5), 10),
            Write::AddSliceRef(SliceId(5), 10, i64::MAX),
            Write::AddSliceRef(SliceId(5), 10, i64::MAX),
        ],
    )
    .await;
    write(s, vec![Write::AppendSlices(Ino(9), 0, vec![slice])]).await;
    let Output::Slices(left) = write_one(s, Write::TakeSlices(Ino(9), 0)).await else { panic!() };
    assert!(left[0].1 > 1 << 62, "{left:?}");
}
