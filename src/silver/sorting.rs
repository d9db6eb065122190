//! How engines are to sort a table's rows, as a pipeline file writes it: `OrderDate`, `TotalAmount desc`, `bucket(16, CustomerID) nulls last`.

use iceberg::spec::{NullOrder, Schema, SortDirection};

use super::partitioning;
use crate::error::Result;
use crate::table::SortKey;

/// Reads the sort keys of a table and checks each against the column that it is made from.
pub fn parse(keys: &[String], schema: &Schema) -> Result<Vec<SortKey>> {
    let key = |text: &String| {
        let (field, direction, nulls) = parts(text);
        let (column, transform) = partitioning::parse_field("silver.sort_by", field, schema)?;
        Ok(SortKey { column, transform, direction, nulls })
    };
    keys.iter().map(key).collect()
}

/// The field, and in which direction; nulls come first in rising order and last in falling order, unless something else is said.
fn parts(text: &str) -> (&str, SortDirection, NullOrder) {
    let (text, nulls) = match (without(text, "nulls first"), without(text, "nulls last")) {
        (Some(rest), _) => (rest, Some(NullOrder::First)),
        (_, Some(rest)) => (rest, Some(NullOrder::Last)),
        (None, None) => (text, None),
    };
    let (text, direction) = match (without(text, "desc"), without(text, "asc")) {
        (Some(rest), _) => (rest, SortDirection::Descending),
        (_, Some(rest)) => (rest, SortDirection::Ascending),
        (None, None) => (text, SortDirection::Ascending),
    };
    (text, direction, nulls.unwrap_or(SortKey::usual_nulls(direction)))
}

/// What stands before these words at the end, where there is something.
fn without<'t>(text: &'t str, words: &str) -> Option<&'t str> {
    let text = text.trim();
    let at = text.len().checked_sub(words.len()).filter(|at| text.is_char_boundary(*at))?;
    let (rest, end) = text.split_at(at);
    (end.eq_ignore_ascii_case(words) && rest.ends_with(|before: char| before.is_whitespace() || before == ')'))
        .then_some(rest.trim_end())
}

#[cfg(test)]
mod tests {
    use iceberg::spec::{NestedField, PrimitiveType, Type};

    use super::*;

    fn parsed(text: &str) -> Result<String> {
        let field = |id, name, primitive| NestedField::optional(id, name, Type::Primitive(primitive)).into();
        let fields = [field(1, "Year", PrimitiveType::Int), field(2, "desc", PrimitiveType::Date)];
        let schema = Schema::builder().with_fields(fields).build().unwrap();
        Ok(parse(&[text.to_owned()], &schema)?[0].to_string())
    }

    #[test]
    fn keys_are_read_as_sql_writes_them() {
        for (text, meant) in [
            ("Year", "Year"),
            ("year ASC", "Year"),
            ("Year  desc ", "Year desc"),
            ("Year desc nulls first", "Year desc nulls first"),
            ("Year nulls first", "Year"),
            ("Year NULLS LAST", "Year nulls last"),
            ("bucket(16, Year)desc", "bucket(16, Year) desc"),
            ("month(desc) desc nulls last", "month(desc) desc"),
            ("desc", "desc"),
        ] {
            assert_eq!(parsed(text).unwrap(), meant, "{text}");
        }
    }

    #[test]
    fn what_no_table_can_be_sorted_by_is_named() {
        for (text, reason) in [
            ("Yaer desc", "silver.sort_by `Yaer` names no column"),
            ("month(Year)", "does not fit a column of type int"),
            ("first(Year)", "is not understood"),
            ("", "is not understood"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.chain().contains(reason), "{text}: {}", error.chain());
        }
    }
}
