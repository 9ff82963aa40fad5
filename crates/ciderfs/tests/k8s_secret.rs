//! `k8s-secret`: the object has what the file says, under the keys of the official driver; what pods could not use is refused; kubectl
//! gets it through a pipe.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use support::client::{PATIENCE, Ran, program, run_within};
use tempfile::TempDir;

const SECRET: &str = "planted-secret";
const PLAIN: &str = "ACCESS_KEY=AK\nSECRET_KEY=planted-secret-s3\nENDPOINT=https://s3.gra.io.cloud.ovh.net\n\
    BUCKET=juicefs-k3s\nREDIS_URL=redis://10.0.0.1:6379/1\nVOLUME=k3s-storage\n";

fn command(dir: &TempDir, text: &str, mode: u32) -> Command {
    let file = dir.path().join("env");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    let mut command = program();
    command.arg("k8s-secret").arg("--from-env-file").arg(file);
    command
}

#[track_caller]
fn run(text: &str, args: &[&str]) -> Ran {
    run_within(command(&TempDir::new().unwrap(), text, 0o600).args(args), PATIENCE)
}

/// The parts of the object before `data:`, and the values after it.
#[track_caller]
fn object(ran: &Ran) -> (String, BTreeMap<String, String>) {
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(SECRET), "{}{}", ran.stdout, ran.stderr);
    let (head, data) = ran.stdout.split_once("\ndata:\n").expect("data");
    let value = |line: &str| {
        let (key, value) = line.trim().split_once(": ").expect("a key and a value");
        (key.to_owned(), String::from_utf8(STANDARD.decode(value).expect("base64")).expect("text"))
    };
    (head.to_owned(), data.lines().map(value).collect())
}

#[track_caller]
fn refused(text: &str, args: &[&str], why: &str) {
    let ran = run(text, args);
    assert_eq!(ran.code, 1, "{text}: {}", ran.stdout);
    assert!(ran.stderr.contains(why), "no {why:?}: {}", ran.stderr);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(SECRET), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn it_has_the_keys_of_the_official_driver() {
    let (head, data) = object(&run(PLAIN, &[]));
    assert_eq!(
        head,
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: \"juicefs-sc-secret\"\n  namespace: \"kube-system\"\ntype: Opaque"
    );
    let want = [
        ("access-key", "AK"),
        ("bucket", "https://s3.gra.io.cloud.ovh.net/juicefs-k3s"),
        ("metaurl", "redis://10.0.0.1:6379/1"),
        ("name", "k3s-storage"),
        ("secret-key", "planted-secret-s3"),
        ("storage", "s3"),
    ];
    assert_eq!(data, want.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[test]
fn what_has_no_key_is_in_envs_and_format_options() {
    let text = format!(
        "{PLAIN}META_URL=redis://user@redis.internal/2\nREDIS_URL=\nMETA_PASSWORD='planted-secret \"$x'\nJFS_RSA_PASSPHRASE=planted-secret-p\n\
         SESSION_TOKEN=token\nREGION=gra\nFORMAT_OPTIONS=--storage minio --hash-prefix --trash-days=3 --no-update --encrypt-rsa-key=/k.pem\n"
    );
    let (_, data) = object(&run(&text, &["--name", "a.b-1", "-n", "tenant", "other"]));
    let envs: BTreeMap<String, String> = serde_json::from_str(&data["envs"]).unwrap();
    let want = [("JFS_RSA_PASSPHRASE", "planted-secret-p"), ("META_PASSWORD", "planted-secret \"$x")];
    assert_eq!(envs, want.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!(data["format-options"], "hash-prefix,trash-days=3,session-token=token");
    assert_eq!(data["storage"], "minio");
    assert_eq!(data["bucket"], "https://s3.gra.io.cloud.ovh.net/juicefs-k3s?region=gra");
    assert_eq!(data["metaurl"], "redis://user@redis.internal/2");
    assert_eq!(data["name"], "other");
}

/// Keys of the process's own environment are not those of the file.
#[test]
fn the_environment_adds_nothing() {
    let dir = TempDir::new().unwrap();
    let mut command =
        command(&dir, "BUCKET=https://b.example.com\nMETA_URL=redis://h/1\nVOLUME=vol\n", 0o600);
    let ran = run_within(
        command.env("ACCESS_KEY", "other").env("SECRET_KEY", SECRET).env("META_PASSWORD", SECRET),
        PATIENCE,
    );
    let keys: Vec<String> = object(&ran).1.into_keys().collect();
    assert_eq!(keys, ["bucket", "metaurl", "name", "storage"]);
}

#[test]
fn what_pods_cannot_use_is_refused() {
    let without = |name: &str| -> String {
        PLAIN.lines().filter(|l| !l.starts_with(name)).flat_map(|l| [l, "\n"]).collect()
    };
    let with = |line: &str| {
        let name = line.split('=').next().unwrap();
        format!("{}{line}\n", without(name))
    };
    refused(&without("VOLUME"), &[], "set VOLUME in it");
    refused(&without("REDIS_URL"), &[], "set META_URL in it");
    refused(&without("BUCKET"), &[], "set BUCKET in it");
    refused(&without("SECRET_KEY"), &[], "there is ACCESS_KEY and no SECRET_KEY");
    refused(&with("BUCKET=/srv/objects").replace("ENDPOINT", "#"), &[], "a directory of this node");
    for local in ["127.0.0.1:6379", "localhost", "[::1]:6379", ":p@127.0.0.1", "10.0.0.1,localhost:26379"] {
        refused(&with(&format!("REDIS_URL=redis://{local}/1")), &[], "an address of this node only");
    }
    for local in ["sqlite3:///srv/meta.db", "unix:///run/redis.sock?db=1"] {
        refused(&with(&format!("REDIS_URL={local}")), &[], "a file of this node");
    }
    refused(&with("VOLUME=My_Volume"), &[], "3 to 63 characters");
    refused(&with("FORMAT_OPTIONS=--no-such"), &[], "FORMAT_OPTIONS in the file");
    refused(&with("SESSION_TOKEN=a,b"), &[], "separates options in a Secret");
    refused(PLAIN, &["vol", "more"], "accept at most 1");
    for name in ["", "A", "a_b", "-a", "a-", "a..b", ".a", &"a".repeat(254)] {
        refused(PLAIN, &["--name", name], "RFC 1123");
    }
    for namespace in ["", "a.b", "kube_system", &"a".repeat(64)] {
        refused(PLAIN, &["--namespace", namespace], "RFC 1123");
    }
    let ran = run_within(program().arg("k8s-secret"), PATIENCE);
    assert!(ran.code == 1 && ran.stderr.contains("--from-env-file /etc/juicefs/config"), "{}", ran.stderr);
    let dir = TempDir::new().unwrap();
    let ran = run_within(&mut command(&dir, PLAIN, 0o644), PATIENCE);
    assert!(ran.code == 1 && ran.stderr.contains("chmod 0600"), "{}", ran.stderr);
}

/// A program that writes down what it was given.
fn stand_in(dir: &Path, name: &str, code: i32) -> PathBuf {
    let path = dir.join(name);
    let script =
        format!("#!/bin/sh\necho \"$0 $*\" >{0}/args\n/bin/cat >{0}/stdin\nexit {code}\n", dir.display());
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn kubectl_gets_it_through_a_pipe() {
    let printed = run(PLAIN, &[]).stdout;
    for (name, first) in [("kubectl", ""), ("k3s", "kubectl ")] {
        let dir = TempDir::new().unwrap();
        stand_in(dir.path(), name, 0);
        let ran = run_within(command(&dir, PLAIN, 0o600).arg("--apply").env("PATH", dir.path()), PATIENCE);
        assert_eq!((ran.code, &*ran.stdout), (0, ""), "{}", ran.stderr);
        let args = fs::read_to_string(dir.path().join("args")).unwrap();
        let end =
            format!("/{name} {first}apply --server-side --force-conflicts --field-manager=ciderfs -f -\n");
        assert!(args.ends_with(&end), "{args}");
        assert_eq!(fs::read_to_string(dir.path().join("stdin")).unwrap(), printed);
    }
}

#[test]
fn a_failure_of_kubectl_is_one() {
    let dir = TempDir::new().unwrap();
    let mut command = command(&dir, PLAIN, 0o600);
    command.arg("--apply").env("PATH", dir.path());
    let ran = run_within(&mut command, PATIENCE);
    assert!(ran.code == 1 && ran.stderr.contains("leave --apply out"), "{}", ran.stderr);
    stand_in(dir.path(), "kubectl", 7);
    let ran = run_within(&mut command, PATIENCE);
    assert!(ran.code == 1 && ran.stderr.contains("kubectl has not applied the Secret"), "{}", ran.stderr);
}
