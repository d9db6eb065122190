//! The expectations against a real metastore, named by `HIVE_METASTORE_URIS`.

use lakesmith::metastore::Metastore;

use super::behaviour::{self, Place};

fn uri() -> String {
    let uris = std::env::var("HIVE_METASTORE_URIS").expect("HIVE_METASTORE_URIS names a metastore: run tests/stack/stack up");
    uris.split(',').next().unwrap_or_default().to_owned()
}

async fn place() -> Place {
    Place::new(Metastore::connect(&behaviour::settings(&uri())).await.unwrap()).await
}

macro_rules! real {
    ($($name:ident $(($uri:ident))?),* $(,)?) => {
        $(#[tokio::test]
        async fn $name() {
            let place = place().await;
            behaviour::$name(&place $(, &$uri())?).await;
            place.end().await;
        })*
    };
}

real!(databases, tables, views, compare_and_swap, race(uri), partitions, partition_statistics, locks(uri), settings_and_version,);
