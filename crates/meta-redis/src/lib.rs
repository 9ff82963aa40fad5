//! Redis and Valkey driver of the metadata [`Store`](ciderfs_meta::store::Store).
//!
//! A batch of reads is one script, and so is a commit: guards and writes travel as a stream of arguments and run
//! atomically on the server, next to clients that use `WATCH` (`docs/format/redis-keys.md#transactions`). All calls share two multiplexed
//! connections: one for reads and commits, one for long answers (listings and scans), which may not hold up the others.
//!
//! * [`address`]: URLs; `topology`: which server to talk to (one server, Sentinel, Cluster); `link`: connections.
//! * `encode` and `scripts/`: commits; `reads`: reads and their answers; `quota`: quotas in both; `scans`: walks of maintenance;
//!   `limits`: what an answer may take.
#![forbid(unsafe_code)]

pub mod address;
mod encode;
mod error;
mod limits;
mod link;
mod quota;
mod reads;
mod reply;
mod scans;
mod script;
mod server;
mod store;
mod survey;
mod topology;

pub use store::{Options, RedisStore};
pub use survey::{Survey, survey};
