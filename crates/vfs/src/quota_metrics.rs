//! Limits and usage of quotas as series (`spec/cli.md` 6.2).

use std::collections::HashSet;

use ciderfs_format::quota::Quota;
use ciderfs_meta::store::QuotaKey;
use parking_lot::Mutex;
use prometheus::{GaugeVec, Opts, Registry};

/// Series of one kind: name, help, and the figure; `None` is not shown.
type Figure = (&'static str, &'static str, fn(&Quota) -> Option<i64>);

const FIGURES: [Figure; 4] = [
    ("max_space_bytes", "Bytes that the quota allows", |q| Some(q.limits.max_space).filter(|n| *n > 0)),
    ("max_inodes", "Inodes that the quota allows", |q| Some(q.limits.max_inodes).filter(|n| *n > 0)),
    ("used_space_bytes", "Bytes used under the quota", |q| Some(q.used_space)),
    ("used_inodes", "Inodes used under the quota", |q| Some(q.used_inodes)),
];

/// One series, with a gauge for each directory, user or group.
struct Series {
    gauges: GaugeVec,
    figure: fn(&Quota) -> Option<i64>,
    shown: HashSet<u64>,
}

impl Series {
    /// Shows these quotas and no others; whoever gathers meanwhile misses none that stay.
    fn show(&mut self, quotas: &[(u64, Quota)]) {
        let mut gone = std::mem::take(&mut self.shown);
        for (id, quota) in quotas {
            if let Some(n) = (self.figure)(quota) {
                self.gauges.with_label_values(&[&id.to_string()]).set(n as f64);
                gone.remove(id);
                self.shown.insert(*id);
            }
        }
        for id in gone {
            let _ = self.gauges.remove_label_values(&[&id.to_string()]);
        }
    }
}

/// Series of all quotas with a limit: of directories, users and groups.
pub(crate) struct QuotaMetrics(Mutex<[Vec<Series>; 3]>);

impl QuotaMetrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let kind = |kind: &str, label: &str| -> prometheus::Result<Vec<Series>> {
            let series = |&(name, help, figure): &Figure| -> prometheus::Result<Series> {
                let gauges = GaugeVec::new(Opts::new(format!("{kind}_quota_{name}"), help), &[label])?;
                let _ = registry.register(Box::new(gauges.clone()));
                Ok(Series { gauges, figure, shown: HashSet::new() })
            };
            FIGURES.iter().map(series).collect()
        };
        Ok(Self(Mutex::new([kind("dir", "inode")?, kind("user", "uid")?, kind("group", "gid")?])))
    }

    /// Shows these quotas and no others.
    pub(crate) fn show(&self, quotas: &[(QuotaKey, Quota)]) {
        let mut by_kind: [Vec<(u64, Quota)>; 3] = Default::default();
        for (key, quota) in quotas {
            let (kind, id) = match *key {
                QuotaKey::Dir(ino) => (0, ino.0),
                QuotaKey::User(uid) => (1, uid.into()),
                QuotaKey::Group(gid) => (2, gid.into()),
            };
            by_kind[kind].push((id, *quota));
        }
        for (series, quotas) in self.0.lock().iter_mut().zip(&by_kind) {
            series.iter_mut().for_each(|s| s.show(quotas));
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
        let both = [(QuotaKey::Dir(Ino(5)), quota), (QuotaKey::Group(6), quota)];
        let lines = [
            "dir_quota_max_space_bytes 5 100",
            "dir_quota_used_inodes 5 3",
            "dir_quota_used_space_bytes 5 7",
            "group_quota_max_space_bytes 6 100",
            "group_quota_used_inodes 6 3",
            "group_quota_used_space_bytes 6 7",
        ];
        assert_eq!(shown(&both), lines);
        assert_eq!(shown(&both), lines);
        // Unlimited bytes now.
        let limits = QuotaLimits { max_space: 0, max_inodes: 9 };
        assert_eq!(
            shown(&[(QuotaKey::Dir(Ino(5)), Quota { limits, ..quota })])[0],
            "dir_quota_max_inodes 5 9"
        );
        assert_eq!(shown(&[(QuotaKey::User(7), quota)]).len(), 3);
        assert!(shown(&[]).is_empty());
    }
}
