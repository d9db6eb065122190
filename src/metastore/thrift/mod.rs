//! Thrift's strict binary protocol as a tree of values: what Hive's metastore speaks, without generated code.
//!
//! A struct is a list of numbered values in the order in which they came. Whoever changes one field and writes the struct back keeps all
//! the others, those too that a newer server added and this crate has no name for. Generated clients drop them.
//!
//! *Invariants*: what a conforming peer sent encodes to the same bytes that were decoded. Decoding is bounded by [`Limits`] in bytes, depth
//! and number of values, whatever a peer claims about lengths, and never panics.
//!
//! Messages have no frame: [`Scanner`] walks the bytes as they arrive and says where a message ends, and only then is it decoded.
//! [`Channel`] reads and writes messages on a connection, through a [`Layer`] that leaves room for SASL.

mod binary;
mod channel;
mod message;
mod scan;
mod value;

pub use binary::{Limits, ThriftError, decode_struct, encode_struct};
pub use channel::{Channel, ChannelError, Layer, Plain};
pub use message::{Application, Message, MessageKind};
pub use scan::Scanner;
pub use value::{Field, List, Map, Struct, Type, Value};
