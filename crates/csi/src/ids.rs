//! Names and ids of volumes and snapshots.
//!
//! The id of a volume is its name wherever that can be the name of a directory: that is how the official driver has it
//! (`pvc-UUID`). The id of a snapshot is its own and that of its volume (`ID|VOLUME`), as there.

use aws_lc_rs::digest::{SHA256, digest};
use tonic::Status;

/// Longest name that the interface allows, in bytes.
pub const NAME_MAX: usize = 128;
/// Longest name that is an id as it is: that of a snapshot, which holds two of them, has at most [`NAME_MAX`] bytes, too.
const PLAIN_MAX: usize = 62;
/// Bytes of a digest in an id; each is two characters.
const DIGEST: usize = 20;

/// Attribute of a volume whose directory the controller has made before anybody can use it: clients make none.
pub const MADE: &str = "ciderfs/made";

/// The id of a new volume or snapshot.
pub fn of_name(prefix: &str, name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.len() <= PLAIN_MAX && is_usable(name) && name.chars().all(is_plain) {
        return name.to_owned();
    }
    let digest = digest(&SHA256, name.as_bytes());
    let hex: String = digest.as_ref().iter().take(DIGEST).map(|b| format!("{b:02x}")).collect();
    format!("{prefix}-{hex}")
}

/// Can an id be the name of a directory of a volume, beside what is hidden there?
pub fn is_usable(id: &str) -> bool {
    !id.is_empty() && id.len() <= 255 && !id.starts_with('.') && !id.contains(['/', '\0', '|'])
}

/// Does it look like the id that Kubernetes gives a volume: `pvc-UUID`? A directory of such a name may be one of the official
/// driver's, which leaves no mark on it.
pub fn is_of_a_claim(id: &str) -> bool {
    let Some(uuid) = id.strip_prefix("pvc-") else { return false };
    uuid.len() == 36
        && uuid.char_indices().all(|(i, c)| match i {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit() && !c.is_ascii_uppercase(),
        })
}

/// The id of a snapshot in the words of the interface.
pub fn snapshot_handle(id: &str, volume: &str) -> String {
    format!("{id}|{volume}")
}

/// The parts of such an id: its own and that of the volume.
pub fn of_snapshot(handle: &str) -> Option<(&str, &str)> {
    let (id, volume) = handle.split_once('|')?;
    (is_usable(id) && is_usable(volume)).then_some((id, volume))
}

/// A name that a request must have.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn check_name<'a>(what: &str, name: &'a str) -> Result<&'a str, Status> {
    if name.is_empty() {
        return Err(Status::invalid_argument(format!("{what} is missing")));
    }
    let is_banned =
        |c: char| matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{9f}');
    if name.len() > NAME_MAX {
        return Err(Status::invalid_argument(format!("{what} has more than {NAME_MAX} bytes")));
    }
    if name.contains(is_banned) {
        return Err(Status::invalid_argument(format!("{what} has control characters")));
    }
    Ok(name)
}

/// An id that a request must have. Any length: one of ours is not too long, and another one is not found.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn check_id<'a>(what: &str, id: &'a str) -> Result<&'a str, Status> {
    if id.is_empty() { Err(Status::invalid_argument(format!("{what} is missing"))) } else { Ok(id) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_where_they_can_be() {
        let claim = "pvc-5d2b1c9a-7d0c-4a2b-9a35-3a1f6a4d2c11";
        assert_eq!(of_name("vol", claim), claim);
        assert!(is_of_a_claim(claim));
        for other in [
            "pvc-",
            "pvc-5D2B1C9A-7D0C-4A2B-9A35-3A1F6A4D2C11",
            "data",
            "pvc-5d2b1c9a/7d0c-4a2b-9a35-3a1f6a4d2c11",
        ] {
            assert!(!is_of_a_claim(other), "{other}");
        }
        let mut seen = std::collections::HashSet::new();
        for odd in ["a/b", "..", ".", ".trash", "Größe", "a|b", &"x".repeat(63), &"x".repeat(128)] {
            let id = of_name("vol", odd);
            assert!(is_usable(&id) && id.starts_with("vol-") && id.len() == 44, "{odd}: {id}");
            assert!(seen.insert(id));
        }
    }

    #[test]
    fn snapshots() {
        let longest = snapshot_handle(&of_name("snap", &"s".repeat(62)), &of_name("vol", &"v".repeat(62)));
        assert!(longest.len() <= NAME_MAX);
        assert_eq!(of_snapshot("snapshot-1|pvc-1"), Some(("snapshot-1", "pvc-1")));
        for wrong in ["", "snapshot-1", "|", "a|", "|b", "../a|b", "a|..", "a|b|c", "a|b/c"] {
            assert_eq!(of_snapshot(wrong), None, "{wrong}");
        }
    }
}
