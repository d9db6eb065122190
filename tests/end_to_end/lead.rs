//! A topic whose partitions are read at different speeds of time: the one that would be hours ahead of the other waits for it.

use std::fs;

use lakesmith::checkpoint::parse_positions;
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::Value;

use super::Lake;
use super::data_loss::TopicLake;
use super::lake::Servers;
use crate::source::broker::{PATIENCE, delete_topic, producer, settings};

const HOUR_MS: i64 = 3_600_000;

/// Records of each partition; both span the same time.
const RECORDS: [i64; 2] = [10_000, 2_000];
const SPAN_MS: i64 = 6 * HOUR_MS;

/// The time of a record, from the first one on.
fn time(partition: i32, offset: i64) -> i64 {
    offset * SPAN_MS / RECORDS[partition as usize]
}

/// How far one partition was ahead of the other, at the most, in the versions of bronze in which the latter was not at its end.
fn greatest_lead_ms(lake: &Lake) -> i64 {
    let directory = lake.path("lakehouse/datalake/bronze/amazon_sales/metadata");
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{error}: {}", directory.display()));
    let newest = files.map(|file| file.unwrap().path()).filter(|path| path.to_string_lossy().ends_with(".metadata.json")).max();
    let metadata: Value = serde_json::from_slice(&fs::read(newest.expect("a metadata file")).unwrap()).unwrap();
    let snapshots = metadata["snapshots"].as_array().unwrap();
    assert!(snapshots.len() > 20, "{} snapshots tell too little", snapshots.len());
    let leads = snapshots.iter().filter_map(|snapshot| {
        let positions = parse_positions(snapshot["summary"]["lakesmith.positions"].as_str().unwrap()).unwrap();
        let next = |partition| positions.get(&partition).map_or(0, |coverage| coverage.range.end);
        let (dense, sparse) = (time(0, next(0)), time(1, next(1)));
        let behind = if dense <= sparse { 0 } else { 1 };
        (next(behind) < RECORDS[behind as usize]).then_some((dense - sparse).abs())
    });
    leads.max().unwrap()
}

fn gold(lake: &Lake) -> Vec<String> {
    let rows = lake.query(&format!("SELECT * FROM {}", lake.table("gold_amazon_sales_aggregated")));
    let mut rows: Vec<_> = rows.iter().map(Value::to_string).collect();
    rows.sort_unstable();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_far_ahead_of_another_waits_and_the_result_is_the_same() {
    // Commits of one small batch each, so that the versions of bronze tell in which order the partitions were read.
    let small =
        ["pipeline.batch_rows=200", "pipeline.batch_bytes=64KiB", "pipeline.commit_bytes=64KiB", "silver.partition_by=[]"];
    let here = TopicLake::new(&[&small[..], &["pipeline.max_lead=30m"]].concat()).await;
    let mut flags = vec![format!("source.topic={}", here.topic), format!("source.kafka.brokers={}", settings().brokers)];
    flags.extend(small.iter().chain(&["pipeline.max_lead=0s"]).map(|setting| (*setting).to_owned()));
    let unbound = Lake::new("datalake", &flags, Servers::None);

    let all = RECORDS.iter().sum::<i64>();
    here.lake.ok(&["generate", "--rows", &all.to_string(), "--format", "jsonl", "--output", "sales.jsonl"]);
    let sales = fs::read_to_string(here.lake.path("sales.jsonl")).unwrap();
    let mut sales = sales.lines();
    let (producer, begin) = (producer(None), chrono::Utc::now().timestamp_millis() - SPAN_MS - HOUR_MS);
    for (partition, records) in (0..).zip(RECORDS) {
        for offset in 0..records {
            let sale = sales.next().expect("a sale");
            let record = BaseRecord::<(), str>::to(&here.topic).partition(partition).payload(sale);
            producer.send(record.timestamp(begin + time(partition, offset))).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }

    here.lake.ok(&["run", "--until-caught-up"]);
    unbound.ok(&["run", "--until-caught-up"]);
    // Half an hour, and what was in the reader's hands when that was noticed: two batches of the sparse partition, or three where a busy
    // machine lets the reader run ahead of the committer.
    let bound = HOUR_MS / 2 + 3 * time(1, 200);
    let (bounded, free) = (greatest_lead_ms(&here.lake), greatest_lead_ms(&unbound));
    assert!(bounded <= bound, "a lead of {} min", bounded / 60_000);
    assert!(free > bound + HOUR_MS / 2, "without a bound the lead is {} min only: this test shows nothing", free / 60_000);
    for lake in [&here.lake, &unbound] {
        let rows = lake.query(&format!("SELECT count(*) AS n FROM {}", lake.table("bronze_amazon_sales")));
        assert_eq!(rows[0]["n"].as_i64(), Some(all));
        lake.verify();
    }
    assert_eq!(gold(&here.lake), gold(&unbound));
    delete_topic(&here.topic).await;
}
