//! Amazon-like sales out of thin air: the same seed gives the same rows, messages and times on every machine.
//!
//! Columns, value ranges and shares are those of the public data set of 100,000 orders; amounts are exact to the cent. Every row
//! follows from the seed and its number alone, so any row can be made without the rows before it: that is what lets the source restart
//! at an offset. Row *n* is offset *n* ÷ *partitions* of partition *n* mod *partitions*.
//!
//! *Invariants*: settings that change any message are part of the topic id, so a table is never filled from two different generators.

pub mod catalogue;
mod defect;
mod draw;
mod generate;
mod sale;
mod source;

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use defect::Defect;
pub use generate::{GenerateFormat, GenerateOptions, GenerateSummary, generate};
pub use sale::COLUMNS;
pub use source::GeneratorSource;

use draw::{Draw, Purpose};
use sale::{ORDER_ID, Sale};

/// How dates are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DateFormat {
    /// 2023-07-17
    #[default]
    Iso,
    /// 17-07-2023, as a spreadsheet saves it.
    DayFirst,
}

impl DateFormat {
    fn text(self, date: NaiveDate) -> String {
        match self {
            Self::Iso => date.format("%Y-%m-%d").to_string(),
            Self::DayFirst => date.format("%d-%m-%Y").to_string(),
        }
    }
}

/// What a row is made for; a CSV row can't have all the defects that a message can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Csv,
    Message,
}

/// `[source.generator]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneratorSettings {
    /// Rows in all. Default: 100000.
    pub rows: u64,
    /// The same seed gives the same rows. Default: 42.
    pub seed: u64,
    /// Rows per second; 0 is as fast as possible. Default: 0.
    pub rate: f64,
    /// Share of bad messages, 0 to 1. Default: 0.001.
    pub bad_share: f64,
    /// Share of messages whose time lies up to two minutes before its neighbours', 0 to 1. Default: 0.01.
    pub late_share: f64,
    /// Time of the first message. Default: 2025-01-01T00:00:00Z.
    pub start: DateTime<Utc>,
    /// Time that the messages cover. Default: 3h.
    #[serde(with = "humantime_serde")]
    pub span: Duration,
    /// Topic partitions. Default: 3.
    pub partitions: u32,
    /// `iso` or `day-first`. Default: iso.
    pub date_format: DateFormat,
}

impl Eq for GeneratorSettings {}

impl Default for GeneratorSettings {
    fn default() -> Self {
        Self {
            rows: 100_000,
            seed: 42,
            rate: 0.0,
            bad_share: 0.001,
            late_share: 0.01,
            start: DateTime::from_timestamp(1_735_689_600, 0).unwrap_or_default(),
            span: Duration::from_secs(3 * 3_600),
            partitions: 3,
            date_format: DateFormat::Iso,
        }
    }
}

impl GeneratorSettings {
    pub fn validate(&self) -> Result<()> {
        for (name, share) in [("bad_share", self.bad_share), ("late_share", self.late_share)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::config(format!("source.generator.{name} is {share}, it must lie between 0 and 1")));
            }
        }
        if !self.rate.is_finite() || self.rate < 0.0 {
            return Err(Error::config(format!("source.generator.rate is {}, it must be 0 or more rows per second", self.rate)));
        }
        if self.partitions == 0 || self.partitions > 10_000 {
            return Err(Error::config(format!(
                "source.generator.partitions is {}, it must lie between 1 and 10000",
                self.partitions
            )));
        }
        if self.rows > i64::MAX as u64 / 2 || self.span > Duration::from_secs(100 * 366 * 86_400) {
            return Err(Error::config("source.generator.rows or source.generator.span is too large"));
        }
        Ok(())
    }

    /// Stands for everything that decides what a message is.
    pub fn content_id(&self) -> String {
        let without_rate = Self { rate: 0.0, ..self.clone() };
        let text = format!("sales 1 {without_rate:?}");
        format!("generator:{}", &blake3::hash(text.as_bytes()).to_hex()[..32])
    }

    /// The time of a row's message in microseconds: rows are spread evenly over the span, a few lie up to two minutes earlier.
    pub fn message_time_us(&self, row: u64) -> i64 {
        let span_us = self.span.as_micros();
        let even = self.start.timestamp_micros() + (u128::from(row) * span_us / u128::from(self.rows.max(1))) as i64;
        let mut draw = Draw::new(self.seed, Purpose::Time, row);
        let late_us =
            if self.late_share > 0.0 && draw.happens(self.late_share) { i64::from(draw.below(120_000)) * 1_000 } else { 0 };
        // Whole milliseconds, as Kafka keeps them; never before the fixed start.
        ((even - late_us) / 1_000 * 1_000).max(self.start.timestamp_micros())
    }

    /// The defect of a row's message, if it has one.
    pub fn defect(&self, row: u64) -> Option<Defect> {
        Defect::of(self.seed, row, self.bad_share, Dialect::Message)
    }
}

/// Makes the messages of a generator's rows, reusing its buffers.
#[derive(Debug)]
pub struct Messages {
    settings: GeneratorSettings,
    sale: Sale,
    key: String,
    value: Vec<u8>,
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
    pub timestamp_us: i64,
}

impl Messages {
    pub fn new(settings: &GeneratorSettings) -> Self {
        Self { settings: settings.clone(), sale: Sale::default(), key: String::new(), value: Vec::new() }
    }

    /// The message of a row.
    pub fn message(&mut self, row: u64) -> Message<'_> {
        let settings = &self.settings;
        self.sale.draw(settings.seed, row, settings.date_format);
        self.key.clone_from(&self.sale.cells[ORDER_ID]);
        self.value.clear();
        let present = match settings.defect(row) {
            None => {
                self.sale.write_json(&mut self.value);
                true
            }
            Some(defect) => defect.write_message(&mut self.sale, &mut self.value),
        };
        let timestamp_us = settings.message_time_us(row);
        Message { key: self.key.as_bytes(), value: present.then_some(&self.value), timestamp_us }
    }
}

#[cfg(test)]
mod tests;
