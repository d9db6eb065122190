//! Every method that lakesmith calls or serves: arguments, result and declared exceptions with their ids.

use super::super::thrift::{Field, Struct, Type, Value};

/// An exception that Hive's interface declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exception {
    AlreadyExists,
    ConfigValueSecurity,
    InvalidInput,
    InvalidObject,
    InvalidOperation,
    Meta,
    NoSuchLock,
    NoSuchObject,
    NoSuchTxn,
    TxnAborted,
    TxnOpen,
    UnknownDatabase,
}

impl Exception {
    /// The one field that all of them have.
    pub const MESSAGE: Field = Field { id: 1, name: "message", kind: Type::String };

    pub fn name(self) -> &'static str {
        match self {
            Exception::AlreadyExists => "AlreadyExistsException",
            Exception::ConfigValueSecurity => "ConfigValSecurityException",
            Exception::InvalidInput => "InvalidInputException",
            Exception::InvalidObject => "InvalidObjectException",
            Exception::InvalidOperation => "InvalidOperationException",
            Exception::Meta => "MetaException",
            Exception::NoSuchLock => "NoSuchLockException",
            Exception::NoSuchObject => "NoSuchObjectException",
            Exception::NoSuchTxn => "NoSuchTxnException",
            Exception::TxnAborted => "TxnAbortedException",
            Exception::TxnOpen => "TxnOpenException",
            Exception::UnknownDatabase => "UnknownDBException",
        }
    }
}

/// A method of `ThriftHiveMetastore`.
#[derive(Debug)]
pub struct Method {
    pub name: &'static str,
    pub arguments: &'static [Field],
    /// The result's type; none for `void`. A result stands in a reply under id 0.
    pub result: Option<Type>,
    /// The declared exceptions and the ids under which they stand in a reply.
    pub exceptions: &'static [(i16, Exception)],
}

impl Method {
    /// The arguments, in order, as the body of a call.
    pub fn call<const N: usize>(&self, values: [Value; N]) -> Struct {
        debug_assert_eq!(self.arguments.len(), N, "{}", self.name);
        let mut body = Struct::new();
        for (argument, value) in self.arguments.iter().zip(values) {
            body.set(*argument, value);
        }
        body
    }

    pub fn id_of(&self, exception: Exception) -> Option<i16> {
        self.exceptions.iter().find(|(_, declared)| *declared == exception).map(|(id, _)| *id)
    }

    pub fn by_name(name: &str) -> Option<&'static Method> {
        METHODS.iter().copied().find(|method| method.name == name)
    }
}

macro_rules! result_type {
    (Void) => {
        None
    };
    ($kind:ident) => {
        Some(Type::$kind)
    };
}

macro_rules! methods {
    ($($constant:ident = $name:literal($($id:literal $kind:ident $argument:ident),*) -> $result:ident throws($($exception_id:literal $exception:ident),*);)*) => {
        $(pub static $constant: Method = Method {
            name: $name,
            arguments: &[$(Field { id: $id, name: stringify!($argument), kind: Type::$kind }),*],
            result: result_type!($result),
            exceptions: &[$(($exception_id, Exception::$exception)),*],
        };)*

        pub static METHODS: &[&Method] = &[$(&$constant),*];
    };
}

#[rustfmt::skip]
methods! {
    GET_VERSION = "getVersion"() -> String throws();
    SET_UGI = "set_ugi"(1 String user_name, 2 List group_names) -> List throws(1 Meta);
    FLUSH_CACHE = "flushCache"() -> Void throws();
    GET_META_CONF = "getMetaConf"(1 String key) -> String throws(1 Meta);
    SET_META_CONF = "setMetaConf"(1 String key, 2 String value) -> Void throws(1 Meta);
    GET_CONFIG_VALUE = "get_config_value"(1 String name, 2 String defaultValue) -> String throws(1 ConfigValueSecurity);
    GET_ALL_FUNCTIONS = "get_all_functions"() -> Struct throws(1 Meta);
    GET_CURRENT_NOTIFICATION_EVENT_ID = "get_current_notificationEventId"() -> Struct throws();
    GET_NEXT_NOTIFICATION = "get_next_notification"(1 Struct rqst) -> Struct throws();
    GET_ALL_DATABASES = "get_all_databases"() -> List throws(1 Meta);
    GET_DATABASES = "get_databases"(1 String pattern) -> List throws(1 Meta);
    GET_DATABASE = "get_database"(1 String name) -> Struct throws(1 NoSuchObject, 2 Meta);
    GET_DATABASE_REQ = "get_database_req"(1 Struct request) -> Struct throws(1 NoSuchObject, 2 Meta);
    CREATE_DATABASE = "create_database"(1 Struct database) -> Void throws(1 AlreadyExists, 2 InvalidObject, 3 Meta);
    CREATE_DATABASE_REQ = "create_database_req"(1 Struct createDatabaseRequest) -> Void throws(1 AlreadyExists, 2 InvalidObject, 3 Meta);
    ALTER_DATABASE = "alter_database"(1 String dbname, 2 Struct db) -> Void throws(1 Meta, 2 NoSuchObject);
    ALTER_DATABASE_REQ = "alter_database_req"(1 Struct alterDbReq) -> Void throws(1 Meta, 2 NoSuchObject);
    DROP_DATABASE = "drop_database"(1 String name, 2 Bool deleteData, 3 Bool cascade) -> Void throws(1 NoSuchObject, 2 InvalidOperation, 3 Meta);
    DROP_DATABASE_REQ = "drop_database_req"(1 Struct req) -> Void throws(1 NoSuchObject, 2 InvalidOperation, 3 Meta);
    GET_ALL_TABLES = "get_all_tables"(1 String db_name) -> List throws(1 Meta);
    GET_TABLES = "get_tables"(1 String db_name, 2 String pattern) -> List throws(1 Meta);
    GET_TABLES_BY_TYPE = "get_tables_by_type"(1 String db_name, 2 String pattern, 3 String tableType) -> List throws(1 Meta);
    GET_TABLE_NAMES_BY_FILTER = "get_table_names_by_filter"(1 String dbname, 2 String filter, 3 I16 max_tables) -> List throws(1 Meta, 2 InvalidOperation, 3 UnknownDatabase);
    GET_TABLE_META = "get_table_meta"(1 String db_patterns, 2 String tbl_patterns, 3 List tbl_types) -> List throws(1 Meta);
    GET_TABLE = "get_table"(1 String dbname, 2 String tbl_name) -> Struct throws(1 Meta, 2 NoSuchObject);
    GET_TABLE_REQ = "get_table_req"(1 Struct req) -> Struct throws(1 Meta, 2 NoSuchObject);
    GET_TABLE_OBJECTS_BY_NAME = "get_table_objects_by_name"(1 String dbname, 2 List tbl_names) -> List throws(1 Meta, 2 InvalidOperation, 3 UnknownDatabase);
    GET_TABLE_OBJECTS_BY_NAME_REQ = "get_table_objects_by_name_req"(1 Struct req) -> Struct throws(1 Meta, 2 InvalidOperation, 3 UnknownDatabase);
    CREATE_TABLE = "create_table"(1 Struct tbl) -> Void throws(1 AlreadyExists, 2 InvalidObject, 3 Meta, 4 NoSuchObject);
    CREATE_TABLE_WITH_ENVIRONMENT_CONTEXT = "create_table_with_environment_context"(1 Struct tbl, 2 Struct environment_context) -> Void throws(1 AlreadyExists, 2 InvalidObject, 3 Meta, 4 NoSuchObject);
    CREATE_TABLE_REQ = "create_table_req"(1 Struct request) -> Void throws(1 AlreadyExists, 2 InvalidObject, 3 Meta, 4 NoSuchObject);
    ALTER_TABLE = "alter_table"(1 String dbname, 2 String tbl_name, 3 Struct new_tbl) -> Void throws(1 InvalidOperation, 2 Meta);
    ALTER_TABLE_WITH_ENVIRONMENT_CONTEXT = "alter_table_with_environment_context"(1 String dbname, 2 String tbl_name, 3 Struct new_tbl, 4 Struct environment_context) -> Void throws(1 InvalidOperation, 2 Meta);
    ALTER_TABLE_WITH_CASCADE = "alter_table_with_cascade"(1 String dbname, 2 String tbl_name, 3 Struct new_tbl, 4 Bool cascade) -> Void throws(1 InvalidOperation, 2 Meta);
    ALTER_TABLE_REQ = "alter_table_req"(1 Struct req) -> Struct throws(1 InvalidOperation, 2 Meta);
    DROP_TABLE = "drop_table"(1 String dbname, 2 String name, 3 Bool deleteData) -> Void throws(1 NoSuchObject, 2 Meta);
    DROP_TABLE_WITH_ENVIRONMENT_CONTEXT = "drop_table_with_environment_context"(1 String dbname, 2 String name, 3 Bool deleteData, 4 Struct environment_context) -> Void throws(1 NoSuchObject, 2 Meta);
    DROP_TABLE_REQ = "drop_table_req"(1 Struct dropTableReq) -> Void throws(1 NoSuchObject, 2 Meta);
    GET_PARTITION_NAMES = "get_partition_names"(1 String db_name, 2 String tbl_name, 3 I16 max_parts) -> List throws(1 NoSuchObject, 2 Meta);
    GET_PARTITION_NAMES_PS = "get_partition_names_ps"(1 String db_name, 2 String tbl_name, 3 List part_vals, 4 I16 max_parts) -> List throws(1 Meta, 2 NoSuchObject);
    GET_PARTITION_NAMES_PS_REQ = "get_partition_names_ps_req"(1 Struct req) -> Struct throws(1 Meta, 2 NoSuchObject);
    FETCH_PARTITION_NAMES_REQ = "fetch_partition_names_req"(1 Struct partitionReq) -> List throws(1 NoSuchObject, 2 Meta);
    GET_PARTITIONS = "get_partitions"(1 String db_name, 2 String tbl_name, 3 I16 max_parts) -> List throws(1 NoSuchObject, 2 Meta);
    GET_PARTITIONS_REQ = "get_partitions_req"(1 Struct req) -> Struct throws(1 NoSuchObject, 2 Meta);
    GET_PARTITIONS_WITH_AUTH = "get_partitions_with_auth"(1 String db_name, 2 String tbl_name, 3 I16 max_parts, 4 String user_name, 5 List group_names) -> List throws(1 NoSuchObject, 2 Meta);
    GET_PARTITIONS_PS = "get_partitions_ps"(1 String db_name, 2 String tbl_name, 3 List part_vals, 4 I16 max_parts) -> List throws(1 Meta, 2 NoSuchObject);
    GET_PARTITIONS_PS_WITH_AUTH = "get_partitions_ps_with_auth"(1 String db_name, 2 String tbl_name, 3 List part_vals, 4 I16 max_parts, 5 String user_name, 6 List group_names) -> List throws(1 NoSuchObject, 2 Meta);
    GET_PARTITIONS_PS_WITH_AUTH_REQ = "get_partitions_ps_with_auth_req"(1 Struct req) -> Struct throws(1 Meta, 2 NoSuchObject);
    GET_PARTITIONS_BY_NAMES = "get_partitions_by_names"(1 String db_name, 2 String tbl_name, 3 List names) -> List throws(1 Meta, 2 NoSuchObject, 3 InvalidObject);
    GET_PARTITIONS_BY_NAMES_REQ = "get_partitions_by_names_req"(1 Struct req) -> Struct throws(1 Meta, 2 NoSuchObject, 3 InvalidObject);
    GET_PARTITIONS_BY_FILTER = "get_partitions_by_filter"(1 String db_name, 2 String tbl_name, 3 String filter, 4 I16 max_parts) -> List throws(1 Meta, 2 NoSuchObject);
    GET_PARTITIONS_BY_FILTER_REQ = "get_partitions_by_filter_req"(1 Struct req) -> List throws(1 Meta, 2 NoSuchObject);
    GET_PARTITION = "get_partition"(1 String db_name, 2 String tbl_name, 3 List part_vals) -> Struct throws(1 Meta, 2 NoSuchObject);
    GET_PARTITION_REQ = "get_partition_req"(1 Struct req) -> Struct throws(1 Meta, 2 NoSuchObject);
    GET_PARTITION_WITH_AUTH = "get_partition_with_auth"(1 String db_name, 2 String tbl_name, 3 List part_vals, 4 String user_name, 5 List group_names) -> Struct throws(1 Meta, 2 NoSuchObject);
    GET_PARTITION_BY_NAME = "get_partition_by_name"(1 String db_name, 2 String tbl_name, 3 String part_name) -> Struct throws(1 Meta, 2 NoSuchObject);
    ADD_PARTITION = "add_partition"(1 Struct new_part) -> Struct throws(1 InvalidObject, 2 AlreadyExists, 3 Meta);
    ADD_PARTITION_WITH_ENVIRONMENT_CONTEXT = "add_partition_with_environment_context"(1 Struct new_part, 2 Struct environment_context) -> Struct throws(1 InvalidObject, 2 AlreadyExists, 3 Meta);
    ADD_PARTITIONS = "add_partitions"(1 List new_parts) -> I32 throws(1 InvalidObject, 2 AlreadyExists, 3 Meta);
    ADD_PARTITIONS_REQ = "add_partitions_req"(1 Struct request) -> Struct throws(1 InvalidObject, 2 AlreadyExists, 3 Meta);
    ALTER_PARTITION = "alter_partition"(1 String db_name, 2 String tbl_name, 3 Struct new_part) -> Void throws(1 InvalidOperation, 2 Meta);
    ALTER_PARTITION_WITH_ENVIRONMENT_CONTEXT = "alter_partition_with_environment_context"(1 String db_name, 2 String tbl_name, 3 Struct new_part, 4 Struct environment_context) -> Void throws(1 InvalidOperation, 2 Meta);
    ALTER_PARTITIONS = "alter_partitions"(1 String db_name, 2 String tbl_name, 3 List new_parts) -> Void throws(1 InvalidOperation, 2 Meta);
    ALTER_PARTITIONS_WITH_ENVIRONMENT_CONTEXT = "alter_partitions_with_environment_context"(1 String db_name, 2 String tbl_name, 3 List new_parts, 4 Struct environment_context) -> Void throws(1 InvalidOperation, 2 Meta);
    ALTER_PARTITIONS_REQ = "alter_partitions_req"(1 Struct req) -> Struct throws(1 InvalidOperation, 2 Meta);
    DROP_PARTITION = "drop_partition"(1 String db_name, 2 String tbl_name, 3 List part_vals, 4 Bool deleteData) -> Bool throws(1 NoSuchObject, 2 Meta);
    DROP_PARTITION_WITH_ENVIRONMENT_CONTEXT = "drop_partition_with_environment_context"(1 String db_name, 2 String tbl_name, 3 List part_vals, 4 Bool deleteData, 5 Struct environment_context) -> Bool throws(1 NoSuchObject, 2 Meta);
    DROP_PARTITION_REQ = "drop_partition_req"(1 Struct dropPartitionReq) -> Bool throws(1 NoSuchObject, 2 Meta);
    DROP_PARTITION_BY_NAME = "drop_partition_by_name"(1 String db_name, 2 String tbl_name, 3 String part_name, 4 Bool deleteData) -> Bool throws(1 NoSuchObject, 2 Meta);
    DROP_PARTITION_BY_NAME_WITH_ENVIRONMENT_CONTEXT = "drop_partition_by_name_with_environment_context"(1 String db_name, 2 String tbl_name, 3 String part_name, 4 Bool deleteData, 5 Struct environment_context) -> Bool throws(1 NoSuchObject, 2 Meta);
    DROP_PARTITIONS_REQ = "drop_partitions_req"(1 Struct req) -> Struct throws(1 NoSuchObject, 2 Meta);
    PARTITION_NAME_HAS_VALID_CHARACTERS = "partition_name_has_valid_characters"(1 List part_vals, 2 Bool throw_exception) -> Bool throws(1 Meta);
    LOCK = "lock"(1 Struct rqst) -> Struct throws(1 NoSuchTxn, 2 TxnAborted);
    CHECK_LOCK = "check_lock"(1 Struct rqst) -> Struct throws(1 NoSuchTxn, 2 TxnAborted, 3 NoSuchLock);
    HEARTBEAT = "heartbeat"(1 Struct ids) -> Void throws(1 NoSuchLock, 2 NoSuchTxn, 3 TxnAborted);
    UNLOCK = "unlock"(1 Struct rqst) -> Void throws(1 NoSuchLock, 2 TxnOpen);
    SHOW_LOCKS = "show_locks"(1 Struct rqst) -> Struct throws();
    GET_TABLE_STATISTICS_REQ = "get_table_statistics_req"(1 Struct request) -> Struct throws(1 NoSuchObject, 2 Meta);
    GET_PARTITIONS_STATISTICS_REQ = "get_partitions_statistics_req"(1 Struct request) -> Struct throws(1 NoSuchObject, 2 Meta);
    GET_AGGR_STATS_FOR = "get_aggr_stats_for"(1 Struct request) -> Struct throws(1 NoSuchObject, 2 Meta);
    UPDATE_TABLE_COLUMN_STATISTICS = "update_table_column_statistics"(1 Struct stats_obj) -> Bool throws(1 NoSuchObject, 2 InvalidObject, 3 Meta, 4 InvalidInput);
    UPDATE_PARTITION_COLUMN_STATISTICS = "update_partition_column_statistics"(1 Struct stats_obj) -> Bool throws(1 NoSuchObject, 2 InvalidObject, 3 Meta, 4 InvalidInput);
    GET_PRIMARY_KEYS = "get_primary_keys"(1 Struct request) -> Struct throws(1 Meta, 2 NoSuchObject);
    GET_FOREIGN_KEYS = "get_foreign_keys"(1 Struct request) -> Struct throws(1 Meta, 2 NoSuchObject);
    GET_UNIQUE_CONSTRAINTS = "get_unique_constraints"(1 Struct request) -> Struct throws(1 Meta, 2 NoSuchObject);
    GET_NOT_NULL_CONSTRAINTS = "get_not_null_constraints"(1 Struct request) -> Struct throws(1 Meta, 2 NoSuchObject);
    GET_DEFAULT_CONSTRAINTS = "get_default_constraints"(1 Struct request) -> Struct throws(1 Meta, 2 NoSuchObject);
    GET_CHECK_CONSTRAINTS = "get_check_constraints"(1 Struct request) -> Struct throws(1 Meta, 2 NoSuchObject);
    GET_ALL_TABLE_CONSTRAINTS = "get_all_table_constraints"(1 Struct request) -> Struct throws(1 Meta, 2 NoSuchObject);
    GET_MATERIALIZED_VIEWS_FOR_REWRITING = "get_materialized_views_for_rewriting"(1 String db_name) -> List throws(1 Meta);
    GET_ALL_MATERIALIZED_VIEW_OBJECTS_FOR_REWRITING = "get_all_materialized_view_objects_for_rewriting"() -> List throws(1 Meta);
    GET_RUNTIME_STATS = "get_runtime_stats"(1 Struct rqst) -> List throws(1 Meta);
}
