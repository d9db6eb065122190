//! Parquet files for Hive tables: written with the column writers below Arrow's, which cannot write INT96, and read back.
//!
//! *Invariants*: data pages of version 1, `writer.time.zone=UTC` and `writer.date.proleptic=true` in the footer: without the
//! keys Hive moves instants by its own zone, and old dates to the Julian calendar. No statistics on INT96: readers disagree about its order.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType,
};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType as ParquetType, DoubleType, FixedLenByteArray, FixedLenByteArrayType, FloatType,
    Int32Type as ParquetInt32, Int64Type as ParquetInt64, Int96, Int96Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::ColumnPath;

use super::types::{decimal_bytes, parquet_schema};
use crate::compatibility::{Codec, HiveFiles, Instants};
use crate::error::{Context, Error, Result};
use crate::storage::{Depth, Storages};

/// Rows per row group: enough for compression, little enough for a reader's memory.
const ROW_GROUP_ROWS: usize = 1 << 20;
const JULIAN_DAY_OF_EPOCH: i64 = 2_440_588;
const MICROS_PER_DAY: i64 = 86_400_000_000;

impl From<ParquetError> for Error {
    fn from(error: ParquetError) -> Self {
        Error::failed("a Parquet file could not be written or read").caused_by(error)
    }
}

/// Writes one Parquet file, row group by row group.
pub struct FileEncoder {
    schema: SchemaRef,
    instants: Instants,
    writer: SerializedFileWriter<Vec<u8>>,
}

impl FileEncoder {
    /// A file with `footer` among its key-value metadata. `plain_columns` get no dictionary, because their values rarely repeat.
    pub fn new(
        schema: &SchemaRef,
        footer: &BTreeMap<String, String>,
        files: HiveFiles,
        plain_columns: &[String],
    ) -> Result<Self> {
        let keys = [("writer.time.zone", "UTC"), ("writer.date.proleptic", "true")];
        let own = footer.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let keys = keys.into_iter().map(|(key, value)| KeyValue::new(key.into(), value.to_string())).chain(own).collect();
        let mut properties = WriterProperties::builder()
            .set_compression(compression(files.codec))
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_created_by(format!("lakesmith version {}", env!("CARGO_PKG_VERSION")))
            .set_key_value_metadata(Some(keys));
        for field in schema.fields() {
            let column = || ColumnPath::from(field.name().as_str());
            if files.instants == Instants::Int96 && matches!(field.data_type(), DataType::Timestamp(_, _)) {
                properties = properties.set_column_statistics_enabled(column(), EnabledStatistics::None);
            }
            if plain_columns.iter().any(|plain| plain.eq_ignore_ascii_case(field.name())) {
                properties = properties.set_column_dictionary_enabled(column(), false);
            }
        }
        let writer =
            SerializedFileWriter::new(Vec::new(), parquet_schema(schema, files.instants)?, Arc::new(properties.build()))?;
        Ok(Self { schema: schema.clone(), instants: files.instants, writer })
    }

    /// Writes rows as row groups of their own.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        for start in (0..batch.num_rows()).step_by(ROW_GROUP_ROWS) {
            let slice = batch.slice(start, ROW_GROUP_ROWS.min(batch.num_rows() - start));
            let mut row_group = self.writer.next_row_group()?;
            for (array, field) in slice.columns().iter().zip(self.schema.fields()) {
                let missing = || Error::failed("the file has fewer columns than its rows");
                let mut column = row_group.next_column()?.ok_or_else(missing)?;
                write_column(&mut column, array, self.instants).with_context(|| format!("column {}", field.name()))?;
                column.close()?;
            }
            row_group.close()?;
        }
        Ok(())
    }

    /// What is encoded by now and was not taken yet.
    pub fn take(&mut self) -> Bytes {
        std::mem::take(self.writer.inner_mut()).into()
    }

    /// The rest of the file.
    pub fn finish(self) -> Result<Bytes> {
        Ok(self.writer.into_inner()?.into())
    }
}

fn compression(codec: Codec) -> Compression {
    match codec {
        Codec::Snappy => Compression::SNAPPY,
        Codec::Zstd => Compression::ZSTD(ZstdLevel::default()),
    }
}

/// Writes `batch` as one Parquet file with `footer` among its key-value metadata.
pub fn encode(batch: &RecordBatch, footer: &BTreeMap<String, String>, files: HiveFiles) -> Result<Bytes> {
    let mut encoder = FileEncoder::new(&batch.schema(), footer, files, &[])?;
    encoder.write(batch)?;
    encoder.finish()
}

fn write_column(column: &mut SerializedColumnWriter<'_>, array: &ArrayRef, instants: Instants) -> Result<()> {
    match array.data_type() {
        DataType::Boolean => {
            let values = array.as_boolean();
            write_values::<BoolType>(column, array, |row| values.value(row))
        }
        DataType::Int32 => {
            let values = array.as_primitive::<Int32Type>();
            write_values::<ParquetInt32>(column, array, |row| values.value(row))
        }
        DataType::Date32 => {
            let values = array.as_primitive::<Date32Type>();
            write_values::<ParquetInt32>(column, array, |row| values.value(row))
        }
        DataType::Int64 => {
            let values = array.as_primitive::<Int64Type>();
            write_values::<ParquetInt64>(column, array, |row| values.value(row))
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>();
            write_values::<FloatType>(column, array, |row| values.value(row))
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            write_values::<DoubleType>(column, array, |row| values.value(row))
        }
        DataType::Utf8 => {
            let values = array.as_string::<i32>();
            write_values::<ByteArrayType>(column, array, |row| ByteArray::from(values.value(row)))
        }
        DataType::Binary => {
            let values = array.as_binary::<i32>();
            write_values::<ByteArrayType>(column, array, |row| ByteArray::from(values.value(row).to_vec()))
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            let values = array.as_primitive::<TimestampMicrosecondType>();
            match instants {
                Instants::Int96 => write_values::<Int96Type>(column, array, |row| int96(values.value(row))),
                Instants::Micros => write_values::<ParquetInt64>(column, array, |row| values.value(row)),
            }
        }
        DataType::Decimal128(precision, _) => {
            let values = array.as_primitive::<Decimal128Type>();
            let skipped = 16 - decimal_bytes(*precision);
            write_values::<FixedLenByteArrayType>(column, array, |row| {
                FixedLenByteArray::from(values.value(row).to_be_bytes()[skipped..].to_vec())
            })
        }
        other => Err(Error::failed(format!("the type {other} has no Hive form"))),
    }
}

/// Writes the values that are not null, and for each row whether there is one.
fn write_values<T: ParquetType>(
    column: &mut SerializedColumnWriter<'_>,
    array: &ArrayRef,
    value: impl Fn(usize) -> T::T,
) -> Result<()> {
    let present = |row: &usize| array.is_valid(*row);
    let values: Vec<T::T> = (0..array.len()).filter(present).map(value).collect();
    let levels: Vec<i16> = (0..array.len()).map(|row| i16::from(array.is_valid(row))).collect();
    column.typed::<T>().write_batch(&values, Some(&levels), None)?;
    Ok(())
}

/// Microseconds since 1970 as Hive's INT96: nanoseconds of the day, then the Julian day.
fn int96(micros: i64) -> Int96 {
    let day = micros.div_euclid(MICROS_PER_DAY) + JULIAN_DAY_OF_EPOCH;
    let nanos = micros.rem_euclid(MICROS_PER_DAY) as u64 * 1_000;
    let mut value = Int96::new();
    value.set_data(nanos as u32, (nanos >> 32) as u32, day as u32);
    value
}

/// The rows and footer keys of one file.
#[derive(Debug)]
pub struct PartitionFile {
    pub rows: RecordBatch,
    pub footer: BTreeMap<String, String>,
}

/// Reads a file's rows in the types of `schema`. A file that lacks one of its columns is an error, but for those in `may_lack`, which are
/// null then.
pub fn decode(bytes: Bytes, schema: &SchemaRef, may_lack: &[&str]) -> Result<PartitionFile> {
    let options = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let inferred = ArrowReaderMetadata::load(&bytes, options())?.schema().clone();
    // The types that are wanted, not those that the file suggests: it doesn't know what its INT96 are.
    let supplied = inferred.fields().iter().map(|field| match schema.field_with_name(field.name()) {
        Ok(wanted) => Arc::new(Field::new(wanted.name(), wanted.data_type().clone(), true)),
        Err(_) => field.clone(),
    });
    let supplied = Arc::new(Schema::new(supplied.collect::<Vec<_>>()));
    let metadata = ArrowReaderMetadata::load(&bytes, options().with_schema(supplied.clone()))?;
    let footer = footer(&metadata);
    let present = supplied.fields().iter().enumerate().filter(|(_, field)| schema.field_with_name(field.name()).is_ok());
    let present: Vec<usize> = present.map(|(position, _)| position).collect();
    let mask = ProjectionMask::roots(metadata.parquet_schema(), present.iter().copied());
    let count = metadata.metadata().file_metadata().num_rows();
    let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata)
        .with_projection(mask)
        .with_batch_size(ROW_GROUP_ROWS)
        .build()?
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let rows = concat_batches(&Arc::new(supplied.project(&present)?), &batches)?;
    let count = usize::try_from(count).map_err(|_| Error::failed("the file has a negative number of rows"))?;
    let columns = schema.fields().iter().map(|field| match rows.column_by_name(field.name()) {
        Some(array) => Ok(array.clone()),
        None if may_lack.contains(&field.name().as_str()) => Ok(new_null_array(field.data_type(), count)),
        None => Err(Error::failed(format!("the file has no column {}", field.name()))),
    });
    Ok(PartitionFile { rows: RecordBatch::try_new(schema.clone(), columns.collect::<Result<_>>()?)?, footer })
}

fn footer(metadata: &ArrowReaderMetadata) -> BTreeMap<String, String> {
    let keys = metadata.metadata().file_metadata().key_value_metadata();
    keys.into_iter().flatten().filter_map(|pair| Some((pair.key.clone(), pair.value.clone()?))).collect()
}

/// Reads all files of a version directory, as [`decode`] does. Hidden files (`.` and `_` in front), as Hive defines them, are not data.
pub async fn read_version(
    storages: &Storages,
    location: &str,
    schema: &SchemaRef,
    may_lack: &[&str],
) -> Result<Vec<PartitionFile>> {
    each_file(storages, location, |bytes| decode(bytes, schema, may_lack)).await
}

/// The footer keys of all files of a version directory, whatever their columns are.
pub async fn read_footers(storages: &Storages, location: &str) -> Result<Vec<BTreeMap<String, String>>> {
    each_file(storages, location, |bytes| Ok(footer(&ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new())?))).await
}

async fn each_file<T>(storages: &Storages, location: &str, read: impl Fn(Bytes) -> Result<T>) -> Result<Vec<T>> {
    let mut files = Vec::new();
    for status in storages.list(location, Depth::Direct).await? {
        let name = status.location.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        if status.is_dir || name.starts_with(['.', '_']) {
            continue;
        }
        let bytes = storages.read(&status.location).await?;
        files.push(read(bytes).with_context(|| format!("file {}", status.location))?);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array, StringArray,
        TimestampMicrosecondArray,
    };
    use parquet::basic::{LogicalType, TimeUnit as TimeUnitOfParquet, Type as PhysicalType};
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use proptest::prelude::*;

    use super::*;
    use crate::compatibility::{Compatibility, Engine};

    fn sample() -> RecordBatch {
        let instants = vec![Some(0), Some(-1), None, Some(1_719_838_800_123_456), Some(-14_830_969_494_000_001)];
        let largest = 10i128.pow(38) - 1;
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("window_start", Arc::new(TimestampMicrosecondArray::from(instants))),
            ("Category", Arc::new(StringArray::from(vec![Some("Ünï"), Some(""), None, Some("a/b"), Some("x")]))),
            ("orders", Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None, Some(0), Some(7)]))),
            ("small", Arc::new(Int32Array::from(vec![1, -2, 3, i32::MIN, i32::MAX]))),
            ("flag", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true), Some(false)]))),
            ("day", Arc::new(Date32Array::from(vec![Some(0), Some(-171_606), None, Some(19_000), Some(1)]))),
            ("bytes", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\xff\x00"), None, Some(b""), Some(b"a"), Some(b"b")]))),
            ("real", Arc::new(Float64Array::from(vec![0.5, -1.0, f64::MAX, 3.0, 4.0]))),
            ("single", Arc::new(Float32Array::from(vec![Some(0.5), None, Some(1.0), Some(2.0), Some(3.0)]))),
            ("money", Arc::new(decimal(vec![Some(1), Some(-1), None, Some(largest), Some(-largest)], 38, 2))),
            ("cents", Arc::new(decimal(vec![Some(1), Some(-1), None, Some(999_999_999), Some(-999_999_999)], 9, 2))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
    }

    fn decimal(values: Vec<Option<i128>>, precision: u8, scale: i8) -> Decimal128Array {
        Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let batch = sample();
        let footer = BTreeMap::from([("lakesmith.note".to_string(), "kept".to_string())]);
        let file = decode(encode(&batch, &footer, HiveFiles::default()).unwrap(), &batch.schema(), &[]).unwrap();
        assert_eq!(file.rows, batch);
        assert_eq!(file.footer["lakesmith.note"], "kept");
        assert_eq!(file.footer["writer.time.zone"], "UTC");
        assert_eq!(file.footer["writer.date.proleptic"], "true");
    }

    #[test]
    fn physical_types_and_codec_are_those_that_every_hive_reads() {
        let reader = SerializedFileReader::new(encode(&sample(), &BTreeMap::new(), HiveFiles::default()).unwrap()).unwrap();
        let row_group = reader.metadata().row_group(0);
        let column = |name: &str| row_group.columns().iter().find(|column| column.column_path().string() == name).unwrap();
        assert_eq!(column("window_start").column_type(), PhysicalType::INT96);
        assert!(column("window_start").statistics().is_none());
        assert!(column("orders").statistics().is_some());
        for (name, length) in [("money", 16), ("cents", 4)] {
            assert_eq!(column(name).column_type(), PhysicalType::FIXED_LEN_BYTE_ARRAY, "{name}");
            assert_eq!(column(name).column_descr().type_length(), length, "{name}");
        }
        assert!(row_group.columns().iter().all(|column| column.compression() == Compression::SNAPPY));
    }

    #[test]
    fn where_no_hive_reads_instants_are_numbers_with_statistics() {
        let batch = sample();
        let bytes = encode(&batch, &BTreeMap::new(), Compatibility::of(&[Engine::Trino]).hive_files()).unwrap();
        let reader = SerializedFileReader::new(bytes.clone()).unwrap();
        let row_group = reader.metadata().row_group(0);
        let instants = row_group.columns().iter().find(|column| column.column_path().string() == "window_start").unwrap();
        assert_eq!(instants.column_type(), PhysicalType::INT64);
        assert!(instants.statistics().is_some());
        let of_time = LogicalType::Timestamp { is_adjusted_to_u_t_c: false, unit: TimeUnitOfParquet::MICROS };
        assert_eq!(instants.column_descr().logical_type_ref(), Some(&of_time));
        assert!(matches!(instants.compression(), Compression::ZSTD(_)));
        assert_eq!(decode(bytes, &batch.schema(), &[]).unwrap().rows, batch);
    }

    #[test]
    fn an_empty_batch_is_a_file_without_rows() {
        let batch = sample().slice(0, 0);
        assert_eq!(
            decode(encode(&batch, &BTreeMap::new(), HiveFiles::default()).unwrap(), &batch.schema(), &[])
                .unwrap()
                .rows
                .num_rows(),
            0
        );
    }

    #[test]
    fn a_file_that_is_taken_piece_by_piece_is_the_same() {
        let batch = sample();
        let mut encoder =
            FileEncoder::new(&batch.schema(), &BTreeMap::new(), HiveFiles::default(), &["orders".to_owned()]).unwrap();
        let mut content = Vec::new();
        for start in 0..batch.num_rows() {
            encoder.write(&batch.slice(start, 1)).unwrap();
            content.extend_from_slice(&encoder.take());
        }
        assert!(!content.is_empty());
        content.extend_from_slice(&encoder.finish().unwrap());
        assert_eq!(decode(content.into(), &batch.schema(), &[]).unwrap().rows, batch);
    }

    #[test]
    fn a_file_with_other_columns_is_refused() {
        let bytes = encode(&sample(), &BTreeMap::new(), HiveFiles::default()).unwrap();
        let other = Arc::new(Schema::new(vec![Field::new("else", DataType::Int64, true)]));
        assert!(decode(bytes.clone(), &other, &[]).is_err());
        assert!(decode(Bytes::from_static(b"no parquet"), &other, &[]).is_err());
        // One that was added since is null.
        let rows = decode(bytes, &other, &["else"]).unwrap().rows;
        assert_eq!((rows.num_rows(), rows.column(0).null_count()), (5, 5));
    }

    proptest! {
        #[test]
        fn an_instant_survives_int96(micros in -30_000_000_000_000_000i64..250_000_000_000_000_000) {
            prop_assert_eq!(int96(micros).to_micros(), micros);
        }
    }
}
