//! Names of columns and properties: which ones every engine takes, and which are lakesmith's.

use crate::error::{Error, Result};
use crate::silver;

/// What engines show beside a table's own columns.
const OF_ENGINES: [&str; 9] = [
    "_file",
    "_pos",
    "_deleted",
    "_spec_id",
    "_partition",
    "BLOCK__OFFSET__INSIDE__FILE",
    "INPUT__FILE__NAME",
    "ROW__ID",
    "ROW__IS__DELETED",
];

/// Words that Hive, Trino or Spark take for something else where no quotes are around them.
const RESERVED: [&str; 82] = [
    "all",
    "alter",
    "and",
    "array",
    "as",
    "between",
    "bigint",
    "binary",
    "boolean",
    "both",
    "by",
    "case",
    "cast",
    "char",
    "column",
    "constraint",
    "create",
    "cross",
    "cube",
    "current",
    "current_date",
    "current_timestamp",
    "cursor",
    "database",
    "date",
    "decimal",
    "delete",
    "describe",
    "distinct",
    "double",
    "drop",
    "else",
    "end",
    "escape",
    "except",
    "execute",
    "exists",
    "external",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "from",
    "full",
    "function",
    "grant",
    "group",
    "grouping",
    "having",
    "in",
    "inner",
    "insert",
    "int",
    "intersect",
    "interval",
    "into",
    "is",
    "join",
    "left",
    "like",
    "map",
    "natural",
    "not",
    "null",
    "of",
    "on",
    "or",
    "order",
    "outer",
    "partition",
    "prepare",
    "right",
    "row",
    "rows",
    "select",
    "set",
    "table",
    "timestamp",
    "to",
    "union",
    "user",
];

/// Refuses a name that some engine does not take.
pub(super) fn ensure_usable(name: &str) -> Result<()> {
    if !silver::is_column_name(name) {
        return Err(Error::config(format!("`{name}` is a name that not every engine takes"))
            .hint("use up to 128 letters, digits and underscores, with no digit in front"));
    }
    if OF_ENGINES.iter().any(|other| other.eq_ignore_ascii_case(name)) {
        return Err(Error::config(format!("`{name}` is the name of something that engines show beside a table's columns")));
    }
    Ok(())
}

/// Refuses a name that another has, in whatever case.
pub(super) fn ensure_free<'a>(name: &str, mut others: impl Iterator<Item = &'a str>) -> Result<()> {
    match others.find(|other| other.eq_ignore_ascii_case(name)) {
        Some(other) if other == name => Err(Error::config(format!("there is a {name} already"))),
        Some(other) => Err(Error::config(format!("there is a {other} already, and Hive does not tell it from {name}"))),
        None => Ok(()),
    }
}

/// What a person should know who uses this name.
pub fn remark(name: &str) -> Option<String> {
    let reserved = RESERVED.binary_search(&name.to_lowercase().as_str()).is_ok();
    reserved.then(|| {
        format!("{name} is a reserved word: Hive and Spark need it in backticks, Trino and lakesmith query in double quotes")
    })
}

/// Refuses the properties that lakesmith and Iceberg keep for themselves.
pub(super) fn ensure_free_property(key: &str) -> Result<()> {
    let kept = |why: &str| Err(Error::config(format!("the property {key} {why}")));
    match key {
        "" => Err(Error::config("a property needs a name")),
        _ if key.starts_with("lakesmith.") => kept("holds what lakesmith itself knows of the table"),
        "engine.hive.lock-enabled" => {
            kept("says how all writers of the table commit: changed while one of them writes, both could win")
        }
        "format-version" => kept("cannot be changed: Hive reads version 2 only"),
        "uuid"
        | "metadata_location"
        | "previous_metadata_location"
        | "table_type"
        | "current-schema"
        | "current-snapshot-id"
        | "default-partition-spec"
        | "default-sort-order"
        | "snapshot-count"
        | "current-snapshot-summary"
        | "current-snapshot-timestamp-ms" => kept("follows from the table"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_words_are_sorted_and_remarked_on() {
        assert!(RESERVED.is_sorted());
        assert!(remark("Order").is_some_and(|text| text.contains("backticks")));
        assert_eq!(remark("OrderID"), None);
    }

    #[test]
    fn names_that_an_engine_would_not_take_are_refused() {
        for name in ["", "1st", "a b", "a.b", "größe", "_pos", "row__id", &"x".repeat(129)] {
            assert!(ensure_usable(name).is_err(), "{name}");
        }
        assert!(ensure_usable("Discount_2").is_ok());
        assert!(ensure_free("orderid", ["OrderID"].into_iter()).unwrap_err().to_string().contains("Hive"));
    }

    #[test]
    fn lakesmiths_own_properties_are_kept() {
        for key in ["", "lakesmith.positions", "engine.hive.lock-enabled", "metadata_location"] {
            assert!(ensure_free_property(key).is_err(), "{key}");
        }
        assert!(ensure_free_property("write.parquet.compression-level").is_ok());
    }
}
