//! `lakesmith generate`: made-up sales as a file.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use super::progress::style;
use super::{Outcome, page};
use crate::error::{Error, Result};
use crate::source::FileFormat;
use crate::source::generator::{DateFormat, GenerateFormat, GenerateOptions, GeneratorSettings, generate};

/// Make up sales, as CSV or JSON lines
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith generate --rows 20000 -o sales.csv
  lakesmith generate --rows 1000 --bad-share 0.01 --format jsonl | head
  lakesmith generate --rows 1000000 --seed 7 -o big.csv && lakesmith produce big.csv --topic supermarket-sales

The same seed gives the same rows on every machine. Memory stays the same for any number of rows.")]
pub struct Arguments {
    /// Rows to make up
    #[arg(long, default_value_t = 100_000)]
    rows: u64,
    /// The same seed gives the same rows
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Form of the rows; by default as the file's ending says, else csv
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// File to write; without it, or with -, standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Share of bad rows, 0 to 1: each is wrong in some instructive way
    #[arg(long, default_value_t = 0.0)]
    bad_share: f64,
    /// How dates are written: 2023-07-17 (iso), or 17-07-2023 as a spreadsheet saves it
    #[arg(long, value_enum, default_value_t)]
    dates: Dates,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Csv,
    Jsonl,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Dates {
    #[default]
    Iso,
    DayFirst,
}

pub async fn run(arguments: Arguments) -> Result<Outcome> {
    let file = arguments.output.as_deref().filter(|path| *path != Path::new("-"));
    let format = match (arguments.format, file.map(FileFormat::from_path)) {
        (Some(Format::Csv), _) | (None, None | Some(Err(_))) => GenerateFormat::Csv,
        (Some(Format::Jsonl), _) => GenerateFormat::JsonLines,
        (None, Some(Ok(FileFormat::Csv))) => GenerateFormat::Csv,
        (None, Some(Ok(FileFormat::JsonLines))) => GenerateFormat::JsonLines,
    };
    let date_format = match arguments.dates {
        Dates::Iso => DateFormat::Iso,
        Dates::DayFirst => DateFormat::DayFirst,
    };
    let settings = GeneratorSettings {
        rows: arguments.rows,
        seed: arguments.seed,
        bad_share: arguments.bad_share,
        date_format,
        ..GeneratorSettings::default()
    };
    settings.validate()?;
    let out: Box<dyn Write + Send> = match file {
        Some(path) => Box::new(BufWriter::new(create(path, arguments.force)?)),
        None => Box::new(std::io::stdout()),
    };
    let bar = match std::io::stderr().is_terminal() && file.is_some() {
        true => ProgressBar::new(arguments.rows).with_style(style()?),
        false => ProgressBar::hidden(),
    };
    let moving = bar.clone();
    let summary = generate(GenerateOptions { settings, format }, out, move |rows| moving.set_position(rows)).await?;
    bar.finish_and_clear();
    if let Some(path) = file {
        page::note(&format!(
            "wrote {} rows ({} bad) to {}: {} in {} s",
            page::number(summary.rows),
            page::number(summary.bad_rows),
            path.display(),
            page::bytes(summary.bytes),
            page::seconds(summary.elapsed)
        ));
    }
    Ok(Outcome::Done)
}

fn create(path: &Path, force: bool) -> Result<std::fs::File> {
    let file = if force { std::fs::File::create(path) } else { std::fs::File::create_new(path) };
    file.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::config(format!("{} exists already", path.display())).hint("name another file, or replace it with --force")
        }
        _ => Error::failed(format!("{} cannot be written", path.display())).caused_by(error),
    })
}
