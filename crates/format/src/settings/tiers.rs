//! What `format`, `config` and `mount` set of storage tiers and bandwidth. The official client leaves the same document behind for
//! the same flags.

use std::collections::BTreeMap;

use super::{MAX_TIER, Settings, SettingsError, Tier};
use crate::version::MIN_TIERS;

/// Characters of the key of a tag, as S3 has it.
const MAX_TAG_KEY: usize = 128;
/// Characters of the value of a tag, as S3 has it.
const MAX_TAG_VALUE: usize = 256;
/// Largest bandwidth that is taken for one, Mbps: 1000 Pbps.
const MAX_MBPS: f64 = 1e12;

impl Settings {
    /// `format --storage-class --tag`: class and tag of a new volume.
    pub fn set_first_class(&mut self, class: Option<&str>, tag: Option<&str>) -> Result<(), SettingsError> {
        self.change_tier(0, class, tag)?;
        // Clients before 1.4 look here.
        self.storage_class = self.tier(0).storage_class;
        Ok(())
    }

    /// `config --storage-class --tag`, with `--tier` if a tier is named: what the objects of its files are stored as from now on. An
    /// empty text stands for the store's default class, or no tag. Clients that know no tiers may no longer mount once one is named.
    pub fn set_tier(
        &mut self,
        tier: Option<u8>,
        class: Option<&str>,
        tag: Option<&str>,
    ) -> Result<(), SettingsError> {
        if let Some(id) = tier.filter(|id| *id > MAX_TIER) {
            return Err(SettingsError::Field {
                field: "Tiers",
                detail: format!("there is no tier {id}: they have the numbers 0 to {MAX_TIER}"),
            });
        }
        if tier.is_some() && class.is_none() && tag.is_none() {
            return Err(SettingsError::Field {
                field: "Tiers",
                detail: "a tier is changed with --storage-class or --tag".to_owned(),
            });
        }
        self.change_tier(tier.unwrap_or(0), class, tag)?;
        if tier.is_some() {
            self.raise_min_client(MIN_TIERS);
        }
        Ok(())
    }

    /// `mount --storage-class --tag`: what this client stores the files of tier 0 as. For a copy of the settings that is not stored.
    pub fn override_class(&mut self, class: Option<&str>, tag: Option<&str>) -> Result<(), SettingsError> {
        self.change_tier(0, class, tag)
    }

    fn change_tier(&mut self, id: u8, class: Option<&str>, tag: Option<&str>) -> Result<(), SettingsError> {
        class.map_or(Ok(()), check_class)?;
        tag.map_or(Ok(()), check_tag)?;
        self.tiers = self.all_tiers();
        let tier = self.tiers.entry(id).or_insert_with(|| Tier { id, ..Tier::default() });
        if let Some(class) = class {
            class.clone_into(&mut tier.storage_class);
        }
        if let Some(tag) = tag {
            tag.clone_into(&mut tier.tag);
        }
        Ok(())
    }

    /// Storage class and tag of a tier. Unknown ids mean tier 0; without tiers, tier 0 has the volume's class.
    pub fn tier(&self, id: u8) -> Tier {
        self.tiers.get(&id).or_else(|| self.tiers.get(&0)).cloned().unwrap_or_else(|| Tier {
            id: 0,
            storage_class: self.storage_class.clone(),
            tag: String::new(),
        })
    }

    /// Every tier that is set, with tier 0, which stands for the others.
    pub fn all_tiers(&self) -> BTreeMap<u8, Tier> {
        let mut tiers = self.tiers.clone();
        tiers.entry(0).or_insert_with(|| self.tier(0));
        tiers
    }

    /// Bandwidth of each client, up and down, Mbps; 0 for no limit.
    pub fn limits(&self) -> (u64, u64) {
        let mbps = |stored: i64| u64::try_from(stored).unwrap_or(0);
        (mbps(self.upload_limit), mbps(self.download_limit))
    }

    /// `config --upload-limit --download-limit`: bandwidth of each client, Mbps; 0 for no limit. See [`parse_mbps`].
    pub fn set_limits(&mut self, upload: Option<u64>, download: Option<u64>) {
        self.tiers = self.all_tiers();
        let stored = |mbps: u64| i64::try_from(mbps).unwrap_or(i64::MAX);
        self.upload_limit = upload.map_or(self.upload_limit, stored);
        self.download_limit = download.map_or(self.download_limit, stored);
    }
}

/// Is this a storage class that can be asked for? Which ones there are the store knows.
fn check_class(class: &str) -> Result<(), SettingsError> {
    if class.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(SettingsError::Field {
        field: "StorageClass",
        detail: format!(
            "{class:?} is not the name of a class, like STANDARD_IA: it has letters, digits and signs only"
        ),
    })
}

/// Is this a tag of an object, or none?
fn check_tag(tag: &str) -> Result<(), SettingsError> {
    let is_short = |text: &str, most| (1..=most).contains(&text.chars().count());
    let is_tag = |(key, value): (&str, &str)| {
        !value.contains('=') && is_short(key, MAX_TAG_KEY) && is_short(value, MAX_TAG_VALUE)
    };
    if tag.is_empty() || (!tag.contains(char::is_control) && tag.split_once('=').is_some_and(is_tag)) {
        return Ok(());
    }
    Err(SettingsError::Field {
        field: "Tag",
        detail: format!(
            "{tag:?} is not a tag: write KEY=VALUE, with at most {MAX_TAG_KEY} and {MAX_TAG_VALUE} characters"
        ),
    })
}

/// Reads a bandwidth: a number of Mbps, or one with the unit M, G, T or P, a thousand times each other. Parts of 1 Mbps are cut, since
/// nobody can store them; nothing and 0 stand for no limit.
pub fn parse_mbps(text: &str) -> Result<u64, SettingsError> {
    let bad = |why: &str| SettingsError::Field {
        field: "bandwidth",
        detail: format!("{text:?} {why}: write a number of Mbps, or one with M, G, T or P, like 100 or 1.5G"),
    };
    if text.is_empty() {
        return Ok(0);
    }
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => (&text[..at], unit.to_ascii_uppercase()),
        _ => (text, 'M'),
    };
    let times = match unit {
        'M' => 1.0,
        'G' => 1e3,
        'T' => 1e6,
        'P' => 1e9,
        _ => return Err(bad("has no unit of a bandwidth")),
    };
    // Not the words that Rust takes for numbers.
    let is_plain = number.starts_with(|c: char| c.is_ascii_digit() || c == '.' || c == '+');
    let mbps = number.parse::<f64>().ok().filter(|_| is_plain).ok_or_else(|| bad("is not a number"))? * times;
    if mbps > 0.0 && mbps < 1.0 {
        return Err(bad("is less than 1 Mbps, the smallest limit"));
    }
    if mbps > MAX_MBPS {
        return Err(bad("is too much"));
    }
    Ok(mbps as u64)
}
