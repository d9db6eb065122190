//! Records that are decided anew while a daemon runs and records come.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use super::cluster::{Cluster, GOLD_IS_TAKEN, REJECTED, SILVER, signal};
use crate::end_to_end::lake::plain;
use crate::end_to_end::real::spark_on;
use crate::servers::metastore_uri;

const LOG: &str = "daemon.log";
const STRICT: &str = "sql = \"Quantity > 2\"";
const PRESET: &str = "sql = \"Quantity > 0\"";

/// What a daemon's maintainer of gold says when rows are replaced below it.
const EXPECTED: [&str; 5] = [
    GOLD_IS_TAKEN,
    "is to be computed again",
    "failed to write the progress",
    // Until it is told.
    "silver has fewer rows of this window than gold counted",
    "silver has lost rows",
];

fn change(here: &Cluster, old: &str, new: &str) {
    let file = here.lake.path("pipeline.toml");
    let text = fs::read_to_string(&file).expect("a pipeline file");
    assert!(text.contains(old), "{old}");
    fs::write(&file, text.replacen(old, new, 1)).expect("written");
}

/// A daemon under a stricter rule than the preset's, which takes up the preset's; then what it had decided is decided anew.
async fn under_a_daemon(version: &str) {
    let settings = ["pipeline.commit_interval=200ms", "gold.0.refresh_interval=1s"].map(str::to_owned);
    let here = Cluster::with_topic(&metastore_uri(version), &settings, &[]);
    let metastore = here.metastore_of(&metastore_uri(version)).await;
    change(&here, PRESET, STRICT);
    here.send(600);
    let mut daemon = here.lake.spawn(&["run"], LOG);
    here.wait_until_level(&metastore, &mut daemon, LOG).await;
    change(&here, STRICT, PRESET);
    signal(&daemon, libc::SIGHUP);
    here.wait(&mut daemon, LOG, "the definition", async || here.log(LOG).contains("defines silver anew")).await;
    here.send(300);
    here.wait_until_level(&metastore, &mut daemon, LOG).await;

    // What was rejected first, killed on its way; records come meanwhile.
    let before = (here.count(SILVER), here.count(REJECTED));
    for window in ["reprocess:noted", "reprocess:computed", "reprocess:silver-replaced", "reprocess:rejected-replaced"] {
        let killed =
            here.lake.command(&["reprocess", "--rejected"]).env("LAKESMITH_KILL_AT", window).output().expect("it starts");
        assert_eq!(killed.status.signal(), Some(libc::SIGKILL), "{}", String::from_utf8_lossy(&killed.stderr));
        here.lake.verify();
        here.send(60);
    }
    let told = here.lake.output(&["reprocess"]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    here.wait_until_level(&metastore, &mut daemon, LOG).await;
    let after = (here.count(SILVER), here.count(REJECTED));
    assert!(after.0 > before.0 + 200 && after.1 < before.1, "{before:?} {after:?}");
    here.lake.verify();

    // Then everything, while records come.
    let mut whole = here.lake.spawn(&["reprocess"], "reprocess.log");
    here.send(300);
    here.send(300);
    assert!(whole.wait().expect("its end").success(), "{}", here.log("reprocess.log"));
    here.send(60);
    here.wait_until_level(&metastore, &mut daemon, LOG).await;
    here.stop(daemon, LOG, &EXPECTED);
    here.assert_exact();

    // Spark reads the new rows, and those of before by the version of then.
    let table = here.lake.table(SILVER);
    let replaced = format!("SELECT parent_id FROM {table}.snapshots WHERE operation = 'overwrite' ORDER BY committed_at LIMIT 1");
    let rows = |sql: String| spark_on(version, &[sql])[0]["rows"][0].clone();
    let parent = plain(&rows(replaced)[0]);
    let now = rows(format!("SELECT count(*), min(Quantity) FROM {table}"));
    assert_eq!((plain(&now[0]), plain(&now[1])), (here.count(SILVER).to_string(), "1".to_owned()));
    let then = rows(format!("SELECT count(*) FROM {table} VERSION AS OF {parent}"));
    let then: i64 = plain(&then[0]).parse().expect("a number");
    // Records came while it was killed on its way.
    assert!(before.0 <= then && then < after.0, "{before:?} {then} {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_decided_anew_under_a_running_daemon() {
    under_a_daemon("4.0.1").await;
}

mod hms_3_1_3 {
    #[tokio::test(flavor = "multi_thread")]
    async fn records_are_decided_anew_under_a_running_daemon() {
        super::under_a_daemon("3.1.3").await;
    }
}
