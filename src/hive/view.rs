//! Hive views that Hive, Spark and Trino all understand.
//!
//! Tables are qualified with their database and every name is in backticks behind an alias; the entry's columns are the query's; the
//! expanded text, the one that engines run, is set; there is no location and no SerDe. Anything else failed in at least one of the engines.

use tracing::info;

use crate::error::{Context, Error, Result};
use crate::metastore::{DeleteData, EnvironmentContext, FieldSchema, HiveTable, Metastore, MetastoreError};

// As Hive's own CREATE VIEW.
const INPUT_FORMAT: &str = "org.apache.hadoop.mapred.TextInputFormat";
const OUTPUT_FORMAT: &str = "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat";

/// One column of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewColumn {
    /// The table's column.
    pub source: String,
    pub name: String,
    pub hive_type: String,
    pub cast: Cast,
}

/// Whether a view shows a column as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    None,
    /// Money for dashboards.
    ToDouble,
}

impl ViewColumn {
    /// A column of the table under another name; decimals become doubles.
    pub fn new(source: &FieldSchema, name: impl Into<String>) -> Self {
        let cast = if source.hive_type.starts_with("decimal") { Cast::ToDouble } else { Cast::None };
        let hive_type = match cast {
            Cast::None => source.hive_type.clone(),
            Cast::ToDouble => "double".into(),
        };
        Self { source: source.name.clone(), name: name.into(), hive_type, cast }
    }
}

/// A view over one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiveViewSpec {
    pub database: String,
    pub name: String,
    /// The table, in the same database.
    pub table: String,
    pub columns: Vec<ViewColumn>,
}

impl HiveViewSpec {
    fn text(&self) -> String {
        let columns = self.columns.iter().map(|column| {
            let (source, name) = (quoted(&column.source), quoted(&column.name));
            match column.cast {
                Cast::None => format!("`t`.{source} AS {name}"),
                Cast::ToDouble => format!("CAST(`t`.{source} AS DOUBLE) AS {name}"),
            }
        });
        let columns = columns.collect::<Vec<_>>().join(", ");
        format!("SELECT {columns} FROM {}.{} `t`", quoted(&self.database), quoted(&self.table))
    }

    /// Whether an entry is this view.
    pub fn is_current(&self, entry: &HiveTable) -> bool {
        let columns =
            |columns: Vec<FieldSchema>| columns.into_iter().map(|column| (column.name, column.hive_type)).collect::<Vec<_>>();
        entry.view_expanded_text() == Some(self.text().as_str()) && columns(entry.columns()) == columns(self.schema())
    }

    fn schema(&self) -> Vec<FieldSchema> {
        self.columns.iter().map(|column| FieldSchema::new(&column.name, &column.hive_type)).collect()
    }

    fn entry(&self, owner: &str) -> HiveTable {
        let text = self.text();
        let mut view = HiveTable::view(&self.database, &self.name, &text, &text);
        view.set_owner(owner);
        view.set_columns(&self.schema());
        view.set_formats_without_serde(INPUT_FORMAT, OUTPUT_FORMAT);
        view
    }
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Creates the view, or replaces one that differs. A table of its name is an error.
pub async fn ensure_view(metastore: &Metastore, spec: &HiveViewSpec) -> Result<()> {
    let name = format!("{}.{}", spec.database, spec.name);
    let load =
        || async { metastore.table(&spec.database, &spec.name).await.with_context(|| format!("failed to load view {name}")) };
    let text = spec.text();
    let answer = match load().await? {
        Some(entry) if !entry.is_view() => {
            return Err(Error::stop(format!("{name} is a table, not a view")).hint("give the view another name, or none"));
        }
        // Earlier versions named an empty SerDe, which keeps Hive 4 from describing the view.
        Some(entry) if spec.is_current(&entry) && entry.serde_library().is_none() => return Ok(()),
        Some(mut entry) => {
            entry.set_view_text(&text, &text);
            entry.set_columns(&spec.schema());
            entry.set_formats_without_serde(INPUT_FORMAT, OUTPUT_FORMAT);
            let environment = EnvironmentContext::new().without_statistics();
            match metastore.alter_table(&spec.database, &spec.name, &entry, &environment).await {
                // Servers that compare types by position refuse some changes of a view as if it were a table.
                Err(MetastoreError::InvalidOperation { .. }) => {
                    metastore
                        .drop_table(&spec.database, &spec.name, DeleteData::No)
                        .await
                        .with_context(|| format!("failed to drop view {name}"))?;
                    metastore.create_table(&spec.entry(metastore.user())).await
                }
                answer => answer,
            }
        }
        None => metastore.create_table(&spec.entry(metastore.user())).await,
    };
    // Whatever the answer was: the entry that is there now counts.
    match (load().await?, answer) {
        (Some(entry), _) if spec.is_current(&entry) => {
            info!(view = name, "created a view");
            Ok(())
        }
        (_, Err(error)) => Err(Error::from(error).context(format!("failed to create view {name}"))),
        (_, Ok(())) => Err(Error::transient(format!("view {name} was changed while it was created"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_the_one_that_all_engines_understand() {
        let column = |name: &str, hive_type: &str, alias: &str| ViewColumn::new(&FieldSchema::new(name, hive_type), alias);
        let spec = HiveViewSpec {
            database: "lake".into(),
            name: "gold_view".into(),
            table: "gold".into(),
            columns: vec![column("category", "string", "category"), column("totalrevenue", "decimal(38,2)", "total_revenue")],
        };
        let expected =
            "SELECT `t`.`category` AS `category`, CAST(`t`.`totalrevenue` AS DOUBLE) AS `total_revenue` FROM `lake`.`gold` `t`";
        assert_eq!(spec.text(), expected);
        let entry = spec.entry("me");
        assert_eq!((entry.view_original_text(), entry.view_expanded_text()), (Some(expected), Some(expected)));
        assert_eq!((entry.table_type(), entry.location(), entry.serde_library()), ("VIRTUAL_VIEW", None, None));
        assert_eq!(entry.columns(), [FieldSchema::new("category", "string"), FieldSchema::new("total_revenue", "double")]);
    }
}
