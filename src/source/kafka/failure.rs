//! Why a topic can't be read on, in words for the person who must decide.

use crate::checkpoint::{OffsetRange, PartitionId};
use crate::error::Error;

/// Something that waiting does not mend.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// Kafka does not have the next offset; `range` is what it has, if it has the partition.
    OutOfRange {
        partition: PartitionId,
        next: i64,
        range: Option<OffsetRange>,
    },
    /// The topic has another id than when it was opened.
    Recreated {
        now: Option<String>,
    },
    Refused {
        reason: String,
    },
    /// The consumer group takes this member no more.
    Expelled {
        reason: String,
    },
}

impl Failure {
    pub fn error(&self, topic: &str, topic_id: Option<&str>) -> Error {
        match self {
            Self::OutOfRange { partition, next, range } => {
                let place = format!("offset {next} of topic {topic}, partition {partition}");
                let dropped = range.is_some_and(|range| *next < range.start);
                let message = match range {
                    Some(range) if *next < range.start => {
                        let gone = range.start - next;
                        format!("Kafka no longer has {place}: the earliest available is {}, {gone} offsets are gone", range.start)
                    }
                    Some(range) => format!("{place} lies beyond the end {}: the topic was truncated or created again", range.end),
                    None => format!("Kafka does not have {place}"),
                };
                Error::stop(message).hint(if dropped {
                    "set source.on_data_loss = \"skip\" to go on at the earliest one, with the gap in the table's offsets and in the log; or \
                     choose the offset yourself with `lakesmith offsets set`"
                } else {
                    "run `lakesmith offsets show`; `lakesmith offsets set` continues at an offset that Kafka has and records the gap"
                })
            }
            Self::Recreated { now } => {
                let (was, is) = (topic_id.unwrap_or("none"), now.as_deref().unwrap_or("none"));
                Error::stop(format!("topic {topic} was deleted and created again: its id was {was} and is {is}")).hint(
                    "run `lakesmith offsets show`, then `lakesmith offsets set --follow-topic` to read the new topic into the same tables",
                )
            }
            Self::Expelled { reason } => {
                Error::stop(format!("the consumer group of topic {topic} has expelled this process: {reason}"))
                    .hint("does another process have the same source.kafka.group_instance_id? each needs one of its own")
            }
            Self::Refused { reason } => Error::stop(format!("topic {topic} can't be read on: {reason}"))
                .hint("see that the topic exists and may be read; then start again, nothing is lost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_out_of_range_is_told_with_what_there_is() {
        let text = |next, range| Failure::OutOfRange { partition: 2, next, range }.error("sales", None).to_string();
        let range = Some(OffsetRange::new(10, 20));
        assert_eq!(
            text(7, range),
            "Kafka no longer has offset 7 of topic sales, partition 2: the earliest available is 10, 3 offsets are gone"
        );
        assert_eq!(
            text(21, range),
            "offset 21 of topic sales, partition 2 lies beyond the end 20: the topic was truncated or created again"
        );
        let hint = |next| Failure::OutOfRange { partition: 2, next, range }.error("sales", None).hint_text().map(str::to_owned);
        assert!(hint(7).unwrap().contains("source.on_data_loss"));
        assert!(!hint(21).unwrap().contains("source.on_data_loss"), "skipping is no way out of a truncated topic");
        assert_eq!(text(21, None), "Kafka does not have offset 21 of topic sales, partition 2");
    }
}
