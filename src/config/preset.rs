//! Pipeline files that come with the program. They are ordinary files that anybody could have written.

use super::PipelineFile;

/// A pipeline file to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    pub name: &'static str,
    pub text: &'static str,
}

pub const PRESETS: &[Preset] = &[Preset { name: "amazon-sales", text: include_str!("amazon-sales.toml") }];

/// The preset of that name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

impl Preset {
    pub fn file(&self) -> PipelineFile {
        PipelineFile::built_in(&format!("preset {}", self.name), self.text)
    }
}
