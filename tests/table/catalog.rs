//! The catalog as the iceberg crate uses it, and tables of others.

use std::collections::HashMap;

use iceberg::transaction::{ApplyTransactionAction, Transaction};
use iceberg::{Catalog, ErrorKind, NamespaceIdent, TableIdent, TableUpdate};
use lakesmith::catalog::CommitOutcome;
use lakesmith::checkpoint::OffsetRange;
use lakesmith::metastore::{CompareAndSwap, HiveTable};
use lakesmith::table::LakeTable;

use super::lake::{Lake, append, offsets, ready};

super::on_every_lake!(
    the_trait_lists_renames_registers_and_drops,
    a_rename_across_databases_takes_commits_and_locks_with_it,
    names_that_are_taken_or_missing_are_told_apart,
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

/// Under both ways of protecting a table, while others commit to it.
async fn a_rename_across_databases_takes_commits_and_locks_with_it(lake: &Lake) {
    let catalog: &dyn Catalog = &lake.catalog;
    let other = NamespaceIdent::new(format!("{}_other", lake.database));
    catalog.create_namespace(&other, HashMap::new()).await.unwrap();
    for locking in ["true", "false"] {
        let honoured = lake.catalog.metastore().compare_and_swap("default").await.unwrap() == CompareAndSwap::Honoured;
        if locking == "false" && !honoured {
            // Such a table is left alone: see `locking`.
            continue;
        }
        let name = format!("t_{locking}");
        let mut spec = lake.spec(&name, &[]);
        spec.properties.insert("engine.hive.lock-enabled".to_owned(), locking.to_owned());
        let mut table = LakeTable::open_or_create(&lake.catalog, &spec).await.unwrap();
        append(&mut table, 0, OffsetRange::new(0, 3)).await;
        let target = TableIdent::new(other.clone(), "renamed".to_owned());
        let commits = async {
            for batch in 1..4 {
                // The last one may find the table gone.
                let prepared = ready(&mut table, 0, OffsetRange::new(batch * 3, batch * 3 + 3)).await;
                if !matches!(prepared.swap(&mut table).await, CommitOutcome::Committed(_)) {
                    return batch * 3;
                }
            }
            12
        };
        let (committed, renamed) = tokio::join!(commits, catalog.rename_table(&spec.ident, &target));
        renamed.unwrap();
        let mut moved = LakeTable::open(&lake.catalog, &target).await.unwrap().unwrap();
        assert_eq!(offsets(&moved, None).await, (0..committed).collect::<Vec<_>>(), "lock {locking}");
        append(&mut moved, 0, OffsetRange::new(committed, committed + 3)).await;
        let left = lake.catalog.metastore().show_locks(&lake.database, &name).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
        catalog.drop_table(&target).await.unwrap();
    }
    catalog.drop_namespace(&other).await.unwrap();
}

async fn names_that_are_taken_or_missing_are_told_apart(lake: &Lake) {
    let catalog: &dyn Catalog = &lake.catalog;
    let (first, second) = (lake.table("first", &[]).await, lake.table("second", &[]).await);
    let absent = TableIdent::new(first.ident().namespace().clone(), "absent".to_owned());
    let kind = |result: Result<(), iceberg::Error>| result.unwrap_err().kind();
    assert_eq!(kind(catalog.rename_table(&absent, second.ident()).await), ErrorKind::TableNotFound);
    assert_eq!(kind(catalog.rename_table(first.ident(), second.ident()).await), ErrorKind::TableAlreadyExists);
    assert_eq!(kind(catalog.drop_table(&absent).await), ErrorKind::TableNotFound);
    let location = second.metadata_location().to_owned();
    for taken in [first.ident(), second.ident()] {
        let registered = catalog.register_table(taken, location.clone()).await;
        assert_eq!(registered.map(drop).unwrap_err().kind(), ErrorKind::TableAlreadyExists);
    }
    let namespace = first.ident().namespace();
    let created = catalog.create_namespace(namespace, HashMap::new()).await;
    assert_eq!(created.map(drop).unwrap_err().kind(), ErrorKind::NamespaceAlreadyExists);
    let nowhere = NamespaceIdent::new("table_test_absent".to_owned());
    assert_eq!(kind(catalog.drop_namespace(&nowhere).await), ErrorKind::NamespaceNotFound);
    assert!(catalog.drop_namespace(namespace).await.is_err(), "it has tables");
    // The same metadata under a second name, for a look at an older version.
    catalog.register_table(&absent, location).await.unwrap();
    assert_eq!(catalog.load_table(&absent).await.unwrap().metadata().uuid(), second.uuid());
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
