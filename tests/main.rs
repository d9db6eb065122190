//! The one integration binary: each module tests one part of lakesmith from outside, against real servers where it has any.

mod cli;
mod compose;
mod end_to_end;
mod faults;
mod gate;
mod gold;
mod layering;
mod metastore;
mod servers;
mod simulation;
mod source;
mod storage;
mod table;
