//! `lakesmith topic`: create, describe and look into topics.

use std::collections::BTreeMap;

use super::Outcome;
use super::global::GlobalArguments;
use super::page::{self, Page, number};
use crate::checkpoint::OffsetRange;
use crate::config::{Config, FlagSetting};
use crate::error::{Error, Result};
use crate::query::output::cells;
use crate::source::topic::{self, Created, Follow, TailOptions, TopicSpec};

/// Create a topic, describe it, or look at its newest records
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith topic create supermarket-sales --partitions 3
  lakesmith topic describe
  lakesmith topic tail -n 5

Without a name it is the pipeline's topic. The brokers are source.kafka.brokers, KAFKA_BROKER or --broker.")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// Brokers as host:port, with commas between, instead of source.kafka.brokers
    #[arg(long, global = true, value_name = "HOST:PORT")]
    broker: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create a topic; one that exists is left as it is
    #[command(after_help = "\
Examples:
  lakesmith topic create supermarket-sales --partitions 3
  lakesmith topic create orders --partitions 12 --replication 3 --option retention.ms=604800000")]
    Create {
        /// Name of the topic
        name: Option<String>,
        /// Partitions
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        partitions: u32,
        /// Copies of each partition
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        replication: u32,
        /// A setting of the topic under Kafka's name, for example retention.ms=604800000; may be repeated
        #[arg(long = "option", value_name = "NAME=VALUE", value_parser = option)]
        options: Vec<(String, String)>,
    },
    /// Show partitions, leaders, replicas and offsets
    #[command(after_help = "\
Examples:
  lakesmith topic describe
  lakesmith topic describe orders --broker kafka:9092")]
    Describe {
        /// Name of the topic
        name: Option<String>,
    },
    /// Print the newest records
    #[command(after_help = "\
Examples:
  lakesmith topic tail                         the 10 newest records
  lakesmith topic tail orders -n 1
  lakesmith topic tail -f --output json        those and all that follow, one JSON object per line")]
    Tail {
        /// Name of the topic
        name: Option<String>,
        /// Newest records to print, over all partitions
        #[arg(short = 'n', long, default_value_t = 10)]
        last: u64,
        /// Go on with the records that follow, until Ctrl-C
        #[arg(short, long)]
        follow: bool,
        /// Form of a record: partition:offset, time, key and value on a line, or a JSON object with all
        #[arg(short, long, value_enum, default_value_t)]
        output: TailFormat,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum TailFormat {
    #[default]
    Text,
    Json,
}

fn option(text: &str) -> std::result::Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    parts.map(|(name, value)| (name.to_string(), value.to_string())).ok_or_else(|| "expected NAME=VALUE".to_string())
}

pub async fn run(global: &GlobalArguments, arguments: Arguments) -> Result<Outcome> {
    let flags = arguments.broker.iter().map(|broker| FlagSetting::new("source.kafka.brokers", broker, "--broker"));
    let config = global.addresses_with(flags.collect())?.config;
    let kafka = &config.source.kafka;
    match arguments.action {
        Action::Create { name, partitions, replication, options } => {
            let name = name_or_configured(name, &config)?;
            let spec = TopicSpec { name: name.clone(), partitions, replication, configs: BTreeMap::from_iter(options) };
            match topic::create(kafka, &spec).await? {
                Created::Yes => page::print(&format!("created topic {name} with {partitions} partitions"))?,
                Created::AlreadyThere => page::print(&format!("topic {name} exists already; it was left as it is"))?,
            }
        }
        Action::Describe { name } => {
            let report = topic::describe(kafka, &name_or_configured(name, &config)?).await?;
            page::print(&describe(&report))?;
        }
        Action::Tail { name, last, follow, output } => {
            let name = name_or_configured(name, &config)?;
            let follow = if follow { Follow::Yes } else { Follow::No };
            let mut each = |batch: &arrow::array::RecordBatch| match output {
                TailFormat::Text => page::print(&lines(batch)?),
                TailFormat::Json => page::print(&crate::query::output::json_lines(batch)?),
            };
            topic::tail(kafka, &name, TailOptions { last, follow }, &mut each).await?;
        }
    }
    Ok(Outcome::Done)
}

fn name_or_configured(name: Option<String>, config: &Config) -> Result<String> {
    let name = name.unwrap_or_else(|| config.source.topic.clone());
    if name.is_empty() {
        return Err(Error::config("no topic is named").hint("name it on the command line, or set source.topic"));
    }
    Ok(name)
}

fn describe(report: &topic::TopicReport) -> String {
    let mut text = format!("topic {}", report.name);
    for (name, id) in [("topic id", &report.topic_id), ("cluster id", &report.cluster_id)] {
        if let Some(id) = id {
            text.push_str(&format!("\n  {name:<11} {id}"));
        }
    }
    let offsets: Vec<OffsetRange> = report.partitions.iter().filter_map(|partition| partition.offsets).collect();
    text.push_str(&format!("\n  {:<11} {} at most\n\n", "records", number(offsets.iter().map(OffsetRange::len).sum::<i64>())));
    let mut page = Page::new(["partition", "leader", "replicas", "in sync", "earliest", "end"]).right(0..6);
    for report in &report.partitions {
        let partition = &report.partition;
        let offset = |offset: Option<i64>| offset.map_or_else(|| "unknown".to_string(), number);
        page.row([
            partition.partition.to_string(),
            partition.leader.map_or_else(|| "none".to_string(), |leader| leader.to_string()),
            brokers(&partition.replicas),
            brokers(&partition.in_sync_replicas),
            offset(report.offsets.map(|range| range.start)),
            offset(report.offsets.map(|range| range.end)),
        ]);
    }
    text.push_str(&page.to_string());
    text
}

/// A line per record: `partition:offset time key value`.
fn lines(batch: &arrow::array::RecordBatch) -> Result<String> {
    use crate::record::{KEY, OFFSET, PARTITION, TIMESTAMP, VALUE};
    let schema = batch.schema();
    let columns: Vec<usize> =
        [PARTITION, OFFSET, TIMESTAMP, KEY, VALUE].iter().filter_map(|name| schema.index_of(name).ok()).collect();
    let mut text = String::new();
    for row in cells(&batch.project(&columns)?)? {
        let mut row = row.into_iter().map(|cell| cell.unwrap_or_else(|| "null".to_string()));
        let mut next = || row.next().unwrap_or_default();
        let (partition, offset, time, key, value) = (next(), next(), next(), next(), next());
        text.push_str(&format!("{partition}:{offset}  {time}  {key}  {value}\n"));
    }
    Ok(text)
}

fn brokers(ids: &[i32]) -> String {
    ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}
