//! What can come of a metastore call that is not its result.

use std::io;
use std::time::Duration;

use super::contract::Exception;
use super::thrift::ThriftError;
use crate::error::Error;

/// How a conflicting compare-and-swap begins. There are two texts and no error code (HIVE-26882).
const MODIFIED: &str = "The table has been modified. The parameter value for key '";

/// What a server says that compares columns by position (`metastore.disallow.incompatible.col.type.changes`); the same text since 2.3.
const INCOMPATIBLE: &str = "types incompatible with the existing columns in their respective positions";

/// A failed call. What the server said is kept word for word.
#[derive(Debug, thiserror::Error)]
pub enum MetastoreError {
    #[error("{method}: no such object: {message}")]
    NoSuchObject { method: &'static str, message: String },
    #[error("{method}: already exists: {message}")]
    AlreadyExists { method: &'static str, message: String },
    #[error("{method}: invalid operation: {message}")]
    InvalidOperation { method: &'static str, message: String },
    /// An entry, a name or a key that the server does not accept.
    #[error("{method}: invalid object: {message}")]
    InvalidObject { method: &'static str, message: String },
    /// `MetaException`: anything from a full database to a lost compare-and-swap.
    #[error("{method}: {message}")]
    Meta { method: &'static str, message: String },
    #[error("{method}: the metastore does not know this method")]
    UnknownMethod { method: &'static str },
    /// The lock or its transaction is gone, or was never there.
    #[error("{method}: {}: {message}", .exception.name())]
    Lock { method: &'static str, exception: Exception, message: String },
    /// The server failed in a way that the method does not declare.
    #[error("{method}: the metastore failed: {message}")]
    Application { method: &'static str, message: String },
    #[error("{method}: {server} did not answer within {}", humantime::format_duration(*.after))]
    Timeout { method: &'static str, server: String, after: Duration, request_sent: bool },
    #[error("{method}: connection to {server} failed")]
    Transport { method: &'static str, server: String, request_sent: bool, source: io::Error },
    #[error("{method}: {server} answered with something else than a reply: {reason}")]
    Protocol { method: &'static str, server: String, reason: String },
}

/// The result of a call.
pub type MetastoreResult<T> = Result<T, MetastoreError>;

impl MetastoreError {
    pub(super) fn declared(method: &'static str, exception: Exception, message: String) -> Self {
        match exception {
            Exception::NoSuchObject | Exception::UnknownDatabase => Self::NoSuchObject { method, message },
            Exception::AlreadyExists => Self::AlreadyExists { method, message },
            Exception::InvalidOperation => Self::InvalidOperation { method, message },
            Exception::InvalidObject | Exception::InvalidInput | Exception::ConfigValueSecurity => {
                Self::InvalidObject { method, message }
            }
            Exception::Meta => Self::Meta { method, message },
            Exception::NoSuchLock | Exception::NoSuchTxn | Exception::TxnAborted | Exception::TxnOpen => {
                Self::Lock { method, exception, message }
            }
        }
    }

    pub(super) fn protocol(method: &'static str, server: &str, error: ThriftError) -> Self {
        Self::Protocol { method, server: server.to_owned(), reason: error.to_string() }
    }

    /// Whether a compare-and-swap was refused because the parameter had another value. No other error means that.
    pub fn is_modified_conflict(&self) -> bool {
        matches!(self, Self::Meta { message, .. } if message.starts_with(MODIFIED))
    }

    /// Whether the entry was refused because its columns' types are not those of the old one, position by position.
    pub fn is_of_column_types(&self) -> bool {
        matches!(self, Self::InvalidOperation { message, .. } if message.contains(INCOMPATIBLE))
    }

    /// Whether the call certainly changed nothing. Where this is false, look at the state before doing anything about it.
    ///
    /// | error | certain | because |
    /// | --- | --- | --- |
    /// | declared exceptions but `MetaException` | yes | the server checked and refused |
    /// | `MetaException` | a conflict only | it also reports a database that failed during its commit |
    /// | unknown method | yes | nothing ran |
    /// | undeclared failure | no | it may come after the commit |
    /// | timeout, connection | if nothing was sent | a request may have arrived although its reply did not |
    /// | nonsense as a reply | no | the request was sent |
    pub fn certainly_not_applied(&self) -> bool {
        match self {
            Self::NoSuchObject { .. }
            | Self::AlreadyExists { .. }
            | Self::InvalidOperation { .. }
            | Self::InvalidObject { .. }
            | Self::Lock { .. }
            | Self::UnknownMethod { .. } => true,
            Self::Meta { .. } => self.is_modified_conflict(),
            Self::Timeout { request_sent, .. } | Self::Transport { request_sent, .. } => !request_sent,
            Self::Application { .. } | Self::Protocol { .. } => false,
        }
    }
}

impl From<MetastoreError> for Error {
    fn from(error: MetastoreError) -> Self {
        match &error {
            MetastoreError::Timeout { .. } => Error::transient("the metastore was too slow")
                .hint("raise metastore.call_timeout, or look at the metastore's log"),
            MetastoreError::Transport { request_sent: false, .. } => {
                Error::transient("the metastore cannot be reached").hint("check metastore.uris (HIVE_METASTORE_URIS)")
            }
            MetastoreError::Transport { .. } => Error::transient("the metastore hung up"),
            MetastoreError::Protocol { .. } => Error::failed("the metastore is not understood")
                .hint("check that metastore.uris names a metastore without SASL or TLS; the default port is 9083"),
            MetastoreError::Meta { .. } | MetastoreError::Application { .. } => {
                Error::transient("the metastore failed").hint("look at the metastore's log")
            }
            MetastoreError::NoSuchObject { .. }
            | MetastoreError::AlreadyExists { .. }
            | MetastoreError::InvalidOperation { .. }
            | MetastoreError::InvalidObject { .. }
            | MetastoreError::UnknownMethod { .. }
            | MetastoreError::Lock { .. } => Error::failed("the metastore refused"),
        }
        .caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(message: &str) -> MetastoreError {
        MetastoreError::declared("alter_table", Exception::Meta, message.into())
    }

    #[test]
    fn a_conflict_is_told_from_other_meta_exceptions() {
        let found = "The table has been modified. The parameter value for key 'metadata_location' is 'v2'. The expected was value was 'v1'";
        let raced = "The table has been modified. The parameter value for key 'metadata_location' is different";
        for text in [found, raced] {
            assert!(meta(text).is_modified_conflict() && meta(text).certainly_not_applied());
        }
        let derby = meta("JDODataStoreException: Comparisons between 'CLOB (UCS_BASIC)' are not supported");
        assert!(!derby.is_modified_conflict() && !derby.certainly_not_applied());
    }

    #[test]
    fn what_was_sent_is_in_doubt() {
        let lost = |request_sent| MetastoreError::Transport {
            method: "alter_table",
            server: "hms:9083".into(),
            request_sent,
            source: io::ErrorKind::ConnectionReset.into(),
        };
        assert!(lost(false).certainly_not_applied() && !lost(true).certainly_not_applied());
    }
}
