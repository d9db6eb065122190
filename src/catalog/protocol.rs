//! The decisions of the commit protocol on which its promises rest, named so that each can be taken wrongly on purpose.
//!
//! A simulation that finds nothing proves little as long as nobody knows what it would find. So the tests run it over variants of the
//! shipped code in which one of these decisions is the tempting wrong one, and each has to be caught. What ships is [`Protocol::SHIPPED`],
//! and no setting leads to another. A value is asked for where the code decides rather than a feature set, because a feature would have
//! all of lakesmith compiled twice.

/// Which decisions are taken.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// The files of an attempt that may still land stay.
    pub keeps_files_in_doubt: bool,
    /// After an error the pointer is looked at before anything else, and the batch keeps its commit id.
    pub looks_up: bool,
    /// A batch commits only where the table ends.
    pub checks_offsets: bool,
    /// The lock is given back after the swap.
    pub locks_the_swap: bool,
}

impl Protocol {
    pub const SHIPPED: Self = Self { keeps_files_in_doubt: true, looks_up: true, checks_offsets: true, locks_the_swap: true };
}
