//! The metastore: one set of expectations, held against a real server and against the embedded one; connections that fail; and a client
//! that is not ours.

mod behaviour;
mod embedded;
mod faults;
mod independent;
mod real;
