//! What a manifest says about a data file, from the file's own footer: sizes, counts, and bounds that never exclude a row.
//!
//! Bounds decide which files a query skips, so a bound that is too tight loses rows. A column gets bounds only if every row group of the
//! file with values in it has them. Texts are cut to 16 characters, the upper bound then rounded up; Parquet has done the same
//! before, so that neither need be exact, only safe. Nested columns have no bounds.

use std::collections::HashMap;

use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, PrimitiveType, Schema, Struct, Type};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;

use crate::error::{Error, Result};

/// Characters of a text bound: what Java writes by default (`truncate(16)`).
const BOUND_CHARACTERS: usize = 16;

/// Everything about a finished file that its footer doesn't say.
pub(super) struct Place {
    pub location: String,
    pub size_bytes: u64,
    pub partition: Struct,
    pub spec_id: i32,
}

/// The manifest's view of a finished file.
pub(super) fn data_file(place: Place, schema: &Schema, footer: &ParquetMetaData) -> Result<DataFile> {
    let mut columns: HashMap<i32, Column> = HashMap::new();
    for row_group in footer.row_groups() {
        for chunk in row_group.columns() {
            let info = chunk.column_descr().self_type().get_basic_info();
            if info.has_id() {
                columns.entry(info.id()).or_default().add(chunk);
            }
        }
    }
    let mut builder = DataFileBuilder::default();
    builder
        .content(DataContentType::Data)
        .file_format(DataFileFormat::Parquet)
        .file_path(place.location.clone())
        .file_size_in_bytes(place.size_bytes)
        .partition(place.partition)
        .partition_spec_id(place.spec_id)
        .record_count(footer.file_metadata().num_rows() as u64)
        .column_sizes(columns.iter().map(|(id, column)| (*id, column.size_bytes)).collect())
        .value_counts(columns.iter().map(|(id, column)| (*id, column.values)).collect())
        .null_value_counts(columns.iter().filter_map(|(id, column)| Some((*id, column.nulls?))).collect())
        .split_offsets(Some(footer.row_groups().iter().filter_map(|group| group.file_offset()).collect()));
    let (mut lower, mut upper) = (HashMap::new(), HashMap::new());
    for field in schema.as_struct().fields() {
        let (Type::Primitive(primitive), Some(column)) = (field.field_type.as_ref(), columns.get(&field.id)) else { continue };
        if let Some((low, high)) = column.bounds(primitive) {
            lower.insert(field.id, low);
            high.map(|high| upper.insert(field.id, high));
        }
    }
    builder.lower_bounds(lower).upper_bounds(upper);
    builder
        .build()
        .map_err(|error| Error::failed(format!("{} cannot be described in a manifest", place.location)).caused_by(error))
}

/// One Parquet column over all row groups.
struct Column {
    size_bytes: u64,
    values: u64,
    /// None if a row group doesn't count them.
    nulls: Option<u64>,
    /// None if a row group with values doesn't tell.
    statistics: Option<Vec<Statistics>>,
}

impl Default for Column {
    fn default() -> Self {
        Self { size_bytes: 0, values: 0, nulls: Some(0), statistics: Some(Vec::new()) }
    }
}

impl Column {
    fn add(&mut self, chunk: &ColumnChunkMetaData) {
        self.size_bytes += chunk.compressed_size().max(0) as u64;
        self.values += chunk.num_values().max(0) as u64;
        let nulls = chunk.statistics().and_then(|statistics| statistics.null_count_opt());
        self.nulls = self.nulls.zip(nulls).map(|(sum, nulls)| sum + nulls);
        if nulls == Some(chunk.num_values().max(0) as u64) {
            return;
        }
        let bounds =
            chunk.statistics().filter(|statistics| statistics.min_bytes_opt().is_some() && statistics.max_bytes_opt().is_some());
        match (&mut self.statistics, bounds) {
            (Some(all), Some(bounds)) => all.push(bounds.clone()),
            (all, _) => *all = None,
        }
    }

    /// Lower and upper bound in Iceberg's terms; the upper one may be missing on its own, where no text is above all others.
    fn bounds(&self, primitive: &PrimitiveType) -> Option<(Datum, Option<Datum>)> {
        let mut bounds: Option<(Datum, Datum)> = None;
        for statistics in self.statistics.as_ref()? {
            let (low, high) = (datum(statistics, Side::Min, primitive)?, datum(statistics, Side::Max, primitive)?);
            bounds = Some(match bounds {
                None => (low, high),
                Some((lowest, highest)) => (lesser(lowest, low)?, greater(highest, high)?),
            });
        }
        let (low, high) = bounds?;
        Some(match primitive {
            PrimitiveType::String => {
                let (low, high) = (text(&low)?, text(&high)?);
                let cut: String = low.chars().take(BOUND_CHARACTERS).collect();
                (Datum::string(cut), round_up(&high).map(Datum::string))
            }
            _ => (low, Some(high)),
        })
    }
}

#[derive(Clone, Copy)]
enum Side {
    Min,
    Max,
}

impl Side {
    fn pick<T>(self, min: T, max: T) -> T {
        match self {
            Self::Min => min,
            Self::Max => max,
        }
    }
}

/// A statistic as a value of the column's Iceberg type; none for types without an order that both sides share.
fn datum(statistics: &Statistics, side: Side, primitive: &PrimitiveType) -> Option<Datum> {
    let int = match statistics {
        Statistics::Int32(values) => side.pick(values.min_opt(), values.max_opt()).map(|value| i64::from(*value)),
        Statistics::Int64(values) => side.pick(values.min_opt(), values.max_opt()).copied(),
        _ => None,
    };
    let bytes = match statistics {
        Statistics::ByteArray(values) => side.pick(values.min_opt(), values.max_opt()).map(|value| value.data()),
        Statistics::FixedLenByteArray(values) => side.pick(values.min_opt(), values.max_opt()).map(|value| value.data()),
        _ => None,
    };
    match primitive {
        PrimitiveType::Int => Some(Datum::int(i32::try_from(int?).ok()?)),
        PrimitiveType::Date => Some(Datum::date(i32::try_from(int?).ok()?)),
        PrimitiveType::Long => Some(Datum::long(int?)),
        PrimitiveType::Timestamp => Some(Datum::timestamp_micros(int?)),
        PrimitiveType::Timestamptz => Some(Datum::timestamptz_micros(int?)),
        PrimitiveType::Boolean => match statistics {
            Statistics::Boolean(values) => side.pick(values.min_opt(), values.max_opt()).map(|value| Datum::bool(*value)),
            _ => None,
        },
        PrimitiveType::Float => match statistics {
            Statistics::Float(values) => side.pick(values.min_opt(), values.max_opt()).map(|value| Datum::float(*value)),
            _ => None,
        },
        PrimitiveType::Double => match statistics {
            Statistics::Double(values) => side.pick(values.min_opt(), values.max_opt()).map(|value| Datum::double(*value)),
            _ => None,
        },
        PrimitiveType::String => std::str::from_utf8(bytes?).ok().map(Datum::string),
        PrimitiveType::Decimal { .. } => {
            let unscaled = int.map(|value| value.to_be_bytes().to_vec()).or_else(|| bytes.map(<[u8]>::to_vec))?;
            Datum::try_from_bytes(&unscaled, primitive.clone()).ok()
        }
        PrimitiveType::Time
        | PrimitiveType::TimestampNs
        | PrimitiveType::TimestamptzNs
        | PrimitiveType::Uuid
        | PrimitiveType::Fixed(_)
        | PrimitiveType::Binary => None,
    }
}

fn lesser(a: Datum, b: Datum) -> Option<Datum> {
    Some(if a.partial_cmp(&b)?.is_le() { a } else { b })
}

fn greater(a: Datum, b: Datum) -> Option<Datum> {
    Some(if a.partial_cmp(&b)?.is_ge() { a } else { b })
}

fn text(datum: &Datum) -> Option<String> {
    match datum.literal() {
        iceberg::spec::PrimitiveLiteral::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// The least text of 16 characters at most that is not below `text`; none if there is none.
fn round_up(text: &str) -> Option<String> {
    if text.chars().nth(BOUND_CHARACTERS).is_none() {
        return Some(text.to_owned());
    }
    let mut characters: Vec<char> = text.chars().take(BOUND_CHARACTERS).collect();
    while let Some(last) = characters.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};
    use iceberg::arrow::schema_to_arrow_schema;
    use iceberg::spec::NestedField;
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn schema() -> Schema {
        let field = |id, name: &str, primitive| Arc::new(NestedField::optional(id, name, Type::Primitive(primitive)));
        Schema::builder()
            .with_fields([
                field(1, "offset", PrimitiveType::Long),
                field(2, "name", PrimitiveType::String),
                field(3, "small", PrimitiveType::Decimal { precision: 9, scale: 2 }),
                field(4, "large", PrimitiveType::Decimal { precision: 38, scale: 2 }),
            ])
            .build()
            .unwrap()
    }

    /// A file with one row group per text.
    fn written(names: &[Option<&str>]) -> DataFile {
        let schema = schema();
        let arrow = Arc::new(schema_to_arrow_schema(&schema).unwrap());
        let mut writer = ArrowWriter::try_new(Vec::new(), arrow.clone(), None).unwrap();
        for (at, name) in names.iter().enumerate() {
            let value = at as i128 - 1;
            let decimal = |precision| {
                Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(precision, 2).unwrap()) as ArrayRef
            };
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from(vec![at as i64])),
                Arc::new(StringArray::from(vec![*name])),
                decimal(9),
                decimal(38),
            ];
            writer.write(&RecordBatch::try_new(arrow.clone(), columns).unwrap()).unwrap();
            writer.flush().unwrap();
        }
        let footer = writer.close().unwrap();
        let place = Place { location: "/t/a.parquet".into(), size_bytes: 1, partition: Struct::empty(), spec_id: 0 };
        data_file(place, &schema, &footer).unwrap()
    }

    #[test]
    fn a_long_text_in_one_row_group_widens_the_bounds_of_all() {
        let long = "z".repeat(100);
        let file = written(&[Some(&long), Some("a"), None]);
        assert_eq!(file.record_count(), 3);
        assert_eq!(file.null_value_counts()[&2], 1);
        assert_eq!(file.lower_bounds()[&2], Datum::string("a"));
        // The column never holds anything above its upper bound: 16 characters, the last one raised.
        assert_eq!(file.upper_bounds()[&2], Datum::string(format!("{}{{", "z".repeat(15))));
        assert_eq!((&file.lower_bounds()[&1], &file.upper_bounds()[&1]), (&Datum::long(0), &Datum::long(2)));
    }

    #[test]
    fn decimals_have_bounds_in_both_forms() {
        let file = written(&[Some("a"), Some("b"), Some("c")]);
        for (id, precision) in [(3, 9), (4, 38)] {
            let kind = PrimitiveType::Decimal { precision, scale: 2 };
            assert_eq!(file.lower_bounds()[&id], Datum::try_from_bytes(&[0xff], kind.clone()).unwrap());
            assert_eq!(file.upper_bounds()[&id], Datum::try_from_bytes(&[1], kind).unwrap());
        }
    }

    #[test]
    fn a_column_of_nulls_has_no_bounds() {
        let file = written(&[None, None]);
        assert!(!file.lower_bounds().contains_key(&2) && !file.upper_bounds().contains_key(&2));
    }

    #[test]
    fn a_text_at_the_end_of_the_order_has_no_upper_bound() {
        let highest = char::MAX.to_string().repeat(17);
        assert_eq!(round_up(&highest), None);
        assert_eq!(round_up("short"), Some("short".into()));
        assert_eq!(round_up(&format!("{}x", "é".repeat(16))), Some(format!("{}ê", "é".repeat(15))));
    }
}
