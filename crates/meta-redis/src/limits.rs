//! What an answer may take. The scripts compare before anything leaves the server: a client would hold an answer whole before it
//! could refuse it, and whoever can write to the server could have it hold 512 MiB for a record of 70 bytes.

use ciderfs_format::edge::NAME_MAX;

/// Attributes, entries, counters, usage, limits. Sound ones have some 80 bytes.
pub(crate) const SMALL: usize = 4 << 10;
/// The settings, targets of links, values of extended attributes, ACLs.
pub(crate) const VALUE: usize = 1 << 20;
/// Lists: slices of a chunk, names of extended attributes, parents, locks, what a walk finds at a time.
pub(crate) const LIST: usize = 16 << 20;
/// What an element of a list takes beside its bytes.
const ELEMENT: usize = 64;

/// The limits for the scripts.
pub(crate) fn as_lua() -> String {
    format!("local SMALL, VALUE, LIST, ELEMENT, NAME = {SMALL}, {VALUE}, {LIST}, {ELEMENT}, {NAME_MAX}\n")
}
