//! Entries as Spark, Trino, Hive, Impala and pyiceberg leave them in a metastore: they are read and committed on, and what the others have
//! put there stays.

use iceberg::TableIdent;
use lakesmith::checkpoint::OffsetRange;
use lakesmith::metastore::thrift::Value;
use lakesmith::metastore::{DeleteData, HiveTable};

use super::lake::{Lake, append, offsets};

super::on_every_lake!(entries_of_others_are_committed_on_and_keep_what_is_theirs);

/// An entry as one writer has it.
struct Writer {
    name: &'static str,
    table_type: &'static str,
    formats: [&'static str; 3],
    owner: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    serde_parameters: &'static [(&'static str, &'static str)],
    /// Whether the table's own properties let Hive read it.
    hive_enabled: bool,
}

const PLAIN: [&str; 3] = [
    "org.apache.hadoop.mapred.FileInputFormat",
    "org.apache.hadoop.mapred.FileOutputFormat",
    "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
];
const ICEBERG: [&str; 3] = [
    "org.apache.iceberg.mr.hive.HiveIcebergInputFormat",
    "org.apache.iceberg.mr.hive.HiveIcebergOutputFormat",
    "org.apache.iceberg.mr.hive.HiveIcebergSerDe",
];
const HANDLER: (&str, &str) = ("storage_handler", "org.apache.iceberg.mr.hive.HiveIcebergStorageHandler");

const WRITERS: [Writer; 5] = [
    Writer {
        name: "spark",
        table_type: "ICEBERG",
        formats: PLAIN,
        owner: "root",
        parameters: &[("owner", "root"), ("write.parquet.compression-codec", "zstd")],
        serde_parameters: &[],
        hive_enabled: false,
    },
    Writer {
        name: "trino",
        table_type: "iceberg",
        formats: PLAIN,
        owner: "trino",
        parameters: &[("trino_version", "476"), ("trino_query_id", "20250101_000000_00001_abcde"), ("comment", "für alle")],
        serde_parameters: &[("serialization.format", "1")],
        hive_enabled: false,
    },
    Writer {
        name: "hive",
        table_type: "ICEBERG",
        formats: ICEBERG,
        owner: "hive",
        parameters: &[
            HANDLER,
            ("engine.hive.enabled", "true"),
            ("bucketing_version", "2"),
            ("last_modified_by", "hive"),
            ("last_modified_time", "1719835200"),
            ("TRANSLATED_TO_EXTERNAL", "TRUE"),
        ],
        serde_parameters: &[("serialization.format", "1")],
        hive_enabled: true,
    },
    Writer {
        name: "impala",
        table_type: "ICEBERG",
        formats: ICEBERG,
        owner: "impala",
        parameters: &[
            HANDLER,
            ("engine.hive.enabled", "true"),
            ("external.table.purge", "TRUE"),
            ("OBJCAPABILITIES", "EXTREAD,EXTWRITE"),
            ("impala.events.catalogServiceId", "ab12:cd34"),
            ("impala.lastComputeStatsTime", "1719835200"),
        ],
        serde_parameters: &[],
        hive_enabled: true,
    },
    Writer {
        name: "pyiceberg",
        table_type: "ICEBERG",
        formats: PLAIN,
        owner: "ann",
        parameters: &[],
        serde_parameters: &[],
        hive_enabled: false,
    },
];

/// What a commit may change: it follows from the table's metadata, or the server counts it up.
const OURS: [&str; 17] = [
    "metadata_location",
    "previous_metadata_location",
    "uuid",
    "current-schema",
    "current-snapshot-id",
    "current-snapshot-summary",
    "current-snapshot-timestamp-ms",
    "default-partition-spec",
    "default-sort-order",
    "snapshot-count",
    "numFiles",
    "numRows",
    "totalSize",
    "transient_lastDdlTime",
    "engine.hive.lock-enabled",
    "COLUMN_STATS_ACCURATE",
    "numFilesErasureCoded",
];

fn theirs(entry: &HiveTable) -> Vec<(String, String)> {
    let parameters = entry.parameters().into_iter();
    let parameters = parameters.filter(|(key, _)| !OURS.contains(key) && !key.starts_with("lakesmith."));
    parameters.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Every field of the entry but its parameters, which are compared as a map.
fn fields(entry: &HiveTable) -> Vec<(i16, Value)> {
    const PARAMETERS: i16 = 9;
    entry.entry().fields().iter().filter(|(id, _)| *id != PARAMETERS).map(|(id, value)| (*id, value.clone())).collect()
}

async fn entries_of_others_are_committed_on_and_keep_what_is_theirs(lake: &Lake) {
    let metastore = lake.catalog.metastore();
    for writer in &WRITERS {
        let mut spec = lake.spec(writer.name, &["Year"]);
        spec.properties.insert("engine.hive.enabled".to_owned(), writer.hive_enabled.to_string());
        let table = lakesmith::table::LakeTable::open_or_create(&lake.catalog, &spec).await.unwrap();
        let lock = table.metadata().properties()["engine.hive.lock-enabled"].clone();
        let location = table.metadata_location().to_owned();
        let columns = metastore.table(&lake.database, writer.name).await.unwrap().unwrap().columns();
        // The same table under the entry that the other writer would have made.
        metastore.drop_table(&lake.database, writer.name, DeleteData::No).await.unwrap();
        let mut entry = HiveTable::new(&lake.database, writer.name);
        entry.set_owner(writer.owner);
        entry.set_location(table.metadata().location());
        entry.set_columns(&columns);
        let [input, output, serde] = writer.formats;
        entry.set_formats(input, output, serde);
        writer.serde_parameters.iter().for_each(|(key, value)| entry.set_serde_parameter(key, value));
        writer.parameters.iter().for_each(|(key, value)| entry.set_parameter(key, value));
        entry.set_parameter("table_type", writer.table_type);
        entry.set_parameter("metadata_location", &location);
        metastore.create_table(&entry).await.unwrap();
        let before = metastore.table(&lake.database, writer.name).await.unwrap().unwrap();

        let ident = TableIdent::from_strs([&lake.database, writer.name]).unwrap();
        let mut table = lake.open(&lake.catalog, writer.name).await;
        append(&mut table, 0, OffsetRange::new(0, 3)).await;
        append(&mut table, 0, OffsetRange::new(3, 6)).await;
        assert_eq!(offsets(&lake.open(&lake.catalog, writer.name).await, None).await, (0..6).collect::<Vec<_>>());

        let after = metastore.table(&lake.database, writer.name).await.unwrap().unwrap();
        let name = writer.name;
        assert_eq!(after.parameter("metadata_location"), Some(table.metadata_location()), "{name}");
        assert_eq!(after.parameter("numRows"), Some("6"), "{name}");
        for (key, value) in theirs(&before) {
            assert_eq!(after.parameter(&key), Some(value.as_str()), "{name}: {key}");
        }
        assert_eq!(without_write_id(fields(&after)), without_write_id(fields(&before)), "{name}");
        assert_eq!(after.columns(), columns, "{name}");
        assert_eq!((after.input_format(), after.serde_library()), (Some(input), Some(serde)), "{name}");
        assert_eq!(after.parameter("engine.hive.lock-enabled"), Some(lock.as_str()), "{name}");

        // Another name, and out of the metastore and back, as any table.
        let catalog: &dyn iceberg::Catalog = &lake.catalog;
        let renamed = TableIdent::from_strs([&lake.database, &format!("{name}_renamed")]).unwrap();
        catalog.rename_table(&ident, &renamed).await.unwrap();
        let moved = metastore.table(&lake.database, renamed.name()).await.unwrap().unwrap();
        assert_eq!((theirs(&moved), moved.owner()), (theirs(&after), Some(writer.owner)), "{name}");
    }
}

/// Servers number a table's changes in fields that nobody sends.
fn without_write_id(fields: Vec<(i16, Value)>) -> Vec<(i16, Value)> {
    const WRITE_ID: i16 = 19;
    fields.into_iter().filter(|(id, _)| *id != WRITE_ID).collect()
}
