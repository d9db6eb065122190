//! Locks: what is asked for, what is answered, what is shown.

use super::super::contract::fields::{lock_component, lock_request, lock_response, shown_lock};
use super::super::thrift::{List, Struct};

macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $number:literal),* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($variant = $number),*
        }

        impl $name {
            pub fn from_wire(number: i32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

wire_enum!(
    /// What else may hold a lock on the same thing: readers and writers with each other, an exclusive writer with readers, nobody.
    LockType { SharedRead = 1, SharedWrite = 2, Exclusive = 3, ExclusiveWrite = 4 }
);
wire_enum!(
    /// How much a lock covers.
    LockLevel { Database = 1, Table = 2, Partition = 3 }
);
wire_enum!(
    /// Whether the asker has the lock.
    LockState { Acquired = 1, Waiting = 2, Abort = 3, NotAcquired = 4 }
);

/// Hive's number for "no particular operation", which is what Iceberg's writers send.
const OPERATION_UNSET: i32 = 5;

/// One thing to lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockComponent {
    pub kind: LockType,
    pub level: LockLevel,
    pub database: String,
    pub table: Option<String>,
    pub partition: Option<String>,
}

impl LockComponent {
    /// A table, or a name that stands for something else, for one holder only. The table need not exist.
    pub fn exclusive(database: &str, table: &str) -> Self {
        let (database, table) = (database.to_owned(), Some(table.to_owned()));
        Self { kind: LockType::Exclusive, level: LockLevel::Table, database, table, partition: None }
    }

    fn to_struct(&self) -> Struct {
        let mut entry = Struct::new()
            .with(lock_component::KIND, self.kind as i32)
            .with(lock_component::LEVEL, self.level as i32)
            .with(lock_component::DATABASE, self.database.as_str());
        if let Some(table) = &self.table {
            entry.set(lock_component::TABLE, table.as_str());
        }
        if let Some(partition) = &self.partition {
            entry.set(lock_component::PARTITION, partition.as_str());
        }
        entry.with(lock_component::OPERATION_TYPE, OPERATION_UNSET)
    }

    fn from_struct(entry: &Struct) -> Option<Self> {
        Some(Self {
            kind: LockType::from_wire(entry.i32(lock_component::KIND)?)?,
            level: LockLevel::from_wire(entry.i32(lock_component::LEVEL)?)?,
            database: entry.text(lock_component::DATABASE)?.to_owned(),
            table: entry.text(lock_component::TABLE).map(str::to_owned),
            partition: entry.text(lock_component::PARTITION).map(str::to_owned),
        })
    }
}

/// A request for all of its components at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRequest {
    pub components: Vec<LockComponent>,
    pub user: String,
    pub hostname: String,
    /// A text by which the asker finds its own lock again; shown to operators.
    pub agent: String,
}

impl LockRequest {
    pub fn to_struct(&self) -> Struct {
        Struct::new()
            .with(lock_request::COMPONENT, List::structs(self.components.iter().map(LockComponent::to_struct)))
            .with(lock_request::USER, self.user.as_str())
            .with(lock_request::HOSTNAME, self.hostname.as_str())
            .with(lock_request::AGENT, self.agent.as_str())
    }

    /// None if a component is not one that Hive's interface knows.
    pub fn from_struct(entry: &Struct) -> Option<Self> {
        let text = |field, default: &str| entry.text(field).unwrap_or(default).to_owned();
        Some(Self {
            components: entry.structs(lock_request::COMPONENT).map(LockComponent::from_struct).collect::<Option<_>>()?,
            user: text(lock_request::USER, ""),
            hostname: text(lock_request::HOSTNAME, ""),
            agent: text(lock_request::AGENT, "Unknown"),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockResponse {
    pub lock_id: i64,
    pub state: LockState,
}

impl LockResponse {
    pub fn to_struct(self) -> Struct {
        Struct::new().with(lock_response::LOCK_ID, self.lock_id).with(lock_response::STATE, self.state as i32)
    }

    pub fn from_struct(entry: &Struct) -> Option<Self> {
        let state = LockState::from_wire(entry.i32(lock_response::STATE)?)?;
        Some(Self { lock_id: entry.i64(lock_response::LOCK_ID)?, state })
    }
}

/// A lock as `show_locks` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownLock {
    pub lock_id: i64,
    pub database: String,
    pub table: Option<String>,
    pub state: LockState,
    pub kind: LockType,
    /// Milliseconds since 1970, by the server's clock.
    pub last_heartbeat_ms: i64,
    /// None while it waits.
    pub acquired_at_ms: Option<i64>,
    pub user: String,
    pub hostname: String,
    pub agent: Option<String>,
}

impl ShownLock {
    pub fn to_struct(&self) -> Struct {
        let mut entry = Struct::new()
            .with(shown_lock::LOCK_ID, self.lock_id)
            .with(shown_lock::DATABASE, self.database.as_str())
            .with(shown_lock::STATE, self.state as i32)
            .with(shown_lock::KIND, self.kind as i32)
            .with(shown_lock::LAST_HEARTBEAT, self.last_heartbeat_ms)
            .with(shown_lock::USER, self.user.as_str())
            .with(shown_lock::HOSTNAME, self.hostname.as_str());
        if let Some(table) = &self.table {
            entry.set(shown_lock::TABLE, table.as_str());
        }
        if let Some(at) = self.acquired_at_ms {
            entry.set(shown_lock::ACQUIRED_AT, at);
        }
        if let Some(agent) = &self.agent {
            entry.set(shown_lock::AGENT, agent.as_str());
        }
        entry
    }

    pub fn from_struct(entry: &Struct) -> Option<Self> {
        Some(Self {
            lock_id: entry.i64(shown_lock::LOCK_ID)?,
            database: entry.text(shown_lock::DATABASE)?.to_owned(),
            table: entry.text(shown_lock::TABLE).map(str::to_owned),
            state: LockState::from_wire(entry.i32(shown_lock::STATE)?)?,
            kind: LockType::from_wire(entry.i32(shown_lock::KIND)?)?,
            last_heartbeat_ms: entry.i64(shown_lock::LAST_HEARTBEAT).unwrap_or_default(),
            acquired_at_ms: entry.i64(shown_lock::ACQUIRED_AT).filter(|at| *at > 0),
            user: entry.text(shown_lock::USER).unwrap_or_default().to_owned(),
            hostname: entry.text(shown_lock::HOSTNAME).unwrap_or_default().to_owned(),
            agent: entry.text(shown_lock::AGENT).map(str::to_owned),
        })
    }
}
