//! The figures: printed as tables as they come, kept for the JSON document, and held against the targets.

use serde_json::{Map, Value, json};

use crate::statistics::{Samples, micros};

/// Bytes.
pub(crate) const MIB: f64 = 1024.0 * 1024.0;

/// Columns of a table of latencies. Where there are fewer than 100 samples, the 99th percentile would be the maximum.
pub(crate) const LATENCY: [&str; 8] = [
    "what",
    "nodes present",
    "samples",
    "p50 µs",
    "p99 µs",
    "max µs",
    "raw p50 µs",
    "raw max µs",
];

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    tables: Vec<Table>,
    targets: Vec<Target>,
}

/// A table of figures.
#[derive(Debug)]
pub(crate) struct Table {
    title: &'static str,
    /// Heads of the columns, with the unit.
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// A field of a table.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Text(String),
    Count(usize),
    /// A number and how many decimals of it are worth printing.
    Number(f64, usize),
    /// There is nothing to measure here.
    None,
}

/// A figure that there is a target for.
#[derive(Debug)]
pub(crate) struct Target {
    /// What, and in which unit.
    pub(crate) what: String,
    /// What it may be at most.
    pub(crate) limit: f64,
    pub(crate) measured: f64,
}

impl Report {
    /// Prints a table and keeps it.
    pub(crate) fn table(&mut self, table: Table) {
        table.print();
        self.tables.push(table);
    }

    pub(crate) fn target(&mut self, target: Target) {
        self.targets.push(target);
    }

    pub(crate) fn print_targets(&self) {
        let mut table = Table::new("Targets", &["figure", "at most", "measured", ""]);
        for target in &self.targets {
            table.row([
                Cell::Text(target.what.clone()),
                Cell::Number(target.limit, 2),
                Cell::Number(target.measured, 2),
                Cell::Text(if target.is_met() { "met" } else { "MISSED" }.to_owned()),
            ]);
        }
        table.print();
    }

    pub(crate) fn to_json(&self) -> Value {
        let targets = self.targets.iter().map(|target| {
            json!({
                "figure": target.what, "at_most": target.limit, "measured": target.measured,
                "met": target.is_met(),
            })
        });
        let targets: Vec<Value> = targets.collect();
        let tables: Map<String, Value> = self
            .tables
            .iter()
            .map(|table| (table.title.to_owned(), table.to_json()))
            .collect();
        json!({ "tables": tables, "targets": targets })
    }
}

impl Target {
    fn is_met(&self) -> bool {
        self.measured <= self.limit
    }
}

impl Table {
    pub(crate) fn new(title: &'static str, columns: &[&'static str]) -> Self {
        Self {
            title,
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Prints it in Markdown, aligned: it is read in a terminal and goes into the documentation as it is.
    fn print(&self) {
        let texts: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(Cell::text).collect())
            .collect();
        let width = |column: usize| {
            let cells = texts
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells
                .chain([self.columns[column].chars().count(), 3])
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &[String]| {
            let cells = cells
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                });
            format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
        };
        let heads: Vec<String> = self.columns.iter().map(ToString::to_string).collect();
        let rules: Vec<String> = widths
            .iter()
            .enumerate()
            .map(|(column, width)| match column {
                0 => "-".repeat(*width),
                _ => format!("{}:", "-".repeat(width - 1)),
            })
            .collect();
        println!("### {}\n\n{}\n{}", self.title, line(&heads), line(&rules));
        for row in &texts {
            println!("{}", line(row));
        }
        println!();
    }

    fn to_json(&self) -> Value {
        let row = |row: &Vec<Cell>| -> Value {
            let fields = self.columns.iter().zip(row);
            fields
                .map(|(column, cell)| ((*column).to_owned(), cell.to_json()))
                .collect::<Map<_, _>>()
                .into()
        };
        self.rows.iter().map(row).collect()
    }
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Count(count) => grouped(*count),
            Self::Number(number, decimals) => format!("{number:.decimals$}"),
            Self::None => "–".to_owned(),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Count(count) => json!(count),
            Self::Number(number, _) => json!(number),
            Self::None => Value::Null,
        }
    }
}

/// A latency beside that of a raw writer: see [`LATENCY`].
pub(crate) fn latency(what: &str, nodes: usize, samples: &Samples, raw: &Samples) -> [Cell; 8] {
    let number = |duration| Cell::Number(micros(duration), 0);
    let raw_number = |duration| {
        if raw.len() == 0 {
            Cell::None
        } else {
            number(duration)
        }
    };
    [
        Cell::Text(what.to_owned()),
        Cell::Count(nodes),
        Cell::Count(samples.len()),
        number(samples.median()),
        samples.p99().map_or(Cell::None, number),
        number(samples.max()),
        raw_number(raw.median()),
        raw_number(raw.max()),
    ]
}

/// With commas between the thousands.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands() {
        assert_eq!(
            [0, 999, 1_000, 65_536, 1_234_567].map(grouped),
            ["0", "999", "1,000", "65,536", "1,234,567"]
        );
    }
}
