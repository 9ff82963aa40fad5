//! Figures of this process.

use std::fs;

use ciderfs_rt::Instant;

use super::figures::{Figure, Value};

/// What was seen of the process.
pub(crate) struct Process {
    uptime: f64,
    cpu: f64,
    resident: u64,
    threads: u64,
    memory_max: f64,
    network: Option<(u64, u64)>,
}

/// Bytes that an address space without a limit is told to have, as Go's library tells it.
const UNLIMITED: f64 = u64::MAX as f64;
/// Ticks of a second in `/proc`.
const TICKS: f64 = 100.0;
/// Bytes of a page in `/proc`.
const PAGE: u64 = 4096;

pub(crate) const TABLE: &[Figure<Process>] = &[
    Figure::gauge("uptime", "Seconds since the mount began", Value::Float(|p| p.uptime)),
    Figure::gauge("cpu_usage", "CPU seconds used", Value::Float(|p| p.cpu)),
    Figure::gauge("memory", "Resident memory in bytes", Value::Int(|p| p.resident)),
    Figure::gauge("go_threads", "Threads", Value::Int(|p| p.threads)),
    Figure::gauge(
        "process_virtual_memory_max_bytes",
        "Bytes of virtual memory that the process may have",
        Value::Float(|p| p.memory_max),
    ),
    Figure::counter(
        "process_network_receive_bytes_total",
        "Bytes received in the network namespace of the process",
        Value::Maybe(|p| p.network.map(|n| n.0)),
    ),
    Figure::counter(
        "process_network_transmit_bytes_total",
        "Bytes sent in the network namespace of the process",
        Value::Maybe(|p| p.network.map(|n| n.1)),
    ),
];

/// Looks at the process, which began then.
pub(crate) fn look(started: Instant) -> Process {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let stat = read("stat");
    // Fields from the third on, after the name in parentheses: 14 and 15 are times, 20 is the number of threads.
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|s| s.parse().unwrap_or(0))
        .collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let pages = read("statm").split_whitespace().nth(1).and_then(|s| s.parse::<u64>().ok()).unwrap_or(0);
    let limits = read("limits");
    let max = limits.lines().find_map(|l| l.strip_prefix("Max address space")?.split_whitespace().next());
    Process {
        uptime: started.elapsed().as_secs_f64(),
        cpu: (field(14) + field(15)) as f64 / TICKS,
        resident: pages * PAGE,
        threads: field(20),
        memory_max: max.and_then(|s| s.parse().ok()).unwrap_or(UNLIMITED),
        network: octets(&read("net/netstat")),
    }
}

/// Bytes received and sent, of a table whose lines come in pairs: names, and figures in the same order.
fn octets(netstat: &str) -> Option<(u64, u64)> {
    let mut lines = netstat.lines().filter_map(|l| l.strip_prefix("IpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let find = |wanted: &str| {
        let at = names.split_whitespace().position(|name| name == wanted)?;
        values.split_whitespace().nth(at)?.parse().ok()
    };
    Some((find("InOctets")?, find("OutOctets")?))
}

/// The name of this machine.
pub(crate) fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_seen() {
        let p = look(Instant::now());
        assert!(p.resident > 0 && p.threads > 0 && p.memory_max > 0.0);
        let table = "TcpExt: A B\nTcpExt: 1 2\nIpExt: X InOctets OutOctets\nIpExt: 0 7 9\n";
        assert_eq!(octets(table), Some((7, 9)));
        assert_eq!(octets("IpExt: InOctets\nIpExt: 1\n"), None);
    }
}
