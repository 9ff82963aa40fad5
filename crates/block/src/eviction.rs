//! The ways of making room in the disk cache.

use std::fmt;
use std::str::FromStr;

/// Which block leaves the disk cache when it is full (`--cache-eviction`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Eviction {
    /// None: a full cache takes nothing new.
    None,
    /// Of two blocks taken at random, the one that was not used for longer.
    TwoRandom,
    /// The one that was not used for the longest time.
    Lru,
    /// S3-FIFO: those that were not used again soon after they came; a long scan does not wash out what is used often.
    #[default]
    S3Fifo,
}

impl Eviction {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::TwoRandom, Self::Lru, Self::S3Fifo];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::TwoRandom => "2-random",
            Self::Lru => "lru",
            Self::S3Fifo => "s3-fifo",
        }
    }
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Eviction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|e| e.name() == text)
            .ok_or_else(|| format!("{text:?} is no eviction; use none, 2-random, lru or s3-fifo"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for eviction in Eviction::ALL {
            assert_eq!(eviction.to_string().parse(), Ok(eviction));
        }
        assert_eq!("2-random".parse(), Ok(Eviction::TwoRandom));
        for bad in ["", "LRU", "2random", "fifo", "none "] {
            assert!(bad.parse::<Eviction>().is_err(), "{bad}");
        }
    }
}
