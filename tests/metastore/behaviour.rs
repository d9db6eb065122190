//! What every metastore must do for lakesmith, whoever wrote it. `real` and `embedded` run all of it.

use std::collections::BTreeSet;
use std::time::Duration;

use lakesmith::metastore::thrift::Value;
use lakesmith::metastore::{
    Cascade, ColumnCheck, CompareAndSwap, DeleteData, EnvironmentContext, FieldSchema, Generation, HeldLock, HiveDatabase,
    HivePartition, HiveTable, IfNotExists, LockComponent, LockRequest, LockState, Metastore, MetastoreError, MetastoreSettings,
};
use uuid::Uuid;

/// A database of its own in some metastore.
pub struct Place {
    pub metastore: Metastore,
    pub database: String,
    pub location: String,
    generation: Generation,
}

pub fn settings(uri: &str) -> MetastoreSettings {
    MetastoreSettings { uris: vec![uri.into()], user: Some("lakesmith-test".into()), ..Default::default() }
}

impl Place {
    pub async fn new(metastore: Metastore) -> Self {
        let database = format!("metastore_test_{}", Uuid::new_v4().simple());
        metastore.create_database(&HiveDatabase::new(&database)).await.unwrap();
        let entry = metastore.database(&database).await.unwrap().unwrap();
        assert_eq!(entry.name(), database);
        let location = entry.location().unwrap().to_owned();
        let generation = metastore.abilities().await.unwrap().generation;
        Self { metastore, database, location, generation }
    }

    /// Older servers report some things by other exceptions, or not at all.
    fn is_old(&self) -> bool {
        matches!(self.generation, Generation::Two | Generation::Three)
    }

    /// Drops the database with all in it.
    pub async fn end(self) {
        self.metastore.drop_database(&self.database, DeleteData::Yes, Cascade::Yes).await.unwrap();
        assert_eq!(self.metastore.database(&self.database).await.unwrap(), None);
    }

    fn iceberg_table(&self, name: &str) -> HiveTable {
        let mut table = HiveTable::new(&self.database, name);
        table.set_location(&format!("{}/{name}", self.location));
        table.set_columns(&[
            FieldSchema::new("id", "bigint"),
            FieldSchema { comment: Some("Zoë's".into()), ..FieldSchema::new("price", "decimal(18,2)") },
        ]);
        table.set_formats(
            "org.apache.iceberg.mr.hive.HiveIcebergInputFormat",
            "org.apache.iceberg.mr.hive.HiveIcebergOutputFormat",
            "org.apache.iceberg.mr.hive.HiveIcebergSerDe",
        );
        table.set_owner("lakesmith-test");
        for (key, value) in [
            ("table_type", "ICEBERG"),
            ("metadata_location", "v0"),
            ("storage_handler", "org.apache.iceberg.mr.hive.HiveIcebergStorageHandler"),
        ] {
            table.set_parameter(key, value);
        }
        table
    }

    fn plain_table(&self, name: &str) -> HiveTable {
        let mut table = HiveTable::new(&self.database, name);
        table.set_location(&format!("{}/{name}", self.location));
        table.set_columns(&[FieldSchema::new("total", "bigint")]);
        table.set_partition_keys(&[FieldSchema::new("window_date", "string"), FieldSchema::new("hour", "int")]);
        table.set_formats(
            "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
            "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
        );
        table
    }

    fn partition(&self, of: &HiveTable, date: &str, hour: &str, version: &str) -> HivePartition {
        HivePartition::new(of, &[date, hour], &format!("{}/{}/versions/{version}", self.location, of.name()))
    }

    async fn entry(&self, name: &str) -> HiveTable {
        self.metastore.table(&self.database, name).await.unwrap().unwrap()
    }
}

fn stats_untouched() -> EnvironmentContext {
    EnvironmentContext::new().without_statistics()
}

macro_rules! assert_refused {
    ($result:expr, $variant:ident, $words:expr) => {
        match $result {
            Err(error @ MetastoreError::$variant { .. }) => {
                let text = error.to_string().to_lowercase();
                assert!(text.contains(&$words.to_lowercase()), "{text}");
            }
            other => panic!("expected {}, found {other:?}", stringify!($variant)),
        }
    };
}

pub async fn databases(place: &Place) {
    let (metastore, name) = (&place.metastore, place.database.as_str());
    assert!(metastore.databases().await.unwrap().contains(&name.to_owned()));
    assert_refused!(metastore.create_database(&HiveDatabase::new(name)).await, AlreadyExists, name);
    assert_refused!(metastore.create_database(&HiveDatabase::new("näme")).await, InvalidObject, "näme");
    assert_eq!(metastore.database("metastore_test_absent").await.unwrap(), None);
    let absent = metastore.drop_database("metastore_test_absent", DeleteData::No, Cascade::No).await;
    match absent {
        // A database that is missing is a null pointer to them.
        Err(MetastoreError::Meta { message, .. }) if place.is_old() => assert!(message.contains("NullPointer"), "{message}"),
        absent => assert_refused!(absent, NoSuchObject, "metastore_test_absent"),
    }

    let full = format!("{name}_full");
    let mut database = HiveDatabase::new(&full);
    database.set_location(&format!("{}/elsewhere", place.location));
    database.set_description("what it is for");
    database.set_owner("ann");
    database.set_parameter("k", "v");
    metastore.create_database(&database).await.unwrap();
    let kept = metastore.database(&full).await.unwrap().unwrap();
    assert_eq!((kept.description(), kept.owner(), kept.parameter("k")), ("what it is for", Some("ann"), Some("v")));
    assert_eq!(kept.location(), database.location());
    metastore.create_table(&HiveTable::view(&full, "v", "SELECT 1", "SELECT 1")).await.unwrap();
    assert_refused!(metastore.drop_database(&full, DeleteData::No, Cascade::No).await, InvalidOperation, "not empty");
    metastore.drop_database(&full, DeleteData::No, Cascade::Yes).await.unwrap();
}

/// What a server may change in an entry that is written back as it was read, unless it is told not to: statistics, and nothing else.
const OWNED_BY_THE_SERVER: [&str; 4] = ["COLUMN_STATS_ACCURATE", "numFiles", "numFilesErasureCoded", "totalSize"];

pub async fn tables(place: &Place) {
    let Place { metastore, database, .. } = place;
    let table = place.iceberg_table("First");
    metastore.create_table(&table).await.unwrap();
    assert_refused!(metastore.create_table(&table).await, AlreadyExists, "first");
    assert_refused!(
        metastore.create_table(&HiveTable::new("metastore_test_absent", "t")).await,
        InvalidObject,
        "metastore_test_absent"
    );
    assert_refused!(metastore.create_table(&HiveTable::new(database, "näme")).await, InvalidObject, "näme");
    assert_eq!(metastore.table(database, "absent").await.unwrap(), None);
    assert_eq!(metastore.table("metastore_test_absent", "absent").await.unwrap(), None);
    assert_eq!(metastore.tables(database).await.unwrap(), ["first"]);

    let read = place.entry("FIRST").await;
    assert_eq!((read.name(), read.table_type(), read.owner()), ("first", HiveTable::EXTERNAL, Some("lakesmith-test")));
    assert_eq!((read.columns(), read.location()), (table.columns(), table.location()));
    for (key, value) in table.parameters() {
        assert_eq!(read.parameter(key), Some(value));
    }
    assert!(read.create_time_s() > 0 && read.parameter("transient_lastDdlTime").is_some());
    assert!(read.id().is_some() || place.is_old());

    metastore.alter_table(database, "first", &read, &EnvironmentContext::new()).await.unwrap();
    assert_same_entry(&place.entry("first").await, &read, &OWNED_BY_THE_SERVER);
    metastore.alter_table(database, "first", &read, &stats_untouched()).await.unwrap();
    assert_same_entry(&place.entry("first").await, &read, &[]);

    let mut changed = read.clone();
    changed.set_parameter("added", "ü");
    changed.remove_parameter("storage_handler");
    changed.set_columns(&[table.columns(), vec![FieldSchema::new("more", "string")]].concat());
    changed.set_owner("bob");
    metastore.alter_table(database, "first", &changed, &stats_untouched()).await.unwrap();
    assert_same_entry(&place.entry("first").await, &changed, &[]);

    let absent = metastore.alter_table(database, "absent", &HiveTable::new(database, "absent"), &stats_untouched()).await;
    assert_refused!(absent, InvalidOperation, "absent");

    metastore.create_table(&place.iceberg_table("second")).await.unwrap();
    let mut renamed = changed.clone();
    renamed.set_name(database, "second");
    assert_refused!(metastore.alter_table(database, "first", &renamed, &stats_untouched()).await, InvalidOperation, "second");
    renamed.set_name(database, "third");
    metastore.alter_table(database, "first", &renamed, &stats_untouched()).await.unwrap();
    assert_eq!(
        metastore.tables(database).await.unwrap().into_iter().collect::<BTreeSet<_>>(),
        ["second", "third"].map(String::from).into()
    );

    for name in ["second", "third"] {
        metastore.drop_table(database, name, DeleteData::Yes).await.unwrap();
    }
    assert_refused!(metastore.drop_table(database, "third", DeleteData::No).await, NoSuchObject, "third");
}

fn assert_same_entry(found: &HiveTable, expected: &HiveTable, but_for: &[&str]) {
    let fields = |table: &HiveTable| -> Vec<(i16, Value)> {
        let fields = table.entry().fields().iter().filter(|(id, _)| *id != PARAMETERS);
        fields.map(|(id, value)| (*id, value.clone())).collect()
    };
    assert_eq!(fields(found), fields(expected));
    let parameters = |table: &HiveTable| -> Vec<(String, String)> {
        let parameters = table.parameters().into_iter().filter(|(key, _)| !but_for.contains(key));
        parameters.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    assert_eq!(parameters(found), parameters(expected));
}

/// `Table.parameters`: compared as a map, its order is nobody's.
const PARAMETERS: i16 = 9;

pub async fn views(place: &Place) {
    let Place { metastore, database, .. } = place;
    let mut view = HiveTable::view(database, "v", "SELECT 1 AS one", "SELECT 1 AS `one`");
    view.set_columns(&[FieldSchema::new("one", "int")]);
    metastore.create_table(&view).await.unwrap();
    let mut read = place.entry("v").await;
    assert!(read.is_view() && read.location().is_none());
    assert_eq!((read.view_original_text(), read.view_expanded_text()), (Some("SELECT 1 AS one"), Some("SELECT 1 AS `one`")));
    read.set_view_text("SELECT 2", "SELECT 2");
    metastore.alter_table(database, "v", &read, &stats_untouched()).await.unwrap();
    assert_eq!(place.entry("v").await.view_expanded_text(), Some("SELECT 2"));
    metastore.drop_table(database, "v", DeleteData::No).await.unwrap();
}

pub async fn compare_and_swap(place: &Place) {
    let Place { metastore, database, .. } = place;
    metastore.create_table(&place.iceberg_table("swapped")).await.unwrap();
    let mut table = place.entry("swapped").await;
    table.set_parameter("metadata_location", "v1");
    let expecting = |value: &str| stats_untouched().expecting("metadata_location", value);
    metastore.alter_table(database, "swapped", &table, &expecting("v0")).await.unwrap();
    table.set_parameter("metadata_location", "v2");
    let refused = metastore.alter_table(database, "swapped", &table, &expecting("v0")).await.unwrap_err();
    assert!(refused.is_modified_conflict() && refused.certainly_not_applied(), "{refused}");
    assert_eq!(place.entry("swapped").await.parameter("metadata_location"), Some("v1"));
    assert_eq!(metastore.compare_and_swap(database).await.unwrap(), CompareAndSwap::Honoured);
    let left: Vec<String> = metastore.tables(database).await.unwrap().into_iter().filter(|name| name.contains("probe")).collect();
    assert!(left.is_empty(), "{left:?}");
}

pub const WRITERS: usize = 4;
pub const COMMITS: usize = 10;

/// Writers with connections of their own count up in one parameter. No update may be lost.
pub async fn race(place: &Place, uri: &str) {
    let Place { metastore, database, .. } = place;
    let mut table = place.iceberg_table("raced");
    table.set_parameter("metadata_location", "0");
    metastore.create_table(&table).await.unwrap();
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let (database, settings) = (database.clone(), settings(uri));
        writers.push(tokio::spawn(async move {
            let metastore = Metastore::connect(&settings).await.unwrap();
            let mut committed = 0;
            while committed < COMMITS {
                let mut table = metastore.table(&database, "raced").await.unwrap().unwrap();
                let old: usize = table.parameter("metadata_location").unwrap().parse().unwrap();
                table.set_parameter("metadata_location", (old + 1).to_string());
                let expecting = stats_untouched().expecting("metadata_location", &old.to_string());
                match metastore.alter_table(&database, "raced", &table, &expecting).await {
                    Ok(()) => committed += 1,
                    Err(error) => assert!(error.is_modified_conflict(), "{error}"),
                }
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let end = place.entry("raced").await;
    assert_eq!(end.parameter("metadata_location"), Some((WRITERS * COMMITS).to_string().as_str()));
}

pub async fn partitions(place: &Place) {
    let Place { metastore, database, .. } = place;
    metastore.create_table(&place.plain_table("gold")).await.unwrap();
    let table = place.entry("gold").await;
    assert_eq!(table.partition_keys(), place.plain_table("gold").partition_keys());
    let first = place.partition(&table, "2024-07-01", "9", "a");
    let odd = place.partition(&table, "a/b=c d%", "10", "b");
    let add = async |partitions: &[HivePartition], exists| metastore.add_partitions(partitions, exists).await;
    add(&[first.clone(), odd.clone()], IfNotExists::No).await.unwrap();
    assert_refused!(add(std::slice::from_ref(&first), IfNotExists::No).await, AlreadyExists, "already exists");
    let more = place.partition(&table, "2024-07-02", "0", "c");
    add(&[first.clone(), more], IfNotExists::Yes).await.unwrap();
    let names = metastore.partition_names(database, "gold").await.unwrap();
    assert_eq!(names, ["window_date=2024-07-01/hour=9", "window_date=2024-07-02/hour=0", "window_date=a%2Fb%3Dc d%25/hour=10"]);

    let wanted = [names[2].clone(), "window_date=1999-01-01/hour=1".to_owned()];
    let found = metastore.partitions_by_names(database, "gold", &wanted).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].values(), found[0].location()), (odd.values(), odd.location()));
    assert_eq!((found[0].database(), found[0].table()), (database.as_str(), "gold"));
    assert_eq!(metastore.partitions(database, "gold").await.unwrap().len(), 3);

    let mut missing = first.clone();
    missing.set_location(&format!("{}/gold/versions/lost", place.location));
    let absent = place.partition(&table, "1999-01-01", "1", "d");
    let refused = metastore.alter_partitions(database, "gold", &[missing, absent], &stats_untouched()).await;
    assert_refused!(refused, InvalidOperation, "Alter partition operation failed");
    let still = metastore.partitions_by_names(database, "gold", &names[..1]).await.unwrap();
    assert_eq!(still[0].location(), first.location());

    let mut switched = still[0].clone();
    switched.set_location(&format!("{}/gold/versions/e", place.location));
    switched.set_parameter("lakesmith.epoch", "7");
    metastore.alter_partitions(database, "gold", &[switched.clone()], &stats_untouched()).await.unwrap();
    let read = metastore.partitions_by_names(database, "gold", &names[..1]).await.unwrap().remove(0);
    assert_eq!((read.location(), read.parameter("lakesmith.epoch")), (switched.location(), Some("7")));
    assert_eq!((read.columns(), read.serde_library()), (first.columns(), first.serde_library()));

    assert!(metastore.drop_partition(database, "gold", &odd.values(), DeleteData::No).await.unwrap());
    assert_refused!(metastore.drop_partition(database, "gold", &odd.values(), DeleteData::No).await, NoSuchObject, "");
    assert_eq!(metastore.partition_names(database, "gold").await.unwrap().len(), 2);

    let nowhere = place.partition(&HiveTable::new(database, "absent"), "a", "1", "f");
    assert_refused!(add(&[nowhere], IfNotExists::No).await, InvalidObject, "absent");
    match metastore.partition_names(database, "absent").await {
        Ok(names) => assert!(names.is_empty(), "{names:?}"),
        Err(error) => assert!(place.is_old(), "{error}"),
    }
    let refused = metastore.partitions_by_names(database, "absent", &names).await.unwrap_err();
    assert!(matches!(refused, MetastoreError::NoSuchObject { .. } | MetastoreError::InvalidObject { .. }), "{refused}");
}

/// What a server does to statistics that it is sent: it depends on the environment.
pub async fn partition_statistics(place: &Place) {
    let Place { metastore, database, .. } = place;
    metastore.create_table(&place.plain_table("counted")).await.unwrap();
    let table = place.entry("counted").await;
    let mut partition = place.partition(&table, "2024-07-01", "9", "a");
    let claims = [("numRows", "1000"), ("totalSize", "5"), ("COLUMN_STATS_ACCURATE", "{\"BASIC_STATS\":\"true\"}")];
    for (key, value) in claims {
        partition.set_parameter(key, value);
    }
    metastore.add_partitions(std::slice::from_ref(&partition), IfNotExists::No).await.unwrap();
    let read = async || metastore.partitions(database, "counted").await.unwrap().remove(0);
    let added = read().await;
    // The directory was not there: nothing to count.
    assert_eq!((added.parameter("numFiles"), added.parameter("totalSize")), (None, Some("5")));

    let alter = async |environment: EnvironmentContext| {
        metastore.alter_partitions(database, "counted", std::slice::from_ref(&partition), &environment).await.unwrap();
        read().await
    };
    let counted = alter(EnvironmentContext::new()).await;
    assert_eq!((counted.parameter("numRows"), counted.parameter("COLUMN_STATS_ACCURATE")), (Some("1000"), None));
    assert_eq!((counted.parameter("numFiles"), counted.parameter("totalSize")), (Some("0"), Some("0")));
    let own = alter(EnvironmentContext::new().with_own_statistics()).await;
    assert_eq!((own.parameter("totalSize"), own.parameter("COLUMN_STATS_ACCURATE")), (Some("0"), Some(claims[2].1)));
    let untouched = alter(stats_untouched()).await;
    assert_eq!((untouched.parameter("totalSize"), untouched.parameter("COLUMN_STATS_ACCURATE")), (Some("5"), Some(claims[2].1)));
    assert!(untouched.parameter("numFiles").is_none() && untouched.parameter("transient_lastDdlTime").is_some());
}

pub async fn locks(place: &Place, uri: &str) {
    let Place { metastore, database, .. } = place;
    let held = HeldLock::acquire(metastore, database, "locked").await.unwrap();
    held.ensure_held().await.unwrap();
    let shown = metastore.show_locks(database, "locked").await.unwrap();
    assert_eq!((shown.len(), shown[0].lock_id, shown[0].state), (1, held.id(), LockState::Acquired));
    assert!(shown[0].agent.as_deref().unwrap().starts_with("lakesmith-") && shown[0].acquired_at_ms.is_some());
    metastore.heartbeat(held.id()).await.unwrap();

    let hasty = MetastoreSettings { lock_timeout: Duration::from_millis(200), ..settings(uri) };
    let other = Metastore::connect(&hasty).await.unwrap();
    let refused = HeldLock::acquire(&other, database, "locked").await.unwrap_err().chain();
    assert!(refused.contains(&format!("lock {} of ", held.id())) && refused.contains("held since"), "{refused}");
    // Another name is free.
    HeldLock::acquire(&other, database, "unlocked").await.unwrap().release().await.unwrap();
    held.ensure_held().await.unwrap();
    held.release().await.unwrap();

    // One that waits gets it when it is free. Letting go without a word gives it back too.
    let held = HeldLock::acquire(&other, database, "locked").await.unwrap();
    let waiting = tokio::spawn({
        let (metastore, database) = (metastore.clone(), database.clone());
        async move { HeldLock::acquire(&metastore, &database, "locked").await.unwrap() }
    });
    drop(held);
    waiting.await.unwrap().release().await.unwrap();

    // A lock that somebody took away is reported by whoever believes to hold it.
    let held = HeldLock::acquire(metastore, database, "locked").await.unwrap();
    other.unlock(held.id()).await.unwrap();
    assert!(held.ensure_held().await.is_err());
    let id = held.id();
    // To let go of what is gone is no error to a server.
    held.release().await.unwrap();
    metastore.unlock(id).await.unwrap();
    assert_refused!(metastore.check_lock(id).await, Lock, id.to_string());
    assert_refused!(metastore.heartbeat(id).await, Lock, id.to_string());

    let request = LockRequest {
        components: vec![LockComponent::exclusive(database, "a"), LockComponent::exclusive(database, "b")],
        user: "ann".into(),
        hostname: "here".into(),
        agent: "by hand".into(),
    };
    let response = metastore.lock(&request).await.unwrap();
    assert_eq!(response.state, LockState::Acquired);
    assert_eq!(metastore.show_locks(database, "b").await.unwrap()[0].agent.as_deref(), Some("by hand"));
    metastore.unlock(response.lock_id).await.unwrap();
}

/// What a server says that it can do is what it is known to do.
pub async fn abilities(place: &Place, version: &str, generation: Generation, verdict: CompareAndSwap) {
    let Place { metastore, database, .. } = place;
    assert_eq!(metastore.compare_and_swap(database).await.unwrap(), verdict);
    assert_eq!(
        metastore.config_value("metastore.no.such.setting", "mine").await.ok(),
        (generation != Generation::Two).then(|| "mine".into())
    );
    let abilities = metastore.abilities().await.unwrap();
    assert_eq!((abilities.generation, abilities.table_request, abilities.locks_broken.clone()), (generation, true, None));
    assert!(abilities.version.starts_with(if place.is_old() { "3.0" } else { version }), "{abilities}");
    assert_eq!(abilities.ends_dead_locks, Some(true), "{abilities}");
    let (exempts_iceberg, is_lifted) = match &abilities.column_check {
        ColumnCheck::Off => (None, false),
        ColumnCheck::ByPosition { exempt, can_be_lifted } => {
            (Some(exempt.iter().any(|serde| serde.ends_with("HiveIcebergSerDe"))), *can_be_lifted)
        }
    };
    assert_eq!(is_lifted, matches!(generation, Generation::Three | Generation::Four), "{abilities}");
    let expected = match generation {
        Generation::Embedded => None,
        Generation::Two | Generation::Three => Some(false),
        Generation::Four => Some(true),
    };
    assert_eq!(exempts_iceberg, expected, "{abilities}");
    assert_eq!(abilities.lock_timeout.is_some(), generation != Generation::Embedded, "{abilities}");

    // Said, it is also done: types are compared by position, unless the SerDe is exempt, or the server is told not to.
    let mut table = place.iceberg_table("compared");
    metastore.create_table(&table).await.unwrap();
    let mut plain = place.iceberg_table("plain");
    plain.remove_parameter("table_type");
    plain.set_formats(
        "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
        "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
        "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
    );
    metastore.create_table(&plain).await.unwrap();
    let columns = [FieldSchema::new("id", "date"), FieldSchema::new("price", "decimal(18,2)")];
    for (name, table, is_exempt) in
        [("compared", &mut table, exempts_iceberg), ("plain", &mut plain, exempts_iceberg.map(|_| false))]
    {
        let before = table.columns();
        table.set_columns(&columns);
        match metastore.alter_table(database, name, table, &stats_untouched()).await {
            Err(error) => {
                let is_checked = is_exempt == Some(false) && !is_lifted;
                assert!(error.is_of_column_types() && error.certainly_not_applied() && is_checked, "{error}");
                assert_eq!(place.entry(name).await.columns(), before);
            }
            Ok(()) => {
                assert!(is_exempt != Some(false) || is_lifted, "{abilities}");
                assert_eq!(place.entry(name).await.columns(), columns);
            }
        }
    }
    // The way out: it compares no further than the shorter list is long.
    let all = table.columns();
    for columns in [&[][..], &all] {
        table.set_columns(columns);
        metastore.alter_table(database, "compared", &table, &stats_untouched()).await.unwrap();
        assert_eq!(place.entry("compared").await.columns(), columns);
    }
}
