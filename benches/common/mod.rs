//! What benchmarks share: the shipped preset, and the messages that its generator makes.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use lakesmith::config::{Config, PipelineFile, Sources, preset};
use lakesmith::record::RawBatch;
use lakesmith::source::{self, PollLimits, SourceKind, SourceSettings};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// As `pipeline.batch_rows` has it.
pub const BATCH_ROWS: usize = 20_000;

pub type Failure = Box<dyn std::error::Error>;

/// The preset's pipeline.
pub fn config() -> Result<Config, Failure> {
    let text = preset::preset("amazon-sales").ok_or("no such preset")?.text.to_owned();
    let file = PipelineFile { name: "preset".into(), text, directory: ".".into() };
    Ok(Config::load(&Sources { file: Some(file), ..Sources::default() })?.config)
}

/// Good messages of the generator, as a source gives them.
pub async fn messages(rows: u64) -> Result<Vec<RawBatch>, Failure> {
    let mut settings = SourceSettings { kind: SourceKind::Generator, ..SourceSettings::default() };
    settings.generator.rows = rows;
    settings.generator.bad_share = 0.0;
    let mut source = source::open(&settings).await?;
    source.assign(&BTreeMap::new()).await?;
    let limits = PollLimits { max_rows: BATCH_ROWS, ..PollLimits::default() };
    let mut batches = Vec::new();
    while let Some(batch) = source.poll(&limits).await? {
        batches.push(batch);
    }
    Ok(batches)
}

/// The bytes of one file by Parquet's own writer, with nothing of lakesmith around it.
pub fn parquet_alone(batches: &[RecordBatch]) -> Result<usize, Failure> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let schema = batches.first().ok_or("no rows")?.schema();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?.len())
}
