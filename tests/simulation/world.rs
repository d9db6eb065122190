//! What the processes of a history have in common: the metastore, the files, the source, and two tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use iceberg::TableIdent;
use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};
use lakesmith::catalog::{CatalogSettings, HiveCatalog, Protocol};
use lakesmith::checkpoint::OffsetRange;
use lakesmith::metastore::{CompareAndSwap, Metastore, MetastoreSettings};
use lakesmith::retry::RetrySettings;
use lakesmith::storage::Storages;
use lakesmith::table::{Origin, TableSpec, UpkeepSettings};
use lakesmith::{Result, clock};

use super::check::Reader;
use super::metastore::{Expected, SimMetastore};
use super::process::{Process, Ways, Weather};

pub const BRONZE: &str = "bronze";
pub const SILVER: &str = "silver";

/// How tables are protected, and by what kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    Expected,
    LockAndExpected,
    /// On a server that ignores expected values.
    Lock,
    /// On a server that refuses calls with them.
    LockOnBroken,
}

impl Protection {
    /// Whether the server compares.
    pub fn compares(self) -> bool {
        matches!(self, Self::Expected | Self::LockAndExpected)
    }

    fn server(self) -> (Expected, CompareAndSwap) {
        match self {
            Self::Expected | Self::LockAndExpected => (Expected::Honoured, CompareAndSwap::Honoured),
            Self::Lock => (Expected::Ignored, CompareAndSwap::Ignored),
            Self::LockOnBroken => (Expected::Broken, CompareAndSwap::Broken { reason: "refused".to_owned() }),
        }
    }
}

/// What a history is about.
#[derive(Debug, Clone)]
pub struct Plan {
    pub protection: Protection,
    pub protocol: Protocol,
    /// Where each topic partition ends; they begin at 0.
    pub ends: BTreeMap<i32, i64>,
    /// Offsets of a partition that one batch takes.
    pub step: i64,
    pub snapshots_max: usize,
    pub manifests_to_merge: usize,
    pub commit_attempts: u32,
    /// Whether each process finds out by itself what the server makes of expected values, instead of being told.
    pub probes: bool,
}

impl Plan {
    /// Whether nothing that arrives late can move a pointer. A process that finds out by itself may meet nothing but failures, take the
    /// server for one that compares nothing, and then commit under the lock alone; without a lock it stops instead.
    pub fn is_fenced(&self) -> bool {
        match self.protection {
            Protection::Expected => true,
            Protection::LockAndExpected => !self.probes,
            Protection::Lock | Protection::LockOnBroken => false,
        }
    }

    /// The offsets of a range that have a record; the others are a transaction's markers.
    pub fn records(partition: i32, range: OffsetRange) -> impl Iterator<Item = i64> {
        (range.start..range.end).filter(move |offset| (offset * 7 + i64::from(partition)) % 5 != 4)
    }
}

pub struct World {
    pub plan: Plan,
    pub metastore: Arc<SimMetastore>,
    pub reader: Reader,
    /// Requests that the metastore will still get.
    under_way: Arc<AtomicUsize>,
    processes: AtomicUsize,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let (expected, _) = plan.protection.server();
        let metastore = Arc::new(SimMetastore::new(expected));
        Self { plan, metastore, reader: Reader::default(), under_way: Arc::default(), processes: AtomicUsize::new(0) }
    }

    pub fn process(&self, weather: Arc<dyn Weather>) -> Arc<Process> {
        let id = self.processes.fetch_add(1, Ordering::Relaxed);
        Process::new(id, self.metastore.clone(), weather, self.under_way.clone())
    }

    /// Connections of a process.
    pub async fn catalog(&self, process: &Arc<Process>) -> Result<HiveCatalog> {
        let settings = MetastoreSettings {
            uris: vec!["thrift://metastore:9083".to_owned()],
            user: Some("sim".to_owned()),
            call_timeout: Duration::from_secs(6),
            lock_timeout: Duration::from_secs(18),
            lock_heartbeat: Duration::from_secs(3),
            ..MetastoreSettings::default()
        };
        let metastore = Metastore::connect_through(&settings, Some(Arc::new(Ways(process.clone())))).await?;
        if !self.plan.probes {
            metastore.assume(self.plan.protection.server().1);
        }
        let storages = Storages::in_memory(self.reader.files.through(Arc::new(Ways(process.clone()))))?;
        let commit_retry = RetrySettings { attempts: self.plan.commit_attempts, ..CatalogSettings::default().commit_retry };
        Ok(HiveCatalog::with_protocol(metastore, storages, CatalogSettings { commit_retry }, self.plan.protocol))
    }

    pub fn spec(&self, name: &str) -> TableSpec {
        let required = |id, name: &str, kind| Arc::new(NestedField::required(id, name, Type::Primitive(kind)));
        let fields = [required(1, "partition", PrimitiveType::Int), required(2, "offset", PrimitiveType::Long)];
        let locks = (self.plan.protection != Protection::Expected).to_string();
        TableSpec {
            ident: TableIdent::from_strs(["lake", name]).expect("a name"),
            location: Some(format!("memory:///lake/{name}")),
            schema: Schema::builder().with_fields(fields).build().expect("a schema"),
            partition_by: Vec::new(),
            sort_by: Vec::new(),
            properties: BTreeMap::from([("engine.hive.lock-enabled".to_owned(), locks)]),
            comment: None,
        }
    }

    pub fn upkeep(&self) -> UpkeepSettings {
        UpkeepSettings {
            snapshots_max: self.plan.snapshots_max,
            manifests_to_merge: self.plan.manifests_to_merge,
            ..UpkeepSettings::default()
        }
    }

    /// Waits until the metastore has got whatever was sent to it.
    pub async fn quiet(&self) {
        while self.under_way.load(Ordering::Relaxed) > 0 {
            clock::sleep(Duration::from_secs(1)).await;
        }
    }
}

pub fn origin() -> Origin {
    Origin { topic: "sales".to_owned(), topic_id: Some("topic-1".to_owned()), cluster_id: Some("cluster-1".to_owned()) }
}
