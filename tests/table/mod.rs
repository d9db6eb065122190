//! Iceberg tables through the catalog, on lakesmith's own metastore with a local directory, and on a real metastore with HDFS.

mod catalog;
mod columns;
mod commits;
mod completeness;
mod defaults;
mod evolution;
mod failover;
mod faults;
mod foreign;
mod histories;
mod lake;
mod locking;
mod mending;
pub mod proxy;
mod reading;
mod replace;
mod upkeep;

/// Runs test functions of a module on a lake that an expression makes, in a module of its own.
macro_rules! on_lake {
    ($name:ident, $lake:expr, $($test:ident),+ $(,)?) => {
        mod $name {
            use $crate::table::lake::Lake;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let lake: Lake = $lake;
                    super::$test(&lake).await;
                    lake.remove().await;
                }
            )+
        }
    };
}
use on_lake;

/// Runs test functions of a module on both kinds of lake.
macro_rules! on_both_lakes {
    ($($test:ident),+ $(,)?) => {
        $crate::table::on_lake!(embedded, Lake::embedded().await, $($test),+);
        $crate::table::on_lake!(real, Lake::real().await, $($test),+);
    };
}
use on_both_lakes;

/// Runs test functions of a module on both kinds of lake, and with every version of the metastore.
macro_rules! on_every_lake {
    ($($test:ident),+ $(,)?) => {
        $crate::table::on_both_lakes!($($test),+);
        $crate::table::on_lake!(hms_4_2_1, Lake::of_version("4.2.1").await, $($test),+);
        $crate::table::on_lake!(hms_4_1_0, Lake::of_version("4.1.0").await, $($test),+);
        $crate::table::on_lake!(hms_3_1_3, Lake::of_version("3.1.3").await, $($test),+);
        $crate::table::on_lake!(hms_2_3_10, Lake::of_version("2.3.10").await, $($test),+);
        $crate::table::on_lake!(hms_2_3_9, Lake::of_version("2.3.9").await, $($test),+);
    };
}
use on_every_lake;
