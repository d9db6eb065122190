//! A topic of the same name that is not the one the tables were filled from: created again, or on another cluster.

use std::collections::BTreeMap;

use iceberg::TableIdent;
use lakesmith::catalog::{CommitOutcome, Lakehouse};
use lakesmith::config::{Config, PipelineFile, Sources};
use lakesmith::storage::CloseBarrier;
use lakesmith::table::{Append, DataFiles, LakeTable, Origin, Preparation, TableSpec};

use super::Lake;
use super::data_loss::TopicLake;
use crate::source::broker::{create_topic, delete_topic, settings};

/// A run that must stop with exit code 1, say these parts and leave bronze as it is.
fn assert_stops(lake: &Lake, parts: &[&str]) {
    let before = lake.ok(&["offsets", "show"]);
    let output = lake.output(&["run", "--until-caught-up"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    for part in parts {
        assert!(log.contains(part), "{part} in {log}");
    }
    assert_eq!(lake.ok(&["offsets", "show"]), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_created_again_is_refused() {
    let here = TopicLake::new(&[]).await;
    here.produce(100, 1);
    here.lake.ok(&["run", "--until-caught-up"]);
    delete_topic(&here.topic).await;
    // The name may be taken for a moment longer.
    while lakesmith::source::KafkaSource::open(&settings(), &here.topic, &lakesmith::source::Start::Earliest).await.is_ok() {}
    create_topic(&here.topic, 2, &[]).await;
    // More than the old one had: its old positions exist.
    here.produce(300, 2);
    assert_stops(&here.lake, &["created again", "hint:"]);
    delete_topic(&here.topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_another_cluster_is_refused() {
    let here = TopicLake::new(&[]).await;
    here.produce(100, 1);
    bronze_of_another_cluster(&here).await;
    assert_stops(&here.lake, &["of cluster elsewhere, not of cluster", "hint:"]);
    delete_topic(&here.topic).await;
}

/// Bronze as a pipeline leaves it that has read the first record of a topic of that name on a cluster named `elsewhere`.
async fn bronze_of_another_cluster(here: &TopicLake) {
    let file = PipelineFile::read(&here.lake.path("pipeline.toml")).expect("a pipeline file");
    let config = Config::load(&Sources { file: Some(file), ..Sources::default() }).expect("a pipeline").config;
    let lakehouse = Lakehouse::open(&config.metastore, &config.storage, &config.catalog).await.expect("a lakehouse");
    let ident = TableIdent::from_strs([here.lake.database.as_str(), &config.bronze.table]).expect("a name");
    lakehouse.catalog().ensure_database(ident.namespace()).await.expect("a database");
    let spec = TableSpec {
        ident,
        location: None,
        schema: lakesmith::bronze::schema(),
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        properties: BTreeMap::new(),
        comment: None,
    };
    let mut table = LakeTable::open_or_create(lakehouse.catalog(), &spec).await.expect("bronze");
    let (topic, cluster_id) = (here.topic.clone(), Some("elsewhere".to_owned()));
    let append = Append {
        files: DataFiles::default(),
        delta: "d;0:0+1-1".parse().expect("a delta"),
        origin: Origin { topic, topic_id: None, cluster_id },
        commit_id: uuid::Uuid::now_v7(),
        input: None,
        summary: BTreeMap::new(),
    };
    let barrier = CloseBarrier::new();
    let Preparation::Ready(prepared) = table.prepare(append, &barrier).await.expect("a batch") else { panic!("not ready") };
    barrier.wait().await.expect("files closed");
    assert!(matches!(prepared.swap(&mut table).await, CommitOutcome::Committed(_)));
    lakehouse.close().await;
}
