//! Which topic partitions are this process's to commit. Pure.
//!
//! By default all are. In a group each process has a share, which changes while it runs; the tables hold all partitions nevertheless, so whoever
//! asks how far a table has come, or what it lacks, asks for the share alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::PartitionId;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Share {
    #[default]
    All,
    These(BTreeSet<PartitionId>),
}

impl Share {
    /// What a map says of the partitions in the share.
    pub fn of<T>(&self, mut all: BTreeMap<PartitionId, T>) -> BTreeMap<PartitionId, T> {
        if let Self::These(partitions) = self {
            all.retain(|partition, _| partitions.contains(partition));
        }
        all
    }

    /// Whether others may have partitions too.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::These(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_hides_the_partitions_of_others() {
        let all = BTreeMap::from([(0, 'a'), (1, 'b'), (2, 'c')]);
        let share = Share::These(BTreeSet::from([1, 7]));
        assert_eq!(share.of(all.clone()), BTreeMap::from([(1, 'b')]));
        assert!(share.is_shared());
        assert_eq!(Share::All.of(all.clone()), all);
    }
}
