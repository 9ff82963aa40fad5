//! Stores other than S3 and directories, against the real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use bytes::Bytes;
use ciderfs_object::{
    ObjectError, ObjectStore, STORAGES, StoreConfig, Way, has_other_objects, open, prepare, probe,
};
use ciderfs_testkit::redis::{RedisOptions, RedisServer};
use ciderfs_testkit::require;
use ciderfs_testkit::sshd::Sshd;
use ciderfs_testkit::webdav::WebDav;

fn config(storage: &str, bucket: &str, access_key: &str, secret_key: &str) -> StoreConfig {
    StoreConfig {
        storage: storage.to_owned(),
        bucket: bucket.to_owned(),
        access_key: access_key.to_owned(),
        secret_key: secret_key.into(),
        ..StoreConfig::default()
    }
}

/// What a volume needs of a store.
async fn behaves(store: &dyn ObjectStore) {
    prepare(store, "vol", 1).await.unwrap();
    probe(store, "vol", 1).await.unwrap();
    assert!(!has_other_objects(store).await.unwrap());
    assert!(matches!(store.get("a/b", None).await, Err(ObjectError::NotFound(_))));
    assert!(matches!(store.get("a/b", Some(0..3)).await, Err(ObjectError::NotFound(_))));
    assert!(matches!(store.head("a/b").await, Err(ObjectError::NotFound(_))));
    store.delete("a/b").await.unwrap();
    assert!(store.put_new("a/b", Bytes::from_static(b"first")).await.unwrap());
    assert!(!store.put_new("a/b", Bytes::from_static(b"second")).await.unwrap());
    assert_eq!(store.get("a/b", None).await.unwrap(), "first");
    store.put("a/b", Bytes::from_static(b"longer than it was")).await.unwrap();
    store.put("a/b", Bytes::from_static(b"0123456789")).await.unwrap();
    assert_eq!(store.get_whole("a/b", 10).await.unwrap(), "0123456789");
    assert!(store.get_whole("a/b", 9).await.unwrap_err().to_string().contains("more than the 9 bytes"));
    assert_eq!(store.get("a/b", Some(3..5)).await.unwrap(), "34");
    assert_eq!(store.get("a/b", Some(8..99)).await.unwrap(), "89");
    assert_eq!(store.get("a/b", Some(10..20)).await.unwrap(), "");
    assert_eq!(store.get("a/b", Some(15..20)).await.unwrap(), "");
    assert_eq!(store.head("a/b").await.unwrap().size, 10);
    store.put("a/empty", Bytes::new()).await.unwrap();
    assert_eq!(store.get("a/empty", None).await.unwrap(), "");
    assert_eq!(store.head("a/empty").await.unwrap().size, 0);
    lists_in_order(store).await;
    let large = Bytes::from((0..17_000_000_u32).map(|n| (n % 253) as u8).collect::<Vec<_>>());
    store.put("large", large.clone()).await.unwrap();
    assert!(store.get("large", None).await.unwrap() == large);
    assert_eq!(
        store.get("large", Some(16_000_000..16_000_010)).await.unwrap(),
        large.slice(16_000_000..16_000_010)
    );
    for key in ["a/b", "a/empty", "large"] {
        store.delete(key).await.unwrap();
        assert!(matches!(store.head(key).await, Err(ObjectError::NotFound(_))));
    }
    assert_eq!(store.list("", "", 10).await.unwrap(), []);
}

/// Pages in the order of keys, in which a directory has its slash, from any place.
async fn lists_in_order(store: &dyn ObjectStore) {
    let mut keys: Vec<String> = (0..25).map(|n| format!("l/chunks/{}/{n}_0_5", n % 3)).collect();
    keys.extend(["l/chunks-x", "l/chunks0", "l/a b+c%41*", "l/z/y/x"].map(str::to_owned));
    for key in &keys {
        store.put(key, Bytes::copy_from_slice(key.as_bytes())).await.unwrap();
    }
    keys.sort_unstable();
    for limit in [1, 4, 100] {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = store.list("l/", &after, limit).await.unwrap();
            assert!(page.len() <= limit);
            assert!(page.iter().all(|entry| entry.size == entry.key.len() as u64), "{page:?}");
            let Some(last) = page.last() else { break };
            after = last.key.clone();
            found.extend(page.into_iter().map(|entry| entry.key));
        }
        assert_eq!(found, keys, "{limit}");
    }
    let names = |page: Vec<ciderfs_object::Entry>| page.into_iter().map(|e| e.key).collect::<Vec<_>>();
    assert_eq!(
        names(store.list("l/chunks/1/", "", 2).await.unwrap()),
        ["l/chunks/1/10_0_5", "l/chunks/1/13_0_5"]
    );
    assert_eq!(names(store.list("l/chunks/", "l/chunks/2", 1).await.unwrap()), ["l/chunks/2/11_0_5"]);
    assert_eq!(names(store.list("l/chunks", "l/chunks/3", 9).await.unwrap()), ["l/chunks0"]);
    assert_eq!(names(store.list("l/ch", "", 1).await.unwrap()), ["l/chunks-x"]);
    assert_eq!(names(store.list("nothing/", "", 9).await.unwrap()), [""; 0]);
    for key in &keys {
        store.delete(key).await.unwrap();
    }
}

/// Storage, bucket and access key for [`as_a_process_of_its_own`], with a space between them.
const STORE: &str = "TEST_STORE";

/// A store whose settings are in the environment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_a_process_of_its_own() {
    let Ok(text) = std::env::var(STORE) else { return };
    let mut words = text.split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (storage, bucket, access_key) = (word(), word(), word());
    let store = open(&config(&storage, &bucket, &access_key, "")).unwrap();
    behaves(store.as_ref()).await;
    println!("all done");
}

/// Replaces the object `k` of [`STORE`] where the server renames nothing: it stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_that_is_refused() {
    let Ok(text) = std::env::var(STORE) else { return };
    let words: Vec<&str> = text.split(' ').collect();
    let store = open(&config(words[0], words[1], words[2], "")).unwrap();
    assert_eq!(store.get("k", None).await.unwrap(), "old");
    let e = store.put("k", Bytes::from_static(b"the new one")).await.unwrap_err();
    assert!(matches!(e, ObjectError::AccessDenied(_)), "{e:?}");
    assert_eq!(store.get("k", None).await.unwrap(), "old");
    println!("all done");
}

/// Runs a test of this file in a process with a key for the server.
fn with_key(server: &Sshd, test: &str) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(STORE, format!("sftp {} {}", server.bucket(), server.user().unwrap()))
        .env("SSH_PRIVATE_KEY_PATH", server.key_file())
        .env_remove("SSH_KNOWN_HOSTS")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.contains("all done"), "{text}");
}

/// Names of the files of a server.
fn names(server: &Sshd) -> Vec<String> {
    let files = std::fs::read_dir(server.files()).unwrap();
    let mut names: Vec<String> = files.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// The text of the error of a write.
async fn refused(cfg: &StoreConfig) -> (ObjectError, String) {
    let error = open(cfg).unwrap().put("k", Bytes::from_static(b"x")).await.unwrap_err();
    let text = error.to_string();
    assert!(!text.contains("a wrong secret"), "{text}");
    (error, text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webdav_behaves() {
    let Some(server) = require(WebDav::start()) else { return };
    let store = open(&config("webdav", &server.url(), &server.user, &server.password)).unwrap();
    behaves(store.as_ref()).await;
    // The scheme is http where there is none. The path must be there, as for the official client.
    let bucket = format!("{}/one/two/", server.url().trim_start_matches("http://"));
    let (error, text) = refused(&config("WebDAV", &bucket, &server.user, &server.password)).await;
    assert!(matches!(error, ObjectError::Config(_)) && text.contains("make the directory"), "{text}");
    std::fs::create_dir_all(server.files().join("one/two")).unwrap();
    let store = open(&config("WebDAV", &bucket, &server.user, &server.password)).unwrap();
    behaves(store.as_ref()).await;
    assert!(!server.files().join("one/two/vol").exists(), "keys stand below the path as they are");

    let (error, text) = refused(&config("webdav", &server.url(), &server.user, "a wrong secret")).await;
    assert!(matches!(error, ObjectError::AccessDenied(_)) && text.contains("--secret-key"), "{text}");
    let nobody = server.url().replace("127.0.0.1", "127.0.0.9");
    let (error, text) = refused(&config("webdav", &nobody, "", "")).await;
    assert!(matches!(error, ObjectError::Unreachable(_)) && text.contains("check host and port"), "{text}");
}

#[test]
fn sftp_behaves() {
    let Some(server) = require(Sshd::start()) else { return };
    // What was never finished goes after a day; an object that was moved aside does not.
    let (old, new, aside) = (".k.tmp.123", ".k.tmp.124", ".k.tmp.123-old");
    for name in [old, new, aside] {
        std::fs::write(server.files().join(name), "x").unwrap();
    }
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(25);
    for name in [old, aside] {
        let file = std::fs::File::options().write(true).open(server.files().join(name)).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    with_key(&server, "as_a_process_of_its_own");
    let left = names(&server);
    assert!(!left.contains(&old.to_owned()) && left.contains(&new.to_owned()), "{left:?}");
    assert!(left.contains(&aside.to_owned()), "{left:?}");
}

/// A server may rename to no name that is taken, or not at all.
#[test]
fn sftp_servers_that_rename_less() {
    let Some(server) = require(Sshd::start_without("posix-rename")) else { return };
    with_key(&server, "as_a_process_of_its_own");
    let left = names(&server);
    assert!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");
    let Some(server) = require(Sshd::start_without("posix-rename,rename")) else { return };
    std::fs::write(server.files().join("k"), "old").unwrap();
    with_key(&server, "a_replacement_that_is_refused");
    assert_eq!(names(&server), ["k"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_behaves() {
    let options = RedisOptions { password: Some("a-secret".to_owned()), ..RedisOptions::default() };
    let Some(mut server) = require(RedisServer::start(options)) else { return };
    let address = format!("redis://127.0.0.1:{}/2", server.port());
    let store = open(&config("redis", &address, "", "a-secret")).unwrap();
    behaves(store.as_ref()).await;
    // Something else in the same database, with any names.
    server.command(&["SELECT", "2"]).unwrap();
    store.put("a*b", Bytes::from_static(b"x")).await.unwrap();
    store.put("aXb", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(store.list("a*", "", 9).await.unwrap().len(), 1);

    let (error, text) = refused(&config("redis", &address, "", "a wrong secret")).await;
    assert!(matches!(error, ObjectError::AccessDenied(_)) && text.contains("--secret-key"), "{text}");
    // With the password in the address, which no text tells.
    let within = format!("redis://:a%20wrong%20secret@127.0.0.1:{}/2", server.port());
    let (error, text) = refused(&config("redis", &within, "", "")).await;
    assert!(matches!(error, ObjectError::AccessDenied(_)) && !text.contains("wrong"), "{text}");
    assert!(!format!("{:?}", open(&config("redis", &within, "", "")).unwrap()).contains("wrong"));

    // It is full.
    server.command(&["CONFIG", "SET", "maxmemory", "1mb"]).unwrap();
    let e = store.put("k", Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(&e, ObjectError::NoSpace(text) if text.contains("maxmemory")), "{e:?}");
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    // It goes, and comes back.
    server.kill();
    let e = store.put("k", Bytes::from_static(b"x")).await.unwrap_err();
    assert!(e.is_retryable(), "{e:?}");
    let e = store.put("k", Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(&e, ObjectError::Unreachable(text) if text.contains("check host and port")), "{e:?}");
    server.restart().unwrap();
    store.put("k", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(store.get_whole("k", 9).await.unwrap(), "x");
}

#[tokio::test]
async fn addresses_that_do_not_fit_are_told_with_one_that_does() {
    let text = |storage: &str, bucket: &str| {
        let e = open(&config(storage, bucket, "key", "secret")).unwrap_err();
        assert!(matches!(e, ObjectError::Config(_)), "{e:?}");
        e.to_string()
    };
    for (storage, bucket, told) in [
        ("redis", "127.0.0.1:6379", "redis://HOST:PORT/DB"),
        ("redis", "http://h/1", "redis://HOST:PORT/DB"),
        ("redis", "redis://a:1,b:2/1", "single server"),
        ("redis", "redis://mymaster,a,b:26379/1", "single server"),
        ("webdav", "ftp://h/", "http://"),
        ("webdav", "http://user:pw@h/", "--access-key"),
        ("sftp", "host", "HOST:/DIRECTORY/"),
        ("sftp", "host:port:/d/", "HOST:/DIRECTORY/"),
        ("sftp", "host:/d/", "takes no password"),
        ("gs", "gs://bucket", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("oss", "https://bucket", "https://BUCKET.oss-REGION.aliyuncs.com"),
        ("oss", "https://host/bucket", "https://BUCKET.oss-REGION.aliyuncs.com"),
        ("cos", "bucket-1", "https://BUCKET-APPID.cos.REGION.myqcloud.com"),
        ("obs", "https://bucket", "https://BUCKET.obs.REGION.myhuaweicloud.com"),
        ("tos", "https://bucket.volces.com", "https://BUCKET.tos-REGION.volces.com"),
        ("wasb", "https://127.0.0.1", "https://CONTAINER.core.windows.net"),
        ("wasabi", "bucket", "https://BUCKET.s3.REGION.wasabisys.com"),
        ("b2", "https://bucket.backblaze.com", "https://BUCKET.s3.REGION.backblazeb2.com"),
        ("oos", "https://bucket.example.com", "https://BUCKET.oos-REGION.ctyunapi.cn"),
        ("space", "https://space/x", "https://BUCKET.REGION.digitaloceanspaces.com"),
        ("nfs", "host:/export", "--storage file"),
        ("hdfs", "host:9000", "--storage s3"),
        ("nonsense", "b", "known are file, s3, minio, redis, webdav"),
    ] {
        let text = text(storage, bucket);
        assert!(text.contains(told) && !text.contains("pw"), "{storage} {bucket}: {text}");
    }
    // Without keys where there must be some.
    let e = open(&config("wasabi", "https://b.s3.eu-west-1.wasabisys.com", "", "")).unwrap_err();
    assert!(e.to_string().contains("--access-key"), "{e}");
    // These are opened; nobody is asked yet.
    for (storage, bucket) in [
        ("oss", "https://bucket.oss-cn-hangzhou.aliyuncs.com"),
        ("cos", "bucket-125.cos.ap-beijing.myqcloud.com"),
        ("obs", "https://bucket.obs.cn-north-1.myhuaweicloud.com"),
        ("tos", "https://bucket.tos-cn-beijing.volces.com"),
        ("wasb", "https://bucket.core.windows.net"),
        ("wasb", "bucket"),
        ("eos", "https://bucket.eos-beijing-1.cmecloud.cn"),
        ("qiniu", "https://bucket.s3-cn-east-1.qiniucs.com"),
        ("ks3", "https://bucket.ks3-cn-beijing.ksyuncs.com"),
    ] {
        let store: Arc<dyn ObjectStore> = open(&config(storage, bucket, "key", "c2VjcmV0")).unwrap();
        let shown = format!("{store:?} {}", store.describe());
        assert!(!shown.contains("c2VjcmV0") && shown.contains("bucket"), "{shown}");
    }
    open(&config("gs", "bucket.europe-west1", "", "")).unwrap();
    open(&config("sftp", "host:2222:/d/", "user", "")).unwrap();
}

/// The page for users tells of each storage what the code has.
#[test]
fn the_page_on_object_stores_has_every_storage() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/object-stores.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = STORAGES
        .iter()
        .map(|storage| {
            let way = match storage.way {
                Way::Own => "own driver".to_owned(),
                Way::S3 => "S3".to_owned(),
                Way::Opendal(service) => format!("opendal `{service}`"),
                Way::Refused(instead) => return format!("| `{}` | {instead} |", storage.name),
            };
            let tested = if storage.tested { "tested" } else { "not tested" };
            format!("| `{}` | `{}` | {} | {way} | {tested} |", storage.name, storage.address, storage.keys)
        })
        .collect();
    assert_eq!(rows, expected);
    // Whatever is refused is refused with that text, and nothing else is.
    for storage in STORAGES {
        let told = open(&config(storage.name, "no/address/of any%d", "", "")).err().map(|e| e.to_string());
        match storage.way {
            Way::Refused(instead) => assert!(told.unwrap().contains(instead), "{}", storage.name),
            _ => assert!(told.is_none_or(|text| !text.contains("not supported")), "{}", storage.name),
        }
    }
}
