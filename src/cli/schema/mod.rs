//! `lakesmith schema`: what a table's columns are and were, and one change of them at a time.

mod direct;
mod gold;
mod infer;
mod look;
mod plan;

use std::path::PathBuf;

use iceberg::TableIdent;

use crate::bronze;
use crate::catalog::Lakehouse;
use crate::cli::Outcome;
use crate::cli::global::GlobalArguments;
use crate::cli::page;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::schema::{self, Change, FieldPath, NewDefault, Position};
use crate::silver::{self, rejected};
use crate::table::{LakeTable, TableFormat};

/// Show a table's columns and their history; change columns, partitioning, properties
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith schema show silver
  lakesmith schema history silver
  lakesmith schema add-column silver Coupon string --after Discount --doc \"code of the coupon\"
  lakesmith schema rename-column silver SellerID Seller
  lakesmith schema widen-column silver Quantity long
  lakesmith schema partition replace silver Month \"month(OrderDate)\"
  lakesmith schema plan --output plan.json     what leads silver and gold to the pipeline file

A table is named by its layer (bronze, silver, rejected) or by its name, and is an Iceberg table. Gold
is shown, planned and applied, and otherwise changed in the pipeline file. A field in a column is
named by its path: address.city, items.element.price, labels.value.

Each command is one version of the table's metadata and writes no data file: files of before are read by
the ids of their fields. The daemon may run meanwhile, and goes on with its next commit; a column that it
writes and that is renamed or dropped makes silver wait until the pipeline file says the same. Bronze
goes on, so nothing is lost.")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Args)]
struct Target {
    /// Layer or table
    table: String,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Behind this column
    #[arg(long, value_name = "COLUMN", conflicts_with = "first")]
    after: Option<String>,
    /// Before all others
    #[arg(long)]
    first: bool,
}

impl Place {
    fn position(self) -> Option<Position> {
        match self.first {
            true => Some(Position::First),
            false => self.after.map(Position::After),
        }
    }
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Infer(infer::Arguments),
    #[command(flatten)]
    OfTable(TableAction),
}

/// What needs the tables.
#[derive(Debug, clap::Subcommand)]
enum TableAction {
    /// Show the columns with their ids, types, texts, and the schema that each is there since
    #[command(after_help = "\
Examples:
  lakesmith schema show silver
  lakesmith schema show silver --schema 2      as it was
  lakesmith schema show gold                   with the SQL of each measure")]
    Show {
        #[command(flatten)]
        target: Target,
        /// A schema of before, as `schema history` numbers them
        #[arg(long, value_name = "ID")]
        schema: Option<i32>,
    },
    /// List the schemas that the table had, with what each changed
    #[command(after_help = "\
Examples:
  lakesmith schema history silver")]
    History {
        #[command(flatten)]
        target: Target,
    },
    /// Show what two schemas of the table differ in
    #[command(after_help = "\
Examples:
  lakesmith schema diff silver                 the last change
  lakesmith schema diff silver --from 0        all changes")]
    Diff {
        #[command(flatten)]
        target: Target,
        /// The older schema; without it the one before the newer one
        #[arg(long, value_name = "ID")]
        from: Option<i32>,
        /// The newer schema; without it the present one
        #[arg(long, value_name = "ID")]
        to: Option<i32>,
    },
    /// Compare silver and gold with the pipeline file, and say which steps lead there
    #[command(after_help = "\
Examples:
  lakesmith schema plan                        what is to be done, and what each step means for readers
  lakesmith schema plan --output plan.json && lakesmith schema apply plan.json

Columns of silver that the pipeline file does not name are left alone unless --drop is given: another
engine, or `schema add-column`, may have added them. A new column with field = \"SellerID\" is the
table's SellerID by another name, if nothing else is read into that; any other new name is a new
column, unless `schema rename-column` has given it to one before.

A gold table's new measures are null in the rows so far, or are computed for them too with --backfill. All
other changes of gold (dimensions, measures dropped, renamed or computed in another way) write every
partition anew from silver; readers see each as before or as it will be. Exits with 1 if a step is refused.")]
    Plan {
        /// Drop the columns that the pipeline file does not name
        #[arg(long)]
        drop: bool,
        /// Compute new measures of gold for the rows so far, too
        #[arg(long)]
        backfill: bool,
        /// Write the plan to this file, for `schema apply`
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Do the steps of a plan that `schema plan` wrote, and nothing else
    #[command(after_help = "\
Examples:
  lakesmith schema apply plan.json

Each step of silver is one commit. Gold's steps are done together, by the daemon if it runs (it reads the
pipeline file again), else by this command. If it is interrupted, the same command goes on where it
stopped. A table that was changed since the plan was made is left as it is.")]
    Apply {
        /// The plan
        #[arg(value_name = "FILE")]
        plan: PathBuf,
    },
    /// Add a column, or a field in one; without a default it is null in all rows so far
    #[command(after_help = "\
Examples:
  lakesmith schema add-column silver Coupon string
  lakesmith schema add-column silver Address \"struct<street: string, city: string>\" --after CustomerName
  lakesmith schema add-column silver Address.zip string --first
  lakesmith schema add-column silver Origin string --default web --required

A default needs format version 3 of Iceberg, which the table then has for good: Hive refuses to read it,
and Trino 476 shows null in rows so far. So it is refused unless tables.compatibility names spark alone.
For all engines: add the column without, compute it in [[silver.derive]], and `lakesmith reprocess`.

Types: boolean, int, long, float, double, decimal(P, S), date, timestamp, string, binary, list<TYPE>,
map<TYPE, TYPE>, struct<NAME: TYPE, ...>. Names: up to 128 letters, digits and underscores.")]
    AddColumn {
        #[command(flatten)]
        target: Target,
        /// Name, or path
        name: FieldPath,
        /// Type
        #[arg(value_name = "TYPE")]
        field_type: String,
        #[command(flatten)]
        place: Place,
        /// What it holds, for people
        #[arg(long)]
        doc: Option<String>,
        /// Its value in rows so far, and in rows that come without; needs tables.compatibility = ["spark"]
        #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
        default: Option<String>,
        /// No row may be null in it
        #[arg(long, requires = "default")]
        required: bool,
    },
    /// Rename a column; its values stay
    #[command(after_help = "\
Examples:
  lakesmith schema rename-column silver SellerID Seller
  lakesmith schema rename-column silver Address.zip postcode")]
    RenameColumn {
        #[command(flatten)]
        target: Target,
        /// Name, or path
        name: FieldPath,
        /// The new name alone, without a path
        to: String,
    },
    /// Drop a column; older snapshots still show it
    #[command(after_help = "\
Examples:
  lakesmith schema drop-column silver Coupon")]
    DropColumn {
        #[command(flatten)]
        target: Target,
        /// Name, or path
        name: FieldPath,
    },
    /// Give a column a type that holds more: int to long, float to double, a decimal of more digits
    #[command(after_help = "\
Examples:
  lakesmith schema widen-column silver Quantity long
  lakesmith schema widen-column silver TotalAmount \"decimal(20, 2)\"")]
    WidenColumn {
        #[command(flatten)]
        target: Target,
        /// Name, or path
        name: FieldPath,
        /// The new type
        #[arg(value_name = "TYPE")]
        to: String,
    },
    /// Allow nulls in a required column
    #[command(after_help = "\
Examples:
  lakesmith schema make-optional silver Brand")]
    MakeOptional {
        #[command(flatten)]
        target: Target,
        /// Name, or path
        name: FieldPath,
    },
    /// Move a column before or behind others
    #[command(after_help = "\
Examples:
  lakesmith schema move-column silver Brand --after Category")]
    MoveColumn {
        #[command(flatten)]
        target: Target,
        /// Name, or path
        name: FieldPath,
        #[command(flatten)]
        place: Place,
    },
    /// Say what a column holds
    #[command(after_help = "\
Examples:
  lakesmith schema set-doc silver Tax \"as invoiced\"")]
    SetDoc {
        #[command(flatten)]
        target: Target,
        /// Name, or path
        name: FieldPath,
        /// For people; an empty text takes it away
        doc: String,
    },
    /// Set a property of the table, or take it away
    #[command(after_help = "\
Examples:
  lakesmith schema set-property silver write.parquet.compression-level=3
  lakesmith schema set-property silver team=            takes it away")]
    SetProperty {
        #[command(flatten)]
        target: Target,
        /// Property and value
        #[arg(value_name = "KEY=VALUE")]
        property: String,
    },
    /// Change how rows that come from now on are partitioned
    #[command(subcommand)]
    Partition(PartitionAction),
}

#[derive(Debug, clap::Subcommand)]
#[command(after_help = "\
Examples:
  lakesmith schema partition add silver \"bucket(16, CustomerID)\"
  lakesmith schema partition drop silver Month
  lakesmith schema partition replace silver Month \"month(OrderDate)\"

Fields are a column's name, or year, month, day or hour of it, bucket(N, column) or truncate(WIDTH, column).
Files that are there stay as they are, and are still found.")]
enum PartitionAction {
    /// Partition by one more field
    #[command(after_help = "\
Examples:
  lakesmith schema partition add silver \"bucket(16, CustomerID)\"")]
    Add {
        #[command(flatten)]
        target: Target,
        /// As in month(OrderDate)
        field: String,
    },
    /// Partition by one field less
    #[command(after_help = "\
Examples:
  lakesmith schema partition drop silver Month")]
    Drop {
        #[command(flatten)]
        target: Target,
        /// As in month(OrderDate), or the field's name as in OrderDate_month
        field: String,
    },
    /// Put another field in the place of one
    #[command(after_help = "\
Examples:
  lakesmith schema partition replace silver Month \"month(OrderDate)\"")]
    Replace {
        #[command(flatten)]
        target: Target,
        /// The present one
        field: String,
        /// The new one
        by: String,
    },
}

pub async fn run(global: &GlobalArguments, arguments: Arguments) -> Result<Outcome> {
    let action = match arguments.action {
        Action::Infer(arguments) => return infer::run(global, arguments).await,
        Action::OfTable(action) => action,
    };
    let config = global.pipeline()?.config;
    let lakehouse = Lakehouse::open(&config.metastore, &config.storage, &config.catalog).await?;
    let outcome = act(&config, &lakehouse, action).await;
    lakehouse.close().await;
    outcome
}

async fn act(config: &Config, lakehouse: &Lakehouse, action: TableAction) -> Result<Outcome> {
    let text = match action {
        TableAction::Show { target, schema } => match gold::named(config, &target.table).filter(|_| schema.is_none()) {
            Some(table) => gold::show(config, lakehouse, table).await?,
            None => look::show(&open(config, lakehouse, &target).await?, schema)?,
        },
        TableAction::History { target } => look::history(&open(config, lakehouse, &target).await?),
        TableAction::Diff { target, from, to } => look::diff(&open(config, lakehouse, &target).await?, from, to)?,
        TableAction::Plan { drop, backfill, output } => {
            return plan::plan(config, lakehouse, drop, backfill, output.as_deref()).await;
        }
        TableAction::Apply { plan } => return plan::apply(config, lakehouse, &plan).await,
        TableAction::AddColumn { target, name: path, field_type, place, doc, default, required } => {
            let default = default.map(|value| NewDefault { value, required });
            let change = Change::Add { path, field_type, doc, position: place.position(), default };
            direct::changed(config, lakehouse, &target, change).await?
        }
        TableAction::RenameColumn { target, name: path, to } => {
            direct::changed(config, lakehouse, &target, Change::Rename { path, to }).await?
        }
        TableAction::DropColumn { target, name: path } => {
            direct::changed(config, lakehouse, &target, Change::Drop { path }).await?
        }
        TableAction::WidenColumn { target, name: path, to } => {
            direct::changed(config, lakehouse, &target, Change::Widen { path, to }).await?
        }
        TableAction::MakeOptional { target, name: path } => {
            direct::changed(config, lakehouse, &target, Change::MakeOptional { path }).await?
        }
        TableAction::MoveColumn { target, name: path, place } => {
            let position = place
                .position()
                .ok_or_else(|| Error::config(format!("where is {path} to stand?")).hint("say --first, or --after COLUMN"))?;
            direct::changed(config, lakehouse, &target, Change::Move { path, position }).await?
        }
        TableAction::SetDoc { target, name: path, doc } => {
            let doc = Some(doc).filter(|doc| !doc.is_empty());
            direct::changed(config, lakehouse, &target, Change::Document { path, doc }).await?
        }
        TableAction::SetProperty { target, property } => direct::set_property(config, lakehouse, &target, &property).await?,
        TableAction::Partition(action) => direct::repartition(config, lakehouse, action).await?,
    };
    page::print(&text)?;
    Ok(Outcome::Done)
}

/// A table and what lakesmith itself needs of it.
struct Opened {
    table: LakeTable,
    kept: Vec<String>,
    is_silver: bool,
}

async fn open_for_change(config: &Config, lakehouse: &Lakehouse, target: &Target) -> Result<Opened> {
    let table = open(config, lakehouse, target).await?;
    let name = table.ident().name().to_owned();
    let names = |schema: iceberg::spec::Schema| schema.as_struct().fields().iter().map(|field| field.name.clone()).collect();
    let kept = if name == config.bronze.table {
        names(bronze::schema())
    } else if name == config.silver.rejected_table() {
        names(rejected::schema())
    } else {
        silver::OWN_COLUMNS.map(str::to_owned).to_vec()
    };
    let is_silver = name == config.silver.table;
    Ok(Opened { table, kept, is_silver })
}

async fn open(config: &Config, lakehouse: &Lakehouse, target: &Target) -> Result<LakeTable> {
    let (database, name) = target.table.split_once('.').unwrap_or((&config.tables.database, &target.table));
    let name = match name {
        "bronze" => config.bronze.table.clone(),
        "silver" => config.silver.table.clone(),
        "rejected" => config.silver.rejected_table(),
        other => other.to_lowercase(),
    };
    let view = || config.gold.iter().find(|gold| gold.view == name);
    if let Some(gold) = gold::named(config, &name).or_else(view) {
        let name = if gold.view == name { &gold.view } else { &gold.table };
        return Err(Error::config(format!("{database}.{name} is gold, which is changed in the pipeline file"))
            .hint("`lakesmith schema plan` says which steps lead it there; `lakesmith schema show gold` shows its columns"));
    }
    let is_hive = (name == config.bronze.table && config.bronze.format == TableFormat::Hive)
        || (name == config.silver.table && config.silver.format == TableFormat::Hive);
    if is_hive {
        return Err(Error::config(format!(
            "{database}.{name} is no Iceberg table: only of those can the schema be shown and changed"
        ))
        .hint("`lakesmith tables show` shows its columns"));
    }
    schema::open(lakehouse.catalog(), &TableIdent::from_strs([database, &name])?).await
}
