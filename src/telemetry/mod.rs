//! Logging: one line per event to standard error, as text or JSON, and a count of the warnings and errors among them.
//!
//! What is logged: LAKESMITH_LOG, else RUST_LOG, else the setting; each in the notation of `tracing-subscriber`'s `EnvFilter`, from `debug` to
//! `warn,lakesmith::table=trace`. Libraries that narrate are kept at warnings unless the filter names them.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::error::{Error, Result};

/// Directives that the user's own come after, and so override. `hdfs_native::file` warns of each file dropped without a close; storage does that on
/// purpose when it removes an aborted one.
const QUIET: &str = "iceberg=warn,datafusion=warn,datafusion_optimizer=warn,parquet=warn,object_store=warn,\
     hdfs_native=warn,hdfs_native::file=error,librdkafka=warn,rdkafka=warn,sqlparser=warn";
const VARIABLES: [&str; 2] = ["LAKESMITH_LOG", "RUST_LOG"];
const SETTING: &str = "log.filter";

static WARNINGS: AtomicU64 = AtomicU64::new(0);
static ERRORS: AtomicU64 = AtomicU64::new(0);

/// The `[log]` section of a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// What is logged: a level, or directives such as `info,lakesmith::table=debug`. LAKESMITH_LOG and RUST_LOG win. Default info.
    pub filter: String,
    /// `text` for people, `json` for collectors. Default text.
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::default() }
    }
}

/// Events logged so far at the two levels that a person looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub warnings: u64,
    pub errors: u64,
}

/// How many warnings and errors the process has logged.
pub fn tally() -> Tally {
    Tally { warnings: WARNINGS.load(Ordering::Relaxed), errors: ERRORS.load(Ordering::Relaxed) }
}

/// Starts logging for the process. Started before, it stays as it is.
pub fn start(settings: &LogSettings) -> Result<()> {
    start_with(settings, None)
}

/// As [`start`], with a filter from the command line, which wins over the environment.
pub fn start_with(settings: &LogSettings, flag: Option<&str>) -> Result<()> {
    let (source, directives) = match flag {
        Some(directives) => ("--log", directives.to_owned()),
        None => chosen_filter(settings, |name| std::env::var(name).ok()),
    };
    let filter = filter(&directives).map_err(|error| invalid(source, &directives, error))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_timer(Milliseconds);
    let registry = tracing_subscriber::registry().with(filter).with(Counter);
    let started: Result<(), TryInitError> = match settings.format {
        LogFormat::Text => registry.with(lines.compact().with_ansi(is_colourful())).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    Ok(())
}

/// The first of the environment variables that is set, or the setting, with its name.
fn chosen_filter(settings: &LogSettings, variable: impl Fn(&str) -> Option<String>) -> (&'static str, String) {
    let set = VARIABLES.iter().find_map(|name| Some((*name, variable(name).filter(|value| !value.trim().is_empty())?)));
    set.unwrap_or_else(|| (SETTING, settings.filter.clone()))
}

fn filter(directives: &str) -> std::result::Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().parse(format!("{QUIET},{directives}"))
}

fn invalid(source: &str, directives: &str, error: tracing_subscriber::filter::ParseError) -> Error {
    Error::config(format!("{source} is not a log filter: {directives:?}"))
        .hint("write a level (error, warn, info, debug, trace) or directives such as info,lakesmith::table=debug")
        .caused_by(error)
}

/// Colours are for terminals, unless NO_COLOR says otherwise (no-color.org).
fn is_colourful() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// UTC with milliseconds.
struct Milliseconds;

impl FormatTime for Milliseconds {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.3fZ"))
    }
}

/// Counts what passes the filter.
struct Counter;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Counter {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        match *event.metadata().level() {
            Level::WARN => WARNINGS.fetch_add(1, Ordering::Relaxed),
            Level::ERROR => ERRORS.fetch_add(1, Ordering::Relaxed),
            _ => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::fmt::MakeWriter;

    #[test]
    fn the_environment_wins_over_the_setting() {
        let settings = LogSettings::default();
        let both = |name: &str| Some(if name == "LAKESMITH_LOG" { "debug" } else { "trace" }.to_owned());
        assert_eq!(chosen_filter(&settings, both), ("LAKESMITH_LOG", "debug".to_owned()));
        let rust = |name: &str| (name == "RUST_LOG").then(|| "trace".to_owned());
        assert_eq!(chosen_filter(&settings, rust), ("RUST_LOG", "trace".to_owned()));
        assert_eq!(chosen_filter(&settings, |_| Some(" ".to_owned())), (SETTING, "info".to_owned()));
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_quoted_with_its_source() {
        let error = filter("lakesmith=loud").map_err(|error| invalid("RUST_LOG", "lakesmith=loud", error)).unwrap_err();
        assert_eq!(error.to_string(), "RUST_LOG is not a log filter: \"lakesmith=loud\"");
        assert!(error.hint_text().is_some());
    }

    #[derive(Clone, Default)]
    struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Lines;
        fn make_writer(&self) -> Lines {
            self.clone()
        }
    }

    /// The lines that a filter lets through.
    fn logged(directives: &str, narrate: impl FnOnce()) -> String {
        let lines = Lines::default();
        let layer =
            tracing_subscriber::fmt::layer().compact().with_ansi(false).with_timer(Milliseconds).with_writer(lines.clone());
        let subscriber = tracing_subscriber::registry().with(filter(directives).unwrap()).with(Counter).with(layer);
        tracing::subscriber::with_default(subscriber, narrate);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn libraries_that_narrate_are_quiet_until_named_and_warnings_are_counted() {
        let narrate = || {
            tracing::info!(target: "iceberg::catalog", "planning");
            tracing::warn!(target: "hdfs_native::file", "dropped");
            tracing::debug!(target: "lakesmith::table", rows = 3, "committed");
            tracing::warn!(target: "lakesmith::table", "slow");
        };
        let before = tally();
        let text = logged("debug", narrate);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("committed rows=3") && text.contains("WARN"), "{text}");
        assert!(tally().warnings > before.warnings);
        assert_eq!(logged("info", narrate).lines().count(), 1);
        assert!(logged("warn,iceberg=info", narrate).contains("planning"));
    }
}
