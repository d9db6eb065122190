//! Limits of a query.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// The `[query]` section of a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuerySettings {
    /// Memory for sorts, joins and aggregates; beyond it they spill to temporary files. Default 1GiB.
    pub memory_limit: ByteSize,
    /// Threads of one query; 0: one per processor. Default 0.
    pub threads: usize,
}

impl Default for QuerySettings {
    fn default() -> Self {
        Self { memory_limit: ByteSize::gib(1), threads: 0 }
    }
}
