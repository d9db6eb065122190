//! Is the topic, or the file, there?

use super::Check;
use crate::pipeline::Definition;
use crate::source;
use crate::table::Origin;

const AREA: &str = "source";

/// Opens the source as a run does; what it is goes on to the tables.
pub(super) async fn check(definition: &Definition) -> (Vec<Check>, Option<Origin>) {
    let settings = &definition.source;
    let what = format!("topic {}", settings.topic);
    let source = match source::open(settings).await {
        Ok(source) => source,
        Err(error) => return (vec![Check::failed(AREA, what, &error)], None),
    };
    let identity = source.identity().clone();
    let origin = Origin { topic: identity.topic, topic_id: identity.topic_id, cluster_id: identity.cluster_id };
    let check = match source.watermarks().await {
        Ok(watermarks) => {
            let offsets: i64 = watermarks.values().map(|range| range.end - range.start).sum();
            let partitions = watermarks.len();
            let plural = if partitions == 1 { "" } else { "s" };
            Check::ok(AREA, what, format!("{partitions} partition{plural} with {offsets} offsets"))
        }
        Err(error) => Check::failed(AREA, what, &error),
    };
    (vec![check], Some(origin))
}
