//! The start of a session: every question is asked before anything is changed.
//!
//! First what needs no server (the plans). Then, side by side, the source (is the topic there, is it the one the tables were filled from,
//! has it the next offset) and the tables that exist. Only then are missing databases and tables created, side by side too: a daemon that
//! was killed must be back before anybody notices, and each of these questions waits for another server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info};

use super::definition::Definition;
use super::gold_task::{self, GoldTasks, Seat};
use super::lead::Lead;
use super::positions::{distance, ensure_partitions_exist};
use super::rebalance::{begin, share};
use super::redefine::DefinitionWatch;
use super::session::Session;
use super::silver_stage::{SilverParts, SilverStage};
use super::silver_state::Silver;
use super::specs::{bronze_spec, gold_columns, gold_plans, rejected_spec, silver_spec, writer};
use super::tally::Tally;
use super::{RunOptions, Until};
use crate::bronze::{self, BronzeTable};
use crate::catalog::{HiveCatalog, Lakehouse};
use crate::checkpoint::{Checkpoint, OffsetRange, PartitionId};
use crate::error::Result;
use crate::schema::with_added;
use crate::silver::{SilverPlan, SilverTable, Strangers, UnknownFields};
use crate::source::{self, Source, SourceKind, SourceSettings};
use crate::table::logged::LoggedForm;
use crate::table::{Origin, RecordSpec, RecordTable};
use crate::window::Window;

/// The source, and where its partitions begin and end.
struct OpenSource {
    source: Box<dyn Source>,
    origin: Origin,
    watermarks: BTreeMap<PartitionId, OffsetRange>,
}

/// The tables of records of a pipeline, or what is there of them.
struct Tables<B, T> {
    bronze: B,
    silver: T,
    rejected: T,
}

/// Opens source and tables and stands where the tables end.
pub(super) async fn open<'a>(
    definition: &'a Definition,
    lakehouse: &Lakehouse,
    options: &RunOptions,
    tally: &Tally,
    strangers: &Arc<Strangers>,
) -> Result<(Session<'a>, GoldTasks)> {
    let mut plan = Arc::new(SilverPlan::new(&definition.silver)?);
    let catalog = lakehouse.catalog();
    let mut specs = Tables {
        bronze: bronze_spec(definition, lakehouse.storages())?,
        silver: silver_spec(definition, &plan, lakehouse.storages())?,
        rejected: rejected_spec(definition, lakehouse.storages())?,
    };

    prove_meanwhile(catalog, &definition.tables.database);
    let (opened, existing) = tokio::join!(open_source(&definition.source), open_tables(catalog, &specs));
    let OpenSource { mut source, origin, watermarks } = opened?;
    let existing = existing?;
    let lake = existing.silver.as_ref().and_then(SilverTable::lake);
    let extended = lake.map_or_else(|| definition.silver.clone(), |table| with_added(&definition.silver, table));
    if extended != definition.silver {
        plan = Arc::new(SilverPlan::new(&extended)?);
        specs.silver = silver_spec(definition, &plan, lakehouse.storages())?;
    }
    let gold_plans = gold_plans(definition, &plan, lakehouse.storages())?;
    for table in [&existing.silver, &existing.rejected].into_iter().flatten() {
        table.ensure_same_source(&origin)?;
    }
    if let Some(bronze) = &existing.bronze {
        bronze.ensure_same_source(&origin)?;
    }
    let known = existing.bronze.as_ref().map(BronzeTable::checkpoint).transpose()?.flatten();
    let checkpoint =
        known.unwrap_or_else(|| Checkpoint::start(&origin.topic, origin.topic_id.clone(), origin.cluster_id.clone()));
    ensure_partitions_exist(&checkpoint, &watermarks)?;
    source.assign(&checkpoint.next_offsets()).await?;

    let Tables { mut bronze, mut silver, rejected } = create_missing(catalog, existing, &specs).await?;
    tokio::try_join!(bronze.complete(), silver.complete())?;
    Window::TablesCreated.pass();
    tell_meanwhile(catalog, &definition.tables.database);
    let share = share(&*source);
    if share.is_shared() {
        begin(&mut bronze, &*source, &origin).await?;
    }
    tally.layer("bronze", &bronze.ident().to_string());
    let parts = SilverParts {
        gold_columns: gold_columns(&gold_plans),
        share: share.clone(),
        strangers: (definition.silver.unknown_fields == UnknownFields::Add).then(|| strangers.clone()),
        ..SilverParts::new(
            definition,
            catalog,
            plan,
            (specs.silver, specs.rejected),
            (origin.clone(), bronze.uuid()),
            tally,
            &options.shutdown,
        )
    };
    let silver_ident = silver.ident().clone();
    let stage = SilverStage::new(parts, silver, rejected)?;
    let seat = if share.is_shared() { Seat::Shared } else { Seat::Own };
    let reload = options.reload.clone().filter(|_| options.until == Until::Stopped);
    let (gold, senders) = gold_task::prepare(gold_plans, &definition.tables.database, &definition.pipeline, seat, reload);
    let silver = Silver::open(stage, &bronze, &definition.pipeline.retry, senders).await?;
    let gold = gold.start(lakehouse, (&silver_ident, definition.silver.format), &options.shutdown, tally);

    let ends: BTreeMap<_, _> = watermarks.into_iter().map(|(partition, range)| (partition, range.end)).collect();
    if share.is_shared() {
        let waiting = distance(&bronze.checkpoint()?.unwrap_or_default().next_offsets(), &ends);
        info!(topic = %origin.topic, partitions = ends.len(), records_waiting = waiting, "joining the group that reads the topic");
    } else {
        let waiting = distance(&source.positions(), &ends);
        tally.expect(waiting);
        info!(topic = %origin.topic, partitions = ends.len(), records_waiting = waiting, "reading continues where bronze ends");
    }
    let session = Session {
        settings: &definition.pipeline,
        origin,
        bronze_writer: writer(definition, &bronze::NO_DICTIONARY, &bronze::NO_STATISTICS),
        bronze,
        silver,
        tally: tally.clone(),
        shutdown: options.shutdown.clone(),
        ends: (options.until == Until::CaughtUp).then_some(ends),
        looked: None,
        joined: !share.is_shared(),
        lead: lead(definition),
        share,
        definition: DefinitionWatch::new(options.reload.as_ref(), options.until, definition, &extended, lakehouse.storages()),
        watched: Instant::now(),
        source,
    };
    Ok((session, gold))
}

/// Only Kafka hands out its partitions independently of each other; only gold's memory depends on their lead.
fn lead(definition: &Definition) -> Lead {
    let matters = definition.source.kind == SourceKind::Kafka && !definition.gold.is_empty();
    Lead::new(if matters { definition.pipeline.max_lead } else { Duration::ZERO })
}

async fn open_source(settings: &SourceSettings) -> Result<OpenSource> {
    let source = source::open(settings).await?;
    let identity = source.identity().clone();
    let origin = Origin { topic: identity.topic, topic_id: identity.topic_id, cluster_id: identity.cluster_id };
    let watermarks = source.watermarks().await?;
    Ok(OpenSource { source, origin, watermarks })
}

async fn open_tables(
    catalog: &HiveCatalog,
    specs: &Tables<RecordSpec, RecordSpec>,
) -> Result<Tables<Option<BronzeTable>, Option<SilverTable>>> {
    let (bronze, silver, rejected) = tokio::try_join!(
        BronzeTable::open_spec(catalog, &specs.bronze),
        SilverTable::open_spec(catalog, &specs.silver),
        SilverTable::open_spec(catalog, &specs.rejected),
    )?;
    Ok(Tables { bronze, silver, rejected })
}

async fn create_missing(
    catalog: &HiveCatalog,
    existing: Tables<Option<BronzeTable>, Option<SilverTable>>,
    specs: &Tables<RecordSpec, RecordSpec>,
) -> Result<Tables<BronzeTable, SilverTable>> {
    let Tables { bronze, silver, rejected } = existing;
    if bronze.is_none() || silver.is_none() || rejected.is_none() {
        catalog.ensure_database(specs.bronze.ident().namespace()).await?;
    }
    let (bronze, silver, rejected) = tokio::try_join!(
        create(catalog, bronze, &specs.bronze),
        create(catalog, silver, &specs.silver),
        create(catalog, rejected, &specs.rejected),
    )?;
    Ok(Tables { bronze, silver, rejected })
}

async fn create<L: LoggedForm>(
    catalog: &HiveCatalog,
    existing: Option<RecordTable<L>>,
    spec: &RecordSpec,
) -> Result<RecordTable<L>> {
    match existing {
        Some(table) => Ok(table),
        None => RecordTable::open_or_create(catalog, spec).await,
    }
}

/// Lets the log say once what the metastore can do; nobody waits for it.
fn tell_meanwhile(catalog: &HiveCatalog, database: &str) {
    let (metastore, database) = (catalog.metastore().clone(), database.to_owned());
    tokio::spawn(async move { metastore.tell(&database).await });
}

/// Lets the metastore be probed while the source is opened; the first commit needs to know. Where the database is missing, or the probe
/// fails, whoever needs it probes again.
fn prove_meanwhile(catalog: &HiveCatalog, database: &str) {
    let (metastore, database) = (catalog.metastore().clone(), database.to_owned());
    tokio::spawn(async move {
        let probed = match metastore.database(&database).await {
            Ok(Some(_)) => metastore.compare_and_swap(&database).await.map(|_| ()),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = probed {
            debug!(%error, "the metastore was not probed ahead of time");
        }
    });
}
