//! What people see: tables, numbers with units, errors with their hints. Output goes to standard output, notes and errors to standard error.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, presets};

use crate::error::{Error, Result};

/// Writes text to standard output.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// A remark beside the output, on standard error: what a pipe should not carry.
pub fn note(text: &str) {
    // Nobody is left to be told when standard error is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints an error as `error: …` and ` hint: …`.
pub fn print_error(error: &Error) {
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "{} {}", painted("error:", "1;31"), error.chain());
    if let Some(hint) = error.hint_text() {
        let _ = writeln!(err, " {} {hint}", painted("hint:", "1;36"));
    }
}

/// Whether an error says that the reader of our output is gone.
pub fn is_broken_pipe(error: &Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            return true;
        }
        next = cause.source();
    }
    false
}

/// Colours are for terminals, and for those who have not asked to be spared (no-color.org).
fn painted(text: &str, code: &str) -> String {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal();
    if wanted { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
}

/// A table with headings. Columns of numbers stand to the right.
pub struct Page {
    table: comfy_table::Table,
    rows: usize,
}

impl Page {
    pub fn new<'a>(headings: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(headings);
        Self { table, rows: 0 }
    }

    pub fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        for column in columns {
            if let Some(column) = self.table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self
    }

    pub fn row<T: ToString>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.table.add_row(cells.into_iter().map(|cell| comfy_table::Cell::new(cell.to_string())));
        self.rows += 1;
    }

    pub fn rows(&self) -> usize {
        self.rows
    }
}

impl std::fmt::Display for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in self.table.lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// 1234567 → 1,234,567
pub fn number(value: impl TryInto<i128>) -> String {
    let value: i128 = value.try_into().unwrap_or_default();
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "-" } else { "" });
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// 12345678 → 11.8 MiB
pub fn bytes(value: u64) -> String {
    bytesize::ByteSize(value).display().iec().to_string()
}

/// Seconds with two digits behind the point.
pub fn seconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64())
}

/// An instant as people read it, in UTC.
pub fn instant(milliseconds: i64) -> String {
    match chrono::DateTime::from_timestamp_millis(milliseconds) {
        Some(instant) => instant.format("%Y-%m-%d %H:%M:%S").to_string(),
        None => format!("{milliseconds} ms"),
    }
}

/// A text cut to a width in characters, with a mark where something is missing; line breaks become spaces.
pub fn cut(text: &str, width: usize) -> String {
    let flat: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match flat.char_indices().nth(width) {
        Some(_) => flat.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        None => flat,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_thousands_marked() {
        assert_eq!(number(0), "0");
        assert_eq!(number(999u64), "999");
        assert_eq!(number(-1_234_567i64), "-1,234,567");
    }

    #[test]
    fn long_cells_are_cut_and_stay_on_their_line() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("a\nbcd", 3), "a …");
    }

    #[test]
    fn a_broken_pipe_is_found_below_its_context() {
        let pipe = Error::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe)).context("rows could not be written");
        assert!(is_broken_pipe(&pipe));
        assert!(!is_broken_pipe(&Error::failed("x")));
    }

    #[test]
    fn a_page_is_a_table() {
        let mut page = Page::new(["layer", "rows"]).right([1]);
        page.row(["bronze", "1,000"]);
        page.row(["silver", "9"]);
        let text = page.to_string();
        assert!(text.contains("│ bronze ┆ 1,000 │"), "{text}");
        assert!(text.contains("│ silver ┆     9 │"), "{text}");
    }
}
