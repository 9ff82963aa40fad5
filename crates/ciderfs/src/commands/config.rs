//! `ciderfs config META-URL`.

use ciderfs_meta::store::Scan;
use ciderfs_meta::{Meta, MetaConfig};
use ciderfs_volume::Purpose;

use crate::cli::args::Args;
use crate::cli::table::{DIR_STATS, ENCRYPT_SECRET};
use crate::commands::format;
use crate::config;
use crate::failure::{Failure, Result};

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    args.exactly()?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let store = config::engine(args, 0, Purpose::Change).await?;
        let old = Meta::read_settings(store.as_ref()).await?;
        let old = old.ok_or_else(|| Failure::new(format!("no volume at {}: the database is not formatted", store.describe())))?;
        let mut new = old.clone();
        new.decrypt_secrets()?;
        let before = new.clone();
        format::change(args, &mut new)?;
        let is_open = !old.key_encrypted && old.has_secrets();
        if new == before && !(is_open && args.get(ENCRYPT_SECRET)) {
            println!("{}", old.to_display_json()?);
            return Ok(());
        }
        format::check_storage(args, &before, &new).await?;
        if before.dir_stats && !new.dir_stats {
            let quotas = store.scan(&Scan::DirQuotas, usize::MAX).await?.len();
            if quotas > 0 {
                return Err(Failure::new(format!(
                    "--{}=false: {quotas} directories have a quota, which needs the statistics; delete the quotas first",
                    DIR_STATS.name()
                )));
            }
        }
        let count = new.user_group_quota && !before.user_group_quota;
        format::save(store.as_ref(), new, Some(&old)).await?;
        if count {
            Meta::load(store, MetaConfig::default()).await?.count_owners().await?;
        }
        Ok(())
    })
}
