//! Pipeline files that come with the program. They are ordinary files that anybody could have written.

use super::PipelineFile;
use crate::silver::SilverSettings;

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
    /// What it says about silver.
    pub(super) fn silver(&self) -> Result<SilverSettings, toml::de::Error> {
        #[derive(serde::Deserialize)]
        struct Part {
            silver: SilverSettings,
        }
        toml::from_str(self.text).map(|part: Part| part.silver)
    }

    pub fn file(&self) -> PipelineFile {
        PipelineFile::built_in(&format!("preset {}", self.name), self.text)
    }
}
