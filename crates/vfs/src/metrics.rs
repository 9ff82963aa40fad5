//! Counters of a mount, under the official client's names (`spec/cli.md` 6.2).

use std::time::{Duration, Instant};

use prometheus::{
    Counter, CounterVec, Encoder as _, Gauge, Histogram, HistogramOpts, Opts, Registry, TextEncoder,
};

use crate::quota_metrics::QuotaMetrics;

/// Everything a mount counts. A series that cannot be registered twice is a programming error; it is then simply not shown.
pub struct Metrics {
    registry: Registry,
    started: Instant,
    pub(crate) uptime: Gauge,
    pub(crate) cpu: Gauge,
    pub(crate) memory: Gauge,
    pub(crate) used_space: Gauge,
    pub(crate) used_inodes: Gauge,
    pub(crate) open_handles: Gauge,
    pub(crate) buffer_used: Gauge,
    pub(crate) cache_blocks: Gauge,
    pub(crate) cache_bytes: Gauge,
    pub(crate) cache_hits: Gauge,
    pub(crate) cache_hit_bytes: Gauge,
    pub(crate) cache_misses: Gauge,
    pub(crate) cache_miss_bytes: Gauge,
    pub(crate) meta_turns: Gauge,
    pub(crate) meta_conflicts: Gauge,
    pub(crate) quotas: QuotaMetrics,
    fuse_ops: CounterVec,
    fuse_seconds: CounterVec,
    fuse_errors: CounterVec,
    fuse_latency: Histogram,
    read_bytes: Counter,
    written_bytes: Counter,
    object_seconds: CounterVec,
    object_requests: CounterVec,
    object_bytes: CounterVec,
    object_errors: Counter,
    compacted: Histogram,
}

macro_rules! series {
    ($registry:expr, $made:expr) => {{
        // Names and labels below are constants: construction cannot fail, and if it did a detached series would serve.
        let s = $made;
        let _ = $registry.register(Box::new(s.clone()));
        s
    }};
}

impl Metrics {
    /// New series with constant labels, e.g. `vol_name` and `mp`.
    pub fn new(labels: std::collections::HashMap<String, String>) -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("juicefs".into()), Some(labels))?;
        let gauge = |name: &str, help: &str| -> prometheus::Result<Gauge> {
            Ok(series!(registry, Gauge::new(name, help)?))
        };
        let counters = |name: &str, help: &str, label: &str| -> prometheus::Result<CounterVec> {
            Ok(series!(registry, CounterVec::new(Opts::new(name, help), &[label])?))
        };
        let latency = HistogramOpts::new("fuse_ops_durations_histogram_seconds", "Duration of FUSE requests")
            .buckets(prometheus::exponential_buckets(1e-5, 1.8, 29)?);
        let compacted = HistogramOpts::new("compact_size_histogram_bytes", "Bytes written by compactions")
            .buckets(prometheus::exponential_buckets(1024.0, 2.0, 16)?);
        Ok(Self {
            started: Instant::now(),
            uptime: gauge("uptime", "Seconds since the mount began")?,
            cpu: gauge("cpu_usage", "CPU seconds used")?,
            memory: gauge("memory", "Resident memory in bytes")?,
            used_space: gauge("used_space", "Bytes used by the volume")?,
            used_inodes: gauge("used_inodes", "Inodes used by the volume")?,
            open_handles: gauge("fuse_open_handlers", "Open handles")?,
            buffer_used: gauge("used_buffer_size_bytes", "Bytes of buffers in use")?,
            cache_blocks: gauge("blockcache_blocks", "Blocks in the disk cache")?,
            cache_bytes: gauge("blockcache_bytes", "Bytes in the disk cache")?,
            cache_hits: gauge("blockcache_hits", "Reads served by the cache")?,
            cache_hit_bytes: gauge("blockcache_hit_bytes", "Bytes served by the cache")?,
            cache_misses: gauge("blockcache_miss", "Reads not served by the cache")?,
            cache_miss_bytes: gauge("blockcache_miss_bytes", "Bytes not served by the cache")?,
            meta_turns: gauge("meta_turns_total", "Turns to the metadata engine")?,
            meta_conflicts: gauge("transaction_restart", "Commits refused because of a concurrent change")?,
            quotas: QuotaMetrics::new(&registry)?,
            fuse_ops: counters("fuse_ops_total", "FUSE requests", "method")?,
            fuse_seconds: counters("fuse_ops_durations_seconds", "Seconds spent in FUSE requests", "method")?,
            fuse_errors: counters("fuse_ops_io_errors", "Failed FUSE requests", "errno")?,
            fuse_latency: series!(registry, Histogram::with_opts(latency)?),
            read_bytes: series!(registry, Counter::new("fuse_read_size_bytes_sum", "Bytes read")?),
            written_bytes: series!(registry, Counter::new("fuse_written_size_bytes_sum", "Bytes written")?),
            object_seconds: counters(
                "object_request_durations_seconds_sum",
                "Seconds in object requests",
                "method",
            )?,
            object_requests: counters("object_request_count", "Object requests", "method")?,
            object_bytes: counters("object_request_data_bytes", "Bytes of object requests", "method")?,
            object_errors: series!(
                registry,
                Counter::new("object_request_errors", "Failed object requests")?
            ),
            compacted: series!(registry, Histogram::with_opts(compacted)?),
            registry,
        })
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

    /// Counts bytes read by programs.
    pub fn read(&self, bytes: u64) {
        self.read_bytes.inc_by(bytes as f64);
    }

    /// Counts bytes written by programs.
    pub fn written(&self, bytes: u64) {
        self.written_bytes.inc_by(bytes as f64);
    }

    /// Counts a request to the object store.
    pub fn object(&self, method: &str, took: Duration, bytes: u64, failed: bool) {
        self.object_requests.with_label_values(&[method]).inc();
        self.object_seconds.with_label_values(&[method]).inc_by(took.as_secs_f64());
        self.object_bytes.with_label_values(&[method]).inc_by(bytes as f64);
        if failed {
            self.object_errors.inc();
        }
    }

    pub(crate) fn process(&self) {
        self.uptime.set(self.started.elapsed().as_secs_f64());
        if let Ok(text) = std::fs::read_to_string("/proc/self/statm") {
            let pages = text.split_whitespace().nth(1).and_then(|s| s.parse::<f64>().ok()).unwrap_or(0.0);
            self.memory.set(pages * 4096.0);
        }
        if let Ok(text) = std::fs::read_to_string("/proc/self/stat") {
            // Fields 14 and 15, counted after the name in parentheses; in clock ticks of 10 ms.
            let after = text.rsplit(')').next().unwrap_or_default();
            let ticks: f64 =
                after.split_whitespace().skip(11).take(2).filter_map(|s| s.parse::<f64>().ok()).sum();
            self.cpu.set(ticks / 100.0);
        }
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
