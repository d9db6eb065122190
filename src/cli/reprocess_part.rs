//! `lakesmith reprocess-part`: what a computing engine starts for `lakesmith reprocess --engine`; not for people.
//!
//! Standard output has nothing but the lines of results.

use std::io::BufRead;
use std::path::PathBuf;

use super::{Outcome, page};
use crate::error::{Context, Result};
use crate::pipeline;

/// Compute parts of a reprocessing, for an engine that `lakesmith reprocess --engine` has started
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith reprocess-part JOB.json < PARTS     as the script of a job has it

It reads a line for each part from standard input, and prints a line for each result.")]
pub struct Arguments {
    /// The description of the job, which the driver has written
    #[arg(value_name = "JOB")]
    job: PathBuf,
}

pub async fn run(arguments: Arguments) -> Result<Outcome> {
    let lines = std::io::stdin().lock().lines().collect::<std::io::Result<Vec<_>>>().context("the parts cannot be read")?;
    pipeline::reprocess_parts(&arguments.job, &lines, page::print).await?;
    Ok(Outcome::Done)
}
