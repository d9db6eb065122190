//! Up to which time a table of a pipeline is complete, as the table says itself, and what holds it back.
//!
//! Only metadata is read, and that only when it has changed. A table whose offsets contradict themselves (somebody rolled it back) states
//! nothing: its properties still hold the time of before.

use iceberg::TableIdent;

use crate::bronze::BronzeTable;
use crate::catalog::HiveCatalog;
use crate::completeness::{COMPLETE_UNTIL, parse_instant};
use crate::error::{Context, Error, Result};
use crate::silver::SilverTable;
use crate::table::TableFormat;

/// A table and, in the order of the records' way, what it is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    Bronze,
    Silver,
    Gold,
}

/// The names of the tables that one of them depends on.
#[derive(Debug, Clone)]
pub struct Names {
    pub database: String,
    pub bronze: String,
    pub bronze_format: TableFormat,
    pub silver: String,
    pub silver_format: TableFormat,
    /// The gold table in question; empty for another layer.
    pub gold: String,
}

/// Looks at one table again and again.
pub struct Watch {
    catalog: HiveCatalog,
    names: Names,
    layer: Layer,
    /// As last read, so that its metadata is read again only when it has moved.
    table: Option<Watched>,
}

/// Bronze or silver.
enum Watched {
    Bronze(BronzeTable),
    Silver(SilverTable),
}

impl Watched {
    async fn refresh(&mut self) -> Result<()> {
        match self {
            Self::Bronze(table) => table.refresh().await,
            Self::Silver(table) => table.refresh().await,
        }
    }

    /// The time that the table states.
    fn stated(&self) -> Result<Option<i64>> {
        let (ident, until_ms, checkpoint) = match self {
            Self::Bronze(table) => (table.ident(), table.completeness().until_ms, table.checkpoint()),
            Self::Silver(table) => (table.ident(), table.completeness().until_ms, table.checkpoint()),
        };
        match checkpoint {
            Ok(_) => Ok(until_ms),
            Err(contradiction) => Err(Error::stop(format!("what table {ident} states about its time does not hold"))
                .hint("see `lakesmith offsets show`")
                .caused_by(contradiction)),
        }
    }
}

impl Watch {
    pub fn new(catalog: &HiveCatalog, names: Names, layer: Layer) -> Self {
        Self { catalog: catalog.clone(), names, layer, table: None }
    }

    /// `database.table`
    pub fn name(&self) -> String {
        format!("{}.{}", self.names.database, self.table_of(self.layer))
    }

    fn table_of(&self, layer: Layer) -> &str {
        match layer {
            Layer::Bronze => &self.names.bronze,
            Layer::Silver => &self.names.silver,
            Layer::Gold => &self.names.gold,
        }
    }

    /// The time that the table states now, in milliseconds since 1970; none before its first statement, and before there is a table.
    pub async fn until_ms(&mut self) -> Result<Option<i64>> {
        match self.layer {
            Layer::Gold => self.gold().await,
            Layer::Bronze | Layer::Silver => {
                if let Some(table) = &mut self.table {
                    table.refresh().await?;
                } else {
                    self.table = self.open(self.layer).await?;
                }
                self.table.as_ref().map_or(Ok(None), Watched::stated)
            }
        }
    }

    async fn open(&self, layer: Layer) -> Result<Option<Watched>> {
        let ident = TableIdent::from_strs([self.names.database.as_str(), self.table_of(layer)])?;
        Ok(match layer {
            Layer::Bronze => self.bronze(&ident).await?.map(Watched::Bronze),
            _ => SilverTable::open(&self.catalog, &ident, self.names.silver_format).await?.map(Watched::Silver),
        })
    }

    async fn bronze(&self, ident: &TableIdent) -> Result<Option<BronzeTable>> {
        BronzeTable::open(&self.catalog, ident, self.names.bronze_format).await
    }

    async fn gold(&self) -> Result<Option<i64>> {
        let (database, table) = (&self.names.database, &self.names.gold);
        let entry = self.catalog.metastore().table(database, table).await;
        let entry = entry.with_context(|| format!("table {} cannot be looked up", self.name()))?;
        Ok(entry.and_then(|entry| entry.parameter(COMPLETE_UNTIL).and_then(parse_instant)))
    }

    /// What keeps the table from stating a later time, in words for a person; none if nothing is known of it.
    pub async fn held_back_by(&self) -> Result<Option<String>> {
        let mut own_ms = match self.layer {
            Layer::Gold => self.gold().await?,
            Layer::Bronze | Layer::Silver => self.open(self.layer).await?.as_ref().map_or(Ok(None), Watched::stated)?,
        };
        let inputs: &[Layer] = match self.layer {
            Layer::Gold => &[Layer::Silver, Layer::Bronze],
            Layer::Silver => &[Layer::Bronze],
            Layer::Bronze => &[],
        };
        let mut above = self.layer;
        for input in inputs {
            let Some(table) = self.open(*input).await? else {
                return Ok(Some(format!("there is no table {} yet", self.table_of(*input))));
            };
            let input_ms = table.stated()?;
            // Within a second the two are on their way to each other.
            if input_ms > own_ms.map(|own_ms| own_ms.saturating_add(1_000)) {
                return Ok(Some(format!("{} has not taken in all that {} has", self.table_of(above), self.table_of(*input))));
            }
            (own_ms, above) = (input_ms, *input);
        }
        let ident = TableIdent::from_strs([self.names.database.as_str(), self.names.bronze.as_str()])?;
        let Some(bronze) = self.bronze(&ident).await? else { return Ok(Some("there is no bronze table yet".to_owned())) };
        let Some(checkpoint) = bronze.checkpoint()? else { return Ok(Some("no record was read yet".to_owned())) };
        Ok(bronze.completeness().slowest(&checkpoint).map(|(partition, time)| match time {
            None => format!("nothing is known yet of the times in partition {partition}"),
            Some(time) => format!("partition {partition} was read up to {}", crate::completeness::format_instant(time)),
        }))
    }
}
