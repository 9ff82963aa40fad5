//! The clients of a machine, kept by a process of its own: it starts them, watches them and starts them again. What asks for
//! mounts (the node service of CSI) may come and go, and so may the mounter itself: a client is a session of its own, and a new
//! mounter finds it by what is written in its directory.
//!
//! A crate beside that of CSI, because the mounter must not know gRPC: it is small, and restarted as rarely as can be.
//!
//! * `protocol`: what is asked and answered, on a Unix socket.
//! * `spec`: what is to be mounted, and the command line for it.
//! * `server`: answers; `init`: the first process of a container.
//! * `keeper`: one client.
//! * `unit`: a client as a unit of systemd.
//! * `record`: what outlives a mounter.
//! * `metrics`: the figures of all clients as one text.
//! * `disposable`, `probe`: calls that may hang, made by a process that can be left behind.
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "fork and setsid")]
pub mod disposable;
pub mod init;
pub mod keeper;
pub mod log;
pub mod metrics;
pub mod probe;
pub mod protocol;
pub mod record;
pub mod server;
pub mod spec;
mod unit;

pub use protocol::{Client, Info, Refusal, State};
pub use server::{Config, serve};
pub use spec::Spec;
