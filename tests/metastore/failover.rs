//! Several servers of one metastore: two real ones on one database, each behind a gate.

use std::time::{Duration, Instant};

use lakesmith::metastore::{
    Cascade, CompareAndSwap, DeleteData, EnvironmentContext, HiveDatabase, HiveTable, Metastore, MetastoreError,
    MetastoreSettings,
};
use uuid::Uuid;

use crate::gate::{Gate, Gatekeeper};
use crate::servers::metastore_uri;

/// Two servers on one database, each behind its gate, and a database of the test's own.
pub struct Pair {
    pub gates: [Gatekeeper; 2],
    pub database: String,
    direct: Metastore,
}

impl Pair {
    pub async fn new() -> Self {
        let gates = [Gatekeeper::before(&metastore_uri("4.0.1")).await, Gatekeeper::before(&metastore_uri("second")).await];
        let database = format!("failover_{}", Uuid::new_v4().simple());
        let direct = MetastoreSettings { uris: vec![metastore_uri("4.0.1")], ..MetastoreSettings::default() };
        let direct = Metastore::connect(&direct).await.unwrap();
        direct.create_database(&HiveDatabase::new(&database)).await.unwrap();
        let mut table = HiveTable::view(&database, "t", "SELECT 1 AS `one`", "SELECT 1 AS `one`");
        table.set_parameter("n", "0");
        direct.create_table(&table).await.unwrap();
        Self { gates, database, direct }
    }

    pub fn settings(&self) -> MetastoreSettings {
        MetastoreSettings {
            uris: self.gates.iter().map(Gatekeeper::uri).collect(),
            connect_timeout: Duration::from_secs(1),
            call_timeout: Duration::from_secs(20),
            ..MetastoreSettings::default()
        }
    }

    async fn remove(self) {
        self.direct.drop_database(&self.database, DeleteData::Yes, Cascade::Yes).await.unwrap();
    }

    async fn number(&self, metastore: &Metastore) -> Result<(HiveTable, u32), MetastoreError> {
        let table = metastore.table(&self.database, "t").await?.expect("the table");
        let number = table.parameter("n").unwrap().parse().unwrap();
        Ok((table, number))
    }

    /// Counts the table up by one.
    async fn count(&self, metastore: &Metastore, from: u32, table: &HiveTable) -> Result<(), MetastoreError> {
        let mut table = table.clone();
        table.set_parameter("n", (from + 1).to_string());
        let expecting = EnvironmentContext::new().without_statistics().expecting("n", &from.to_string());
        metastore.alter_table(&self.database, "t", &table, &expecting).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_one_database_and_the_load() {
    let pair = Pair::new().await;
    for _ in 0..16 {
        let metastore = Metastore::connect(&pair.settings()).await.unwrap();
        let (table, number) = pair.number(&metastore).await.unwrap();
        pair.count(&metastore, number, &table).await.unwrap();
    }
    let arrivals = pair.gates.each_ref().map(Gatekeeper::arrivals);
    assert!(arrivals.iter().all(|arrivals| *arrivals > 0) && arrivals.iter().sum::<usize>() == 16, "{arrivals:?}");
    let metastore = Metastore::connect(&pair.settings()).await.unwrap();
    assert_eq!(pair.number(&metastore).await.unwrap().1, 16);
    pair.remove().await;
}

/// Reads never fail while one of two servers is there; a write may be in doubt at the moment of the kill, and then its outcome is found
/// through the other server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_through_kills_of_each_server_in_turn() {
    let pair = Pair::new().await;
    let metastore = Metastore::connect(&pair.settings()).await.unwrap();
    assert_eq!(metastore.compare_and_swap(&pair.database).await.unwrap(), CompareAndSwap::Honoured);
    let mut expected = 0;
    let mut doubts = 0;
    for round in 0..30 {
        let victim = &pair.gates[round / 2 % 2];
        victim.turn(if round % 2 == 0 { Gate::Shut } else { Gate::Open });
        for _ in 0..3 {
            let (table, number) = pair.number(&metastore).await.unwrap();
            assert_eq!(number, expected, "a count was lost or doubled");
            match pair.count(&metastore, number, &table).await {
                Ok(()) => expected += 1,
                Err(error) => {
                    assert!(matches!(error, MetastoreError::Transport { .. }), "{error}");
                    let found = pair.number(&metastore).await.unwrap().1;
                    assert!(found == expected || found == expected + 1 && !error.certainly_not_applied());
                    (expected, doubts) = (found, doubts + 1);
                }
            }
        }
    }
    assert!(expected >= 60 && doubts <= 30, "{expected} counted, {doubts} in doubt");
    pair.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_is_not_asked_first_for_each_connection() {
    for death in [Gate::Shut, Gate::Silent] {
        let pair = Pair::new().await;
        pair.gates[0].turn(death);
        // Every call needs a connection of its own.
        let settings =
            MetastoreSettings { idle_timeout: Duration::ZERO, connect_timeout: Duration::from_millis(500), ..pair.settings() };
        let metastore = Metastore::connect(&settings).await.unwrap();
        let begun = Instant::now();
        for _ in 0..40 {
            pair.number(&metastore).await.unwrap();
        }
        let (asked, took) = (pair.gates[0].arrivals(), begun.elapsed());
        // It rests for half a second at least, then for twice that, and so on; each look costs half a second when it says nothing.
        assert!(asked <= 6 && pair.gates[1].arrivals() >= 40, "{death:?}: asked {asked} times in {took:?}");
        assert!(took < Duration::from_secs(15), "{death:?}: {took:?}");
        // Back again, it takes its share.
        pair.gates[0].turn(Gate::Open);
        let deadline = Instant::now() + Duration::from_secs(30);
        let before = pair.gates[0].arrivals();
        while pair.gates[0].arrivals() < before + 5 {
            assert!(Instant::now() < deadline, "{death:?}: it came back and is not asked");
            pair.number(&metastore).await.unwrap();
        }
        pair.remove().await;
    }
}

/// A connection on which the server closed its end while nobody used it is replaced: even a write is not in doubt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_that_were_closed_are_replaced_before_use() {
    let pair = Pair::new().await;
    let metastore = Metastore::connect(&pair.settings()).await.unwrap();
    for expected in 0..10 {
        let (table, number) = pair.number(&metastore).await.unwrap();
        assert_eq!(number, expected);
        pair.gates.iter().for_each(Gatekeeper::cut);
        // The end has to arrive.
        tokio::time::sleep(Duration::from_millis(50)).await;
        pair.count(&metastore, number, &table).await.unwrap();
    }
    pair.remove().await;
}

/// A server that stops in the middle of a conversation is left alone by the calls that follow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_costs_one_call() {
    let pair = Pair::new().await;
    let settings = MetastoreSettings { call_timeout: Duration::from_secs(2), connections_max: 1, ..pair.settings() };
    let metastore = Metastore::connect(&settings).await.unwrap();
    pair.number(&metastore).await.unwrap();
    let used = usize::from(pair.gates[1].arrivals() > 0);
    pair.gates[used].turn(Gate::Silent);
    let error = pair.number(&metastore).await.unwrap_err();
    assert!(matches!(error, MetastoreError::Timeout { .. }), "{error}");
    for _ in 0..10 {
        pair.number(&metastore).await.unwrap();
    }
    pair.remove().await;
}

/// Somebody upgrades one server after the other: as long as one of them ignores expected values, nothing is committed by them alone, and
/// what depends on them goes to the server that looks at them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_servers_that_differ_the_weakest_decides() {
    let (new, old) = (metastore_uri("4.0.1"), metastore_uri("3.1.3"));
    let settings = MetastoreSettings { uris: vec![old, new], idle_timeout: Duration::ZERO, ..MetastoreSettings::default() };
    let metastore = Metastore::connect(&settings).await.unwrap();
    let each = metastore.each_server();
    assert_eq!(metastore.compare_and_swap("default").await.unwrap(), CompareAndSwap::Ignored);
    assert_eq!(each[0].1.compare_and_swap("default").await.unwrap(), CompareAndSwap::Ignored);
    assert_eq!(each[1].1.compare_and_swap("default").await.unwrap(), CompareAndSwap::Honoured);
    // They have a database each here, so that it shows who was asked.
    let name = format!("failover_{}", Uuid::new_v4().simple());
    let mut view = HiveTable::view("default", &name, "SELECT 1 AS `one`", "SELECT 1 AS `one`");
    view.set_parameter("n", "0");
    each[1].1.create_table(&view).await.unwrap();
    let view = each[1].1.table("default", &name).await.unwrap().unwrap();
    for _ in 0..10 {
        let expecting = EnvironmentContext::new().without_statistics().expecting("n", "0");
        metastore.alter_table("default", &name, &view, &expecting).await.unwrap();
    }
    each[1].1.drop_table("default", &name, DeleteData::No).await.unwrap();
}
