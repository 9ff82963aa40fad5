//! What volumes can be: how they are used, and how large.

use tonic::Status;

use crate::proto::volume_capability::AccessType;
use crate::proto::volume_capability::access_mode::Mode;
use crate::proto::{CapacityRange, VolumeCapability};

/// Quotas are whole multiples of this, where the limit of a request allows it.
const UNIT: i64 = 1 << 30;

/// Checks the capabilities of a request: every access mode is there, for directories.
///
/// # Errors
/// `INVALID_ARGUMENT`: none are given, or one that no volume has.
pub fn check_all(capabilities: &[VolumeCapability]) -> Result<(), Status> {
    if capabilities.is_empty() {
        return Err(Status::invalid_argument("volume_capabilities is missing"));
    }
    capabilities.iter().try_for_each(check)
}

/// Checks one capability.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn check(capability: &VolumeCapability) -> Result<(), Status> {
    match &capability.access_type {
        Some(AccessType::Mount(_)) => {}
        Some(AccessType::Block(_)) => {
            return Err(Status::invalid_argument("block volumes are not there: use volumeMode Filesystem"));
        }
        None => return Err(Status::invalid_argument("a volume capability has no access type")),
    }
    match capability.access_mode.map(|mode| Mode::try_from(mode.mode)) {
        Some(Ok(Mode::Unknown)) | None => {
            Err(Status::invalid_argument("a volume capability has no access mode"))
        }
        Some(Ok(_)) => Ok(()),
        Some(Err(_)) => Err(Status::invalid_argument("a volume capability has an unknown access mode")),
    }
}

/// The size that a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    required: i64,
    limit: i64,
}

impl Size {
    /// That of a request; nothing is any size.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for negative sizes, `OUT_OF_RANGE` for a limit below what is required.
    pub fn of(range: Option<&CapacityRange>) -> Result<Self, Status> {
        let Some(range) = range else { return Ok(Self::default()) };
        let size = Self { required: range.required_bytes, limit: range.limit_bytes };
        if size.required < 0 || size.limit < 0 {
            return Err(Status::invalid_argument("capacity_range is negative"));
        }
        if size.limit > 0 && size.required > size.limit {
            return Err(Status::out_of_range("required_bytes is more than limit_bytes"));
        }
        Ok(size)
    }

    /// The quota of a new volume, 0 for none: what is required, rounded up to whole GiB as far as the limit allows.
    ///
    /// # Errors
    /// `OUT_OF_RANGE`.
    pub fn quota(self) -> Result<i64, Status> {
        if self.required == 0 {
            return Ok(self.limit);
        }
        let units = self.required.checked_add(UNIT - 1).map(|n| n / UNIT);
        let whole = units.and_then(|n| n.checked_mul(UNIT));
        let whole = whole.ok_or_else(|| Status::out_of_range("required_bytes is too large"))?;
        Ok(if self.limit > 0 { whole.min(self.limit) } else { whole })
    }

    /// Is a volume of this quota what was wanted?
    pub fn fits(self, quota: i64) -> bool {
        // Without a quota there is room for all that is required.
        (quota == 0 || quota >= self.required) && (self.limit == 0 || (quota > 0 && quota <= self.limit))
    }

    /// Is a quota more than the limit?
    pub fn is_exceeded(self, quota: i64) -> bool {
        self.limit > 0 && quota > self.limit
    }

    /// The bytes that are required.
    pub fn required(self) -> i64 {
        self.required
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const GIB: i64 = 1 << 30;

    fn size(required_bytes: i64, limit_bytes: i64) -> Result<Size, Status> {
        Size::of(Some(&CapacityRange { required_bytes, limit_bytes }))
    }

    #[test]
    fn quotas_are_rounded_up_within_the_limit() {
        for (required, limit, quota) in [
            (0, 0, 0),
            (1, 0, GIB),
            (GIB, 0, GIB),
            (GIB + 1, 0, 2 * GIB),
            (GIB + 1, GIB + 5, GIB + 5),
            (GIB + 1, 3 * GIB, 2 * GIB),
            (0, 5 * GIB, 5 * GIB),
        ] {
            let size = size(required, limit).unwrap();
            assert_eq!(size.quota().unwrap(), quota, "{required} {limit}");
            assert!(size.fits(quota), "{required} {limit}");
        }
        assert_eq!(size(i64::MAX, 0).unwrap().quota().unwrap_err().code(), tonic::Code::OutOfRange);
        assert_eq!(size(2, 1).unwrap_err().code(), tonic::Code::OutOfRange);
        assert_eq!(size(-1, 0).unwrap_err().code(), tonic::Code::InvalidArgument);
        assert!(!size(2 * GIB, 0).unwrap().fits(GIB));
        assert!(!size(0, GIB).unwrap().fits(2 * GIB));
        assert!(!size(0, GIB).unwrap().fits(0));
    }
}
