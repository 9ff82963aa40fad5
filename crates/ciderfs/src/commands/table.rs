//! Tables as the official tools print them.

use std::fmt;

/// Where the text of a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// At the left.
    Left,
    /// At the right.
    Right,
}

/// A table with a frame.
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Titles and alignments of the columns.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        Self { columns: columns.iter().map(|(t, a)| ((*t).to_owned(), *a)).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |i: usize, title: &str| {
            let cells = self.rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count());
            cells.chain([title.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = self.columns.iter().enumerate().map(|(i, (t, _))| width(i, t)).collect();
        let frame = |f: &mut fmt::Formatter<'_>| {
            for w in &widths {
                write!(f, "+{}", "-".repeat(w + 2))?;
            }
            writeln!(f, "+")
        };
        frame(f)?;
        for ((title, _), &w) in self.columns.iter().zip(&widths) {
            // Centred, the odd blank at the left.
            let free = w - title.chars().count();
            write!(f, "| {}{title}{} ", " ".repeat(free.div_ceil(2)), " ".repeat(free / 2))?;
        }
        writeln!(f, "|")?;
        frame(f)?;
        for row in &self.rows {
            for ((cell, (_, align)), &w) in row.iter().zip(&self.columns).zip(&widths) {
                match align {
                    Align::Left => write!(f, "| {cell:<w$} ")?,
                    Align::Right => write!(f, "| {cell:>w$} ")?,
                }
            }
            writeln!(f, "|")?;
        }
        frame(f)
    }
}
