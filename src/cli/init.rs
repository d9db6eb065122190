//! `lakesmith init`: write a pipeline file to start from.

use std::io::Write;
use std::path::PathBuf;

use super::{Outcome, page};
use crate::config::preset::{PRESETS, preset};
use crate::error::{Error, Result};

/// Write a commented pipeline file to start from
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith init                          write ./pipeline.toml
  lakesmith init --preset amazon-sales orders.toml
  lakesmith init --force                  replace what is there")]
pub struct Arguments {
    /// File to write
    #[arg(default_value = "pipeline.toml")]
    file: PathBuf,
    /// The pipeline to start from
    #[arg(long, default_value = PRESETS[0].name, value_parser = clap::builder::PossibleValuesParser::new(PRESETS.iter().map(|preset| preset.name)))]
    preset: String,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

pub fn run(arguments: Arguments) -> Result<Outcome> {
    let preset = preset(&arguments.preset).ok_or_else(|| Error::config(format!("there is no preset {}", arguments.preset)))?;
    let file = &arguments.file;
    let mut options = std::fs::OpenOptions::new();
    let options =
        if arguments.force { options.write(true).create(true).truncate(true) } else { options.write(true).create_new(true) };
    let mut out = options.open(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::config(format!("{} exists already", file.display())).hint("name another file, or replace it with --force")
        }
        _ => Error::failed(format!("{} cannot be written", file.display())).caused_by(error),
    })?;
    out.write_all(preset.text.as_bytes())?;
    page::print(&format!(
        "wrote {}\n\nnext:\n  edit it: [source.kafka] brokers, [storage] warehouse, [metastore] uris\n  lakesmith config check -c {0}\n  lakesmith run -c {0}",
        file.display()
    ))?;
    Ok(Outcome::Done)
}
