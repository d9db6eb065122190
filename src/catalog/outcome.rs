//! The three outcomes of a commit, and the two ways in which one is refused.

use crate::checkpoint::Mismatch;
use crate::error::Error;

/// What became of one attempt to move a table's pointer from one metadata file to another.
#[derive(Debug)]
pub enum SwapOutcome {
    /// The pointer stood on the new metadata file, at the answer or when it was looked up.
    Committed,
    /// This attempt changed nothing and never will.
    Rejected(Rejection),
    /// The attempt may have been applied, or may yet be; looking it up has not decided it.
    Unknown(Error),
}

/// What became of a commit, over all its attempts.
#[derive(Debug)]
pub enum CommitOutcome<T> {
    /// The change is in the table.
    Committed(T),
    /// The change is not in the table and never will be; files that only it used may be deleted.
    Rejected(Rejection),
    /// Nobody could be asked. The files stay; the next start finds out by the commit id.
    Unknown(Error),
}

/// Why a commit is certainly not in the table.
#[derive(Debug)]
pub enum Rejection {
    /// The table's pointer is no longer where the commit was based.
    Moved {
        /// The metadata file the entry points to now; none if the table is gone or no Iceberg table any more.
        found: Option<String>,
    },
    /// The batch does not begin where the table ends: another writer was there, or the pointer went back.
    Offsets(Mismatch),
    /// The change itself is not possible, or the server refused it.
    Refused(Error),
}

impl From<iceberg::Error> for Rejection {
    fn from(error: iceberg::Error) -> Self {
        Self::Refused(error.into())
    }
}

impl Rejection {
    /// The rejection as an error for a person, about the table `table`.
    pub fn into_error(self, table: &impl std::fmt::Display) -> Error {
        match self {
            Self::Moved { found: Some(found) } => {
                Error::transient(format!("failed to commit to table {table}: others commit faster, its metadata is now {found}"))
                    .hint("raise catalog.commit_retry.attempts, or find out who else writes to the table")
            }
            Self::Moved { found: None } => {
                Error::stop(format!("failed to commit to table {table}: the table was dropped or is no Iceberg table any more"))
                    .hint("find out who dropped it; `lakesmith tables` lists what is there")
            }
            Self::Offsets(mismatch) => {
                Error::transient(format!("failed to commit to table {table}: {mismatch}")).caused_by(mismatch)
            }
            Self::Refused(error) => error.context(format!("failed to commit to table {table}")),
        }
    }
}

impl<T> CommitOutcome<T> {
    /// For callers to whom every outcome but success is an error.
    pub fn into_result(self, table: &impl std::fmt::Display) -> crate::error::Result<T> {
        match self {
            Self::Committed(value) => Ok(value),
            Self::Rejected(rejection) => Err(rejection.into_error(table)),
            Self::Unknown(error) => Err(error.context(format!("the outcome of a commit to table {table} is unknown"))),
        }
    }
}
