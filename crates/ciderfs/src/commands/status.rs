//! `ciderfs status META-URL`.

use ciderfs_format::SessionId;
use ciderfs_format::lock::LockRecord;
use ciderfs_meta::{Holdings, Meta, MetaConfig};
use ciderfs_volume::Purpose;
use serde_json::{Value, json};

use crate::cli::args::Args;
use crate::cli::table::SESSION;
use crate::config;
use crate::failure::{Failure, Result};

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    args.exactly()?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let store = config::engine(args, 0, Purpose::Look).await?;
        let meta = Meta::load(store, MetaConfig { read_only: true, ..MetaConfig::default() }).await?;
        let setting: Value = serde_json::from_str(&meta.settings().to_display_json()?)?;
        let mut sessions = Vec::new();
        for row in meta.sessions().await? {
            let mut shown = json!({ "Sid": row.sid.0, "Expire": stamp(row.expire) });
            if let (Some(shown), Ok(Value::Object(info))) =
                (shown.as_object_mut(), serde_json::from_slice(&row.info))
            {
                shown.extend(info);
            }
            sessions.push(shown);
        }
        if let Some(sid) = args.find(SESSION) {
            let row = sessions.into_iter().find(|s| s["Sid"] == sid);
            let mut row = row.ok_or_else(|| Failure::new(format!("there is no session {sid}")))?;
            let kept = kept(&meta.holdings(SessionId(sid)).await?)?;
            if let (Some(row), Value::Object(kept)) = (row.as_object_mut(), kept) {
                row.extend(kept.into_iter().filter(|(_, list)| list != &json!([])));
            }
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

/// What a session keeps, in the official client's form.
fn kept(holdings: &Holdings) -> Result<Value> {
    let (mut flocks, mut plocks) = (Vec::new(), Vec::new());
    for (ino, (whole, ranges)) in &holdings.locks {
        for ((_, owner), write) in whole {
            flocks.push(json!({ "Inode": ino.0, "Owner": owner, "Ltype": if *write { "W" } else { "R" } }));
        }
        for ((_, owner), raw) in ranges {
            let records = LockRecord::decode_list(raw).map_err(|e| Failure::new(e.to_string()))?;
            let records: Vec<Value> = records
                .iter()
                .map(|r| json!({ "Type": r.kind, "Pid": r.pid, "Start": r.start, "End": r.end }))
                .collect();
            plocks.push(json!({ "Inode": ino.0, "Owner": owner, "Records": records }));
        }
    }
    let sustained: Vec<u64> = holdings.sustained.iter().map(|i| i.0).collect();
    Ok(json!({ "Sustained": sustained, "Flocks": flocks, "Plocks": plocks }))
}

/// A moment as RFC 3339, in UTC.
fn stamp(unix: i64) -> String {
    let moment = jiff::Timestamp::from_second(unix).unwrap_or_default();
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
