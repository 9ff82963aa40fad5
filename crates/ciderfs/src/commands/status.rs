//! `ciderfs status META-URL`.

use ciderfs_meta::{Meta, MetaConfig};
use serde_json::{Value, json};

use crate::args::Args;
use crate::failure::{Failure, Result};
use crate::opening;

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    args.exactly("status", &["META-URL"])?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let store = opening::meta(&args.positional[0], opening::Purpose::Look).await?;
        let meta = Meta::load(store, MetaConfig { read_only: true, ..MetaConfig::default() }).await?;
        let setting: Value = serde_json::from_str(&meta.settings().to_display_json()?)?;
        let mut sessions = Vec::new();
        for row in meta.sessions().await? {
            let mut shown = json!({ "Sid": row.sid, "Expire": stamp(row.expire) });
            if let (Some(shown), Ok(Value::Object(info))) =
                (shown.as_object_mut(), serde_json::from_slice(&row.info))
            {
                shown.extend(info);
            }
            sessions.push(shown);
        }
        if args.has("session") {
            let sid = args.int("session", 0);
            let row = sessions.into_iter().find(|s| s["Sid"] == sid);
            let row = row.ok_or_else(|| Failure::new(format!("there is no session {sid}")))?;
            println!("{}", serde_json::to_string_pretty(&row)?);
            return Ok(());
        }
        let s = meta.statfs().await?;
        let stat = json!({
            "UsedSpace": s.used_space,
            "AvailableSpace": s.avail_space,
            "UsedInodes": s.used_inodes,
            "AvailableInodes": s.avail_inodes,
        });
        let all = json!({ "Setting": setting, "Sessions": sessions, "Stat": stat });
        println!("{}", serde_json::to_string_pretty(&all)?);
        Ok(())
    })
}

/// A moment as RFC 3339, in UTC.
fn stamp(unix: i64) -> String {
    let moment = jiff::Timestamp::from_second(unix).unwrap_or_default();
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
