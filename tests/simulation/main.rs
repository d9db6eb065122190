//! The commit protocol under every fault, without a server: deterministic histories by the thousand, and a matrix of scripted faults.
//!
//! What is driven is the shipped code: the client of the metastore with its pool and its locks, the catalog's swap, the tables' prepare and
//! swap, their checkpoints. Simulated is what lies below it: the metastore, the network in front of it, the files, the clock. A history is
//! one seed: who writes what, what is lost, late or repeated, who is killed, stopped and continued. When all of it has happened one writer
//! runs to the end of the source, and then the tables must hold every record once, by their files.
//!
//! No library plays the histories. Turmoil simulates hosts that talk over its own TCP, and needs tokio built with another feature for the
//! whole crate; stateright explores models, not this code; proptest's state machines drive a synchronous subject and shrink its calls, which
//! says little where one call takes a dozen messages. A seeded generator and a clock that moves when nothing else can is all it takes.
//!
//! A build with optimization plays ten times as many, so this is a binary of its own: `cargo test --release --test simulation` builds little
//! more than it beside the program. `LAKESMITH_SIM_HISTORIES` sets the number of histories; `LAKESMITH_SIM_SEED` plays one of them.

#![recursion_limit = "256"]

mod avro;
mod check;
mod history;
mod matrix;
mod metastore;
mod process;
mod world;
mod writer;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use history::Told;
use lakesmith::catalog::Protocol;
use lakesmith::clock;

/// Without optimization histories are few, but what the code asserts about itself is checked.
const HISTORIES: u64 = if cfg!(debug_assertions) { 1_000 } else { 10_000 };
/// Futures within futures are large in a build that isn't optimized.
const STACK: usize = 64 << 20;

/// Runs something on a thread of its own, with a runtime whose clock moves when nothing else can.
fn simulated<T: Send>(seed: u64, run: impl AsyncFnOnce() -> T) -> T {
    clock::simulate(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().on_thread_park(|| _ = clock::advance()).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, run())
}

/// Runs something with a stack that is large enough.
fn on_a_large_stack<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let joined = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run).expect("a thread");
        thread.join()
    });
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Plays seeds on all cores; the failures, by seed.
fn play(seeds: std::ops::Range<u64>, protocol: Protocol, stop_at_first: bool) -> (Vec<(u64, String)>, Told) {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new((Vec::new(), Told::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            let worker = || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || (stop_at_first && !found.lock().unwrap().0.is_empty()) {
                        return;
                    }
                    let played = catch_unwind(AssertUnwindSafe(|| simulated(seed, async || history::play(seed, protocol).await)));
                    let played = played.unwrap_or_else(|_| Err("a panic, see above".to_owned()));
                    let (failures, told) = &mut *found.lock().unwrap();
                    match played {
                        Ok(history) => {
                            told.calls += history.calls;
                            told.files += history.files;
                            told.faults += history.faults;
                            told.undone += history.undone;
                        }
                        Err(failure) => failures.push((seed, failure)),
                    }
                }
            };
            std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, worker).expect("a thread");
        }
    });
    found.into_inner().unwrap()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

#[test]
fn every_history_ends_with_every_record_once() {
    let seeds = match number("LAKESMITH_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LAKESMITH_SIM_HISTORIES").unwrap_or(HISTORIES),
    };
    let (begun, count) = (Instant::now(), seeds.end - seeds.start);
    let (failures, told) = play(seeds, Protocol::SHIPPED, false);
    let Told { calls, files, faults, undone } = told;
    println!(
        "{count} histories in {:?}: {calls} calls and {files} steps of files, {faults} of them with a fault, {undone} commits undone",
        begun.elapsed()
    );
    for (seed, failure) in failures.iter().take(10) {
        println!(
            "seed {seed}: {failure}\n  play it again: LAKESMITH_SIM_SEED={seed} cargo test --test simulation every_history -- --nocapture"
        );
    }
    assert!(failures.is_empty(), "{} of {count} histories went wrong", failures.len());
}

#[test]
fn what_is_broken_on_purpose_is_caught() {
    let shipped = Protocol::SHIPPED;
    for (name, broken) in [
        ("delete on doubt", Protocol { keeps_files_in_doubt: false, ..shipped }),
        ("repeat after a lost reply", Protocol { looks_up: false, ..shipped }),
        ("no offset check", Protocol { checks_offsets: false, ..shipped }),
        ("unlock before the swap", Protocol { locks_the_swap: false, ..shipped }),
    ] {
        let (caught, _) = play(0..2_000, broken, true);
        let (seed, failure) = caught.first().unwrap_or_else(|| panic!("{name} was not caught"));
        println!("{name}: caught by seed {seed}: {failure}");
    }
}
