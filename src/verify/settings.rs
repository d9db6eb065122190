//! Limits of a check.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The `[verify]` section of a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerifySettings {
    /// Memory for what is compared at a time; less means more passes over silver, and beyond it sorts and aggregates spill to temporary
    /// files. Reading the tables takes what it takes besides, about 150 MiB. At least 16MiB. Default 128MiB.
    pub memory_limit: ByteSize,
}

impl Default for VerifySettings {
    fn default() -> Self {
        Self { memory_limit: ByteSize::mib(128) }
    }
}

impl VerifySettings {
    pub fn validate(&self) -> Result<()> {
        if self.memory_limit < ByteSize::mib(16) {
            return Err(
                Error::config(format!("verify.memory_limit {} is too small", self.memory_limit)).hint("16MiB is the least")
            );
        }
        Ok(())
    }
}
