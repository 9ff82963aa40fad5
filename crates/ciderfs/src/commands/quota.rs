//! `ciderfs quota set|get|delete|list|check META-URL` (`docs/reference/commands.md#quota-setgetdeletelistcheck-meta-url`).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use ciderfs_format::quota::{Quota, QuotaLimits};
use ciderfs_format::{Ino, shown, shown_address};
use ciderfs_meta::store::QuotaKey;
use ciderfs_meta::{Caller, Errno, Meta, MetaConfig, QuotaCheck};
use ciderfs_volume::Purpose;
use serde_json::{Value, json};

use crate::cli::args::Args;
use crate::cli::flag::{Flag, kinds};
use crate::cli::table::{CAPACITY, CREATE, GID, INODES, JSON, PATH, REPAIR, STRICT, UID};
use crate::commands::table::{Align, Table};
use crate::config;
use crate::failure::{EXIT_UNKNOWN_COMMAND, Failure, Result};

/// Whom the command is about.
enum Target {
    /// A path of the volume, as given.
    Path(PathBuf),
    /// A user or group.
    Owner(QuotaKey),
}

impl Target {
    fn parse(args: &Args) -> Result<Option<Self>> {
        let id = |flag: Flag<kinds::Number>| args.find(flag).and_then(|id| u32::try_from(id).ok());
        let (uid, gid) = (id(UID), id(GID));
        if uid == Some(0) {
            return Err(Failure::new("Invalid --uid: 0 is not allowed"));
        }
        match (args.find(PATH), uid, gid) {
            (None, None, None) => Ok(None),
            (Some(path), None, None) => Ok(Some(Self::Path(path.to_owned()))),
            (None, Some(uid), None) => Ok(Some(Self::Owner(QuotaKey::User(uid)))),
            (None, None, Some(gid)) => Ok(Some(Self::Owner(QuotaKey::Group(gid)))),
            (None, Some(_), Some(_)) => {
                Err(Failure::new("Cannot specify both --uid and --gid at the same time"))
            }
            _ => Err(Failure::new("Cannot specify --path together with --uid or --gid")),
        }
    }

    async fn key(&self, meta: &Meta, create: bool) -> Result<QuotaKey> {
        match self {
            Self::Owner(key) => Ok(*key),
            Self::Path(path) => match meta.dir_at(path.as_os_str().as_bytes(), create).await {
                Ok(ino) => Ok(QuotaKey::Dir(ino)),
                Err(e) => Err(Failure::new(format!("resolve dir {}: {e}", shown(path)))),
            },
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Path(_) => "Path",
            Self::Owner(QuotaKey::Group(_)) => "Group ID",
            Self::Owner(_) => "User ID",
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Path(path) => shown(path).into_owned(),
            Self::Owner(key) => id_of(*key),
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    if args.count() == 0 {
        return Err(Failure::new("USAGE: ciderfs quota set|get|delete|list|check META-URL [options]"));
    }
    let command = match args.word(0) {
        command @ ("set" | "get" | "check") => command,
        "delete" | "del" => "delete",
        "list" | "ls" => "list",
        other => {
            return Err(Failure {
                text: format!("No help topic for '{}'", shown_address(other)),
                code: EXIT_UNKNOWN_COMMAND,
            });
        }
    };
    args.exactly()?;
    let target = Target::parse(args)?;
    if target.is_none() && matches!(command, "set" | "get" | "delete") {
        return Err(Failure::new(
            "Please specify the directory with `--path <dir>` option or specify user/group with \
             `--uid <uid>`/`--gid <gid>` option",
        ));
    }
    let writes = match command {
        "set" | "delete" => true,
        "check" => args.get(REPAIR),
        _ => false,
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let purpose = if writes { Purpose::Change } else { Purpose::Look };
        let store = config::engine(args, 1, purpose).await?;
        let cfg = MetaConfig { read_only: !writes, ..MetaConfig::default() };
        let meta = Meta::load(store, cfg).await?;
        match (command, target) {
            ("set", Some(target)) => set(args, &meta, &target).await,
            ("get", Some(target)) => get(args, &meta, &target).await,
            ("delete", Some(target)) => {
                let key = target.key(&meta, false).await?;
                meta.delete_quota(key).await?;
                if args.get(JSON) { print_json(&json!({})) } else { Ok(()) }
            }
            ("check", target) => check(args, &meta, target.as_ref()).await,
            _ => list(args, &meta).await,
        }
    })
}

async fn set(args: &Args, meta: &Meta, target: &Target) -> Result<()> {
    let space = args.find(CAPACITY).map(|bytes| bytes as i64);
    let inodes = args.find(INODES).map(|inodes| inodes as i64);
    let key = target.key(meta, args.get(CREATE)).await?;
    let quota = meta.set_quota(key, space, inodes).await?;
    print(args, target.title(), &[(target.name(), key, quota)])
}

async fn get(args: &Args, meta: &Meta, target: &Target) -> Result<()> {
    let key = target.key(meta, false).await?;
    let rows: Vec<_> = meta.quota(key).await?.into_iter().map(|q| (target.name(), key, q)).collect();
    print(args, target.title(), &rows)
}

async fn list(args: &Args, meta: &Meta) -> Result<()> {
    let mut rows = Vec::new();
    let quotas = meta.quotas().await?;
    for (key, quota) in quotas {
        let name = match key {
            QuotaKey::Dir(ino) => path_of(meta, ino).await,
            QuotaKey::User(uid) => format!("uid:{uid}"),
            QuotaKey::Group(gid) => format!("gid:{gid}"),
        };
        rows.push((name, key, quota));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    print(args, "Path/ID", &rows)
}

async fn path_of(meta: &Meta, ino: Ino) -> String {
    let paths = meta.paths(&Caller::root(), ino).await.unwrap_or_default();
    paths.first().map_or_else(|| format!("inode:{ino}"), |p| shown(OsStr::from_bytes(p)).into_owned())
}

async fn check(args: &Args, meta: &Meta, target: Option<&Target>) -> Result<()> {
    let key = match target {
        Some(t) => Some(t.key(meta, false).await?),
        None => None,
    };
    let repair = args.get(REPAIR);
    let name = |key: QuotaKey| match (target, key) {
        (Some(t @ Target::Path(_)), _) => t.name(),
        (_, QuotaKey::Group(gid)) => format!("gid:{gid}"),
        (_, key) => format!("uid:{}", id_of(key)),
    };
    let checks = match (meta.check_quota(key, args.get(STRICT), repair).await, key) {
        (Err(e), Some(key)) if e.errno() == Errno::ENODATA => {
            return Err(Failure::new(match key {
                QuotaKey::Dir(ino) => format!("no quota for inode {ino} path {}", name(key)),
                _ => format!("no quota for {}", name(key)),
            }));
        }
        (other, _) => other?,
    };
    let wrong: Vec<&QuotaCheck> = checks.iter().filter(|c| !c.is_consistent()).collect();
    for c in &wrong {
        let (space, inodes) = c.recorded.map_or((0, 0), |q| (q.used_space, q.used_inodes));
        tracing::warn!(
            "{}: quota({inodes}, {}) != summary({}, {})",
            name(c.key),
            bytes(space),
            c.inodes,
            bytes(c.space)
        );
    }
    let what = target.map_or("users and groups".to_owned(), |_| key.map(name).unwrap_or_default());
    let found: Vec<(String, QuotaKey, Quota)> = checks
        .iter()
        .filter_map(|c| {
            let q = c.recorded?;
            let shown = Quota { used_space: c.space, used_inodes: c.inodes, ..q };
            let limited = q.limits.max_space > 0 || q.limits.max_inodes > 0;
            (limited || matches!(c.key, QuotaKey::Dir(_))).then(|| {
                let title = target.map_or_else(|| name(c.key), Target::name);
                (title, c.key, shown)
            })
        })
        .collect();
    if !wrong.is_empty() && !repair {
        if args.get(JSON) {
            print(args, "", &found)?;
        }
        return Err(Failure::new(format!(
            "quota of {what} is inconsistent, please repair it with --repair flag"
        )));
    }
    if wrong.is_empty() {
        tracing::info!("quota of {what} is consistent");
    } else {
        tracing::info!("quota of {what} is repaired");
    }
    print(args, target.map_or("Path/ID", Target::title), &found)
}

fn id_of(key: QuotaKey) -> String {
    match key {
        QuotaKey::User(id) | QuotaKey::Group(id) => id.to_string(),
        QuotaKey::Dir(ino) => ino.to_string(),
    }
}

fn print(args: &Args, title: &str, rows: &[(String, QuotaKey, Quota)]) -> Result<()> {
    if args.get(JSON) {
        return print_json(&as_json(rows));
    }
    if rows.is_empty() {
        return Ok(());
    }
    let columns = ["Size", "Used", "Use%", "Inodes", "IUsed", "IUse%"];
    let columns = columns.map(|c| (c, Align::Right));
    let mut table = Table::new(&[&[(title, Align::Left)], &columns[..]].concat());
    for (name, _, q) in rows {
        let QuotaLimits { max_space, max_inodes } = q.limits;
        let limited = |limit: i64, shown: String| if limit > 0 { shown } else { "unchanged".into() };
        table.row([
            name.clone(),
            limited(max_space, bytes(max_space)),
            bytes(q.used_space),
            percent(q.used_space, max_space),
            limited(max_inodes, grouped(max_inodes)),
            grouped(q.used_inodes),
            percent(q.used_inodes, max_inodes),
        ]);
    }
    print!("{table}");
    Ok(())
}

fn as_json(rows: &[(String, QuotaKey, Quota)]) -> Value {
    let row = |(name, key, q): &(String, QuotaKey, Quota)| {
        let mut out = match key {
            QuotaKey::Dir(ino) => json!({ "path": name, "inode": ino.0 }),
            QuotaKey::User(id) => json!({ "uid": id }),
            QuotaKey::Group(id) => json!({ "gid": id }),
        };
        let limit = |n: i64| if n > 0 { json!(n) } else { Value::Null };
        out["max_space"] = limit(q.limits.max_space);
        out["max_inodes"] = limit(q.limits.max_inodes);
        out["used_space"] = json!(q.used_space);
        out["used_inodes"] = json!(q.used_inodes);
        out
    };
    Value::Array(rows.iter().map(row).collect())
}

fn print_json(value: &Value) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

fn percent(used: i64, limit: i64) -> String {
    if limit > 0 { format!("{}%", i128::from(used) * 100 / i128::from(limit)) } else { String::new() }
}

/// A number with a comma at every thousand.
fn grouped(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    if n < 0 { format!("-{out}") } else { out }
}

/// Bytes with a binary unit: two digits at least, one behind the point below 10.
fn bytes(n: i64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let sign = if n < 0 { "-" } else { "" };
    let n = n.unsigned_abs();
    if n < 10 {
        return format!("{sign}{n} B");
    }
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    // Rounded to the tenth, as the official tool does; whole numbers above 10.
    let value = (value * 10.0 + 0.5).floor() / 10.0;
    let digits = usize::from(value < 10.0 && unit > 0);
    format!("{sign}{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_as_the_official_tool_prints_them() {
        for (n, shown) in [
            (0, "0 B"),
            (9, "9 B"),
            (512, "512 B"),
            (4096, "4.0 KiB"),
            (40 << 10, "40 KiB"),
            (512 << 20, "512 MiB"),
            (1 << 30, "1.0 GiB"),
            (3 << 29, "1.5 GiB"),
            (-4096, "-4.0 KiB"),
        ] {
            assert_eq!(bytes(n), shown);
        }
        assert_eq!([grouped(0), grouped(1000), grouped(-1_234_567)], ["0", "1,000", "-1,234,567"]);
        assert_eq!([percent(50, 100), percent(1, 0), percent(199, 100)], ["50%", "", "199%"]);
    }

    #[test]
    fn the_table_of_the_official_tool() {
        let q = Quota {
            limits: QuotaLimits { max_space: 1 << 30, max_inodes: -1 },
            used_space: 4096,
            used_inodes: 1,
        };
        let rows = [("/d".to_owned(), QuotaKey::Dir(Ino(2)), q)];
        assert_eq!(as_json(&rows)[0]["max_inodes"], Value::Null);
        assert_eq!(as_json(&rows)[0]["used_space"], 4096);
    }
}
