//! Where objects are: what the command line names, with the rights that a key has, and what is verified when they are read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ciderfs_testkit::official::Official;
use ciderfs_testkit::s3::{Op, Policy, Request, S3Options, S3Server, Scripted};
use support::client::{Ran, program, run_within, succeed};
use support::{Engine, Volume, noise};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);
/// Name of the volumes of [`Volume`].
const NAME: &str = support::volume::NAME;

fn server(dir: Option<PathBuf>) -> S3Server {
    S3Server::start_now(S3Options { dir, buckets: vec!["have".into()], ..S3Options::default() }).unwrap()
}

fn keys(server: &S3Server) -> [String; 2] {
    [format!("--access-key={}", server.access_key), format!("--secret-key={}", server.secret_key)]
}

/// Runs the program so that whatever it might send to another machine ends at a closed port of this one.
fn run<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Ran {
    let mut command = program();
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
        command.env(name, "http://127.0.0.1:9");
    }
    command
        .env("no_proxy", "127.0.0.1")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    run_within(command.args(args), LIMIT)
}

#[track_caller]
fn format(volume: &Volume, server: &S3Server, flags: &[&str]) -> Ran {
    let mut args = vec!["format".to_owned(), volume.meta.clone(), NAME.into(), "--storage=s3".into()];
    args.extend(keys(server));
    args.extend(flags.iter().map(|f| (*f).to_owned()));
    run(&args)
}

fn said(ran: &Ran) -> String {
    format!("{}{}", ran.stdout, ran.stderr)
}

/// `--endpoint` beside `--bucket` is where the volume is, for us and for the official client, whatever slashes there are. A key
/// for one prefix is enough for all of it.
#[test]
fn endpoint_beside_bucket_is_used_with_a_key_for_one_prefix() {
    let official = Official::locate().unwrap_or_else(|e| panic!("{e:#}"));
    for (endpoint, bucket) in [("", "have"), ("/", "have/"), ("", "URL/have/"), ("bare", "have")] {
        let server = server(None);
        server.control().restrict(Policy { only_below: Some(format!("have/{NAME}/")), ..Policy::default() });
        let volume = Volume::unformatted(Engine::Sqlite);
        let bucket = bucket.replace("URL", &server.endpoint());
        let endpoint = match endpoint {
            "bare" => server.endpoint().replace("http://", ""),
            slash => format!("{}{slash}", server.endpoint()),
        };
        let ran =
            format(&volume, &server, &[&format!("--endpoint={endpoint}"), &format!("--bucket={bucket}")]);
        assert_eq!(ran.code, 0, "{}", said(&ran));
        let address = format!("bucket have at {}", server.endpoint());
        assert!(said(&ran).contains(&address), "the address as it was understood: {}", said(&ran));
        let mount = volume.mount(&["--check-storage"]);
        fs::write(mount.join("f"), noise(1, 300_000)).unwrap();
        mount.unmount();
        let theirs = official.mount(&volume.meta, &volume.new_path(), &[]).unwrap();
        assert!(fs::read(theirs.path().join("f")).unwrap() == noise(1, 300_000));
        fs::write(theirs.path().join("g"), noise(2, 300_000)).unwrap();
        theirs.unmount().unwrap();
        let mount = volume.mount(&[]);
        assert!(fs::read(mount.join("g")).unwrap() == noise(2, 300_000));
        fs::remove_file(mount.join("f")).unwrap();
        mount.unmount();
        assert_eq!(server.control().count(Op::CreateBucket), 0);
        // But for what `format` would warn of, if it might know it.
        let is_refused = |r: &Request| r.status == 403 && r.op != Op::Other;
        let ours: Vec<_> = server.control().requests().into_iter().filter(is_refused).collect();
        assert!(ours.is_empty(), "{ours:?}");
    }
}

/// A part of the address that would have no effect is refused, with the address as it was understood; nothing is asked of
/// anybody, and nothing is stored.
#[test]
fn a_path_after_the_bucket_or_endpoint_is_refused() {
    let server = server(None);
    let volume = Volume::unformatted(Engine::Sqlite);
    let at = server.endpoint();
    for (flags, why) in [
        (vec![format!("--bucket={at}/have/some/where")], "bucket have at"),
        (vec![format!("--endpoint={at}/s3"), "--bucket=have".into()], "path /s3"),
        (vec![format!("--endpoint={at}"), "--bucket=http://127.0.0.1:1/have".into()], "different places"),
        (vec![format!("--endpoint={at}")], "--bucket"),
        (vec![], "--bucket"),
        (vec!["--storage=minio".into(), "--bucket=have".into()], "--endpoint"),
        (vec!["--storage=file".into(), format!("--endpoint={at}"), "--bucket=/tmp/x".into()], "--endpoint"),
    ] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let ran = format(&volume, &server, &flags);
        assert!(ran.code == 1 && said(&ran).contains(why), "{flags:?}: {}", said(&ran));
    }
    assert!(server.control().requests().is_empty());
    let ran = format(&volume, &server, &[&format!("--bucket={at}/have")]);
    assert_eq!(ran.code, 0, "{}", said(&ran));
    // A volume that exists is held to the same.
    server.control().clear();
    let path = format!("--bucket={at}/have/some/where");
    let mount_point = volume.new_path().display().to_string();
    for args in [
        vec!["config", &volume.meta, "--yes", &path],
        vec!["config", &volume.meta, "--yes", "--force", &path],
        vec!["format", &volume.meta, NAME, &path],
        vec!["format", &volume.meta, NAME, "--endpoint=http://127.0.0.1:1"],
        vec!["mount", &volume.meta, &mount_point, &path, "--metrics="],
    ] {
        let ran = run(&args);
        assert!(ran.code != 0 && said(&ran).contains("--bucket"), "{args:?}: {}", said(&ran));
    }
    let shown = succeed(&["config", &volume.meta]).stdout;
    assert!(shown.contains(&format!("\"{at}/have\"")), "{shown}");
    assert!(server.control().requests().is_empty(), "{:?}", server.control().requests());
}

/// What a key may not do is named, at `format`, `config` and `mount --check-storage`.
#[test]
fn a_missing_right_is_named() {
    let server = server(None);
    let volume = Volume::unformatted(Engine::Sqlite);
    let url = format!("--bucket={}", server.bucket_url("have"));
    let deny = |op| server.control().restrict(Policy { deny: vec![op], ..Policy::default() });
    for (op, right) in [
        (Op::Put, "s3:PutObject on have/"),
        (Op::Get, "s3:GetObject on have/"),
        (Op::Delete, "s3:DeleteObject on have/"),
        (Op::List, "s3:ListBucket on have"),
    ] {
        deny(op);
        let ran = format(&volume, &server, &[&url]);
        assert!(ran.code == 1 && said(&ran).contains(right), "{}", said(&ran));
    }
    deny(Op::CreateBucket);
    let ran = format(&volume, &server, &[&url.replace("have", "missing")]);
    assert!(ran.code == 1 && said(&ran).contains("s3:CreateBucket on missing"), "{}", said(&ran));
    // Without the right to list it can be forced.
    deny(Op::List);
    let ran = format(&volume, &server, &[&url, "--force"]);
    assert!(ran.code == 0 && said(&ran).contains("s3:ListBucket on have"), "{}", said(&ran));
    deny(Op::Put);
    let mount_point = volume.new_path().display().to_string();
    let ran = run(&["mount", &volume.meta, &mount_point, "--check-storage", "--metrics="]);
    assert!(ran.code != 0 && said(&ran).contains("s3:PutObject on have/"), "{}", said(&ran));
    let mut config =
        vec!["config".to_owned(), volume.meta.clone(), "--yes".into(), format!("{url}?region=eu")];
    config.extend(keys(&server));
    let ran = run(&config);
    assert!(ran.code == 1 && said(&ran).contains("s3:PutObject on have/"), "{}", said(&ran));
    // A missing bucket is made, and may take a moment to be known.
    server.control().restrict(Policy::default());
    server.control().prescribe(vec![Scripted { times: 3, ..Scripted::always(Op::Put, 404, "NoSuchBucket") }]);
    let other = Volume::unformatted(Engine::Sqlite);
    let ran = format(&other, &server, &[&url.replace("have", "missing")]);
    assert_eq!(ran.code, 0, "{}", said(&ran));
}

/// Inverts the byte that is `before_end` bytes before the end of the file's last block. Returns the length of that block: how many
/// there are depends on how fast the file was written.
fn damage(dir: &Path, before_end: u64) -> u64 {
    let blocks = fs::read_dir(dir.join("have")).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        let (_, block) = name.rsplit_once("%2F").filter(|_| name.contains("chunks"))?;
        let numbers: Vec<u64> = block.split('_').map(|n| n.parse().unwrap()).collect();
        Some(((numbers[0], numbers[1]), numbers[2], path))
    });
    let (_, len, path) = blocks.max().unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let at = file.metadata().unwrap().len() - before_end;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
    len
}

/// Reads 4 KiB at `at` without the kernel reading more.
fn read_part(path: &Path, at: u64) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random)?;
    let mut part = vec![0; 4096];
    file.read_exact_at(&mut part, at)?;
    Ok(part)
}

/// A byte of an object has changed in the store. A part that is read alone has nothing to be compared with, so it is given out as
/// it is, while the whole block is refused; with `--verify-reads` every part of the block is refused, with a line in the log that
/// names the object.
#[test]
fn a_damaged_object_is_noticed_by_whole_reads_and_with_verify_reads_by_all() {
    const LEN: usize = 3 << 20;
    for flags in [&[][..], &["--compress=lz4"], &["--compress=zstd"]] {
        let dir = tempfile::tempdir().unwrap();
        let server = server(Some(dir.path().to_owned()));
        let volume = Volume::unformatted(Engine::Sqlite);
        let url = format!("--bucket={}", server.bucket_url("have"));
        let ran = format(&volume, &server, &[flags, &[&url]].concat());
        assert_eq!(ran.code, 0, "{}", said(&ran));
        let content = noise(7, LEN);
        let mount = volume.mount(&[]);
        fs::write(mount.join("f"), &content).unwrap();
        mount.unmount();
        let len = damage(dir.path(), 100);
        assert!(len >= 4 * 4096, "{len}");
        let plain = flags.is_empty();
        // Not at the begin of the file, which would be taken for the begin of a stream.
        let (bad, good) = (LEN as u64 - 4096, LEN as u64 - len / 2);
        if plain {
            let mount = volume.mount(&["--io-retries=1", "--prefetch=0"]);
            let part = read_part(&mount.join("f"), bad).unwrap();
            let differs: Vec<_> = (0..4096).filter(|&i| part[i] != content[bad as usize + i]).collect();
            assert_eq!(differs, [4096 - 100]);
            assert!(read_part(&mount.join("f"), good).unwrap() == content[good as usize..][..4096]);
            mount.unmount_after_errors();
        }
        for extra in [&[][..], &["--verify-reads"]] {
            let mount = volume.mount(&[extra, &["--io-retries=1"]].concat());
            if !plain || !extra.is_empty() {
                for at in [bad, good] {
                    let e = read_part(&mount.join("f"), at).unwrap_err();
                    assert_eq!(e.raw_os_error(), Some(5), "{e}");
                }
            }
            assert_eq!(fs::read(mount.join("f")).unwrap_err().raw_os_error(), Some(5));
            let log = mount.log();
            assert!(log.contains("chunks/0/0/") && log.contains(" is damaged"), "{log}");
            mount.unmount_after_errors();
        }
    }
}

/// The official client drops the path after a bucket. Such a volume is read at the same place, and the log says so.
#[test]
fn a_stored_path_after_the_bucket_is_read_as_by_the_official_client() {
    let official = Official::locate().unwrap_or_else(|e| panic!("{e:#}"));
    let server = server(None);
    let volume = Volume::unformatted(Engine::Sqlite);
    let url = format!("--bucket={}/some/where", server.bucket_url("have"));
    let [access, secret] = keys(&server);
    volume.format_official(&official, &["--storage=s3", &url, &access, &secret]);
    let theirs = official.mount(&volume.meta, &volume.new_path(), &[]).unwrap();
    fs::write(theirs.path().join("f"), noise(1, 100_000)).unwrap();
    theirs.unmount().unwrap();
    let mount = volume.mount(&[]);
    assert!(fs::read(mount.join("f")).unwrap() == noise(1, 100_000));
    assert!(mount.log().contains("\"some/where\""), "{}", mount.log());
    mount.unmount();
    // The same address again changes nothing, and is no reason to fail.
    succeed(&["format", &volume.meta, NAME, &url]);
}

/// Where objects have no checksum `--verify-reads` says so; where they have one it is silent.
#[test]
fn verify_reads_warns_where_there_are_no_checksums() {
    let server = server(None);
    for (bucket, warns) in [("", true), ("?disable-checksum=true", true), ("?disable-checksum=false", false)]
    {
        let volume = Volume::unformatted(Engine::Sqlite);
        if bucket.is_empty() {
            volume.format(&[]);
        } else {
            let url = format!("--bucket={}{bucket}", server.bucket_url("have"));
            let ran = format(&volume, &server, &[&url, "--force"]);
            assert_eq!(ran.code, 0, "{}", said(&ran));
        }
        let mount = volume.mount(&["--verify-reads"]);
        assert_eq!(mount.log().contains("--verify-reads: objects of this volume have no checksum"), warns);
        mount.unmount();
    }
}
