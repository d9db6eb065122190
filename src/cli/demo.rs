//! `lakesmith demo`: the whole way of a record, with nothing installed.
//!
//! The directory tells how far a demo is: without a pipeline file it is new, with one it is under way (and goes on where its tables end),
//! and [`FINISHED`] says that it is done. Nothing is ever deleted.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;
use toml_edit::{DocumentMut, Item, Table, value};

use super::progress::{observer, summary};
use super::query::print_table;
use super::run::{COMMITTING, stop_on_signal};
use super::{Outcome, page};
use crate::catalog::Lakehouse;
use crate::config::preset::PRESETS;
use crate::config::{Config, PipelineFile, Sources};
use crate::error::{Error, Result};
use crate::gold::GoldSettings;
use crate::pipeline::{self, RunOptions, RunReport, Until};
use crate::query::QuerySession;

/// Try lakesmith with nothing installed: sales are made up and go through all layers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith demo                               100,000 rows into ./lakehouse, as fast as possible
  lakesmith demo --rows 1000000 --dir /tmp/big
  lakesmith demo --rate 5000                   5,000 rows per second: look at the tables while they grow
  lakesmith demo --seed 7 --dir other          other sales; the same seed gives the same sales

Interrupted, it goes on where it was. A finished demo is left as it is.")]
pub struct Arguments {
    /// Rows to make up
    #[arg(long, default_value_t = 100_000)]
    rows: u64,
    /// Rows per second; without it as fast as possible
    #[arg(long)]
    rate: Option<f64>,
    /// The same seed gives the same rows
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Directory for tables, metastore and pipeline file
    #[arg(long, default_value = "./lakehouse")]
    dir: PathBuf,
}

const PIPELINE_FILE: &str = "pipeline.toml";
const FINISHED: &str = ".demo-finished";

pub async fn run(arguments: Arguments) -> Result<Outcome> {
    let dir = &arguments.dir;
    match state(dir)? {
        State::Finished => {
            let (program, dir_name) = (program(), dir.display());
            let next = next_commands(&read(dir)?, dir);
            page::print(&format!(
                "{dir_name} holds a finished demo; nothing was changed\n\n{next}\nbegin anew:\n  \
                 {program} demo --dir ANOTHER\n  rm -r {dir_name} && {program} demo --dir {dir_name}"
            ))?;
            return Ok(Outcome::Done);
        }
        State::New => write_pipeline_file(dir, &arguments)?,
        State::UnderWay => page::note(&format!("going on with the demo in {}", dir.display())),
    }
    let config = load(dir, &arguments)?;
    let shutdown = stop_on_signal(COMMITTING)?;
    let report = {
        let options = RunOptions { until: Until::CaughtUp, shutdown: shutdown.clone(), observer: observer()?, reload: None };
        pipeline::run(&config.definition(), options).await?
    };
    finish(&config, dir, &report, &shutdown).await
}

async fn finish(config: &Config, dir: &Path, report: &RunReport, shutdown: &CancellationToken) -> Result<Outcome> {
    page::print(&summary(report))?;
    if shutdown.is_cancelled() {
        page::print(&format!("stopped early; `{} demo --dir {}` goes on", program(), dir.display()))?;
        return Ok(Outcome::Done);
    }
    write(&dir.join(FINISHED), &summary(report))?;
    if let Some(gold) = config.gold.first() {
        let lakehouse = Lakehouse::open(&config.metastore, &config.storage, &config.catalog).await?;
        let session = QuerySession::new(lakehouse.catalog().clone(), &config.tables.database, &config.query)?;
        page::print(&format!("\n{}.{}, its largest groups:", config.tables.database, gold.table))?;
        print_table(session.query(&largest_groups(gold)).await?, 5).await?;
    }
    page::print(&format!("\n{}", next_commands(config, dir)))?;
    Ok(Outcome::Done)
}

enum State {
    New,
    UnderWay,
    Finished,
}

fn state(dir: &Path) -> Result<State> {
    if dir.join(FINISHED).exists() {
        return Ok(State::Finished);
    }
    if dir.join(PIPELINE_FILE).exists() {
        return Ok(State::UnderWay);
    }
    match std::fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(State::New),
        Ok(false) => {
            Err(Error::config(format!("{} is not empty and holds no demo", dir.display()))
                .hint("name another directory with --dir"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(State::New),
        Err(error) => Err(Error::config(format!("{} cannot be used", dir.display())).caused_by(error)),
    }
}

/// The demo's configuration; the environment has no part in it, so that a demo is the same everywhere.
fn read(dir: &Path) -> Result<Config> {
    let file = PipelineFile::read(&dir.join(PIPELINE_FILE))?;
    Ok(Config::load(&Sources { file: Some(file), ..Sources::default() })?.config)
}

/// As [`read`]; a demo that is under way keeps its rows.
fn load(dir: &Path, arguments: &Arguments) -> Result<Config> {
    let config = read(dir)?;
    let generator = &config.source.generator;
    if (generator.rows, generator.seed) != (arguments.rows, arguments.seed) {
        let message =
            format!("the demo in {} has {} rows of seed {}", dir.display(), page::number(generator.rows), generator.seed);
        let hint =
            format!("go on with --rows {} --seed {}, or name another directory with --dir", generator.rows, generator.seed);
        return Err(Error::config(message).hint(hint));
    }
    Ok(config)
}

fn write_pipeline_file(dir: &Path, arguments: &Arguments) -> Result<()> {
    let text = pipeline_text(arguments)?;
    std::fs::create_dir_all(dir).map_err(|error| Error::config(format!("{} cannot be made", dir.display())).caused_by(error))?;
    write(&dir.join(PIPELINE_FILE), &text)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| Error::failed(format!("{} cannot be written", path.display())).caused_by(error))
}

/// The first preset with the generator as its source and all tables beside the file.
fn pipeline_text(arguments: &Arguments) -> Result<String> {
    let broken = |error: toml_edit::TomlError| Error::failed("the preset cannot be read").caused_by(error);
    let mut document: DocumentMut = PRESETS[0].text.parse().map_err(broken)?;
    let mut set = |section: &str, key: &str, new: toml_edit::Value| {
        let item = &mut document[section][key];
        match item.as_value_mut() {
            // The comments around a value stay.
            Some(old) => {
                let decor = old.decor().clone();
                *old = new;
                *old.decor_mut() = decor;
            }
            None => *item = value(new),
        }
    };
    set("pipeline", "commit_interval", "1s".into());
    // Its sales are of five years, and who watches wants to see them come.
    set("pipeline", "commit_interval_max", "1s".into());
    set("source", "kind", "generator".into());
    set("storage", "warehouse", ".".into());
    let mut generator = Table::new();
    generator["rows"] = value(arguments.rows as i64);
    generator["seed"] = value(arguments.seed as i64);
    generator["rate"] = value(arguments.rate.unwrap_or(0.0));
    generator
        .decor_mut()
        .set_prefix("\n# What the demo makes up: rows in all, their seed, rows per second (0: as fast as possible).\n");
    document["source"]["generator"] = Item::Table(generator);
    for gold in document["gold"].as_array_of_tables_mut().into_iter().flat_map(|tables| tables.iter_mut()) {
        gold["refresh_interval"] = value("1s");
    }
    Ok(format!("# Written by `lakesmith demo`, from the preset {}.\n\n{document}", PRESETS[0].name))
}

/// The groups of a gold table with the highest first measure.
fn largest_groups(gold: &GoldSettings) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let mut columns = vec!["window_start".to_string()];
    columns.extend(gold.dimensions.iter().map(|name| quoted(name)));
    columns.extend(gold.measures.iter().map(|measure| quoted(&measure.name)));
    let order = gold.measures.first().map_or("1".to_string(), |measure| format!("{} DESC, 1", quoted(&measure.name)));
    format!("SELECT {} FROM {} ORDER BY {order} LIMIT 5", columns.join(", "), quoted(&gold.table))
}

fn next_commands(config: &Config, dir: &Path) -> String {
    let program = program();
    let file = dir.join(PIPELINE_FILE);
    // Where a command looks by itself, nobody needs to be told.
    let file = if file == Path::new("./lakehouse/pipeline.toml") { String::new() } else { format!(" -c {}", file.display()) };
    let database = &config.tables.database;
    let example = match config.gold.first() {
        Some(GoldSettings { table, dimensions, measures, .. }) if !dimensions.is_empty() && !measures.is_empty() => {
            let (dimension, measure) = (&dimensions[0], &measures[0].name);
            format!("SELECT {dimension}, sum({measure}) AS {measure} FROM {database}.{table} GROUP BY {dimension}")
        }
        _ => format!("SELECT * FROM {database}.{} LIMIT 10", config.silver.table),
    };
    format!(
        "try next:\n  {program} query{file} \"{example}\"\n  {program} tables show{file} {database}.{}\n  {program} verify{file}",
        config.silver.table
    )
}

/// How this program was called: a command to copy must work.
fn program() -> String {
    match std::env::args().next() {
        Some(program) if program.contains('/') => program,
        _ => "lakesmith".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(dir: &Path) -> Arguments {
        Arguments { rows: 1234, rate: None, seed: 7, dir: dir.to_path_buf() }
    }

    #[test]
    fn the_demo_writes_an_ordinary_pipeline_file_beside_its_tables() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("lake");
        assert!(matches!(state(&dir), Ok(State::New)));
        write_pipeline_file(&dir, &arguments(&dir)).unwrap();
        let config = load(&dir, &arguments(&dir)).unwrap();
        assert_eq!((config.source.generator.rows, config.source.generator.seed), (1234, 7));
        assert_eq!(config.storage.warehouse, dir.join(".").display().to_string().trim_end_matches("/.").to_string() + "/");
        assert!(config.metastore.uris.is_empty());
        let text = std::fs::read_to_string(dir.join(PIPELINE_FILE)).unwrap();
        assert!(text.contains("[source.generator]\nrows = 1234\nseed = 7\n"), "{text}");
    }

    #[test]
    fn a_directory_is_never_taken_for_another() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mine.txt"), "x").unwrap();
        assert!(matches!(state(dir.path()), Err(error) if error.kind() == crate::error::Kind::Config));
        write_pipeline_file(dir.path(), &arguments(dir.path())).unwrap();
        assert!(matches!(state(dir.path()), Ok(State::UnderWay)));
        let error = load(dir.path(), &Arguments { rows: 5, ..arguments(dir.path()) }).unwrap_err();
        assert!(error.to_string().contains("has 1,234 rows of seed 7"), "{error}");
        std::fs::write(dir.path().join(FINISHED), "").unwrap();
        assert!(matches!(state(dir.path()), Ok(State::Finished)));
    }

    #[test]
    fn the_next_commands_are_made_from_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        write_pipeline_file(dir.path(), &arguments(dir.path())).unwrap();
        let config = load(dir.path(), &arguments(dir.path())).unwrap();
        let text = next_commands(&config, Path::new("./lakehouse"));
        assert!(
            text.contains("query \"SELECT Category, sum(TotalOrders) AS TotalOrders FROM datalake.gold_amazon_sales_aggregated"),
            "{text}"
        );
        assert!(next_commands(&config, Path::new("x")).contains("verify -c x/pipeline.toml"));
        assert!(largest_groups(&config.gold[0]).contains("ORDER BY \"TotalOrders\" DESC"));
    }
}
