//! Tables for people: columns aligned by spaces, as `kubectl get` writes them.

use std::fmt;

/// Spaces between two columns.
const GAP: usize = 2;

/// Rows of as many cells as the head has.
#[derive(Debug, Clone)]
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table of nothing but its head.
    pub(crate) fn new(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(str::to_owned)],
        }
    }

    /// Adds a row. An empty cell becomes a dash.
    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows
            .push(cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }
}

/// One line for each row, without spaces at its end.
impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &self.rows {
            let cells = row.iter().zip(widths);
            let line: String = cells
                .map(|(cell, width)| format!("{cell:<0$}", width + GAP))
                .collect();
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A time span as people say it: its two largest units.
pub(crate) fn span(seconds: f64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let whole = seconds.max(0.0) as u64;
    let largest = UNITS.iter().position(|(unit, _)| whole >= *unit).unwrap_or(3);
    let mut rest = whole;
    let parts = UNITS.iter().skip(largest).take(2).map(|(unit, name)| {
        let count = rest / unit;
        rest %= unit;
        (count, name)
    });
    let words: Vec<String> = parts
        .enumerate()
        .filter(|(at, (count, _))| *at == 0 || *count > 0)
        .map(|(_, (count, name))| format!("{count}{name}"))
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "ADDRESS", "WHY"]);
        table.row(["web".to_owned(), "10.1.0.2".to_owned(), String::new()]);
        table.row(["a-long-name".to_owned(), String::new(), "späť".to_owned()]);
        assert_eq!(
            table.to_string(),
            "NAME         ADDRESS   WHY\nweb          10.1.0.2  -\na-long-name  -         späť\n"
        );
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, text) in [
            (0.4, "0s"),
            (59.9, "59s"),
            (60.0, "1m"),
            (125.0, "2m 5s"),
            (3_661.0, "1h 1m"),
            (200_000.0, "2d 7h"),
            (86_400.0 * 30.0, "30d"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
