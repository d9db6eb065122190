//! The Kafka source, the producer and the topic commands against a real broker, whose address is in `KAFKA_BROKER`.

pub mod broker;
mod consume;
mod data_loss;
mod feed;
mod group;
mod positions;
