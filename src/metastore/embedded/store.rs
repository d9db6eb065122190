//! The SQLite file.
//!
//! *Invariants*: every change is one `BEGIN IMMEDIATE` transaction, committed with an fsync. Entries are Thrift bytes; the columns beside
//! them are what they are found by.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::super::thrift::{Limits, Struct, decode_struct};
use super::databases;
use super::fault::{Answer, Fault};
use crate::error::{Context, Error, Result};

/// How long a transaction waits for another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

const VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE databases (
        name  TEXT PRIMARY KEY,
        entry BLOB NOT NULL
    ) STRICT;
    CREATE TABLE tables (
        id       INTEGER PRIMARY KEY AUTOINCREMENT,
        database TEXT NOT NULL REFERENCES databases (name),
        name     TEXT NOT NULL,
        kind     TEXT NOT NULL,
        entry    BLOB NOT NULL,
        UNIQUE (database, name)
    ) STRICT;
    CREATE TABLE partitions (
        table_id INTEGER NOT NULL REFERENCES tables (id) ON DELETE CASCADE,
        name     TEXT NOT NULL,
        entry    BLOB NOT NULL,
        PRIMARY KEY (table_id, name)
    ) STRICT;
    CREATE TABLE locks (
        id                INTEGER PRIMARY KEY AUTOINCREMENT,
        user              TEXT NOT NULL,
        hostname          TEXT NOT NULL,
        agent             TEXT NOT NULL,
        acquired_at_ms    INTEGER,
        last_heartbeat_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE lock_components (
        lock_id        INTEGER NOT NULL REFERENCES locks (id) ON DELETE CASCADE,
        kind           INTEGER NOT NULL,
        database       TEXT NOT NULL,
        table_name     TEXT,
        partition_name TEXT
    ) STRICT;
    CREATE INDEX lock_components_of ON lock_components (lock_id);
";

/// The file, the warehouse directory that it stands in, and connections to it.
pub(super) struct Store {
    path: PathBuf,
    warehouse: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Store {
    /// Opens the file, and makes it if it is missing.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = || format!("the metastore's database {} cannot be opened", path.display());
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(directory).with_context(failed)?;
        let warehouse = fs::canonicalize(directory).with_context(failed)?;
        let store = Self { path: path.to_owned(), warehouse, idle: Mutex::new(Vec::new()) };
        let broken = |error: rusqlite::Error| {
            Error::failed(failed()).caused_by(error).hint("another process may use it, or the file is damaged")
        };
        let mut connection = store.connect().map_err(broken)?;
        let found = prepare(&mut connection).map_err(broken)?;
        if found > VERSION {
            return Err(Error::stop(format!("{}: version {found}, this lakesmith knows {VERSION}", failed()))
                .hint("use the lakesmith that wrote it, or a newer one"));
        }
        store.put_back(connection);
        match store.write(|transaction| databases::create_default(transaction, &store.warehouse)) {
            Ok(()) => Ok(store),
            Err(fault) => Err(Error::failed(format!("{}: {fault:?}", failed()))),
        }
    }

    pub(super) fn warehouse(&self) -> &Path {
        &self.warehouse
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open(&self.path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // In WAL mode NORMAL may lose commits in a power cut: a pointer that was swapped must stay swapped.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(connection)
    }

    fn take(&self) -> rusqlite::Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
        idle.map_or_else(|| self.connect(), Ok)
    }

    fn put_back(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(connection);
    }

    /// Runs a transaction that only reads: one state of the whole file.
    pub(super) fn read<T>(&self, run: impl FnOnce(&Transaction<'_>) -> Answer<T>) -> Answer<T> {
        self.transact(TransactionBehavior::Deferred, run)
    }

    /// Runs a transaction that writes; it is kept only if this returns Ok.
    pub(super) fn write<T>(&self, run: impl FnOnce(&Transaction<'_>) -> Answer<T>) -> Answer<T> {
        self.transact(TransactionBehavior::Immediate, run)
    }

    fn transact<T>(&self, behavior: TransactionBehavior, run: impl FnOnce(&Transaction<'_>) -> Answer<T>) -> Answer<T> {
        let mut connection = self.take()?;
        let transaction = connection.transaction_with_behavior(behavior)?;
        let outcome = run(&transaction);
        match outcome {
            Ok(value) => {
                transaction.commit()?;
                self.put_back(connection);
                Ok(value)
            }
            Err(fault) => {
                if transaction.rollback().is_ok() {
                    self.put_back(connection);
                }
                Err(fault)
            }
        }
    }
}

/// Makes the tables in a new file. The version of the file's layout.
fn prepare(connection: &mut Connection) -> rusqlite::Result<i64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(version.max(1))
}

/// The struct in an entry's bytes.
pub(super) fn decode(bytes: &[u8]) -> Answer<Struct> {
    decode_struct(bytes, &Limits::default()).map_err(|error| Fault::meta(format!("an entry is damaged: {error}")))
}

pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// Hive keeps times of creation as 32-bit seconds.
pub(super) fn now_s() -> i32 {
    (now_ms() / 1000).min(i32::MAX.into()) as i32
}
