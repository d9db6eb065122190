//! Each module tests one part of lakesmith from outside, against real servers where it has any. `tests/simulation` is a binary of its own.

mod cli;
mod compose;
mod end_to_end;
mod faults;
mod gate;
mod gold;
mod layering;
mod metastore;
mod servers;
mod source;
mod storage;
mod table;

/// The clone that is tested. Cargo says so when it starts the tests; what was compiled in may be another one, whose build results this one
/// found in the cache and rightly used.
fn repository() -> std::path::PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), Into::into)
}
