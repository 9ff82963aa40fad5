//! mount(2) and umount2(2), for root.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::options::has_selinux;
use super::{MountError, MountOptions};

/// Opens the FUSE device.
pub(super) fn open_device() -> Result<OwnedFd, MountError> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    device.map(OwnedFd::from).map_err(|source| MountError::NoDevice { source })
}

pub(super) fn mount(mountpoint: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let fd = open_device()?;
    let (flags, mut data) = options.for_kernel()?;
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    data.insert(0, format!("fd={},rootmode=40000,user_id={uid},group_id={gid}", fd.as_raw_fd()));
    let data = data.join(",");
    let data = CString::new(data.clone())
        .map_err(|_| MountError::Option { option: data, reason: "may not contain a zero byte" })?;
    match rustix::mount::mount(options.fsname.as_str(), mountpoint, options.fstype(), flags, data.as_c_str())
    {
        Ok(()) => Ok(fd),
        Err(Errno::PERM | Errno::ACCESS) => Err(MountError::Denied { mountpoint: mountpoint.into() }),
        Err(Errno::BUSY) => {
            Err(MountError::Busy { mountpoint: mountpoint.into(), by: "something is mounted there".into() })
        }
        Err(Errno::INVAL) => Err(match options.context() {
            Some(option) if !has_selinux() => MountError::Option {
                option: option.into(),
                reason: "the kernel of this machine does not run SELinux: remove the option (on Kubernetes: csidriver.seLinuxMount=false)",
            },
            Some(option) => MountError::Option {
                option: option.into(),
                reason: "SELinux does not accept it; is the context one that its policy knows?",
            },
            None => MountError::Option {
                option: data.to_string_lossy().into_owned(),
                reason: "the kernel does not accept one of these",
            },
        }),
        Err(e) => Err(MountError::io(mountpoint, e.into())),
    }
}

pub(super) fn remount(mountpoint: &Path, flags: MountFlags) -> Result<(), MountError> {
    match rustix::mount::mount_remount(mountpoint, flags, c"") {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => {
            Err(MountError::Busy { mountpoint: mountpoint.into(), by: "files are open for writing".into() })
        }
        Err(Errno::PERM | Errno::ACCESS) => Err(MountError::Denied { mountpoint: mountpoint.into() }),
        Err(e) => Err(MountError::io(mountpoint, e.into())),
    }
}

pub(super) fn unmount(mountpoint: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(mountpoint, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => {
            Err(MountError::Busy { mountpoint: mountpoint.into(), by: "files are in use".into() })
        }
        Err(Errno::INVAL) => Err(MountError::NotMounted { mountpoint: mountpoint.into() }),
        Err(Errno::NOENT) => Err(MountError::Missing { mountpoint: mountpoint.into() }),
        Err(Errno::PERM) => Err(MountError::Denied { mountpoint: mountpoint.into() }),
        Err(e) => Err(MountError::io(mountpoint, io::Error::from(e))),
    }
}
