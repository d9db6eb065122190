//! One history: writers at work, and everything that happens to them, as a seed says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lakesmith::catalog::Protocol;
use lakesmith::storage::{Moment, Site};
use lakesmith::{Result, clock};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinHandle;

use super::check;
use super::metastore::LOCK_TIMEOUT;
use super::process::{End, Fate, Passage, Process, Step, Weather};
use super::world::{BRONZE, Plan, Protection, SILVER, World};
use super::writer::{self, Assigned};

/// More than a history takes: whatever is not done by then never will be.
const FOR_EVER: Duration = Duration::from_secs(6 * 3_600);

/// What a history came to, beside being right.
#[derive(Debug, Default, Clone, Copy)]
pub struct Told {
    /// Calls and file operations, and those of them that met a fault.
    pub calls: u32,
    pub files: u32,
    pub faults: u32,
    /// Commits that were undone by a request that nothing fences.
    pub undone: u32,
}

/// Network and disks as the seed has them.
pub struct Seeded {
    state: Mutex<SeededState>,
}

struct SeededState {
    rng: ChaCha8Rng,
    /// How likely a call that changes a table, any other call and an operation on a file go wrong.
    alters: f64,
    calls: f64,
    files: f64,
    told: Told,
}

impl Seeded {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        let (alters, calls, files) = (rng.random_range(0.0..0.5), rng.random_range(0.0..0.1), rng.random_range(0.0..0.02));
        let faulty = |rate, rng: &mut ChaCha8Rng| if rng.random_bool(0.6) { rate } else { 0.0 };
        let (alters, calls, files) = (faulty(alters, rng), faulty(calls, rng), faulty(files, rng));
        let rng = ChaCha8Rng::from_rng(rng);
        Self { state: Mutex::new(SeededState { rng, alters, calls, files, told: Told::default() }) }
    }

    /// From here on nothing goes wrong.
    fn calm(&self) {
        let mut state = self.state.lock().unwrap();
        (state.alters, state.calls, state.files) = (0.0, 0.0, 0.0);
    }
}

fn ms(range: std::ops::Range<u64>, rng: &mut ChaCha8Rng) -> Duration {
    Duration::from_millis(rng.random_range(range))
}

/// Mostly short, sometimes longer than every timeout.
fn delay(rng: &mut ChaCha8Rng) -> Duration {
    match rng.random_range(0..4) {
        0 | 1 => ms(1..300, rng),
        2 => ms(300..5_000, rng),
        _ => ms(5_000..70_000, rng),
    }
}

impl Weather for Seeded {
    fn call(&self, method: &str) -> Passage {
        let state = &mut *self.state.lock().unwrap();
        let rate = if method.starts_with("alter_table") { state.alters } else { state.calls };
        state.told.calls += 1;
        let rng = &mut state.rng;
        let (out, back) = (ms(1..20, rng), ms(1..20, rng));
        let fate = if !rng.random_bool(rate) {
            Fate::Arrives
        } else {
            state.told.faults += 1;
            match rng.random_range(0..13) {
                0 => Fate::Unsent,
                1 | 2 => Fate::RequestLost,
                3 | 4 => Fate::ReplyLost,
                5 => Fate::RequestSilent,
                6 => Fate::ReplySilent,
                7 | 8 => Fate::Late(delay(rng)),
                9 => Fate::LateSilent(delay(rng)),
                10 => Fate::Repeated,
                11 => Fate::Failed,
                _ => Fate::FailedAfter,
            }
        };
        Passage { out, back, fate }
    }

    fn file(&self, _: Site, _: Moment) -> Step {
        let state = &mut *self.state.lock().unwrap();
        let takes = if state.rng.random_ratio(1, 10) { ms(1..30, &mut state.rng) } else { Duration::ZERO };
        let fails = state.rng.random_bool(state.files);
        state.told.files += 1;
        state.told.faults += u32::from(fails);
        Step { takes, end: if fails { End::Fails } else { End::Goes } }
    }
}

struct Running {
    process: Arc<Process>,
    assigned: Assigned,
    task: JoinHandle<Result<()>>,
}

fn plan(rng: &mut ChaCha8Rng, protocol: Protocol) -> Plan {
    let protection = match rng.random_range(0..8) {
        0..3 => Protection::Expected,
        3..5 => Protection::LockAndExpected,
        5..7 => Protection::Lock,
        _ => Protection::LockOnBroken,
    };
    let short = protection.compares() && rng.random_bool(0.5);
    let ends = (0..rng.random_range(1..=2)).map(|partition| (partition, rng.random_range(1..=5))).collect();
    let plan = Plan {
        protection,
        protocol,
        ends,
        step: rng.random_range(1..=3),
        snapshots_max: if short { rng.random_range(1..=4) } else { 720 },
        manifests_to_merge: if short { rng.random_range(2..=4) } else { 32 },
        commit_attempts: rng.random_range(2..=6),
        probes: rng.random_ratio(1, 16),
    };
    // Where a pointer can go back, a version that others have expired could become the current one again: see `table::upkeep`.
    if plan.is_fenced() { plan } else { Plan { snapshots_max: 720, manifests_to_merge: 32, ..plan } }
}

/// Plays the history of a seed; an error says what was found at its end.
pub async fn play(seed: u64, protocol: Protocol) -> Result<Told, String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let world = Arc::new(World::new(plan(&mut rng, protocol)));
    let weather = Arc::new(Seeded::new(&mut rng));
    let disturbed = clock::timeout(FOR_EVER, disturb(&world, &weather, &mut rng)).await;
    weather.calm();
    disturbed.map_err(|_| "it never ended".to_owned()).flatten()?;
    finish(&world, weather.clone()).await?;
    let told = weather.state.lock().unwrap().told;
    Ok(Told { undone: world.metastore.undone(), ..told })
}

/// When nothing goes wrong any more: one writer runs to the end of the source, and then everything must be right.
pub async fn finish(world: &Arc<World>, weather: Arc<dyn Weather>) -> Result<(), String> {
    let last = async {
        world.quiet().await;
        let all = Arc::new(Mutex::new(world.plan.ends.keys().copied().collect()));
        let last = writer::run(world.clone(), world.process(weather), all).await;
        last.map_err(|error| format!("the last writer stopped: {}", error.chain()))?;
        // Locks of the dead run out.
        clock::sleep(LOCK_TIMEOUT * 2).await;
        Ok(())
    };
    clock::timeout(FOR_EVER, last).await.map_err(|_| "the last writer never ended".to_owned()).flatten()?;
    for table in [BRONZE, SILVER] {
        check::complete(world, table).map_err(|found| format!("{table}: {found}"))?;
    }
    if let Some(violation) = world.metastore.violations().first() {
        return Err(violation.clone());
    }
    let undone = world.metastore.undone();
    if world.plan.is_fenced() && undone > 0 {
        return Err(format!("{undone} commits were undone although every one of them was compared"));
    }
    if world.metastore.locks() > 0 {
        return Err("a lock is left".to_owned());
    }
    Ok(())
}

/// Lets writers work while things happen to them, and ends them all. An error is that of a writer that stopped for good.
async fn disturb(world: &Arc<World>, weather: &Arc<Seeded>, rng: &mut ChaCha8Rng) -> Result<(), String> {
    let partitions: Vec<i32> = world.plan.ends.keys().copied().collect();
    let writers = rng.random_range(1..=3usize);
    // Two daemons on the same partitions by mistake, or each with its own.
    let alone = rng.random_bool(0.6);
    let start = |assigned: Assigned| {
        let process = world.process(weather.clone());
        let task = tokio::task::spawn_local(writer::run(world.clone(), process.clone(), assigned.clone()));
        Running { process, assigned, task }
    };
    let mut running: Vec<Running> = (0..writers)
        .map(|writer| {
            let mine = |partition: &i32| !alone || *partition as usize % writers == writer;
            start(Arc::new(Mutex::new(partitions.iter().copied().filter(mine).collect())))
        })
        .collect();
    let mut ended = Vec::new();
    for _ in 0..rng.random_range(0..5) {
        clock::sleep(if rng.random_bool(0.8) { ms(1..400, rng) } else { delay(rng) }).await;
        let at = rng.random_range(0..running.len());
        let method = ["alter_table", "get_table_req", "check_lock", "lock", "unlock"][rng.random_range(0..5)];
        match rng.random_range(0..7) {
            // Killed, and started again.
            0 | 1 => {
                let killed = std::mem::replace(&mut running[at], start(Arc::new(Mutex::new(BTreeSet::new()))));
                running[at].assigned.lock().unwrap().extend(killed.assigned.lock().unwrap().iter().copied());
                killed.process.kill();
                killed.task.abort();
                ended.push(killed.task);
            }
            // Its work is dropped where it stands, but the process lives: what drops leave behind goes on.
            2 => {
                running[at].task.abort();
                let Running { process, assigned, .. } = &running[at];
                let again = tokio::task::spawn_local(writer::run(world.clone(), process.clone(), assigned.clone()));
                ended.push(std::mem::replace(&mut running[at].task, again));
            }
            // Stopped for a while, at once or at a call.
            3..6 => {
                let process = running[at].process.clone();
                if rng.random_bool(0.3) {
                    process.stop()
                } else {
                    process.stop_at(method)
                }
                let pause = delay(rng);
                tokio::spawn(async move {
                    clock::sleep(pause).await;
                    process.go_on();
                });
            }
            // A rebalance: the partition moves; who had it may not know yet.
            _ => {
                let (partition, from) = (partitions[rng.random_range(0..partitions.len())], rng.random_range(0..running.len()));
                running[at].assigned.lock().unwrap().insert(partition);
                if from != at {
                    running[from].assigned.lock().unwrap().remove(&partition);
                }
                if running[at].task.is_finished() {
                    let Running { process, assigned, .. } = &running[at];
                    let again = tokio::task::spawn_local(writer::run(world.clone(), process.clone(), assigned.clone()));
                    ended.push(std::mem::replace(&mut running[at].task, again));
                }
            }
        }
    }
    if rng.random_bool(0.7) {
        clock::sleep(ms(1..3_000, rng)).await;
    } else {
        clock::sleep(Duration::from_secs(200)).await;
    }
    for Running { process, task, .. } in running {
        process.kill();
        task.abort();
        ended.push(task);
    }
    let mut stopped = BTreeMap::new();
    for (writer, task) in ended.into_iter().enumerate() {
        match task.await {
            Ok(Err(error)) => drop(stopped.insert(writer, error.chain())),
            Err(panic) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
            _ => {}
        }
    }
    if stopped.is_empty() { Ok(()) } else { Err(format!("writers stopped: {stopped:?}")) }
}
