//! The expectations against real metastores of every line, named by the environment.

use lakesmith::metastore::Metastore;

use super::behaviour::{self, Place};
use crate::servers::metastore_uri;

async fn place(version: &str) -> Place {
    Place::new(Metastore::connect(&behaviour::settings(&metastore_uri(version))).await.unwrap()).await
}

macro_rules! real {
    ($module:ident, $version:literal, $generation:ident, $verdict:ident; $($name:ident $(($of:ident))?),* $(,)?) => {
        mod $module {
            use lakesmith::metastore::{CompareAndSwap, Generation};

            use super::*;

            $(#[tokio::test]
            async fn $name() {
                let place = place($version).await;
                behaviour::$name(&place $(, &$of($version))?).await;
                place.end().await;
            })*

            #[tokio::test]
            async fn abilities() {
                let place = place($version).await;
                behaviour::abilities(&place, $version, Generation::$generation, CompareAndSwap::$verdict).await;
                place.end().await;
            }
        }
    };
}

real!(hms_4_0_1, "4.0.1", Four, Honoured; databases, tables, views, compare_and_swap, race(metastore_uri), partitions, partition_statistics, locks(metastore_uri));
real!(hms_3_1_3, "3.1.3", Three, Ignored; databases, tables, views, partitions, partition_statistics, locks(metastore_uri));
real!(hms_2_3_10, "2.3.10", Two, Honoured; databases, tables, views, compare_and_swap, race(metastore_uri), partitions, partition_statistics, locks(metastore_uri));
real!(hms_2_3_9, "2.3.9", Two, Ignored; databases, tables, views, partitions, partition_statistics, locks(metastore_uri));
real!(hms_4_1_0, "4.1.0", Four, Honoured; databases, tables, views, compare_and_swap, race(metastore_uri), partitions, partition_statistics, locks(metastore_uri));
real!(hms_4_2_1, "4.2.1", Four, Honoured; databases, tables, views, compare_and_swap, race(metastore_uri), partitions, partition_statistics, locks(metastore_uri));
