//! Every decoder of the format, as a function of any bytes: for the tests of records and for the fuzz targets.

use std::sync::LazyLock;

use ciderfs_format::acl::{AclRule, decode_entries, encode_entries};
use ciderfs_format::compaction::plan;
use ciderfs_format::delslice::DelayedSlice;
use ciderfs_format::edge::is_name;
use ciderfs_format::envelope::{Algorithm, Envelope, PrivateKey};
use ciderfs_format::lock::{F_UNLCK, F_WRLCK, LockRecord, find_conflict, update};
use ciderfs_format::objname::{backup_key, block_key, parse_backup_key, parse_block_key};
use ciderfs_format::quota::{DirStat, Quota, QuotaLimits};
use ciderfs_format::redis_keys::{
    Keys, parse_delayed_slices_field, parse_delfile_member, parse_slice_ref_field,
};
use ciderfs_format::session::{SessionInfo, parse_lock_owner_field};
use ciderfs_format::settings::{Settings, parse_mbps};
use ciderfs_format::slice::{CHUNK_SIZE, CHUNKS_MAX, chunk_at, chunk_count, resolve};
use ciderfs_format::trash::parse_hour;
use ciderfs_format::version::Version;
use ciderfs_format::{
    Attr, Compression, Edge, Slice, Time, excerpt, is_password_cut, shown_address, shown_bucket,
};

/// What a target feeds bytes to.
type Target = fn(&[u8]);

/// Each decoder, by the name of its fuzz target. What is decoded is in the bounds that its users rely on, and its encoding decodes
/// to the same again.
pub const TARGETS: [(&str, Target); 15] = [
    ("attributes", attributes),
    ("entries", entries),
    ("slices", slices),
    ("delayed_slices", delayed_slices),
    ("locks", locks),
    ("quotas", quotas),
    ("acls", acls),
    ("sessions", sessions),
    ("settings", settings),
    ("keys", keys),
    ("names", names),
    ("versions", versions),
    ("shown", shown),
    ("blocks", blocks),
    ("private_keys", private_keys),
];

/// Decodes the bytes as each kind of record that an engine stores.
pub fn every_decoder(raw: &[u8]) {
    // Blocks and private keys are stored elsewhere, and each try at one costs the use of an RSA key.
    let is_record = |name: &str| !matches!(name, "blocks" | "private_keys");
    TARGETS.iter().filter(|(name, _)| is_record(name)).for_each(|(_, target)| target(raw));
}

pub fn attributes(raw: &[u8]) {
    if let Ok(a) = Attr::decode(raw) {
        assert!(a.length <= Attr::LENGTH_MAX && a.charged_space() <= 1 << 57);
        assert!([a.atime, a.mtime, a.ctime].iter().all(|t| t.nsec <= Time::NSEC_MAX));
        assert!(chunk_count(a.length) <= CHUNKS_MAX);
        assert_eq!(Attr::decode(&a.encode()).as_ref(), Ok(&a));
    }
}

pub fn entries(raw: &[u8]) {
    if let Ok(e) = Edge::decode(raw) {
        assert_eq!(e.encode()[..], *raw);
    }
    is_name(raw);
}

pub fn slices(raw: &[u8]) {
    if let Ok(slice) = Slice::decode(raw) {
        assert_eq!(Slice::decode_list(raw), Ok(vec![slice]));
    }
    if let Ok(list) = Slice::decode_list(raw) {
        assert_eq!(Slice::encode_list(&list), raw);
        resolved(&list);
    }
}

pub fn delayed_slices(raw: &[u8]) {
    if let Ok(list) = DelayedSlice::decode_list(raw) {
        assert_eq!(DelayedSlice::encode_list(&list), raw);
    }
}

pub fn locks(raw: &[u8]) {
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
}

pub fn quotas(raw: &[u8]) {
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
}

pub fn acls(raw: &[u8]) {
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
}

pub fn sessions(raw: &[u8]) {
    if let Ok(info) = SessionInfo::decode(raw) {
        let encoded = info.encode().expect("a session can be told");
        assert_eq!(SessionInfo::decode(&encoded).as_ref(), Ok(&info));
    }
    if let Ok(text) = std::str::from_utf8(raw) {
        parse_lock_owner_field(text);
    }
}

pub fn settings(raw: &[u8]) {
    if let Ok(mut settings) = Settings::parse(raw) {
        let text = settings.to_json().expect("settings can be written");
        assert_eq!(Settings::parse(text.as_bytes()).ok().as_ref(), Some(&settings));
        let _ =
            (settings.validate(), settings.check_mountable(), settings.compression(), settings.encryption());
        let _ = (settings.block_size(), settings.tier(3), settings.to_display_json());
        if settings.decrypt_secrets().is_ok() {
            assert!(!settings.key_encrypted);
        }
    }
    if let Ok(text) = std::str::from_utf8(raw) {
        let _ = parse_mbps(text);
        let _ = Algorithm::parse(text);
    }
}

/// Keys, fields and members of Redis.
pub fn keys(raw: &[u8]) {
    if let Ok(text) = std::str::from_utf8(raw) {
        parse_slice_ref_field(text);
        parse_delfile_member(text);
        parse_delayed_slices_field(text);
        Keys::plain().parse_chunk(text);
    }
}

/// Names of objects and of the trash.
pub fn names(raw: &[u8]) {
    let Ok(text) = std::str::from_utf8(raw) else { return };
    if let Some(b) = parse_block_key(text) {
        assert!([false, true].iter().any(|hash| block_key(b.id, b.indx, b.len, *hash) == text));
    }
    if let Some(time) = parse_backup_key(text) {
        assert!(backup_key(time).ends_with(text));
    }
    parse_hour(text);
}

pub fn versions(raw: &[u8]) {
    if let Some(version) = std::str::from_utf8(raw).ok().and_then(Version::parse) {
        assert_eq!(Version::parse(&version.to_string()).as_ref(), Some(&version));
    }
}

/// What users and servers say, made fit to be shown.
pub fn shown(raw: &[u8]) {
    let text = String::from_utf8_lossy(raw);
    assert!(excerpt(&text).chars().count() <= 503);
    let _ = (shown_address(text.as_ref()), shown_bucket("sftp", &text), is_password_cut(&text));
}

/// Stored blocks, compressed and encrypted.
pub fn blocks(raw: &[u8]) {
    let mut out = vec![0; 4096];
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let _ = compression.decompress_into(raw, &mut out);
        if let Ok(block) = compression.decompress(raw, 100) {
            assert_eq!(block.len(), 100);
        }
    }
    static ENVELOPE: LazyLock<Envelope> = LazyLock::new(|| {
        let key = PrivateKey::load(include_str!("../../testdata/keys/rsa-pkcs1.pem"), None);
        Envelope::new(key.expect("a key"), Algorithm::Aes256Gcm)
    });
    if let Ok(block) = ENVELOPE.open(raw) {
        assert!(block.len() < raw.len());
    }
    let _ = ENVELOPE.open_into(raw, &mut out);
}

pub fn private_keys(raw: &[u8]) {
    let Ok(pem) = std::str::from_utf8(raw) else { return };
    // How dear a passphrase of the new form is says the key itself, and whoever has it has made it.
    let passphrase = (!pem.contains("ENCRYPTED PRIVATE KEY")).then_some("correct-horse");
    if let Ok(key) = PrivateKey::load(pem, passphrase) {
        assert!(key.modulus_len() > 0);
    }
}

/// A list of slices resolves to what lies in its chunk, one behind the other, however damaged its records are.
fn resolved(list: &[Slice]) {
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
