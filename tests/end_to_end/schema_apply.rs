//! `schema apply`, killed at each of its steps: the next one does what is left, and nothing twice.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use super::Lake;
use super::lake::Servers;

/// Where it is killed: before the commit of a step, and behind it.
pub const WINDOWS: [&str; 2] = ["change:metadata-written", "schema:step-done"];

const STEPS: usize = 4;

#[test]
fn an_apply_that_is_killed_at_every_step_is_finished_by_the_next() {
    let settings = ["source.kind=file", "source.file.path=sales.jsonl", "source.file.format=jsonl"];
    let lake = Lake::new("datalake", &settings.map(str::to_owned), Servers::None);
    lake.ok(&["generate", "--rows", "300", "--format", "jsonl", "--output", "sales.jsonl"]);
    lake.ok(&["run", "--until-caught-up"]);
    let file = lake.path("pipeline.toml");
    let text = fs::read_to_string(&file).expect("a pipeline file");
    let derived =
        ["Initial", "Last"].map(|name| format!("[[silver.derive]]\nname = \"{name}\"\nsql = \"left(CustomerID, 1)\"\n\n"));
    let wider = text.replacen("name = \"Quantity\"\ntype = \"int\"", "name = \"Quantity\"\ntype = \"long\"", 1);
    assert_ne!(wider, text, "Quantity is no int in the preset");
    let wanted = wider.replacen("[[silver.derive]]", &format!("{}[[silver.derive]]", derived.concat()), 1);
    let wanted = wanted.replacen(
        "partition_by = [\"Year\", \"Month\"]",
        "partition_by = [\"Year\", \"Month\", \"bucket(2, OrderID)\"]",
        1,
    );
    fs::write(&file, wanted).expect("written");

    lake.ok(&["schema", "plan", "--output", "plan.json"]);
    for step in 0..STEPS {
        for window in WINDOWS {
            let killed =
                lake.command(&["schema", "apply", "plan.json"]).env("LAKESMITH_KILL_AT", window).output().expect("it starts");
            let told = String::from_utf8_lossy(&killed.stderr);
            assert_eq!(killed.status.signal(), Some(libc::SIGKILL), "not killed at {window} of step {step}:\n{told}");
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
    assert!(shown.contains("bucket(2, OrderID)") && shown.contains("Initial"), "{shown}");

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
