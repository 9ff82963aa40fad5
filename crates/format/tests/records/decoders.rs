//! Every decoder of what an engine stores, on the same bytes: for the property test and for the fuzz target.

use ciderfs_format::acl::{AclRule, decode_entries, encode_entries};
use ciderfs_format::compaction::plan;
use ciderfs_format::delslice::DelayedSlice;
use ciderfs_format::edge::is_name;
use ciderfs_format::lock::{F_UNLCK, F_WRLCK, LockRecord, find_conflict, update};
use ciderfs_format::quota::{DirStat, Quota, QuotaLimits};
use ciderfs_format::redis_keys::{
    Keys, parse_delayed_slices_field, parse_delfile_member, parse_slice_ref_field,
};
use ciderfs_format::session::{SessionInfo, parse_lock_owner_field};
use ciderfs_format::settings::Settings;
use ciderfs_format::slice::{CHUNK_SIZE, CHUNKS_MAX, chunk_at, chunk_count, resolve};
use ciderfs_format::trash::parse_hour;
use ciderfs_format::{Attr, Edge, Slice, Time};

/// Decodes the bytes as each kind of record. What is decoded is in the bounds that its users rely on, and its encoding decodes to
/// the same again.
pub fn every_decoder(raw: &[u8]) {
    if let Ok(a) = Attr::decode(raw) {
        assert!(a.length <= Attr::LENGTH_MAX && a.charged_space() <= 1 << 57);
        assert!([a.atime, a.mtime, a.ctime].iter().all(|t| t.nsec <= Time::NSEC_MAX));
        assert!(chunk_count(a.length) <= CHUNKS_MAX);
        assert_eq!(Attr::decode(&a.encode()).as_ref(), Ok(&a));
    }
    if let Ok(e) = Edge::decode(raw) {
        assert_eq!(e.encode()[..], *raw);
    }
    is_name(raw);
    if let Ok(list) = Slice::decode_list(raw) {
        assert_eq!(Slice::encode_list(&list), raw);
        slices(&list);
    }
    if let Ok(list) = DelayedSlice::decode_list(raw) {
        assert_eq!(DelayedSlice::encode_list(&list), raw);
    }
    if let Ok(list) = LockRecord::decode_list(raw) {
        assert_eq!(LockRecord::encode_list(&list), raw);
        for kind in [F_WRLCK, F_UNLCK] {
            for change in list.iter().map(|l| LockRecord { kind, ..*l }) {
                let after = update(&list, change);
                assert!(after.len() <= 2 * list.len() + 1);
                find_conflict(&after, &change);
            }
        }
    }
    if let Ok(q) = QuotaLimits::decode(raw) {
        assert_eq!(q.encode()[..], *raw);
        q.exceeded_by(i64::MAX, i64::MIN);
    }
    if let Ok(q) = Quota::decode(raw) {
        assert_eq!(q.encode()[..], *raw);
    }
    if let Ok(s) = DirStat::decode(raw) {
        assert_eq!(s.encode()[..], *raw);
    }
    if let Ok(rule) = AclRule::decode(raw) {
        assert_eq!(rule.encode(), raw);
        let _ = AclRule::from_xattr(&rule.to_xattr());
        let _ = (rule.mode_bits(), rule.with_mode(0o777), rule.inherit(0o777));
    }
    if let Ok(entries) = decode_entries(raw) {
        assert_eq!(encode_entries(&entries), raw);
    }
    if let Ok(rule) = AclRule::from_xattr(raw) {
        assert_eq!(AclRule::decode(&rule.encode()).as_ref(), Ok(&rule));
    }
    if let Ok(info) = SessionInfo::decode(raw) {
        let encoded = info.encode().expect("a session can be told");
        assert_eq!(SessionInfo::decode(&encoded).as_ref(), Ok(&info));
    }
    if let Ok(settings) = Settings::parse(raw) {
        let text = settings.to_json().expect("settings can be written");
        assert_eq!(Settings::parse(text.as_bytes()).ok().as_ref(), Some(&settings));
        let _ =
            (settings.validate(), settings.check_mountable(), settings.compression(), settings.encryption());
        let _ = (settings.block_size(), settings.tier(3), settings.to_display_json());
    }
    if let Ok(text) = std::str::from_utf8(raw) {
        parse_lock_owner_field(text);
        parse_slice_ref_field(text);
        parse_delfile_member(text);
        parse_delayed_slices_field(text);
        Keys::plain().parse_chunk(text);
        parse_hour(text);
    }
}

/// A list of slices resolves to what lies in its chunk, one behind the other, however damaged its records are.
fn slices(list: &[Slice]) {
    let visible = resolve(list);
    let mut at = 0;
    for e in &visible {
        assert_eq!(u64::from(e.pos), at);
        at = e.end();
    }
    assert!(at <= CHUNK_SIZE && visible.len() <= 2 * list.len() + 1);
    if let Some(plan) = plan(list) {
        assert!(plan.skipped + plan.taken <= list.len());
        assert!(u64::from(plan.pos) + u64::from(plan.size) <= CHUNK_SIZE);
    }
    for s in list {
        let at = s.id >> 7;
        let parts: Vec<(u32, Slice)> = s.at_offset(at).collect();
        assert_eq!(parts.iter().map(|(_, p)| u64::from(p.len)).sum::<u64>(), u64::from(s.len));
        assert!(chunk_at(at) <= CHUNKS_MAX);
    }
}
