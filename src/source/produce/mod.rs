//! Feeds a topic: CSV rows as JSON messages, JSON lines as they are, or generated sales.
//!
//! *Invariants*: every message is acknowledged by all in-sync replicas, in order within a partition and without repetition (librdkafka's
//! idempotent producer); memory is bounded by its queue, which makes reading wait when the brokers are slower.
//!
//! *Failure*: librdkafka tries each message again for up to `message.timeout.ms`; the first message that fails for good ends the run, and
//! the summary says how many were delivered. *What may leak*: a run that is killed has delivered a part, and running it again delivers
//! that part twice; only a reader that counts keys can tell.

mod input;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use super::file::FileFormat;
use super::generator::GeneratorSettings;
use super::kafka::{Events, KafkaSettings};
use super::worker::{Stop, stoppable};
use crate::error::{Error, Result};

use input::{Input, Next};

/// Where the messages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProduceInput {
    /// A file; without a format, its ending decides.
    File {
        path: PathBuf,
        format: Option<FileFormat>,
    },
    StandardInput {
        format: FileFormat,
    },
    /// Keys, times and bad messages as the generator source has them.
    Generator(GeneratorSettings),
}

/// How fast messages are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Pace {
    #[default]
    AsFastAsPossible,
    /// Pause between two messages.
    Delay(Duration),
    /// Messages per second.
    Rate(f64),
}

impl Pace {
    /// How long after the beginning message number `sent` is due.
    fn due(self, sent: u64) -> Duration {
        match self {
            Self::AsFastAsPossible => Duration::ZERO,
            Self::Delay(delay) => delay.saturating_mul(u32::try_from(sent).unwrap_or(u32::MAX)),
            Self::Rate(rate) if rate > 0.0 => Duration::try_from_secs_f64(sent as f64 / rate).unwrap_or(Duration::MAX),
            Self::Rate(_) => Duration::ZERO,
        }
    }
}

/// What to do with a CSV row that is no message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnBadRow {
    /// Report it and go on.
    #[default]
    Skip,
    /// Send what came before it, then fail.
    Stop,
}

/// Message times other than the moment of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamps {
    pub start: DateTime<Utc>,
    /// Between one message and the next.
    pub step: Duration,
}

#[derive(Debug, Clone)]
pub struct ProduceOptions {
    pub kafka: KafkaSettings,
    pub topic: String,
    pub input: ProduceInput,
    /// Column (or JSON field) whose text becomes the key. Default: none, keys are null.
    pub key_column: Option<String>,
    /// CSV columns that become JSON numbers.
    pub numeric_columns: Vec<String>,
    pub pace: Pace,
    pub on_bad_row: OnBadRow,
    pub timestamps: Option<Timestamps>,
}

impl ProduceOptions {
    pub fn new(kafka: KafkaSettings, topic: impl Into<String>, input: ProduceInput) -> Self {
        Self {
            kafka,
            topic: topic.into(),
            input,
            key_column: None,
            numeric_columns: Vec::new(),
            pace: Pace::default(),
            on_bad_row: OnBadRow::default(),
            timestamps: None,
        }
    }
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProduceProgress {
    /// Messages acknowledged.
    pub delivered: u64,
    pub skipped: u64,
    /// Bytes of the input read, and its size where that is known.
    pub input_bytes: u64,
    pub input_bytes_total: Option<u64>,
    /// Messages in the input, where that is known.
    pub messages_total: Option<u64>,
}

/// What a run reports while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProduceEvent {
    Progress(ProduceProgress),
    /// A CSV row that is no message, by its line number.
    BadRow {
        line: u64,
        reason: String,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProduceSummary {
    /// Messages acknowledged by all in-sync replicas.
    pub sent: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Messages that were not acknowledged.
    pub failed: u64,
    /// Rows that were no messages.
    pub skipped: u64,
    pub elapsed: Duration,
    /// Why the run ended before the input did.
    pub failure: Option<String>,
}

/// Sends the whole input. An error means that nothing, or not the whole input before a bad row, could be sent; messages that brokers
/// refused are counted in the summary.
pub async fn produce(options: ProduceOptions, report: impl FnMut(ProduceEvent) + Send + 'static) -> Result<ProduceSummary> {
    options.kafka.validate()?;
    stoppable(move |stop| Run::new(options, Box::new(report))?.run(stop)).await
}

/// Counts what brokers acknowledge.
#[derive(Default)]
struct Deliveries {
    events: Events,
    delivered: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<String>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.events.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.events.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
                let bytes = message.key().map_or(0, <[u8]>::len) + message.payload().map_or(0, <[u8]>::len);
                self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err((error, _)) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                if let Ok(mut first) = self.first_failure.lock() {
                    first.get_or_insert_with(|| error.to_string());
                }
            }
        }
    }
}

/// Between two reports of progress.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// The shortest wait until a message is due, and so the most that one is late: thousands a second go in bursts instead of waiting each for
/// itself, which librdkafka, that counts in milliseconds, would do without a rest.
const WAIT_MIN: Duration = Duration::from_millis(5);

/// Messages between two looks at acknowledgements and the clock, when nothing makes the run wait.
const SERVE_EVERY: u64 = 256;

struct Run {
    options: ProduceOptions,
    report: Box<dyn FnMut(ProduceEvent) + Send>,
    producer: BaseProducer<Deliveries>,
    input: Input,
    began: Instant,
    reported: Instant,
    queued: u64,
    skipped: u64,
}

impl Run {
    fn new(options: ProduceOptions, report: Box<dyn FnMut(ProduceEvent) + Send>) -> Result<Self> {
        let input = Input::open(&options)?;
        let producer = options
            .kafka
            .producer()
            .create_with_context(Deliveries::default())
            .map_err(|error| Error::config("the Kafka producer could not be created").caused_by(error))?;
        let now = Instant::now();
        Ok(Self { options, report, producer, input, began: now, reported: now, queued: 0, skipped: 0 })
    }

    fn run(mut self, stop: &Stop) -> Result<ProduceSummary> {
        // A topic that is not there is said at once, not after every message has timed out.
        let metadata = self.producer.client().fetch_metadata(Some(&self.options.topic), self.options.kafka.request_timeout);
        let metadata = metadata.map_err(|error| {
            Error::transient(format!("no Kafka broker of {} answers", self.options.kafka.brokers))
                .caused_by(error)
                .hint("check the brokers' addresses")
        })?;
        if metadata.topics().iter().any(|topic| topic.error().is_some() || topic.partitions().is_empty()) {
            return Err(Error::failed(format!("topic {} does not exist", self.options.topic))
                .hint(format!("create it with `lakesmith topic create {}`", self.options.topic)));
        }
        let mut bad_row = None;
        while !stop.requested() && self.first_failure().is_none() {
            match self.input.next()? {
                Next::Message => self.send(stop)?,
                Next::End => break,
                Next::BadRow { line, reason } if self.options.on_bad_row == OnBadRow::Skip => {
                    self.skipped += 1;
                    (self.report)(ProduceEvent::BadRow { line, reason });
                }
                Next::BadRow { line, reason } => {
                    bad_row = Some(Error::failed(format!("line {line} of {} is no message: {reason}", self.input.name())));
                    break;
                }
            }
        }
        self.flush(stop);
        match bad_row {
            Some(error) => {
                Err(error.hint(format!("{} messages before it were sent; mend the row, or skip bad rows", self.summary().sent)))
            }
            None => Ok(self.summary()),
        }
    }

    /// Queues the message that the input holds, as soon as it is due and there is room.
    fn send(&mut self, stop: &Stop) -> Result<()> {
        let due = self.options.pace.due(self.queued);
        while !stop.requested() && self.began.elapsed() < due {
            let wait = due.saturating_sub(self.began.elapsed()).clamp(WAIT_MIN, REPORT_INTERVAL);
            self.serve(wait);
        }
        let timestamp_ms = match self.options.timestamps {
            Some(Timestamps { start, step }) => {
                Some(start.timestamp_millis().saturating_add((step.as_millis() as i64).saturating_mul(self.queued as i64)))
            }
            None => self.input.timestamp_ms(),
        };
        while !stop.requested() && self.first_failure().is_none() {
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.options.topic);
            (record.key, record.payload, record.timestamp) = (self.input.key(), self.input.value(), timestamp_ms);
            match self.producer.send(record) {
                Ok(()) => {
                    self.queued += 1;
                    if self.queued.is_multiple_of(SERVE_EVERY) {
                        self.serve(Duration::ZERO);
                    }
                    break;
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => self.serve(REPORT_INTERVAL),
                Err((error, _)) => {
                    let number = self.queued + self.skipped + 1;
                    return Err(
                        Error::failed(format!("message {number} of {} can't be sent", self.input.name())).caused_by(error)
                    );
                }
            }
        }
        Ok(())
    }

    /// Lets librdkafka report acknowledgements for as long as `wait`, and reports progress now and then.
    fn serve(&mut self, wait: Duration) {
        self.producer.poll(wait);
        if self.reported.elapsed() >= REPORT_INTERVAL {
            self.reported = Instant::now();
            self.report_progress();
        }
    }

    fn report_progress(&mut self) {
        let (input_bytes, input_bytes_total, messages_total) = self.input.extent();
        let delivered = self.producer.context().delivered.load(Ordering::Relaxed);
        let progress = ProduceProgress { delivered, skipped: self.skipped, input_bytes, input_bytes_total, messages_total };
        (self.report)(ProduceEvent::Progress(progress));
    }

    /// Waits until every queued message is delivered or has failed; librdkafka's message timeout bounds it.
    fn flush(&mut self, stop: &Stop) {
        while self.producer.in_flight_count() > 0 && !stop.requested() {
            // Without this a message lingers for others to join its batch.
            let _ = self.producer.flush(REPORT_INTERVAL);
            self.serve(Duration::ZERO);
        }
        self.report_progress();
    }

    fn first_failure(&self) -> Option<String> {
        let deliveries = self.producer.context();
        if deliveries.failed.load(Ordering::Relaxed) == 0 {
            return None;
        }
        deliveries.first_failure.lock().ok().and_then(|first| first.clone())
    }

    fn summary(&self) -> ProduceSummary {
        let deliveries = self.producer.context();
        let sent = deliveries.delivered.load(Ordering::Relaxed);
        ProduceSummary {
            sent,
            bytes: deliveries.bytes.load(Ordering::Relaxed),
            failed: self.queued.saturating_sub(sent),
            skipped: self.skipped,
            elapsed: self.began.elapsed(),
            failure: self.first_failure(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_fall_due_by_delay_or_rate() {
        assert_eq!(Pace::AsFastAsPossible.due(1_000), Duration::ZERO);
        assert_eq!(Pace::Delay(Duration::from_millis(500)).due(3), Duration::from_millis(1_500));
        assert_eq!(Pace::Rate(4.0).due(2), Duration::from_millis(500));
    }

    #[tokio::test]
    async fn without_brokers_or_input_nothing_is_tried() {
        let input = ProduceInput::File { path: "missing.csv".into(), format: None };
        let options = ProduceOptions::new(KafkaSettings::default(), "t", input.clone());
        assert_eq!(produce(options, |_| {}).await.unwrap_err().kind(), crate::Kind::Config);
        let options = ProduceOptions::new(KafkaSettings::with_brokers("127.0.0.1:1"), "t", input);
        assert!(produce(options, |_| {}).await.unwrap_err().to_string().contains("missing.csv"));
    }
}
