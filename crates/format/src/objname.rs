//! Names of objects and how slices are cut into them (`docs/format/objects.md#names`).

/// Object with the volume's UUID, relative to the volume prefix.
pub const UUID_KEY: &str = "juicefs_uuid";
/// Prefix of the objects by which a store is tried out; 10 letters or digits follow.
pub const TESTING_PREFIX: &str = "testing/";
/// Prefix of metadata backups.
pub const META_PREFIX: &str = "meta/";
/// Prefix of data blocks.
pub const CHUNKS_PREFIX: &str = "chunks/";

/// What the name of a block object says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockName {
    /// Slice id.
    pub id: u64,
    /// Index of the block in its slice.
    pub indx: u32,
    /// Bytes of the block before compression and encryption.
    pub len: u32,
}

/// Key of a block relative to the volume prefix. `blen` is the length before compression and encryption.
pub fn block_key(id: u64, indx: u32, blen: u32, hash_prefix: bool) -> String {
    let million = id / 1_000_000;
    if hash_prefix {
        format!("chunks/{:02X}/{million}/{id}_{indx}_{blen}", id % 256)
    } else {
        format!("chunks/{million}/{}/{id}_{indx}_{blen}", id / 1000)
    }
}

/// Full key of an object: the volume name, a slash and the relative key. Sharding uses this one.
pub fn full_key(volume: &str, key: &str) -> String {
    format!("{volume}/{key}")
}

/// Reads a relative block key of either layout. `None` for any other name, also for one with the right numbers in
/// the wrong directory: such an object does not belong to anybody and must not be touched.
pub fn parse_block_key(key: &str) -> Option<BlockName> {
    let (_, file) = key.strip_prefix(CHUNKS_PREFIX)?.rsplit_once('/')?;
    let mut parts = file.split('_');
    let name = BlockName {
        id: parts.next()?.parse().ok()?,
        indx: parts.next()?.parse().ok()?,
        len: parts.next()?.parse().ok()?,
    };
    [false, true].iter().any(|&hash| block_key(name.id, name.indx, name.len, hash) == key).then_some(name)
}

/// Blocks of a slice of `size` bytes.
pub fn block_count(size: u32, block_size: u32) -> u32 {
    size.div_ceil(block_size.max(1))
}

/// Length of block `indx` of a slice of `size` bytes; 0 beyond its end.
pub fn block_len(size: u32, indx: u32, block_size: u32) -> u32 {
    let start = u64::from(indx) * u64::from(block_size);
    u64::from(size).saturating_sub(start).min(u64::from(block_size)) as u32
}

/// All relative keys of a slice, in order.
pub fn slice_keys(id: u64, size: u32, block_size: u32, hash_prefix: bool) -> impl Iterator<Item = String> {
    (0..block_count(size, block_size))
        .map(move |indx| block_key(id, indx, block_len(size, indx, block_size), hash_prefix))
}

/// The bucket, 0 to `shards`-1, that holds an object: FNV-1a-32 of the **full** key.
pub fn shard_of(full_key: &str, shards: u32) -> u32 {
    let hash = full_key.bytes().fold(0x811C_9DC5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    hash.checked_rem(shards).unwrap_or(0)
}

/// Relative key of a metadata backup made at a time (unix seconds): `meta/dump-YYYY-MM-DD-HHMMSS.json.gz`, UTC.
pub fn backup_key(unix: i64) -> String {
    let t = crate::civil::Civil::from_unix(unix);
    format!(
        "meta/dump-{:04}-{:02}-{:02}-{:02}{:02}{:02}.json.gz",
        t.year, t.month, t.day, t.hour, t.minute, t.second
    )
}

/// The time (unix seconds) in the name of a metadata backup, with or without the `meta/`.
pub fn parse_backup_key(key: &str) -> Option<i64> {
    let name = key.strip_prefix(META_PREFIX).unwrap_or(key);
    let stamp = name.strip_prefix("dump-")?.strip_suffix(".json.gz")?;
    let num = |r: std::ops::Range<usize>| {
        stamp.get(r).filter(|s| s.bytes().all(|b| b.is_ascii_digit())).and_then(|s| s.parse::<u32>().ok())
    };
    let civil = crate::civil::Civil {
        year: num(0..4)?.into(),
        month: num(5..7)?,
        day: num(8..10)?,
        hour: num(11..13)?,
        minute: num(13..15)?,
        second: num(15..17)?,
    };
    // Comparing with the printed form rejects other separators and impossible dates.
    civil.to_unix().filter(|&t| backup_key(t) == format!("meta/{name}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_the_official_client() {
        let keys = |id, size, bs, hash| slice_keys(id, size, bs, hash).collect::<Vec<_>>();
        assert_eq!(
            keys(6, 10_000_000, 4 << 20, false),
            ["chunks/0/0/6_0_4194304", "chunks/0/0/6_1_4194304", "chunks/0/0/6_2_1611392"]
        );
        assert_eq!(full_key("vhash", &block_key(10, 33, 65536, true)), "vhash/chunks/0A/0/10_33_65536");
        assert_eq!(block_key(4097, 0, 5000, false), "chunks/0/4/4097_0_5000");
        assert_eq!(block_key(1_234_567_890, 7, 1, false), "chunks/1234/1234567/1234567890_7_1");
        assert_eq!(keys(1, 1 << 26, 4 << 20, false).len(), 16);
        assert_eq!(keys(9, 0, 4 << 20, false).len(), 0);
        assert_eq!(keys(9, 65537, 65536, false), ["chunks/0/0/9_0_65536", "chunks/0/0/9_1_1"]);
    }

    #[test]
    fn foreign_names() {
        for bad in [
            "",
            "chunks/",
            "chunks/0/0/",
            "chunks/0/0/6_0",
            "chunks/0/0/6_0_1_2",
            "chunks/0/1/6_0_1",
            "chunks/0/0/06_0_1",
            "chunks/0/0/+6_0_1",
            "chunks/0a/0/10_0_1",
            "x/0/0/6_0_1",
            "chunks/0/0/6_0_1/",
            "chunks/0/0/6_0_99999999999",
        ] {
            assert_eq!(parse_block_key(bad), None, "{bad}");
        }
    }

    #[test]
    fn fnv_and_shards() {
        // Published test values of FNV-1a with 32 bits: "" 811c9dc5, "a" e40c292c, "foobar" bf9cf968.
        assert_eq!(shard_of("", u32::MAX), 0x811c_9dc5);
        assert_eq!(shard_of("a", u32::MAX), 0xe40c_292c);
        assert_eq!(shard_of("foobar", 256), 0x68);
        assert_eq!(shard_of("foobar", 1), 0);
        assert_eq!(shard_of("foobar", 0), 0);
    }

    #[test]
    fn backups() {
        assert_eq!(backup_key(1_795_340_362), "meta/dump-2026-11-22-093922.json.gz");
        assert_eq!(backup_key(1_795_340_362).len(), "meta/".len() + 30);
        assert_eq!(parse_backup_key("meta/dump-2026-11-22-093922.json.gz"), Some(1_795_340_362));
        assert_eq!(parse_backup_key("dump-2026-11-22-093922.json.gz"), Some(1_795_340_362));
        for bad in
            ["dump-2026-13-22-093922.json.gz", "dump-2026-11-22T093922.json.gz", "dump-.json.gz", "meta/x"]
        {
            assert_eq!(parse_backup_key(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(id: u64, indx: u32, len: u32, hash: bool) {
            prop_assert_eq!(parse_block_key(&block_key(id, indx, len, hash)), Some(BlockName { id, indx, len }));
        }

        #[test]
        fn never_panics(s in "\\PC*", n: u32) {
            parse_block_key(&s);
            parse_backup_key(&s);
            parse_backup_key(&format!("dump-{s}.json.gz"));
            shard_of(&s, n);
        }

        #[test]
        fn lengths_add_up(size in 0u32..=1 << 26, shift in 16u32..=24) {
            let bs = 1 << shift;
            let n = block_count(size, bs);
            let lens: Vec<_> = (0..n).map(|i| block_len(size, i, bs)).collect();
            prop_assert_eq!(lens.iter().sum::<u32>(), size);
            prop_assert!(lens.iter().all(|&l| l > 0 && l <= bs));
            prop_assert!(lens.iter().rev().skip(1).all(|&l| l == bs));
            prop_assert_eq!(block_len(size, n, bs), 0);
        }
    }
}
