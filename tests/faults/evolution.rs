//! Columns that change by `lakesmith schema` while a daemon runs and records come.

use std::fs;
use std::process::Child;

use super::cluster::{BRONZE, Cluster, GOLD, GOLD_IS_TAKEN, NOT_WHERE_IT_WAS, REJECTED, SILVER, signal};

const LOG: &str = "daemon.log";
/// Of two daemons of a group.
const LOGS: [&str; 2] = ["one.log", "two.log"];

/// Starts them, and waits until each has partitions.
async fn group_of_two(here: &Cluster) -> [Child; 2] {
    let mut daemons = LOGS.map(|log| here.lake.spawn(&["run"], log));
    for (daemon, log) in daemons.iter_mut().zip(LOGS) {
        here.wait(daemon, log, "its partitions", async || here.log(log).contains("the group gives partitions")).await;
    }
    daemons
}

/// The last line of what a command prints.
fn last(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim()
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_change_under_a_running_daemon() {
    let here = Cluster::new(&["pipeline.commit_interval=200ms", "gold.0.refresh_interval=1s"]);
    let metastore = here.metastore().await;
    let change = |arguments: &[&str]| here.lake.ok(&[&["schema"][..], arguments].concat());
    here.send(600);
    let mut daemon = here.lake.spawn(&["run"], LOG);
    here.wait_until_level(&metastore, &mut daemon, LOG).await;

    // What the daemon does not write may change as anybody likes.
    assert_eq!(
        last(&change(&["add-column", "silver", "Coupon", "string", "--after", "Discount", "--doc", "its code"])),
        "added Coupon string"
    );
    assert_eq!(last(&change(&["add-column", "bronze", "Region", "string"])), "added Region string");
    assert_eq!(last(&change(&["widen-column", "silver", "Quantity", "long"])), "changed Quantity from int to long");
    assert_eq!(
        last(&change(&["widen-column", "silver", "TotalAmount", "decimal(20, 2)"])),
        "changed TotalAmount from decimal(12, 2) to decimal(20, 2)"
    );
    assert_eq!(last(&change(&["move-column", "silver", "Brand", "--first"])), "ordered the columns anew");
    change(&["partition", "add", "silver", "bucket(2, OrderID)"]);
    here.send(600);
    here.wait_until_level(&metastore, &mut daemon, LOG).await;

    // A column that it writes: silver waits, bronze does not.
    assert_eq!(last(&change(&["rename-column", "silver", "SellerID", "Seller"])), "renamed SellerID to Seller");
    // What it was writing goes in by the ids of the fields; what comes after that is stopped.
    here.send(300);
    here.wait(&mut daemon, LOG, "bronze going on", async || here.count(BRONZE) == 1_500).await;
    here.send(300);
    let alone = async || here.log(LOG).contains("no column SellerID") && here.count(BRONZE) == 1_800;
    here.wait(&mut daemon, LOG, "bronze going on alone", alone).await;
    assert!(here.count(SILVER) + here.count(REJECTED) < 1_800);
    change(&["rename-column", "silver", "Seller", "SellerID"]);
    // Without a restart: it looks at the table of a silver that is stopped.
    here.wait_until_level(&metastore, &mut daemon, LOG).await;

    // The pipeline file follows: a file that cannot be used changes nothing; from the next one on the new column is filled.
    let file = here.lake.path("pipeline.toml");
    let text = fs::read_to_string(&file).expect("a pipeline file");
    fs::write(&file, text.replacen("[[silver.derive]]", "[[silver.derives]]", 1)).expect("written");
    signal(&daemon, libc::SIGHUP);
    here.wait(&mut daemon, LOG, "the bad file", async || here.log(LOG).contains("the definition of before stays")).await;
    let with = |text: &str, name: &str, sql: &str| {
        let column = format!("[[silver.derive]]\nname = \"{name}\"\nsql = \"{sql}\"\n\n[[silver.derive]]");
        text.replacen("[[silver.derive]]", &column, 1)
    };
    let text = with(&text, "Coupon", "upper(CustomerID)");
    fs::write(&file, &text).expect("written");
    signal(&daemon, libc::SIGHUP);
    here.wait(&mut daemon, LOG, "the definition", async || here.log(LOG).contains("defines silver anew")).await;
    here.send(600);
    here.wait_until_level(&metastore, &mut daemon, LOG).await;
    let history = change(&["history", "silver"]);
    // Renamed back, it has the schema of before again.
    for line in ["added Coupon string", "4 (present)", "renamed SellerID to Seller"] {
        assert!(history.contains(line), "{history}");
    }
    let shown = change(&["show", "silver"]);
    assert!(shown.contains("its code") && shown.contains("partitioned by Year, Month, bucket(2, OrderID)\n"), "{shown}");

    // By a plan: the file first, then the table, whose schema the daemon sees. Before, the table does not take the file's rows.
    fs::write(&file, with(&text, "Initial", "left(CustomerID, 1)")).expect("written");
    signal(&daemon, libc::SIGHUP);
    here.wait(&mut daemon, LOG, "the steps", async || here.log(LOG).contains("add Initial string")).await;
    change(&["plan", "--output", "plan.json"]);
    change(&["apply", "plan.json"]);
    here.wait(&mut daemon, LOG, "the plan", async || here.log(LOG).matches("defines silver anew").count() == 2).await;
    here.send(600);
    here.wait_until_level(&metastore, &mut daemon, LOG).await;
    here.stop(daemon, LOG, &["no column SellerID", "the definition of before stays"]);
    here.assert_exact();
    let filled = |column: &str, table: &str| {
        let sql = format!("SELECT count(\"{column}\") AS n FROM {}", here.lake.table(table));
        here.lake.query(&sql)[0]["n"].as_i64().expect("a number")
    };
    // Some of them were bad.
    assert!((800..=1_200).contains(&filled("Coupon", SILVER)), "{}", filled("Coupon", SILVER));
    assert!((400..=600).contains(&filled("Initial", SILVER)), "{}", filled("Initial", SILVER));
    assert_eq!(filled("Region", BRONZE), 0);
    let history = change(&["history", "silver"]);
    assert!(history.contains("added Initial string"), "{history}");
    let shown = change(&["show", "silver"]);
    // The plan led to all that the file says: the column's text, and no buckets.
    assert!(shown.contains("upper(CustomerID)") && shown.contains("partitioned by Year, Month\n"), "{shown}");
}

/// Tables become ones of format version 3 under a daemon that writes them, and its rows have the defaults of columns that it does not know.
#[tokio::test(flavor = "multi_thread")]
async fn columns_with_defaults_come_under_a_running_daemon() {
    let compatibility = "tables.compatibility=[\"spark\"]";
    let here = Cluster::new(&[compatibility, "pipeline.commit_interval=200ms", "gold.0.refresh_interval=1s"]);
    let metastore = here.metastore().await;
    let add = |arguments: &[&str]| here.lake.ok(&[&["schema", "add-column"][..], arguments].concat());
    here.send(600);
    let mut daemon = here.lake.spawn(&["run"], LOG);
    here.wait_until_level(&metastore, &mut daemon, LOG).await;
    here.send(600);
    assert_eq!(
        last(&add(&["silver", "Origin", "string", "--default", "web", "--required"])),
        "added Origin string default 'web'"
    );
    here.send(600);
    add(&["bronze", "Region", "int", "--default", "-1"]);
    add(&["rejected", "Seen", "boolean", "--default", "false"]);
    here.send(600);
    here.wait_until_level(&metastore, &mut daemon, LOG).await;
    here.stop(daemon, LOG, &[]);
    here.assert_exact();
    for (table, filter) in [(SILVER, "\"Origin\" = 'web'"), (BRONZE, "\"Region\" = -1"), (REJECTED, "NOT \"Seen\"")] {
        let sql = format!("SELECT count(*) AS n FROM {} WHERE {filter}", here.lake.table(table));
        assert_eq!(here.lake.query(&sql)[0]["n"].as_i64(), Some(here.count(table)), "{table}");
    }
    here.lake.verify();
}

/// Two daemons of a group take up a renamed column, file first: neither stops, and every row has its value.
#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_follow_a_rename() {
    let here = Cluster::new(&["source.kafka.assignment=group", "pipeline.commit_interval=200ms", "gold.0.refresh_interval=1s"]);
    let metastore = here.metastore().await;
    here.send(300);
    let mut daemons = group_of_two(&here).await;
    here.send(300);
    here.wait_until_level(&metastore, &mut daemons[0], LOGS[0]).await;

    let file = here.lake.path("pipeline.toml");
    let text = fs::read_to_string(&file).expect("a pipeline file");
    let renamed = text.replacen("name = \"SellerID\"", "name = \"Seller\"\nfield = \"SellerID\"", 1);
    assert_ne!(text, renamed, "the preset has no SellerID");
    fs::write(&file, renamed).expect("written");
    here.send(300);
    here.lake.ok(&["schema", "rename-column", "silver", "SellerID", "Seller"]);
    here.send(300);
    for (daemon, log) in daemons.iter_mut().zip(LOGS) {
        here.wait(daemon, log, "the definition", async || here.log(log).contains("defines silver anew")).await;
    }
    here.send(300);
    here.wait_until_level(&metastore, &mut daemons[1], LOGS[1]).await;
    for (daemon, log) in daemons.into_iter().zip(LOGS) {
        // Encoded before the rename, committed behind it: by a daemon that had not seen it yet. And partitions change hands, twice.
        here.stop(daemon, log, &["no column SellerID", NOT_WHERE_IT_WAS]);
    }
    here.assert_exact();
    let filled = here.lake.query(&format!("SELECT count(\"Seller\") AS n FROM {}", here.lake.table(SILVER)));
    assert_eq!(filled[0]["n"].as_i64(), Some(here.count(SILVER)));
}

/// Gold gets a dimension and measures while records come: the daemon does it, and nothing else waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn gold_gets_another_definition_under_a_running_daemon() {
    let here = Cluster::new(&["pipeline.commit_interval=200ms", "gold.0.refresh_interval=1s"]);
    let metastore = here.metastore().await;
    here.send(600);
    let mut daemon = here.lake.spawn(&["run"], LOG);
    here.wait_until_level(&metastore, &mut daemon, LOG).await;

    let file = here.lake.path("pipeline.toml");
    let mut text = fs::read_to_string(&file).expect("a pipeline file");
    let measure = "[[gold.measures]]\nname = \"TotalOrders\"";
    let change = |text: &str, old: &str, new: &str| {
        assert!(text.contains(old), "{old}");
        text.replacen(old, new, 1)
    };
    // A measure whose old rows are null; then it is filled; then everything is computed by other dimensions.
    for (old, new, backfill, step) in [
        (
            measure,
            "[[gold.measures]]\nname = \"Items\"\nsql = \"COUNT(Quantity)\"\n\n[[gold.measures]]\nname = \"TotalOrders\"",
            false,
            "add measure Items",
        ),
        ("", "", true, "fill the measures"),
        ("\"Country\", \"PaymentMethod\"", "\"Brand\"", false, "add dimension Brand"),
    ] {
        text = change(&text, old, new);
        fs::write(&file, &text).expect("written");
        here.send(300);
        let flags: &[&str] = if backfill { &["--backfill"] } else { &[] };
        let plan = here.lake.ok(&[&["schema", "plan", "--output", "plan.json"], flags].concat());
        assert!(plan.contains(step), "{plan}");
        here.lake.ok(&["schema", "apply", "plan.json"]);
        here.send(300);
        here.wait_until_level(&metastore, &mut daemon, LOG).await;
        here.lake.verify();
    }
    assert!(here.log(LOG).matches("the pipeline file defines gold anew").count() >= 2, "{}", here.log(LOG));
    // What the old definition's maintainer says when it ends.
    here.stop(
        daemon,
        LOG,
        &["about to get another definition", "is to be computed again", "failed to write the progress", GOLD_IS_TAKEN],
    );
    here.assert_exact();
    let items = here.lake.query(&format!("SELECT sum(\"Items\") AS n FROM {}", here.lake.table(GOLD)));
    assert_eq!(items[0]["n"].as_i64(), Some(here.count(SILVER)));
}

/// Of two daemons of a group one maintains gold; whoever does when the table is to have another definition, both follow.
#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_follow_another_definition_of_gold() {
    let here = Cluster::new(&["source.kafka.assignment=group", "pipeline.commit_interval=200ms", "gold.0.refresh_interval=1s"]);
    let metastore = here.metastore().await;
    here.send(300);
    let mut daemons = group_of_two(&here).await;
    here.wait_until_level(&metastore, &mut daemons[0], LOGS[0]).await;
    let file = here.lake.path("pipeline.toml");
    let text = fs::read_to_string(&file).expect("a pipeline file");
    let changed = text.replacen("\"Country\", \"PaymentMethod\"", "\"Brand\"", 1);
    assert_ne!(changed, text, "the preset has other dimensions");
    fs::write(&file, changed).expect("written");
    here.lake.ok(&["schema", "plan", "--output", "plan.json"]);
    here.lake.ok(&["schema", "apply", "plan.json"]);
    for (daemon, log) in daemons.iter_mut().zip(LOGS) {
        here.wait(daemon, log, "the definition", async || here.log(log).contains("defines gold anew")).await;
    }
    here.send(300);
    here.wait_until_level(&metastore, &mut daemons[1], LOGS[1]).await;
    for (daemon, log) in daemons.into_iter().zip(LOGS) {
        // Partitions change hands, twice.
        here.stop(daemon, log, &[NOT_WHERE_IT_WAS, "another definition", "failed to write the progress", GOLD_IS_TAKEN]);
    }
    here.assert_exact();
}

/// A field becomes a column once, whichever of two daemons is the first to meet it, and both fill it.
#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_make_a_column_of_a_field() {
    let here = Cluster::new(&[
        "source.kafka.assignment=group",
        "pipeline.commit_interval=200ms",
        "gold.0.refresh_interval=1s",
        "silver.unknown_fields=add",
    ]);
    let metastore = here.metastore().await;
    here.send(300);
    let mut daemons = group_of_two(&here).await;
    here.wait_until_level(&metastore, &mut daemons[0], LOGS[0]).await;
    let with_coupon = |line: &[u8]| match line.strip_prefix(b"{\"") {
        Some(rest) => [b"{\"Coupon\":\"C7\",\"", rest].concat(),
        None => line.to_owned(),
    };
    here.send_changed(600, with_coupon);
    here.wait_until_level(&metastore, &mut daemons[1], LOGS[1]).await;
    for (daemon, log) in daemons.iter_mut().zip(LOGS) {
        let follows = async || {
            let text = here.log(log);
            text.contains("has become a column") || text.contains("silver has got columns from fields of messages")
        };
        // The other one sees it with its next commit, or when it looks.
        here.wait(daemon, log, "the column", follows).await;
    }
    here.send_changed(600, with_coupon);
    here.wait_until_level(&metastore, &mut daemons[0], LOGS[0]).await;
    assert_eq!(LOGS.map(|log| here.log(log).matches("has become a column").count()).iter().sum::<usize>(), 1);
    for (daemon, log) in daemons.into_iter().zip(LOGS) {
        // Who comes second with the change is told.
        here.stop(daemon, log, &[NOT_WHERE_IT_WAS, "have become no columns yet"]);
    }
    here.assert_exact();
    let filled = here.lake.query(&format!("SELECT count(\"Coupon\") AS n FROM {}", here.lake.table(SILVER)));
    assert!(filled[0]["n"].as_i64() > Some(500), "{filled:?}");
}
