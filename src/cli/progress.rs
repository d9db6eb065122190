//! How far a run is, while it runs: a bar on a terminal, a line now and then elsewhere; and what it did, at its end.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::page::{self, Page};
use crate::error::{Error, Result};
use crate::pipeline::{Observer, Progress, RunReport};

/// What shows progress best where we are.
pub fn observer() -> Result<Arc<dyn Observer>> {
    if std::io::stderr().is_terminal() { Ok(Arc::new(Bar::new()?)) } else { Ok(Arc::new(Lines::default())) }
}

/// A bar for terminals.
struct Bar(ProgressBar);

/// The style of all bars.
pub fn style() -> Result<ProgressStyle> {
    ProgressStyle::with_template("{elapsed_precise} {bar:32} {human_pos} / {human_len} rows  {rate}  {msg}")
        .map(|style| style.with_key("rate", whole_rate).progress_chars("━╸─"))
        .map_err(|error| Error::failed("the progress bar has no form").caused_by(error))
}

/// Rows per second without a fraction, which would only flicker.
fn whole_rate(state: &ProgressState, out: &mut dyn Write) {
    // Writing to a bar's buffer does not fail.
    let _ = write!(out, "{}/s", page::number(state.per_sec() as u64));
}

impl Bar {
    fn new() -> Result<Self> {
        let bar = ProgressBar::new(0).with_style(style()?);
        bar.enable_steady_tick(Duration::from_millis(100));
        Ok(Self(bar))
    }
}

impl Observer for Bar {
    fn progress(&self, progress: &Progress) {
        self.0.set_length(progress.records_expected.max(progress.records_read));
        self.0.set_position(progress.records_read);
        self.0.set_message(format!("{} committed", page::number(progress.records_committed)));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A line every other second, for logs and pipes.
#[derive(Default)]
struct Lines {
    last: Mutex<Option<Instant>>,
}

/// Time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

impl Observer for Lines {
    fn progress(&self, progress: &Progress) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= LINE_INTERVAL) {
            *last = Some(Instant::now());
            let read = page::number(progress.records_read);
            let (committed, end) = (page::number(progress.records_committed), page::number(progress.records_expected));
            page::note(&format!("{read} of {end} rows read, {committed} committed"));
        }
    }
}

/// What a run wrote, layer by layer.
pub fn summary(report: &RunReport) -> String {
    let mut page = Page::new(["layer", "table", "rows", "files", "size", "commits", "seconds"]).right(2..7);
    for layer in &report.layers {
        page.row([
            layer.layer.to_string(),
            layer.table.clone(),
            page::number(layer.rows),
            page::number(layer.files),
            page::bytes(layer.bytes),
            page::number(layer.commits),
            page::seconds(layer.busy),
        ]);
    }
    let (rejected, seconds) = (page::number(report.progress.records_rejected), page::seconds(report.elapsed));
    let rates = report.records_per_second().map(|(wall, processor)| {
        format!(
            "{} records per second, {} per second of processor time\n",
            page::number(wall as u64),
            page::number(processor as u64)
        )
    });
    let added = match report.progress.columns_added {
        0 => String::new(),
        1 => "1 field has become a column, ".to_owned(),
        many => format!("{} fields have become columns, ", page::number(many)),
    };
    format!("{page}{rejected} rejected, {added}{seconds} s in all\n{}", rates.unwrap_or_default())
}
