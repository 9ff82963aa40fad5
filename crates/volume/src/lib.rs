//! Opens a volume for whatever serves it or works on it: mounts, gateways, commands.
//!
//! * [`engine`]: the metadata engine of an address.
//! * [`storage`]: the object store of a volume's settings, with all its layers.
//! * [`Override`]: what one client does otherwise than the settings say.
//! * [`Volume`]: all of it together, following the settings as they change.
#![forbid(unsafe_code)]

mod engine;
mod error;
mod place;
mod storage;
mod volume;

pub use engine::{Engine, Purpose, close};
pub use error::{Error, Result};
pub use place::{Keys, Override, object_place, stored_bucket, with_region};
pub use storage::{Bounds, Observer, storage, store_config};
pub use volume::{Volume, VolumeConfig, unusable};
