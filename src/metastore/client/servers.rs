//! The servers behind the configured addresses, and what is known of each: that it failed lately, its version, what it makes of expected
//! values. One database is behind all of them; their versions may differ while somebody upgrades one after the other.
//!
//! *Invariants*: once anybody has asked what servers make of expected values, a call that depends on them goes to a server that was seen to
//! honour them and to no other ([`Among::Comparing`]). A server that comes back as another version has to be seen anew.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::info;

use super::CompareAndSwap;
use crate::clock::{self, Instant, jitter};

/// How long a server that failed is not asked while there is another; it doubles with each further failure.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Which servers will do for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Among {
    Any,
    /// Those that honour expected values; any as long as nobody has asked which do.
    Comparing,
    /// The one at this place in the list.
    One(usize),
}

/// All servers, in the order in which they are configured.
pub(super) struct Servers(Vec<Server>);

struct Server {
    /// `host:port`
    address: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Since it last answered.
    failures: u32,
    rests_until: Option<Instant>,
    version: Option<String>,
    compare_and_swap: Option<CompareAndSwap>,
    /// It had a verdict once.
    asked: bool,
}

impl Servers {
    pub fn new(addresses: Vec<String>) -> Self {
        Self(addresses.into_iter().map(|address| Server { address, state: Mutex::default() }).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|server| server.address.as_str())
    }

    pub fn address(&self, server: usize) -> &str {
        &self.0[server].address
    }

    fn state(&self, server: usize) -> MutexGuard<'_, State> {
        self.0[server].state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> std::ops::Range<usize> {
        0..self.0.len()
    }

    /// The servers that will do, in random order; those that failed lately come last, the one that has rested longest first.
    pub fn order(&self, among: Among) -> Vec<usize> {
        let mut order: Vec<usize> = self.all().filter(|server| self.fits(*server, among)).collect();
        if order.len() > 1 {
            order.sort_by_cached_key(|server| (self.rests_until(*server), jitter().to_bits()));
        }
        order
    }

    pub fn fits(&self, server: usize, among: Among) -> bool {
        match among {
            Among::Any => true,
            Among::One(one) => one == server,
            Among::Comparing => {
                let asked = self.all().any(|server| self.state(server).asked);
                !asked || self.state(server).compare_and_swap == Some(CompareAndSwap::Honoured)
            }
        }
    }

    fn rests_until(&self, server: usize) -> Option<Instant> {
        self.state(server).rests_until.filter(|until| *until > clock::now())
    }

    pub fn failed(&self, server: usize) {
        let mut state = self.state(server);
        let rest = FIRST_REST.saturating_mul(1 << state.failures.min(10)).min(LONGEST_REST).mul_f64(jitter());
        state.failures += 1;
        state.rests_until = clock::now().checked_add(rest);
    }

    pub fn answered(&self, server: usize) {
        let mut state = self.state(server);
        (state.failures, state.rests_until) = (0, None);
    }

    /// Takes note of what a server says that it is.
    pub fn is_of_version(&self, server: usize, version: &str) {
        let mut state = self.state(server);
        let before = state.version.replace(version.to_owned());
        if before.as_deref().is_some_and(|before| before != version) && state.compare_and_swap.take().is_some() {
            info!(server = self.address(server), before, version, "the metastore is of another version now");
        }
    }

    pub fn verdict(&self, server: usize) -> Option<CompareAndSwap> {
        self.state(server).compare_and_swap.clone()
    }

    pub fn found(&self, server: usize, verdict: CompareAndSwap) {
        let mut state = self.state(server);
        (state.compare_and_swap, state.asked) = (Some(verdict), true);
    }

    /// What can be relied on with all servers of which it is known; none while it is of no server.
    pub fn weakest(&self) -> Option<CompareAndSwap> {
        let mut weakest = None;
        for verdict in self.all().filter_map(|server| self.verdict(server)) {
            if verdict != CompareAndSwap::Honoured {
                return Some(verdict);
            }
            weakest = Some(verdict);
        }
        weakest
    }

    /// Those of which it is not known and that didn't fail lately.
    pub fn unproven(&self) -> Vec<usize> {
        self.all().filter(|server| self.verdict(*server).is_none() && self.rests_until(*server).is_none()).collect()
    }
}

/// Why no server could be asked at all.
pub(super) fn none_fits() -> io::Error {
    io::Error::other("none of the servers that can be reached is known to look at the value that a write expects")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Servers {
        Servers::new(["a:1", "b:1", "c:1"].map(str::to_owned).into())
    }

    #[test]
    fn all_are_begun_with_and_one_that_failed_comes_last() {
        let servers = three();
        let firsts =
            |servers: &Servers| (0..200).map(|_| servers.order(Among::Any)[0]).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(firsts(&servers), [0, 1, 2].into());
        servers.failed(1);
        assert_eq!(firsts(&servers), [0, 2].into());
        assert_eq!(servers.order(Among::Any)[2], 1);
        // It failed more often, so it rests for longer.
        (0..4).for_each(|_| servers.failed(0));
        assert_eq!(servers.order(Among::Any), [2, 1, 0]);
        servers.answered(1);
        assert_eq!(firsts(&servers), [1, 2].into());
        assert_eq!(servers.order(Among::One(0)), [0]);
    }

    #[test]
    fn calls_that_depend_on_comparing_go_where_it_was_seen() {
        let servers = three();
        assert_eq!((servers.order(Among::Comparing).len(), servers.weakest()), (3, None));
        servers.found(2, CompareAndSwap::Honoured);
        assert_eq!((servers.order(Among::Comparing), servers.weakest()), (vec![2], Some(CompareAndSwap::Honoured)));
        assert_eq!(servers.unproven(), [0, 1]);
        servers.found(0, CompareAndSwap::Ignored);
        servers.failed(1);
        assert_eq!((servers.order(Among::Comparing), servers.weakest()), (vec![2], Some(CompareAndSwap::Ignored)));
        assert!(servers.unproven().is_empty());
    }

    #[test]
    fn a_server_of_another_version_is_seen_anew() {
        let servers = Servers::new(vec!["a:1".to_owned()]);
        servers.is_of_version(0, "4.0.1");
        servers.found(0, CompareAndSwap::Honoured);
        servers.is_of_version(0, "4.0.1");
        assert!(servers.fits(0, Among::Comparing));
        servers.is_of_version(0, "3.0");
        assert_eq!((servers.fits(0, Among::Comparing), servers.weakest(), servers.unproven()), (false, None, vec![0]));
    }
}
