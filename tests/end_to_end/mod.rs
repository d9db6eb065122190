//! The whole way of a record as a user walks it: the binary generates, produces, runs, is killed, and runs again; what the tables hold is
//! computed a second time by Python's csv, json and decimal modules, and read by other engines.

mod added_fields;
mod completeness;
mod data_loss;
mod embedded;
mod failover;
mod group;
mod hive_form;
mod hive_silver;
mod identity;
mod lead;
pub mod real;
mod reprocess;
mod reprocess_engine;
mod reprocess_trino;
mod schema_apply;
pub mod lake;

use lake::Lake;

/// Every window of the commit protocol, in an order in which each is passed: what a kill leaves behind is what the next run begins with.
const WINDOWS: [&str; 13] = [
    "start:tables-created",
    "bronze:files-written",
    "bronze:metadata-written",
    "bronze:swapped",
    // Silver lacks what bronze has by now, and reads it from there.
    "silver:catch-up-files-written",
    "silver:catch-up-metadata-written",
    "silver:swapped@2",
    "rejected:swapped",
    "bronze:swapped@3",
    "lock:held",
    // Gold refreshes at the end of a run: from here on everything is read.
    "gold:partition-written",
    "gold:switched",
    "gold:progress-written",
];

#[test]
fn every_window_is_killed_at() {
    for window in lakesmith::window::Window::ALL {
        let hive = hive_form::WINDOWS.iter().chain(&hive_silver::WINDOWS);
        let reprocess = reprocess::WINDOWS.iter().chain(&reprocess_engine::WINDOWS).chain(&reprocess_trino::WINDOWS);
        let mut listed = WINDOWS.iter().chain(hive).chain(&schema_apply::WINDOWS).chain(reprocess);
        assert!(listed.any(|listed| listed.split('@').next() == Some(window.name())), "{}", window.name());
    }
}
