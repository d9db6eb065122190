//! Iceberg tables through the catalog, on lakesmith's own metastore with a local directory, and on a real metastore with HDFS.

mod catalog;
mod commits;
mod completeness;
mod faults;
mod lake;
mod locking;
mod mending;
pub mod proxy;
mod reading;
mod upkeep;

/// Runs test functions of a module on both kinds of lake.
macro_rules! on_both_lakes {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let lake = $crate::table::lake::Lake::embedded().await;
                    super::$test(&lake).await;
                    lake.remove().await;
                }
            )+
        }
        mod real {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let lake = $crate::table::lake::Lake::real().await;
                    super::$test(&lake).await;
                    lake.remove().await;
                }
            )+
        }
    };
}
use on_both_lakes;

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
