//! What can go wrong with a file, in the cases that callers tell apart, and what a person is told about each.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::error::Error;

/// A result whose error a caller of the storage may branch on.
pub(super) type Result<T, E = StorageError> = std::result::Result<T, E>;

/// A failed storage operation. Each variant names the location as the caller gave it.
#[derive(Debug, Error)]
pub enum StorageError {
    #[error("{location} does not exist")]
    NotFound { location: String },
    #[error("{location} already exists")]
    AlreadyExists { location: String },
    /// Not a location this program can reach: no absolute path, a foreign scheme, an unknown nameservice.
    #[error("{location} cannot be used: {reason}")]
    InvalidLocation { location: String, reason: String },
    #[error("permission denied to {action} {location}: {reason}")]
    PermissionDenied { action: &'static str, location: String, reason: String },
    /// Kerberos or SASL failed before the request was looked at.
    #[error("the server of {location} does not accept this client: {reason}")]
    Unauthenticated { location: String, reason: String },
    /// The deadline passed. Whether the operation took place is unknown.
    #[error("no answer within {} (storage.call_timeout) to: {action} {location}", humantime::format_duration(*.deadline))]
    Timeout { action: &'static str, location: String, deadline: Duration },
    /// The server or the network failed in a way that may pass.
    #[error("failed to {action} {location}: {reason}")]
    Unavailable { action: &'static str, location: String, reason: String, hint: &'static str },
    /// The request was understood and refused: not empty, a directory where a file is needed, outside of the file.
    #[error("failed to {action} {location}: {reason}")]
    Refused { action: &'static str, location: String, reason: String },
    /// An earlier write to this file failed or was cancelled, so that it cannot be closed.
    #[error("{location} was not written completely")]
    Incomplete { location: String },
    /// A bug in a library, contained: its task panicked.
    #[error("the client panicked at: {action} {location}: {reason}")]
    Panicked { action: &'static str, location: String, reason: String },
    #[error("failed to {action} {location}")]
    Io { action: &'static str, location: String, source: io::Error },
}

impl StorageError {
    /// Sorts an error of the local file system.
    pub(super) fn from_io(action: &'static str, location: &str, source: io::Error) -> Self {
        let location = location.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { location },
            io::ErrorKind::AlreadyExists => Self::AlreadyExists { location },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { action, location, reason: source.to_string() },
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                Self::Refused { action, location, reason: source.to_string() }
            }
            _ => Self::Io { action, location, source },
        }
    }

    pub(super) fn outside(location: &str, range: &std::ops::Range<u64>, size_bytes: u64) -> Self {
        let reason = format!("bytes {}..{} are outside of its {size_bytes} bytes", range.start, range.end);
        Self::Refused { action: "read", location: location.to_owned(), reason }
    }

    /// The storage error that another library's error wraps (iceberg and DataFusion keep it as a source).
    pub fn within<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a StorageError> {
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
    }

    /// True when the same call may work later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Unavailable { .. } | Self::Panicked { .. } => true,
            // When a person has made room.
            Self::Io { source, .. } => is_full(source),
            _ => false,
        }
    }
}

fn is_full(source: &io::Error) -> bool {
    matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        let message = error.to_string();
        let (wrapped, hint) = match &error {
            StorageError::Timeout { location, .. } if location.starts_with("hdfs:") => (
                Error::transient(message),
                Some("is the NameNode up and reachable from here? see its log, or raise storage.call_timeout".to_owned()),
            ),
            StorageError::Timeout { .. } => (Error::transient(message), Some("raise storage.call_timeout".to_owned())),
            StorageError::Unavailable { hint, .. } => (Error::transient(message), Some((*hint).to_owned())),
            StorageError::Panicked { .. } => (Error::transient(message), None),
            StorageError::InvalidLocation { .. } => (
                Error::config(message),
                Some("use hdfs://NAMESERVICE/path, file:///path or an absolute path; for an HDFS nameservice set storage.hadoop_conf_dir or HADOOP_CONF_DIR".to_owned()),
            ),
            StorageError::PermissionDenied { location, .. } if location.starts_with("hdfs:") => (
                Error::failed(message),
                Some("set storage.user or HADOOP_USER_NAME to a user who may, or change the owner with `hdfs dfs -chown`".to_owned()),
            ),
            StorageError::Unauthenticated { .. } => (
                Error::failed(message),
                Some("renew the ticket with `kinit`; hadoop.security.authentication in core-site.xml (storage.hadoop_conf_dir or HADOOP_CONF_DIR) must be what the cluster uses".to_owned()),
            ),
            StorageError::Io { source, .. } if is_full(source) => {
                (Error::transient(message), Some("free some space on that disk, or raise the quota".to_owned()))
            }
            StorageError::NotFound { .. }
            | StorageError::AlreadyExists { .. }
            | StorageError::PermissionDenied { .. }
            | StorageError::Refused { .. }
            | StorageError::Incomplete { .. }
            | StorageError::Io { .. } => (Error::failed(message), None),
        };
        let wrapped = match hint {
            Some(hint) => wrapped.hint(hint),
            None => wrapped,
        };
        wrapped.caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_timeout_is_transient_and_names_its_setting() {
        let timeout = StorageError::Timeout {
            action: "create",
            location: "hdfs://nn:8020/a".to_owned(),
            deadline: Duration::from_secs(60),
        };
        let error = Error::from(timeout);
        assert_eq!(error.kind(), Kind::Transient);
        assert_eq!(error.chain(), "no answer within 1m (storage.call_timeout) to: create hdfs://nn:8020/a");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("NameNode")));
    }

    #[test]
    fn it_is_found_within_the_errors_of_the_libraries_that_carried_it() {
        let missing = || StorageError::NotFound { location: "/a".to_owned() };
        let iceberg = iceberg::Error::from(missing());
        assert!(matches!(StorageError::within(&iceberg), Some(StorageError::NotFound { .. })));
        let datafusion = datafusion::error::DataFusionError::ObjectStore(Box::new(object_store::Error::from(missing())));
        assert!(matches!(StorageError::within(&datafusion), Some(StorageError::NotFound { .. })));
        assert!(StorageError::within(&io::Error::other("x")).is_none());
    }

    #[test]
    fn io_errors_are_sorted_by_what_callers_do_about_them() {
        let sort = |kind: io::ErrorKind| StorageError::from_io("read", "/a", kind.into());
        assert!(matches!(sort(io::ErrorKind::NotFound), StorageError::NotFound { .. }));
        assert!(matches!(sort(io::ErrorKind::AlreadyExists), StorageError::AlreadyExists { .. }));
        assert!(matches!(sort(io::ErrorKind::PermissionDenied), StorageError::PermissionDenied { .. }));
        assert!(!sort(io::ErrorKind::InvalidData).is_transient());
        // Room can be made while the program waits.
        assert!(sort(io::ErrorKind::StorageFull).is_transient());
        assert_eq!(Error::from(sort(io::ErrorKind::StorageFull)).kind(), Kind::Transient);
    }
}
