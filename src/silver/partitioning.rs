//! How a table is partitioned, as a pipeline file writes it: `Year`, `month(OrderDate)`, `bucket(16, CustomerID)`.

use arrow::datatypes::Schema as ArrowSchema;
use iceberg::spec::{Schema, Transform};

use super::names;
use crate::error::{Error, Result};
use crate::table::logged::ensure_names_directories;

/// Reads the partition fields of a table and checks each against the column that it is made from.
pub fn parse(fields: &[String], schema: &Schema) -> Result<Vec<(String, Transform)>> {
    fields.iter().map(|text| parse_field("silver.partition_by", text, schema)).collect()
}

/// Reads a column and what is made of it, for a setting.
pub(super) fn parse_field(setting: &str, text: &str, schema: &Schema) -> Result<(String, Transform)> {
    let (column, transform) = field(text).ok_or_else(|| {
        Error::config(format!("{setting} `{text}` is not understood")).hint(
            "write a column's name, or year, month, day or hour of it as in month(OrderDate), bucket(16, c) or truncate(10, c)",
        )
    })?;
    let field = schema.field_by_name(&column).or_else(|| schema.field_by_name_case_insensitive(&column)).ok_or_else(|| {
        let error = Error::config(format!("{setting} `{text}` names no column"));
        match names::nearest(&column, schema.as_struct().fields().iter().map(|field| field.name.as_str())) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error,
        }
    })?;
    transform
        .result_type(&field.field_type)
        .map_err(|_| Error::config(format!("{setting} `{text}` does not fit a column of type {}", field.field_type)))?;
    Ok((field.name.clone(), transform))
}

/// Refuses what a plain Hive table cannot be partitioned by: anything but columns whose values name directories.
pub fn ensure_directories(fields: Vec<(String, Transform)>, schema: &ArrowSchema) -> Result<Vec<(String, Transform)>> {
    if let Some((column, transform)) = fields.iter().find(|(_, transform)| *transform != Transform::Identity) {
        return Err(Error::config(format!(
            "silver.partition_by has {transform} of {column}, and a plain Hive table (silver.format = \"hive\") is partitioned by columns alone"
        ))
        .hint(format!(
            "compute a column with [[silver.derive]], such as Month with sql = \"date_part('month', {column})\", and partition by that; or set \
             silver.format = \"iceberg\""
        )));
    }
    for (at, (column, _)) in fields.iter().enumerate() {
        ensure_names_directories(schema.field_with_name(column)?)?;
        if fields[..at].iter().any(|(other, _)| other == column) {
            return Err(Error::config(format!("silver.partition_by names {column} twice")).hint("name it once"));
        }
    }
    Ok(fields)
}

/// A column and its transform as SQL writes them: `month(OrderDate)`; none if it is not understood.
pub fn field(text: &str) -> Option<(String, Transform)> {
    let text = text.trim();
    let Some((function, arguments)) = text.split_once('(') else {
        return (!text.is_empty()).then(|| (text.to_owned(), Transform::Identity));
    };
    let arguments = arguments.strip_suffix(')')?;
    let sized = |transform: fn(u32) -> Transform| {
        let (size, column) = arguments.split_once(',')?;
        let size: u32 = size.trim().parse().ok().filter(|size| *size > 0)?;
        Some((column, transform(size)))
    };
    let (column, transform) = match function.trim() {
        "identity" => (arguments, Transform::Identity),
        "year" => (arguments, Transform::Year),
        "month" => (arguments, Transform::Month),
        "day" => (arguments, Transform::Day),
        "hour" => (arguments, Transform::Hour),
        "bucket" => sized(Transform::Bucket)?,
        "truncate" => sized(Transform::Truncate)?,
        _ => return None,
    };
    let column = column.trim();
    (!column.is_empty()).then(|| (column.to_owned(), transform))
}

#[cfg(test)]
mod tests {
    use iceberg::spec::{NestedField, PrimitiveType, Type};

    use super::*;

    fn parsed(text: &str) -> Result<(String, Transform)> {
        let field = |id, name, primitive| NestedField::optional(id, name, Type::Primitive(primitive)).into();
        let fields = [field(1, "Year", PrimitiveType::Int), field(2, "OrderDate", PrimitiveType::Date)];
        let schema = Schema::builder().with_fields(fields).build().unwrap();
        Ok(parse(&[text.to_owned()], &schema)?.remove(0))
    }

    #[test]
    fn transforms_are_read_as_sql_writes_them() {
        for (text, column, transform) in [
            ("Year", "Year", Transform::Identity),
            ("year", "Year", Transform::Identity),
            ("identity(Year)", "Year", Transform::Identity),
            (" month( OrderDate )", "OrderDate", Transform::Month),
            ("bucket(16, Year)", "Year", Transform::Bucket(16)),
            ("truncate(10, Year)", "Year", Transform::Truncate(10)),
        ] {
            assert_eq!(parsed(text).unwrap(), (column.to_owned(), transform), "{text}");
        }
    }

    #[test]
    fn a_plain_hive_table_takes_columns_alone() {
        let field = |name: &str, data_type| arrow::datatypes::Field::new(name, data_type, true);
        let schema = ArrowSchema::new(vec![
            field("Year", arrow::datatypes::DataType::Int32),
            field("Amount", arrow::datatypes::DataType::Decimal128(9, 2)),
        ]);
        let identity = |name: &str| (name.to_owned(), Transform::Identity);
        let year = identity("Year");
        assert_eq!(ensure_directories(vec![year.clone()], &schema).unwrap(), std::slice::from_ref(&year));
        let month = ("OrderDate".to_owned(), Transform::Month);
        for wrong in [month, ("Year".to_owned(), Transform::Bucket(16)), year.clone(), identity("Amount")] {
            let error = ensure_directories(vec![year.clone(), wrong], &schema).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Config);
            assert!(error.hint_text().is_some(), "{error}");
        }
    }

    #[test]
    fn what_cannot_partition_the_table_is_refused() {
        for text in [
            "",
            "month",
            "month()",
            "month(Year)",
            "hour(OrderDate)",
            "bucket(0, Year)",
            "bucket(Year)",
            "week(OrderDate)",
            "month(OrderDate",
        ] {
            assert_eq!(parsed(text).unwrap_err().kind(), crate::Kind::Config, "{text}");
        }
        assert_eq!(parsed("Yaer").unwrap_err().hint_text(), Some("did you mean Year?"));
    }
}
