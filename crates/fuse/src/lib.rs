//! The kernel's FUSE protocol: types, request parsing, replies, transports and mounting.
//!
//! The crate knows neither the file system above it nor an async runtime. A [`Handler`] gets each request as
//! an owned [`Request`] and a [`Reply`]: it may answer at once on the thread that read the request, or move
//! both elsewhere (a task, another thread) and answer later.
//!
//! ```no_run
//! use ciderfs_fuse::{Handler, MountOptions, Op, Reply, Request, Session, SessionConfig};
//!
//! struct Empty;
//! impl Handler for Empty {
//!     fn handle(&self, req: Request, reply: Reply) {
//!         match req.op() {
//!             Ok(Op::Statfs) => _ = reply.statfs(&Default::default()),
//!             Ok(_) => _ = reply.error(libc::ENOSYS),
//!             Err(e) => _ = reply.error(e.errno()),
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (fd, guard) = ciderfs_fuse::mount::mount("/mnt/empty".as_ref(), &MountOptions::default())?;
//! let session = Session::new(fd, SessionConfig::default(), Empty)?;
//! session.run()?; // until unmounted
//! drop(guard);
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod abi;
mod attr;
#[allow(unsafe_code, reason = "pages of their own for requests")]
mod buffer;
mod cursor;
mod dir;
mod dispatch;
mod handler;
mod init;
mod interrupt;
pub mod mount;
mod notify;
mod op;
mod reply;
mod request;
mod session;
pub mod transport;

pub use attr::{Attr, Entry, FileLock, Opened, Statfs, Statx, Timestamp};
pub use buffer::PoolStats;
pub use dir::{DirBuffer, DirPlusBuffer, dtype_of_mode};
pub use handler::Handler;
pub use init::{DataInvalidation, InitConfig, InitError, Negotiated, Readdirplus};
pub use interrupt::InterruptFlag;
pub use mount::{MountError, MountGuard, MountOptions};
pub use notify::Notifier;
pub use op::{CopyRange, Forget, LockArgs, Op, SetAttr, SetTime};
pub use reply::Reply;
pub use request::{Header, ParseError, Request};
pub use session::{Monitor, Session, SessionConfig, SessionError, SessionHandle};
