//! Gold against metastores and file systems: the embedded metastore with local files, and real ones of every version with HDFS.
//! What gold's table holds is compared with DataFusion's `GROUP BY` over silver.

mod faults;
mod lake;
mod maintenance;
mod redefinition;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::{
    Array, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use async_trait::async_trait;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use futures::stream::BoxStream;
use lakesmith::checkpoint::{Checkpoint, Coverage, Delta, OffsetRange, PartitionId, parse_positions};
use lakesmith::gold::{GoldMaintainer, GoldPlan, GoldSettings, MeasureSettings, SilverRows, TimeFilter, null_columns};
use lakesmith::hive::read_version;
use lakesmith::metastore::embedded::{EmbeddedMetastore, serve};
use lakesmith::metastore::{Cascade, DeleteData, HivePartition, Metastore, MetastoreSettings};
use lakesmith::record::INSTANT;
use lakesmith::storage::{StorageSettings, Storages};
use uuid::Uuid;

use crate::servers::{metastore_uri, variable};

const MINUTE: i64 = 60_000_000;
/// 2024-07-01 12:00 UTC.
const NOON: i64 = 1_719_835_200_000_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// Where a test's tables live.
struct Place {
    metastore: Metastore,
    storages: Storages,
    database: String,
    embedded: Option<(EmbeddedMetastore, tempfile::TempDir)>,
}

impl Place {
    async fn embedded() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = serve(&directory.path().join("metastore.db"), "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let storage = StorageSettings { warehouse: directory.path().display().to_string(), ..StorageSettings::default() };
        let uri = server.uri();
        Self::new(uri, storage, Some((server, directory))).await
    }

    async fn of_version(version: &str) -> Self {
        let storage = StorageSettings {
            warehouse: format!("{}/lakesmith-tests/gold-{}", variable("HDFS_URL").trim_end_matches('/'), Uuid::new_v4().simple()),
            hadoop_conf_dir: Some(PathBuf::from(variable("HADOOP_CONF_DIR"))),
            ..StorageSettings::default()
        };
        Self::new(metastore_uri(version), storage, None).await
    }

    async fn new(uri: String, storage: StorageSettings, embedded: Option<(EmbeddedMetastore, tempfile::TempDir)>) -> Self {
        let settings = MetastoreSettings {
            uris: uri.split(',').map(str::to_owned).collect(),
            lock_timeout: Duration::from_millis(300),
            ..MetastoreSettings::default()
        };
        let metastore = Metastore::connect(&settings).await.unwrap();
        let database = format!("gold_{}", Uuid::new_v4().simple());
        Self { metastore, storages: Storages::new(&storage).unwrap(), database, embedded }
    }

    fn settings(&self) -> GoldSettings {
        GoldSettings {
            table: "sales_by_minute".into(),
            location: format!("{}/gold/sales_by_minute", self.storages.warehouse()),
            view: "sales_by_minute_view".into(),
            dimensions: vec!["Category".into()],
            measures: [
                ("TotalOrders", "COUNT(*)"),
                ("TotalRevenue", "SUM(Amount)"),
                ("AvgOrderValue", "AVG(Amount)"),
                ("UniqueCustomers", "COUNT(DISTINCT CustomerID)"),
            ]
            .map(|(name, sql)| MeasureSettings::new(name, sql))
            .into(),
            ..GoldSettings::default()
        }
    }

    fn plan(&self) -> GoldPlan {
        GoldPlan::new(&self.settings(), &silver_schema()).unwrap()
    }

    async fn open(&self, silver: &dyn SilverRows) -> lakesmith::Result<GoldMaintainer> {
        GoldMaintainer::open(self.plan(), &self.database, &self.metastore, &self.storages, silver).await
    }

    async fn partitions(&self) -> Vec<HivePartition> {
        self.metastore.partitions(&self.database, "sales_by_minute").await.unwrap()
    }

    /// The partition of a day, such as `2024-07-01`.
    async fn partition(&self, day: &str) -> HivePartition {
        self.partitions().await.into_iter().find(|partition| partition.values() == [day]).unwrap()
    }

    async fn rows(&self, partition: &HivePartition) -> RecordBatch {
        self.rows_of(&self.plan(), partition).await
    }

    async fn rows_of(&self, plan: &GoldPlan, partition: &HivePartition) -> RecordBatch {
        let may_lack = null_columns(partition);
        let files = read_version(&self.storages, partition.location().unwrap(), plan.schema(), &may_lack).await.unwrap();
        let batches: Vec<RecordBatch> = files.into_iter().map(|file| file.rows).collect();
        assert_eq!(batches.len().to_string(), partition.parameter("numFiles").unwrap());
        let rows = concat_batches(plan.schema(), &batches).unwrap();
        assert_eq!(rows.num_rows().to_string(), partition.parameter("numRows").unwrap());
        rows
    }

    /// Every partition is the `GROUP BY` of silver at the positions that it names.
    async fn assert_equals_group_by(&self, silver: &Silver) {
        self.assert_equals_group_by_of(&self.plan(), silver).await;
    }

    async fn assert_equals_group_by_of(&self, plan: &GoldPlan, silver: &Silver) {
        for partition in self.partitions().await {
            let positions = parse_positions(partition.parameter("lakesmith.positions").unwrap()).unwrap();
            let seen =
                silver.select(|partition, offset| positions.get(&partition).is_some_and(|known| known.range.contains(offset)));
            let date = &partition.values()[0];
            let context = session();
            context.register_batch("silver", seen).unwrap();
            let sql = format!(
                "SELECT * FROM ({}) WHERE CAST(CAST(window_start AS DATE) AS VARCHAR) = '{date}'",
                plan.group_by_sql("silver")
            );
            let answer = context.sql(&sql).await.unwrap().collect().await.unwrap();
            let answer: Vec<RecordBatch> = answer.iter().map(|rows| plan.from_group_by(rows).unwrap()).collect();
            let expected = sorted(&concat_batches(plan.schema(), &answer).unwrap());
            let found = self.rows_of(plan, &partition).await;
            assert_eq!(found, sorted(&found), "{date}: rows stand in the order of window and dimensions");
            assert_eq!(found, expected, "{date}");
        }
    }

    async fn remove(self) {
        self.metastore.drop_database(&self.database, DeleteData::Yes, Cascade::Yes).await.unwrap();
        match self.embedded {
            Some((server, _directory)) => server.shutdown().await,
            None => {
                self.storages.delete_dir(&self.storages.warehouse()).await.unwrap();
            }
        }
    }
}

fn session() -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().set_bool("datafusion.sql_parser.enable_ident_normalization", false))
}

fn sorted(rows: &RecordBatch) -> RecordBatch {
    // Window and dimensions; the first measure is a count.
    let is_key = |field: &&Arc<Field>| matches!(field.data_type(), DataType::Utf8 | DataType::Timestamp(_, _));
    let schema = rows.schema();
    let names: Vec<&str> = schema.fields().iter().take_while(is_key).map(|field| field.name().as_str()).collect();
    let keys: Vec<_> = names.iter().filter_map(|name| rows.column_by_name(name).cloned()).collect();
    let converter = RowConverter::new(keys.iter().map(|key| SortField::new(key.data_type().clone())).collect()).unwrap();
    let keys = converter.convert_columns(&keys).unwrap();
    let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
    order.sort_by_key(|row| keys.row(*row as usize));
    take_record_batch(rows, &UInt32Array::from(order)).unwrap()
}

fn silver_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("kafka_timestamp", INSTANT, true),
        Field::new("Category", DataType::Utf8, true),
        Field::new("Amount", DataType::Decimal128(18, 2), true),
        Field::new("CustomerID", DataType::Utf8, true),
        Field::new("processing_timestamp", INSTANT, false),
    ]))
}

/// Some rows at an instant, the next offsets of a topic partition; what is in them follows from partition and offset.
fn sales(partition: PartitionId, first_offset: i64, count: i64, instant_us: i64) -> RecordBatch {
    let offsets = first_offset..first_offset + count;
    let amounts: Decimal128Array =
        offsets.clone().map(|offset| (offset % 11 != 0).then_some(i128::from(offset * 37 % 10_000))).collect();
    let categories: StringArray = offsets
        .clone()
        .map(|offset| (offset % 5 != 0).then(|| format!("category {}", (offset + i64::from(partition)) % 3)))
        .collect();
    RecordBatch::try_new(
        silver_schema(),
        vec![
            Arc::new(offsets.clone().map(|_| Some(partition)).collect::<Int32Array>()),
            Arc::new(offsets.clone().map(Some).collect::<Int64Array>()),
            Arc::new(offsets.clone().map(|offset| Some(instant_us + offset)).collect::<TimestampMicrosecondArray>()),
            Arc::new(categories),
            Arc::new(amounts.with_precision_and_scale(18, 2).unwrap()),
            Arc::new(offsets.clone().map(|offset| Some(format!("customer {}", offset % 7))).collect::<StringArray>()),
            Arc::new(offsets.map(|_| Some(instant_us)).collect::<TimestampMicrosecondArray>()),
        ],
    )
    .unwrap()
}

fn clock(instant_us: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(instant_us).unwrap())
}

/// Silver in memory, for what a real table would not do on demand: go back, lose rows, be another one.
#[derive(Clone)]
struct Silver {
    uuid: Uuid,
    rows: RecordBatch,
    checkpoint: Checkpoint,
}

impl Silver {
    fn new() -> Self {
        Self {
            uuid: Uuid::new_v4(),
            rows: RecordBatch::new_empty(silver_schema()),
            checkpoint: Checkpoint::start("sales", None, None),
        }
    }

    /// Commits rows that continue a topic partition.
    fn commit(&mut self, partition: PartitionId, count: i64, instant_us: i64) -> (RecordBatch, Delta) {
        let start = self.checkpoint.next_offset(partition).unwrap_or(0);
        let rows = sales(partition, start, count, instant_us);
        let coverage = Coverage { range: OffsetRange::new(start, start + count), records: count as u64 };
        let delta = Delta { partitions: BTreeMap::from([(partition, coverage)]) };
        self.rows = concat_batches(&silver_schema(), [&self.rows, &rows]).unwrap();
        self.checkpoint = self.checkpoint.advance(&delta).unwrap();
        (rows, delta)
    }

    fn select(&self, wanted: impl Fn(PartitionId, i64) -> bool) -> RecordBatch {
        let column = |name: &str| self.rows.column_by_name(name).unwrap().clone();
        let (partitions, offsets) = (column("partition"), column("offset"));
        let partitions = partitions.as_any().downcast_ref::<Int32Array>().unwrap();
        let offsets = offsets.as_any().downcast_ref::<Int64Array>().unwrap();
        let kept: UInt32Array = (0..self.rows.num_rows())
            .filter(|row| wanted(partitions.value(*row), offsets.value(*row)))
            .map(|row| Some(row as u32))
            .collect();
        take_record_batch(&self.rows, &kept).unwrap()
    }
}

#[async_trait]
impl SilverRows for Silver {
    fn table_uuid(&self) -> Uuid {
        self.uuid
    }

    fn snapshot_id(&self) -> Option<i64> {
        Some(self.rows.num_rows() as i64)
    }

    fn positions(&self) -> lakesmith::Result<Option<Checkpoint>> {
        Ok((!self.checkpoint.partitions.is_empty()).then(|| self.checkpoint.clone()))
    }

    async fn read(
        &self,
        ranges: &BTreeMap<PartitionId, OffsetRange>,
        columns: &[&str],
        _filter: Option<TimeFilter<'_>>,
    ) -> lakesmith::Result<BoxStream<'static, lakesmith::Result<RecordBatch>>> {
        let rows = self.select(|partition, offset| ranges.get(&partition).is_some_and(|range| range.contains(offset)));
        let columns: Vec<usize> = columns.iter().map(|name| rows.schema().index_of(name).unwrap()).collect();
        let rows = rows.project(&columns).unwrap();
        let parts: Vec<_> =
            (0..rows.num_rows()).step_by(100).map(|at| Ok(rows.slice(at, 100.min(rows.num_rows() - at)))).collect();
        Ok(futures::stream::iter(parts).boxed())
    }
}

/// Runs tests on a place that an expression makes, in a module of its own.
macro_rules! on {
    ($module:ident, $place:expr, $($name:ident),+ $(,)?) => {
        mod $module {
            use crate::gold::Place;

            $(#[tokio::test]
            async fn $name() {
                super::$name($place).await;
            })+
        }
    };
}
use on;

/// Runs tests on the embedded metastore with local files, and on real metastores of every version with HDFS.
macro_rules! on_every_metastore {
    ($($name:ident),+ $(,)?) => {
        $crate::gold::on!(embedded, Place::embedded().await, $($name),+);
        $crate::gold::on!(hms_4_0_1, Place::of_version("4.0.1").await, $($name),+);
        $crate::gold::on!(hms_3_1_3, Place::of_version("3.1.3").await, $($name),+);
        $crate::gold::on!(hms_2_3_10, Place::of_version("2.3.10").await, $($name),+);
        $crate::gold::on!(hms_2_3_9, Place::of_version("2.3.9").await, $($name),+);
        $crate::gold::on!(hms_4_1_0, Place::of_version("4.1.0").await, $($name),+);
        $crate::gold::on!(hms_4_2_1, Place::of_version("4.2.1").await, $($name),+);
    };
}
use on_every_metastore;
