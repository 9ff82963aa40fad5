//! The result.

use anyhow::Result;
use serde_json::json;

use super::client::MOUNT_FLAGS;
use super::rows::Report;
use super::{Engine, Options};

/// For a terminal of 80 columns.
pub fn print(options: &Options, ours: &Report, theirs: &Report) -> Result<()> {
    println!("\nmount flags of both: {}", MOUNT_FLAGS.join(" "));
    if options.meta == Engine::Redis {
        println!(
            "\n{:<40}{:>10}{:>10}{:>10}",
            "turns to Redis per operation", "CiderFS", "official", "ratio"
        );
        let (mut a, mut b) = (0.0, 0.0);
        for ((name, our), (_, their)) in ours.turns.iter().zip(&theirs.turns) {
            let (our, their) = (our.unwrap_or_default(), their.unwrap_or_default());
            (a, b) = (a + our, b + their);
            line(name, our, their);
        }
        line("sum", a, b);
    }
    println!("\n{:<40}{:>10}{:>10}{:>10}", "rates (more is better)", "CiderFS", "official", "ratio");
    for ((name, unit, our), (_, _, their)) in ours.rates.iter().zip(&theirs.rates) {
        println!("{:<40}{our:>10.0}{their:>10.0}{:>9.2}x", format!("{name}, {unit}"), our / their);
    }
    println!("\n{:<40}{:>10}{:>10}{:>10}", "resources (less is better)", "CiderFS", "official", "ratio");
    line("CPU seconds of the mount process", ours.usage.cpu, theirs.usage.cpu);
    line("peak resident memory, MiB", ours.usage.peak, theirs.usage.peak);
    Ok(())
}

fn line(name: &str, our: f64, their: f64) {
    println!("{name:<40}{our:>10.2}{their:>10.2}{:>9.2}x", our / their);
}

/// For machines.
pub fn print_json(options: &Options, ours: &Report, theirs: &Report) -> Result<()> {
    let one = |r: &Report| {
        json!({
            "turns": r.turns.iter().map(|(n, v)| (n.to_string(), json!(v))).collect::<serde_json::Map<_, _>>(),
            "rates": r.rates.iter().map(|(n, u, v)| (format!("{n}, {u}"), json!(v))).collect::<serde_json::Map<_, _>>(),
            "cpu_seconds": r.usage.cpu,
            "peak_mib": r.usage.peak,
        })
    };
    let engine = if options.meta == Engine::Redis { "redis" } else { "sqlite" };
    let all = json!({ "meta": engine, "flags": MOUNT_FLAGS, "ciderfs": one(ours), "official": one(theirs) });
    println!("{}", serde_json::to_string_pretty(&all)?);
    Ok(())
}
