//! Tables to be created, and the properties that lakesmith gives them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use iceberg::spec::{FormatVersion, NullOrder, PartitionSpec, Schema, SortDirection, SortField, SortOrder, Transform};
use iceberg::{TableCreation, TableIdent};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

/// A table to be created where it is missing.
#[derive(Debug, Clone)]
pub struct TableSpec {
    pub ident: TableIdent,
    /// Directory of the table, in any form that [`Storages::qualify`](crate::storage::Storages::qualify) takes; none: below its database.
    pub location: Option<String>,
    pub schema: Schema,
    /// Columns and transforms of the partition spec, in order; empty for an unpartitioned table.
    pub partition_by: Vec<(String, Transform)>,
    /// The order in which engines are asked to sort rows; lakesmith leaves them in the order in which they came.
    pub sort_by: Vec<SortKey>,
    /// Table properties beside those that lakesmith sets on every table; they win over lakesmith's.
    pub properties: BTreeMap<String, String>,
    pub comment: Option<String>,
}

/// One key of a sort order. Shown as SQL writes it: `TotalAmount desc`, `month(OrderDate) nulls last`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortKey {
    pub column: String,
    pub transform: Transform,
    pub direction: SortDirection,
    pub nulls: NullOrder,
}

impl SortKey {
    /// Where nulls stand if nothing is said, as Spark has it.
    pub fn usual_nulls(direction: SortDirection) -> NullOrder {
        match direction {
            SortDirection::Ascending => NullOrder::First,
            SortDirection::Descending => NullOrder::Last,
        }
    }

    /// The key in a table in which the column has this id.
    fn field(&self, source_id: i32) -> SortField {
        let Self { transform, direction, nulls, .. } = self;
        SortField { source_id, transform: *transform, direction: *direction, null_order: *nulls }
    }
}

impl fmt::Display for SortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&field_text(&self.column, self.transform))?;
        if self.direction == SortDirection::Descending {
            f.write_str(" desc")?;
        }
        if self.nulls != Self::usual_nulls(self.direction) {
            write!(f, " nulls {}", self.nulls)?;
        }
        Ok(())
    }
}

/// The order that these keys are in a table of this schema; no keys for none. Columns are found in any case.
pub fn sort_order(schema: &Schema, keys: &[SortKey]) -> Result<SortOrder> {
    let field = |key: &SortKey| {
        let name = key.column.as_str();
        let source = schema.field_by_name(name).or_else(|| schema.field_by_name_case_insensitive(name));
        source.map(|source| key.field(source.id)).ok_or_else(|| Error::config(format!("there is no column {name} to sort by")))
    };
    let fields = keys.iter().map(field).collect::<Result<Vec<_>>>()?;
    SortOrder::builder().with_fields(fields).build_unbound().context("the table cannot be sorted so")
}

/// A column and its transform as SQL writes them: `Year`, `month(OrderDate)`, `bucket(16, CustomerID)`.
pub fn field_text(column: &str, transform: Transform) -> String {
    match transform {
        Transform::Identity => column.to_owned(),
        Transform::Bucket(size) => format!("bucket({size}, {column})"),
        Transform::Truncate(width) => format!("truncate({width}, {column})"),
        other => format!("{other}({column})"),
    }
}

/// What every table of lakesmith has, for the other engines that write to it and for its own upkeep.
const PROPERTIES: [(&str, &str); 8] = [
    ("write.format.default", "parquet"),
    ("write.parquet.compression-codec", "zstd"),
    ("write.parquet.compression-level", "1"),
    // Hive reads copy-on-write only: with position deletes its vectorized count(*) is wrong.
    ("write.delete.mode", "copy-on-write"),
    ("write.update.mode", "copy-on-write"),
    ("write.merge.mode", "copy-on-write"),
    // A metadata file holds every snapshot; a few versions are enough to look up a commit whose answer was lost.
    ("write.metadata.previous-versions-max", "5"),
    ("write.metadata.delete-after-commit.enabled", "true"),
];

impl TableSpec {
    pub(super) fn creation(&self) -> Result<TableCreation> {
        let mut properties: HashMap<String, String> =
            PROPERTIES.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        properties.extend(self.properties.clone());
        let creation = TableCreation::builder()
            .name(self.ident.name().to_owned())
            .location_opt(self.location.clone())
            .schema(self.schema.clone())
            .partition_spec(self.partition_spec()?.into_unbound())
            .sort_order(
                sort_order(&self.schema, &self.sort_by).with_context(|| format!("table {} cannot be created", self.ident))?,
            )
            .properties(properties)
            .format_version(FormatVersion::V2);
        Ok(creation.build())
    }

    fn partition_spec(&self) -> Result<PartitionSpec> {
        let bad = || format!("table {} cannot be partitioned as configured", self.ident);
        let mut spec = PartitionSpec::builder(self.schema.clone());
        for (column, transform) in &self.partition_by {
            spec = spec.add_partition_field(column, partition_name(column, *transform), *transform).with_context(bad)?;
        }
        spec.build().with_context(bad)
    }
}

/// The name of a partition field, as Java's builder chooses it.
pub fn partition_name(column: &str, transform: Transform) -> String {
    match transform {
        Transform::Identity => column.to_owned(),
        Transform::Bucket(_) => format!("{column}_bucket"),
        Transform::Truncate(_) => format!("{column}_trunc"),
        Transform::Void => format!("{column}_null"),
        Transform::Year | Transform::Month | Transform::Day | Transform::Hour | Transform::Unknown => {
            format!("{column}_{transform}")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use iceberg::spec::{NestedField, PrimitiveType, Type};

    use super::*;

    fn spec(partition_by: Vec<(String, Transform)>) -> TableSpec {
        let at = Arc::new(NestedField::required(1, "at", Type::Primitive(PrimitiveType::Timestamp)));
        TableSpec {
            ident: TableIdent::from_strs(["db", "t"]).unwrap(),
            location: Some("/t".into()),
            schema: Schema::builder().with_fields([at]).build().unwrap(),
            partition_by,
            sort_by: Vec::new(),
            properties: BTreeMap::from([("write.parquet.compression-level".into(), "3".into())]),
            comment: None,
        }
    }

    #[test]
    fn partition_fields_are_named_as_java_names_them() {
        let creation = spec(vec![("at".into(), Transform::Day)]).creation().unwrap();
        assert_eq!(creation.partition_spec.unwrap().fields()[0].name, "at_day");
        assert_eq!(creation.properties["write.parquet.compression-level"], "3");
        assert_eq!(creation.properties["write.delete.mode"], "copy-on-write");
    }

    #[test]
    fn sort_keys_are_those_of_the_table() {
        let key = |column: &str| SortKey {
            column: column.into(),
            transform: Transform::Day,
            direction: SortDirection::Descending,
            nulls: NullOrder::Last,
        };
        let creation = TableSpec { sort_by: vec![key("at")], ..spec(Vec::new()) }.creation().unwrap();
        assert_eq!(creation.sort_order.unwrap().fields, [key("at").field(1)]);
        assert_eq!(key("at").to_string(), "day(at) desc");
        let error = TableSpec { sort_by: vec![key("year")], ..spec(Vec::new()) }.creation().unwrap_err();
        assert!(error.chain().contains("year"), "{}", error.chain());
    }

    #[test]
    fn an_unknown_partition_column_is_named() {
        let error = spec(vec![("year".into(), Transform::Identity)]).creation().unwrap_err();
        assert!(error.chain().contains("year"), "{}", error.chain());
    }
}
