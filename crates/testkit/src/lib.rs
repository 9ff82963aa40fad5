//! What tests need beside the code they test: servers of other people's and of our own, with faults on demand.
//!
//! Only ever a dev-dependency.
#![forbid(unsafe_code)]

pub mod s3;
pub mod s3fs;
