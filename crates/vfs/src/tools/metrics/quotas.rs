//! Limits and usage of quotas as series (`docs/monitoring.md#series-of-ours`).

use std::sync::Arc;

use ciderfs_format::quota::Quota;
use ciderfs_meta::store::QuotaKey;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::figures::{desc, family, metric};

/// Series of one kind: name, help, and the figure; `None` is not shown.
type Figure = (&'static str, &'static str, fn(&Quota) -> Option<i64>);

const FIGURES: [Figure; 4] = [
    ("max_space_bytes", "Bytes that the quota allows", |q| Some(q.limits.max_space).filter(|n| *n > 0)),
    ("max_inodes", "Inodes that the quota allows", |q| Some(q.limits.max_inodes).filter(|n| *n > 0)),
    ("used_space_bytes", "Bytes used under the quota", |q| Some(q.used_space)),
    ("used_inodes", "Inodes used under the quota", |q| Some(q.used_inodes)),
];

/// Whose quotas there are, and the label that names one of them.
const KINDS: [(&str, &str); 3] = [("dir", "inode"), ("user", "uid"), ("group", "gid")];

/// All quotas with a limit that are known now.
pub(crate) type Known = Arc<dyn Fn() -> Vec<(QuotaKey, Quota)> + Send + Sync>;

/// Series of all quotas with a limit: of directories, users and groups.
pub(crate) struct Quotas {
    known: Known,
    descs: Vec<Desc>,
}

impl Quotas {
    pub(crate) fn new(known: Known) -> prometheus::Result<Self> {
        let descs = KINDS
            .iter()
            .flat_map(|kind| FIGURES.iter().map(move |figure| (kind, figure)))
            .map(|((kind, label), (name, help, _))| desc(&format!("{kind}_quota_{name}"), help, &[label]))
            .collect::<prometheus::Result<_>>()?;
        Ok(Self { known, descs })
    }
}

/// The kind of a quota, as an index of [`KINDS`], and the number of whose it is.
fn whose(key: QuotaKey) -> (usize, u64) {
    match key {
        QuotaKey::Dir(ino) => (0, ino.0),
        QuotaKey::User(uid) => (1, uid.into()),
        QuotaKey::Group(gid) => (2, gid.into()),
    }
}

impl Collector for Quotas {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let known = (self.known)();
        let mut families = Vec::new();
        for (at, (kind, label)) in KINDS.into_iter().enumerate() {
            let of_kind = || known.iter().map(|(key, q)| (whose(*key), q)).filter(|((k, _), _)| *k == at);
            for (name, help, figure) in FIGURES {
                let series = of_kind().filter_map(|((_, id), quota)| {
                    Some(metric(MetricType::GAUGE, figure(quota)? as f64, &[(label, id.to_string())]))
                });
                let name = format!("{kind}_quota_{name}");
                families.push(family(&name, help, MetricType::GAUGE, series.collect()));
            }
        }
        families
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ciderfs_format::Ino;
    use ciderfs_format::quota::QuotaLimits;
    use parking_lot::Mutex;
    use prometheus::Registry;

    use super::*;

    #[test]
    fn quotas_that_are_gone_are_not_shown() {
        let registry = Registry::new();
        let now = Arc::new(Mutex::new(Vec::new()));
        let known = Arc::clone(&now);
        registry.register(Box::new(Quotas::new(Arc::new(move || known.lock().clone())).unwrap())).unwrap();
        let limits = QuotaLimits { max_space: 100, max_inodes: 0 };
        let quota = Quota { limits, used_space: 7, used_inodes: 3 };
        let shown = |quotas: &[(QuotaKey, Quota)]| -> Vec<String> {
            *now.lock() = quotas.to_vec();
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
