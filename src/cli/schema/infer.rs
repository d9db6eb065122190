//! `lakesmith schema infer`: a proposal for silver's columns.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};

use crate::cli::Outcome;
use crate::cli::global::GlobalArguments;
use crate::cli::page::{self, Page, number};
use crate::config::FlagSetting;
use crate::error::{Context, Error, Result};
use crate::record::VALUE;
use crate::silver::infer::Inference;
use crate::source::topic::{self, Follow, TailOptions};

/// Propose silver's columns from sample messages
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith schema infer sales.jsonl >> pipeline.toml
  lakesmith schema infer orders --broker kafka:9092 --messages 1000

Prints [[silver.columns]] for the pipeline file, and beside it, on standard error, on how many values each
rests. A file has a JSON object a line; of a topic the newest messages are read. Read the proposal before
you use it: a type is the narrowest that took every value seen.")]
pub struct Arguments {
    /// A file of JSON lines, or else a topic
    #[arg(value_name = "FILE|TOPIC")]
    source: String,
    /// Most messages to look at
    #[arg(short = 'n', long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    /// Brokers as host:port, with commas between, instead of source.kafka.brokers
    #[arg(long, value_name = "HOST:PORT")]
    broker: Option<String>,
}

pub async fn run(global: &GlobalArguments, arguments: Arguments) -> Result<Outcome> {
    let Arguments { source, messages, broker } = arguments;
    let mut inference = Inference::default();
    let file = Path::new(&source);
    if file.exists() {
        let unreadable = || format!("{source} cannot be read");
        let lines = BufReader::new(File::open(file).with_context(unreadable)?).split(b'\n');
        for line in lines.take(usize::try_from(messages).unwrap_or(usize::MAX)) {
            let line = line.with_context(unreadable)?;
            if !line.trim_ascii().is_empty() {
                inference.add(&line);
            }
        }
    } else {
        let flags = broker.iter().map(|broker| FlagSetting::new("source.kafka.brokers", broker, "--broker"));
        let config = global.addresses_with(flags.collect())?.config;
        let options = TailOptions { last: messages, follow: Follow::No };
        let mut each = |batch: &RecordBatch| {
            let values = batch.column_by_name(VALUE).and_then(|values| values.as_binary_opt::<i32>());
            values.into_iter().flatten().flatten().for_each(|value| inference.add(value));
            Ok(())
        };
        let read = topic::tail(&config.source.kafka, &source, options, &mut each).await;
        read.map_err(|error| error.context(format!("there is no file {source}, and a topic of that name cannot be read")))?;
    }
    let inferred = inference.finish();
    if inferred.columns.is_empty() {
        return Err(Error::failed(format!("{source} holds no message that is a JSON object"))
            .hint(format!("{} others were read", number(inferred.unreadable))));
    }
    let mut page = Page::new(["field", "type", "values", "null", "missing"]).right(2..5);
    for column in &inferred.columns {
        let kind = column.column_type.map_or_else(|| "-".to_owned(), |kind| kind.to_string());
        let missing = inferred.messages - column.values - column.nulls;
        page.row([column.field.clone(), kind, number(column.values), number(column.nulls), number(missing)]);
    }
    let others = match inferred.unreadable {
        0 => String::new(),
        count => format!(", and {} that are no JSON objects", number(count)),
    };
    page::note(&format!("{} messages{others}\n{page}", number(inferred.messages)));
    page::print(&inferred.to_toml())?;
    Ok(Outcome::Done)
}
