//! Figures of a mount: the names of the official client, the dashboard and the alerts that rest on them, `stats` and `profile`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ciderfs_testkit::official::Official;
use ciderfs_testkit::s3::{Faults, Op, S3Options, S3Server};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::client::{PATIENCE, run_within, sh, succeed, wait_for};
use support::volume::NAME;
use support::{Engine, Mount, Volume, run};

/// Series of the official client that a mount of ours does not have, and why. A star stands for any end.
const EXCEPTIONS: [(&str, &str); 4] = [
    ("juicefs_go_build_info", "the Go module; ours is juicefs_build_info"),
    ("juicefs_go_info", "the version of Go"),
    ("juicefs_go_gc_*", "the garbage collector of Go"),
    (
        "juicefs_go_memstats_*",
        "the allocator of Go; ours is counted by juicefs_memory and juicefs_used_buffer_size_bytes",
    ),
];

/// What the official Grafana dashboard (20794) asks for, as far as series and labels matter.
const OFFICIAL_QUERIES: [&str; 25] = [
    r#"max(juicefs_uptime{vol_name="$name"}) by (instance, juicefs_version)"#,
    r#"avg(juicefs_used_space{vol_name="$name"})"#,
    r#"avg(juicefs_used_inodes{vol_name="$name"})"#,
    r#"sum(rate(juicefs_fuse_ops_durations_histogram_seconds_count{vol_name="$name"}[5s])) by (instance)"#,
    r#"sum(rate(juicefs_fuse_ops_durations_histogram_seconds_sum{vol_name="$name"}[5s])) by (instance, mp)"#,
    r#"sum(rate(juicefs_fuse_written_size_bytes_sum{vol_name="$name"}[5s])) by (instance)"#,
    r#"sum(rate(juicefs_fuse_read_size_bytes_sum{vol_name="$name"}[5s])) by (instance)"#,
    r#"sum(rate(juicefs_transaction_durations_histogram_seconds_count{vol_name="$name"}[5s])) by (instance)"#,
    r#"sum(rate(juicefs_transaction_durations_histogram_seconds_sum{vol_name="$name"}[5s])) by (instance, mp)"#,
    r#"sum(rate(juicefs_transaction_restart{vol_name="$name"}[5s])) by (instance)"#,
    r#"sum(rate(juicefs_object_request_durations_histogram_seconds_count{vol_name="$name"}[5s])) by (method)"#,
    r#"sum(rate(juicefs_object_request_durations_histogram_seconds_sum{vol_name="$name"}[5s])) by (instance)"#,
    r#"sum(rate(juicefs_object_request_errors{vol_name="$name"}[5s]))"#,
    r#"sum(rate(juicefs_object_request_data_bytes{method="PUT",vol_name="$name"}[5s])) by (instance, method)"#,
    r#"sum(rate(juicefs_object_request_data_bytes{method="GET",vol_name="$name"}[5s])) by (instance, method)"#,
    r#"sum(rate(juicefs_cpu_usage{vol_name="$name"}[5s]) * 100) by (instance, mp)"#,
    r#"sum(juicefs_memory{vol_name="$name"}) by (instance, mp)"#,
    r#"sum(juicefs_go_goroutines{vol_name="$name"}) by (instance, mp)"#,
    r#"sum(juicefs_blockcache_bytes{vol_name="$name"} + juicefs_blockcache_blocks{vol_name="$name"}) by (instance)"#,
    r#"sum(rate(juicefs_blockcache_hits{vol_name="$name"}[5s])) + sum(rate(juicefs_blockcache_miss{vol_name="$name"}[5s]))"#,
    r#"sum(rate(juicefs_blockcache_hit_bytes{vol_name="$name"}[5s])) + sum(rate(juicefs_blockcache_miss_bytes[5s]))"#,
    r#"sum(rate(juicefs_compact_size_histogram_bytes_count[5s])) + sum(rate(juicefs_compact_size_histogram_bytes_sum[5s]))"#,
    r#"sum(juicefs_fuse_open_handlers{vol_name="$name"}) by (instance, mp)"#,
    r#"juicefs_staging_blocks{vol_name="$name"} + juicefs_staging_block_bytes{vol_name="$name"}"#,
    r#"sum(rate(juicefs_staging_block_delay_seconds{vol_name="$name"}[5s])) by (instance, mp)"#,
];

fn official() -> Official {
    Official::locate().unwrap_or_else(|e| panic!("{e:#}"))
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The body of an answer.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// Where the monitoring files are.
fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/monitoring").join(name).canonicalize().unwrap()
}

/// Mounts with the metrics at this port.
#[track_caller]
fn mount(volume: &Volume, port: u16, flags: &[&str]) -> Mount {
    let metrics = format!("--metrics=127.0.0.1:{port}");
    volume.mount(&[&[metrics.as_str()], flags].concat())
}

/// Some of everything that is counted.
fn work(mount: &Path) {
    sh(mount, "
        mkdir d; echo hello > d/a; cat d/a; mv d/a b; ln b c; ln -s b s; readlink s; ls -la; df .
        head -c 5000000 /dev/urandom > f; cat f | cksum; cp f g; truncate -s 100 g; rm c; rmdir d; touch b; chmod 600 b
        cat missing 2>/dev/null && exit 1; mkfifo p; sync f");
}

/// Series by name, of one scrape.
#[derive(Default)]
struct Scrape {
    kinds: BTreeMap<String, String>,
    labels: BTreeMap<String, BTreeSet<String>>,
    /// Bounds of histograms.
    bounds: BTreeMap<String, BTreeSet<String>>,
}

impl Scrape {
    fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                scrape.kinds.insert(name.into(), kind.into());
            }
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|end| name.strip_suffix(end))
                .find(|n| scrape.kinds.get(*n).is_some_and(|kind| kind == "histogram" || kind == "summary"))
                .unwrap_or(name)
                .to_owned();
            for (label, value) in pairs(labels.trim_end_matches('}')) {
                if label == "le" {
                    let bound: f64 = value.replace("+Inf", "inf").parse().unwrap();
                    scrape.bounds.entry(family.clone()).or_default().insert(format!("{bound:.6e}"));
                } else {
                    scrape.labels.entry(family.clone()).or_default().insert(label);
                }
            }
        }
        scrape
    }

    /// Samples that queries can name.
    fn samples(&self) -> BTreeSet<String> {
        let ends =
            |kind: &String| if kind == "histogram" { &["_bucket", "_sum", "_count"][..] } else { &[""] };
        self.kinds
            .iter()
            .flat_map(|(name, kind)| ends(kind).iter().map(move |e| format!("{name}{e}")))
            .collect()
    }
}

/// Labels and values; commas and quotes within values are none of ours.
fn pairs(labels: &str) -> impl Iterator<Item = (String, String)> {
    labels.split("\",").filter_map(|pair| {
        let (name, value) = pair.split_once("=\"")?;
        Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
    })
}

fn is_exception(name: &str) -> bool {
    EXCEPTIONS.iter().any(|(pattern, _)| matches(pattern, name))
}

fn matches(pattern: &str, name: &str) -> bool {
    let mut rest = name;
    for (i, part) in pattern.split('*').enumerate() {
        match rest.find(part) {
            Some(at) if i > 0 || at == 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    rest.is_empty() || pattern.ends_with('*')
}

#[test]
fn every_series_of_the_official_client_is_there_with_its_type_and_labels() {
    let official = official();
    let scrapes: Vec<Scrape> = [true, false]
        .into_iter()
        .map(|is_official| {
            let volume = Volume::unformatted(Engine::Redis);
            let path = volume.new_path();
            let port = free_port();
            let quotas = [["--path", "/q", "--create"].as_slice(), &["--uid", "1000"], &["--gid", "100"]]
                .map(|of| {
                    [&["quota", "set", &volume.meta], of, &["--capacity", "1", "--inodes", "99"]].concat()
                });
            let at = format!("127.0.0.1:{port}");
            let (_theirs, _ours);
            let root = if is_official {
                volume.format_official(&official, &["--trash-days=0"]);
                for quota in &quotas {
                    let said = official.run(quota).unwrap();
                    assert_eq!(said.code, 0, "{}", said.text());
                }
                let flags = ["--metrics", &at, "--heartbeat", "1"];
                _theirs = official.mount(&volume.meta, &path, &flags).unwrap_or_else(|e| panic!("{e:#}"));
                _theirs.path()
            } else {
                volume.format(&["--trash-days=0"]);
                quotas.iter().for_each(|quota| _ = succeed(quota));
                _ours = mount(&volume, port, &["--heartbeat=1"]);
                _ours.path()
            };
            work(root);
            let mut text = String::new();
            wait_for("all quotas to be told", || {
                text = get(port, "/metrics").unwrap_or_default();
                ["dir", "user", "group"]
                    .iter()
                    .all(|of| text.contains(&format!("juicefs_{of}_quota_used_inodes{{")))
            });
            Scrape::parse(&text)
        })
        .collect();
    let [theirs, ours] = &scrapes[..] else { unreachable!() };
    assert!(theirs.kinds.len() > 90, "{:?}", theirs.kinds);
    let mut wrong = Vec::new();
    for (name, kind) in theirs.kinds.iter().filter(|(name, _)| !is_exception(name)) {
        if ours.kinds.get(name) != Some(kind) {
            wrong.push(format!("{name} is a {kind} there, here {:?}", ours.kinds.get(name)));
            continue;
        }
        for (what, there, here) in
            [("labels", &theirs.labels, &ours.labels), ("bounds", &theirs.bounds, &ours.bounds)]
        {
            if there.get(name) != here.get(name) {
                wrong.push(format!(
                    "{what} of {name}: there {:?}, here {:?}",
                    there.get(name),
                    here.get(name)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // There only after another client has changed the same thing.
    let restarts: Vec<&str> = ours.labels["juicefs_transaction_restart"].iter().map(String::as_str).collect();
    assert_eq!(restarts, ["instance", "juicefs_version", "method", "mp", "vol_name"]);
    for (pattern, reason) in EXCEPTIONS {
        assert!(
            theirs.kinds.keys().any(|name| matches(pattern, name)),
            "{pattern} is no exception ({reason})"
        );
        assert!(!ours.kinds.keys().any(|name| matches(pattern, name)), "{pattern} is there by now");
    }
}

/// A server of Prometheus that looks at a mount every second. Killed when dropped.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    #[track_caller]
    fn start(dir: &Path, target: u16) -> Self {
        let port = free_port();
        let config = format!(
            "global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\nrule_files: ['{}']\n\
             scrape_configs: [{{job_name: ciderfs, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n",
            deployed("rules.yml").display()
        );
        fs::write(dir.join("prometheus.yml"), config).unwrap();
        let log = fs::File::create(dir.join("prometheus.log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is not installed: apt-get install prometheus");
        let this = Self { child, port };
        wait_for("Prometheus to be ready", || get(port, "/-/ready").is_some_and(|b| b.contains("Ready")));
        this
    }

    fn ask(&self, path: &str) -> Value {
        let body = get(self.port, path).unwrap();
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"))
    }

    /// How many series answer a query.
    #[track_caller]
    fn count(&self, query: &str) -> usize {
        let query = query
            .replace("$__rate_interval", "5s")
            .replace("$name", NAME)
            .replace("\"$instance\"", "\".*\"")
            .replace("\"$mp\"", "\".*\"");
        let answer =
            self.ask(&format!("/api/v1/query?query={}", utf8_percent_encode(&query, NON_ALPHANUMERIC)));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().unwrap().len()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Queries of our dashboard's panels.
fn panel_queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|p| p["targets"].as_array()).flatten();
    targets.map(|t| t["expr"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn no_panel_of_either_dashboard_is_empty_and_every_rule_works() {
    let volume = Volume::new(Engine::Redis, &["--trash-days=0"]);
    let first = volume.mount(&[]);
    fs::write(first.join("before"), vec![7; 5 << 20]).unwrap();
    first.unmount();
    let port = free_port();
    let mount = mount(&volume, port, &[]);
    let dir = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(dir.path(), port);
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(deployed("ciderfs.json")).unwrap()).unwrap();
    let mut queries = panel_queries(&dashboard);
    assert!(queries.len() > 40);
    queries.extend(OFFICIAL_QUERIES.map(str::to_owned));
    sh(mount.path(), "cat before | cksum");
    work(mount.path());
    let scrape = Scrape::parse(&get(port, "/metrics").unwrap());
    wait_for("each panel to show something", || {
        queries.retain(|query| prometheus.count(query) == 0);
        queries.is_empty()
    });
    let rules = prometheus.ask("/api/v1/rules");
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 10);
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_eq!(rule["state"], "inactive", "on a healthy mount: {rule}");
        let query = rule["query"].as_str().unwrap();
        let names = query
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|w| w.starts_with("juicefs_"));
        for name in names {
            assert!(
                scrape.samples().contains(name),
                "{} asks for {name}, which no mount tells",
                rule["name"]
            );
        }
    }
    mount.unmount();
}

#[test]
fn each_alert_comes_when_it_should_and_not_otherwise() {
    let promtool = |args: &[&str]| {
        let mut command = Command::new("promtool");
        command.args(args).current_dir(deployed("."));
        let found = Command::new("promtool").arg("--version").output();
        assert!(found.is_ok(), "promtool is not installed: apt-get install prometheus");
        run_within(&mut command, PATIENCE)
    };
    for args in [&["check", "rules", "rules.yml"][..], &["test", "rules", "rules_test.yml"]] {
        let ran = promtool(args);
        assert_eq!(ran.code, 0, "{args:?}\n{}{}", ran.stdout, ran.stderr);
    }
    let text = |name: &str| fs::read_to_string(deployed(name)).unwrap();
    let (rules, tests) = (text("rules.yml"), text("rules_test.yml"));
    for alert in rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "no test of {alert}");
        let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/monitoring.md"));
        assert!(docs.unwrap().contains(&format!("`{alert}`")), "docs/monitoring.md does not tell of {alert}");
    }
}

#[test]
fn stats_shows_what_the_official_client_shows() {
    let volume = Volume::new(Engine::Sqlite, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let root = mount.path().display().to_string();
    let official = official();
    for verbosity in ["0", "1"] {
        let flags = ["stats", &root, "--count", "1", "--verbosity", verbosity];
        let (ours, theirs) = (succeed(&flags).stdout, official.run(flags).unwrap().stdout);
        let heading = |text: &str| text.lines().take(2).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(heading(&ours), heading(&theirs));
        assert_eq!(ours.lines().count(), 3, "{ours}");
        assert_eq!(ours.lines().map(str::len).collect::<BTreeSet<_>>().len(), 1, "{ours}");
    }
    // What is written while it looks is in one of its lines.
    let file = mount.join("f");
    let writer = std::thread::spawn(move || fs::write(file, vec![1; 8 << 20]).unwrap());
    let said = succeed(&["stats", &root, "--count", "3", "--schema", "f"]).stdout;
    writer.join().unwrap();
    assert!(said.lines().skip(2).any(|l| l.contains('M') || l.contains('K')), "{said}");
    let refused = |flags: &[&str], why: &str| {
        let ran = run(&[&["stats"], flags].concat());
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    };
    refused(&["/"], "not the mount point of a volume");
    refused(&[&root, "--schema", "ux"], "there are t: time");
    refused(&[&root, "--interval", "0"], "--interval");
    mount.unmount();
}

#[test]
fn what_goes_wrong_is_told() {
    let options = S3Options { buckets: vec!["bucket".into()], ..S3Options::default() };
    let server = S3Server::start_now(options).unwrap();
    let volume = Volume::unformatted(Engine::Redis);
    let redis = volume.redis.as_ref().unwrap();
    redis.command(&["CONFIG", "SET", "maxmemory", "256mb"]).unwrap();
    let flags = [
        "--storage=s3".to_owned(),
        format!("--bucket={}", server.bucket_url("bucket")),
        format!("--access-key={}", server.access_key),
        format!("--secret-key={}", server.secret_key),
    ];
    volume.format(&flags.each_ref().map(String::as_str));
    let port = free_port();
    let mount = mount(&volume, port, &["--heartbeat=1", "--put-timeout=2"]);
    let figure = |name: &str| -> f64 {
        let text = get(port, "/metrics").unwrap();
        let of_name = |l: &&str| l.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        let found =
            text.lines().filter(of_name).map(|l| l.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap());
        found.reduce(|a, b| a + b).unwrap_or(f64::NAN)
    };
    let store = |name: &str| fs::write(mount.join(name), vec![1; 1000]).unwrap();

    wait_for("the memory of Redis", || figure("juicefs_meta_engine_limit_bytes") == f64::from(256 << 20));
    assert!((1e5..1e8).contains(&figure("juicefs_meta_engine_used_bytes")));

    // What is not there is no failure.
    assert!(fs::read(mount.join("missing")).is_err());
    let put = vec![Op::Put];
    server.control().set(Faults { only: put.clone(), fail_next: 3, status: 503, ..Faults::default() });
    store("refused");
    assert_eq!(figure("juicefs_object_request_throttled"), 3.0);
    assert_eq!(figure("juicefs_object_request_errors"), 3.0);

    assert_eq!(figure("juicefs_upload_backlog_bytes"), 0.0);
    server.control().set(Faults { only: put, hang_next: 1000, ..Faults::default() });
    // Closing waits for what was written.
    let waiting = mount.join("waits");
    let writer = std::thread::spawn(move || fs::write(waiting, vec![1; 300_000]).unwrap());
    wait_for("the backlog to become old", || figure("juicefs_upload_backlog_oldest_seconds") > 3.0);
    assert_eq!(figure("juicefs_upload_backlog_bytes"), 300_000.0);
    assert_eq!(figure("juicefs_upload_backlog_slices"), 1.0);
    assert_eq!(figure("juicefs_object_request_uploading"), 1.0);
    server.control().set(Faults::default());
    writer.join().unwrap();
    wait_for("the backlog to be stored", || figure("juicefs_upload_backlog_bytes") == 0.0);
    assert_eq!(figure("juicefs_upload_backlog_oldest_seconds"), 0.0);

    assert_eq!((figure("juicefs_blockcache_disks"), figure("juicefs_blockcache_disks_sick")), (1.0, 0.0));
    // Blocks are written there first.
    sh(&mount.path().with_extension("cache"), "rmdir */ciderfs/tmp");
    (0..8).for_each(|i| store(&format!("cached{i}")));
    wait_for("the cache disk to be left alone", || figure("juicefs_blockcache_disks_sick") == 1.0);
    assert!(figure("juicefs_blockcache_disk_errors") >= 5.0);

    assert_eq!(figure("juicefs_session_lost"), 0.0);
    let pid = Pid::from_raw(redis.pid().unwrap() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    wait_for("the session to be over", || figure("juicefs_session_lost") == 1.0);
    kill_process(pid, Signal::CONT).unwrap();
    wait_for("the session to go on", || figure("juicefs_session_lost") == 0.0);
    // As another client does that finds it dead.
    redis
        .command(&[
            "EVAL",
            "redis.call('SELECT', 1) return redis.call('DEL', 'allSessions', 'sessionInfos')",
            "0",
        ])
        .unwrap();
    wait_for("the loss to be counted", || figure("juicefs_session_losses_total") == 1.0);
    mount.unmount_after_errors();
}

#[test]
fn profile_shows_what_takes_the_time() {
    let volume = Volume::new(Engine::Sqlite, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let root = mount.path().display().to_string();
    let official = official();
    // Both clients read the log of our mount; it is not listed, because it has no end.
    assert!(!sh(mount.path(), "ls -A").contains("accesslog"));
    let log = volume.new_path();
    let reader = fs::File::open(mount.join(".accesslog")).unwrap();
    let to = log.clone();
    let copy = std::thread::spawn(move || {
        let (mut from, mut to) = (reader, fs::File::create(to).unwrap());
        let mut buffer = vec![0; 128 << 10];
        loop {
            let n = from.read(&mut buffer).unwrap();
            if &buffer[..n] == b"#\n" {
                return;
            }
            to.write_all(&buffer[..n]).unwrap();
        }
    });
    let names = sh(
        mount.path(),
        "mkdir d; echo hello > 'd/a b'; cat 'd/a b'; mv 'd/a b' c; cat missing 2>&1 || true; flock c true",
    );
    assert!(names.contains("hello"));
    copy.join().unwrap();
    let lines = fs::read_to_string(&log).unwrap();
    for wanted in [
        " mkdir (1,d,drwxr-xr-x:0040755): (",
        ",a b,-rw-r--r--:0100644): (",
        ",missing): no such file or directory <",
        " rename (",
        " flock (",
        " - OK <0.",
    ] {
        assert!(lines.contains(wanted), "{wanted}\n{lines}");
    }
    // Requests by kind: how many, and microseconds.
    let shown = |text: &str| -> BTreeMap<String, (u64, f64)> {
        let row = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, count, _, total, _] = words[..] else { return None };
            Some((name.to_owned(), (count.parse().ok()?, total.parse().ok()?)))
        };
        text.lines().filter_map(row).collect()
    };
    let file = log.display().to_string();
    let ours = shown(&succeed(&["profile", &file]).stdout);
    assert!(ours.len() > 8, "{ours:?}");
    let theirs = shown(&official.run(["profile", &file, "--interval", "0"]).unwrap().stdout);
    assert!(ours.keys().eq(theirs.keys()), "{ours:?}\n{theirs:?}");
    for (name, (count, total)) in &ours {
        // It cuts what is less than a microsecond off each.
        let (n, sum) = theirs[name];
        assert!(n == *count && (total - sum).abs() <= n as f64, "{name}: {ours:?}\n{theirs:?}");
    }
    assert!(shown(&succeed(&["profile", &file, "--uid", "4711"]).stdout).is_empty());
    // Live.
    let dir = mount.path().to_owned();
    let busy = std::thread::spawn(move || sh(&dir, "for i in $(seq 300); do mkdir e; rmdir e; done"));
    let live = succeed(&["profile", &root, "--interval", "1", "--count", "1"]).stdout;
    busy.join().unwrap();
    assert!(live.contains("mkdir") && live.starts_with("Operation"), "{live}");
    mount.unmount();
}
