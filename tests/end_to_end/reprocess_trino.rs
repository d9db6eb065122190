//! `reprocess --engine trino`: rows that Trino's SQL computes are those that this process would have, and nothing is taken that is not.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use serde_json::Value;

use super::Lake;
use super::lake::{Servers, env, on_the_stack};
use super::real::assert_spark_agrees;
use super::reprocess::{change, error_of};
use super::reprocess_engine::{assert_as_preset, on_servers, stored};

/// Those that only Trino opens, and the one that Spark opens too.
pub const WINDOWS: [&str; 2] = ["reprocess:engine-ran", "reprocess:engine-taken"];

/// Trino's own client.
fn trino(script: &str) -> String {
    format!(
        "java -jar {} --server {} --catalog iceberg --user lakesmith -f {script} >trino.log 2>&1",
        env("TRINO_CLI"),
        env("TRINO_URL")
    )
}

fn with_trino<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["reprocess", "--engine", "trino", "--engine-command", command], more].concat()
}

/// Runs it; it must succeed. How many rows came from Trino, and how many records were left.
fn done(lake: &Lake, command: &str, more: &[&str]) -> (u64, u64) {
    let ended = lake.output(&[&["--log", "info"], &*with_trino(command, more)].concat());
    let log = String::from_utf8_lossy(&ended.stderr);
    let trino = fs::read_to_string(lake.path("trino.log")).unwrap_or_default();
    assert!(ended.status.success(), "{log}\n{trino}");
    let number = |name: &str| {
        let text = log.split(name).nth(1).unwrap_or_else(|| panic!("no {name} in {log}"));
        text.split_whitespace().next().and_then(|text| text.parse().ok()).expect("a number")
    };
    (number(" by_trino="), number(" here="))
}

/// Both computations into new tables; the rows of both tables, which must be equal.
fn assert_equal_rows(lake: &Lake, silver: &str, rejected: &str) -> (u64, u64) {
    let counted = done(lake, &trino("{script}"), &["--into", "_there"]);
    lake.ok(&["reprocess", "--into", "_here"]);
    let rows = |table: &str, suffix: &str, but: &str| {
        let table = lake.table(&format!("{table}{suffix}"));
        lake.query(&format!("SELECT * EXCEPT ({but}) FROM {table} ORDER BY \"partition\", \"offset\""))
    };
    for (table, but) in [(silver, "processing_timestamp"), (rejected, "rejected_at")] {
        let (found, expected): (Vec<Value>, Vec<Value>) = (rows(table, "_there", but), rows(table, "_here", but));
        assert!(!expected.is_empty() && found.len() == expected.len(), "{table}: {} and {} rows", found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "{table}");
        }
    }
    counted
}

#[test]
fn trino_computes_the_rows_of_plain_sales_and_the_others_are_decided_here() {
    let (topic, lake) = on_servers(6_000);
    let (by_trino, here) = assert_equal_rows(&lake, "silver_amazon_sales", "silver_amazon_sales_rejected");
    // Only what is rejected was left, and that is what the generator was told to spoil.
    assert!(by_trino > 5_800 && by_trino + here == 6_000, "{by_trino} by Trino, {here} here");

    let command = trino("{script}");
    let (by_trino, here) = done(&lake, &command, &["--rejected"]);
    assert!(by_trino > 500 && by_trino + here < 6_000, "{by_trino} by Trino, {here} here");
    assert_as_preset(&topic, &lake);
    assert_eq!(done(&lake, &command, &[]).0 / 100, 58);
    let expected = assert_as_preset(&topic, &lake);
    assert_spark_agrees(&lake, &expected);
}

/// Texts of a field: first those that are plain, then others.
const FIELDS: [(&str, &[&str], &[&str]); 14] = [
    (
        "text",
        &[r#""abc""#, r#""x""#, r#""""#, r#""Grüße 😀""#, r#""a\"b\\c\n\t/""#, r#"" spaced ""#, r#""  \t a　 ""#],
        &[r#""\u0041""#, r#""\ud83d\ude00""#, "7", "null"],
    ),
    ("note", &[r#""n""#, "null", r#""""#], &["5", "true", "{}"]),
    (
        "small",
        &["1", "2", "12", "-3", "0", "-0", "2147483"],
        &["13", "2147483647", "-2147483648", "2147483648", "2.0", "1e1", r#""5""#, "01", "2.5"],
    ),
    ("big", &["0", "999999", "123456789012345678", "-999"], &["9223372036854775807", "-1000001", "9223372036854775808", "1E3"]),
    ("ratio", &["0.1", "1e23", "-2.5e-3", "5e-324", "123456789.125", "-0.0"], &["1e999", r#""1""#]),
    ("share", &["0.1", "16777217", "null", "3.4e38"], &["1e39", "[]"]),
    ("flag", &["true", "false"], &["1", r#""true""#]),
    ("price", &["1.5", "0.005", "-0.005", "1.0049", "3"], &["99999999.99", "99999999.995", "1e2", "123456789"]),
    ("exact", &["1.125", "-0.5", "null", "999"], &["1.12345", "1000"]),
    (
        "day",
        &[r#""2024-02-29""#, r#""29-02-2024""#, r#""1600-01-01""#, r#""03-04-2024""#, r#""12/31/2023""#],
        &[r#""2023-02-29""#, r#""1-2-2023""#, r#""0999-01-01""#, r#""13/13/2023""#],
    ),
    (
        "moment",
        &[r#""2024-02-29T10:20:30.123456Z""#, r#""2024-02-29 23:59""#, r#""1970-01-01T00:00:00""#, r#""2038-01-19t03:14:08.5""#],
        &[
            r#""2024-02-29T10:20:60Z""#,
            r#""2024-02-29T10:20:30.1234567Z""#,
            r#""2024-02-29T10:20:30+05:30""#,
            r#""1969-12-31T23:59:59.999999Z""#,
            r#""2024-02-29T24:00:00""#,
        ],
    ),
    ("sent", &["1700000000123", "0", "4102444800000"], &["-1", "1.5", r#""17""#, "99999999999999"]),
    ("stamp", &[r#""29.02.2024 10:20:30""#, r#""01.01.1000 00:00:00""#], &[r#""29.02.2023 10:20:30""#, r#""1.1.2024 1:2:3""#]),
    ("part", &["0.00001", "0.999994", "-0.5"], &["1", "0.9999999"]),
];

/// Messages of those, in which most fields are plain; now and then with other fields, in another form, or none at all.
fn messages(count: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut lines = Vec::new();
    for _ in 0..count {
        let mut fields: Vec<String> = Vec::new();
        for (name, plain, odd) in FIELDS {
            let value = match random(80) {
                0 => odd[random(odd.len())].to_owned(),
                1..=40 if name == "ratio" || name == "share" => {
                    let (digit, fraction, exponent) = (random(10), random(1 << 30), random(50) as i32 - 25);
                    format!("{digit}.{fraction}e{exponent}")
                }
                _ => plain[random(plain.len())].to_owned(),
            };
            if random(200) > 0 {
                fields.push(format!("\"{name}\":{value}"));
            }
        }
        match random(120) {
            0 => fields.push("\"stranger\":[1]".to_owned()),
            1 => fields.push("\"other\":\"x\"".to_owned()),
            2 => fields.push("\"text\":\"twice\"".to_owned()),
            3 => fields.swap(0, 5),
            4 => fields.push("\"te\\u0078t\":1".to_owned()),
            _ => {}
        }
        let line = match random(150) {
            0 => format!(" {{ {} }}\t", fields.join(" , ")),
            1 => format!("{{{}", fields.join(",")),
            2 => format!("{{{},}}", fields.join(",")),
            3 => format!("[{{{}}}]", fields.join(",")),
            4 => "{}".to_owned(),
            _ => format!("{{{}}}", fields.join(",")),
        };
        let mut line = line.into_bytes();
        let broken: &[&[u8]] = &[b"\xc0\xaf", b"\xed\xa0\x80", b"\x80", b"\xf4\x90\x80\x80", "\u{fffd}".as_bytes(), b"\x7f"];
        if random(100) == 0 && line.len() > 12 {
            let at = line.iter().position(|byte| *byte == b':').unwrap_or_default() + 2;
            line.splice(at..at, broken[random(broken.len())].iter().copied());
        }
        lines.extend(line);
        lines.push(b'\n');
    }
    lines
}

const DEFINITION: &str = r#"
[pipeline]
name = "plain"
[source]
kind = "file"
[source.file]
path = "messages.jsonl"
format = "jsonl"
[bronze]
table = "bronze"
[silver]
table = "silver"
partition_by = ["flag"]
unknown_fields = "keep"
columns = [
  { name = "text" },
  { name = "note", required = false, lenient = true },
  { name = "small", type = "int" },
  { name = "big", type = "long" },
  { name = "ratio", type = "double" },
  { name = "share", type = "float", required = false },
  { name = "flag", type = "boolean" },
  { name = "price", type = "decimal(10, 2)" },
  { name = "exact", type = "decimal(6, 3)", required = false, scale_excess = "reject", on_error = "null" },
  { name = "date_of", field = "day", type = "date", formats = ["iso", "%d-%m-%Y", "%m-%d-%Y", "%m/%d/%Y"] },
  { name = "moment", type = "timestamp" },
  { name = "sent", type = "timestamp", formats = ["epoch_ms"] },
  { name = "stamp", type = "timestamp", formats = ["%d.%m.%Y %H:%M:%S"] },
  { name = "part", type = "decimal(5, 5)" },
]
derive = [
  { name = "twice", type = "int", sql = "small * 2" },
  { name = "next", type = "long", sql = "big + small" },
  { name = "digit", type = "int", sql = "big % 10" },
  { name = "half", type = "double", sql = "ratio / 2 - share" },
  { name = "gross", type = "decimal(18, 4)", sql = "price * exact" },
  { name = "difference", type = "decimal(12, 3)", sql = "price - exact" },
  { name = "rounded", type = "decimal(9, 1)", sql = "price" },
  { name = "loud", sql = "upper(text)" },
  { name = "letters", type = "int", sql = "character_length(text)" },
  { name = "middle", sql = "substr(text, 2, 3)" },
  { name = "joined", sql = "text || '-' || small" },
  { name = "both", sql = "concat(text, note)" },
  { name = "band", sql = "CASE WHEN small > 10 THEN 'big' WHEN small > 0 THEN 'small' END" },
  { name = "filled", sql = "coalesce(note, text)" },
  { name = "unless", sql = "nullif(text, 'x')" },
  { name = "year", type = "int", sql = "date_part('year', date_of)" },
  { name = "week", type = "int", sql = "date_part('week', date_of)" },
  { name = "weekday", type = "int", sql = "EXTRACT(dow FROM date_of)" },
  { name = "yearday", type = "int", sql = "date_part('doy', date_of)" },
  { name = "hour", type = "int", sql = "date_part('hour', moment)" },
  { name = "date_at", type = "date", sql = "CAST(moment AS DATE)" },
  { name = "hour_at", type = "timestamp", sql = "date_trunc('hour', moment)" },
  { name = "starts", type = "boolean", sql = "text LIKE 'a%' OR text NOT LIKE '_'" },
  { name = "few", type = "boolean", sql = "small IN (1, 2, 3) AND price BETWEEN 0.5 AND 100" },
  { name = "silent", type = "boolean", sql = "note IS NULL OR date_of < '2000-01-01'" },
  { name = "minus", type = "int", sql = "-small" },
  { name = "shift", type = "decimal(20, 2)", sql = "big" },
  { name = "trimmed", sql = "trim(text)" },
  { name = "ends", sql = "ltrim(text) || rtrim(text)" },
  { name = "first", sql = "left(text, 2)" },
  { name = "changed", sql = "replace(replace(text, 'a', 'b''b'), 'ü', '')" },
  { name = "higher", type = "boolean", sql = "ratio > share" },
  { name = "same", type = "boolean", sql = "ratio = CAST('0.1' AS DOUBLE)" },
]
expect = [
  { name = "luck", sql = "small <> 13" },
  { name = "range", sql = "big > -1000000 AND small + 1 > -100 AND NOT (part < -0.9)" },
]
"#;

#[test]
fn what_trino_takes_for_plain_it_reads_as_silver_does() {
    let name = format!("e2e_{}", uuid::Uuid::new_v4().simple());
    let settings: Vec<String> =
        on_the_stack(&name, &env("HIVE_METASTORE_URIS")).into_iter().filter(|one| !one.starts_with("source.")).collect();
    let lake = Lake::new(&name, &settings, Servers::Stack);
    fs::write(lake.path("pipeline.toml"), DEFINITION).expect("written");
    fs::write(lake.path("messages.jsonl"), messages(8_000)).expect("written");
    lake.ok(&["run", "--until-caught-up"]);
    let (by_trino, here) = assert_equal_rows(&lake, "silver", "silver_rejected");
    // Neither way is empty: most messages are plain, and many are not.
    assert!(by_trino > 4_000 && here > 800 && by_trino + here == 8_000, "{by_trino} by Trino, {here} here");
    let rejected = lake.query(&format!("SELECT count(*) AS n FROM {}", lake.table("silver_rejected")))[0]["n"].as_u64();
    assert!(rejected.is_some_and(|rejected| rejected < here), "what was left was rejected, all of it");

    change(&lake, "sql = \"upper(text)\"", "sql = \"initcap(text)\"");
    let error = error_of(&lake, &with_trino("x {script}", &[]));
    assert!(
        error.contains("derived column loud is not for Trino: `initcap(text)`") && error.contains("--engine spark"),
        "{error}"
    );

    change(&lake, "sql = \"initcap(text)\"", "sql = \"upper(text)\"");
    let add = ["schema", "add-column", "silver", "origin", "string", "--default", "web"];
    lake.ok(&[&add[..], &["--set", "tables.compatibility=[\"spark\"]"]].concat());
    let error = error_of(&lake, &with_trino("x {script}", &[]));
    assert!(error.contains("column origin of table") && error.contains("which Trino does not fill"), "{error}");
    lake.ok(&["reprocess"]);
    let filled = lake.query(&format!("SELECT count(*) AS n FROM {} WHERE origin <> 'web'", lake.table("silver")));
    assert_eq!(filled[0]["n"].as_u64(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_not_what_was_asked_for_are_not_taken() {
    let (topic, lake) = on_servers(3_000);
    let before = stored(&topic).await;
    let edited = |edit: &str| format!("sed '{edit}' {{script}} >edited.sql; {}", trino("edited.sql"));
    let columns = |loud: usize| {
        let column = |at: usize| if at == loud { format!("upper(c{at})") } else { format!("c{at}") };
        (0..31).map(column).collect::<Vec<_>>().join(", ")
    };
    for (command, said) in [
        // Another value, another record, twice the same, one that is none of those.
        (edited(&format!("s/^SELECT \\*, TIMESTAMP/SELECT {}, TIMESTAMP/", columns(7))), "in CustomerName, and silver has"),
        (format!("{0}; {0}", trino("{script}")), "is there twice"),
        (edited("s/\"offset\" AS c2/\"offset\" + 100000 AS c2/"), "is none of the records"),
        (format!("{} && exit 3", trino("{script}")), "ended with exit status: 3"),
        ("false {script}".to_owned(), "ended with exit status: 1"),
    ] {
        let error = error_of(&lake, &with_trino(&command, &[]));
        assert!(error.contains(said), "{said}: {error}\n{}", fs::read_to_string(lake.path("trino.log")).unwrap_or_default());
        assert_eq!(stored(&topic).await, before, "{said}");
        let report = lake.ok(&["verify"]);
        assert!(report.contains("3,000 offsets are being decided anew") && !report.contains("DIFFERS"), "{report}");
    }
    // No row at all is right: then all is decided here, and it is said.
    let told = lake.output(&with_trino(": {script}", &["--into", "_none"]));
    let warning = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success() && warning.contains("Trino computed less than half"), "{warning}");
    assert_eq!(done(&lake, ": {script}", &[]), (0, 3_000));
    assert_as_preset(&topic, &lake);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_was_killed_is_followed_by_one_that_goes_on_with_the_same_rows() {
    let (topic, lake) = on_servers(3_000);
    let command = trino("{script}");
    let kill = |window: &str, command: &str| {
        let killed = lake.command(&with_trino(command, &[])).env("LAKESMITH_KILL_AT", window).output().expect("it starts");
        let told = String::from_utf8_lossy(&killed.stderr);
        assert_eq!(killed.status.signal(), Some(libc::SIGKILL), "{window}: {told}");
        assert!(!lake.ok(&["verify"]).contains("DIFFERS"));
    };
    // Taken back, nothing of it stays.
    let before = stored(&topic).await;
    kill(WINDOWS[0], &command);
    assert!(stored(&topic).await > before);
    lake.ok(&["reprocess", "--abandon"]);
    assert_eq!(stored(&topic).await, before);

    // Trino is asked once: before, between and behind the commits of the two tables.
    kill(WINDOWS[0], &command);
    kill("silver:swapped", "false {script}");
    let told = lake.ok(&with_trino("false {script}", &[]));
    assert!(told.contains("rows in place of"), "{told}");
    assert_as_preset(&topic, &lake);

    kill(WINDOWS[1], &command);
    lake.ok(&["reprocess"]);
    let expected = assert_as_preset(&topic, &lake);
    assert_spark_agrees(&lake, &expected);
}
