//! The metastore: one set of expectations, held against real servers and against the embedded one; connections and servers that fail;
//! and a client that is not ours.

mod behaviour;
mod embedded;
mod failover;
mod faults;
mod independent;
mod real;
