//! Reproducible randomness.

/// `SplitMix64`: small, and the same for ever.
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True `n` times in a thousand.
    pub(super) fn per_mille(&mut self, n: u64) -> bool {
        self.below(1000) < n
    }

    pub(super) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// The seed of a test: `CIDERFS_SEED`, or another one every time. It is printed if the test fails.
pub(super) struct Seed(pub(super) u64);

impl Seed {
    pub(super) fn new() -> Self {
        let given = std::env::var("CIDERFS_SEED").ok().and_then(|s| s.parse().ok());
        Self(given.unwrap_or_else(|| rand::random::<u64>() >> 16))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("run again with CIDERFS_SEED={}", self.0);
        }
    }
}
