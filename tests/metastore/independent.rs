//! A client that is not ours against the embedded metastore: the crate `hive_metastore`, generated from Hive 2.3's interface. Every served
//! method that it has is called.

use std::fmt::Debug;

use hive_metastore::*;
use lakesmith::metastore::embedded::EmbeddedMetastore;
use pilota::{AHashMap, FastStr};
use volo_thrift::MaybeException;

use super::embedded::start;

type Client = ThriftHiveMetastoreClient;

fn connect(server: &EmbeddedMetastore) -> Client {
    ThriftHiveMetastoreClientBuilder::new("metastore")
        .make_codec(volo_thrift::codec::default::DefaultMakeCodec::buffered())
        .address(server.address())
        .build()
}

/// The result of a call that the server did not refuse.
fn done<T, X: Debug, E: Debug>(outcome: Result<MaybeException<T, X>, E>) -> T {
    match outcome {
        Ok(MaybeException::Ok(value)) => value,
        Ok(MaybeException::Exception(exception)) => panic!("refused: {exception:?}"),
        Err(error) => panic!("failed: {error:?}"),
    }
}

/// The declared exception of a call that the server refused, in the crate's words.
fn refused<T: Debug, X: Debug, E: Debug>(outcome: Result<MaybeException<T, X>, E>) -> String {
    match outcome {
        Ok(MaybeException::Exception(exception)) => format!("{exception:?}"),
        Ok(MaybeException::Ok(value)) => panic!("not refused: {value:?}"),
        Err(error) => panic!("failed: {error:?}"),
    }
}

fn texts(texts: &[&str]) -> Vec<FastStr> {
    texts.iter().map(FastStr::new).collect()
}

fn map(entries: &[(&str, &str)]) -> AHashMap<FastStr, FastStr> {
    entries.iter().map(|(key, value)| (FastStr::new(key), FastStr::new(value))).collect()
}

fn column(name: &str, kind: &str) -> FieldSchema {
    FieldSchema { name: Some(FastStr::new(name)), r#type: Some(FastStr::new(kind)), comment: None }
}

fn table(database: &str, name: &str) -> Table {
    Table {
        table_name: Some(FastStr::new(name)),
        db_name: Some(FastStr::new(database)),
        owner: Some("ann".into()),
        sd: Some(StorageDescriptor {
            cols: Some(vec![column("total", "bigint")]),
            serde_info: Some(SerDeInfo::default()),
            ..Default::default()
        }),
        partition_keys: Some(vec![column("day", "string"), column("hour", "int")]),
        parameters: Some(map(&[("EXTERNAL", "TRUE"), ("table_type", "ICEBERG"), ("comment", "what it is")])),
        table_type: Some("EXTERNAL_TABLE".into()),
        ..Default::default()
    }
}

fn partition(day: &str, hour: &str) -> Partition {
    Partition {
        values: Some(texts(&[day, hour])),
        db_name: Some("sales".into()),
        table_name: Some("t".into()),
        sd: Some(StorageDescriptor { serde_info: Some(SerDeInfo::default()), ..Default::default() }),
        parameters: Some(AHashMap::default()),
        ..Default::default()
    }
}

fn context(entries: &[(&str, &str)]) -> EnvironmentContext {
    EnvironmentContext { properties: Some(map(entries)) }
}

async fn with_database(client: &Client) {
    done(client.create_database(Database { name: Some("Sales".into()), ..Default::default() }).await);
}

#[tokio::test]
async fn databases() {
    let (server, _dir) = start().await;
    let client = connect(&server);
    with_database(&client).await;
    assert!(
        refused(client.create_database(Database { name: Some("sales".into()), ..Default::default() }).await)
            .contains("AlreadyExists")
    );
    assert_eq!(done(client.get_all_databases().await), texts(&["default", "sales"]));
    for (pattern, found) in [("s*", &["sales"][..]), ("@hive#", &["default", "sales"]), ("@hive#sal*|x", &["sales"])] {
        assert_eq!(done(client.get_databases(pattern.into()).await), texts(found));
    }
    let database = done(client.get_database("@hive#SALES".into()).await);
    assert!(database.location_uri.unwrap().ends_with("/sales.db"));
    assert!(refused(client.get_database("absent".into()).await).contains("NoSuchObject"));
    let changed = Database { name: Some("sales".into()), description: Some("new".into()), ..Default::default() };
    done(client.alter_database("sales".into(), changed).await);
    assert_eq!(done(client.get_database("sales".into()).await).description.as_deref(), Some("new"));
    done(client.create_table(table("sales", "t")).await);
    assert!(refused(client.drop_database("sales".into(), false, false).await).contains("InvalidOperation"));
    done(client.drop_database("sales".into(), true, true).await);
    assert_eq!(done(client.get_all_databases().await), texts(&["default"]));
}

#[tokio::test]
async fn tables() {
    let (server, _dir) = start().await;
    let client = connect(&server);
    with_database(&client).await;
    done(client.create_table(table("Sales", "T")).await);
    assert!(refused(client.create_table(table("sales", "t")).await).contains("AlreadyExists"));
    let stats = context(&[("DO_NOT_UPDATE_STATS", "true")]);
    done(client.create_table_with_environment_context(table("sales", "u"), stats.clone()).await);
    let view = Table { table_type: Some("VIRTUAL_VIEW".into()), parameters: None, ..table("sales", "v") };
    done(client.create_table(view).await);

    assert_eq!(done(client.get_all_tables("sales".into()).await), texts(&["t", "u", "v"]));
    assert_eq!(done(client.get_tables("@hive#sales".into(), "t|u".into()).await), texts(&["t", "u"]));
    assert_eq!(done(client.get_tables("sales".into(), ".*".into()).await), texts(&["t", "u", "v"]));
    assert_eq!(done(client.get_tables_by_type("sales".into(), "*".into(), "VIRTUAL_VIEW".into()).await), texts(&["v"]));
    let filter = "hive_filter_field_params__table_type like \"ICEBERG\"";
    assert_eq!(done(client.get_table_names_by_filter("sales".into(), filter.into(), -1).await), texts(&["t", "u"]));
    let owners = "hive_filter_field_owner__ = \"ann\" and hive_filter_field_last_access__ = 0";
    assert_eq!(done(client.get_table_names_by_filter("sales".into(), owners.into(), 2).await), texts(&["t", "u"]));
    let meta = done(client.get_table_meta("s*".into(), "*".into(), texts(&["EXTERNAL_TABLE"])).await);
    let meta: Vec<_> =
        meta.iter().map(|line| (line.db_name.as_str(), line.table_name.as_str(), line.comments.as_deref())).collect();
    assert_eq!(meta, [("sales", "t", Some("what it is")), ("sales", "u", Some("what it is"))]);

    let read = done(client.get_table("sales".into(), "T".into()).await);
    assert_eq!((read.table_name.as_deref(), read.owner.as_deref()), (Some("t"), Some("ann")));
    assert!(refused(client.get_table("sales".into(), "absent".into()).await).contains("NoSuchObject"));
    let request = |name: &str| GetTableRequest { db_name: "sales".into(), tbl_name: FastStr::new(name), capabilities: None };
    assert_eq!(done(client.get_table_req(request("t")).await).table, read);
    assert!(refused(client.get_table_req(request("absent")).await).contains("NoSuchObject"));
    assert_eq!(done(client.get_table_objects_by_name("sales".into(), texts(&["t", "absent", "u"])).await).len(), 2);
    let named =
        |names: Option<&[&str]>| GetTablesRequest { db_name: "sales".into(), tbl_names: names.map(texts), capabilities: None };
    assert_eq!(done(client.get_table_objects_by_name_req(named(Some(&["u"]))).await).tables.len(), 1);
    assert_eq!(done(client.get_table_objects_by_name_req(named(None)).await).tables.len(), 3);

    let mut changed = read.clone();
    changed.parameters = Some(map(&[("EXTERNAL", "TRUE"), ("n", "1")]));
    done(client.alter_table("sales".into(), "t".into(), changed.clone()).await);
    done(client.alter_table_with_cascade("sales".into(), "t".into(), changed.clone(), true).await);
    let expecting = |value| context(&[("expected_parameter_key", "n"), ("expected_parameter_value", value)]);
    let swap = |value| client.alter_table_with_environment_context("sales".into(), "t".into(), changed.clone(), expecting(value));
    done(swap("1").await);
    assert!(refused(swap("2").await).contains("The table has been modified. The parameter value for key 'n' is '1'"));
    assert!(refused(client.alter_table("sales".into(), "absent".into(), changed.clone()).await).contains("InvalidOperation"));

    done(client.drop_table("sales".into(), "u".into(), true).await);
    done(client.drop_table_with_environment_context("sales".into(), "v".into(), true, stats).await);
    assert!(refused(client.drop_table("sales".into(), "v".into(), true).await).contains("NoSuchObject"));
    assert_eq!(done(client.get_all_tables("sales".into()).await), texts(&["t"]));
}

#[tokio::test]
async fn partitions() {
    let (server, _dir) = start().await;
    let client = connect(&server);
    with_database(&client).await;
    done(client.create_table(table("sales", "t")).await);
    let (s, t) = (|| FastStr::new("sales"), || FastStr::new("t"));
    done(client.add_partition(partition("2024-07-01", "9")).await);
    assert!(refused(client.add_partition(partition("2024-07-01", "9")).await).contains("AlreadyExists"));
    done(client.add_partition_with_environment_context(partition("2024-07-01", "10"), context(&[])).await);
    assert_eq!(done(client.add_partitions(vec![partition("2024-07-02", "9"), partition("2024-07-02", "10")]).await), 2);
    let request = |if_not_exists| AddPartitionsRequest {
        db_name: s(),
        tbl_name: t(),
        parts: vec![partition("2024-07-02", "9"), partition("a/b", "1")],
        if_not_exists,
        need_result: Some(true),
        cat_name: None,
    };
    assert!(refused(client.add_partitions_req(request(false)).await).contains("AlreadyExists"));
    assert_eq!(done(client.add_partitions_req(request(true)).await).partitions.unwrap().len(), 1);

    let all = texts(&[
        "day=2024-07-01/hour=10",
        "day=2024-07-01/hour=9",
        "day=2024-07-02/hour=10",
        "day=2024-07-02/hour=9",
        "day=a%2Fb/hour=1",
    ]);
    assert_eq!(done(client.get_partition_names(s(), t(), -1).await), all);
    assert_eq!(done(client.get_partition_names(s(), t(), 2).await), all[..2]);
    assert_eq!(done(client.get_partition_names_ps(s(), t(), texts(&["", "9"]), -1).await), [all[1].clone(), all[3].clone()]);
    assert_eq!(done(client.get_partitions(s(), t(), -1).await).len(), 5);
    assert_eq!(done(client.get_partitions_with_auth(s(), t(), 3, "ann".into(), vec![]).await).len(), 3);
    assert_eq!(done(client.get_partitions_ps(s(), t(), texts(&["2024-07-01"]), -1).await).len(), 2);
    let with_auth = client.get_partitions_ps_with_auth(s(), t(), texts(&["2024-07-01", "9"]), -1, "ann".into(), vec![]);
    assert_eq!(done(with_auth.await).len(), 1);
    assert_eq!(done(client.get_partitions_by_names(s(), t(), vec![all[0].clone(), "day=x/hour=0".into()]).await).len(), 1);
    let filtered = async |filter: &str| client.get_partitions_by_filter(s(), t(), FastStr::new(filter), -1).await;
    assert_eq!(done(filtered("day = \"2024-07-01\" and hour >= 9").await).len(), 2);
    assert_eq!(done(filtered("(hour) in (1) or day > \"2024-07-01\" and hour < 10").await).len(), 2);
    assert!(refused(filtered("total = 1").await).contains("MetaException"));
    assert!(refused(filtered("hour ==== 1").await).contains("MetaException"));
    let values = || texts(&["a/b", "1"]);
    let one = done(client.get_partition(s(), t(), values()).await);
    assert_eq!(one.values, Some(values()));
    assert_eq!(done(client.get_partition_with_auth(s(), t(), values(), "ann".into(), vec![]).await), one);
    assert_eq!(done(client.get_partition_by_name(s(), t(), all[4].clone()).await), one);
    assert!(refused(client.get_partition(s(), t(), texts(&["x", "1"])).await).contains("NoSuchObject"));
    assert!(refused(client.get_partitions(s(), "absent".into(), -1).await).contains("NoSuchObject"));

    let changed = |n: &str| Partition { parameters: Some(map(&[("n", n)])), ..one.clone() };
    let found = async || done(client.get_partition(s(), t(), values()).await).parameters.unwrap().get("n").cloned();
    done(client.alter_partition(s(), t(), changed("1")).await);
    assert_eq!(found().await.as_deref(), Some("1"));
    done(client.alter_partition_with_environment_context(s(), t(), changed("2"), context(&[])).await);
    done(client.alter_partitions(s(), t(), vec![changed("3")]).await);
    done(client.alter_partitions_with_environment_context(s(), t(), vec![changed("4")], context(&[])).await);
    assert_eq!(found().await.as_deref(), Some("4"));
    let batch = vec![changed("5"), partition("x", "1")];
    assert!(refused(client.alter_partitions(s(), t(), batch).await).contains("InvalidOperation"));
    assert_eq!(found().await.as_deref(), Some("4"));

    assert!(done(client.drop_partition(s(), t(), values(), false).await));
    assert!(refused(client.drop_partition(s(), t(), values(), false).await).contains("NoSuchObject"));
    let next = client.drop_partition_with_environment_context(s(), t(), texts(&["2024-07-02", "9"]), false, context(&[]));
    assert!(done(next.await));
    assert!(done(client.drop_partition_by_name(s(), t(), all[2].clone(), false).await));
    assert!(done(client.drop_partition_by_name_with_environment_context(s(), t(), all[0].clone(), false, context(&[])).await));
    let request = DropPartitionsRequest {
        db_name: s(),
        tbl_name: t(),
        parts: RequestPartsSpec::Names(vec![all[1].clone()]),
        delete_data: Some(false),
        if_exists: Some(true),
        ignore_protection: None,
        environment_context: None,
        need_result: Some(true),
        cat_name: None,
    };
    assert_eq!(done(client.drop_partitions_req(request).await).partitions.unwrap().len(), 1);
    assert!(done(client.get_partition_names(s(), t(), -1).await).is_empty());
    assert!(done(client.partition_name_has_valid_characters(texts(&["a b"]), false).await));
    assert!(refused(client.partition_name_has_valid_characters(texts(&["a\nb"]), true).await).contains("MetaException"));
}

#[tokio::test]
async fn locks() {
    let (server, _dir) = start().await;
    let client = connect(&server);
    let request = LockRequest {
        component: vec![LockComponent {
            r#type: LockType::EXCLUSIVE,
            level: LockLevel::TABLE,
            dbname: "sales".into(),
            tablename: Some("t".into()),
            partitionname: None,
            operation_type: None,
            is_acid: None,
            is_dynamic_partition_write: None,
        }],
        txnid: None,
        user: "ann".into(),
        hostname: "here".into(),
        agent_info: Some("agent".into()),
    };
    let first = done(client.lock(request.clone()).await);
    let second = done(client.lock(request).await);
    assert_eq!((first.state, second.state), (LockState::ACQUIRED, LockState::WAITING));
    let check = |lockid| CheckLockRequest { lockid, txnid: None, elapsed_ms: None };
    assert_eq!(done(client.check_lock(check(second.lockid)).await).state, LockState::WAITING);
    done(client.heartbeat(HeartbeatRequest { lockid: Some(first.lockid), txnid: None }).await);
    let everything = ShowLocksRequest { dbname: None, tablename: None, partname: None, is_extended: None };
    let shown = client.show_locks(everything).await.unwrap().locks.unwrap();
    assert_eq!(shown.iter().map(|lock| lock.lockid).collect::<Vec<_>>(), [first.lockid, second.lockid]);
    done(client.unlock(UnlockRequest { lockid: first.lockid }).await);
    assert_eq!(done(client.check_lock(check(second.lockid)).await).state, LockState::ACQUIRED);
    assert!(refused(client.check_lock(check(first.lockid)).await).contains("NoSuchLock"));
}

#[tokio::test]
async fn fixed_answers() {
    let (server, _dir) = start().await;
    let client = connect(&server);
    assert_eq!(done(client.set_ugi("ann".into(), texts(&["staff"])).await), texts(&["staff"]));
    client.flush_cache().await.unwrap();
    done(client.set_meta_conf("k".into(), "v".into()).await);
    assert_eq!(done(client.get_meta_conf("k".into()).await), "");
    assert_eq!(done(client.get_config_value("hive.some.key".into(), "50".into()).await), "50");
    assert_eq!(done(client.get_all_functions().await).functions.map(|functions| functions.len()), Some(0));
    assert_eq!(client.get_current_notification_event_id().await.unwrap().event_id, 0);
    assert!(
        client
            .get_next_notification(NotificationEventRequest { last_event: 0, max_events: None })
            .await
            .unwrap()
            .events
            .is_empty()
    );
    let keys = PrimaryKeysRequest { db_name: "d".into(), tbl_name: "t".into() };
    assert!(done(client.get_primary_keys(keys).await).primary_keys.is_empty());
    let keys = ForeignKeysRequest { parent_db_name: None, parent_tbl_name: None, foreign_db_name: None, foreign_tbl_name: None };
    assert!(done(client.get_foreign_keys(keys).await).foreign_keys.is_empty());
    let request = TableStatsRequest { db_name: "d".into(), tbl_name: "t".into(), col_names: texts(&["c"]) };
    assert!(done(client.get_table_statistics_req(request).await).table_stats.is_empty());
    let request = PartitionsStatsRequest {
        db_name: "d".into(),
        tbl_name: "t".into(),
        col_names: vec![],
        part_names: vec![],
        cat_name: None,
    };
    assert!(done(client.get_partitions_statistics_req(request.clone()).await).part_stats.is_empty());
    assert_eq!(done(client.get_aggr_stats_for(request).await).parts_found, 0);
    let statistics = ColumnStatistics {
        stats_desc: ColumnStatisticsDesc {
            is_tbl_level: true,
            db_name: "d".into(),
            table_name: "t".into(),
            part_name: None,
            last_analyzed: None,
            cat_name: None,
        },
        stats_obj: vec![],
    };
    assert!(done(client.update_table_column_statistics(statistics.clone()).await));
    assert!(done(client.update_partition_column_statistics(statistics).await));
}

/// The fallback of HiveServer2 needs this very answer.
#[tokio::test]
async fn what_is_left_out_on_purpose_is_unknown() {
    let (server, _dir) = start().await;
    let client = connect(&server);
    let request = PartitionsByExprRequest {
        db_name: "d".into(),
        tbl_name: "t".into(),
        expr: pilota::Bytes::from_static(b"kryo"),
        default_partition_name: None,
        max_parts: None,
        cat_name: None,
    };
    let error = client.get_partitions_by_expr(request).await.map(drop).unwrap_err();
    assert!(format!("{error:?}").contains("Invalid method name: 'get_partitions_by_expr'"), "{error:?}");
}
