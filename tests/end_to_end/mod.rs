//! The whole way of a record as a user walks it: the binary generates, produces, runs, is killed, and runs again; what the tables hold is
//! computed a second time by Python's csv, json and decimal modules, and read by other engines.

mod embedded;
mod real;
mod lake;

use lake::Lake;
