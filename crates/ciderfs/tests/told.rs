//! What a mount tells of itself: the id in its log, its addresses, labels of its metrics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};

use support::client::{run, succeed};
use support::{Engine, Volume};

/// Mounts in the background. Returns what the command said and what the log has.
fn background(volume: &Volume, flags: &[&str]) -> (String, String) {
    let path = volume.new_path();
    let log = path.with_extension("log");
    let place = path.to_str().unwrap();
    let line = ["mount", "-d", "--metrics=", "--log", log.to_str().unwrap(), &volume.meta, place];
    let ran = run(&[&line[..], flags].concat());
    if ran.code == 0 {
        succeed(&["umount", place]);
    }
    (ran.stderr, fs::read_to_string(&log).unwrap())
}

fn id_of(line: &str) -> &str {
    line.strip_prefix('[').and_then(|l| l.split_once("] 20")).unwrap_or_else(|| panic!("{line:?}")).0
}

#[test]
fn every_line_of_the_log_has_the_id() {
    let volume = Volume::new(Engine::Sqlite, &[]);
    let (_, log) = background(&volume, &["--log-id=pod-7"]);
    assert!(log.lines().count() >= 2 && log.lines().all(|l| id_of(l) == "pod-7"), "{log}");
    let (_, log) = background(&volume, &["--log-id", "random"]);
    let id = id_of(log.lines().next().unwrap()).to_owned();
    assert!(id.len() == 36 && log.lines().all(|l| id_of(l) == id), "{log}");
    let (_, other) = background(&volume, &["--log-id", "random"]);
    assert_ne!(id_of(other.lines().next().unwrap()), id);
    // A command and the mount that it starts have the same.
    let (said, log) = background(&volume, &["--log-id=random", "--network-interfaces=no-such"]);
    assert!(
        said.contains("no network interface \"no-such\"") && log.contains("no network interface"),
        "{said}"
    );
    assert!(said.lines().chain(log.lines()).all(|l| id_of(l) == id_of(&said)), "{said}{log}");
    let (_, log) = background(&volume, &[]);
    assert!(log.lines().all(|l| l.starts_with("20")), "{log}");
}

#[test]
fn a_session_shows_the_addresses_of_chosen_interfaces() {
    let volume = Volume::new(Engine::Redis, &[]);
    let shown = |flags: &[&str]| {
        let mount = volume.mount(flags);
        let status: serde_json::Value =
            serde_json::from_str(&succeed(&["status", &volume.meta]).stdout).unwrap();
        let ips = status["Sessions"][0]["IPAddrs"].as_array().cloned().unwrap_or_default();
        mount.unmount();
        ips.iter().map(|ip| ip.as_str().unwrap().parse::<IpAddr>().unwrap()).collect::<Vec<_>>()
    };
    let all = shown(&[]);
    assert!(all.iter().all(|ip| !ip.is_loopback()), "{all:?}");
    let names: Vec<String> = fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(shown(&[&format!("--network-interfaces={}", names.join(","))]), all);
    assert!(shown(&["--network-interfaces=lo"]).is_empty());
}

/// The metrics at an address.
fn metrics(at: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn every_series_has_the_labels() {
    let volume = Volume::new(Engine::Sqlite, &[]);
    let mount = volume.mount(&["--metrics=127.0.0.1:0", "--custom-labels=team:storage;site:eu west"]);
    let log = mount.log();
    let at = log.split_once("http://").unwrap().1.split_once("/metrics").unwrap().0;
    fs::write(mount.join("f"), "data").unwrap();
    let text = metrics(at);
    let samples: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
    assert!(samples.len() > 50, "{text}");
    for line in samples {
        assert!(line.contains("team=\"storage\"") && line.contains("site=\"eu west\""), "{line}");
        assert!(line.contains("mp=") && line.contains("vol_name="), "{line}");
    }
    mount.unmount();
    for wrong in ["mp:x", "a", "1:2", "a:1;a:2", "method:x"] {
        let flag = format!("--custom-labels={wrong}");
        let ran = run(&["mount", "--metrics=", &flag, &volume.meta, volume.new_path().to_str().unwrap()]);
        assert!(ran.code == 1 && ran.stderr.contains("--custom-labels: "), "{wrong}: {}", ran.stderr);
    }
}
