//! `lakesmith offsets` as the way out of a stop, through the program.

use iceberg::spec::{SnapshotReference, SnapshotRetention};
use iceberg::{TableIdent, TableUpdate};
use lakesmith::catalog::{CommitOutcome, Lakehouse};
use lakesmith::config::{Config, PipelineFile, Sources};
use lakesmith::table::LakeTable;

use super::run::Lakesmith;

const BRONZE: &str = "bronze_amazon_sales";

/// A pipeline that has read the 200 records of a file in two commits.
fn with_two_commits() -> Lakesmith {
    let here = Lakesmith::new();
    here.run(&["init"]).done();
    let text = here.read("pipeline.toml").replace("kind = \"kafka\"", "kind = \"file\"");
    let text = text.replace("[source.kafka]", "[source.file]\npath = \"sales.jsonl\"\n\n[source.kafka]");
    here.write("pipeline.toml", &text);
    for rows in ["100", "200"] {
        here.run(&["generate", "--rows", rows, "--bad-share", "0", "--format", "jsonl", "--force", "-o", "sales.jsonl"]).done();
        here.run(&["run", "--until-caught-up"]).done();
    }
    here
}

/// As Spark's `rollback_to_snapshot` to the first of two.
async fn roll_back(here: &Lakesmith) {
    let file = PipelineFile::read(&here.path("pipeline.toml")).unwrap();
    let config = Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap().config;
    let lakehouse = Lakehouse::open(&config.metastore, &config.storage, &config.catalog).await.unwrap();
    let ident = TableIdent::from_strs(["datalake", BRONZE]).unwrap();
    let table = LakeTable::open(lakehouse.catalog(), &ident).await.unwrap().unwrap();
    let first = table.metadata().history()[0].snapshot_id;
    let retention = SnapshotRetention::Branch { min_snapshots_to_keep: None, max_snapshot_age_ms: None, max_ref_age_ms: None };
    let update = TableUpdate::SetSnapshotRef { ref_name: "main".to_owned(), reference: SnapshotReference::new(first, retention) };
    match lakehouse.catalog().commit(&ident, Vec::new(), vec![update]).await {
        CommitOutcome::Committed(_) => {}
        other => panic!("{other:?}"),
    }
    lakehouse.close().await;
}

fn count(here: &Lakesmith, table: &str) -> String {
    here.run(&["query", &format!("SELECT count(*) FROM datalake.{table}"), "--output", "csv"]).done()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_table_stops_the_pipeline_until_a_side_is_accepted() {
    let here = with_two_commits();
    roll_back(&here).await;
    let stopped = here.run(&["run", "--until-caught-up"]);
    assert_eq!(stopped.code, 1, "{}", stopped.errors);
    assert!(stopped.errors.contains("rolled back") && stopped.errors.contains("lakesmith offsets"), "{}", stopped.errors);
    let shown = here.run(&["offsets", "show", "bronze"]).done();
    assert!(shown.contains("the pipeline would stop") && shown.contains("200") && shown.contains("100"), "{shown}");

    here.run(&["offsets", "accept", "bronze", "--side", "snapshot"]).done();
    assert_eq!(count(&here, BRONZE).lines().nth(1), Some("100"));
    // Bronze reads the rest again; silver, which was ahead, waits until it has passed it and repeats nothing.
    here.run(&["run", "--until-caught-up"]).done();
    assert_eq!(count(&here, BRONZE).lines().nth(1), Some("200"));
    assert_eq!(count(&here, "silver_amazon_sales").lines().nth(1), Some("200"));
    here.run(&["verify"]).done();
}

#[test]
fn offsets_are_rebuilt_and_set() {
    let here = with_two_commits();
    let rebuilt = here.run(&["offsets", "rebuild", "silver"]).done();
    assert!(rebuilt.starts_with("datalake.silver_amazon_sales goes on at") && rebuilt.contains("200"), "{rebuilt}");
    here.run(&["run", "--until-caught-up"]).done();
    here.run(&["verify"]).done();

    // Five records are given up on purpose.
    here.run(&["generate", "--rows", "210", "--bad-share", "0", "--format", "jsonl", "--force", "-o", "sales.jsonl"]).done();
    let set = here.run(&["offsets", "set", "bronze", "0=205"]).done();
    assert!(set.contains("205"), "{set}");
    here.run(&["run", "--until-caught-up"]).done();
    assert_eq!(count(&here, BRONZE).lines().nth(1), Some("205"));
    assert_eq!(count(&here, "silver_amazon_sales").lines().nth(1), Some("205"));

    let unknown = here.run(&["offsets", "rebuild", "nonsense"]);
    assert_eq!(unknown.code, 2, "{}", unknown.errors);
    assert!(unknown.errors.contains("nonsense"), "{}", unknown.errors);
}
