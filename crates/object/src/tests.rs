use std::sync::Arc;

use bytes::Bytes;

use crate::layers::{Prefixed, Sharded};
use crate::s3_url::S3Url;
use crate::{FileStore, MemoryStore, ObjectError, ObjectStore, has_other_objects, probe};

/// What every store must do.
async fn behaves(store: &dyn ObjectStore) {
    store.create_bucket().await.unwrap();
    probe(store).await.unwrap();
    assert!(!has_other_objects(store).await.unwrap());
    assert!(matches!(store.get("a/b", None).await, Err(ObjectError::NotFound(_))));
    assert!(matches!(store.head("a/b").await, Err(ObjectError::NotFound(_))));
    store.delete("a/b").await.unwrap();
    for key in ["a/b", "a/b0", "a-b", "a/c/d", "z"] {
        store.put(key, Bytes::from(format!("body of {key}"))).await.unwrap();
    }
    assert_eq!(store.get("a/b", None).await.unwrap(), "body of a/b");
    assert_eq!(store.get("a/b", Some(5..7)).await.unwrap(), "of");
    assert_eq!(store.get("a/b", Some(8..99)).await.unwrap(), "a/b");
    assert_eq!(store.head("z").await.unwrap().size, 9);
    store.put("z", Bytes::from_static(b"new")).await.unwrap();
    assert_eq!(store.get("z", None).await.unwrap(), "new");
    let keys = |page: Vec<crate::Entry>| page.into_iter().map(|e| e.key).collect::<Vec<_>>();
    assert_eq!(keys(store.list("", "", 100).await.unwrap()), ["a-b", "a/b", "a/b0", "a/c/d", "z"]);
    assert_eq!(keys(store.list("", "a/b", 2).await.unwrap()), ["a/b0", "a/c/d"]);
    assert_eq!(keys(store.list("a/", "", 100).await.unwrap()), ["a/b", "a/b0", "a/c/d"]);
    assert!(has_other_objects(store).await.unwrap());
    store.delete("a/b").await.unwrap();
    assert!(matches!(store.get("a/b", None).await, Err(ObjectError::NotFound(_))));
}

#[tokio::test]
async fn file_store_behaves() {
    let dir = tempfile::tempdir().unwrap();
    behaves(&FileStore::new(dir.path().join("bucket"))).await;
}

#[tokio::test]
async fn memory_store_behaves() {
    behaves(&MemoryStore::default()).await;
}

#[tokio::test]
async fn prefixed_and_sharded_stores_behave() {
    let dir = tempfile::tempdir().unwrap();
    let inner: Arc<dyn ObjectStore> = Arc::new(FileStore::new(dir.path()));
    behaves(&Prefixed::new(inner.clone(), "vol")).await;
    assert!(dir.path().join("vol/a/c/d").exists());
    let shards = (0..4).map(|_| Arc::new(MemoryStore::default()) as Arc<dyn ObjectStore>).collect();
    behaves(&Sharded::new(shards)).await;
}

#[tokio::test]
async fn file_store_stays_below_its_directory_and_ignores_leftovers() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path().join("bucket"));
    store.create_bucket().await.unwrap();
    assert!(store.put("../outside", Bytes::new()).await.is_err());
    std::fs::write(dir.path().join("bucket/.jfs.x.tmp.1"), b"torn").unwrap();
    assert_eq!(store.list("", "", 10).await.unwrap(), []);
}

#[test]
fn bucket_urls_are_understood() {
    let parse = |bucket: &str, minio| S3Url::parse(bucket, minio, |_| None).unwrap();
    let u = parse("http://127.0.0.1:9000/vol", true);
    assert_eq!((u.bucket.as_str(), u.endpoint.as_deref()), ("vol", Some("http://127.0.0.1:9000")));
    assert!(!u.virtual_host);
    let u = parse("127.0.0.1:9000/minio/vol?region=eu", true);
    assert_eq!((u.bucket.as_str(), u.region.as_str()), ("vol", "eu"));
    let u = parse("https://s3.gra.io.cloud.ovh.net/cider", false);
    assert_eq!((u.bucket.as_str(), u.region.as_str()), ("cider", "gra"));
    assert_eq!(u.endpoint.as_deref(), Some("https://s3.gra.io.cloud.ovh.net"));
    let u = parse("https://cider.s3.sbg.io.cloud.ovh.net", false);
    assert_eq!((u.bucket.as_str(), u.region.as_str()), ("cider", "sbg"));
    assert_eq!(u.endpoint.as_deref(), Some("https://s3.sbg.io.cloud.ovh.net"));
    let u = parse("https://data.s3.eu-west-3.amazonaws.com", false);
    assert_eq!((u.bucket.as_str(), u.region.as_str(), u.endpoint), ("data", "eu-west-3", None));
    assert!(u.virtual_host);
    let u = parse("data", false);
    assert_eq!((u.bucket.as_str(), u.region.as_str(), u.endpoint), ("data", "us-east-1", None));
    let u = parse("store.example.com/data", false);
    assert_eq!(u.endpoint.as_deref(), Some("http://store.example.com"));
    assert!(S3Url::parse("http://127.0.0.1:9000", false, |_| None).is_err());
}
