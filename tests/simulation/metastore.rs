//! A metastore in memory: the methods that a commit uses, on the shipped codec and contract, with the clock of the simulation.
//!
//! It is also a witness. It sees every move of every pointer, and so each commit that another one undid: nothing may do that but a request
//! that its sender had given up, or whose lock had run out on the server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use lakesmith::clock::{self, Instant};
use lakesmith::metastore::contract::fields::{check_lock, get_table, get_table_result, heartbeat, show_locks_response, unlock};
use lakesmith::metastore::contract::{Exception, Method};
use lakesmith::metastore::thrift::{Application, List, Message, MessageKind, Struct, Value};
use lakesmith::metastore::{
    EnvironmentContext, HiveDatabase, HiveTable, LockRequest, LockResponse, LockState, LockType, ShownLock,
};

/// How long the server keeps a lock that it doesn't hear of. A server's default is 300 s; the others' patience is shorter in proportion, so
/// that a history doesn't spend its time on waiting writers' polls.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// What the server makes of expected values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Honoured,
    Ignored,
    /// A call with one is refused.
    Broken,
}

/// Who sent a request, and whether somebody still waits for its answer.
#[derive(Debug, Clone, Copy)]
pub struct Sender {
    pub process: usize,
    pub waits: bool,
}

pub struct SimMetastore {
    expected: Expected,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    databases: BTreeMap<String, Struct>,
    tables: BTreeMap<String, HiveTable>,
    locks: BTreeMap<i64, Lock>,
    locks_made: i64,
    /// Processes of which a lock ran out.
    ran_out: BTreeSet<usize>,
    /// Versions whose swap arrived when its sender had given it up, and its lock back: it may have come between the look and the write of
    /// the one who holds the lock by then, who cannot know of it.
    late: BTreeSet<String>,
    /// Commits that another one undid, and those of them that nothing excuses.
    undone: u32,
    violations: Vec<String>,
}

struct Lock {
    process: usize,
    table: String,
    agent: String,
    acquired: bool,
    seen: Instant,
}

type Answer = Result<Option<Value>, (Exception, String)>;

impl SimMetastore {
    pub fn new(expected: Expected) -> Self {
        Self { expected, state: Mutex::default() }
    }

    /// Carries a call out.
    pub fn handle(&self, sender: Sender, call: &Message) -> Message {
        let answer = self.run(sender, call);
        let (kind, body) = match answer {
            Ok(result) => {
                let mut body = Struct::new();
                if let Some(result) = result {
                    body.push(0, result);
                }
                (MessageKind::Reply, body)
            }
            Err((exception, message)) => return refusal(call, exception, &message),
        };
        Message { kind, name: call.name.clone(), sequence_id: call.sequence_id, body }
    }

    fn run(&self, sender: Sender, call: &Message) -> Answer {
        let mut state = self.state.lock().unwrap();
        state.expire();
        let text = |id: i16| call.body.at(id).and_then(Value::as_text).expect("a text").to_owned();
        let inner = |id: i16| call.body.at(id).and_then(Value::as_struct).expect("a struct").clone();
        let missing = |name: &str| (Exception::NoSuchObject, name.to_owned());
        match call.name.as_str() {
            "getVersion" => Ok(Some("4.0.1".into())),
            "set_ugi" => Ok(Some(List::texts::<&str>([]).into())),
            "get_database" => {
                let name = text(1);
                state.databases.get(&name).map(|entry| Some(entry.clone().into())).ok_or_else(|| missing(&name))
            }
            "create_database" => {
                let entry = inner(1);
                let name = HiveDatabase::from_entry(entry.clone()).name().to_owned();
                match state.databases.insert(name.clone(), entry) {
                    Some(_) => Err((Exception::AlreadyExists, name)),
                    None => Ok(None),
                }
            }
            "create_table" => {
                let entry = HiveTable::from_entry(inner(1));
                let name = entry.name().to_owned();
                if state.tables.contains_key(&name) {
                    return Err((Exception::AlreadyExists, name));
                }
                state.tables.insert(name, entry);
                Ok(None)
            }
            "get_table_req" => {
                let request = inner(1);
                let name = request.text(get_table::TABLE).expect("a name");
                let entry = state.tables.get(name).ok_or_else(|| missing(name))?;
                Ok(Some(Struct::new().with(get_table_result::ENTRY, entry.entry().clone()).into()))
            }
            "drop_table" => state.tables.remove(&text(2)).map(|_| None).ok_or_else(|| missing("it")),
            "alter_table_with_environment_context" => {
                let (entry, environment) = (HiveTable::from_entry(inner(3)), EnvironmentContext::from_struct(&inner(4)));
                state.alter(self.expected, sender, &text(2), entry, &environment)
            }
            "lock" => {
                let request = LockRequest::from_struct(&inner(1)).expect("a lock request");
                Ok(Some(state.lock(sender, request).to_struct().into()))
            }
            "check_lock" => {
                let id = inner(1).i64(check_lock::LOCK_ID).expect("an id");
                Ok(Some(state.check(id)?.to_struct().into()))
            }
            "heartbeat" => {
                state.seen(inner(1).i64(heartbeat::LOCK_ID).expect("an id"))?;
                Ok(None)
            }
            "unlock" => {
                let id = inner(1).i64(unlock::LOCK_ID).expect("an id");
                match state.locks.remove(&id) {
                    // 4.x takes any number; older ones refuse.
                    None if self.expected != Expected::Honoured => Err(no_lock(id)),
                    _ => Ok(None),
                }
            }
            "show_locks" => Ok(Some(Struct::new().with(show_locks_response::LOCKS, List::structs(state.shown())).into())),
            other => panic!("the simulated metastore has no {other}"),
        }
    }

    /// A table's parameter.
    pub fn parameter(&self, table: &str, key: &str) -> Option<String> {
        self.state.lock().unwrap().tables.get(table)?.parameter(key).map(str::to_owned)
    }

    pub fn locks(&self) -> usize {
        let mut state = self.state.lock().unwrap();
        state.expire();
        state.locks.len()
    }

    pub fn undone(&self) -> u32 {
        self.state.lock().unwrap().undone
    }

    pub fn violations(&self) -> Vec<String> {
        self.state.lock().unwrap().violations.clone()
    }
}

impl State {
    fn expire(&mut self) {
        let out: Vec<i64> =
            self.locks.iter().filter(|(_, lock)| clock::since(lock.seen) > LOCK_TIMEOUT).map(|(id, _)| *id).collect();
        for id in out {
            self.ran_out.extend(self.locks.remove(&id).map(|lock| lock.process));
        }
    }

    fn alter(
        &mut self,
        expected: Expected,
        sender: Sender,
        name: &str,
        entry: HiveTable,
        environment: &EnvironmentContext,
    ) -> Answer {
        let Some(now) = self.tables.get(name) else { return Err((Exception::InvalidOperation, name.to_owned())) };
        if let (Some(key), Some(value)) =
            (environment.get(EnvironmentContext::EXPECTED_KEY), environment.get(EnvironmentContext::EXPECTED_VALUE))
        {
            match expected {
                Expected::Broken => return Err((Exception::Meta, "Comparisons between 'CLOB' are not supported".to_owned())),
                Expected::Honoured if now.parameter(key) != Some(value) => {
                    let text = format!("The table has been modified. The parameter value for key '{key}' is different");
                    return Err((Exception::Meta, text));
                }
                Expected::Honoured | Expected::Ignored => {}
            }
        }
        let location = |entry: &HiveTable, key: &str| entry.parameter(key).map(str::to_owned);
        let (from, to) = (location(now, "metadata_location"), location(&entry, "metadata_location"));
        if from != to && location(&entry, "previous_metadata_location") != from {
            self.undone += 1;
            let late = from.as_ref().is_some_and(|from| self.late.contains(from));
            if sender.waits && !late && !self.ran_out.contains(&sender.process) {
                self.violations.push(format!("process {} undid a commit to {name} that it did not see", sender.process));
            }
        }
        self.late.extend(to.filter(|_| !sender.waits));
        self.tables.insert(name.to_owned(), entry);
        Ok(None)
    }

    fn lock(&mut self, sender: Sender, request: LockRequest) -> LockResponse {
        self.locks_made += 1;
        let (lock_id, process, agent) = (self.locks_made, sender.process, request.agent);
        let table = request.components[0].table.clone().expect("a table");
        self.locks.insert(lock_id, Lock { process, table, agent, acquired: false, seen: clock::now() });
        self.grant(lock_id)
    }

    fn grant(&mut self, lock_id: i64) -> LockResponse {
        let table = self.locks[&lock_id].table.clone();
        let first = self.locks.iter().find(|(_, lock)| lock.table == table).is_some_and(|(id, _)| *id == lock_id);
        let lock = self.locks.get_mut(&lock_id).expect("a lock");
        lock.acquired |= first;
        LockResponse { lock_id, state: if lock.acquired { LockState::Acquired } else { LockState::Waiting } }
    }

    fn seen(&mut self, lock_id: i64) -> Result<(), (Exception, String)> {
        self.locks.get_mut(&lock_id).map(|lock| lock.seen = clock::now()).ok_or_else(|| no_lock(lock_id))
    }

    fn check(&mut self, lock_id: i64) -> Result<LockResponse, (Exception, String)> {
        self.seen(lock_id)?;
        Ok(self.grant(lock_id))
    }

    fn shown(&self) -> Vec<Struct> {
        let shown = |(id, lock): (&i64, &Lock)| ShownLock {
            lock_id: *id,
            database: "lake".into(),
            table: Some(lock.table.clone()),
            state: if lock.acquired { LockState::Acquired } else { LockState::Waiting },
            kind: LockType::Exclusive,
            last_heartbeat_ms: 1,
            acquired_at_ms: lock.acquired.then_some(1),
            user: "sim".into(),
            hostname: "sim".into(),
            agent: Some(lock.agent.clone()),
        };
        self.locks.iter().map(|lock| shown(lock).to_struct()).collect()
    }
}

fn no_lock(id: i64) -> (Exception, String) {
    (Exception::NoSuchLock, format!("No such lock lockid:{id}"))
}

/// The answer that refuses a call.
pub fn refusal(call: &Message, exception: Exception, message: &str) -> Message {
    let id = Method::by_name(&call.name).and_then(|method| method.id_of(exception));
    let (kind, body) = match id {
        Some(id) => {
            let mut body = Struct::new();
            body.push(id, Struct::new().with(Exception::MESSAGE, message).into());
            (MessageKind::Reply, body)
        }
        None => {
            let failed = Application { code: Application::INTERNAL_ERROR, message: message.to_owned() };
            (MessageKind::Exception, failed.to_struct())
        }
    };
    Message { kind, name: call.name.clone(), sequence_id: call.sequence_id, body }
}
