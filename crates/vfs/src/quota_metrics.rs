//! Limits and usage of quotas as series (`spec/cli.md` 6.2).

use ciderfs_format::quota::Quota;
use ciderfs_meta::store::QuotaKey;
use prometheus::{GaugeVec, Opts, Registry};

/// The four series of one kind of quota.
#[derive(Clone)]
struct Kind {
    max_space: GaugeVec,
    max_inodes: GaugeVec,
    used_space: GaugeVec,
    used_inodes: GaugeVec,
}

impl Kind {
    fn new(registry: &Registry, kind: &str, label: &str) -> prometheus::Result<Self> {
        let series = |name: &str, help: &str| -> prometheus::Result<GaugeVec> {
            let made = GaugeVec::new(Opts::new(format!("{kind}_quota_{name}"), help), &[label])?;
            let _ = registry.register(Box::new(made.clone()));
            Ok(made)
        };
        Ok(Self {
            max_space: series("max_space_bytes", "Bytes that the quota allows")?,
            max_inodes: series("max_inodes", "Inodes that the quota allows")?,
            used_space: series("used_space_bytes", "Bytes used under the quota")?,
            used_inodes: series("used_inodes", "Inodes used under the quota")?,
        })
    }

    fn reset(&self) {
        for series in [&self.max_space, &self.max_inodes, &self.used_space, &self.used_inodes] {
            series.reset();
        }
    }

    fn set(&self, id: u64, q: &Quota) {
        let id = id.to_string();
        let set = |series: &GaugeVec, n: i64| series.with_label_values(&[&id]).set(n as f64);
        // What is unlimited has no maximum to show.
        if q.limits.max_space > 0 {
            set(&self.max_space, q.limits.max_space);
        }
        if q.limits.max_inodes > 0 {
            set(&self.max_inodes, q.limits.max_inodes);
        }
        set(&self.used_space, q.used_space);
        set(&self.used_inodes, q.used_inodes);
    }
}

/// Series of all quotas with a limit.
pub(crate) struct QuotaMetrics {
    dir: Kind,
    user: Kind,
    group: Kind,
}

impl QuotaMetrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            dir: Kind::new(registry, "dir", "inode")?,
            user: Kind::new(registry, "user", "uid")?,
            group: Kind::new(registry, "group", "gid")?,
        })
    }

    /// Shows these quotas and no others.
    pub(crate) fn show(&self, quotas: &[(QuotaKey, Quota)]) {
        for kind in [&self.dir, &self.user, &self.group] {
            kind.reset();
        }
        for (key, quota) in quotas {
            match *key {
                QuotaKey::Dir(ino) => self.dir.set(ino.0, quota),
                QuotaKey::User(uid) => self.user.set(uid.into(), quota),
                QuotaKey::Group(gid) => self.group.set(gid.into(), quota),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ciderfs_format::Ino;
    use ciderfs_format::quota::QuotaLimits;

    use super::*;

    #[test]
    fn quotas_that_are_gone_are_not_shown() {
        let registry = Registry::new();
        let metrics = QuotaMetrics::new(&registry).unwrap();
        let limits = QuotaLimits { max_space: 100, max_inodes: 0 };
        let quota = Quota { limits, used_space: 7, used_inodes: 3 };
        let shown = |quotas: &[(QuotaKey, Quota)]| -> Vec<String> {
            metrics.show(quotas);
            let mut out = Vec::new();
            for family in registry.gather() {
                for m in family.get_metric() {
                    let id = m.get_label()[0].value();
                    out.push(format!("{} {id} {}", family.name(), m.get_gauge().get_value()));
                }
            }
            out
        };
        assert_eq!(
            shown(&[(QuotaKey::Dir(Ino(5)), quota), (QuotaKey::Group(6), quota)]),
            [
                "dir_quota_max_space_bytes 5 100",
                "dir_quota_used_inodes 5 3",
                "dir_quota_used_space_bytes 5 7",
                "group_quota_max_space_bytes 6 100",
                "group_quota_used_inodes 6 3",
                "group_quota_used_space_bytes 6 7",
            ]
        );
        assert_eq!(shown(&[(QuotaKey::User(7), quota)]).len(), 3);
        assert!(shown(&[]).is_empty());
    }
}
