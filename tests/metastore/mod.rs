//! The metastore: one set of expectations, held against real servers and against the embedded one; connections and servers that fail. What a
//! client that is not ours sees of the embedded one is in `tests/engines/embedded`.

mod behaviour;
mod embedded;
mod failover;
mod faults;
mod real;
