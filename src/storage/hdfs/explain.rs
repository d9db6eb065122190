//! What an error of hdfs-native means: it keeps Java's class names, and some of its words mislead.

use std::io;

use hdfs_native::HdfsError;

use crate::storage::error::StorageError;

const HINT_NAMENODE: &str = "is the NameNode up? see its log, and storage.warehouse or fs.defaultFS for its address";
const HINT_LISTENER: &str = "the NameNode closed the connection: on a cluster with Kerberos core-site.xml must say \
     hadoop.security.authentication=kerberos; set storage.hadoop_conf_dir or HADOOP_CONF_DIR to the cluster's configuration";
const HINT_DATANODE: &str = "are the DataNodes up, not full, and reachable from here? on a cluster that protects transfers hdfs-site.xml must have its \
     dfs.data.transfer.protection; set storage.hadoop_conf_dir or HADOOP_CONF_DIR to the cluster's configuration";
const HINT_SAFE_MODE: &str = "the NameNode is in safe mode: wait, or run `hdfs dfsadmin -safemode leave`";
const HINT_QUOTA: &str = "delete what is not needed below that directory, or raise its quota with `hdfs dfsadmin -setSpaceQuota` or \
     `-setQuota`; `hdfs dfs -count -q -h` shows it";
const HINT_COMPLETE: &str = "no DataNode has confirmed the last block: are the DataNodes up? see `hdfs dfsadmin -report`";

/// Sorts an error of hdfs-native into the cases that callers and people tell apart.
pub(super) fn explain(action: &'static str, location: &str, error: HdfsError) -> StorageError {
    let location = location.to_owned();
    let unavailable =
        |reason: String, hint: &'static str, location: String| StorageError::Unavailable { action, location, reason, hint };
    match error {
        HdfsError::FileNotFound(_) => StorageError::NotFound { location },
        HdfsError::AlreadyExists(_) => StorageError::AlreadyExists { location },
        HdfsError::RPCError(class, message) | HdfsError::FatalRPCError(class, message) => {
            explain_rpc(action, location, &class, &message)
        }
        HdfsError::IOError(source) => {
            let hint = match source.kind() {
                io::ErrorKind::ConnectionAborted if source.to_string().contains("RPC listener disconnected") => HINT_LISTENER,
                io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => HINT_DATANODE,
                _ => HINT_NAMENODE,
            };
            unavailable(source.to_string(), hint, location)
        }
        HdfsError::DataTransferError(_) | HdfsError::ChecksumError | HdfsError::BlocksNotFound(_) => {
            unavailable(error.to_string(), HINT_DATANODE, location)
        }
        HdfsError::OperationFailed(message) if message.contains("complete file in time") => {
            unavailable("the NameNode did not confirm the end of the file".to_owned(), HINT_COMPLETE, location)
        }
        HdfsError::InvalidArgument(message) if message.contains("No NameNode hosts") => StorageError::InvalidLocation {
            location,
            reason: "its nameservice has no dfs.namenode.rpc-address in hdfs-site.xml".to_owned(),
        },
        HdfsError::InvalidArgument(reason) | HdfsError::InvalidPath(reason) => StorageError::InvalidLocation { location, reason },
        HdfsError::UrlParseError(source) => StorageError::InvalidLocation { location, reason: source.to_string() },
        HdfsError::SASLError(_) | HdfsError::GSSAPIError(..) | HdfsError::NoSASLMechanism => {
            StorageError::Unauthenticated { location, reason: error.to_string() }
        }
        other => StorageError::Refused { action, location, reason: other.to_string() },
    }
}

/// Sorts a Java exception; its message may carry a stack trace, of which the first line is kept.
fn explain_rpc(action: &'static str, location: String, class: &str, message: &str) -> StorageError {
    let name = class.rsplit(['.', '$']).next().unwrap_or(class);
    let first_line = message.lines().next().unwrap_or_default().trim();
    let reason = if first_line.is_empty() { name.to_owned() } else { first_line.to_owned() };
    let unavailable = |hint| StorageError::Unavailable { action, location: location.clone(), reason: reason.clone(), hint };
    match name {
        // Opening a directory.
        "FileNotFoundException" if message.contains("is not a file") => StorageError::Refused { action, location, reason },
        "FileNotFoundException" => StorageError::NotFound { location },
        "FileAlreadyExistsException" | "AlreadyBeingCreatedException" => StorageError::AlreadyExists { location },
        "AccessControlException" if message.contains("SIMPLE authentication is not enabled") => {
            StorageError::Unauthenticated { location, reason }
        }
        "AccessControlException" => StorageError::PermissionDenied { action, location, reason },
        "AuthorizationException" | "SaslException" | "GSSException" | "InvalidToken" => {
            StorageError::Unauthenticated { location, reason }
        }
        "SafeModeException" => unavailable(HINT_SAFE_MODE),
        // Passes when a person makes room.
        "DSQuotaExceededException" | "NSQuotaExceededException" | "QuotaByStorageTypeExceededException" => {
            unavailable(HINT_QUOTA)
        }
        "StandbyException" | "RetriableException" | "ObserverRetryOnActiveException" | "RpcNoSuchProtocolException" => {
            unavailable(HINT_NAMENODE)
        }
        // "could only be written to 0 of the 1 minReplication nodes"
        "IOException" if message.contains("minReplication") => unavailable(HINT_DATANODE),
        _ => StorageError::Refused { action, location, reason: format!("{name}: {reason}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn rpc(class: &str, message: &str) -> StorageError {
        explain("create", "hdfs://nn/a", HdfsError::RPCError(class.to_owned(), message.to_owned()))
    }

    #[test]
    fn java_exceptions_become_the_cases_that_callers_know() {
        assert!(matches!(rpc("java.io.FileNotFoundException", "File does not exist: /a"), StorageError::NotFound { .. }));
        assert!(matches!(
            rpc("org.apache.hadoop.security.AccessControlException", "Permission denied: user=x"),
            StorageError::PermissionDenied { .. }
        ));
        assert!(rpc("org.apache.hadoop.hdfs.server.namenode.SafeModeException", "").is_transient());
        let no_datanode = "File /a could only be written to 0 of the 1 minReplication nodes.\n\tat org.apache…";
        assert!(rpc("java.io.IOException", no_datanode).is_transient());
        let quota =
            rpc("org.apache.hadoop.hdfs.protocol.DSQuotaExceededException", "The DiskSpace quota of /a is exceeded\nat x");
        assert!(quota.is_transient());
        assert_eq!(quota.to_string(), "failed to create hdfs://nn/a: The DiskSpace quota of /a is exceeded");
        assert!(Error::from(quota).hint_text().is_some_and(|hint| hint.contains("-setSpaceQuota")));
        let other = rpc("org.apache.hadoop.fs.ParentNotDirectoryException", "/a is a file\nat x");
        assert_eq!(other.to_string(), "failed to create hdfs://nn/a: ParentNotDirectoryException: /a is a file");
    }

    #[test]
    fn misleading_words_get_a_hint_with_the_likely_cause() {
        let listener = io::Error::new(io::ErrorKind::ConnectionAborted, "RPC listener disconnected");
        let error = Error::from(explain("open", "hdfs://nn/a", HdfsError::IOError(listener)));
        assert!(error.hint_text().is_some_and(|hint| hint.contains("hadoop.security.authentication=kerberos")));
        let reset = HdfsError::IOError(io::ErrorKind::ConnectionReset.into());
        let error = Error::from(explain("write", "hdfs://nn/a", reset));
        assert!(error.hint_text().is_some_and(|hint| hint.contains("dfs.data.transfer.protection")));
        let error = Error::from(explain("open", "hdfs://nn/a", HdfsError::InvalidArgument("No NameNode hosts found".to_owned())));
        assert_eq!(error.kind(), crate::error::Kind::Config);
        assert!(error.hint_text().is_some_and(|hint| hint.contains("HADOOP_CONF_DIR")));
    }
}
