//! `lakesmith wait`: until a table is complete up to a time, so that a scheduler needs no guess.

use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};

use super::global::GlobalArguments;
use super::{Outcome, page};
use crate::catalog::Lakehouse;
use crate::completeness::format_instant;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::query::complete::{Layer, Names, Watch};
use crate::retry;

/// Wait until a table is complete up to a time
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith wait silver --until \"2025-01-01 12:00\" --timeout 15m
  lakesmith wait gold_amazon_sales_aggregated --until 2025-01-01T12:00:00Z && ./hourly-report
  lakesmith wait gold --until now              all that was sent before this moment
  lakesmith wait bronze --until -5m --timeout 0s   is it at most five minutes behind?

Complete up to T: every record with a timestamp before T is in the table. It is exact if the topic
has message.timestamp.type=LogAppendTime; otherwise it holds for records that come at most
pipeline.allowed_disorder late. The time is behind the clock by that, and by up to a minute more
while nothing is sent (pipeline.completeness_interval).

The exit code is 0 when the time is reached, 1 if it is not within --timeout. Times are in UTC.")]
pub struct Arguments {
    /// Layer (bronze, silver, gold) or table
    table: String,
    /// 2025-01-01T12:00:00Z, 2025-01-01 12:00, now, or so long ago: -5m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: String,
    /// Longest wait, for example 90s or 1h; without it as long as it takes
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

/// Between two looks, which are one call each to the metastore.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub async fn run(global: &GlobalArguments, arguments: Arguments) -> Result<Outcome> {
    let until = instant(&arguments.until, Utc::now()).ok_or_else(|| {
        Error::config(format!("--until {}: this is no time", arguments.until))
            .hint("for example 2025-01-01T12:00:00Z, \"2025-01-01 12:00\", now, or -5m")
    })?;
    let config = global.pipeline()?.config;
    let (names, layer) = named(&config, &arguments.table)?;
    let lakehouse = Lakehouse::open(&config.metastore, &config.storage, &config.catalog).await?;
    let waited = wait(Watch::new(lakehouse.catalog(), names, layer), until.timestamp_millis(), arguments.timeout).await;
    lakehouse.close().await;
    page::print(&waited?)?;
    Ok(Outcome::Done)
}

async fn wait(mut watch: Watch, until_ms: i64, timeout: Option<Duration>) -> Result<String> {
    let began = Instant::now();
    loop {
        // A metastore that is away for a while is no answer.
        let (reached_ms, failure) = match watch.until_ms().await {
            Ok(reached_ms) => (reached_ms, None),
            Err(error) if error.kind() == Kind::Transient => (None, Some(error)),
            Err(error) => return Err(error),
        };
        if let Some(reached_ms) = reached_ms.filter(|reached_ms| *reached_ms >= until_ms) {
            return Ok(format!("{} is complete up to {}", watch.name(), format_instant(reached_ms)));
        }
        let left = timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
        match (left, failure) {
            (Some(Duration::ZERO), Some(error)) => return Err(error.context(format!("{} could not be looked at", watch.name()))),
            (Some(Duration::ZERO), None) => return Err(too_late(&watch, reached_ms, until_ms).await),
            (left, _) => retry::sleep(left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY))).await,
        }
    }
}

async fn too_late(watch: &Watch, reached_ms: Option<i64>, until_ms: i64) -> Error {
    let name = watch.name();
    let far = match reached_ms {
        Some(reached_ms) => {
            format!("{name} is complete up to {}, not to {}", format_instant(reached_ms), format_instant(until_ms))
        }
        None => format!("{name} does not state yet up to which time it is complete"),
    };
    let error = match watch.held_back_by().await {
        Ok(Some(why)) => Error::failed(format!("{far}: {why}")),
        Ok(None) | Err(_) => Error::failed(far),
    };
    error.hint("is the pipeline running? raise --timeout, or see how far each table is with `lakesmith offsets show`")
}

/// The table that a layer or a table's name stands for, and what it depends on.
fn named(config: &Config, named: &str) -> Result<(Names, Layer)> {
    let table = named.split_once('.').map_or(named, |(_, table)| table).to_lowercase();
    let is = |layer: &str, name: &str| named == layer || table == name.to_lowercase();
    let golds = || config.gold.iter().map(|gold| gold.table.clone());
    let gold = match named {
        "gold" if config.gold.len() == 1 => golds().next(),
        _ => golds().find(|gold| gold.to_lowercase() == table),
    };
    let layer = if is("bronze", &config.bronze.table) {
        Layer::Bronze
    } else if is("silver", &config.silver.table) {
        Layer::Silver
    } else if gold.is_some() {
        Layer::Gold
    } else {
        let known: Vec<_> = [config.bronze.table.clone(), config.silver.table.clone()].into_iter().chain(golds()).collect();
        return Err(Error::config(format!("{named} is no table of this pipeline that states its time"))
            .hint(format!("name one of {}; rejected records follow silver", known.join(", "))));
    };
    let (bronze, silver) = (config.bronze.table.clone(), config.silver.table.clone());
    let database = config.tables.database.clone();
    let (bronze_format, silver_format) = (config.bronze.format, config.silver.format);
    Ok((Names { database, bronze, bronze_format, silver, silver_format, gold: gold.unwrap_or_default() }, layer))
}

/// The instant that a text stands for, in UTC.
pub(super) fn instant(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if text == "now" {
        return Some(now);
    }
    if let Some(ago) = text.strip_prefix('-') {
        return now.checked_sub_signed(chrono::Duration::from_std(humantime::parse_duration(ago).ok()?).ok()?);
    }
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Some(instant.with_timezone(&Utc));
    }
    let local = text.trim_end_matches('Z').replace('T', " ");
    let with_time =
        ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"].iter().find_map(|form| NaiveDateTime::parse_from_str(&local, form).ok());
    let midnight = || NaiveDate::parse_from_str(&local, "%Y-%m-%d").ok().and_then(|day| day.and_hms_opt(0, 0, 0));
    with_time.or_else(midnight).map(|instant| instant.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_utc_in_the_forms_that_people_write() {
        let now = DateTime::parse_from_rfc3339("2025-01-01T12:00:00Z").unwrap().with_timezone(&Utc);
        for (text, wanted) in [
            ("now", "2025-01-01T12:00:00.000Z"),
            ("-5m", "2025-01-01T11:55:00.000Z"),
            ("2025-01-01T13:00:00+01:00", "2025-01-01T12:00:00.000Z"),
            ("2025-01-01 12:30", "2025-01-01T12:30:00.000Z"),
            ("2025-01-01T12:30", "2025-01-01T12:30:00.000Z"),
            ("2025-01-01 12:30:05.5", "2025-01-01T12:30:05.500Z"),
            ("2025-01-02", "2025-01-02T00:00:00.000Z"),
        ] {
            assert_eq!(
                instant(text, now).map(|instant| format_instant(instant.timestamp_millis())).as_deref(),
                Some(wanted),
                "{text}"
            );
        }
        for text in ["", "soon", "-", "-5 parsecs", "12:00", "2025-13-01"] {
            assert_eq!(instant(text, now), None, "{text}");
        }
    }

    #[test]
    fn layers_and_tables_are_named_in_either_way() {
        let mut config = Config::default();
        (config.bronze.table, config.silver.table) = ("b".into(), "s".into());
        config.gold =
            ["g1", "g2"].map(|table| crate::gold::settings::GoldSettings { table: table.into(), ..Default::default() }).into();
        let layer = |name: &str| named(&config, name).map(|(names, layer)| (layer, names.gold));
        assert_eq!(layer("bronze").unwrap().0, Layer::Bronze);
        assert_eq!(layer("datalake.S").unwrap().0, Layer::Silver);
        assert_eq!(layer("g2").unwrap(), (Layer::Gold, "g2".to_owned()));
        for name in ["gold", "rejected", "x"] {
            assert_eq!(layer(name).unwrap_err().kind(), Kind::Config, "{name}");
        }
    }
}
