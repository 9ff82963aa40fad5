//! Object stores that opendal speaks to, other than those of S3, and Redis.

mod address;
mod blobs;
mod cloud;
mod list;
mod redis;
mod sending;

pub(crate) use cloud::open;
pub(crate) use redis::RedisStore;
