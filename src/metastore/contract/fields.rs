//! The fields of Hive's structs that lakesmith reads or writes, under the structs' short names. All others are carried along unread.

use super::super::thrift::{Field, Type};

macro_rules! structs {
    ($($module:ident = $name:literal { $($constant:ident = $id:literal $kind:ident $field:literal,)* })*) => {
        $(pub mod $module {
            use super::{Field, Type};
            $(pub const $constant: Field = Field { id: $id, name: $field, kind: Type::$kind };)*
            pub(super) const ALL: &[Field] = &[$($constant),*];
        })*

        /// Each struct's name in Hive's interface, and its fields.
        pub const STRUCTS: &[(&str, &[Field])] = &[$(($name, $module::ALL)),*];
    };
}

structs! {
    table = "Table" {
        NAME = 1 String "tableName",
        DATABASE = 2 String "dbName",
        OWNER = 3 String "owner",
        CREATE_TIME = 4 I32 "createTime",
        LAST_ACCESS_TIME = 5 I32 "lastAccessTime",
        RETENTION = 6 I32 "retention",
        STORAGE = 7 Struct "sd",
        PARTITION_KEYS = 8 List "partitionKeys",
        PARAMETERS = 9 Map "parameters",
        VIEW_ORIGINAL_TEXT = 10 String "viewOriginalText",
        VIEW_EXPANDED_TEXT = 11 String "viewExpandedText",
        TABLE_TYPE = 12 String "tableType",
        REWRITE_ENABLED = 15 Bool "rewriteEnabled",
        CATALOG = 17 String "catName",
        OWNER_TYPE = 18 I32 "ownerType",
        WRITE_ID = 19 I64 "writeId",
        ACCESS_TYPE = 22 Byte "accessType",
        ID = 25 I64 "id",
    }
    partition = "Partition" {
        VALUES = 1 List "values",
        DATABASE = 2 String "dbName",
        TABLE = 3 String "tableName",
        CREATE_TIME = 4 I32 "createTime",
        LAST_ACCESS_TIME = 5 I32 "lastAccessTime",
        STORAGE = 6 Struct "sd",
        PARAMETERS = 7 Map "parameters",
        CATALOG = 9 String "catName",
        WRITE_ID = 10 I64 "writeId",
    }
    storage = "StorageDescriptor" {
        COLUMNS = 1 List "cols",
        LOCATION = 2 String "location",
        INPUT_FORMAT = 3 String "inputFormat",
        OUTPUT_FORMAT = 4 String "outputFormat",
        COMPRESSED = 5 Bool "compressed",
        NUM_BUCKETS = 6 I32 "numBuckets",
        SERDE = 7 Struct "serdeInfo",
        BUCKET_COLS = 8 List "bucketCols",
        SORT_COLS = 9 List "sortCols",
        PARAMETERS = 10 Map "parameters",
        STORED_AS_SUB_DIRECTORIES = 12 Bool "storedAsSubDirectories",
    }
    serde = "SerDeInfo" {
        NAME = 1 String "name",
        LIBRARY = 2 String "serializationLib",
        PARAMETERS = 3 Map "parameters",
    }
    column = "FieldSchema" {
        NAME = 1 String "name",
        KIND = 2 String "type",
        COMMENT = 3 String "comment",
    }
    database = "Database" {
        NAME = 1 String "name",
        DESCRIPTION = 2 String "description",
        LOCATION = 3 String "locationUri",
        PARAMETERS = 4 Map "parameters",
        OWNER_NAME = 6 String "ownerName",
        OWNER_TYPE = 7 I32 "ownerType",
        CATALOG = 8 String "catalogName",
        CREATE_TIME = 9 I32 "createTime",
        MANAGED_LOCATION = 10 String "managedLocationUri",
        KIND = 11 I32 "type",
    }
    environment = "EnvironmentContext" {
        PROPERTIES = 1 Map "properties",
    }
    lock_component = "LockComponent" {
        KIND = 1 I32 "type",
        LEVEL = 2 I32 "level",
        DATABASE = 3 String "dbname",
        TABLE = 4 String "tablename",
        PARTITION = 5 String "partitionname",
        OPERATION_TYPE = 6 I32 "operationType",
        IS_TRANSACTIONAL = 7 Bool "isTransactional",
        IS_DYNAMIC_PARTITION_WRITE = 8 Bool "isDynamicPartitionWrite",
    }
    lock_request = "LockRequest" {
        COMPONENT = 1 List "component",
        TXN_ID = 2 I64 "txnid",
        USER = 3 String "user",
        HOSTNAME = 4 String "hostname",
        AGENT = 5 String "agentInfo",
    }
    lock_response = "LockResponse" {
        LOCK_ID = 1 I64 "lockid",
        STATE = 2 I32 "state",
        ERROR_MESSAGE = 3 String "errorMessage",
    }
    check_lock = "CheckLockRequest" {
        LOCK_ID = 1 I64 "lockid",
    }
    heartbeat = "HeartbeatRequest" {
        LOCK_ID = 1 I64 "lockid",
        TXN_ID = 2 I64 "txnid",
    }
    unlock = "UnlockRequest" {
        LOCK_ID = 1 I64 "lockid",
    }
    show_locks = "ShowLocksRequest" {
        DATABASE = 1 String "dbname",
        TABLE = 2 String "tablename",
        PARTITION = 3 String "partname",
        IS_EXTENDED = 4 Bool "isExtended",
    }
    show_locks_response = "ShowLocksResponse" {
        LOCKS = 1 List "locks",
    }
    shown_lock = "ShowLocksResponseElement" {
        LOCK_ID = 1 I64 "lockid",
        DATABASE = 2 String "dbname",
        TABLE = 3 String "tablename",
        PARTITION = 4 String "partname",
        STATE = 5 I32 "state",
        KIND = 6 I32 "type",
        LAST_HEARTBEAT = 8 I64 "lastheartbeat",
        ACQUIRED_AT = 9 I64 "acquiredat",
        USER = 10 String "user",
        HOSTNAME = 11 String "hostname",
        HEARTBEAT_COUNT = 12 I32 "heartbeatCount",
        AGENT = 13 String "agentInfo",
        BLOCKED_BY = 14 I64 "blockedByExtId",
        LOCK_ID_INTERNAL = 16 I64 "lockIdInternal",
    }
    table_meta = "TableMeta" {
        DATABASE = 1 String "dbName",
        TABLE = 2 String "tableName",
        TABLE_TYPE = 3 String "tableType",
        COMMENTS = 4 String "comments",
        CATALOG = 5 String "catName",
        OWNER_NAME = 6 String "ownerName",
        OWNER_TYPE = 7 I32 "ownerType",
    }
    get_database = "GetDatabaseRequest" {
        NAME = 1 String "name",
        CATALOG = 2 String "catalogName",
    }
    create_database = "CreateDatabaseRequest" {
        NAME = 1 String "databaseName",
        DESCRIPTION = 2 String "description",
        LOCATION = 3 String "locationUri",
        PARAMETERS = 4 Map "parameters",
        OWNER_NAME = 6 String "ownerName",
        OWNER_TYPE = 7 I32 "ownerType",
        CATALOG = 8 String "catalogName",
        CREATE_TIME = 9 I32 "createTime",
        MANAGED_LOCATION = 10 String "managedLocationUri",
        KIND = 11 I32 "type",
    }
    alter_database = "AlterDatabaseRequest" {
        OLD_NAME = 1 String "oldDbName",
        ENTRY = 2 Struct "newDb",
    }
    drop_database = "DropDatabaseRequest" {
        NAME = 1 String "name",
        CATALOG = 2 String "catalogName",
        IGNORE_UNKNOWN_DB = 3 Bool "ignoreUnknownDb",
        DELETE_DATA = 4 Bool "deleteData",
        CASCADE = 5 Bool "cascade",
    }
    get_table = "GetTableRequest" {
        DATABASE = 1 String "dbName",
        TABLE = 2 String "tblName",
        CATALOG = 4 String "catName",
        ENGINE = 10 String "engine",
    }
    get_table_result = "GetTableResult" {
        ENTRY = 1 Struct "table",
    }
    get_tables = "GetTablesRequest" {
        DATABASE = 1 String "dbName",
        TABLES = 2 List "tblNames",
        CATALOG = 4 String "catName",
        TABLES_PATTERN = 8 String "tablesPattern",
    }
    get_tables_result = "GetTablesResult" {
        TABLES = 1 List "tables",
    }
    create_table = "CreateTableRequest" {
        ENTRY = 1 Struct "table",
        ENVIRONMENT = 2 Struct "envContext",
    }
    alter_table = "AlterTableRequest" {
        CATALOG = 1 String "catName",
        DATABASE = 2 String "dbName",
        TABLE = 3 String "tableName",
        ENTRY = 4 Struct "table",
        ENVIRONMENT = 5 Struct "environmentContext",
        EXPECTED_PARAMETER_KEY = 10 String "expectedParameterKey",
        EXPECTED_PARAMETER_VALUE = 11 String "expectedParameterValue",
    }
    drop_table = "DropTableRequest" {
        CATALOG = 1 String "catalogName",
        DATABASE = 2 String "dbName",
        TABLE = 3 String "tableName",
        DELETE_DATA = 4 Bool "deleteData",
        ENVIRONMENT = 5 Struct "envContext",
    }
    partitions = "PartitionsRequest" {
        CATALOG = 1 String "catName",
        DATABASE = 2 String "dbName",
        TABLE = 3 String "tblName",
        MAX = 4 I16 "maxParts",
    }
    partitions_response = "PartitionsResponse" {
        PARTITIONS = 1 List "partitions",
    }
    partitions_by_filter = "GetPartitionsByFilterRequest" {
        CATALOG = 1 String "catName",
        DATABASE = 2 String "dbName",
        TABLE = 3 String "tblName",
        FILTER = 4 String "filter",
        MAX = 5 I16 "maxParts",
    }
    partition_names_ps = "GetPartitionNamesPsRequest" {
        CATALOG = 1 String "catName",
        DATABASE = 2 String "dbName",
        TABLE = 3 String "tblName",
        VALUES = 4 List "partValues",
        MAX = 5 I16 "maxParts",
    }
    partition_names_ps_response = "GetPartitionNamesPsResponse" {
        NAMES = 1 List "names",
    }
    partitions_ps = "GetPartitionsPsWithAuthRequest" {
        CATALOG = 1 String "catName",
        DATABASE = 2 String "dbName",
        TABLE = 3 String "tblName",
        VALUES = 4 List "partVals",
        MAX = 5 I16 "maxParts",
        NAMES = 13 List "partNames",
    }
    partitions_ps_response = "GetPartitionsPsWithAuthResponse" {
        PARTITIONS = 1 List "partitions",
    }
    partitions_by_names = "GetPartitionsByNamesRequest" {
        DATABASE = 1 String "db_name",
        TABLE = 2 String "tbl_name",
        NAMES = 3 List "names",
    }
    partitions_by_names_result = "GetPartitionsByNamesResult" {
        PARTITIONS = 1 List "partitions",
    }
    get_partition = "GetPartitionRequest" {
        CATALOG = 1 String "catName",
        DATABASE = 2 String "dbName",
        TABLE = 3 String "tblName",
        VALUES = 4 List "partVals",
    }
    get_partition_response = "GetPartitionResponse" {
        PARTITION = 1 Struct "partition",
    }
    add_partitions = "AddPartitionsRequest" {
        DATABASE = 1 String "dbName",
        TABLE = 2 String "tblName",
        PARTITIONS = 3 List "parts",
        IF_NOT_EXISTS = 4 Bool "ifNotExists",
        NEED_RESULT = 5 Bool "needResult",
        CATALOG = 6 String "catName",
        PARTITION_COL_SCHEMA = 9 List "partitionColSchema",
        ENVIRONMENT = 10 Struct "environmentContext",
    }
    add_partitions_result = "AddPartitionsResult" {
        PARTITIONS = 1 List "partitions",
    }
    alter_partitions = "AlterPartitionsRequest" {
        CATALOG = 1 String "catName",
        DATABASE = 2 String "dbName",
        TABLE = 3 String "tableName",
        PARTITIONS = 4 List "partitions",
        ENVIRONMENT = 5 Struct "environmentContext",
    }
    drop_partition = "DropPartitionRequest" {
        CATALOG = 1 String "catName",
        DATABASE = 2 String "dbName",
        TABLE = 3 String "tblName",
        NAME = 4 String "partName",
        VALUES = 5 List "partVals",
        DELETE_DATA = 6 Bool "deleteData",
    }
    drop_partitions = "DropPartitionsRequest" {
        DATABASE = 1 String "dbName",
        TABLE = 2 String "tblName",
        WHICH = 3 Struct "parts",
        DELETE_DATA = 4 Bool "deleteData",
        IF_EXISTS = 5 Bool "ifExists",
        NEED_RESULT = 8 Bool "needResult",
        CATALOG = 9 String "catName",
    }
    partition_names = "RequestPartsSpec" {
        NAMES = 1 List "names",
    }
    drop_partitions_result = "DropPartitionsResult" {
        PARTITIONS = 1 List "partitions",
    }
    functions = "GetAllFunctionsResponse" {
        FUNCTIONS = 1 List "functions",
    }
    notification_id = "CurrentNotificationEventId" {
        EVENT_ID = 1 I64 "eventId",
    }
    notifications = "NotificationEventResponse" {
        EVENTS = 1 List "events",
    }
    table_statistics = "TableStatsResult" {
        TABLE_STATS = 1 List "tableStats",
    }
    partitions_statistics = "PartitionsStatsResult" {
        PART_STATS = 1 Map "partStats",
    }
    aggregate_statistics = "AggrStats" {
        COL_STATS = 1 List "colStats",
        PARTS_FOUND = 2 I64 "partsFound",
    }
    primary_keys = "PrimaryKeysResponse" {
        PRIMARY_KEYS = 1 List "primaryKeys",
    }
    foreign_keys = "ForeignKeysResponse" {
        FOREIGN_KEYS = 1 List "foreignKeys",
    }
    unique_constraints = "UniqueConstraintsResponse" {
        UNIQUE_CONSTRAINTS = 1 List "uniqueConstraints",
    }
    not_null_constraints = "NotNullConstraintsResponse" {
        NOT_NULL_CONSTRAINTS = 1 List "notNullConstraints",
    }
    default_constraints = "DefaultConstraintsResponse" {
        DEFAULT_CONSTRAINTS = 1 List "defaultConstraints",
    }
    check_constraints = "CheckConstraintsResponse" {
        CHECK_CONSTRAINTS = 1 List "checkConstraints",
    }
    all_constraints = "AllTableConstraintsResponse" {
        ALL_TABLE_CONSTRAINTS = 1 Struct "allTableConstraints",
    }
}
