//! `generate`: sales as a file, any number of them at a steady memory.

use std::io::{BufWriter, ErrorKind, Write};
use std::time::{Duration, Instant};

use super::defect::Defect;
use super::sale::{COLUMNS, Sale, TOTAL_AMOUNT};
use super::{Dialect, GeneratorSettings, Messages};
use crate::error::{Error, Result};
use crate::source::worker::stoppable;

/// The form of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GenerateFormat {
    /// With a header line, as the public data set is.
    #[default]
    Csv,
    /// The messages of the generator source, one per line; a null value is an empty line.
    JsonLines,
}

#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Rows, seed, share of bad rows and date format count here.
    pub settings: GeneratorSettings,
    pub format: GenerateFormat,
}

impl Default for GenerateOptions {
    /// A clean CSV file of 100,000 rows.
    fn default() -> Self {
        Self { settings: GeneratorSettings { bad_share: 0.0, ..GeneratorSettings::default() }, format: GenerateFormat::Csv }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GenerateSummary {
    pub rows: u64,
    pub bad_rows: u64,
    pub bytes: u64,
    pub elapsed: Duration,
    /// The reader of the output went away (`| head`): not an error, but not all rows.
    pub closed_early: bool,
}

/// Rows between two reports of progress.
const REPORT_ROWS: u64 = 4_096;

/// Writes the rows; `progress` is called with the number written so far.
pub async fn generate(
    options: GenerateOptions,
    out: impl Write + Send + 'static,
    mut progress: impl FnMut(u64) + Send + 'static,
) -> Result<GenerateSummary> {
    options.settings.validate()?;
    stoppable(move |stop| {
        let began = Instant::now();
        let mut counted = Counted { inner: BufWriter::with_capacity(256 << 10, out), bytes: 0 };
        let mut summary = GenerateSummary::default();
        let result = write_rows(&options, &mut counted, &mut summary, &mut |rows| {
            progress(rows);
            !stop.requested()
        });
        (summary.bytes, summary.elapsed) = (counted.bytes, began.elapsed());
        match result {
            Ok(()) => Ok(summary),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(GenerateSummary { closed_early: true, ..summary }),
            Err(error) => Err(Error::failed("the generated rows could not be written").caused_by(error)),
        }
    })
    .await
}

fn write_rows(
    options: &GenerateOptions,
    out: &mut impl Write,
    summary: &mut GenerateSummary,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> std::io::Result<()> {
    let settings = &options.settings;
    let mut messages = Messages::new(settings);
    let mut sale = Sale::default();
    if options.format == GenerateFormat::Csv {
        writeln!(out, "{}", COLUMNS.join(","))?;
    }
    for row in 0..settings.rows {
        let defect = match options.format {
            GenerateFormat::Csv => {
                let defect = Defect::of(settings.seed, row, settings.bad_share, Dialect::Csv);
                sale.draw(settings.seed, row, settings.date_format);
                write_csv_row(&mut sale, defect, out)?;
                defect
            }
            GenerateFormat::JsonLines => {
                out.write_all(messages.message(row).value.unwrap_or_default())?;
                out.write_all(b"\n")?;
                settings.defect(row)
            }
        };
        summary.rows += 1;
        summary.bad_rows += u64::from(defect.is_some());
        if summary.rows.is_multiple_of(REPORT_ROWS) && !go_on(summary.rows) {
            break;
        }
    }
    go_on(summary.rows);
    out.flush()
}

fn write_csv_row(sale: &mut Sale, defect: Option<Defect>, out: &mut impl Write) -> std::io::Result<()> {
    match defect {
        Some(Defect::MissingField) => sale.write_first_cells(TOTAL_AMOUNT, out),
        Some(defect) => {
            defect.spoil(sale);
            sale.write_csv(out)
        }
        None => sale.write_csv(out),
    }
}

struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
