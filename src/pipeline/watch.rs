//! What a session does while no records come.
//!
//! A commit notices when a table is not where this daemon left it. While none are due nobody would, and a table whose pointer went back
//! would stay so until the next record. So an idle session reads the tables' entries from time to time: three calls, and nothing else
//! while nothing has moved. Silver moves on too, if it had failed or was catching up.
//!
//! *Failure*: a metastore that does not answer is asked again later; nothing depends on it before the next record.

use std::time::{Duration, Instant};

use tracing::debug;

use super::commit::{Place, moved_on};
use super::session::Session;
use super::silver_state::{Patience, Silver};
use crate::error::{Kind, Result};

/// How long a pointer that went back, or the schema of a silver that is stopped, may stay unnoticed.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Session<'_> {
    /// Between two cycles, when nothing came. Fails when bronze must be read again.
    pub(super) async fn idle(&mut self) -> Result<Idle> {
        let due = self.watched.elapsed() >= LOOK_EVERY || self.definition.is_asked();
        if self.watched.elapsed() >= LOOK_EVERY {
            self.watched = Instant::now();
            ensure_in_place(&mut self.bronze).await?;
            self.silver.look().await;
        }
        self.silver.settle(&self.bronze, Patience::Cycle).await;
        self.state_when_idle().await;
        Ok(if due { Idle::Over } else { Idle::On })
    }
}

/// Whether a session waits on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Idle {
    On,
    /// The tables were looked at: what follows a cycle is due without one.
    Over,
}

impl Silver {
    /// Puts silver aside if its tables must be read again.
    async fn look(&mut self) {
        let Some(stage) = self.stage() else { return };
        let looked = match ensure_in_place(&mut stage.silver).await {
            Ok(()) => ensure_in_place(&mut stage.rejected).await,
            failed => failed,
        };
        if let Err(failure) = looked {
            self.fail(failure);
        }
    }
}

/// Reads a table's entry again, and mends one that points to nothing; fails if it is behind where this daemon left it.
async fn ensure_in_place(table: &mut impl Place) -> Result<()> {
    let left = table.checkpoint()?.unwrap_or_default();
    let refreshed = match table.refresh().await {
        Err(error) if table.mend(&error).await.unwrap_or(false) => table.refresh().await,
        refreshed => refreshed,
    };
    match refreshed {
        Err(error) if error.kind() == Kind::Transient => {
            debug!(table = %table.ident(), error = %error.chain(), "the table could not be looked at; it will be tried again");
            return Ok(());
        }
        refreshed => refreshed?,
    }
    let found = table.checkpoint()?.unwrap_or_default();
    match left.ahead_of(&found).into_iter().next() {
        None => Ok(()),
        Some((partition, (left, found))) => {
            Err(moved_on(table, format!("partition {partition} went back from offset {left} to {found}")))
        }
    }
}
