//! The result: medians of all rounds, and the ratio of each round's pair with its spread.

use anyhow::Result;
use serde_json::json;

use super::client::MOUNT_FLAGS;
use super::rows::Report;
use super::{Engine, Options, Round};

/// One row: a name and the figures of each round.
struct Row {
    name: String,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Row {
    fn new(name: impl Into<String>, rounds: &[Round], figure: impl Fn(&Report) -> f64) -> Self {
        let figures = |of: &dyn Fn(&Round) -> f64| rounds.iter().map(of).collect();
        Self {
            name: name.into(),
            ours: figures(&|r| figure(&r.ours)),
            theirs: figures(&|r| figure(&r.theirs)),
        }
    }

    fn ratios(&self) -> Vec<f64> {
        self.ours.iter().zip(&self.theirs).map(|(a, b)| a / b).collect()
    }

    /// For a terminal of 80 columns.
    fn print(&self, digits: usize) {
        let (ours, theirs, ratios) = (median(&self.ours), median(&self.theirs), self.ratios());
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        let spread = format!("{least:.2}-{most:.2}");
        let name = &self.name;
        println!("{name:<37}{ours:>9.digits$}{theirs:>9.digits$}{:>9.2}x{spread:>14}", median(&ratios));
    }

    fn json(&self) -> (String, serde_json::Value) {
        (
            self.name.clone(),
            json!({ "ciderfs": self.ours, "official": self.theirs, "ratio": median(&self.ratios()) }),
        )
    }
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

fn turns(rounds: &[Round]) -> Vec<Row> {
    let names: Vec<&str> = rounds.iter().take(1).flat_map(|r| &r.ours.turns).map(|(name, _)| *name).collect();
    let figure = |i: usize| move |r: &Report| r.turns.get(i).and_then(|(_, n)| *n).unwrap_or(f64::NAN);
    let mut rows: Vec<Row> =
        names.iter().enumerate().map(|(i, name)| Row::new(*name, rounds, figure(i))).collect();
    rows.push(Row::new("sum", rounds, |r| r.turns.iter().filter_map(|(_, n)| *n).sum()));
    rows
}

fn rates(rounds: &[Round]) -> Vec<Row> {
    let names: Vec<_> =
        rounds.iter().take(1).flat_map(|r| &r.ours.rates).map(|(n, unit, _)| (*n, *unit)).collect();
    let figure = |i: usize| move |r: &Report| r.rates.get(i).map_or(f64::NAN, |(_, _, v)| *v);
    names
        .iter()
        .enumerate()
        .map(|(i, (n, unit))| Row::new(format!("{n}, {unit}"), rounds, figure(i)))
        .collect()
}

fn resources(rounds: &[Round]) -> [Row; 2] {
    [
        Row::new("CPU seconds of the mount process", rounds, |r| r.usage.cpu),
        Row::new("peak resident memory, MiB", rounds, |r| r.usage.peak),
    ]
}

/// For people.
pub fn print(options: &Options, rounds: &[Round]) -> Result<()> {
    println!("\nmount flags of both: {}", MOUNT_FLAGS.join(" "));
    println!("medians of {} rounds; the ratio is that of each round's pair", rounds.len());
    let head = |title: &str| {
        println!("\n{title:<37}{:>9}{:>9}{:>10}{:>14}", "CiderFS", "official", "ratio", "least-most");
    };
    if options.meta == Engine::Redis {
        head("turns to Redis per operation");
        turns(rounds).iter().for_each(|row| row.print(2));
    }
    head("rates (more is better)");
    rates(rounds).iter().for_each(|row| row.print(0));
    head("resources (less is better)");
    resources(rounds).iter().for_each(|row| row.print(2));
    Ok(())
}

/// For machines.
pub fn print_json(options: &Options, rounds: &[Round]) -> Result<()> {
    let all = |rows: &[Row]| rows.iter().map(Row::json).collect::<serde_json::Map<_, _>>();
    let redis = options.meta == Engine::Redis;
    let document = json!({
        "meta": if redis { "redis" } else { "sqlite" },
        "flags": MOUNT_FLAGS,
        "turns": if redis { all(&turns(rounds)) } else { serde_json::Map::new() },
        "rates": all(&rates(rounds)),
        "resources": all(&resources(rounds)),
    });
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}
