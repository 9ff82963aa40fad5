//! Joins the vfs to the kernel: each FUSE request becomes a call of the vfs, each result an answer.
//!
//! What needs no waiting at all (closing a directory, requests that are not served) is answered on the thread that read the request;
//! everything else moves to the runtime, so that a slow object store never keeps the kernel's queue waiting. Every error becomes an errno here, by
//! [`ciderfs_meta::Error::errno`].
#![forbid(unsafe_code)]

mod access;
mod again;
mod begun;
mod convert;
mod handler;
mod identity;
mod interrupt;
mod ioctl;
mod locks;
mod serve;
#[cfg(test)]
mod tests;
mod xattr;

pub use begun::Begun;
pub use identity::Identity;
pub use serve::{MountedFs, Outlive, ServeError, ServeOptions, adopt, serve};
pub use xattr::XattrOptions;
