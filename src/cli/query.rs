//! `lakesmith query`: SQL over all layers.

use std::path::PathBuf;

use super::Outcome;
use super::global::GlobalArguments;
use super::page::{self, Page};
use crate::catalog::Lakehouse;
use crate::error::{Error, Result};
use crate::query::{Answer, QuerySession, output};

/// Read the tables with SQL
#[derive(Debug, clap::Args)]
#[command(after_help = r#"Examples:
  lakesmith query "SHOW TABLES"
  lakesmith query "SELECT Country, sum(TotalAmount) FROM silver_amazon_sales GROUP BY Country"
  lakesmith query -o csv "SELECT * FROM datalake.gold_amazon_sales_aggregated" > gold.csv
  lakesmith query "EXPLAIN SELECT count(*) FROM silver_amazon_sales WHERE Year = 2024"
  lakesmith query --file report.sql --output json
  lakesmith query 'SELECT partition, record_count FROM "silver_amazon_sales$partitions"'

Tables are named DATABASE.TABLE, or TABLE alone in the pipeline's database. Names of columns match
in any case. What a table consists of has Trino's names: "TABLE$snapshots", "TABLE$history",
"TABLE$files", "TABLE$manifests", "TABLE$partitions" (of a Hive table the last alone). A shell
leaves the $ alone between single quotes. Times are in UTC. Only statements that read are allowed:
SELECT, WITH, VALUES, EXPLAIN, DESCRIBE, SHOW TABLES."#)]
pub struct Arguments {
    /// The statement
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    sql: Option<String>,
    /// Read the statement from a file; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Form of the answer: a table for people, CSV, or one JSON object per line
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
    /// Most rows that a table shows; csv and json are never cut
    #[arg(long, default_value_t = 1000)]
    max_rows: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum OutputFormat {
    #[default]
    Table,
    Csv,
    Json,
}

/// Characters of a cell that a table shows.
const CELL_WIDTH: usize = 80;

pub async fn run(global: &GlobalArguments, arguments: Arguments) -> Result<Outcome> {
    let sql = match (&arguments.sql, &arguments.file) {
        (Some(sql), _) => sql.clone(),
        (None, Some(file)) => read_statement(file)?,
        (None, None) => return Err(Error::config("there is no statement")),
    };
    let config = global.pipeline()?.config;
    let lakehouse = Lakehouse::open(&config.metastore, &config.storage, &config.catalog).await?;
    let session = QuerySession::new(lakehouse.catalog().clone(), &config.tables.database, &config.query)?;
    let answer = session.query(&sql).await?;
    match arguments.output {
        OutputFormat::Table => print_table(answer, arguments.max_rows).await?,
        OutputFormat::Csv => {
            output::write_csv(answer, &mut std::io::stdout()).await?;
        }
        OutputFormat::Json => {
            output::write_json(answer, &mut std::io::stdout()).await?;
        }
    }
    Ok(Outcome::Done)
}

fn read_statement(file: &std::path::Path) -> Result<String> {
    let text = match file.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(file),
    };
    text.map_err(|error| Error::config(format!("{} cannot be read", file.display())).caused_by(error))
}

/// Prints an answer as a table of at most `max_rows` rows, and how many there are.
pub async fn print_table(mut answer: Answer, max_rows: usize) -> Result<()> {
    let schema = answer.schema.clone();
    let numeric = |field: &arrow::datatypes::Field| field.data_type().is_numeric();
    let right: Vec<_> =
        schema.fields().iter().enumerate().filter(|(_, field)| numeric(field)).map(|(column, _)| column).collect();
    let mut page = Page::new(schema.fields().iter().map(|field| field.name().as_str())).right(right);
    // A plan is text of many lines: shown as it is.
    let is_plan = schema.fields().iter().map(|field| field.name().as_str()).eq(["plan_type", "plan"]);
    let (mut more, mut shortened) = (false, false);
    while let Some(batch) = answer.next().await {
        let batch = batch?;
        let room = max_rows - page.rows();
        more |= batch.num_rows() > room;
        for row in output::cells(&batch.slice(0, batch.num_rows().min(room)))? {
            page.row(row.into_iter().map(|cell| match cell {
                None => "NULL".to_string(),
                Some(cell) if is_plan => cell.trim_end().to_string(),
                Some(cell) => {
                    shortened |= cell.chars().nth(CELL_WIDTH).is_some();
                    page::cut(&cell, CELL_WIDTH)
                }
            }));
        }
        if more {
            break;
        }
    }
    let rows = page.rows();
    page::print(&page.to_string())?;
    match more {
        true => page::note(&format!(
            "the first {} rows; there are more: use --max-rows, --output csv or --output json",
            page::number(rows as u64)
        )),
        false if rows == 1 => page::note("1 row"),
        false => page::note(&format!("{} rows", page::number(rows as u64))),
    }
    if shortened {
        page::note("long cells are cut; --output csv and --output json show them whole");
    }
    Ok(())
}
