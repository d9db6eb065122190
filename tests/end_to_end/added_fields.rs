//! `silver.unknown_fields = "add"`: fields of messages become columns, in a run and over runs.

use std::fs;

use super::Lake;
use super::lake::{Servers, assert_records, expected};

const SILVER: &str = "silver_amazon_sales";

/// Appends sales with further fields; the bad ones stay as they are.
fn append(lake: &Lake, rows: u32, seed: u32, fields: &str) {
    let (rows, seed) = (rows.to_string(), seed.to_string());
    let made = ["generate", "--rows", &rows, "--seed", &seed, "--format", "jsonl", "--bad-share", "0.02", "--force"];
    lake.ok(&[&made[..], &["--output", "some.jsonl"]].concat());
    let some = fs::read(lake.path("some.jsonl")).expect("sales");
    let mut all = fs::read(lake.path("sales.jsonl")).unwrap_or_default();
    for line in some.strip_suffix(b"\n").unwrap_or(&some).split(|byte| *byte == b'\n') {
        match line.strip_prefix(b"{\"") {
            Some(rest) => all.extend([b"{", fields.as_bytes(), b"\"", rest, b"\n"].concat()),
            None => all.extend([line, b"\n"].concat()),
        }
    }
    fs::write(lake.path("sales.jsonl"), all).expect("written");
}

/// What a run says.
fn run(lake: &Lake) -> String {
    let run = lake.output(&["run", "--until-caught-up"]);
    let told = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{told}");
    told
}

#[test]
fn fields_become_columns_that_are_read_from_then_on() {
    let settings = [
        "source.kind=file",
        "source.file.path=sales.jsonl",
        "source.file.format=jsonl",
        "silver.unknown_fields=add",
        "silver.unknown_fields_per_day=4",
        // Several cycles in a run.
        "pipeline.batch_rows=100",
        "pipeline.batch_bytes=64KiB",
        "pipeline.commit_bytes=64KiB",
    ];
    let lake = Lake::new("datalake", &settings.map(str::to_owned), Servers::None);
    let count = |column: &str| {
        let rows = lake.query(&format!("SELECT count(\"{column}\") AS n FROM {}", lake.table(SILVER)));
        rows[0]["n"].as_i64().expect("a number")
    };
    append(&lake, 200, 1, "");
    assert!(!run(&lake).contains("become"));

    let fields = "\"Coupon\":\"C7\",\"Stars\":5,\"paid on\":\"2024-12-31\",\"Deep\":{\"a\":1},\"brand\":\"b\",\"Late\":true,";
    append(&lake, 2_000, 2, fields);
    let told = run(&lake);
    assert!(told.contains("4 fields have become columns"), "{told}");
    for line in ["field=\"paid on\" column=\"paid_on\" column_type=date", "field=\"brand\" column=\"brand_2\" column_type=string"]
    {
        assert!(told.contains(line), "{told}");
    }
    assert!(told.contains("field=\"Deep\"") && told.contains("become no columns"), "{told}");
    // The fifth has to wait, and this is said once.
    assert_eq!(told.matches("becomes no column today").count(), 1, "{told}");
    // Only the cycle that brought them has nulls.
    let filled = count("Coupon");
    assert!((1_000..2_000).contains(&filled), "{filled}");
    assert_eq!([count("Stars"), count("paid_on"), count("brand_2")], [filled; 3]);
    let shown = lake.ok(&["schema", "show", "silver"]);
    assert!(shown.contains("added when messages had it"), "{shown}");

    // Under another name, by a plan that leaves them alone, and with a value of another kind.
    lake.ok(&["schema", "rename-column", "silver", "Stars", "Rating"]);
    assert!(lake.ok(&["schema", "plan", "--drop"]).contains("nothing to do"));
    append(&lake, 300, 3, &fields.replace("\"Stars\":5", "\"Stars\":6"));
    append(&lake, 100, 4, &fields.replace("\"Stars\":5", "\"Stars\":\"many\""));
    let told = run(&lake);
    assert!(!told.contains("has become a column"), "{told}");
    let sixes = lake.query(&format!("SELECT count(*) AS n FROM {} WHERE \"Rating\" = 6", lake.table(SILVER)));
    assert!(sixes[0]["n"].as_i64() > Some(280), "{sixes:?}");
    assert_eq!(count("Coupon") - count("Rating"), count("paid_on") - count("Rating"));
    assert!(count("Rating") < count("Coupon"));

    // The pipeline file takes one over.
    let file = lake.path("pipeline.toml");
    let text = fs::read_to_string(&file).expect("a pipeline file");
    let column = "[[silver.columns]]\nname = \"Coupon\"\nrequired = false\n\n[[silver.columns]]";
    fs::write(&file, text.replacen("[[silver.columns]]", column, 1)).expect("written");
    let before = count("Coupon");
    append(&lake, 100, 5, fields);
    run(&lake);
    assert!(count("Coupon") > before + 90);
    assert_records(&lake, &expected("--messages", &lake.path("sales.jsonl")));
    lake.verify();
}
