//! `format --if-absent`, as every node of a cluster runs it at every start.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::process::{Child, Stdio};

use ciderfs_testkit::s3::{S3Options, S3Server};
use support::client::{PATIENCE, Ran, program, run, run_within, succeed};
use support::volume::NAME;
use support::{Engine, Volume};

on_engines!(the_same_volume_is_no_error, another_volume_is_told, interrupted_between_settings_and_marker);

fn server() -> S3Server {
    S3Server::start_now(S3Options { buckets: vec!["have".into()], ..S3Options::default() }).unwrap()
}

/// Where objects are.
enum Objects<'a> {
    Files,
    Bucket(&'a S3Server),
}

fn words(volume: &Volume, objects: &Objects<'_>, name: &str) -> Vec<String> {
    let mut words = vec!["format".to_owned(), "--if-absent".into()];
    words.extend(match objects {
        Objects::Files => volume.storage_flags(&[]),
        Objects::Bucket(server) => vec![
            "--storage=s3".into(),
            format!("--bucket={}", server.bucket_url("have")),
            format!("--access-key={}", server.access_key),
            format!("--secret-key={}", server.secret_key),
        ],
    });
    words.extend([volume.meta.clone(), name.into()]);
    words
}

fn format(volume: &Volume, objects: &Objects<'_>, name: &str) -> Ran {
    run(&words(volume, objects, name))
}

fn start(volume: &Volume, objects: &Objects<'_>) -> Child {
    let mut command = program();
    command.args(words(volume, objects, NAME)).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn uuid(volume: &Volume) -> String {
    let out = succeed(&["status", &volume.meta]).stdout;
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    status["Setting"]["UUID"].as_str().unwrap().to_owned()
}

fn marker(volume: &Volume) -> String {
    fs::read_to_string(volume.objects.join(NAME).join("juicefs_uuid")).unwrap()
}

#[track_caller]
fn fails(ran: &Ran, code: i32, texts: &[&str]) {
    assert_eq!(ran.code, code, "{}", ran.stderr);
    for text in texts {
        assert!(ran.stderr.contains(text), "{text:?} is not in {}", ran.stderr);
    }
}

/// A region of the environment, as units have it, is the same one to every start, also after one that was cut short before the
/// marker; and a plain `format` that says the same again changes nothing.
#[test]
fn a_region_of_the_environment_changes_no_volume() {
    let server = server();
    let volume = Volume::unformatted(Engine::Sqlite);
    let objects = Objects::Bucket(&server);
    let words = words(&volume, &objects, NAME);
    let format = |words: &[String]| {
        let ran = run_within(program().args(words).env("REGION", "eu-test"), PATIENCE);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    };
    let bucket = || {
        let out = succeed(&["status", &volume.meta]).stdout;
        let status: serde_json::Value = serde_json::from_str(&out).unwrap();
        status["Setting"]["Bucket"].as_str().unwrap().to_owned()
    };
    format(&words);
    let stored = bucket();
    assert!(stored.ends_with("?region=eu-test"), "{stored}");
    clean(&server);
    format(&words);
    let plain: Vec<String> = words.iter().filter(|w| *w != "--if-absent").cloned().collect();
    format(&plain);
    assert_eq!(bucket(), stored);
    volume.mount(&[]).unmount();
}

/// Two nodes start at the same moment, twenty times.
#[test]
fn two_nodes_at_once_make_one_volume() {
    let server = server();
    for round in 0..20 {
        let engine = if round % 4 == 0 { Engine::Sqlite } else { Engine::Redis };
        let volume = Volume::unformatted(engine);
        let is_s3 = engine == Engine::Redis && round % 2 == 0;
        let objects = if is_s3 { Objects::Bucket(&server) } else { Objects::Files };
        let nodes = [start(&volume, &objects), start(&volume, &objects)];
        for node in nodes {
            let out = node.wait_with_output().unwrap();
            assert!(out.status.success(), "round {round}: {}", String::from_utf8_lossy(&out.stderr));
        }
        if is_s3 {
            // Marker and settings agree.
            assert_eq!(format(&volume, &objects, NAME).code, 0);
            let other = Volume::unformatted(Engine::Sqlite);
            fails(&format(&other, &objects, NAME), 2, &[&uuid(&volume)]);
            clean(&server);
        } else {
            assert_eq!(marker(&volume), uuid(&volume), "round {round}");
        }
    }
}

/// Empties the bucket for the next round.
fn clean(server: &S3Server) {
    let config = ciderfs_object::StoreConfig {
        storage: "s3".into(),
        bucket: server.bucket_url("have"),
        access_key: server.access_key.clone(),
        secret_key: server.secret_key.as_str().into(),
        ..ciderfs_object::StoreConfig::default()
    };
    let store = ciderfs_object::open(&config).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        for entry in store.list("", "", 100).await.unwrap() {
            store.delete(&entry.key).await.unwrap();
        }
    });
}

/// Two nodes that were given different engines and one bucket: at most one of them gets a volume.
#[test]
fn two_engines_and_one_bucket_make_one_volume() {
    let server = server();
    for round in 0..8 {
        let volumes = [Volume::unformatted(Engine::Redis), Volume::unformatted(Engine::Redis)];
        let objects = Objects::Bucket(&server);
        let nodes = volumes.each_ref().map(|volume| start(volume, &objects));
        let codes = nodes.map(|node| node.wait_with_output().unwrap().status.code().unwrap());
        assert!(matches!(codes, [0, 2] | [2, 0]), "round {round}: {codes:?}");
        for (volume, code) in volumes.iter().zip(codes) {
            // The one that lost has left nothing to mount.
            assert_eq!(run(&["status", &volume.meta]).code == 0, code == 0, "round {round}: {codes:?}");
        }
        clean(&server);
    }
}

fn the_same_volume_is_no_error(engine: Engine) {
    let volume = Volume::unformatted(engine);
    assert_eq!(format(&volume, &Objects::Files, NAME).code, 0);
    let first = uuid(&volume);
    for _ in 0..2 {
        let ran = format(&volume, &Objects::Files, NAME);
        assert_eq!((ran.code, uuid(&volume)), (0, first.clone()), "{}", ran.stderr);
        assert!(ran.stderr.contains("is there"), "{}", ran.stderr);
    }
    // Settings that were not asked for stay; a mount works.
    let mount = volume.mount(&[]);
    fs::write(mount.join("f"), "x").unwrap();
    assert_eq!(format(&volume, &Objects::Files, NAME).code, 0, "with data in it");
    mount.unmount();
}

fn another_volume_is_told(engine: Engine) {
    let volume = Volume::unformatted(engine);
    assert_eq!(format(&volume, &Objects::Files, NAME).code, 0);
    let first = uuid(&volume);
    // Another name at the address; the meaning of `--no-update` is another one.
    fails(&format(&volume, &Objects::Files, "other"), 2, &["is vol", &first, "not other"]);
    let ran = run(&["format", "--no-update", &volume.meta, "other"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    // The bucket of another volume, with a new engine.
    let mut other = Volume::unformatted(engine);
    other.objects = volume.objects.clone();
    fails(&format(&other, &Objects::Files, NAME), 2, &[&first, "which is not at this address", "--bucket"]);
    assert_eq!(run(&["status", &other.meta]).code, 1, "nothing was made");
    // The bucket of another volume, with an engine that has one.
    other.objects = other.dir.path().join("own");
    assert_eq!(format(&other, &Objects::Files, NAME).code, 0);
    let own = uuid(&other);
    let right = std::mem::replace(&mut other.objects, volume.objects.clone());
    fails(&format(&other, &Objects::Files, NAME), 2, &[&first, &own]);
    // An empty place.
    other.objects = other.dir.path().join("nowhere");
    fails(&format(&other, &Objects::Files, NAME), 2, &[right.to_str().unwrap(), "has none of it"]);
    // Objects without a marker.
    let third = Volume::unformatted(engine);
    fs::create_dir_all(third.objects.join(NAME)).unwrap();
    fs::write(third.objects.join(NAME).join("something"), "x").unwrap();
    fails(&format(&third, &Objects::Files, NAME), 2, &["holds objects", "--force"]);
}

fn interrupted_between_settings_and_marker(engine: Engine) {
    let volume = Volume::unformatted(engine);
    assert_eq!(format(&volume, &Objects::Files, NAME).code, 0);
    let first = uuid(&volume);
    let marker_file = volume.objects.join(NAME).join("juicefs_uuid");
    fs::remove_file(&marker_file).unwrap();
    assert_eq!(format(&volume, &Objects::Files, NAME).code, 0);
    assert_eq!((marker(&volume), uuid(&volume)), (first.clone(), first));
}

#[test]
fn what_does_not_answer_is_told_apart() {
    // Redis.
    let mut volume = Volume::unformatted(Engine::Redis);
    volume.redis.as_mut().unwrap().kill();
    fails(&format(&volume, &Objects::Files, NAME), 3, &["refused"]);
    // The object store, for a new volume and for one that is there.
    let (mut server, volume) = (server(), Volume::unformatted(Engine::Sqlite));
    for made in [false, true] {
        if made {
            assert_eq!(format(&volume, &Objects::Bucket(&server), NAME).code, 0);
        }
        server.stop();
        fails(&format(&volume, &Objects::Bucket(&server), NAME), 3, &["cannot reach the object store"]);
        server.restart().unwrap();
    }
    assert_eq!(format(&volume, &Objects::Bucket(&server), NAME).code, 0);
    // What no time cures is neither.
    let mut words = words(&volume, &Objects::Bucket(&server), NAME);
    words.push("--secret-key=wrong".into());
    fails(&run(&words), 1, &["secret key"]);
}
