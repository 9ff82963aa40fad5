//! Reproducible randomness for the exercisers.

use std::path::Path;

/// `SplitMix64`: small, and the same for ever.
pub struct Rng(u64);

impl Rng {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True `n` times in a hundred.
    pub fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }

    /// One of a list.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    /// One of a list of choices with weights.
    pub fn weighted<T: Copy>(&mut self, list: &[(u64, T)]) -> T {
        let mut n = self.below(list.iter().map(|(w, _)| w).sum());
        for (weight, choice) in list {
            if n < *weight {
                return *choice;
            }
            n -= weight;
        }
        list[0].1
    }
}

/// The seed of CI, whose verdict is on the change and not on what a new sequence finds in what was there before.
const CI_SEED: u64 = 20_261_125;

/// The seed of a run: `CIDERFS_SEED`, or in CI always the same, or another one every time. It is printed if the test fails.
pub struct Seed(pub u64);

impl Seed {
    /// Chooses it.
    pub fn new() -> Self {
        let given = std::env::var("CIDERFS_SEED").ok().and_then(|s| s.parse().ok());
        let in_ci = std::env::var_os("CI").is_some().then_some(CI_SEED);
        Self(given.or(in_ci).unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let place = Path::new(env!("CARGO_TARGET_TMPDIR")).as_os_str().len() as u64;
            Rng::new(now.as_nanos() as u64 ^ place ^ (u64::from(std::process::id()) << 40)).next() >> 16
        }))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("run again with CIDERFS_SEED={}", self.0);
        }
    }
}

/// How many operations a run has: `CIDERFS_STEPS`, or as many as there is time for in every test run.
pub fn steps(default: usize) -> usize {
    std::env::var("CIDERFS_STEPS").ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}
