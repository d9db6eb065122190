//! How far a table has come: the checkpoint in its snapshots' summaries and in its properties, and whether the two agree.
//!
//! Every snapshot of ours carries the checkpoint after it in its summary; the same metadata change sets the table properties. The
//! summaries are the history and follow the table when somebody rolls it back; the properties survive the expiry of snapshots and the
//! snapshots of other engines. So a property that differs from the newest summary in the current snapshot's ancestry means that the
//! table went back, or was replaced, behind our back, and only a person can say what is in it.
//!
//! | property | newest summary | what it means |
//! |---|---|---|
//! | none | none | new table; with records in it: not ours, stop |
//! | *p* | *s* = *p* | the usual |
//! | *p* | *s* ≠ *p* | stop, unless `lakesmith offsets` set *p* knowing that very snapshot |
//! | *p* | none, ancestry cut by expiry | *p* |
//! | *p* | none, ancestry complete | the table was emptied or replaced: stop if *p* has records |
//! | none | *s* | somebody removed the property: stop |

use std::collections::{BTreeMap, HashMap};

use iceberg::TableIdent;
use iceberg::spec::{SnapshotRef, TableMetadata};
use uuid::Uuid;

use super::{InputRef, Origin};
use crate::checkpoint::{Checkpoint, Delta, format_positions, parse_positions};
use crate::completeness::{self, PARTITION_TIMES};
use crate::error::{Error, Result};

/// What all our entries in summaries and properties begin with.
pub(super) const PREFIX: &str = "lakesmith.";
/// In the summary of every snapshot of ours: the id of the batch it brought.
pub const COMMIT_ID: &str = "lakesmith.commit-id";
/// Silver's note with where rejected stands once it holds all that silver rejected until then. It says something of each topic partition, so a batch
/// speaks for its own partitions only: what the table notes of others stays, because they may be another writer's.
pub const REJECTED_POSITIONS: &str = "lakesmith.rejected-positions";
/// Which process wrote a batch, for a person.
pub const WRITER: &str = "lakesmith.writer";
const POSITIONS: &str = "lakesmith.positions";
const BATCH: &str = "lakesmith.batch";
const TOPIC: &str = "lakesmith.topic";
const TOPIC_ID: &str = "lakesmith.topic-id";
const CLUSTER_ID: &str = "lakesmith.cluster-id";
const INPUT_TABLE_UUID: &str = "lakesmith.input-table-uuid";
const INPUT_SNAPSHOT: &str = "lakesmith.input-snapshot";
/// The commit id of the last replacement of rows, which may have left the history by now.
pub(super) const REPLACEMENT: &str = "lakesmith.replacement";
/// Set by `lakesmith offsets`: the newest snapshot of ours (or `none`) that the positions were set over.
const POSITIONS_SET_OVER: &str = "lakesmith.positions-set-over";
const NONE: &str = "none";

const HINT: &str = "look with `lakesmith offsets show`, then `lakesmith offsets accept`, `rebuild` or `set`";

/// The two sides of the comparison, as `lakesmith offsets show` prints them.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// The checkpoint in the table's properties.
    pub property: Option<Checkpoint>,
    /// The newest snapshot of ours in the current snapshot's ancestry, and the checkpoint in its summary.
    pub summary: Option<(i64, Checkpoint)>,
    /// The property was set by a person who knew that snapshot.
    set_over: Option<String>,
    /// The ancestry reaches the table's first snapshot (or the table has none): nothing was expired from it.
    complete: bool,
    has_records: bool,
}

/// A batch's marks: what goes into the summary of its snapshot, and the properties set and removed with it.
pub(crate) struct Marks {
    pub summary: HashMap<String, String>,
    pub properties: HashMap<String, String>,
    pub removed: Vec<String>,
}

impl Progress {
    pub fn read(metadata: &TableMetadata) -> Result<Self> {
        let property = checkpoint(metadata.properties())?;
        let ancestry = Ancestry::of(metadata);
        let newest = ancestry.snapshots.iter().find(|snapshot| snapshot.summary().additional_properties.contains_key(POSITIONS));
        let summary = match newest {
            None => None,
            Some(snapshot) => checkpoint(&snapshot.summary().additional_properties)?.map(|found| (snapshot.snapshot_id(), found)),
        };
        let counted = metadata.current_snapshot().map(|snapshot| snapshot.summary().additional_properties.get("total-records"));
        Ok(Self {
            property,
            summary,
            set_over: metadata.properties().get(POSITIONS_SET_OVER).cloned(),
            complete: ancestry.complete,
            // A snapshot that doesn't count its records may have some.
            has_records: counted.is_some_and(|count| count.is_none_or(|count| count != "0")),
        })
    }

    /// The table's checkpoint; none for a table that never held a record of ours. Stops at contradictions.
    pub fn checkpoint(&self, table: &TableIdent) -> Result<Option<Checkpoint>> {
        let stop = |found: String| Err(Error::stop(format!("table {table}: {found}")).hint(HINT));
        let newest = self.summary.as_ref().map_or_else(|| NONE.to_owned(), |(id, _)| id.to_string());
        let set_by_person = self.set_over.as_ref() == Some(&newest);
        match (&self.property, &self.summary) {
            (None, None) if self.has_records => stop("it holds records, but no offsets that lakesmith has read".to_owned()),
            (None, None) => Ok(None),
            (Some(property), Some((_, summary))) if property == summary || set_by_person => Ok(Some(property.clone())),
            (Some(property), Some((id, summary))) => stop(format!(
                "its properties say offsets {}, but its newest snapshot of lakesmith, {id}, says {}: was the table rolled back?",
                property.positions(),
                summary.positions()
            )),
            (Some(property), None) if !self.complete || set_by_person || property.records() == 0 => Ok(Some(property.clone())),
            (Some(property), None) => stop(format!(
                "its properties say offsets {}, but no snapshot of it is lakesmith's: was it emptied or replaced?",
                property.positions()
            )),
            (None, Some((id, summary))) => stop(format!(
                "its snapshot {id} says offsets {}, but its property {POSITIONS} is gone: did somebody remove it?",
                summary.positions()
            )),
        }
    }
}

/// The marks of a batch after which the table stands at `after`.
pub(crate) fn marks(
    after: &Checkpoint,
    delta: &Delta,
    commit_id: Uuid,
    input: Option<&InputRef>,
    extra: &BTreeMap<String, String>,
    current: &HashMap<String, String>,
) -> Result<Marks> {
    let mut both = position_marks(after);
    both.insert(COMMIT_ID.to_owned(), commit_id.to_string());
    if let Some(input) = input {
        both.insert(INPUT_TABLE_UUID.to_owned(), input.table_uuid.to_string());
        both.extend(input.snapshot_id.map(|id| (INPUT_SNAPSHOT.to_owned(), id.to_string())));
    }
    let mut extra = extra.clone();
    if let Some(note) = extra.get_mut(REJECTED_POSITIONS) {
        *note = with_those_of_others(note, delta, current.get(REJECTED_POSITIONS))?;
    }
    let (ours, plain): (Vec<_>, Vec<_>) = extra.iter().partition(|(key, _)| key.starts_with(PREFIX));
    let (set, unset): (Vec<_>, Vec<_>) = ours.into_iter().partition(|(_, value)| !value.is_empty());
    both.extend(set.into_iter().map(|(key, value)| (key.clone(), value.clone())));
    completeness::keep_later(&mut both, current);
    let mut summary = both.clone();
    // Only the last one counts, and history would be twice as large with them.
    summary.remove(PARTITION_TIMES);
    summary.insert(BATCH.to_owned(), delta.to_string());
    summary.extend(plain.into_iter().map(|(key, value)| (key.clone(), value.clone())));
    let mut removed: Vec<_> = unset.into_iter().map(|(key, _)| key.clone()).collect();
    removed.push(POSITIONS_SET_OVER.to_owned());
    removed.retain(|key| current.contains_key(key));
    Ok(Marks { summary, properties: both, removed })
}

/// The marks of a replacement of rows after which the table stands at `after`: where it stood, with other counts.
pub(super) fn replacement_marks(
    after: &Checkpoint,
    commit_id: Uuid,
    extra: &BTreeMap<String, String>,
    current: &HashMap<String, String>,
) -> Marks {
    let mut properties = position_marks(after);
    let mut summary = properties.clone();
    summary.insert(COMMIT_ID.to_owned(), commit_id.to_string());
    summary.extend(extra.iter().map(|(key, value)| (key.clone(), value.clone())));
    // The newest batch's commit id stays the table's: whoever lost its answer asks for that one.
    properties.insert(REPLACEMENT.to_owned(), commit_id.to_string());
    let removed = current.contains_key(POSITIONS_SET_OVER).then(|| POSITIONS_SET_OVER.to_owned());
    Marks { summary, properties, removed: removed.into_iter().collect() }
}

/// A note by topic partition of a batch, with what the table notes of partitions that the batch has nothing of; empty for none.
fn with_those_of_others(note: &str, delta: &Delta, current: Option<&String>) -> Result<String> {
    let read = |text: &str| {
        let unreadable = || Error::stop(format!("property {REJECTED_POSITIONS} is unreadable: {text}")).hint(HINT);
        if text.is_empty() { Ok(BTreeMap::new()) } else { parse_positions(text).map_err(|error| unreadable().caused_by(error)) }
    };
    let mut all = read(current.map_or("", String::as_str))?;
    all.retain(|partition, _| !delta.partitions.contains_key(partition));
    all.extend(read(note)?.into_iter().filter(|(partition, _)| delta.partitions.contains_key(partition)));
    Ok(if all.is_empty() { String::new() } else { format_positions(&all) })
}

/// The properties by which a person sets a table's positions, over the newest snapshot of ours that `found` shows.
pub(super) fn set_by_person(found: &Progress, positions: &Checkpoint) -> HashMap<String, String> {
    let mut properties = position_marks(positions);
    let newest = found.summary.as_ref().map_or_else(|| NONE.to_owned(), |(id, _)| id.to_string());
    properties.insert(POSITIONS_SET_OVER.to_owned(), newest);
    properties
}

fn position_marks(checkpoint: &Checkpoint) -> HashMap<String, String> {
    let mut marks = HashMap::from([(TOPIC.to_owned(), checkpoint.topic.clone()), (POSITIONS.to_owned(), checkpoint.positions())]);
    marks.extend(checkpoint.topic_id.clone().map(|id| (TOPIC_ID.to_owned(), id)));
    marks.extend(checkpoint.cluster_id.clone().map(|id| (CLUSTER_ID.to_owned(), id)));
    marks
}

/// The checkpoint among a summary's or a table's properties.
pub(crate) fn checkpoint(properties: &HashMap<String, String>) -> Result<Option<Checkpoint>> {
    let Some(text) = properties.get(POSITIONS) else { return Ok(None) };
    let unreadable = |what: &str| Error::stop(format!("the table's offsets cannot be read: {what}")).hint(HINT);
    let partitions = parse_positions(text).map_err(|error| unreadable(&error.to_string()))?;
    let topic = properties.get(TOPIC).cloned().ok_or_else(|| unreadable(&format!("{TOPIC} is missing")))?;
    let (topic_id, cluster_id) = (properties.get(TOPIC_ID).cloned(), properties.get(CLUSTER_ID).cloned());
    Ok(Some(Checkpoint { topic, topic_id, cluster_id, partitions }))
}

/// The input of a derived table, by its properties.
pub(super) fn input(properties: &HashMap<String, String>) -> Result<Option<InputRef>> {
    let Some(uuid) = properties.get(INPUT_TABLE_UUID) else { return Ok(None) };
    let table_uuid = Uuid::parse_str(uuid)
        .map_err(|error| Error::stop(format!("property {INPUT_TABLE_UUID} is not a uuid: {uuid}")).hint(HINT).caused_by(error))?;
    Ok(Some(InputRef { table_uuid, snapshot_id: properties.get(INPUT_SNAPSHOT).and_then(|id| id.parse().ok()) }))
}

/// Stops if a derived table was computed from another table than its input of now.
pub(super) fn ensure_same_input(table: &TableIdent, known: Option<&InputRef>, input: Option<&InputRef>) -> Result<()> {
    let (Some(known), Some(input)) = (known, input) else { return Ok(()) };
    if known.table_uuid == input.table_uuid {
        return Ok(());
    }
    let (known, found) = (known.table_uuid, input.table_uuid);
    Err(Error::stop(format!("table {table} was computed from the table with uuid {known}, and its input now has uuid {found}"))
        .hint("was the input dropped and created again? write to another table, or see `lakesmith offsets show`"))
}

/// Stops if the table's records come from another topic or cluster than `origin`. An id that one side doesn't know proves nothing.
pub fn ensure_same_source(table: &TableIdent, known: &Checkpoint, origin: &Origin) -> Result<()> {
    let differs = |a: &Option<String>, b: &Option<String>| matches!((a, b), (Some(a), Some(b)) if a != b);
    let text = |id: &Option<String>| id.clone().unwrap_or_default();
    let what = if known.topic != origin.topic {
        format!("topic {}, not of {}", known.topic, origin.topic)
    } else if differs(&known.cluster_id, &origin.cluster_id) {
        let topic = &known.topic;
        format!("topic {topic} of cluster {}, not of cluster {}", text(&known.cluster_id), text(&origin.cluster_id))
    } else if differs(&known.topic_id, &origin.topic_id) {
        let (topic, known, found) = (&known.topic, text(&known.topic_id), text(&origin.topic_id));
        format!("topic {topic} with id {known}, and the topic now has id {found}: it was deleted and created again")
    } else {
        return Ok(());
    };
    Err(Error::stop(format!("table {table} holds records of {what}"))
        .hint("write to another table, or make the table follow the new topic with `lakesmith offsets set`"))
}

impl Origin {
    /// The checkpoint of a table that has read nothing of this topic.
    pub(crate) fn start(&self) -> Checkpoint {
        Checkpoint::start(self.topic.clone(), self.topic_id.clone(), self.cluster_id.clone())
    }

    /// What a batch of this topic is put on: where the table stands, with the ids that it did not know yet.
    pub(super) fn base(&self, known: Option<Checkpoint>) -> Checkpoint {
        let mut base = known.unwrap_or_else(|| self.start());
        base.topic_id = base.topic_id.or_else(|| self.topic_id.clone());
        base.cluster_id = base.cluster_id.or_else(|| self.cluster_id.clone());
        base
    }
}

/// The current snapshot and its ancestors, newest first, as far as they are retained.
pub(super) struct Ancestry<'a> {
    pub snapshots: Vec<&'a SnapshotRef>,
    /// The last one is the table's first snapshot: none is missing.
    pub complete: bool,
}

impl<'a> Ancestry<'a> {
    pub fn of(metadata: &'a TableMetadata) -> Self {
        let mut snapshots = Vec::new();
        let mut next = metadata.current_snapshot_id();
        while let Some(id) = next {
            // A cycle in foreign metadata must not hang us.
            let Some(snapshot) = metadata.snapshot_by_id(id).filter(|_| snapshots.len() <= metadata.snapshots().len()) else {
                return Self { snapshots, complete: false };
            };
            snapshots.push(snapshot);
            next = snapshot.parent_snapshot_id();
        }
        Self { snapshots, complete: true }
    }

    /// The snapshot of the batch with that commit id.
    pub fn committed(&self, commit_id: Uuid) -> Option<&'a SnapshotRef> {
        let id = commit_id.to_string();
        self.snapshots.iter().find(|snapshot| snapshot.summary().additional_properties.get(COMMIT_ID) == Some(&id)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Coverage, OffsetRange};
    use crate::error::Kind;

    fn at(next: i64) -> Checkpoint {
        let mut checkpoint = Checkpoint::start("sales", Some("id1".into()), Some("c1".into()));
        checkpoint.partitions.insert(0, Coverage { range: OffsetRange::new(0, next), records: next as u64 });
        checkpoint
    }

    fn table() -> TableIdent {
        TableIdent::from_strs(["db", "t"]).unwrap()
    }

    fn progress(property: Option<i64>, summary: Option<i64>) -> Progress {
        Progress { property: property.map(at), summary: summary.map(|next| (7, at(next))), complete: true, ..Progress::default() }
    }

    #[test]
    fn agreement_is_the_checkpoint_and_contradiction_stops() {
        assert_eq!(progress(None, None).checkpoint(&table()).unwrap(), None);
        assert_eq!(progress(Some(5), Some(5)).checkpoint(&table()).unwrap(), Some(at(5)));
        for (property, summary) in [(Some(5), Some(3)), (None, Some(3)), (Some(5), None)] {
            let error = progress(property, summary).checkpoint(&table()).unwrap_err();
            assert_eq!(error.kind(), Kind::Stop, "{property:?} {summary:?}");
            assert!(error.hint_text().unwrap().contains("offsets show"));
        }
    }

    #[test]
    fn records_without_offsets_stop() {
        let foreign = Progress { has_records: true, ..progress(None, None) };
        assert!(foreign.checkpoint(&table()).unwrap_err().to_string().contains("no offsets"));
    }

    #[test]
    fn the_property_outlives_expired_snapshots() {
        let expired = Progress { complete: false, ..progress(Some(5), None) };
        assert_eq!(expired.checkpoint(&table()).unwrap(), Some(at(5)));
    }

    #[test]
    fn what_a_person_set_counts_until_another_snapshot_of_ours_is_the_newest() {
        let over = |snapshot: &str| Progress { set_over: Some(snapshot.into()), ..progress(Some(5), Some(3)) };
        assert_eq!(over("7").checkpoint(&table()).unwrap(), Some(at(5)));
        assert!(over("6").checkpoint(&table()).is_err());
        let emptied = Progress { set_over: Some("none".into()), ..progress(Some(5), None) };
        assert_eq!(emptied.checkpoint(&table()).unwrap(), Some(at(5)));
    }

    #[test]
    fn marks_are_read_back_and_empty_values_remove() {
        let input = InputRef { table_uuid: Uuid::from_u128(9), snapshot_id: Some(4) };
        let extra = BTreeMap::from([
            ("lakesmith.pending".to_owned(), "d;0:1+2".to_owned()),
            ("lakesmith.done".to_owned(), String::new()),
            ("engine-name".to_owned(), "x".to_owned()),
        ]);
        let current = HashMap::from([("lakesmith.done".to_owned(), "1".to_owned())]);
        let marks = marks(&at(5), &Delta::default(), Uuid::from_u128(1), Some(&input), &extra, &current).unwrap();
        assert_eq!(checkpoint(&marks.summary).unwrap(), Some(at(5)));
        assert_eq!(checkpoint(&marks.properties).unwrap(), Some(at(5)));
        assert_eq!(super::input(&marks.properties).unwrap(), Some(input));
        assert_eq!(marks.removed, ["lakesmith.done"]);
        assert!(marks.summary.contains_key("engine-name") && !marks.properties.contains_key("engine-name"));
    }

    #[test]
    fn a_batch_notes_nothing_about_the_partitions_of_others() {
        let noted = |batch: &str, pending: &str, current: Option<&str>| {
            let extra = BTreeMap::from([(REJECTED_POSITIONS.to_owned(), pending.to_owned())]);
            let current = current.map(|note| (REJECTED_POSITIONS.to_owned(), note.to_owned())).into_iter().collect();
            let marks = marks(&at(5), &batch.parse().unwrap(), Uuid::from_u128(1), None, &extra, &current).unwrap();
            (marks.properties.get(REJECTED_POSITIONS).cloned(), marks.removed)
        };
        let (removed, kept) = (vec![REJECTED_POSITIONS.to_owned()], Vec::new());
        assert_eq!(noted("d;0:0+5", "d;0:0+5-4", None), (Some("d;0:0+5-4".into()), kept.clone()));
        assert_eq!(noted("d;0:5+5", "", Some("d;0:0+5-4;1:2+3-1")), (Some("d;1:2+3-1".into()), kept.clone()));
        assert_eq!(noted("d;0:5+5", "d;0:5+5-4", Some("d;1:2+3-1")), (Some("d;0:5+5-4;1:2+3-1".into()), kept));
        // What it knows of them may be out of date.
        assert_eq!(noted("d;0:5+5", "d;0:0+10-9;1:0+1", Some("d;1:2+3-1")), (Some("d;0:0+10-9;1:2+3-1".into()), Vec::new()));
        assert_eq!(noted("d;0:5+5", "", Some("d;0:0+5-4")), (None, removed));
        let broken = HashMap::from([(REJECTED_POSITIONS.to_owned(), "?".to_owned())]);
        let extra = BTreeMap::from([(REJECTED_POSITIONS.to_owned(), String::new())]);
        assert!(marks(&at(5), &Delta::default(), Uuid::from_u128(1), None, &extra, &broken).is_err());
    }

    #[test]
    fn another_topic_cluster_or_recreated_topic_stops() {
        let origin = Origin { topic: "sales".into(), topic_id: Some("id1".into()), cluster_id: None };
        assert!(ensure_same_source(&table(), &at(5), &origin).is_ok());
        let recreated = Origin { topic_id: Some("id2".into()), ..origin.clone() };
        assert!(ensure_same_source(&table(), &at(5), &recreated).unwrap_err().to_string().contains("created again"));
        let elsewhere = Origin { cluster_id: Some("c2".into()), ..origin.clone() };
        assert!(ensure_same_source(&table(), &at(5), &elsewhere).unwrap_err().to_string().contains("cluster c2"));
        let other = Origin { topic: "orders".into(), ..origin };
        assert!(ensure_same_source(&table(), &at(5), &other).is_err());
    }
}
