//! Sharing a topic with other processes: what a source tells when its partitions change hands.
//!
//! Some sources give each of several processes a part of the partitions. Who has which is decided elsewhere; the source only passes on
//! what was decided, and the group waits for the answer:
//!
//! | the source says | before [`Source::answer`](super::Source::answer) |
//! |---|---|
//! | these come | read from the table where they continue: its writer until now has committed there |
//! | these go | commit what was read of them, or drop it: from the answer on another process reads them |
//! | these are lost | drop what was read of them: another process may read them already |
//!
//! *Invariants*: what is handed out after an answer belongs to the partitions that are then owned. An answer that comes too late, or a
//! process that does not know yet that it lost a partition, does no harm: the table's offsets refuse its batch.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::checkpoint::PartitionId;

/// How the partitions that a process reads are chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assignment {
    /// All of them, always.
    #[default]
    All,
    /// Those that the members of a group share among themselves.
    Group,
}

/// Partitions that change hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Assigned(BTreeSet<PartitionId>),
    Revoked(BTreeSet<PartitionId>),
    Lost(BTreeSet<PartitionId>),
}
