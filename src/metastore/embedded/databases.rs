//! Databases.

use std::path::Path;

use rusqlite::{OptionalExtension, Transaction, params};

use super::super::contract::fields::database;
use super::super::thrift::{Map, Struct, Type, encode_struct};
use super::super::types::CATALOG;
use super::fault::{Answer, Fault};
use super::names::{Pattern, is_valid_database, normal};
use super::store::{decode, now_s};
use super::{files, tables};

const DEFAULT: &str = "default";

pub(super) fn create_default(transaction: &Transaction<'_>, warehouse: &Path) -> Answer<()> {
    if find(transaction, DEFAULT)?.is_some() {
        return Ok(());
    }
    let entry = Struct::new()
        .with(database::NAME, DEFAULT)
        .with(database::DESCRIPTION, "Default Hive database")
        .with(database::LOCATION, files::location_of(warehouse));
    insert(transaction, DEFAULT, completed(entry))
}

/// Fills in what a server fills in.
fn completed(mut entry: Struct) -> Struct {
    if entry.map(database::PARAMETERS).is_none() {
        entry.set(database::PARAMETERS, Map::new(Type::String, Type::String, Vec::new()));
    }
    if entry.i32(database::OWNER_TYPE).is_none() {
        entry.set(database::OWNER_TYPE, 1);
    }
    entry.set(database::CATALOG, CATALOG);
    if entry.i32(database::CREATE_TIME).unwrap_or_default() == 0 {
        entry.set(database::CREATE_TIME, now_s());
    }
    entry.with(database::KIND, 1)
}

fn insert(transaction: &Transaction<'_>, name: &str, entry: Struct) -> Answer<()> {
    transaction.execute("INSERT INTO databases (name, entry) VALUES (?, ?)", params![name, encode_struct(&entry)])?;
    Ok(())
}

pub(super) fn find(transaction: &Transaction<'_>, name: &str) -> Answer<Option<Struct>> {
    let bytes: Option<Vec<u8>> =
        transaction.query_row("SELECT entry FROM databases WHERE name = ?", [name], |row| row.get(0)).optional()?;
    bytes.as_deref().map(decode).transpose()
}

pub(super) fn names(transaction: &Transaction<'_>, pattern: &str) -> Answer<Vec<String>> {
    let pattern = Pattern::new(pattern)?;
    let mut statement = transaction.prepare_cached("SELECT name FROM databases ORDER BY name")?;
    let all = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(all.into_iter().filter(|name| pattern.matches(name)).collect())
}

pub(super) fn get(transaction: &Transaction<'_>, name: &str) -> Answer<Struct> {
    let name = normal(name);
    find(transaction, &name)?.ok_or_else(|| Fault::no_such_object(format!("database {CATALOG}.{name}")))
}

pub(super) fn create(transaction: &Transaction<'_>, warehouse: &Path, entry: &Struct) -> Answer<()> {
    let name = normal(entry.text(database::NAME).unwrap_or_default());
    if !is_valid_database(&name) {
        return Err(Fault::invalid_object(format!("{name} is not a valid database name")));
    }
    if find(transaction, &name)?.is_some() {
        return Err(Fault::already_exists(format!("Database {name} already exists")));
    }
    let mut entry = completed(entry.clone().with(database::NAME, name.as_str()));
    if entry.text(database::LOCATION).unwrap_or_default().is_empty() {
        entry.set(database::LOCATION, files::location_of(&warehouse.join(format!("{name}.db"))));
    }
    files::create(entry.text(database::LOCATION).unwrap_or_default())?;
    insert(transaction, &name, entry)
}

pub(super) fn alter(transaction: &Transaction<'_>, name: &str, entry: &Struct) -> Answer<()> {
    let old = get(transaction, name)?;
    let name = normal(name);
    let mut entry = entry.clone().with(database::NAME, name.as_str());
    for field in [database::LOCATION, database::CREATE_TIME] {
        if entry.value(field).is_none()
            && let Some(value) = old.value(field)
        {
            entry.set(field, value.clone());
        }
    }
    transaction.execute("UPDATE databases SET entry = ? WHERE name = ?", params![encode_struct(&completed(entry)), name])?;
    Ok(())
}

/// Drops a database, and its tables if `cascade`. The directories that may go once this is committed.
pub(super) fn drop(transaction: &Transaction<'_>, name: &str, delete: bool, cascade: bool) -> Answer<Vec<String>> {
    let entry = get(transaction, name)?;
    let name = normal(name);
    if name == DEFAULT {
        return Err(Fault::meta("Can not drop default database in catalog hive"));
    }
    let members = tables::names(transaction, &name, "", None)?;
    if !members.is_empty() && !cascade {
        return Err(Fault::invalid_operation(format!("Database {name} is not empty. One or more tables exist.")));
    }
    let mut directories = Vec::new();
    for member in members {
        directories.extend(tables::drop(transaction, &name, &member, delete)?);
    }
    transaction.execute("DELETE FROM databases WHERE name = ?", [&name])?;
    if delete {
        directories.extend(entry.text(database::LOCATION).map(str::to_owned));
    }
    Ok(directories)
}
