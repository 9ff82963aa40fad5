//! Credentials that the environment offers: their files have bounds, and nobody is told of them.
//!
//! The environment belongs to the whole process, so each case is a process of its own: this test program with
//! [`as_a_process_of_its_own`] alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "hostile/http.rs"]
#[allow(dead_code, reason = "shared")]
mod http;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ciderfs_object::{StoreConfig, open};
use ciderfs_testkit::hostile::{Hostile, Step};
use ciderfs_testkit::s3::{S3Options, S3Server};
use tokio::process::Command;

/// The bucket of the process of its own.
const BUCKET: &str = "TEST_BUCKET";
/// Its largest address space, in KiB: a file without an end would not fit.
const SPACE: u64 = 4 << 20;
/// How long a request may take that needs no network.
const TIME: Duration = Duration::from_secs(20);

/// What a PUT and the making of a bucket say.
#[tokio::test]
async fn as_a_process_of_its_own() {
    let Ok(bucket) = std::env::var(BUCKET) else { return };
    let cfg = StoreConfig { storage: "s3".to_owned(), bucket, ..StoreConfig::default() };
    let store = open(&cfg).unwrap();
    let answers = [store.put("k", Bytes::from_static(b"x")).await, store.create_bucket("k").await];
    for answer in answers {
        match answer {
            Ok(()) => println!("done"),
            Err(e) => println!("error: {e} {e:?}"),
        }
    }
}

/// All that such a process writes.
async fn said(bucket: &str, env: &[(&str, &str)]) -> String {
    let program = std::env::current_exe().unwrap();
    let script = format!(
        "ulimit -v {SPACE}; exec {} --exact as_a_process_of_its_own --nocapture",
        program.to_str().unwrap()
    );
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script]).env_clear().env(BUCKET, bucket).envs(env.iter().copied());
    command.env("PATH", std::env::var("PATH").unwrap()).kill_on_drop(true);
    let began = Instant::now();
    let output = tokio::time::timeout(TIME, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{env:?}: no end after {:?}", began.elapsed())).unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{env:?}: {text}");
    text
}

/// Files of the default search, by the variable that names them.
const FILES: [&str; 4] = [
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

async fn server() -> S3Server {
    S3Server::start(S3Options { buckets: vec!["volume".to_owned()], ..S3Options::default() }).await.unwrap()
}

/// Keys in a file.
fn profile(path: &Path, key: &str, secret: &str, token: Option<&str>) {
    let token = token.map_or_else(String::new, |token| format!("aws_session_token = {token}\n"));
    let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n{token}");
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn files_of_the_environment_have_bounds() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let long = dir.path().join("long");
    profile(&long, &server.access_key, &server.secret_key, None);
    let content = std::fs::read_to_string(&long).unwrap() + &"# more\n".repeat(200_000);
    std::fs::write(&long, content).unwrap();
    for name in FILES {
        for (path, why) in [
            (Path::new("/dev/zero"), "/dev/zero: no regular file"),
            (&pipe, "pipe: no regular file"),
            (dir.path(), "no regular file"),
            (&long, "more than 1048576 bytes"),
        ] {
            let env = [
                (name, path.to_str().unwrap()),
                ("HOME", dir.path().to_str().unwrap()),
                ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
                // Nobody is there.
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/"),
            ];
            let text = said(&server.bucket_url("volume"), &env).await;
            assert_eq!(text.matches("error: ").count(), 2, "{name} {why}: {text}");
            assert!(text.contains(why) && text.contains("--access-key"), "{name} {why}: {text}");
        }
    }
    // What is as it should be is read.
    for name in &FILES[..2] {
        let good = dir.path().join("good");
        profile(&good, &server.access_key, &server.secret_key, None);
        let env = [(*name, good.to_str().unwrap()), ("HOME", dir.path().to_str().unwrap())];
        let text = said(&server.bucket_url("volume"), &env).await;
        assert_eq!(text.matches("done").count(), 2, "{name}: {text}");
    }
}

const SECRET: &str = "planted/secret+key&0123456789";
const TOKEN: &str = "planted/session+token==&0123456789";

/// Every way to write it that others may choose.
fn forms(secret: &str) -> Vec<String> {
    let url = |keep: &[u8]| {
        let keep = |b: &u8| b.is_ascii_alphanumeric() || keep.contains(b);
        secret
            .bytes()
            .map(|b| if keep(&b) { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect()
    };
    let all: String = url(b"");
    vec![
        secret.to_owned(),
        secret.replace('&', "&amp;"),
        secret.chars().map(|c| format!("&#{};", u32::from(c))).collect(),
        secret.chars().map(|c| format!("&#x{:X};", u32::from(c))).collect(),
        url(b"/"),
        all.to_lowercase(),
        all.replace('%', "%25"),
        all,
        secret.replace('/', "\\/"),
    ]
}

/// Neither the settings' keys nor those of the environment, however they are written and wherever the text is cut.
#[tokio::test]
async fn nothing_that_was_used_for_signing_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    profile(&file, "key", SECRET, Some(TOKEN));
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, format!("{TOKEN}\n")).unwrap();
    let home = dir.path().to_str().unwrap();
    let sources: [&[(&str, &str)]; 4] = [
        &[("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_SESSION_TOKEN", TOKEN)],
        &[("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap())],
        &[("AWS_CONFIG_FILE", file.to_str().unwrap())],
        // The server gives keys, too, and they are those of the other cases.
        &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "keys")],
    ];
    // Texts are cut at 500 characters: 12 before the end of a secret, in its middle, and before it.
    let before = [0, 440, 460, 480, 490, 495];
    let mut texts = Vec::new();
    for room in before {
        for (secret, token) in forms(SECRET).into_iter().zip(forms(TOKEN)) {
            let said = format!("{} [{secret}] [{token}] end", "x".repeat(room));
            texts.push(said.clone().into_bytes());
            texts.push(http::document("Odd", &said.replace('&', "&amp;")).into_bytes());
            texts.push(http::document("AccessDenied", &format!("<![CDATA[{said}]]>")).into_bytes());
        }
    }
    for text in texts {
        let served = text.clone();
        let keys = format!(
            "{{\"AccessKeyId\":\"key\",\"SecretAccessKey\":\"{SECRET}\",\"Token\":\"{TOKEN}\",\"Expiration\":\"2099-01-01T00:00:00Z\"}}"
        );
        let script = move |r: &ciderfs_testkit::hostile::Request| {
            let answer = if r.target == "/keys" {
                http::answer("200 OK", &[], keys.as_bytes())
            } else {
                http::answer("400 Bad Request", &[], &served)
            };
            vec![Step::Send(answer)]
        };
        let server = Hostile::start(Arc::new(script)).await.unwrap();
        let url = format!("{}/keys", server.endpoint());
        let source = &sources[texts_number(&text) % sources.len()];
        let env: Vec<(&str, &str)> = source
            .iter()
            .map(|(name, value)| (*name, if *value == "keys" { url.as_str() } else { *value }))
            .chain([("HOME", home)])
            .collect();
        let text = said(&format!("{}/volume", server.endpoint()), &env).await;
        assert_eq!(text.matches("error: ").count(), 2, "{env:?}: {text}");
        assert!(!text.contains("plant") && !text.contains("0123"), "{env:?}: {text}");
        // That is what the server said, and nothing else went wrong.
        assert!(text.contains("****") || text.contains("xxxx"), "{env:?}: {text}");
    }
}

/// Spreads the texts over the sources.
fn texts_number(text: &[u8]) -> usize {
    text.iter().map(|b| usize::from(*b)).sum()
}
