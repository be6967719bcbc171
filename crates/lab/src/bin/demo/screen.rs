//! What the demo writes: numbered steps, lines and aligned tables, in plain text.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result};

const INDENT: &str = "   ";

/// The standard output, and where in the play we are.
#[derive(Debug)]
pub(crate) struct Screen {
    bold: bool,
    step: usize,
    title: String,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            bold: io::stdout().is_terminal(),
            step: 0,
            title: String::new(),
        }
    }

    /// Begins a step.
    pub(crate) fn step(&mut self, title: &str) -> Result<()> {
        self.step += 1;
        title.clone_into(&mut self.title);
        let line = format!("{}. {title}", self.step);
        let line = if self.bold {
            format!("\x1b[1m{line}\x1b[0m")
        } else {
            line
        };
        self.line(&format!("{}{line}\n", if self.step > 1 { "\n" } else { "" }))
    }

    /// Writes a line as it is.
    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")
            .and_then(|()| out.flush())
            .context("writing to the standard output")
    }

    /// Writes lines that belong to the step.
    pub(crate) fn say(&mut self, text: &str) -> Result<()> {
        text.split('\n')
            .try_for_each(|line| self.line(format!("{INDENT}{line}").trim_end()))
    }

    /// Writes a table, its columns as wide as their widest cell. A heading that begins with `>` stands, with its
    /// column, on the right.
    pub(crate) fn table<const N: usize>(&mut self, headings: [&str; N], rows: &[[String; N]]) -> Result<()> {
        let right = headings.map(|heading| heading.starts_with('>'));
        let headings = headings.map(|heading| heading.trim_start_matches('>').to_owned());
        let width = |column: usize| {
            let cells = rows
                .iter()
                .chain([&headings])
                .map(|row| row[column].chars().count());
            cells.max().unwrap_or_default()
        };
        let widths: [usize; N] = std::array::from_fn(width);
        for row in [&headings].into_iter().chain(rows) {
            let cells = row
                .iter()
                .zip(widths)
                .zip(right)
                .map(|((cell, width), right)| match right {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                });
            let line = cells.collect::<Vec<_>>().join("  ");
            self.say(line.trim_end())?;
        }
        Ok(())
    }

    /// The end of a play in which all went well.
    pub(crate) fn done(&mut self, took: Duration) -> Result<()> {
        self.line(&format!("\nAll of it worked, in {:.1} s.", took.as_secs_f64()))
    }

    /// The end of one in which something did not. Also on the standard error, so that it is seen wherever the output
    /// goes.
    pub(crate) fn failure(&mut self, error: &anyhow::Error) {
        let place = match self.step {
            0 => String::new(),
            number => format!(" in step {number} ({})", self.title),
        };
        // Where the standard error is gone, the exit code is left to tell.
        let _ = writeln!(io::stderr(), "\nFAILED{place}: {error:#}");
    }
}

/// Microseconds, in groups of three digits.
pub(crate) fn micros(time: Duration) -> String {
    let digits = time.as_micros().to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + " µs"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_in_groups() {
        for (time, text) in [
            (7, "7 µs"),
            (310, "310 µs"),
            (4310, "4,310 µs"),
            (1_234_567, "1,234,567 µs"),
        ] {
            assert_eq!(micros(Duration::from_micros(time)), text);
        }
    }
}
