//! The Kafka source, the producer and the topic commands against a real broker, whose address is in `KAFKA_BROKER`.

mod broker;
mod consume;
mod feed;
mod positions;
