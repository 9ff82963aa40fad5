//! `cargo xtask removals`: does the simulation of coherence find that something was taken away?
//!
//! Each entry of `crates/vfs/tests/sim/removals` takes one invalidation, one forget or one "do not believe" away. A copy of the tree gets
//! all of them as switches and is built once; then the seeds are run with each of them, or the test that is named for it. What is not found
//! is a check that no test misses.

pub mod list;
mod runs;
mod table;
mod tree;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ciderfs_testkit::documents::tree as top;

use list::Removal;
use runs::{Outcome, Runner};

/// Where the copy is, and all that comes of it.
const PLACE: &str = "target/removals";

/// What to run.
struct Options {
    from: u64,
    seeds: u64,
    limit: Duration,
    json: bool,
    names: Vec<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let limit = Duration::from_secs(300);
        let mut options = Self { from: 0, seeds: 1000, limit, json: false, names: Vec::new() };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--json" => options.json = true,
                "--from" => options.from = value()?.parse().context("--from")?,
                "--seeds" => options.seeds = value()?.parse().context("--seeds")?,
                "--limit" => options.limit = Duration::from_secs(value()?.parse().context("--limit")?),
                other if other.starts_with('-') => bail!("unknown option {other}"),
                name => options.names.push(name.to_owned()),
            }
        }
        ensure!(options.seeds > 0 && !options.limit.is_zero(), "--seeds and --limit must be above 0");
        Ok(options)
    }
}

/// One removal, and what came of it; nothing if nobody looked.
pub struct Row<'a> {
    removal: &'a Removal,
    run: Option<runs::Run>,
}

impl Row<'_> {
    fn is_found(&self) -> bool {
        self.run.as_ref().is_some_and(|run| matches!(run.outcome, Outcome::Found { .. } | Outcome::Fails(_)))
    }

    /// It should have been found.
    fn is_missed(&self) -> bool {
        !self.is_found() && self.removal.unseen.is_none()
    }
}

/// Runs the seeds, or a test, with each removal.
pub fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let top = top();
    let (all, wrong) = list::read(&top)?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let chosen = choose(&all, &options.names)?;
    let is_left = |removal: &Removal| removal.unseen.is_some() && options.names.is_empty();
    let runner = build(&top, &all, &options, chosen.iter().copied().filter(|removal| !is_left(removal)))?;

    let mut rows = Vec::new();
    for (i, removal) in chosen.iter().enumerate() {
        let run = if is_left(removal) {
            None
        } else {
            let removed: Vec<&str> = [Some(&removal.name), removal.with.as_ref()]
                .into_iter()
                .flatten()
                .map(String::as_str)
                .collect();
            Some(match &removal.test {
                Some(test) => runner.test(test, &removed)?,
                None => runner.seeds(&removed)?,
            })
        };
        let row = Row { removal, run };
        eprintln!("{} of {}: {}", i + 1, chosen.len(), table::line(&row, options.limit));
        rows.push(row);
    }
    if options.json {
        table::print_json(&options, &rows)?
    } else {
        table::print(&options, &rows)
    }
    let missed = rows.iter().filter(|row| row.is_missed()).count();
    ensure!(
        missed == 0,
        "{missed} not found: what they remove can go missing, and no test of these seeds will tell"
    );
    Ok(())
}

/// Those that are named, or all.
fn choose<'a>(all: &'a [Removal], names: &[String]) -> Result<Vec<&'a Removal>> {
    if names.is_empty() {
        return Ok(all.iter().collect());
    }
    let of = |name: &String| all.iter().find(|removal| removal.name == *name);
    names
        .iter()
        .map(|name| of(name).with_context(|| format!("{}: no removal is called {name}", list::LISTS)))
        .collect()
}

/// Builds what the removals are run with, and has it find nothing while nothing is removed.
fn build<'a>(
    top: &std::path::Path,
    all: &[Removal],
    options: &Options,
    run: impl Iterator<Item = &'a Removal>,
) -> Result<Runner> {
    let run: Vec<&Removal> = run.collect();
    let tests: BTreeSet<&str> = run.iter().filter_map(|removal| removal.test.as_deref()).collect();
    let has_seeds = run.iter().any(|removal| removal.test.is_none());
    let place: PathBuf = top.join(PLACE);
    let tree = place.join("tree");
    std::fs::create_dir_all(&tree)?;
    tree::copy(top, &tree, all)?;
    eprintln!("Building the copy with {} switches in {PLACE}", all.len());
    let built = tree::build(&tree, &place.join("target"), has_seeds, !tests.is_empty())?;
    let runner = Runner {
        built,
        dir: tree.join("crates/vfs"),
        from: options.from,
        seeds: options.seeds,
        limit: options.limit,
    };
    if has_seeds {
        eprintln!("Nothing removed: {} seeds from {}", options.seeds, options.from);
        let whole = runner.seeds(&[])?;
        match whole.outcome {
            Outcome::NotFound { .. } => eprintln!("  nothing seen, {:.1} s", whole.took.as_secs_f64()),
            other => bail!("with nothing removed: {}", table::in_words(&other, options.limit)),
        }
    }
    if !tests.is_empty() {
        eprintln!("Nothing removed: {} tests", tests.len());
    }
    for test in tests {
        let outcome = runner.test(test, &[])?.outcome;
        let words = table::in_words(&outcome, options.limit);
        ensure!(outcome == Outcome::Passes, "with nothing removed: {test}: {words}");
    }
    Ok(runner)
}
