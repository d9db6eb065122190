//! One lakehouse under test: its pipeline file, the binary that works on it, and what must be in it.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::servers::program;

/// The columns whose sums are compared.
pub const SUMMED: [&str; 9] =
    ["Quantity", "UnitPrice", "Discount", "Tax", "ShippingCost", "TotalAmount", "Revenue", "DiscountAmount", "NetRevenue"];

/// What a stack's environment names; nothing of it may reach the embedded form.
const STACK: [&str; 5] = ["KAFKA_BROKER", "KAFKA_TOPIC", "HDFS_URL", "HIVE_METASTORE_URIS", "HADOOP_CONF_DIR"];

/// Which servers the binary sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Servers {
    /// None: the embedded form.
    None,
    /// Those of the test stack, from the environment.
    Stack,
}

/// What the environment of a stack with Spark says.
pub fn env(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: eval \"$(tests/stack/stack env)\" after `stack up --with spark`"))
}

/// Settings for a topic and a warehouse of this name on the servers of the stack, through one of its metastores.
pub fn on_the_stack(name: &str, metastore: &str) -> Vec<String> {
    vec![
        format!("storage.warehouse={}/{name}", env("HDFS_URL")),
        format!("source.topic={name}"),
        format!("source.kafka.brokers={}", env("KAFKA_BROKER")),
        format!("metastore.uris=[\"{metastore}\"]"),
    ]
}

pub struct Lake {
    pub dir: TempDir,
    servers: Servers,
    pub database: String,
    flags: Vec<String>,
}

impl Lake {
    /// A directory with the preset; `settings` are `path=value` overrides given to every command.
    pub fn new(database: &str, settings: &[String], servers: Servers) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let mut flags = vec![format!("tables.database={database}")];
        flags.extend_from_slice(settings);
        let lake = Self { dir, servers, database: database.to_owned(), flags };
        lake.ok(&["init", "pipeline.toml"]);
        lake
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.current_dir(self.dir.path()).args(arguments).stdin(Stdio::null());
        if self.servers == Servers::None {
            STACK.iter().for_each(|name| _ = command.env_remove(name));
        }
        if arguments.first() != Some(&"init") && arguments.first() != Some(&"generate") {
            command.args(self.flags.iter().flat_map(|flag| ["--set", flag]));
        }
        command
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("lakesmith starts")
    }

    /// Runs a command that must succeed without a warning; returns what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "lakesmith {arguments:?} ended with {}:\n{log}", output.status);
        let alarms: Vec<_> = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
        assert!(alarms.is_empty(), "lakesmith {arguments:?} warned:\n{}", alarms.join("\n"));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Starts a command whose log goes to a file.
    pub fn spawn(&self, arguments: &[&str], log: &str) -> Child {
        let log = fs::File::create(self.path(log)).expect("a log file");
        self.command(arguments).stdout(Stdio::null()).stderr(log).spawn().expect("lakesmith starts")
    }

    /// Runs with small commits until the process kills itself at a window. It must: a run that ends otherwise fails the test.
    pub fn kill_at(&self, window: &str) {
        let output = self.command(&SMALL_COMMITS).env("LAKESMITH_KILL_AT", window).output().expect("lakesmith starts");
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGKILL), "not killed at {window}: {}\n{log}", output.status);
    }

    /// The rows of a query, as objects.
    pub fn query(&self, sql: &str) -> Vec<Value> {
        let text = self.ok(&["query", sql, "--output", "json"]);
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))).collect()
    }

    pub fn table(&self, name: &str) -> String {
        format!("{}.{name}", self.database)
    }

    pub fn verify(&self) {
        let report = self.ok(&["verify"]);
        assert!(report.contains("ok") && !report.contains("DIFFERS"), "{report}");
    }
}

/// What the tables must hold: the reference computed from `input`, given by `--messages`, `--csv` or `--dump`.
pub fn expected(form: &str, input: &Path) -> Value {
    let script = crate::repository().join("tests/reference/expected.py");
    let output = Command::new("python3").arg(script).arg(form).arg(input).output().expect("python3 starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the reference prints JSON")
}

/// Overrides that make a run commit every few hundred records, so that a kill meets it between two commits.
pub const SMALL_COMMITS: [&str; 10] = [
    "run",
    "--until-caught-up",
    "--set",
    "pipeline.batch_rows=500",
    "--set",
    "pipeline.batch_bytes=64KiB",
    "--set",
    "pipeline.commit_bytes=256KiB",
    "--set",
    "pipeline.commit_interval=100ms",
];

/// A value as text.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A number as text, without the zeros behind its point: engines write decimals with and without them.
pub fn number(value: &Value) -> String {
    let text = plain(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Bronze, silver and rejected hold what the reference says: counts, sums and the rows of each month.
pub fn assert_records(lake: &Lake, expected: &Value) {
    let count = |table: &str| lake.query(&format!("SELECT count(*) AS n FROM {}", lake.table(table)))[0]["n"].clone();
    assert_eq!(count("bronze_amazon_sales"), expected["bronze"]["rows"]);
    assert_eq!(count("silver_amazon_sales"), expected["silver"]["rows"]);
    assert_eq!(count("silver_amazon_sales_rejected"), expected["rejected"]["rows"]);
    let sums = SUMMED.map(|name| format!("sum({name}) AS {name}")).join(", ");
    let found = &lake.query(&format!("SELECT {sums} FROM {}", lake.table("silver_amazon_sales")))[0];
    for name in SUMMED {
        assert_eq!(number(&found[name]), number(&expected["silver"]["sums"][name]), "sum of {name}");
    }
    let months = lake.query(&format!(
        "SELECT Year AS y, Month AS m, count(*) AS n FROM {} GROUP BY Year, Month ORDER BY y, m",
        lake.table("silver_amazon_sales")
    ));
    let months: Vec<_> = months.iter().map(|row| serde_json::json!([row["y"], row["m"], row["n"]])).collect();
    assert_eq!(Value::from(months), expected["silver"]["months"]);
}
