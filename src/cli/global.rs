//! Flags that every command understands, and the configuration that they lead to.

use std::path::PathBuf;

use crate::config::{Config, FlagSetting, Loaded, PipelineFile, Sources};
use crate::error::{Error, Result};
use crate::telemetry::{LogFormat, LogSettings};

/// Where a pipeline file is looked for when none is named: here, then where the demo puts it.
const USUAL_FILES: &[&str] = &["pipeline.toml", "lakehouse/pipeline.toml"];

/// How much a command logs unless somebody says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    ByFile,
    OfTrouble,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArguments {
    /// Pipeline file; without it ./pipeline.toml, or else ./lakehouse/pipeline.toml
    #[arg(short, long, global = true, value_name = "FILE", env = "LAKESMITH_CONFIG")]
    config: Option<PathBuf>,
    /// Override a setting, for example --set source.topic=orders; may be repeated
    #[arg(long, global = true, value_name = "PATH=VALUE", value_parser = FlagSetting::parse)]
    set: Vec<FlagSetting>,
    /// What to log on standard error: a level (error, warn, info, debug, trace) or levels by module (lakesmith=debug,iceberg=warn)
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// Form of the log lines
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<LogLines>,
}

/// The forms of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogLines {
    /// For people
    Text,
    /// For collectors: one JSON object per line
    Json,
}

impl GlobalArguments {
    /// How to log: as the pipeline file says for a pipeline, warnings and errors only for other commands. Flags win.
    pub fn log_settings(&self, speaks: Speaks) -> LogSettings {
        let mut settings = match speaks {
            // What is wrong with the file is reported when the command reads it.
            Speaks::ByFile => self.addresses_with(Vec::new()).map(|loaded| loaded.config.log).unwrap_or_default(),
            Speaks::OfTrouble => LogSettings { filter: "warn".to_string(), ..LogSettings::default() },
        };
        match self.log_format {
            Some(LogLines::Text) => settings.format = LogFormat::Text,
            Some(LogLines::Json) => settings.format = LogFormat::Json,
            None => {}
        }
        settings
    }

    /// The configuration of a pipeline; there must be a pipeline file.
    pub fn pipeline(&self) -> Result<Loaded> {
        self.pipeline_with(Vec::new())
    }

    /// As [`Self::pipeline`], with settings that specific flags give.
    pub fn pipeline_with(&self, flags: Vec<FlagSetting>) -> Result<Loaded> {
        let sources = self.sources(flags)?;
        if sources.file.is_none() {
            return Err(Error::config("there is no pipeline file: neither ./pipeline.toml nor ./lakehouse/pipeline.toml exists")
                .hint("name one with --config, write one with `lakesmith init`, or try `lakesmith demo`"));
        }
        Config::load(&sources)
    }

    /// The settings for a command that needs addresses but no pipeline; a pipeline file is read if there is one.
    pub fn addresses_with(&self, flags: Vec<FlagSetting>) -> Result<Loaded> {
        Config::load_unchecked(&self.sources(flags)?)
    }

    fn sources(&self, flags: Vec<FlagSetting>) -> Result<Sources> {
        let path = match &self.config {
            Some(path) => Some(path.clone()),
            None => USUAL_FILES.iter().map(PathBuf::from).find(|path| path.is_file()),
        };
        let file = path.map(|path| PipelineFile::read(&path)).transpose()?;
        // A flag that is made for a setting is more than `--set`.
        let flags = self.set.iter().cloned().chain(flags).collect();
        Ok(Sources { file, environment: Sources::process_environment(), flags })
    }
}
