//! What a running daemon has to live through on real servers: tables that somebody else moves back, readers at every moment, more than
//! memory would hold, signals. The daemon is the binary; what the tables hold is computed a second time by Python's json and decimal modules.
//!
//! Faults for which a server of the stack is disturbed run after everything else, as scripts: `kills.py`, `hdfs.py`.

mod bounds;
mod cluster;
mod evolution;
mod readers;
mod reprocess;
mod stopping;
mod went_back;
