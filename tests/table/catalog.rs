//! The catalog as the iceberg crate uses it, and tables of others.

use std::collections::HashMap;

use iceberg::transaction::{ApplyTransactionAction, Transaction};
use iceberg::{Catalog, ErrorKind, NamespaceIdent, TableIdent, TableUpdate};
use lakesmith::catalog::CommitOutcome;
use lakesmith::checkpoint::OffsetRange;
use lakesmith::metastore::HiveTable;
use lakesmith::table::LakeTable;

use super::lake::{Lake, append, offsets, ready};

super::on_both_lakes!(
    the_trait_lists_renames_registers_and_drops,
    a_transaction_of_the_iceberg_crate_commits,
    a_table_that_turns_to_locking_is_committed_on,
);

async fn the_trait_lists_renames_registers_and_drops(lake: &Lake) {
    let catalog: &dyn Catalog = &lake.catalog;
    let namespace = NamespaceIdent::new(lake.database.clone());
    assert!(!catalog.namespace_exists(&namespace).await.unwrap());
    assert_eq!(catalog.get_namespace(&namespace).await.unwrap_err().kind(), ErrorKind::NamespaceNotFound);
    catalog.create_namespace(&namespace, HashMap::new()).await.unwrap();
    assert!(catalog.list_namespaces(None).await.unwrap().contains(&namespace));
    let location = catalog.get_namespace(&namespace).await.unwrap().properties()["location"].clone();
    assert!(location.starts_with(&lake.warehouse), "{location}");

    let mut table = lake.table("t", &[]).await;
    append(&mut table, 0, OffsetRange::new(0, 3)).await;
    let mut plain = HiveTable::new(&lake.database, "plain");
    plain.set_location(&format!("{}/plain", lake.warehouse));
    lake.catalog.metastore().create_table(&plain).await.unwrap();
    assert_eq!(catalog.list_tables(&namespace).await.unwrap(), [table.ident().clone()]);
    let plain = TableIdent::new(namespace.clone(), "plain".to_owned());
    assert!(!catalog.table_exists(&plain).await.unwrap());
    assert!(LakeTable::open(&lake.catalog, &plain).await.unwrap_err().to_string().contains("not an Iceberg table"));

    let renamed = TableIdent::new(namespace.clone(), "renamed".to_owned());
    catalog.rename_table(table.ident(), &renamed).await.unwrap();
    assert_eq!(catalog.load_table(table.ident()).await.unwrap_err().kind(), ErrorKind::TableNotFound);
    let loaded = catalog.load_table(&renamed).await.unwrap();
    assert_eq!(loaded.metadata().uuid(), table.uuid());

    // Dropped, the files stay: it can be registered again.
    catalog.drop_table(&renamed).await.unwrap();
    let location = loaded.metadata_location().unwrap().to_owned();
    catalog.register_table(table.ident(), location).await.unwrap();
    assert_eq!(offsets(&lake.open(&lake.catalog, "t").await, None).await, [0, 1, 2]);
    catalog.purge_table(table.ident()).await.unwrap();
    assert!(!catalog.table_exists(table.ident()).await.unwrap());
    assert!(lake.storages.status(loaded.metadata_location().unwrap()).await.unwrap().is_none());
}

async fn a_transaction_of_the_iceberg_crate_commits(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    append(&mut table, 0, OffsetRange::new(0, 3)).await;
    let prepared = ready(&mut table, 0, OffsetRange::new(3, 6)).await;
    let loaded = lake.catalog.load_table(table.ident()).await.unwrap();
    let transaction = Transaction::new(&loaded);
    let transaction = transaction.update_table_properties().set("theirs".to_owned(), "1".to_owned()).apply(transaction).unwrap();
    transaction.commit(&lake.catalog).await.unwrap();
    let appended = prepared.swap(&mut table).await.into_result(table.ident()).unwrap();
    assert_eq!(appended.attempts, 2);
    assert_eq!(table.note("theirs"), Some("1"));
}

/// Somebody decides that the table's writers lock from here on: the next swap does.
async fn a_table_that_turns_to_locking_is_committed_on(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    append(&mut table, 0, OffsetRange::new(0, 3)).await;
    let locked = HashMap::from([("engine.hive.lock-enabled".to_owned(), "true".to_owned())]);
    let updates = vec![TableUpdate::SetProperties { updates: locked }];
    let CommitOutcome::Committed(_) = lake.catalog.commit(table.ident(), Vec::new(), updates.clone()).await else {
        panic!("refused")
    };
    table.refresh().await.unwrap();
    append(&mut table, 0, OffsetRange::new(3, 6)).await;
    let CommitOutcome::Committed(_) = lake.catalog.commit(table.ident(), Vec::new(), updates).await else { panic!("refused") };
    table.refresh().await.unwrap();
    assert!(lake.catalog.metastore().show_locks(&lake.database, "t").await.unwrap().is_empty());
    super::lake::assert_no_orphans(lake, &table).await;
}
