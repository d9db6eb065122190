//! Which real servers, and which program, a test runs against: the environment names them, and an absent server is a failure.
//!
//! Tests of a metastore's version stand in a module with that version in its name, such as `hms_3_1_3`. `tests/run` starts and tests 4.0.1,
//! 3.1.3 and 2.3.10; `tests/run --all` all of them.

/// A variable of the environment that the stack sets.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: see tests/stack/README.md"))
}

/// A metastore of the stack, by its version or its name there.
pub fn metastore_uri(version: &str) -> String {
    variable(&format!("HIVE_METASTORE_URIS_{}", version.replace('.', "_").to_uppercase()))
}

/// The program under test: `LAKESMITH_BIN`, which `tests/run` sets to the optimized one that ships, or else the one built with the tests.
pub fn program() -> std::path::PathBuf {
    std::env::var_os("LAKESMITH_BIN").map_or_else(|| env!("CARGO_BIN_EXE_lakesmith").into(), Into::into)
}
