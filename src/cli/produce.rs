//! `lakesmith produce`: feed a topic.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::global::GlobalArguments;
use super::{Outcome, page};
use crate::config::FlagSetting;
use crate::error::{Error, Result};
use crate::source::FileFormat;
use crate::source::produce::{
    OnBadRow, Pace, ProduceEvent, ProduceInput, ProduceOptions, ProduceProgress, ProduceSummary, produce,
};

/// Send a file to a topic: CSV rows as JSON messages, JSON lines as they are
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith produce sales.csv --topic supermarket-sales --broker kafka:9092
  lakesmith produce sales.csv --topic supermarket-sales --delay 0.5s --key OrderID
  lakesmith produce messages.jsonl --topic orders --rate 1000
  lakesmith generate --rows 1000 | lakesmith produce - --topic supermarket-sales

Every message is acknowledged by all in-sync replicas (acks=all) and sent once. A CSV row that makes no
message is reported with its line, and skipped or fatal. A run that was killed has sent a part: running
it again sends that part twice.")]
pub struct Arguments {
    /// CSV or JSON lines file; - is standard input
    file: PathBuf,
    /// Topic to send to; by default source.topic
    #[arg(long)]
    topic: Option<String>,
    /// Brokers as host:port, with commas between, instead of source.kafka.brokers
    #[arg(long, value_name = "HOST:PORT")]
    broker: Option<String>,
    /// Form of the file; by default as its ending says, csv for standard input
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Column (or JSON field) whose text becomes the message's key; without it keys are null
    #[arg(long, value_name = "COLUMN")]
    key: Option<String>,
    /// CSV columns that become JSON numbers, with commas between; by default those that the pipeline file reads into
    /// number columns of silver (without a pipeline file: those of the shipped preset)
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    numeric: Option<Vec<String>>,
    /// Pause between two messages, for example 0.5s
    #[arg(long, value_parser = delay, conflicts_with = "rate")]
    delay: Option<Duration>,
    /// Messages per second
    #[arg(long)]
    rate: Option<f64>,
    /// What to do with a CSV row that makes no message
    #[arg(long, value_enum, default_value_t)]
    on_bad_row: BadRow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Csv,
    Jsonl,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum BadRow {
    /// Report it and go on
    #[default]
    Skip,
    /// Send what came before it, then fail
    Stop,
}

/// `500ms`, `0.5s`, or seconds without a unit.
fn delay(text: &str) -> std::result::Result<Duration, String> {
    let seconds = text.strip_suffix('s').unwrap_or(text).parse::<f64>().ok();
    match seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(delay) => Ok(delay),
        None => humantime::parse_duration(text).map_err(|_| "expected a duration such as 0.5s or 200ms".to_string()),
    }
}

pub async fn run(global: &GlobalArguments, arguments: Arguments) -> Result<Outcome> {
    let flags = [("source.topic", &arguments.topic, "--topic"), ("source.kafka.brokers", &arguments.broker, "--broker")];
    let flags = flags.into_iter().filter_map(|(path, value, flag)| Some(FlagSetting::new(path, value.as_ref()?, flag)));
    let config = global.addresses_with(flags.collect())?.config;
    let topic = config.source.topic;
    if topic.is_empty() {
        return Err(Error::config("no topic is named").hint("name it with --topic"));
    }
    let format = arguments.format.map(|format| match format {
        Format::Csv => FileFormat::Csv,
        Format::Jsonl => FileFormat::JsonLines,
    });
    let input = match arguments.file == Path::new("-") {
        true => ProduceInput::StandardInput { format: format.unwrap_or(FileFormat::Csv) },
        false => ProduceInput::File { path: arguments.file.clone(), format },
    };
    let mut options = ProduceOptions::new(config.source.kafka, &topic, input);
    options.key_column = arguments.key;
    options.pace = match (arguments.delay, arguments.rate) {
        (Some(delay), _) => Pace::Delay(delay),
        (None, Some(rate)) if rate > 0.0 && rate.is_finite() => Pace::Rate(rate),
        (None, Some(rate)) => return Err(Error::config(format!("--rate {rate} is not a number of messages per second"))),
        (None, None) => Pace::AsFastAsPossible,
    };
    options.on_bad_row = match arguments.on_bad_row {
        BadRow::Skip => OnBadRow::Skip,
        BadRow::Stop => OnBadRow::Stop,
    };
    options.numeric_columns = match arguments.numeric {
        Some(numeric) => numeric,
        None => config.source.file.numeric_columns,
    };
    let bar = bar()?;
    let shown = bar.clone();
    let summary = produce(options, move |event| show(&shown, event)).await;
    bar.finish_and_clear();
    finish(&topic, summary?)
}

fn bar() -> Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:32} {bytes} / {total_bytes}  {msg}")
        .map_err(|error| Error::failed("the progress bar has no form").caused_by(error))?;
    Ok(ProgressBar::new(0).with_style(style.progress_chars("━╸─")))
}

fn show(bar: &ProgressBar, event: ProduceEvent) {
    match event {
        ProduceEvent::Progress(ProduceProgress { delivered, input_bytes, input_bytes_total, .. }) => {
            bar.set_length(input_bytes_total.unwrap_or(input_bytes));
            bar.set_position(input_bytes);
            bar.set_message(format!("{} messages", page::number(delivered)));
        }
        ProduceEvent::BadRow { line, reason } => bar.suspend(|| page::note(&format!("line {line}: {reason}"))),
    }
}

fn finish(topic: &str, summary: ProduceSummary) -> Result<Outcome> {
    let seconds = summary.elapsed.as_secs_f64();
    let rate = if seconds > 0.0 { (summary.sent as f64 / seconds) as u64 } else { summary.sent };
    page::print(&format!(
        "sent {} messages ({}) to {topic} in {} s, {} per second; {} rows skipped",
        page::number(summary.sent),
        page::bytes(summary.bytes),
        page::seconds(summary.elapsed),
        page::number(rate),
        page::number(summary.skipped)
    ))?;
    match summary.failure {
        None if summary.failed == 0 => Ok(Outcome::Done),
        failure => Err(Error::failed(format!(
            "{} messages were not acknowledged: {}",
            page::number(summary.failed),
            failure.unwrap_or_else(|| "the brokers refused them".to_string())
        ))
        .hint("what was acknowledged is in the topic; running again sends it a second time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_may_be_fractions_of_seconds() {
        for (text, milliseconds) in [("0.5s", 500), ("0.5", 500), ("200ms", 200), ("2s", 2000), ("1m", 60_000), ("0", 0)] {
            assert_eq!(delay(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert!(delay("soon").is_err());
        assert!(delay("-1s").is_err());
    }
}
