//! The figures of all clients of a machine as one text for Prometheus. Each client tells its own at a socket in its directory; series keep their
//! names and labels (`vol_name`, `mp`), and get the volume as the cluster calls it.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::protocol::Client;

/// Where a client tells its figures: the name of the socket.
pub const SOCKET: &str = "metrics";
/// Set for a client: the whole path.
pub const ENV: &str = "CIDERFS_METRICS_SOCKET";
/// What the cluster calls the volume.
const LABEL: &str = "volume_id";
/// A client that tells nothing within this is left out: Prometheus itself waits 10 s by default.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of an answer.
const MOST: u64 = 8 << 20;

/// What all clients tell.
pub fn gather(mounter: &Client, run_dir: &Path) -> String {
    let all = mounter.list().unwrap_or_default();
    let told: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = all
            .iter()
            .map(|info| (info, scope.spawn(|| ask(&run_dir.join(&info.key).join(SOCKET)))))
            .collect();
        asked
            .into_iter()
            .filter_map(|(info, answer)| match answer.join().unwrap_or_else(|_| Ok(String::new())) {
                Ok(text) => Some((info.volume.clone(), text)),
                Err(e) => {
                    tracing::debug!("{}: no figures of its client: {e}", info.key);
                    None
                }
            })
            .collect()
    });
    merged(&told)
}

/// What the client at a socket tells.
fn ask(socket: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MOST).read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other("what answers there is no client")),
    }
}

/// One text of several, each with the name of its volume: all series of a name must stand together.
fn merged(texts: &[(String, String)]) -> String {
    #[derive(Default)]
    struct Family {
        about: String,
        series: String,
    }
    let mut all: BTreeMap<&str, Family> = BTreeMap::new();
    for (volume, text) in texts {
        let label = format!("{LABEL}=\"{}\"", escaped(volume));
        let (mut name, mut is_new) = ("", true);
        for line in text.lines().filter(|line| !line.is_empty()) {
            let about = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
            if let Some(next) = about.and_then(|words| words.split(' ').next()) {
                if next != name {
                    (name, is_new) = (next, !all.contains_key(next));
                }
                if is_new {
                    let family = all.entry(name).or_default();
                    family.about.push_str(line);
                    family.about.push('\n');
                }
            } else if !line.starts_with('#') {
                let family = all.entry(name).or_default();
                family.series.push_str(&labelled(line, &label));
                family.series.push('\n');
            }
        }
    }
    all.into_values().map(|family| family.about + &family.series).collect()
}

/// A series with one label more.
fn labelled(line: &str, label: &str) -> String {
    let end = line.find(['{', ' ']).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    match rest.strip_prefix('{') {
        Some(rest) if rest.starts_with('}') => format!("{name}{{{label}{rest}"),
        Some(rest) => format!("{name}{{{label},{rest}"),
        None => format!("{name}{{{label}}}{rest}"),
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_name_stand_together() {
        let text = |mp: &str| {
            format!(
                "# HELP a What.\n# TYPE a gauge\na{{mp=\"{mp}\"}} 1\n# HELP b It has {{}}.\n# TYPE b histogram\n\
                 b_bucket{{le=\"1\"}} 2\nb_sum 3\n"
            )
        };
        let texts = [("v".to_owned(), text("/1")), ("w\"".to_owned(), text("/2"))];
        assert_eq!(
            merged(&texts),
            "# HELP a What.\n# TYPE a gauge\na{volume_id=\"v\",mp=\"/1\"} 1\na{volume_id=\"w\\\"\",mp=\"/2\"} 1\n\
             # HELP b It has {}.\n# TYPE b histogram\nb_bucket{volume_id=\"v\",le=\"1\"} 2\nb_sum{volume_id=\"v\"} 3\n\
             b_bucket{volume_id=\"w\\\"\",le=\"1\"} 2\nb_sum{volume_id=\"w\\\"\"} 3\n"
        );
        assert_eq!(merged(&[]), "");
    }
}
