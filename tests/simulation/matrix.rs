//! Every scripted fault, one at a time: what becomes of a swap, what is heard of it and whether anybody can look; and each operation on a
//! file, failing or killing before it has taken place and after. Whatever the state then is, the next start reaches the exact result.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use lakesmith::catalog::Protocol;
use lakesmith::storage::{Moment, Site};
use lakesmith::table::LakeTable;
use lakesmith::{Kind, clock};

use super::history::finish;
use super::process::{End, Fate, Passage, Process, Step, Weather};
use super::world::{BRONZE, Plan, Protection, World};
use super::{on_a_large_stack, simulated, writer};

const WAYS: [Protection; 4] = [Protection::Expected, Protection::LockAndExpected, Protection::Lock, Protection::LockOnBroken];

/// As long as a daemon would try before its supervisor starts another.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the table can be looked at after the swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LookUp {
    Works,
    Fails,
    /// After that many calls.
    WorksLater(u32),
}

/// The one fault there is.
struct Scripted {
    swap: Fate,
    look_up: LookUp,
    file: Option<(Site, Moment, u32, End)>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    swapped: bool,
    look_ups: u32,
    files: u32,
    met: bool,
    calm: bool,
}

impl Scripted {
    fn swap(swap: Fate, look_up: LookUp) -> Arc<Self> {
        Arc::new(Self { swap, look_up, file: None, seen: Mutex::default() })
    }

    fn calm() -> Arc<Self> {
        Self::swap(Fate::Arrives, LookUp::Works)
    }

    fn met(&self) -> bool {
        self.seen.lock().unwrap().met
    }
}

impl Weather for Scripted {
    fn call(&self, method: &str) -> Passage {
        let mut seen = self.seen.lock().unwrap();
        let fate = match method {
            _ if seen.calm => Fate::Arrives,
            "alter_table_with_environment_context" if !std::mem::replace(&mut seen.swapped, true) => {
                seen.met = self.file.is_none();
                self.swap
            }
            "get_table_req" if seen.swapped => {
                seen.look_ups += 1;
                match self.look_up {
                    LookUp::Works => Fate::Arrives,
                    LookUp::WorksLater(after) if seen.look_ups > after => Fate::Arrives,
                    LookUp::Fails | LookUp::WorksLater(_) => Fate::RequestLost,
                }
            }
            _ => Fate::Arrives,
        };
        let way = Duration::from_millis(5);
        Passage { out: way, back: way, fate }
    }

    fn file(&self, site: Site, moment: Moment) -> Step {
        let mut seen = self.seen.lock().unwrap();
        let Some((_, _, at, end)) = self.file.filter(|(fault, when, ..)| !seen.calm && (*fault, *when) == (site, moment)) else {
            return Step { takes: Duration::ZERO, end: End::Goes };
        };
        seen.files += 1;
        let meets = seen.files == at;
        seen.met |= meets;
        Step { takes: Duration::ZERO, end: if meets { end } else { End::Goes } }
    }
}

fn world(protection: Protection) -> Arc<World> {
    Arc::new(World::new(Plan {
        protection,
        protocol: Protocol::SHIPPED,
        ends: BTreeMap::from([(0, 2)]),
        step: 1,
        snapshots_max: if protection.compares() { 2 } else { 720 },
        manifests_to_merge: 2,
        commit_attempts: 4,
        probes: false,
    }))
}

/// A process at work until it is done, dead or out of patience.
async fn work(world: &Arc<World>, process: &Arc<Process>) {
    let all = Arc::new(Mutex::new(world.plan.ends.keys().copied().collect()));
    let worked = clock::timeout(PATIENCE, writer::run(world.clone(), process.clone(), all)).await;
    if let Ok(Err(error)) = worked {
        panic!("a writer stopped: {}", error.chain());
    }
    process.kill();
}

async fn ends_well(world: &Arc<World>, weather: &Arc<Scripted>) -> Result<(), String> {
    weather.seen.lock().unwrap().calm = true;
    finish(world, weather.clone()).await
}

/// Runs the cases of each way at the same time.
fn in_every_way<const N: usize>(ways: [Protection; N], cases: fn(Protection) -> u64) {
    let begun = Instant::now();
    let cases: u64 = std::thread::scope(|scope| {
        let threads = ways.map(|protection| scope.spawn(move || on_a_large_stack(|| cases(protection))));
        threads.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).iter().sum()
    });
    println!("{cases} cases in {:?}", begun.elapsed());
}

#[test]
fn whatever_becomes_of_a_swap_the_next_start_is_exact() {
    in_every_way(WAYS, every_swap);
}

#[test]
fn whatever_becomes_of_a_file_the_next_start_is_exact() {
    in_every_way([Protection::Expected, Protection::Lock], every_file);
}

/// Window: a commit lands, its reply is lost, and before its sender looks, others commit until neither its snapshot nor its metadata file
/// is remembered. It cannot be found then, and yet its files are the table's.
#[test]
fn a_commit_that_nobody_remembers_keeps_its_files() {
    on_a_large_stack(|| {
        for protection in [Protection::Expected, Protection::LockAndExpected] {
            let played = simulated(1, async || {
                let plan = world(protection).plan.clone();
                let world = Arc::new(World::new(Plan { ends: BTreeMap::from([(0, 12)]), snapshots_max: 1, ..plan }));
                let weather = Scripted::swap(Fate::ReplySilent, LookUp::Works);
                let (process, other) = (world.process(weather.clone()), world.process(Scripted::calm()));
                let others = async {
                    while !weather.met() {
                        clock::sleep(Duration::from_millis(1)).await;
                    }
                    process.stop();
                    // Under the lock, after the server has dropped it.
                    clock::sleep(Duration::from_secs(1)).await;
                    work(&world, &other).await;
                    process.go_on();
                };
                tokio::join!(work(&world, &process), others);
                ends_well(&world, &weather).await
            });
            played.unwrap_or_else(|found| panic!("{protection:?}: {found}"));
        }
    });
}

/// A long read, as silver's catch-up is one, goes on while others commit until what it reads is expired: it may look again, and is not
/// for a person to look at.
#[test]
fn a_read_of_an_expired_version_may_be_repeated() {
    on_a_large_stack(|| {
        simulated(1, async || {
            let plan = world(Protection::Expected).plan.clone();
            let mut world = Arc::new(World::new(Plan { ends: BTreeMap::from([(0, 1)]), snapshots_max: 1, ..plan }));
            let weather = Scripted::calm();
            work(&world, &world.process(weather.clone())).await;
            let catalog = world.catalog(&world.process(weather.clone())).await.unwrap();
            let table = LakeTable::open_or_create(&catalog, &world.spec(BRONZE)).await.unwrap();
            Arc::get_mut(&mut world).expect("nobody else's").plan.ends = BTreeMap::from([(0, 4)]);
            work(&world, &world.process(weather)).await;
            let read = async { table.scan(None, None).await?.try_next().await };
            let error = read.await.expect_err("its manifest list is deleted");
            assert_eq!(error.kind(), Kind::Transient, "{}", error.chain());
        });
    });
}

fn every_swap(protection: Protection) -> u64 {
    let late = Duration::from_secs(20);
    // Lands, or is refused; with a reply, without one, and with one that comes when nobody waits any more.
    let fates = [
        Fate::Arrives,
        Fate::ReplyLost,
        Fate::ReplySilent,
        Fate::Failed,
        Fate::RequestLost,
        Fate::RequestSilent,
        Fate::FailedAfter,
        Fate::Repeated,
        Fate::Unsent,
        Fate::Late(late),
        Fate::LateSilent(late),
    ];
    let mut combinations = 0;
    for swap in fates {
        for look_up in [LookUp::Works, LookUp::Fails, LookUp::WorksLater(5)] {
            for conflict in [false, true] {
                let case = format!("{protection:?}, {swap:?}, look-up {look_up:?}, conflict {conflict}");
                let played = simulated(combinations, async || {
                    let world = world(protection);
                    let weather = Scripted::swap(swap, look_up);
                    let process = world.process(weather.clone());
                    if conflict {
                        // Between its look at the table and its write another writer commits; under the lock that is before it.
                        process.stop_at(if protection == Protection::Expected { "alter_table" } else { "lock" });
                        let other = world.process(Scripted::calm());
                        let others = async {
                            clock::sleep(Duration::from_secs(1)).await;
                            work(&world, &other).await;
                            process.go_on();
                        };
                        tokio::join!(work(&world, &process), others);
                    } else {
                        work(&world, &process).await;
                    }
                    // Where the other committed before the lock was asked for, there is nothing left to swap.
                    assert!(conflict || weather.met(), "{case}: the fault was not met");
                    ends_well(&world, &weather).await
                });
                played.unwrap_or_else(|found| panic!("{case}: {found}"));
                combinations += 1;
            }
        }
    }
    combinations
}

fn every_file(protection: Protection) -> u64 {
    let mut faults = 0;
    for site in [Site::Create, Site::Write, Site::Close, Site::Rename, Site::Delete, Site::Read] {
        for (moment, end) in
            [Moment::Before, Moment::After].into_iter().flat_map(|moment| [(moment, End::Fails), (moment, End::Kills)])
        {
            for at in 1.. {
                let played = simulated(faults, async || {
                    let world = world(protection);
                    let weather = Arc::new(Scripted {
                        swap: Fate::Arrives,
                        look_up: LookUp::Works,
                        file: Some((site, moment, at, end)),
                        seen: Mutex::default(),
                    });
                    work(&world, &world.process(weather.clone())).await;
                    let met = weather.met();
                    ends_well(&world, &weather).await.map(|()| met)
                });
                let met = played.unwrap_or_else(|found| panic!("{protection:?}, {end:?} {moment:?} {site:?} {at}: {found}"));
                if !met {
                    break;
                }
                faults += 1;
            }
        }
    }
    assert!(faults > 50, "{faults}");
    faults
}
