//! The test kit's S3 server as a program, for tests that drive shells or kill it.
//!
//! `ciderfs-test-s3 [--port N] [--dir DIR] [--access-key K] [--secret-key S] [--ovhcloud REGION] [--bucket NAME]...` prints its
//! endpoint and serves until it is killed; with a region as OVHcloud does there. Faults: `curl 'http://127.0.0.1:PORT/-/control?fail_next=3&status=503&only=PUT'`.
#![forbid(unsafe_code)]

use std::io::Write;

use anyhow::{Context, Result, bail};
use ciderfs_testkit::s3::{Profile, S3Options, S3Server};

fn main() -> Result<()> {
    let mut options = S3Options::default();
    let mut profile = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--port" => options.port = value()?.parse().context("--port")?,
            "--dir" => options.dir = Some(value()?.into()),
            "--access-key" => options.access_key = value()?,
            "--secret-key" => options.secret_key = value()?,
            "--ovhcloud" => profile = Some(Profile::ovhcloud(&value()?)),
            "--bucket" => options.buckets.push(value()?),
            _ => bail!(
                "unknown argument {arg}: known are --port, --dir, --access-key, --secret-key, --ovhcloud and --bucket"
            ),
        }
    }
    let server = S3Server::start_now(options)?;
    server.control().behave_as(profile);
    println!("{}", server.endpoint());
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}
