//! The named moments of the commit protocol at which a process may be killed, so that a test can kill it exactly there.
//!
//! Each window is the time right behind a step that changed something a restart has to deal with. With `LAKESMITH_KILL_AT=gold:switched` in
//! the environment the process ends itself by SIGKILL there, without a destructor, a flush or a reply; `bronze:swapped@3` waits for the
//! third pass. `ARCHITECTURE.md` says what the next start does for each of them.
//!
//! It is compiled in always: what is tested is what is shipped, and a pass costs a comparison.

use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// The variable that names a window.
const VARIABLE: &str = "LAKESMITH_KILL_AT";

/// A moment of the commit protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The missing tables are there; nothing was read.
    TablesCreated,
    /// Bronze's, silver's and rejected's data files of a cycle are written, perhaps not all closed.
    BronzeFilesWritten,
    /// All files of a cycle, the metadata of each table too, are durable.
    BronzeMetadataWritten,
    /// Bronze in plain Hive form: the commit is made, its file has not got its name.
    BronzeClaimed,
    BronzeSwapped,
    /// Silver in plain Hive form: the commit is made, its files have not got their names, nor the metastore its new partitions.
    SilverClaimed,
    SilverSwapped,
    RejectedSwapped,
    /// Silver's data files of one step of its catch-up are written.
    CatchUpFilesWritten,
    CatchUpMetadataWritten,
    /// The new versions of gold's partitions are durable.
    GoldPartitionWritten,
    /// Gold's partitions stand on their new versions.
    GoldSwitched,
    GoldProgressWritten,
    /// A gold table that gets another definition has its new columns; they are null.
    GoldColumnsAdded,
    /// Its view shows the new columns.
    GoldViewReplaced,
    /// It has its new definition.
    GoldRedefined,
    /// The metastore's lock on a table is held.
    Locked,
    /// A change of a table's metadata alone is durable, and not yet the table's.
    ChangeWritten,
    /// A step of `schema apply` is the table's.
    SchemaStep,
    /// Silver notes that records are decided anew; nothing is computed.
    ReprocessNoted,
    /// A worker of a computing engine has closed the files of a part; the driver doesn't know of them.
    ReprocessPartWritten,
    /// The driver has the results of all parts; nothing is committed.
    ReprocessEngineRan,
    /// Rows that Trino has computed are those of the table that was filled; the one in which they came still has them too.
    ReprocessEngineTaken,
    /// The new rows are in files of their own.
    ReprocessComputed,
    ReprocessedSilver,
    ReprocessedRejected,
    ReprocessedGold,
    /// The tables in which the new rows were gathered are gone, the note is not.
    ReprocessCleared,
}

impl Window {
    pub const ALL: [Self; 28] = [
        Self::TablesCreated,
        Self::BronzeFilesWritten,
        Self::BronzeMetadataWritten,
        Self::BronzeClaimed,
        Self::BronzeSwapped,
        Self::SilverClaimed,
        Self::SilverSwapped,
        Self::RejectedSwapped,
        Self::CatchUpFilesWritten,
        Self::CatchUpMetadataWritten,
        Self::GoldPartitionWritten,
        Self::GoldSwitched,
        Self::GoldProgressWritten,
        Self::GoldColumnsAdded,
        Self::GoldViewReplaced,
        Self::GoldRedefined,
        Self::Locked,
        Self::ChangeWritten,
        Self::SchemaStep,
        Self::ReprocessNoted,
        Self::ReprocessPartWritten,
        Self::ReprocessEngineRan,
        Self::ReprocessEngineTaken,
        Self::ReprocessComputed,
        Self::ReprocessedSilver,
        Self::ReprocessedRejected,
        Self::ReprocessedGold,
        Self::ReprocessCleared,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::TablesCreated => "start:tables-created",
            Self::BronzeFilesWritten => "bronze:files-written",
            Self::BronzeMetadataWritten => "bronze:metadata-written",
            Self::BronzeClaimed => "bronze:claimed",
            Self::BronzeSwapped => "bronze:swapped",
            Self::SilverClaimed => "silver:claimed",
            Self::SilverSwapped => "silver:swapped",
            Self::RejectedSwapped => "rejected:swapped",
            Self::CatchUpFilesWritten => "silver:catch-up-files-written",
            Self::CatchUpMetadataWritten => "silver:catch-up-metadata-written",
            Self::GoldPartitionWritten => "gold:partition-written",
            Self::GoldSwitched => "gold:switched",
            Self::GoldProgressWritten => "gold:progress-written",
            Self::GoldColumnsAdded => "gold:columns-added",
            Self::GoldViewReplaced => "gold:view-replaced",
            Self::GoldRedefined => "gold:redefined",
            Self::Locked => "lock:held",
            Self::ChangeWritten => "change:metadata-written",
            Self::SchemaStep => "schema:step-done",
            Self::ReprocessNoted => "reprocess:noted",
            Self::ReprocessPartWritten => "reprocess:part-written",
            Self::ReprocessEngineRan => "reprocess:engine-ran",
            Self::ReprocessEngineTaken => "reprocess:engine-taken",
            Self::ReprocessComputed => "reprocess:computed",
            Self::ReprocessedSilver => "reprocess:silver-replaced",
            Self::ReprocessedRejected => "reprocess:rejected-replaced",
            Self::ReprocessedGold => "reprocess:gold-computed",
            Self::ReprocessCleared => "reprocess:cleared",
        }
    }

    /// Says that the process is in this window. Does not return if it is to be killed here.
    pub fn pass(self) {
        let Some(planned) = PLANNED.get() else { return };
        if planned.window == self && planned.passes_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // SAFETY: a signal to the process itself; there is nothing that it could leave in a wrong state but the process.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            // The signal may take a moment, in which nothing more may happen.
            loop {
                std::thread::park();
            }
        }
    }
}

/// Where this process is to be killed.
static PLANNED: OnceLock<Planned> = OnceLock::new();

#[derive(Debug)]
struct Planned {
    window: Window,
    passes_left: AtomicU64,
}

impl FromStr for Planned {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, pass) = text.split_once('@').unwrap_or((text, "1"));
        let window = Window::ALL.into_iter().find(|window| window.name() == name);
        let pass = pass.parse::<u64>().ok().filter(|pass| *pass > 0);
        let (Some(window), Some(pass)) = (window, pass) else {
            let names = Window::ALL.map(Window::name).join(", ");
            return Err(
                Error::config(format!("{VARIABLE} has {text:?}, which is no window")).hint(format!("the windows are {names}"))
            );
        };
        Ok(Self { window, passes_left: AtomicU64::new(pass) })
    }
}

/// Reads from the environment where the process is to be killed.
pub fn plan_from_environment() -> Result<()> {
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(()) };
    let planned = text.parse()?;
    let _ = PLANNED.set(planned);
    tracing::warn!(window = text, "this process kills itself at a window, as {VARIABLE} asks for");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_named_and_counted() {
        let planned: Planned = "bronze:swapped@3".parse().unwrap();
        assert_eq!((planned.window, planned.passes_left.into_inner()), (Window::BronzeSwapped, 3));
        for wrong in ["", "bronze", "bronze:swapped@0", "bronze:swapped@x"] {
            let error = wrong.parse::<Planned>().unwrap_err();
            assert!(error.hint_text().is_some_and(|hint| hint.contains("gold:switched")), "{wrong}");
        }
        // Not planned: passing does nothing.
        Window::ALL.into_iter().for_each(Window::pass);
    }
}
