//! `schema apply`, killed at each of its steps: the next one does what is left, and nothing twice.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use super::Lake;
use super::lake::Servers;

/// Where it is killed: before the commit of a step of silver, and behind it; and in the steps of gold, in an order in which each is passed.
pub const WINDOWS: [&str; 7] = [
    "change:metadata-written",
    "schema:step-done",
    "gold:columns-added",
    "gold:partition-written",
    "gold:switched",
    "gold:view-replaced",
    "gold:redefined",
];

const STEPS: usize = 5;

/// A lake with some sales from a file.
fn filled() -> Lake {
    let settings = ["source.kind=file", "source.file.path=sales.jsonl", "source.file.format=jsonl"];
    let lake = Lake::new("datalake", &settings.map(str::to_owned), Servers::None);
    lake.ok(&["generate", "--rows", "300", "--format", "jsonl", "--output", "sales.jsonl"]);
    lake.ok(&["run", "--until-caught-up"]);
    lake
}

/// What an apply said before it was killed.
fn killed_at(lake: &Lake, window: &str) -> String {
    let killed = lake.command(&["schema", "apply", "plan.json"]).env("LAKESMITH_KILL_AT", window).output().expect("it starts");
    let told = String::from_utf8_lossy(&killed.stderr).into_owned();
    assert_eq!(killed.status.signal(), Some(libc::SIGKILL), "not killed at {window}:\n{told}");
    told
}

#[test]
fn an_apply_that_is_killed_at_every_step_is_finished_by_the_next() {
    let lake = filled();
    let file = lake.path("pipeline.toml");
    let text = fs::read_to_string(&file).expect("a pipeline file");
    let derived =
        ["Initial", "Last"].map(|name| format!("[[silver.derive]]\nname = \"{name}\"\nsql = \"left(CustomerID, 1)\"\n\n"));
    let wider = text.replacen("name = \"Quantity\"\ntype = \"int\"", "name = \"Quantity\"\ntype = \"long\"", 1);
    assert_ne!(wider, text, "Quantity is no int in the preset");
    let wanted = wider.replacen("[[silver.derive]]", &format!("{}[[silver.derive]]", derived.concat()), 1);
    let wanted = wanted.replacen(
        "partition_by = [\"Year\", \"Month\"]",
        "partition_by = [\"Year\", \"Month\", \"bucket(2, OrderID)\"]\nsort_by = [\"Initial\", \"OrderDate desc\"]",
        1,
    );
    fs::write(&file, wanted).expect("written");

    lake.ok(&["schema", "plan", "--output", "plan.json"]);
    for step in 0..STEPS {
        for window in &WINDOWS[..2] {
            let told = killed_at(&lake, window);
            assert_eq!(told.matches("was done:").count(), step, "{told}");
            // Half a plan is a table like any other.
            lake.ok(&["query", &format!("SELECT count(*) FROM {}", lake.table("silver_amazon_sales"))]);
        }
    }
    let last = lake.output(&["schema", "apply", "plan.json"]);
    let told = String::from_utf8_lossy(&last.stderr);
    assert!(last.status.success() && told.matches("was done:").count() == STEPS, "{told}");
    assert!(lake.ok(&["schema", "plan"]).contains("nothing to do"));
    let shown = lake.ok(&["schema", "show", "silver"]);
    assert!(shown.contains("bucket(2, OrderID), to be sorted by Initial, OrderDate desc"), "{shown}");

    let more = fs::read_to_string(lake.path("sales.jsonl")).expect("sales").repeat(2);
    fs::write(lake.path("sales.jsonl"), more).expect("written");
    lake.ok(&["run", "--until-caught-up"]);
    let rows = lake.query(&format!(
        "SELECT count(*) AS n, count(\"Initial\") AS i, count(\"Last\") AS l FROM {}",
        lake.table("silver_amazon_sales")
    ));
    assert_eq!(["n", "i", "l"].map(|column| rows[0][column].as_i64()), [Some(600), Some(300), Some(300)]);
    lake.verify();
}

#[test]
fn a_definition_of_gold_whose_apply_is_killed_at_every_step_is_finished_by_the_next() {
    let lake = filled();
    let file = lake.path("pipeline.toml");
    let text = fs::read_to_string(&file).expect("a pipeline file");
    let wanted = text
        .replacen("dimensions = [\"Category\", \"Country\", \"PaymentMethod\"]", "dimensions = [\"Category\", \"Brand\"]", 1)
        .replacen("name = \"TotalQuantity\"\nsql = \"SUM(Quantity)\"", "name = \"Largest\"\nsql = \"MAX(TotalAmount)\"", 1)
        .replacen("name = \"TotalRevenue\"", "name = \"Revenue\"", 1);
    fs::write(&file, wanted).expect("written");
    let plan = lake.ok(&["schema", "plan", "--output", "plan.json"]);
    for step in [
        "drop dimension Country",
        "add dimension Brand",
        "add measure Largest as MAX(TotalAmount)",
        "rename measure TotalRevenue to Revenue",
        "drop measure TotalQuantity",
        "replace view gold_amazon_sales_aggregated_view",
    ] {
        assert!(plan.contains(step), "{plan}");
    }
    // Before it is applied the file's definition is kept away from the table.
    let refused = lake.output(&["run", "--until-caught-up"]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("computed by another definition"), "{told}");
    assert!(told.contains("schema plan --output plan.json"), "{told}");

    let total = |column: &str| {
        let rows = lake.query(&format!("SELECT sum(\"{column}\") AS t FROM {}", lake.table("gold_amazon_sales_aggregated")));
        rows[0]["t"].clone()
    };
    let revenue = total("TotalRevenue");
    for window in &WINDOWS[2..] {
        killed_at(&lake, window);
        // Whatever is half done, the table and the view are read.
        lake.ok(&["query", &format!("SELECT count(*), sum(totalorders) FROM {}", lake.table("gold_amazon_sales_aggregated"))]);
        lake.ok(&["query", &format!("SELECT * FROM {} LIMIT 1", lake.table("gold_amazon_sales_aggregated_view"))]);
    }
    let last = lake.output(&["schema", "apply", "plan.json"]);
    let told = String::from_utf8_lossy(&last.stderr);
    assert!(last.status.success() && told.contains("done: add dimension Brand"), "{told}");
    assert!(lake.ok(&["schema", "plan"]).contains("nothing to do"));
    assert_eq!(total("Revenue"), revenue);
    lake.ok(&["run", "--until-caught-up"]);
    lake.verify();
}

/// Rows so far get a value as all rows do: by what the pipeline file says of silver.
#[test]
fn a_column_with_a_value_for_rows_so_far_is_reprocessed() {
    let lake = filled();
    let refused = lake.output(&["schema", "add-column", "silver", "Origin", "string", "--default", "web"]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("Origin can have no default"), "{told}");
    assert!(told.contains("tables.compatibility") && told.contains("lakesmith reprocess"), "{told}");
    let file = lake.path("pipeline.toml");
    let text = fs::read_to_string(&file).expect("a pipeline file");
    let column = "[[silver.derive]]\nname = \"Origin\"\nsql = \"coalesce(CAST(NULL AS VARCHAR), 'web')\"\n\n[[silver.derive]]";
    fs::write(&file, text.replacen("[[silver.derive]]", column, 1)).expect("written");
    let unfit = lake.output(&["reprocess"]);
    let told = String::from_utf8_lossy(&unfit.stderr);
    assert!(told.contains("add Origin string") && told.contains("schema apply"), "{told}");
    lake.ok(&["schema", "add-column", "silver", "Origin", "string"]);
    lake.ok(&["reprocess"]);
    let rows = lake.query(&format!(
        "SELECT count(*) AS n, min(\"Origin\") AS o, count(\"Origin\") AS c FROM {}",
        lake.table("silver_amazon_sales")
    ));
    assert_eq!((rows[0]["n"].clone(), rows[0]["o"].as_str()), (rows[0]["c"].clone(), Some("web")));
    lake.verify();
}

/// Where Spark alone reads, rows so far get a value without being written anew.
#[test]
fn a_default_is_shown_in_rows_so_far_and_filled_in_later_ones() {
    let lake = filled();
    let file = lake.path("pipeline.toml");
    let text = fs::read_to_string(&file).expect("a pipeline file");
    let database = "[tables]\n";
    assert!(text.contains(database), "{text}");
    fs::write(&file, text.replacen(database, "[tables]\ncompatibility = [\"spark\"]\n", 1)).expect("written");
    let count = |filter: &str| {
        let rows = lake.query(&format!("SELECT count(*) AS n FROM {} WHERE {filter}", lake.table("silver_amazon_sales")));
        rows[0]["n"].as_u64().expect("a count")
    };
    let rows = count("true");
    let added = lake.output(&["schema", "add-column", "silver", "Origin", "string", "--default", "web", "--required"]);
    let told = String::from_utf8_lossy(&added.stderr);
    assert!(added.status.success() && told.contains("format version 3 now, for good"), "{told}");
    assert!(told.contains("the pipeline file has no column Origin: new rows have its default"), "{told}");
    lake.ok(&["schema", "add-column", "silver", "Points", "int", "--default", "-7"]);
    let shown = lake.ok(&["schema", "show", "silver"]);
    let line = |column: &str| shown.lines().find(|line| line.contains(column)).unwrap_or_else(|| panic!("{shown}"));
    assert!(line("┆ Origin").contains("'web'") && line("┆ Points").contains("'-7'"), "{shown}");
    assert_eq!((count("\"Origin\" = 'web'"), count("\"Points\" = -7")), (rows, rows));
    assert!(lake.ok(&["schema", "plan"]).contains("nothing to do"), "a column that the file does not name is no difference");
    // Messages bring values for one of them by now, and null where they have none.
    let text = fs::read_to_string(&file).expect("a pipeline file");
    let column = "[[silver.derive]]\nname = \"Points\"\ntype = \"int\"\nsql = \"CASE WHEN Quantity > 1 THEN Quantity END\"\n\n[[silver.derive]]";
    fs::write(&file, text.replacen("[[silver.derive]]", column, 1)).expect("written");
    lake.ok(&["generate", "--rows", "100", "--seed", "9", "--bad-share", "0", "--format", "jsonl", "--output", "more.jsonl"]);
    let more = fs::read(lake.path("more.jsonl")).expect("sales");
    let mut sales = fs::read(lake.path("sales.jsonl")).expect("sales");
    sales.extend(more);
    fs::write(lake.path("sales.jsonl"), sales).expect("written");
    lake.ok(&["run", "--until-caught-up"]);
    assert_eq!((count("\"Origin\" = 'web'"), count("\"Points\" = -7")), (rows + 100, rows));
    assert_eq!(count("\"Points\" IS DISTINCT FROM nullif(\"Quantity\", 1)"), rows);
    lake.verify();
    // Who says later that Hive is to read the table is told.
    assert!(!lake.ok(&["doctor"]).contains("format version 3"));
    let doctor = lake.output(&["doctor", "--set", "tables.compatibility=[\"hive-4\"]"]);
    let told = String::from_utf8_lossy(&doctor.stdout);
    assert!(told.contains("of Iceberg's format version 3") && told.contains("[\"spark\"]"), "{told}");
    // Rows are computed anew, and replaced, in the table of the later version.
    lake.ok(&["reprocess"]);
    assert_eq!((count("\"Origin\" = 'web'"), count("\"Points\" IS DISTINCT FROM nullif(\"Quantity\", 1)")), (rows + 100, 0));
    lake.verify();
}

/// What a gold table's columns are, and since when; and the way to change them.
#[test]
fn gold_is_shown_with_what_it_is_computed_by() {
    let lake = filled();
    let shown = lake.ok(&["schema", "show", "gold"]);
    for part in ["windows of 1m by kafka_timestamp", "partitioned by window_date", "COUNT(DISTINCT CustomerID)", "dimension"] {
        assert!(shown.contains(part), "{shown}");
    }
    let file = lake.path("pipeline.toml");
    let text = fs::read_to_string(&file).expect("a pipeline file");
    let measure = "[[gold.measures]]\nname = \"TotalOrders\"";
    let wanted =
        text.replacen(measure, &format!("[[gold.measures]]\nname = \"Items\"\nsql = \"COUNT(Quantity)\"\n\n{measure}"), 1);
    fs::write(&file, wanted).expect("written");
    lake.ok(&["schema", "plan", "--output", "plan.json"]);
    lake.ok(&["schema", "apply", "plan.json"]);
    let shown = lake.ok(&["schema", "show", "gold_amazon_sales_aggregated"]);
    let items = shown.lines().find(|line| line.contains("│ items")).unwrap_or_else(|| panic!("{shown}"));
    assert!(items.contains("COUNT(Quantity)") && items.contains("1 of 1"), "{items}");
    let refused = lake.output(&["schema", "add-column", "gold", "X", "int"]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("gold_amazon_sales_aggregated is gold"), "{told}");
}
