//! A running daemon takes up another definition of silver, and of gold.
//!
//! A session keeps its definition to its end. Between two cycles it reads the pipeline file again when silver's table has got another schema,
//! when somebody asks for it (SIGHUP), and from time to time while silver is stopped. If the file defines silver anew, and the table takes rows
//! of that definition, the session ends as at a shutdown, with everything read committed, and the next one is opened with it. Otherwise the
//! session goes on with the definition that it has, and says why.
//!
//! A gold table is given another definition by `lakesmith schema apply`; its maintainer finds that in the table, and the file is read for
//! gold too.
//!
//! *Invariants*: nothing but silver's columns, computations and expectations is taken up (and gold's, where its table is to have another
//! definition, or could not be computed any more): which topic is read and where tables lie stays until a restart. A file that cannot be
//! used changes nothing.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tracing::{debug, info, warn};

use super::Until;
use super::definition::Definition;
use super::session::Session;
use super::silver_state::{Silver, SilverState};
use super::specs::gold_plans;
use super::watch::LOOK_EVERY;
use crate::error::{Context, Error, Result};
use crate::gold::{GoldDefinition, GoldSettings};
use crate::schema::{Plan, Wanted, with_added};
use crate::silver::{OWN_COLUMNS, SilverPlan, SilverSettings, SilverTable};
use crate::storage::Storages;
use crate::table::LakeTable;

/// How a run reads its pipeline file again.
#[derive(Clone)]
pub struct Reload {
    read: Arc<dyn Fn() -> Result<Definition> + Send + Sync>,
    asked: Arc<AtomicBool>,
    gold_asked: Arc<AtomicBool>,
    /// Silver's schema when the file was read last, over all sessions; none for a plain Hive table, and before the first look.
    schema: Arc<Mutex<Option<i32>>>,
}

impl Reload {
    pub fn new(read: impl Fn() -> Result<Definition> + Send + Sync + 'static) -> Self {
        Self { read: Arc::new(read), asked: Arc::default(), gold_asked: Arc::default(), schema: Arc::default() }
    }

    /// Whether silver has another schema than at the last call.
    fn has_changed(&self, found: Option<i32>) -> bool {
        let mut known = self.schema.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *known, found);
        before.is_some() && before != found
    }

    /// The file is read again at the end of the cycle under way.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// A gold table has, or is to have, another definition than this process gives it.
    pub(super) fn ask_for_gold(&self) {
        self.gold_asked.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").field("asked", &self.asked).finish_non_exhaustive()
    }
}

/// How a session ended well.
#[derive(Debug)]
pub(super) enum SessionEnd {
    /// All that was asked for is committed.
    Done,
    /// The next session has this definition.
    Redefined(Box<Definition>),
}

/// What a session holds its definition against.
#[derive(Debug)]
pub(super) struct DefinitionWatch {
    reload: Option<Reload>,
    /// The pipeline file's.
    current: Definition,
    /// Silver's with the columns that its table has got by itself.
    extended: SilverSettings,
    storages: Storages,
    /// When the file was read last for a silver that is stopped.
    looked: Instant,
    /// A definition that could not be taken up, so that this is told once.
    refused: Option<SilverSettings>,
    /// Why the file could not be followed for gold, so that this is told once.
    unusable: Option<String>,
}

/// Why the file is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Asked,
    Schema,
    /// A gold table is to have another definition.
    Gold,
    /// Silver is stopped, and may be by what the file said.
    Stopped,
}

impl DefinitionWatch {
    /// A bounded run keeps its definition.
    pub fn new(
        reload: Option<&Reload>,
        until: Until,
        current: &Definition,
        extended: &SilverSettings,
        storages: &Storages,
    ) -> Self {
        Self {
            reload: reload.filter(|_| until == Until::Stopped).cloned(),
            current: current.clone(),
            extended: extended.clone(),
            storages: storages.clone(),
            looked: Instant::now(),
            refused: None,
            unusable: None,
        }
    }

    /// The definition as the pipeline file has it.
    pub fn file(&self) -> &Definition {
        &self.current
    }

    /// Whether silver's table has got columns by itself that this session does not fill.
    pub fn lacks_columns_of(&self, table: &LakeTable) -> bool {
        with_added(&self.current.silver, table) != self.extended
    }

    /// Whether a cycle should end because the file is to be read.
    pub fn is_asked(&self) -> bool {
        let asked = |reload: &Reload| [&reload.asked, &reload.gold_asked].iter().any(|asked| asked.load(Ordering::Relaxed));
        self.reload.as_ref().is_some_and(asked)
    }

    fn reason(&mut self, silver: &Silver) -> Option<Reason> {
        let reload = self.reload.as_ref()?;
        if reload.asked.swap(false, Ordering::Relaxed) {
            self.refused = None;
            return Some(Reason::Asked);
        }
        if reload.gold_asked.swap(false, Ordering::Relaxed) {
            self.refused = None;
            return Some(Reason::Gold);
        }
        match &silver.state {
            SilverState::Live(stage) => {
                let found = stage.silver.lake().map(|table| table.metadata().current_schema_id());
                let changed = reload.has_changed(found);
                if changed {
                    self.refused = None;
                }
                changed.then_some(Reason::Schema)
            }
            SilverState::Stopped(_) if self.looked.elapsed() >= LOOK_EVERY => {
                self.looked = Instant::now();
                Some(Reason::Stopped)
            }
            _ => None,
        }
    }

    /// The definition that the file has now, if silver is another one in it, and its plan.
    fn read(&self, reason: Reason, table: Option<&LakeTable>) -> Result<Option<(Definition, SilverPlan)>> {
        let Some(reload) = &self.reload else { return Ok(None) };
        let found = (reload.read)()?;
        let mut next = Definition { silver: found.silver.clone(), ..self.current.clone() };
        if reason == Reason::Gold && computed_of(&found) != computed_of(&self.current) {
            if !same_tables(&found.gold, &self.current.gold) {
                return Err(Error::config("the pipeline file has other gold tables, or has them elsewhere")
                    .hint("that is taken up at a restart"));
            }
            next.gold = found.gold.clone();
        }
        if reason == Reason::Asked && found != next {
            warn!(
                "only the definition of silver is taken up while a daemon runs: what else the pipeline file changed waits for a restart \
                 (gold's for `lakesmith schema apply`)"
            );
        }
        let has_others = table.is_some_and(|table| self.lacks_columns_of(table));
        if next.silver == self.current.silver && next.gold == self.current.gold && !has_others {
            return Ok(None);
        }
        if table_of(&next.silver) != table_of(&self.current.silver) {
            return Err(Error::config("the pipeline file names another table, location or format for silver or rejected")
                .hint("that is taken up at a restart"));
        }
        let plan = match table {
            Some(table) => SilverPlan::new(&with_added(&next.silver, table))?,
            None => SilverPlan::new(&next.silver)?,
        };
        // Gold may have to follow, where a column that it reads was renamed.
        match gold_plans(&next, &plan, &self.storages) {
            Ok(_) => Ok(Some((next, plan))),
            Err(_) => {
                let next = Definition { gold: found.gold, ..next };
                gold_plans(&next, &plan, &self.storages)?;
                Ok(Some((next, plan)))
            }
        }
    }
}

/// What decides the values of the gold tables.
fn computed_of(definition: &Definition) -> Vec<GoldDefinition> {
    definition.gold.iter().map(GoldDefinition::of).collect()
}

fn same_tables(found: &[GoldSettings], current: &[GoldSettings]) -> bool {
    let place = |gold: &GoldSettings| (gold.table.clone(), gold.location.clone());
    found.iter().map(place).eq(current.iter().map(place))
}

/// What may not change under a running daemon.
fn table_of(settings: &SilverSettings) -> impl PartialEq {
    (settings.table.clone(), settings.location.clone(), settings.format, settings.rejected.clone())
}

impl Session<'_> {
    /// The definition with which reading is to go on, if it is another one.
    pub(super) async fn redefined(&mut self) -> Option<Definition> {
        let reason = self.definition.reason(&self.silver)?;
        let table = match reason {
            // It has none open.
            Reason::Stopped => self.silver.table().await.and_then(|table| table.lake().cloned()),
            _ => self.silver.live().and_then(|stage| stage.silver.lake().cloned()),
        };
        let (next, plan) = match self.definition.read(reason, table.as_ref()) {
            Ok(None) => {
                debug!(?reason, "the pipeline file defines silver as before");
                return None;
            }
            Ok(Some(next)) => next,
            // Somebody may be at work on it.
            Err(failure) if reason == Reason::Stopped => {
                debug!(error = %failure.chain(), "the pipeline file cannot be used");
                return None;
            }
            Err(failure) if reason == Reason::Gold && self.definition.unusable.as_ref() == Some(&failure.chain()) => return None,
            Err(failure) => {
                self.definition.unusable = Some(failure.chain());
                warn!(error = %failure.chain(), hint = failure.hint_text(), "the pipeline file cannot be followed: the definition of before stays");
                return None;
            }
        };
        if self.definition.refused.as_ref() == Some(&next.silver) {
            return None;
        }
        if next.silver == self.definition.current.silver {
            // Whatever stopped it would stop it again.
            if reason == Reason::Stopped && !matches!(self.silver.misfit(&plan).await, Ok(None)) {
                return None;
            }
            match next.gold == self.definition.current.gold {
                true => info!("silver has got columns from fields of messages: reading goes on with these"),
                false => info!(?reason, "the pipeline file defines gold anew: reading goes on with that"),
            }
            return Some(next);
        }
        match self.silver.misfit(&plan).await {
            Ok(None) => {
                info!(?reason, "the pipeline file defines silver anew: reading goes on with that");
                return Some(next);
            }
            Ok(Some(steps)) => warn!(
                steps,
                hint = APPLY,
                "the pipeline file asks for another silver than the table is: the definition of before stays"
            ),
            Err(failure) => warn!(error = %failure.chain(), "silver's table cannot be held against the pipeline file"),
        }
        self.definition.refused = Some(next.silver);
        None
    }
}

/// How a table is led to what the pipeline file says.
pub(super) const APPLY: &str =
    "`lakesmith schema plan --output plan.json` shows the steps, `lakesmith schema apply plan.json` does them";

impl Silver {
    /// Silver's table as it is now; none where there is no answer.
    async fn table(&self) -> Option<SilverTable> {
        SilverTable::open_spec(&self.parts.catalog, &self.parts.silver).await.ok().flatten()
    }

    /// What a definition needs of the table that it isn't yet; none if its rows can be written.
    async fn misfit(&self, plan: &SilverPlan) -> Result<Option<String>> {
        let table = SilverTable::open_spec(&self.parts.catalog, &self.parts.silver).await?;
        match table {
            Some(table) => misfit(&table, plan).context("the steps to the pipeline file's definition cannot be told"),
            None => Ok(None),
        }
    }
}

/// The steps without which rows of this plan cannot be written into the table; none where they can be, or nothing leads there.
pub(super) fn misfit(table: &SilverTable, plan: &SilverPlan) -> Result<Option<String>> {
    let Some(table) = table.lake() else { return Ok(None) };
    let wanted = Wanted {
        schema: plan.schema(),
        partition_by: plan.partition_by(),
        sort_by: plan.sort_by(),
        read_from: plan.read_from(),
        kept: &OWN_COLUMNS,
        drop_unnamed: false,
    };
    let plan = Plan::new(table, wanted)?;
    let steps: Vec<_> = plan.needed().map(|step| step.what.as_str()).collect();
    Ok(Some(steps.join(", ")).filter(|steps| !steps.is_empty()))
}
