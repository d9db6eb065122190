use proptest::prelude::*;

use super::*;
use crate::checkpoint::OffsetRange;

const SECOND: Duration = Duration::from_secs(1);

fn at(next: &[(PartitionId, i64)]) -> Checkpoint {
    let coverage = |next: i64| Coverage { range: OffsetRange::new(0, next), records: next as u64 };
    let mut checkpoint = Checkpoint::start("sales", None, None);
    checkpoint.partitions = next.iter().map(|(partition, next)| (*partition, coverage(*next))).collect();
    checkpoint
}

fn sighting(at_ms: i64, ends: &[(PartitionId, i64)]) -> Sighting {
    Sighting { at_ms, ends: ends.iter().copied().collect() }
}

/// What follows from the highest timestamps of a batch and a sighting.
fn after(
    known: &Completeness,
    next: &[(PartitionId, i64)],
    highest: &[(PartitionId, i64)],
    seen: Option<&Sighting>,
) -> Completeness {
    let highest_ms = highest.iter().copied().collect();
    let evidence = Evidence { highest_ms: &highest_ms, sighting: seen, allowed_disorder: SECOND, now_ms: 100_000 };
    known.after(&at(next), &evidence)
}

#[test]
fn the_slowest_partition_less_the_disorder_is_the_tables_time() {
    let seen = sighting(90_000, &[(0, 50), (1, 50)]);
    let stated = after(&Completeness::default(), &[(0, 10), (1, 20)], &[(0, 70_000), (1, 40_000)], Some(&seen));
    assert_eq!(stated.until_ms, Some(39_000));
    assert_eq!(stated.slowest(&at(&[(0, 10), (1, 20)])), Some((1, Some(40_000))));
    // The other one goes on alone.
    assert_eq!(after(&stated, &[(0, 30), (1, 20)], &[(0, 80_000)], Some(&seen)).until_ms, Some(39_000));
}

#[test]
fn a_partition_at_its_end_counts_as_the_moment_of_the_sighting() {
    let seen = sighting(90_000, &[(0, 50), (1, 20)]);
    let stated = after(&Completeness::default(), &[(0, 10), (1, 20)], &[(0, 70_000), (1, 40_000)], Some(&seen));
    assert_eq!(stated.until_ms, Some(69_000));
    let idle = sighting(95_000, &[(0, 10), (1, 20)]);
    assert_eq!(after(&stated, &[(0, 10), (1, 20)], &[], Some(&idle)).until_ms, Some(94_000));
}

#[test]
fn nothing_is_stated_while_a_partition_is_unknown_or_nobody_has_looked() {
    let one = [(0, 10)];
    let stated = after(&Completeness::default(), &one, &[(0, 70_000)], Some(&sighting(90_000, &[(0, 10), (1, 0)])));
    assert_eq!(stated.until_ms, None, "records of partition 1 could be of any time");
    assert_eq!(after(&Completeness::default(), &one, &[(0, 70_000)], None).until_ms, None);
    // A partition that the table knows, but of whose records nothing was seen.
    let behind = sighting(90_000, &[(0, 10), (1, 5)]);
    let stated = after(&Completeness::default(), &[(0, 10), (1, 3)], &[(0, 70_000)], Some(&behind));
    assert_eq!((stated.until_ms, stated.slowest(&at(&[(0, 10), (1, 3)]))), (None, Some((1, None))));
}

#[test]
fn a_timestamp_from_the_future_counts_as_the_present() {
    let seen = sighting(90_000, &[(0, 50)]);
    let stated = after(&Completeness::default(), &[(0, 10)], &[(0, i64::MAX)], Some(&seen));
    assert_eq!((stated.partitions[&0], stated.until_ms), (100_000, Some(89_000)));
}

#[test]
fn another_writers_later_statement_is_kept() {
    let text = |partitions: &[(PartitionId, i64)], until_ms| {
        let known = Completeness { partitions: partitions.iter().copied().collect(), until_ms };
        known.notes().into_iter().collect::<HashMap<_, _>>()
    };
    let mut marks = text(&[(0, 5), (1, 9)], Some(4));
    keep_later(&mut marks, &text(&[(0, 7), (2, 3)], Some(2)));
    assert_eq!(Completeness::of(&marks), Completeness { partitions: [(0, 7), (1, 9), (2, 3)].into(), until_ms: Some(4) });
    // A derived table has no partitions of its own, and a commit that knows nothing new repeats what stands.
    let mut nothing = HashMap::new();
    keep_later(&mut nothing, &HashMap::from([(COMPLETE_UNTIL.to_owned(), "2025-01-01T12:00:00.000Z".to_owned())]));
    assert_eq!(nothing.into_iter().collect::<Vec<_>>(), [(COMPLETE_UNTIL.to_owned(), "2025-01-01T12:00:00.000Z".to_owned())]);
}

#[test]
fn times_of_a_thousand_partitions_fit_one_table_property() {
    let partitions: BTreeMap<_, _> =
        (0..1000).map(|partition| (partition, 1_735_732_800_000 + i64::from(partition) * 997)).collect();
    let text = format_times(&partitions);
    assert!(text.len() < 13_000, "{} bytes", text.len());
    assert_eq!(parse_times(&text), Some(partitions));
}

#[test]
fn what_nobody_wrote_is_not_read() {
    for text in ["", "q;0:1", "d;0", "d;0:-1", "d;a:1"] {
        assert_eq!(parse_times(text), None, "{text}");
    }
    assert_eq!(format_instant(1_735_732_800_000), "2025-01-01T12:00:00.000Z");
    assert_eq!(parse_instant("2025-01-01T12:00:00.000Z"), Some(1_735_732_800_000));
    assert_eq!(parse_instant("soon"), None);
}

/// A topic in which timestamps fall back by at most the allowed disorder, and what a reader of it sees.
#[derive(Debug, Clone)]
struct Step {
    partition: PartitionId,
    /// Records sent, each so much later than the clock's last tick, less a disorder.
    sent: Vec<i64>,
    /// How many of the partition's unread records are read.
    read: usize,
    look: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..3i32, prop::collection::vec(0..=1_000i64, 0..4), 0..5usize, any::<bool>());
    prop::collection::vec(step.prop_map(|(partition, sent, read, look)| Step { partition, sent, read, look }), 1..80)
}

proptest! {
    #[test]
    fn every_record_up_to_the_stated_time_is_in_the_table_and_the_time_never_goes_back(steps in steps(), announced in 1..=3i32) {
        let (mut clock, mut known) = (10_000i64, Completeness::default());
        let mut log: BTreeMap<PartitionId, Vec<i64>> = (0..announced).map(|partition| (partition, Vec::new())).collect();
        let mut next: BTreeMap<PartitionId, i64> = BTreeMap::new();
        for step in steps {
            clock += 50;
            // A record is stamped up to a second before it is sent, which is the allowed disorder.
            log.entry(step.partition).or_default().extend(step.sent.iter().map(|disorder| clock - disorder));
            let records = &log[&step.partition];
            let position = next.entry(step.partition).or_insert(0);
            let from = *position as usize;
            let to = (from + step.read).min(records.len());
            *position = to as i64;
            let highest: Vec<_> = records[from..to].iter().max().map(|highest| (step.partition, *highest)).into_iter().collect();
            let ends: Vec<_> = log.iter().map(|(partition, records)| (*partition, records.len() as i64)).collect();
            let seen = sighting(clock, &ends);
            let before = known.until_ms;
            let offsets: Vec<_> = next.iter().map(|(partition, next)| (*partition, *next)).collect();
            known = after(&known, &offsets, &highest, step.look.then_some(&seen));
            prop_assert!(known.until_ms >= before);
            if let Some(until_ms) = known.until_ms {
                for (partition, records) in &log {
                    let position = next.get(partition).copied().unwrap_or(0) as usize;
                    prop_assert!(records[position..].iter().all(|time| *time >= until_ms), "{until_ms} {partition} {records:?}");
                }
            }
            let properties = known.notes().into_iter().collect();
            prop_assert_eq!(&Completeness::of(&properties), &known);
        }
    }

    #[test]
    fn a_time_is_stated_as_soon_as_all_partitions_are_at_their_ends(ends in prop::collection::btree_map(0..9i32, 0..100i64, 1..9)) {
        let ends: Vec<_> = ends.into_iter().collect();
        let stated = after(&Completeness::default(), &ends, &[], Some(&sighting(50_000, &ends)));
        prop_assert_eq!(stated.until_ms, Some(49_000));
    }
}
