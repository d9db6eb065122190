//! `lakesmith run`: the pipeline.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::global::GlobalArguments;
use super::progress::summary;
use super::{Outcome, page};
use crate::config::FlagSetting;
use crate::error::{Error, Result};
use crate::pipeline::{self, Reload, RunOptions, Silent, Until};

/// Run the pipeline: read the topic, write and commit all layers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith run                     until SIGTERM or Ctrl-C; then what was read is committed
  lakesmith run --until-caught-up   stop at the offsets that are the end now: for jobs and tests
  lakesmith run -c orders.toml --topic orders --log debug
  KAFKA_BROKER=kafka:9092 HDFS_URL=hdfs://namenode:8020 \\
    HIVE_METASTORE_URIS=thrift://metastore:9083 lakesmith run

Starting again goes on exactly where the tables end, whatever stopped it. What the
pipeline file says of silver is taken up while it runs: when `lakesmith schema` has
changed the table, and at SIGHUP.")]
pub struct Arguments {
    /// Stop when everything that was there at the start is in all layers
    #[arg(long)]
    until_caught_up: bool,
    /// Topic to read, instead of source.topic
    #[arg(long)]
    topic: Option<String>,
}

pub async fn run(global: &GlobalArguments, arguments: Arguments) -> Result<Outcome> {
    let flags: Vec<_> = arguments.topic.iter().map(|topic| FlagSetting::new("source.topic", topic, "--topic")).collect();
    let config = global.pipeline_with(flags.clone())?.config;
    let shutdown = stop_on_signal(COMMITTING)?;
    let until = if arguments.until_caught_up { Until::CaughtUp } else { Until::Stopped };
    let reload = match until {
        Until::Stopped => Some(reload_on_signal(global, flags)?),
        Until::CaughtUp => None,
    };
    let options = RunOptions { until, shutdown, observer: Arc::new(Silent), reload };
    let report = pipeline::run(&config.definition(), options).await?;
    page::print(&summary(&report))?;
    Ok(Outcome::Done)
}

/// What a pipeline says when it is told to stop.
pub const COMMITTING: &str = "stopping: what was read is being committed (once more ends at once)";

/// How the pipeline file is read again; SIGHUP asks for it.
fn reload_on_signal(global: &GlobalArguments, flags: Vec<FlagSetting>) -> Result<Reload> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup =
        signal(SignalKind::hangup()).map_err(|error| Error::failed("signals cannot be received").caused_by(error))?;
    let global = global.clone();
    let reload = Reload::new(move || Ok(global.pipeline_with(flags.clone())?.config.definition()));
    let asked = reload.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            asked.ask();
        }
    });
    Ok(reload)
}

/// A token that the first SIGTERM or Ctrl-C cancels; the second ends the process at once.
pub fn stop_on_signal(farewell: &'static str) -> Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let unavailable = |error| Error::failed("signals cannot be received").caused_by(error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unavailable)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unavailable)?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let number = tokio::select! {
            _ = interrupt.recv() => 2,
            _ = terminate.recv() => 15,
        };
        page::note(farewell);
        stop.cancel();
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(128 + number);
    });
    Ok(token)
}
