//! A pipeline of its own on the servers of the stack, a daemon that works on it, and what must be in its tables.

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::process::Child;
use std::time::{Duration, Instant};

use lakesmith::checkpoint::parse_positions;
use lakesmith::metastore::{Metastore, MetastoreSettings};

use crate::end_to_end::lake::{Lake, Servers, assert_records, env, expected, number, on_the_stack};

/// How long anything may take that a daemon does within a second or two on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub const BRONZE: &str = "bronze_amazon_sales";
pub const SILVER: &str = "silver_amazon_sales";
pub const REJECTED: &str = "silver_amazon_sales_rejected";
pub const GOLD: &str = "gold_amazon_sales_aggregated";

/// What the daemon says when a table is behind where it left it.
pub const NOT_WHERE_IT_WAS: &str = "is not where this daemon left it";

/// What a daemon says whose gold another process maintains for a time, on a slow machine.
pub const GOLD_IS_TAKEN: &str = "waiting for a lock that another holds";

/// A topic with three partitions, and tables on HDFS in a database of their own.
pub struct Cluster {
    pub topic: String,
    pub lake: Lake,
    /// Rows sent so far; each batch has a seed of its own.
    sent: RefCell<(u32, u32)>,
}

impl Cluster {
    pub fn new(settings: &[&str]) -> Self {
        Self::with_topic(
            &env("HIVE_METASTORE_URIS"),
            &settings.iter().map(|setting| (*setting).to_owned()).collect::<Vec<_>>(),
            &[],
        )
    }

    /// At another metastore, and with settings of the topic.
    pub fn with_topic(metastore: &str, settings: &[String], topic_settings: &[&str]) -> Self {
        let topic = format!("faults_{}", uuid::Uuid::new_v4().simple());
        let mut flags = on_the_stack(&topic, metastore);
        flags.extend_from_slice(settings);
        let lake = Lake::new(&topic, &flags, Servers::Stack);
        let create = ["topic", "create", &topic, "--partitions", "3"];
        let topic_settings = topic_settings.iter().flat_map(|setting| ["--option", setting]);
        lake.ok(&create.into_iter().chain(topic_settings).collect::<Vec<_>>());
        Self { topic, lake, sent: RefCell::default() }
    }

    /// Adds sales to the topic, some of them bad.
    pub fn send(&self, rows: u32) {
        self.send_changed(rows, <[u8]>::to_vec);
    }

    /// As [`Self::send`], each line as it is changed.
    pub fn send_changed(&self, rows: u32, change: impl Fn(&[u8]) -> Vec<u8>) {
        let (count, seed) = *self.sent.borrow();
        let (rows_text, seed_text) = (rows.to_string(), (seed + 1).to_string());
        let generate = ["generate", "--rows", &rows_text, "--seed", &seed_text, "--format", "jsonl", "--bad-share", "0.05"];
        self.lake.ok(&[&generate[..], &["--force", "--output", "some.jsonl"]].concat());
        // Bad ones need not be text.
        let some = fs::read(self.lake.path("some.jsonl")).expect("sales");
        let lines = some.strip_suffix(b"\n").unwrap_or(&some).split(|byte| *byte == b'\n');
        let some: Vec<u8> = lines.flat_map(|line| [&change(line)[..], b"\n"].concat()).collect();
        fs::write(self.lake.path("some.jsonl"), &some).expect("written");
        let mut all =
            fs::OpenOptions::new().create(true).append(true).open(self.lake.path("sales.jsonl")).expect("a file of all sales");
        all.write_all(&some).expect("written");
        // With a key, so that every partition gets some.
        self.lake.ok(&["produce", "some.jsonl", "--topic", &self.topic, "--key", "OrderID"]);
        *self.sent.borrow_mut() = (count + rows, seed + 1);
    }

    pub fn count(&self, table: &str) -> i64 {
        let rows = self.lake.query(&format!("SELECT count(*) AS n FROM {}", self.lake.table(table)));
        rows[0]["n"].as_i64().expect("a number")
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.lake.path(name)).unwrap_or_default()
    }

    /// Waits while the daemon lives.
    pub async fn wait(&self, daemon: &mut Child, log: &str, what: &str, reached: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !reached().await {
            assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}\n{}", self.log(log));
            assert!(daemon.try_wait().expect("a child").is_none(), "{what}: the daemon has ended\n{}", self.log(log));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every layer has come to the end of what was sent, by what the metastore says of them.
    pub async fn wait_until_level(&self, metastore: &Metastore, daemon: &mut Child, log: &str) {
        let sent = u64::from(self.sent.borrow().0);
        self.wait(daemon, log, "all layers level", async || {
            let [bronze, silver, rejected, gold] = [BRONZE, SILVER, REJECTED, GOLD].map(|table| self.records(metastore, table));
            let (bronze, silver, rejected, gold) = tokio::join!(bronze, silver, rejected, gold);
            bronze == sent && silver + rejected == sent && gold == silver
        })
        .await;
    }

    /// Records that a table's offsets count.
    async fn records(&self, metastore: &Metastore, table: &str) -> u64 {
        let Some(entry) = metastore.table(&self.lake.database, table).await.expect("the metastore") else { return 0 };
        let positions = parse_positions(entry.parameter("lakesmith.positions").unwrap_or("d")).expect("offsets");
        positions.values().map(|coverage| coverage.records).sum()
    }

    /// Every layer holds what was sent, each record once, by a reference that is not lakesmith.
    pub fn assert_exact(&self) {
        let expected = expected("--messages", &self.lake.path("sales.jsonl"));
        assert!(expected["rejected"]["rows"].as_u64() > Some(0), "nothing bad was sent");
        assert_records(&self.lake, &expected);
        let sums = format!("SELECT sum(TotalOrders) AS n, sum(TotalRevenue) AS r FROM {}", self.lake.table(GOLD));
        let gold = &self.lake.query(&sums)[0];
        assert_eq!(gold["n"], expected["silver"]["rows"]);
        assert_eq!(number(&gold["r"]), number(&expected["silver"]["sums"]["TotalAmount"]));
        self.lake.verify();
    }

    /// A run that takes what is left: after a hard end it may say that it gives back a lock, and the like. Then everything is exact.
    pub fn finish(&self) {
        let run = self.lake.output(&["run", "--until-caught-up"]);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        self.assert_exact();
    }

    /// Ends a daemon as an operator does; it must leave well, and have warned of nothing but what is `allowed`.
    pub fn stop(&self, mut daemon: Child, log: &str, allowed: &[&str]) {
        signal(&daemon, libc::SIGTERM);
        assert!(daemon.wait().expect("its end").success(), "{}", self.log(log));
        let text = self.log(log);
        let alarms: Vec<_> = text
            .lines()
            .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
            .filter(|line| !allowed.iter().any(|part| line.contains(part)))
            .collect();
        assert!(alarms.is_empty(), "{}", alarms.join("\n"));
    }

    pub async fn metastore(&self) -> Metastore {
        self.metastore_of(&env("HIVE_METASTORE_URIS")).await
    }

    /// Another one than the stack's main metastore.
    pub async fn metastore_of(&self, uri: &str) -> Metastore {
        let settings = MetastoreSettings { uris: vec![uri.to_owned()], ..MetastoreSettings::default() };
        Metastore::connect(&settings).await.expect("the metastore")
    }
}

pub fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: a plain system call; the child is ours and was not waited for.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
}
