//! Entries of the metastore that go back while a daemon works: somebody has read an entry, and writes it back as it was when several
//! commits have passed (Hive's ANALYZE does, and so does a writer that locks and sends no expected value).
//!
//! Each layer goes back twice: while nothing comes, so that the daemon has to look by itself, and while records come.

use lakesmith::metastore::{EnvironmentContext, HivePartition, HiveTable, Metastore};

use super::cluster::{BRONZE, Cluster, GOLD, NOT_WHERE_IT_WAS, REJECTED, SILVER};

const SETTINGS: [&str; 3] = ["pipeline.commit_interval=200ms", "pipeline.completeness_interval=0s", "silver.partition_by=[]"];
const DAEMON: [&str; 3] = ["run", "--set", "gold.0.refresh_interval=300ms"];
const LOG: &str = "daemon.log";

/// What the metastore has of a table at one moment.
struct Entry {
    table: HiveTable,
    partitions: Vec<HivePartition>,
}

impl Entry {
    async fn read(metastore: &Metastore, database: &str, table: &str) -> Self {
        let partitions = if table == GOLD { metastore.partitions(database, table).await.unwrap() } else { Vec::new() };
        Self { table: metastore.table(database, table).await.unwrap().unwrap(), partitions }
    }

    async fn write_back(&self, metastore: &Metastore) {
        let (database, table) = (self.table.database(), self.table.name());
        let environment = EnvironmentContext::new().without_statistics();
        metastore.alter_table(database, table, &self.table, &environment).await.unwrap();
        if !self.partitions.is_empty() {
            metastore.alter_partitions(database, table, &self.partitions, &environment).await.unwrap();
        }
    }
}

const FEW: usize = 2;
/// More than the versions that a table keeps: the file that the old entry names is deleted.
const MANY: usize = 8;

const PUT_FORWARD: &str = "the table's entry was put back behind the versions that are kept";
const GONE: &str = "failed to read table metadata";
const SILVER_BEHIND: &str = "silver went back behind gold";
const GOLD_BACK: [&str; 2] = ["it was computed again", "progress of the gold table went back"];

/// Moves the tables back together, twice, by so many commits, under a working daemon, which must have warned of `told`, perhaps of
/// `perhaps`, and of nothing else.
async fn go_back(tables: &[&str], commits: usize, told: &[&str], perhaps: &[&str]) {
    let here = Cluster::new(&SETTINGS);
    let metastore = here.metastore().await;
    here.send(300);
    let mut daemon = here.lake.spawn(&DAEMON, LOG);
    here.wait_until_level(&metastore, &mut daemon, LOG).await;
    for traffic in [false, true] {
        let mut stale = Vec::new();
        for table in tables {
            stale.push(Entry::read(&metastore, &here.lake.database, table).await);
        }
        for _ in 0..commits {
            here.send(100);
            here.wait_until_level(&metastore, &mut daemon, LOG).await;
        }
        for entry in &stale {
            entry.write_back(&metastore).await;
        }
        if traffic {
            here.send(200);
        }
        here.wait_until_level(&metastore, &mut daemon, LOG).await;
    }
    here.stop(daemon, LOG, &[told, perhaps].concat());
    for part in told {
        assert!(here.log(LOG).contains(part), "`{part}` was not told:\n{}", here.log(LOG));
    }
    here.assert_exact();
    // Also for one that starts afterwards.
    here.send(50);
    here.lake.ok(&["run", "--until-caught-up"]);
    here.assert_exact();
}

#[tokio::test(flavor = "multi_thread")]
async fn bronze_reads_again_and_the_layers_ahead_wait() {
    go_back(&[BRONZE], FEW, &[NOT_WHERE_IT_WAS], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silver_takes_again_what_it_lacks_and_rejected_and_gold_wait() {
    go_back(&[SILVER], FEW, &[NOT_WHERE_IT_WAS, SILVER_BEHIND], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_is_completed_from_bronze_minus_silver() {
    go_back(&[REJECTED], FEW, &[NOT_WHERE_IT_WAS], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gold_puts_its_partitions_and_its_progress_right() {
    go_back(&[GOLD], FEW, &GOLD_BACK, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_layers_may_go_back_together() {
    // Gold may look at silver before or after its own entries are back.
    let perhaps = [&[SILVER_BEHIND], &GOLD_BACK[..]].concat();
    go_back(&[BRONZE, SILVER, REJECTED, GOLD], FEW, &[NOT_WHERE_IT_WAS], &perhaps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bronze_is_put_forward_when_its_old_version_is_gone() {
    go_back(&[BRONZE], MANY, &[PUT_FORWARD], &[GONE, NOT_WHERE_IT_WAS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silver_and_rejected_are_put_forward_when_their_old_versions_are_gone() {
    go_back(&[SILVER, REJECTED], MANY, &[PUT_FORWARD], &[GONE, NOT_WHERE_IT_WAS, SILVER_BEHIND]).await;
}
