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
