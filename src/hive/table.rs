//! Entries of plain Hive tables: created where they are missing, compared where they exist.

use std::collections::BTreeMap;

use tracing::info;

use crate::error::{Context, Error, Result};
use crate::metastore::{FieldSchema, HiveDatabase, HiveTable, Metastore, MetastoreError};
use crate::storage::Storages;

/// How the files of a table are read and written, in Hive's classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    Parquet,
    /// One JSON object per line. Of the SerDes for it this is the one that Trino knows as well; Hive has to be given its jar
    /// (`hive-hcatalog-core`), and Spark reads with its own source, which the table's parameters name.
    JsonText,
}

struct Classes {
    /// For people.
    name: &'static str,
    input_format: &'static str,
    output_format: &'static str,
    serde: &'static str,
}

const PARQUET: Classes = Classes {
    name: "Parquet",
    input_format: "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    output_format: "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    serde: "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
};
const JSON_TEXT: Classes = Classes {
    name: "JSON text",
    input_format: "org.apache.hadoop.mapred.TextInputFormat",
    output_format: "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
    serde: "org.apache.hive.hcatalog.data.JsonSerDe",
};

impl FileFormat {
    fn classes(self) -> &'static Classes {
        match self {
            Self::Parquet => &PARQUET,
            Self::JsonText => &JSON_TEXT,
        }
    }

    /// The format of an entry's files; none for one that is neither.
    pub fn of(entry: &HiveTable) -> Option<Self> {
        let serde = entry.serde_library();
        [Self::Parquet, Self::JsonText].into_iter().find(|format| serde == Some(format.classes().serde))
    }
}

/// An external table as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiveTableSpec {
    pub database: String,
    pub name: String,
    /// Directory of the table, a full URI.
    pub location: String,
    pub format: FileFormat,
    /// Columns of the files; names in lower case.
    pub columns: Vec<FieldSchema>,
    pub partition_keys: Vec<FieldSchema>,
    /// Parameters that a new table gets.
    pub parameters: BTreeMap<String, String>,
    /// Parameters of the SerDe, beside those that every table has.
    pub serde_parameters: BTreeMap<String, String>,
}

impl HiveTableSpec {
    fn entry(&self, owner: &str) -> HiveTable {
        let mut table = HiveTable::new(&self.database, &self.name);
        table.set_owner(owner);
        table.set_location(&self.location);
        table.set_columns(&self.columns);
        table.set_partition_keys(&self.partition_keys);
        let classes = self.format.classes();
        table.set_formats(classes.input_format, classes.output_format, classes.serde);
        table.set_serde_parameter("serialization.format", "1");
        for (key, value) in &self.serde_parameters {
            table.set_serde_parameter(key, value);
        }
        for (key, value) in &self.parameters {
            table.set_parameter(key, value);
        }
        table
    }

    /// Stops if the entry is not such a table. Further columns, which others may have added, and the order of columns don't matter:
    /// the files' columns are found by name.
    fn ensure_matches(&self, entry: &HiveTable) -> Result<()> {
        let name = format!("table {}.{}", self.database, self.name);
        let stop = |what: String| {
            Error::stop(format!("{name} {what}")).hint(format!(
                "give the new definition a table of its own, or drop {}.{} to have it written anew",
                self.database, self.name
            ))
        };
        if entry.table_type() != HiveTable::EXTERNAL
            || entry.parameter("EXTERNAL").is_none_or(|text| !text.eq_ignore_ascii_case("true"))
        {
            return Err(stop(format!("is of the type {}, not an external table", entry.table_type())));
        }
        if FileFormat::of(entry) != Some(self.format) {
            let (found, wanted) = (entry.serde_library().unwrap_or("nothing"), self.format.classes().name);
            return Err(stop(format!("is stored as {found}, not as {wanted}")));
        }
        let keys = |keys: &[FieldSchema]| {
            keys.iter().map(|key| format!("{} {}", key.name, key.hive_type)).collect::<Vec<_>>().join(", ")
        };
        if keys(&entry.partition_keys()) != keys(&self.partition_keys) {
            let (found, wanted) = (keys(&entry.partition_keys()), keys(&self.partition_keys));
            return Err(stop(format!("is partitioned by ({found}), not by ({wanted})")));
        }
        let found: BTreeMap<String, String> =
            entry.columns().into_iter().map(|column| (column.name.to_lowercase(), column.hive_type)).collect();
        let differences: Vec<String> = self
            .columns
            .iter()
            .filter_map(|column| match found.get(&column.name) {
                None => Some(format!("{} is missing", column.name)),
                Some(hive_type) if !hive_type.eq_ignore_ascii_case(&column.hive_type) => {
                    Some(format!("{} is {hive_type}, not {}", column.name, column.hive_type))
                }
                Some(_) => None,
            })
            .collect();
        if differences.is_empty() { Ok(()) } else { Err(stop(format!("has other columns: {}", differences.join(", ")))) }
    }
}

/// Creates a database that is missing; `location` is its directory, else the metastore's default.
pub async fn ensure_database(metastore: &Metastore, name: &str, location: Option<&str>) -> Result<()> {
    if metastore.database(name).await.with_context(|| format!("database {name}"))?.is_some() {
        return Ok(());
    }
    let mut database = HiveDatabase::new(name);
    database.set_owner(metastore.user());
    if let Some(location) = location {
        database.set_location(location);
    }
    match metastore.create_database(&database).await {
        Ok(()) => info!(database = name, "created a database"),
        // Another process was faster.
        Err(MetastoreError::AlreadyExists { .. }) => {}
        // If the answer was lost, the next question tells.
        Err(error) => {
            if !matches!(metastore.database(name).await, Ok(Some(_))) {
                return Err(Error::from(error).context(format!("failed to create database {name}")));
            }
        }
    }
    Ok(())
}

/// The table's entry; created if it doesn't exist, an error if it is another table.
pub async fn ensure_table(metastore: &Metastore, storages: &Storages, spec: &HiveTableSpec) -> Result<HiveTable> {
    let name = format!("{}.{}", spec.database, spec.name);
    let load =
        || async { metastore.table(&spec.database, &spec.name).await.with_context(|| format!("failed to load table {name}")) };
    if let Some(entry) = load().await? {
        spec.ensure_matches(&entry)?;
        return Ok(entry);
    }
    storages.create_dir(&spec.location).await.with_context(|| format!("failed to create the directory of table {name}"))?;
    let created = metastore.create_table(&spec.entry(metastore.user())).await;
    // Whatever the answer was: the entry that is there now counts.
    let entry = match (load().await?, created) {
        (Some(entry), _) => entry,
        (None, Err(error)) => return Err(Error::from(error).context(format!("failed to create table {name}"))),
        (None, Ok(())) => return Err(Error::transient(format!("table {name} was dropped while it was created"))),
    };
    spec.ensure_matches(&entry)?;
    info!(table = name, location = spec.location, "created a Hive table");
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> HiveTableSpec {
        HiveTableSpec {
            database: "lake".into(),
            name: "gold".into(),
            location: "file:///lake/gold".into(),
            format: FileFormat::Parquet,
            columns: vec![FieldSchema::new("window_start", "timestamp"), FieldSchema::new("total", "decimal(38,2)")],
            partition_keys: vec![FieldSchema::new("window_date", "string")],
            parameters: BTreeMap::from([("lakesmith.epoch".into(), "0".into())]),
            serde_parameters: BTreeMap::new(),
        }
    }

    #[test]
    fn a_new_entry_matches_its_own_spec() {
        let entry = spec().entry("me");
        spec().ensure_matches(&entry).unwrap();
        assert_eq!((entry.table_type(), entry.parameter("EXTERNAL")), ("EXTERNAL_TABLE", Some("TRUE")));
        assert_eq!((entry.input_format(), entry.output_format()), (Some(PARQUET.input_format), Some(PARQUET.output_format)));
        assert_eq!(entry.location(), Some("file:///lake/gold"));
    }

    #[test]
    fn a_table_of_another_format_is_refused() {
        let json = HiveTableSpec { format: FileFormat::JsonText, ..spec() };
        json.ensure_matches(&json.entry("me")).unwrap();
        assert!(json.ensure_matches(&spec().entry("me")).unwrap_err().chain().contains("not as JSON text"));
        assert_eq!(FileFormat::of(&json.entry("me")), Some(FileFormat::JsonText));
    }

    #[test]
    fn differences_are_named_with_a_way_out() {
        let mut entry = spec().entry("me");
        entry.set_columns(&[FieldSchema::new("TOTAL", "decimal(28,2)"), FieldSchema::new("more", "int")]);
        let error = spec().ensure_matches(&entry).unwrap_err();
        let expected = "table lake.gold has other columns: window_start is missing, total is decimal(28,2), not decimal(38,2)";
        assert_eq!(error.chain(), expected);
        assert!(error.hint_text().unwrap().contains("drop lake.gold"));

        entry.set_partition_keys(&[]);
        assert!(spec().ensure_matches(&entry).unwrap_err().chain().contains("is partitioned by (), not by (window_date string)"));
        entry.set_table_type("MANAGED_TABLE");
        assert!(spec().ensure_matches(&entry).unwrap_err().chain().contains("MANAGED_TABLE"));
    }

    #[test]
    fn columns_of_others_do_not_matter() {
        let mut entry = spec().entry("me");
        let columns = [
            FieldSchema::new("total", "decimal(38,2)"),
            FieldSchema::new("more", "int"),
            FieldSchema::new("window_start", "timestamp"),
        ];
        entry.set_columns(&columns);
        spec().ensure_matches(&entry).unwrap();
    }
}
