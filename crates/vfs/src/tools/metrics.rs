//! What a mount counts, under the official client's names (`docs/monitoring.md`), and more under names of ours.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::Duration;

use ciderfs_block::CacheUse;
use ciderfs_format::shown;
use ciderfs_format::version::presented_version;
use ciderfs_meta::Happened;
use ciderfs_rt::Instant;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Counter, CounterVec, Encoder as _, GaugeVec, Histogram, HistogramOpts, HistogramVec, Opts, Registry,
    TextEncoder,
};

use crate::vfs::Vfs;

mod figures;
mod layers;
mod process;
mod quotas;

use figures::Figures;
use quotas::Quotas;

/// The class of an object store that has none, as the official client names it.
const STANDARD: &str = "STANDARD";
/// Operations that change a volume. Their restarts are shown from the beginning, so that the first of them is seen to be one more.
const CHANGES: [&str; 16] = [
    "CopyFileRange",
    "Fallocate",
    "Link",
    "Lock",
    "Mknod",
    "Remove",
    "Rename",
    "Rmdir",
    "SetAttr",
    "SetFacl",
    "SetXattr",
    "Touch",
    "Trash",
    "Truncate",
    "Unlink",
    "Write",
];

/// Everything a mount counts. A series that cannot be registered twice is a programming error; it is then simply not shown.
pub struct Metrics {
    registry: Registry,
    storage_class: String,
    fuse_ops: CounterVec,
    fuse_seconds: CounterVec,
    fuse_errors: CounterVec,
    fuse_latency: Histogram,
    read_sizes: Histogram,
    written_sizes: Histogram,
    meta_ops: CounterVec,
    meta_seconds: CounterVec,
    meta_latency: Histogram,
    transaction_latency: Histogram,
    restarts: CounterVec,
    cache_reads: Histogram,
    cache_writes: Histogram,
    object_latency: HistogramVec,
    object_bytes: CounterVec,
    object_errors: Counter,
    object_throttled: Counter,
    compacted: Histogram,
}

/// Registers a series. Names and labels below are constants: it cannot fail, and if it did a detached series would serve.
fn register<S: Collector + Clone + 'static>(registry: &Registry, series: S) -> S {
    let _ = registry.register(Box::new(series.clone()));
    series
}

impl Metrics {
    /// New series with constant labels, e.g. `vol_name` and `mp`; `instance` and `juicefs_version` are added.
    pub fn new(mut labels: HashMap<String, String>) -> prometheus::Result<Self> {
        let version = presented_version(env!("CARGO_PKG_VERSION"));
        labels.entry("instance".into()).or_insert_with(process::host_name);
        labels.entry("juicefs_version".into()).or_insert(version);
        let registry = Registry::new_custom(Some("juicefs".into()), Some(labels))?;
        let counter = |name: &str, help: &str| -> prometheus::Result<Counter> {
            Ok(register(&registry, Counter::new(name, help)?))
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<CounterVec> {
            Ok(register(&registry, CounterVec::new(Opts::new(name, help), labels)?))
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| -> prometheus::Result<Histogram> {
            let opts = HistogramOpts::new(name, help).buckets(buckets);
            Ok(register(&registry, Histogram::with_opts(opts)?))
        };
        let growing = prometheus::exponential_buckets;
        let sizes = || prometheus::linear_buckets(4096.0, 4096.0, 32);
        let object =
            HistogramOpts::new("object_request_durations_histogram_seconds", "Time of object requests")
                .buckets(growing(0.01, 1.5, 25)?);
        let metrics = Self {
            storage_class: STANDARD.to_owned(),
            fuse_ops: counters("fuse_ops_total", "FUSE requests", &["method"])?,
            fuse_seconds: counters(
                "fuse_ops_durations_seconds",
                "Seconds spent in FUSE requests",
                &["method"],
            )?,
            fuse_errors: counters("fuse_ops_io_errors", "Failed FUSE requests", &["errno"])?,
            fuse_latency: histogram(
                "fuse_ops_durations_histogram_seconds",
                "Time of FUSE requests",
                growing(1e-5, 1.8, 29)?,
            )?,
            read_sizes: histogram("fuse_read_size_bytes", "Bytes of reads", sizes()?)?,
            written_sizes: histogram("fuse_written_size_bytes", "Bytes of writes", sizes()?)?,
            meta_ops: counters("meta_ops_total", "Operations on metadata", &["method"])?,
            meta_seconds: counters(
                "meta_ops_duration_seconds",
                "Seconds spent in operations on metadata",
                &["method"],
            )?,
            meta_latency: histogram(
                "meta_ops_durations_histogram_seconds",
                "Time of operations on metadata",
                growing(1e-4, 1.5, 30)?,
            )?,
            transaction_latency: histogram(
                "transaction_durations_histogram_seconds",
                "Time of changes of metadata, with all their attempts",
                growing(1e-4, 1.5, 30)?,
            )?,
            restarts: counters(
                "transaction_restart",
                "Changes that began again because of a concurrent one",
                &["method"],
            )?,
            cache_reads: histogram(
                "blockcache_read_hist_seconds",
                "Time of reads from the disk cache",
                growing(1e-5, 2.0, 20)?,
            )?,
            cache_writes: histogram(
                "blockcache_write_hist_seconds",
                "Time of writes to the disk cache",
                growing(1e-5, 2.0, 20)?,
            )?,
            object_latency: register(&registry, HistogramVec::new(object, &["method", "storage_class"])?),
            object_bytes: counters(
                "object_request_data_bytes",
                "Bytes of object requests",
                &["method", "storage_class"],
            )?,
            object_errors: counter("object_request_errors", "Failed object requests")?,
            object_throttled: counter(
                "object_request_throttled",
                "Object requests that the store refused because there were too many",
            )?,
            compacted: histogram(
                "compact_size_histogram_bytes",
                "Bytes written by compactions",
                growing(1024.0, 2.0, 16)?,
            )?,
            registry,
        };
        // The one that must not be: a series that begins with 1 would not have grown.
        metrics.fuse_errors.with_label_values(&["EIO"]);
        for method in CHANGES {
            metrics.restarts.with_label_values(&[method]);
        }
        let build = GaugeVec::new(Opts::new("build_info", "The version of CiderFS"), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        register(&metrics.registry, build);
        let started = Instant::now();
        let process = Figures::new(process::TABLE, move || Some(process::look(started)))?;
        let _ = metrics.registry.register(Box::new(process));
        let _ = metrics.registry.register(Box::new(ProcessCollector::for_self()));
        Ok(metrics)
    }

    /// Names the class of the objects that are counted.
    #[must_use]
    pub fn with_storage_class(mut self, class: &str) -> Self {
        if !class.is_empty() {
            class.clone_into(&mut self.storage_class);
        }
        self
    }

    /// Shows what the layers of a mount count. Must be called within the runtime.
    pub(crate) fn follow(self: &Arc<Self>, vfs: &Arc<Vfs>) -> prometheus::Result<()> {
        let observer = Arc::clone(self);
        vfs.meta.observe(Box::new(move |what, method, took| observer.operation(what, method, took)));
        let (reads, writes) = (self.cache_reads.clone(), self.cache_writes.clone());
        vfs.blocks.observe_cache(Box::new(move |what, took| match what {
            CacheUse::Read => reads.observe(took.as_secs_f64()),
            CacheUse::Write => writes.observe(took.as_secs_f64()),
        }));
        let runtime = tokio::runtime::Handle::current().metrics();
        let weak = Arc::downgrade(vfs);
        let look = move || Some(layers::look(&*weak.upgrade()?, &runtime));
        self.registry.register(Box::new(Figures::new(layers::TABLE, look)?))?;
        let weak = Arc::downgrade(vfs);
        let known = move || weak.upgrade().map(|vfs| vfs.meta.known_quotas()).unwrap_or_default();
        self.registry.register(Box::new(Quotas::new(Arc::new(known))?))?;
        let subdir = GaugeVec::new(Opts::new("subdir_info", "The directory that is mounted"), &["subdir"])?;
        let dir = OsStr::from_bytes(vfs.meta.subdir());
        subdir.with_label_values(&[&*shown(dir)]).set(1.0);
        self.registry.register(Box::new(subdir))
    }

    /// Counts what has happened in an operation on metadata.
    fn operation(&self, what: Happened, method: &str, took: Duration) {
        let seconds = took.as_secs_f64();
        match what {
            Happened::Operation => {
                self.meta_ops.with_label_values(&[method]).inc();
                self.meta_seconds.with_label_values(&[method]).inc_by(seconds);
                self.meta_latency.observe(seconds);
            }
            Happened::Transaction => self.transaction_latency.observe(seconds),
            Happened::Restart => self.restarts.with_label_values(&[method]).inc(),
        }
    }

    /// Counts a compaction that wrote a slice of this size.
    pub(crate) fn compacted(&self, bytes: u32) {
        self.compacted.observe(f64::from(bytes));
    }

    /// Counts a finished request of a front door.
    pub fn request(&self, method: &str, took: Duration, errno: Option<&str>) {
        self.fuse_ops.with_label_values(&[method]).inc();
        self.fuse_seconds.with_label_values(&[method]).inc_by(took.as_secs_f64());
        self.fuse_latency.observe(took.as_secs_f64());
        if let Some(errno) = errno {
            self.fuse_errors.with_label_values(&[errno]).inc();
        }
    }

    /// Counts a read of so many bytes by a program.
    pub fn read(&self, bytes: u64) {
        self.read_sizes.observe(bytes as f64);
    }

    /// Counts a write of so many bytes by a program.
    pub fn written(&self, bytes: u64) {
        self.written_sizes.observe(bytes as f64);
    }

    /// Counts a request to the object store. An object that is not there is an answer, and no failure.
    pub fn object(&self, method: &str, took: Duration, bytes: u64, failed: bool) {
        let labels = [method, &self.storage_class];
        self.object_latency.with_label_values(&labels).observe(took.as_secs_f64());
        if bytes > 0 {
            self.object_bytes.with_label_values(&labels).inc_by(bytes as f64);
        }
        if failed {
            self.object_errors.inc();
        }
    }

    /// Counts a request that the object store refused because there were too many; [`Metrics::object`] counts it as well.
    pub fn object_throttled(&self) {
        self.object_throttled.inc();
    }

    /// The text format of Prometheus.
    pub fn prometheus_text(&self) -> String {
        let mut out = Vec::new();
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        String::from_utf8(out).unwrap_or_default()
    }

    /// One `name value` per line, a label appended to the name; what `.stats` shows.
    pub(crate) fn stats_text(&self) -> String {
        use std::fmt::Write as _;
        let mut out = String::new();
        for family in self.registry.gather() {
            for m in family.get_metric() {
                let label = m
                    .get_label()
                    .iter()
                    .find(|l| matches!(l.name(), "method" | "errno" | "inode" | "uid" | "gid"));
                let name = label
                    .map_or_else(|| family.name().to_owned(), |l| format!("{}_{}", family.name(), l.value()));
                let _ = match family.get_field_type() {
                    prometheus::proto::MetricType::COUNTER => {
                        writeln!(out, "{name} {}", m.get_counter().get_value())
                    }
                    prometheus::proto::MetricType::HISTOGRAM => {
                        let h = m.get_histogram();
                        writeln!(
                            out,
                            "{name}_total {}\n{name}_sum {}",
                            h.get_sample_count(),
                            h.get_sample_sum()
                        )
                    }
                    _ => writeln!(out, "{name} {}", m.get_gauge().get_value()),
                };
            }
        }
        out
    }
}
