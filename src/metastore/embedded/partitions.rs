//! Partitions. A name, with its values escaped, is a partition's key.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{OptionalExtension, Transaction, params};

use super::super::contract::fields::{partition, storage, table};
use super::super::thrift::{List, Struct, encode_struct};
use super::super::types::{CATALOG, EnvironmentContext};
use super::fault::{Answer, Fault};
use super::filter::Filter;
use super::names::{normal, normal_partition_name, partition_name, partition_values};
use super::store::{decode, now_s};
use super::tables::Kept;
use super::{files, statistics, tables};

/// What to do about a partition that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    Refuse,
    Keep,
}

/// All names of a table's partitions, in order.
pub(super) fn names(transaction: &Transaction<'_>, table_id: i64) -> Answer<Vec<String>> {
    let mut statement = transaction.prepare_cached("SELECT name FROM partitions WHERE table_id = ? ORDER BY name")?;
    Ok(statement.query_map([table_id], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

fn find(transaction: &Transaction<'_>, table_id: i64, name: &str) -> Answer<Option<Struct>> {
    let bytes: Option<Vec<u8>> = transaction
        .prepare_cached("SELECT entry FROM partitions WHERE table_id = ? AND name = ?")?
        .query_row(params![table_id, name], |row| row.get(0))
        .optional()?;
    bytes.as_deref().map(decode).transpose()
}

/// The entry as it is sent: the table may have another name by now.
fn shown(of: &Kept, entry: Struct) -> Struct {
    let name = |field| of.entry.text(field).unwrap_or_default().to_owned();
    entry
        .with(partition::DATABASE, name(table::DATABASE))
        .with(partition::TABLE, name(table::NAME))
        .with(partition::CATALOG, CATALOG)
}

/// The partitions of these names that exist.
pub(super) fn by_names(transaction: &Transaction<'_>, of: &Kept, names: &[String]) -> Answer<Vec<Struct>> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for name in names {
        let name = normal_partition_name(name)?;
        if seen.insert(name.clone()) {
            found.extend(find(transaction, of.id, &name)?.map(|entry| shown(of, entry)));
        }
    }
    Ok(found)
}

/// The first of a list; a negative number is all.
pub(super) fn first<T>(mut found: Vec<T>, max: i16) -> Vec<T> {
    found.truncate(usize::try_from(max).unwrap_or(usize::MAX));
    found
}

/// Names whose values are those given, as far as they are: an empty one, or none, is any.
pub(super) fn names_with(transaction: &Transaction<'_>, of: &Kept, values: &[String]) -> Answer<Vec<String>> {
    let mut found = Vec::new();
    for name in names(transaction, of.id)? {
        let there = partition_values(&name)?;
        if values.iter().enumerate().all(|(index, wanted)| wanted.is_empty() || there.get(index) == Some(wanted)) {
            found.push(name);
        }
    }
    Ok(found)
}

/// Names that a filter's text lets through.
pub(super) fn names_by_filter(transaction: &Transaction<'_>, of: &Kept, filter: &str) -> Answer<Vec<String>> {
    if filter.trim().is_empty() {
        return names(transaction, of.id);
    }
    let filter = Filter::parse(filter)?;
    let keys: Vec<String> = of.keys().iter().map(|key| key.to_lowercase()).collect();
    let place = |name: &str| keys.iter().position(|key| key.eq_ignore_ascii_case(name));
    if let Some(unknown) = filter.names().into_iter().find(|name| place(name).is_none()) {
        return Err(Fault::meta(format!("{unknown} is not a partitioning key for the table")));
    }
    let mut found = Vec::new();
    for name in names(transaction, of.id)? {
        let values = partition_values(&name)?;
        if filter.matches(&|key: &str| values.get(place(key)?).map(String::as_str)) {
            found.push(name);
        }
    }
    Ok(found)
}

/// The one partition of these values.
pub(super) fn get(transaction: &Transaction<'_>, of: &Kept, values: &[String]) -> Answer<Struct> {
    let missing = || Fault::no_such_object(format!("partition values={}", brackets(values)));
    let name = name_of(of, values).ok_or_else(missing)?;
    find(transaction, of.id, &name)?.map(|entry| shown(of, entry)).ok_or_else(missing)
}

fn brackets(values: &[String]) -> String {
    format!("[{}]", values.join(", "))
}

fn name_of(of: &Kept, values: &[String]) -> Option<String> {
    let keys = of.keys();
    (!keys.is_empty() && keys.len() == values.len()).then(|| partition_name(&keys, values))
}

fn values_of(entry: &Struct) -> Vec<String> {
    entry.list(partition::VALUES).map(List::to_texts).unwrap_or_default()
}

/// Adds partitions, all or none. Those added, as they are kept.
pub(super) fn add(
    transaction: &Transaction<'_>,
    database: &str,
    table: &str,
    entries: &[Struct],
    existing: Existing,
    environment: &EnvironmentContext,
) -> Answer<Vec<Struct>> {
    let (database, table) = (normal(database), normal(table));
    let missing = || {
        Fault::invalid_object(format!(
            "Unable to add partitions because database or table {CATALOG}.{database}.{table} does not exist"
        ))
    };
    let of = tables::find(transaction, &database, &table)?.ok_or_else(missing)?;
    let mut added = Vec::new();
    let mut seen = HashSet::new();
    for entry in entries {
        let values = values_of(entry);
        let name = name_of(&of, &values).ok_or_else(|| {
            let number = of.keys().len();
            Fault::meta(format!("Incorrect number of partition values. numPartKeys={number}, part_val={}", brackets(&values)))
        })?;
        if !seen.insert(name.clone()) {
            return Err(Fault::meta(format!("Duplicate partitions in the list: {name}")));
        }
        if find(transaction, of.id, &name)?.is_some() {
            match existing {
                Existing::Keep => continue,
                Existing::Refuse => {
                    return Err(Fault::already_exists(format!("Partition already exists: {database}.{table} {name}")));
                }
            }
        }
        let entry = new_entry(&of, &name, entry, environment)?;
        transaction.execute(
            "INSERT INTO partitions (table_id, name, entry) VALUES (?, ?, ?)",
            params![of.id, name, encode_struct(&entry)],
        )?;
        added.push(shown(&of, entry));
    }
    Ok(added)
}

fn new_entry(of: &Kept, name: &str, entry: &Struct, environment: &EnvironmentContext) -> Answer<Struct> {
    let mut entry = entry.clone();
    let of_table = of.entry.inner(table::STORAGE).cloned().unwrap_or_default();
    if entry.inner(partition::STORAGE).is_none() {
        let mut descriptor = of_table.clone();
        descriptor.remove(storage::LOCATION);
        entry.set(partition::STORAGE, descriptor);
    }
    let descriptor = entry.inner_mut(partition::STORAGE);
    if descriptor.list(storage::COLUMNS).is_none_or(|columns| columns.items().is_empty())
        && let Some(columns) = of_table.value(storage::COLUMNS)
    {
        descriptor.set(storage::COLUMNS, columns.clone());
    }
    if descriptor.text(storage::LOCATION).unwrap_or_default().is_empty() {
        descriptor.set(storage::LOCATION, files::join(of.location().unwrap_or_default(), name));
    }
    let location = descriptor.text(storage::LOCATION).unwrap_or_default().to_owned();
    let made = files::create(&location)?;
    if entry.i32(partition::CREATE_TIME).unwrap_or_default() == 0 {
        entry.set(partition::CREATE_TIME, now_s());
    }
    if entry.i32(partition::LAST_ACCESS_TIME).is_none() {
        entry.set(partition::LAST_ACCESS_TIME, 0);
    }
    if !made {
        statistics::update(&mut entry, partition::PARAMETERS, Some(&location), environment);
    }
    statistics::stamp(&mut entry, partition::PARAMETERS);
    Ok(entry)
}

/// Replaces entries of existing partitions, all or none.
pub(super) fn alter(
    transaction: &Transaction<'_>,
    database: &str,
    table: &str,
    entries: &[Struct],
    environment: &EnvironmentContext,
) -> Answer<()> {
    let (database, table) = (normal(database), normal(table));
    let of = tables::find(transaction, &database, &table)?.ok_or_else(|| {
        Fault::invalid_operation(format!(
            "Unable to alter partitions because table or database {CATALOG}.{database}.{table} does not exist"
        ))
    })?;
    let mut changes = BTreeMap::new();
    for entry in entries {
        let Some(name) = name_of(&of, &values_of(entry)) else { continue };
        if let Some(old) = find(transaction, of.id, &name)? {
            changes.insert(name, (old, entry));
        }
    }
    if changes.len() != entries.len() {
        return Err(Fault::invalid_operation(format!(
            "Alter partition operation failed: new parts size {} not matching with old parts size {}",
            entries.len(),
            changes.len()
        )));
    }
    for (name, (old, entry)) in changes {
        let entry = changed_entry(&old, entry, environment);
        transaction.execute(
            "UPDATE partitions SET entry = ? WHERE table_id = ? AND name = ?",
            params![encode_struct(&entry), of.id, name],
        )?;
    }
    Ok(())
}

fn changed_entry(old: &Struct, entry: &Struct, environment: &EnvironmentContext) -> Struct {
    let mut entry = entry.clone();
    let old_storage = old.inner(partition::STORAGE).cloned().unwrap_or_default();
    if entry.inner(partition::STORAGE).is_none() {
        entry.set(partition::STORAGE, old_storage.clone());
    }
    let descriptor = entry.inner_mut(partition::STORAGE);
    if descriptor.text(storage::LOCATION).unwrap_or_default().is_empty() {
        descriptor.set(storage::LOCATION, old_storage.text(storage::LOCATION).unwrap_or_default());
    }
    let location = descriptor.text(storage::LOCATION).unwrap_or_default().to_owned();
    if entry.i32(partition::CREATE_TIME).unwrap_or_default() == 0 {
        entry.set(partition::CREATE_TIME, old.i32(partition::CREATE_TIME).unwrap_or_default());
    }
    statistics::update(&mut entry, partition::PARAMETERS, Some(&location), environment);
    statistics::stamp(&mut entry, partition::PARAMETERS);
    entry
}

/// Gives all partitions of a table the table's columns.
pub(super) fn set_columns(transaction: &Transaction<'_>, table_id: i64, of: &Struct) -> Answer<()> {
    let Some(columns) = of.inner(table::STORAGE).and_then(|descriptor| descriptor.value(storage::COLUMNS)) else { return Ok(()) };
    for name in names(transaction, table_id)? {
        if let Some(mut entry) = find(transaction, table_id, &name)? {
            entry.inner_mut(partition::STORAGE).set(storage::COLUMNS, columns.clone());
            transaction.execute(
                "UPDATE partitions SET entry = ? WHERE table_id = ? AND name = ?",
                params![encode_struct(&entry), table_id, name],
            )?;
        }
    }
    Ok(())
}

/// Drops a partition by its name. The directory that may go once this is committed.
pub(super) fn drop(transaction: &Transaction<'_>, of: &Kept, name: &str, delete: bool) -> Answer<Option<String>> {
    let name = normal_partition_name(name)?;
    let missing = || Fault::no_such_object(format!("partition {name} of {CATALOG} table {} not found", of.id));
    let entry = find(transaction, of.id, &name)?.ok_or_else(missing)?;
    transaction.execute("DELETE FROM partitions WHERE table_id = ? AND name = ?", params![of.id, name])?;
    Ok((delete && of.owns_files()).then(|| location(&entry)).flatten())
}

/// The name of the partition with these values.
pub(super) fn existing_name(transaction: &Transaction<'_>, of: &Kept, values: &[String]) -> Answer<String> {
    get(transaction, of, values)?;
    name_of(of, values).ok_or_else(|| Fault::no_such_object(format!("partition values={}", brackets(values))))
}

fn location(entry: &Struct) -> Option<String> {
    entry.inner(partition::STORAGE)?.text(storage::LOCATION).map(str::to_owned)
}

pub(super) fn locations(transaction: &Transaction<'_>, table_id: i64) -> Answer<Vec<String>> {
    let mut found = Vec::new();
    for name in names(transaction, table_id)? {
        found.extend(find(transaction, table_id, &name)?.as_ref().and_then(location));
    }
    Ok(found)
}
