//! The channel of tools.

use ciderfs_format::Ino;
use ciderfs_meta::{Caller, Errno};
use serde_json::Value;

use super::support::*;

async fn open(c: &Client) -> u64 {
    let root = Caller::root();
    let entry = c.vfs.lookup(&root, Ino(77), b".control").await.unwrap();
    c.vfs.open(&root, entry.ino, RW).await.unwrap().fh
}

fn request(command: u32, body: &[u8]) -> Vec<u8> {
    [&command.to_be_bytes()[..], &(body.len() as u32).to_be_bytes(), body].concat()
}

/// The answer to a request: what the stream holds behind it.
async fn answer(c: &Client, fh: u64, at: usize) -> Vec<u8> {
    until("an answer", async || !c.read(fh, at, 1).await.is_empty()).await;
    c.read(fh, at, MIB).await
}

#[tokio::test]
async fn info_of_a_file() {
    let w = World::new(1).await;
    let c = w.client().await;
    let (ino, file) = c.create("a").await;
    c.write(file, 0, &pattern(1, 100 * KIB)).await;
    let fh = open(&c).await;
    let ask = request(1005, &[&ino.0.to_be_bytes()[..], &[0, 0, 0]].concat());
    // A request may come in parts.
    for part in ask.chunks(5) {
        c.write(fh, 0, part).await;
    }
    let said = answer(&c, fh, ask.len()).await;
    assert_eq!(c.read(fh, 0, ask.len()).await, ask, "the stream begins with the request");
    assert_eq!(said[0], 0xFE);
    assert_eq!(said[17], 0xFF);
    let info: Value = serde_json::from_slice(&said[22..]).unwrap();
    assert_eq!(info["Summary"]["Length"], 100 * KIB);
    assert_eq!(info["Paths"], serde_json::json!(["/a"]));
    // What was only in memory has been stored for the answer.
    let keys: Vec<&str> =
        info["Objects"].as_array().unwrap().iter().filter_map(|o| o["Key"].as_str()).collect();
    assert_eq!(keys.len(), 2);
    assert!(keys[0].starts_with("vol/chunks/0/0/") && keys[0].ends_with("_0_65536"), "{keys:?}");
}

#[tokio::test]
async fn bad_requests_are_answered() {
    let w = World::new(1).await;
    let c = w.client().await;
    let fh = open(&c).await;
    let mut at = 0;
    for (ask, error) in [
        (request(999, &[0; 8]), Errno::EINVAL),
        (request(1005, &[1, 2]), Errno::EINVAL),
        ([request(1005, &[0; 8]), vec![9]].concat(), Errno::EIO),
    ] {
        c.write(fh, 0, &ask).await;
        at += ask.len();
        assert_eq!(answer(&c, fh, at).await, [error.0 as u8]);
        at += 1;
    }
    let ask = request(1005, &[&999_u64.to_be_bytes()[..], &[0, 0, 0]].concat());
    c.write(fh, 0, &ask).await;
    let said = answer(&c, fh, at + ask.len()).await;
    let info: Value = serde_json::from_slice(&said[5..]).unwrap();
    assert_eq!(
        (&info["Failed"], info["Reason"].as_str()),
        (&Value::Bool(true), Some("no such file or directory"))
    );
    assert_eq!(errno(c.vfs.write(fh, 0, &vec![0; 2 * MIB]).await), Errno::EINVAL);
    c.vfs.release(fh).await;
}
