//! Agreeing on version and capabilities with the kernel.

use zerocopy::IntoBytes;

use crate::abi::{self, init as cap, wire};
use crate::cursor::Cursor;

/// Pages of one request when the kernel cannot be told (before MAX_PAGES).
const DEFAULT_MAX_PAGES: u32 = 32;
/// Smallest `max_write` that the kernel uses, in bytes.
const MIN_MAX_WRITE: u32 = 4096;

/// First byte of what [`Negotiated::to_bytes`] makes.
const BLOB_VERSION: u8 = 1;
/// First minor version with INC_EPOCH.
const EPOCH_MINOR: u32 = 44;

/// How the kernel's cached data follows changes made elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataInvalidation {
    /// Cached pages are dropped when modification time or size differ (AUTO_INVAL_DATA).
    Auto,
    /// Only an explicit notification or an open without KEEP_CACHE drops them (EXPLICIT_INVAL_DATA).
    Explicit,
}

/// Use of READDIRPLUS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readdirplus {
    /// Never.
    Off,
    /// The kernel decides each time.
    Auto,
    /// For every listing.
    Always,
}

/// What the file system would like; the kernel grants what it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitConfig {
    /// Largest request in bytes, 4 KiB to 1 MiB (more needs the sysctl `fs.fuse.max_pages_limit`).
    pub max_write: u32,
    /// Upper bound of the kernel's read-ahead in bytes; see [`crate::mount::set_read_ahead_kb`] for raising it.
    pub max_readahead: u32,
    /// Most asynchronous requests (read-ahead, asynchronous direct I/O) in flight.
    pub max_background: u16,
    /// From this many on the kernel treats the file system as congested.
    pub congestion_threshold: u16,
    /// Granularity of timestamps in nanoseconds.
    pub time_gran: u32,
    /// ASYNC_READ.
    pub async_read: bool,
    /// ATOMIC_O_TRUNC: OPEN carries O_TRUNC instead of a SETATTR before it.
    pub atomic_o_trunc: bool,
    /// PARALLEL_DIROPS.
    pub parallel_dirops: bool,
    /// READDIRPLUS.
    pub readdirplus: Readdirplus,
    /// Data cache rule.
    pub data_invalidation: DataInvalidation,
    /// POSIX_LOCKS: fcntl locks are sent here instead of being local.
    pub posix_locks: bool,
    /// FLOCK_LOCKS: the same for flock.
    pub flock_locks: bool,
    /// HANDLE_KILLPRIV_V2: the file system clears set-user-id and set-group-id when told so.
    pub handle_killpriv_v2: bool,
    /// CACHE_SYMLINKS.
    pub cache_symlinks: bool,
    /// WRITEBACK_CACHE.
    pub writeback_cache: bool,
    /// POSIX_ACL; implies `dont_mask`.
    pub posix_acl: bool,
    /// DONT_MASK: the umask is applied by the file system.
    pub dont_mask: bool,
    /// NO_OPEN_SUPPORT: the file system may answer OPEN with ENOSYS.
    pub no_open: bool,
    /// NO_OPENDIR_SUPPORT: the file system may answer OPENDIR with ENOSYS.
    pub no_opendir: bool,
    /// ASYNC_DIO.
    pub async_dio: bool,
    /// EXPORT_SUPPORT: LOOKUP of "." and ".." works, for NFS export.
    pub export: bool,
    /// SETXATTR_EXT.
    pub setxattr_ext: bool,
    /// HAS_IOCTL_DIR.
    pub ioctl_dir: bool,
    /// DIRECT_IO_ALLOW_MMAP.
    pub direct_io_mmap: bool,
    /// CREATE_SUPP_GROUP; see [`crate::Request::supplementary_groups`].
    pub supplementary_groups: bool,
    /// ALLOW_IDMAP (needs the mount option `default_permissions`).
    pub allow_idmap: bool,
    /// PASSTHROUGH with stacking depth 1.
    pub passthrough: bool,
    /// Seconds after which the kernel aborts the connection because of an unanswered request; 0 never.
    pub request_timeout: u16,
    /// Have the kernel send again what was not answered, when somebody asks for it ([`crate::Notifier::resend`]). Linux 6.9.
    pub resend: bool,
}

impl Default for InitConfig {
    fn default() -> Self {
        Self {
            max_write: 1 << 20,
            max_readahead: 1 << 20,
            max_background: 64,
            congestion_threshold: 48,
            time_gran: 1,
            async_read: true,
            atomic_o_trunc: true,
            parallel_dirops: true,
            readdirplus: Readdirplus::Auto,
            data_invalidation: DataInvalidation::Auto,
            posix_locks: true,
            flock_locks: true,
            handle_killpriv_v2: false,
            cache_symlinks: true,
            writeback_cache: false,
            posix_acl: false,
            dont_mask: false,
            no_open: false,
            no_opendir: false,
            async_dio: true,
            export: true,
            setxattr_ext: true,
            ioctl_dir: true,
            direct_io_mmap: true,
            supplementary_groups: false,
            allow_idmap: false,
            passthrough: false,
            request_timeout: 0,
            resend: true,
        }
    }
}

impl InitConfig {
    /// Capability bits asked for.
    fn wanted(&self) -> u64 {
        let on = |want: bool, bits: u64| if want { bits } else { 0 };
        on(self.async_read, cap::ASYNC_READ)
            | on(self.atomic_o_trunc, cap::ATOMIC_O_TRUNC)
            | on(self.parallel_dirops, cap::PARALLEL_DIROPS)
            | match self.readdirplus {
                Readdirplus::Off => 0,
                Readdirplus::Auto => cap::DO_READDIRPLUS | cap::READDIRPLUS_AUTO,
                Readdirplus::Always => cap::DO_READDIRPLUS,
            }
            | match self.data_invalidation {
                DataInvalidation::Auto => cap::AUTO_INVAL_DATA,
                DataInvalidation::Explicit => cap::EXPLICIT_INVAL_DATA,
            }
            | on(self.posix_locks, cap::POSIX_LOCKS)
            | on(self.flock_locks, cap::FLOCK_LOCKS)
            | on(self.handle_killpriv_v2, cap::HANDLE_KILLPRIV_V2)
            | on(self.cache_symlinks, cap::CACHE_SYMLINKS)
            | on(self.writeback_cache, cap::WRITEBACK_CACHE)
            | on(self.posix_acl, cap::POSIX_ACL | cap::DONT_MASK)
            | on(self.dont_mask, cap::DONT_MASK)
            | on(self.no_open, cap::NO_OPEN_SUPPORT)
            | on(self.no_opendir, cap::NO_OPENDIR_SUPPORT)
            | on(self.async_dio, cap::ASYNC_DIO)
            | on(self.export, cap::EXPORT_SUPPORT)
            | on(self.setxattr_ext, cap::SETXATTR_EXT)
            | on(self.ioctl_dir, cap::HAS_IOCTL_DIR)
            | on(self.direct_io_mmap, cap::DIRECT_IO_ALLOW_MMAP)
            | on(self.supplementary_groups, cap::CREATE_SUPP_GROUP)
            | on(self.allow_idmap, cap::ALLOW_IDMAP)
            | on(self.passthrough, cap::PASSTHROUGH)
            | on(self.request_timeout > 0, cap::REQUEST_TIMEOUT)
            | cap::BIG_WRITES
            | cap::MAX_PAGES
            | cap::ABORT_ERROR
            | cap::HAS_EXPIRE_ONLY
            | on(self.resend, cap::HAS_RESEND)
            | cap::INIT_EXT
    }
}

/// What kernel and configuration agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// Minor version spoken.
    pub minor: u32,
    /// Minor version that the kernel offered.
    pub kernel_minor: u32,
    /// Capability bits in force ([`crate::abi::init`]).
    pub capabilities: u64,
    /// Capability bits that the kernel offered.
    pub offered: u64,
    /// Largest WRITE and READ in bytes.
    pub max_write: u32,
    /// Largest request in pages.
    pub max_pages: u16,
    /// Read-ahead in bytes.
    pub max_readahead: u32,
    /// See [`InitConfig`].
    pub max_background: u16,
    /// See [`InitConfig`].
    pub congestion_threshold: u16,
    /// See [`InitConfig`].
    pub time_gran: u32,
}

impl Negotiated {
    /// Whether all of these capability bits are in force.
    pub fn has(&self, bits: u64) -> bool {
        self.capabilities & bits == bits
    }

    /// Whether names can be expired instead of dropped.
    pub fn can_expire(&self) -> bool {
        self.has(cap::HAS_EXPIRE_ONLY)
    }

    /// Whether the kernel sends what was not answered again, to whoever takes over ([`crate::Notifier::resend`]).
    pub fn can_resend(&self) -> bool {
        self.has(cap::HAS_RESEND)
    }

    /// Whether all names can be made to expire at once ([`crate::Notifier::inc_epoch`]).
    pub fn can_inc_epoch(&self) -> bool {
        self.kernel_minor >= EPOCH_MINOR
    }

    /// For another process that takes the connection over.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![BLOB_VERSION];
        for n in [self.minor, self.kernel_minor, self.max_write, self.max_readahead, self.time_gran] {
            bytes.extend(n.to_le_bytes());
        }
        for n in [self.capabilities, self.offered] {
            bytes.extend(n.to_le_bytes());
        }
        for n in [self.max_pages, self.max_background, self.congestion_threshold] {
            bytes.extend(n.to_le_bytes());
        }
        bytes
    }

    /// What [`Self::to_bytes`] has made; `None` of anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut c = Cursor::new(bytes.strip_prefix(&[BLOB_VERSION])?);
        let this = Self {
            minor: c.get("minor").ok()?,
            kernel_minor: c.get("minor").ok()?,
            max_write: c.get("max_write").ok()?,
            max_readahead: c.get("max_readahead").ok()?,
            time_gran: c.get("time_gran").ok()?,
            capabilities: c.get("capabilities").ok()?,
            offered: c.get("offered").ok()?,
            max_pages: c.get("max_pages").ok()?,
            max_background: c.get("max_background").ok()?,
            congestion_threshold: c.get("congestion_threshold").ok()?,
        };
        (c.remaining() == 0).then_some(this)
    }

    pub(crate) fn setxattr_ext(&self) -> bool {
        self.has(cap::SETXATTR_EXT)
    }
}

/// Outcome of looking at one INIT.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// Both sides agree; the bytes to answer.
    Agreed(Box<Negotiated>, Vec<u8>),
    /// The kernel's major version is newer: name ours and expect another INIT.
    Retry(Vec<u8>),
}

/// Why a connection cannot be negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The kernel speaks only an older protocol.
    #[error("the kernel speaks FUSE {major}.{minor}, at least 7.31 is needed (Linux 5.4 or later)")]
    KernelTooOld {
        /// Its major version.
        major: u32,
        /// Its minor version.
        minor: u32,
    },
    /// The kernel's first request ends before its fields do.
    #[error("FUSE start-up: the INIT request is too short")]
    TooShort,
}

/// Answers the arguments of an INIT. `max_pages_limit` is the system's bound of pages per request.
pub(crate) fn negotiate(args: &[u8], config: &InitConfig, max_pages_limit: u32) -> Result<Answer, InitError> {
    let mut c = Cursor::new(args);
    let malformed = |_| InitError::TooShort;
    let init: wire::InitIn = c.get("init").map_err(malformed)?;
    if init.major > abi::MAJOR {
        let out = wire::InitOut { major: abi::MAJOR, minor: abi::MINOR_MAX, ..Default::default() };
        return Ok(Answer::Retry(out.as_bytes().to_vec()));
    }
    if init.major < abi::MAJOR || init.minor < abi::MINOR_MIN {
        return Err(InitError::KernelTooOld { major: init.major, minor: init.minor });
    }
    let mut offered = u64::from(init.flags);
    if offered & cap::INIT_EXT != 0 {
        let ext: wire::InitInExt = c.get("init").map_err(malformed)?;
        offered |= u64::from(ext.flags2) << 32;
    }

    let mut capabilities = offered & config.wanted();
    // The kernel honours the first of the two that it finds; do not claim both.
    if capabilities & cap::PASSTHROUGH != 0 {
        capabilities &= !cap::WRITEBACK_CACHE;
    }
    let max_pages_limit = match capabilities & cap::MAX_PAGES {
        0 => DEFAULT_MAX_PAGES,
        _ => max_pages_limit.clamp(1, u32::from(u16::MAX)),
    };
    let max_pages = config.max_write.max(MIN_MAX_WRITE).div_ceil(abi::PAGE).min(max_pages_limit);
    let max_write = config.max_write.clamp(MIN_MAX_WRITE, max_pages * abi::PAGE);

    let negotiated = Negotiated {
        minor: init.minor.min(abi::MINOR_MAX),
        kernel_minor: init.minor,
        capabilities,
        offered,
        max_write,
        max_pages: max_pages as u16,
        max_readahead: config.max_readahead.min(init.max_readahead),
        max_background: config.max_background,
        congestion_threshold: config.congestion_threshold,
        time_gran: config.time_gran,
    };
    let out = wire::InitOut {
        major: abi::MAJOR,
        minor: negotiated.minor,
        max_readahead: negotiated.max_readahead,
        flags: capabilities as u32,
        max_background: negotiated.max_background,
        congestion_threshold: negotiated.congestion_threshold,
        max_write,
        time_gran: negotiated.time_gran,
        max_pages: negotiated.max_pages,
        map_alignment: 0,
        flags2: (capabilities >> 32) as u32,
        max_stack_depth: u32::from(negotiated.has(cap::PASSTHROUGH)),
        request_timeout: if negotiated.has(cap::REQUEST_TIMEOUT) { config.request_timeout } else { 0 },
        unused: [0; 11],
    };
    Ok(Answer::Agreed(Box::new(negotiated), out.as_bytes().to_vec()))
}

/// The system's bound of pages per request.
pub(crate) fn max_pages_limit() -> u32 {
    const BEFORE_THE_SYSCTL: u32 = 256;
    std::fs::read_to_string("/proc/sys/fs/fuse/max_pages_limit")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(BEFORE_THE_SYSCTL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    fn kernel(minor: u32, flags: u64) -> Vec<u8> {
        let init = wire::InitIn { major: 7, minor, max_readahead: 131072, flags: flags as u32 };
        let mut bytes = init.as_bytes().to_vec();
        if flags & cap::INIT_EXT != 0 {
            let ext = wire::InitInExt { flags2: (flags >> 32) as u32, ..Default::default() };
            bytes.extend_from_slice(ext.as_bytes());
        }
        bytes
    }

    fn agreed(args: &[u8], config: &InitConfig) -> (Negotiated, wire::InitOut) {
        match negotiate(args, config, 256).unwrap() {
            Answer::Agreed(n, out) => (*n, wire::InitOut::read_from_bytes(&out).unwrap()),
            Answer::Retry(_) => panic!("retry"),
        }
    }

    #[test]
    fn a_modern_kernel_grants_everything_wanted() {
        let config = InitConfig { handle_killpriv_v2: true, ..InitConfig::default() };
        let (n, out) = agreed(&kernel(45, 0x7fd_73ff_fffb), &config);
        assert_eq!(n.capabilities, 0x7fd_73ff_fffb & config.wanted());
        assert_eq!((n.minor, n.max_write, n.max_pages), (45, 1 << 20, 256));
        assert_eq!(u64::from(out.flags) | u64::from(out.flags2) << 32, n.capabilities);
        assert!(n.has(cap::HANDLE_KILLPRIV_V2 | cap::DO_READDIRPLUS | cap::AUTO_INVAL_DATA));
        assert!(!n.has(cap::EXPLICIT_INVAL_DATA) && !n.has(cap::WRITEBACK_CACHE));
        assert!(n.can_expire() && n.setxattr_ext());
    }

    #[test]
    fn another_process_finds_what_was_agreed() {
        let (n, _) = agreed(&kernel(45, 0x7fd_73ff_fffb), &InitConfig::default());
        let bytes = n.to_bytes();
        assert_eq!(Negotiated::from_bytes(&bytes), Some(n));
        for len in 0..bytes.len() {
            assert_eq!(Negotiated::from_bytes(&bytes[..len]), None);
        }
        assert_eq!(Negotiated::from_bytes(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn an_old_kernel_limits_the_request_size() {
        let (n, out) = agreed(&kernel(31, cap::ASYNC_READ | cap::BIG_WRITES), &InitConfig::default());
        assert_eq!((n.minor, n.max_write, out.max_write), (31, 128 << 10, 128 << 10));
        assert_eq!(n.capabilities, cap::ASYNC_READ | cap::BIG_WRITES);
        assert_eq!(out.flags2, 0);
    }

    #[test]
    fn a_newer_kernel_is_answered_with_our_version() {
        assert_eq!(agreed(&kernel(99, 0), &InitConfig::default()).0.minor, abi::MINOR_MAX);
        let mut next = kernel(0, 0);
        next[0] = 8;
        let Answer::Retry(out) = negotiate(&next, &InitConfig::default(), 256).unwrap() else { panic!() };
        assert_eq!(out[0], 7);
    }

    #[test]
    fn too_old_or_cut_short_is_an_error() {
        let old = negotiate(&kernel(30, 0), &InitConfig::default(), 256).unwrap_err();
        assert!(old.to_string().contains("7.30"), "{old}");
        let bytes = kernel(45, cap::INIT_EXT);
        for len in 0..bytes.len() {
            assert!(negotiate(&bytes[..len], &InitConfig::default(), 256).is_err());
        }
    }

    #[test]
    fn passthrough_excludes_the_writeback_cache() {
        let config = InitConfig { passthrough: true, writeback_cache: true, ..InitConfig::default() };
        let (n, out) = agreed(&kernel(45, cap::INIT_EXT | cap::PASSTHROUGH | cap::WRITEBACK_CACHE), &config);
        assert!(n.has(cap::PASSTHROUGH) && !n.has(cap::WRITEBACK_CACHE));
        assert_eq!(out.max_stack_depth, 1);
    }
}
