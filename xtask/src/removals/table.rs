//! What the runs have shown.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::runs::Outcome;
use super::{Options, Row};

/// Columns of a line.
const WIDTH: usize = 120;

/// Seed, seconds, and what was seen, or which test has failed.
fn cells(row: &Row<'_>, limit: Duration) -> [String; 3] {
    let Some(run) = &row.run else {
        let why = row.removal.unseen.clone().unwrap_or_default();
        return ["unseen".to_owned(), String::new(), why];
    };
    let seed = match &run.outcome {
        Outcome::Found { seed, .. } => seed.to_string(),
        Outcome::Fails(_) => "test".to_owned(),
        Outcome::NotFound { .. } | Outcome::Passes => "not found".to_owned(),
        Outcome::NoEnd => "no end".to_owned(),
        Outcome::Broken(_) => "broken".to_owned(),
    };
    let mut words = in_words(&run.outcome, limit);
    if let Outcome::Found { seen, .. } = &run.outcome {
        words.clone_from(seen);
        if row.removal.unseen.is_some() {
            words = format!("take its `unseen` away: {words}");
        }
    }
    if let Some(test) = &row.removal.test {
        words = format!("{test}: {words}");
    }
    [seed, format!("{:.1}", run.took.as_secs_f64()), words]
}

/// What came of a run, in a line.
pub fn in_words(outcome: &Outcome, limit: Duration) -> String {
    match outcome {
        Outcome::Found { seed, seen } => format!("seed {seed}: {seen}"),
        Outcome::NotFound { reached: 0 } => "never reached".to_owned(),
        Outcome::NotFound { reached } => format!("reached {reached} times, nothing seen"),
        Outcome::Fails(how) => how.clone(),
        Outcome::Passes => "it passes".to_owned(),
        Outcome::NoEnd => {
            let limit = limit.as_secs();
            format!(
                "not done after {limit} s: a seed or a test without an end, or more seeds than --limit leaves time for"
            )
        }
        Outcome::Broken(last) => format!("ended without a result: {last}"),
    }
}

/// One removal, while the others are still run.
pub fn line(row: &Row<'_>, limit: Duration) -> String {
    let [seed, seconds, words] = cells(row, limit);
    let shown = [row.removal.name.as_str(), &seed, &seconds, &words].map(str::to_owned);
    cut(&shown.into_iter().filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join(", "), WIDTH - 16)
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// For people.
pub fn print(options: &Options, rows: &[Row<'_>]) {
    let shown = |row: &Row<'_>| match &row.removal.with {
        Some(with) => format!("{} with {with}", row.removal.name),
        None => row.removal.name.clone(),
    };
    let width = rows.iter().map(|row| shown(row).chars().count()).max().unwrap_or(0).max(7);
    println!("{:<width$}  {:>9}  {:>6}  seen", "removed", "seed", "s");
    for row in rows {
        let [seed, seconds, words] = cells(row, options.limit);
        let words = cut(&words, WIDTH.saturating_sub(width + 21));
        println!("{:<width$}  {seed:>9}  {seconds:>6}  {words}", shown(row));
    }
    let count = |which: &dyn Fn(&Row<'_>) -> bool| rows.iter().filter(|row| which(row)).count();
    let (found, missed) = (count(&|row| row.is_found()), count(&|row| row.is_missed()));
    let left = rows.len() - found - missed;
    println!("{} removals: {found} found, {missed} not found, {left} marked unseen", rows.len());
}

/// For machines.
pub fn print_json(options: &Options, rows: &[Row<'_>]) -> Result<()> {
    let of = |row: &Row<'_>| -> Value {
        let (outcome, seed, seen, reached) = match row.run.as_ref().map(|run| &run.outcome) {
            None => ("not looked for", None, None, None),
            Some(Outcome::Found { seed, seen }) => ("found", Some(*seed), Some(seen), None),
            Some(Outcome::Fails(how)) => ("found", None, Some(how), None),
            Some(Outcome::Passes) => ("not found", None, None, None),
            Some(Outcome::NotFound { reached }) => ("not found", None, None, Some(*reached)),
            Some(Outcome::NoEnd) => ("no end", None, None, None),
            Some(Outcome::Broken(last)) => ("broken", None, Some(last), None),
        };
        json!({
            "name": row.removal.name, "file": row.removal.file, "what": row.removal.what,
            "with": row.removal.with, "test": row.removal.test, "unseen": row.removal.unseen,
            "outcome": outcome, "seed": seed, "seen": seen, "reached": reached,
            "seconds": row.run.as_ref().map(|run| run.took.as_secs_f64()),
        })
    };
    let removals: Vec<Value> = rows.iter().map(of).collect();
    let document = json!({ "from": options.from, "seeds": options.seeds, "removals": removals });
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}
