//! Tables and views.

use rusqlite::{OptionalExtension, Transaction, params};

use super::super::contract::fields::{database, storage, table, table_meta};
use super::super::thrift::{Map, Struct, encode_struct};
use super::super::types::{CATALOG, EnvironmentContext, HiveTable};
use super::fault::{Answer, Fault};
use super::filter::Filter;
use super::names::{Pattern, is_valid_table, normal};
use super::store::{decode, now_s};
use super::{databases, files, partitions, statistics};

const MANAGED: &str = "MANAGED_TABLE";

/// A table as it is kept.
pub(super) struct Kept {
    pub id: i64,
    pub entry: Struct,
}

impl Kept {
    pub fn location(&self) -> Option<&str> {
        self.entry.inner(table::STORAGE).and_then(|descriptor| descriptor.text(storage::LOCATION))
    }

    pub fn keys(&self) -> Vec<String> {
        keys(&self.entry)
    }

    /// Whether dropping it with its data deletes files: not those of an external table, unless it says so.
    pub fn owns_files(&self) -> bool {
        let purge = self.entry.map(table::PARAMETERS).and_then(|map| map.text("external.table.purge"));
        !is_view(&self.entry) && purge.is_some_and(|purge| purge.eq_ignore_ascii_case("true"))
    }
}

fn keys(entry: &Struct) -> Vec<String> {
    HiveTable::from_entry(entry.clone()).partition_keys().into_iter().map(|key| key.name).collect()
}

fn is_view(entry: &Struct) -> bool {
    matches!(entry.text(table::TABLE_TYPE), Some("VIRTUAL_VIEW" | "MATERIALIZED_VIEW"))
}

pub(super) fn find(transaction: &Transaction<'_>, database: &str, name: &str) -> Answer<Option<Kept>> {
    let row: Option<(i64, Vec<u8>)> = transaction
        .prepare_cached("SELECT id, entry FROM tables WHERE database = ? AND name = ?")?
        .query_row([database, name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    row.map(|(id, bytes)| Ok(Kept { id, entry: decode(&bytes)?.with(table::ID, id) })).transpose()
}

pub(super) fn get(transaction: &Transaction<'_>, database: &str, name: &str) -> Answer<Kept> {
    let (database, name) = (normal(database), normal(name));
    let missing = || Fault::no_such_object(format!("{CATALOG}.{database}.{name} table not found"));
    find(transaction, &database, &name)?.ok_or_else(missing)
}

/// Names in a database by pattern, of one type if given.
pub(super) fn names(transaction: &Transaction<'_>, database: &str, pattern: &str, kind: Option<&str>) -> Answer<Vec<String>> {
    let pattern = Pattern::new(pattern)?;
    let mut statement =
        transaction.prepare_cached("SELECT name FROM tables WHERE database = ?1 AND (?2 IS NULL OR kind = ?2) ORDER BY name")?;
    let found =
        statement.query_map(params![normal(database), kind], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(found.into_iter().filter(|name| pattern.matches(name)).collect())
}

/// The tables of these names that exist.
pub(super) fn of_names(transaction: &Transaction<'_>, database: &str, names: &[String]) -> Answer<Vec<Struct>> {
    let database = normal(database);
    let mut found = Vec::new();
    for name in names {
        found.extend(find(transaction, &database, &normal(name))?.map(|kept| kept.entry));
    }
    Ok(found)
}

/// Names by Hive's table filter: parameters, owner and last access, under their prefixed names.
pub(super) fn names_by_filter(transaction: &Transaction<'_>, database: &str, filter: &str, max: i16) -> Answer<Vec<String>> {
    let filter = Filter::parse(filter)?;
    let all = names(transaction, database, "", None)?;
    let mut found = Vec::new();
    for entry in of_names(transaction, database, &all)? {
        let access = entry.i32(table::LAST_ACCESS_TIME).unwrap_or_default().to_string();
        let value = |name: &str| match name {
            "hive_filter_field_owner__" => entry.text(table::OWNER),
            "hive_filter_field_last_access__" => Some(access.as_str()),
            _ => entry.map(table::PARAMETERS)?.text(name.strip_prefix("hive_filter_field_params__")?),
        };
        if filter.matches(&value) {
            found.extend(entry.text(table::NAME).map(str::to_owned));
        }
    }
    found.truncate(usize::try_from(max).unwrap_or(usize::MAX));
    Ok(found)
}

/// What Trino and HiveServer2 list: names, types and comments over databases.
pub(super) fn meta(transaction: &Transaction<'_>, database: &str, pattern: &str, kinds: &[String]) -> Answer<Vec<Struct>> {
    let mut found = Vec::new();
    for database in databases::names(transaction, database)? {
        let names = names(transaction, &database, pattern, None)?;
        for entry in of_names(transaction, &database, &names)? {
            let kind = entry.text(table::TABLE_TYPE).unwrap_or_default();
            if !kinds.is_empty() && !kinds.iter().any(|wanted| wanted == kind) {
                continue;
            }
            let mut line = Struct::new()
                .with(table_meta::DATABASE, database.as_str())
                .with(table_meta::TABLE, entry.text(table::NAME).unwrap_or_default())
                .with(table_meta::TABLE_TYPE, kind);
            if let Some(comment) = entry.map(table::PARAMETERS).and_then(|map| map.text("comment")) {
                line.set(table_meta::COMMENTS, comment);
            }
            line.set(table_meta::CATALOG, CATALOG);
            if let Some(owner) = entry.text(table::OWNER) {
                line = line.with(table_meta::OWNER_NAME, owner).with(table_meta::OWNER_TYPE, 1);
            }
            found.push(line);
        }
    }
    Ok(found)
}

pub(super) fn create(transaction: &Transaction<'_>, entry: &Struct, environment: EnvironmentContext) -> Answer<()> {
    let (database, name) = full_name(entry)?;
    let home = databases::find(transaction, &database)?
        .ok_or_else(|| Fault::invalid_object(format!("database {CATALOG}.{database}")))?;
    if find(transaction, &database, &name)?.is_some() {
        return Err(Fault::already_exists(format!("Table {CATALOG}.{database}.{name} already exists")));
    }
    let mut entry = entry.clone();
    let environment = statistics::take_wish(&mut entry, table::PARAMETERS, environment);
    translate_managed(&mut entry);
    if !is_view(&entry) {
        let descriptor = entry.inner_mut(table::STORAGE);
        if descriptor.text(storage::LOCATION).unwrap_or_default().is_empty() {
            descriptor.set(storage::LOCATION, files::join(home.text(database::LOCATION).unwrap_or_default(), &name));
        }
        let location = descriptor.text(storage::LOCATION).unwrap_or_default().to_owned();
        files::create(&location)?;
        let counted = keys(&entry).is_empty().then_some(location.as_str());
        statistics::update(&mut entry, table::PARAMETERS, counted, &environment);
    }
    if entry.i32(table::CREATE_TIME).unwrap_or_default() == 0 {
        entry.set(table::CREATE_TIME, now_s());
    }
    statistics::stamp(&mut entry, table::PARAMETERS);
    let entry = completed(entry, &database, &name);
    transaction.execute(
        "INSERT INTO tables (database, name, kind, entry) VALUES (?, ?, ?, ?)",
        params![database, name, entry.text(table::TABLE_TYPE), encode_struct(&entry)],
    )?;
    Ok(())
}

fn full_name(entry: &Struct) -> Answer<(String, String)> {
    let database = normal(entry.text(table::DATABASE).unwrap_or_default());
    let name = normal(entry.text(table::NAME).unwrap_or_default());
    if is_valid_table(&name) {
        Ok((database, name))
    } else {
        Err(Fault::invalid_object(format!("{name} is not a valid object name")))
    }
}

/// Clients that announce no capabilities get external tables from a 4.0 server, whatever they asked for.
fn translate_managed(entry: &mut Struct) {
    match entry.text(table::TABLE_TYPE) {
        Some(kind) if kind != MANAGED => return,
        _ => entry.set(table::TABLE_TYPE, HiveTable::EXTERNAL),
    }
    let parameters = entry.map_mut(table::PARAMETERS);
    if parameters.text("EXTERNAL").is_none_or(|external| !external.eq_ignore_ascii_case("true")) {
        for key in ["EXTERNAL", "external.table.purge", "TRANSLATED_TO_EXTERNAL"] {
            parameters.put_text(key, "TRUE");
        }
    }
}

/// Fills in what a server fills in.
fn completed(mut entry: Struct, database: &str, name: &str) -> Struct {
    entry.set(table::NAME, name);
    entry.set(table::DATABASE, database);
    for field in [table::LAST_ACCESS_TIME, table::RETENTION] {
        if entry.value(field).is_none() {
            entry.set(field, 0);
        }
    }
    if entry.list(table::PARTITION_KEYS).is_none() {
        entry.set(table::PARTITION_KEYS, Vec::new());
    }
    if entry.flag(table::REWRITE_ENABLED).is_none() {
        entry.set(table::REWRITE_ENABLED, false);
    }
    entry.set(table::CATALOG, CATALOG);
    if entry.i32(table::OWNER_TYPE).is_none() {
        entry.set(table::OWNER_TYPE, 1);
    }
    if entry.i64(table::WRITE_ID).is_none_or(|id| id < 0) {
        entry.set(table::WRITE_ID, 0i64);
    }
    entry.remove(table::ID);
    entry
}

/// What an alter expects of a parameter of the table.
pub(super) struct Expected<'a> {
    pub key: &'a str,
    pub value: &'a str,
}

/// Replaces a table's entry, if a parameter has the expected value. The check and the change are one transaction.
pub(super) fn alter(
    transaction: &Transaction<'_>,
    database: &str,
    name: &str,
    entry: &Struct,
    environment: EnvironmentContext,
    expected: Option<Expected<'_>>,
) -> Answer<()> {
    let (old_database, old_name) = (normal(database), normal(name));
    let missing = || Fault::invalid_operation(format!("table {CATALOG}.{old_database}.{old_name} doesn't exist"));
    let old = find(transaction, &old_database, &old_name)?.ok_or_else(missing)?;
    if let Some(Expected { key, value }) = expected {
        check_expected(&old.entry, key, value)?;
    }
    let (database, name) = full_name(entry)?;
    if (&database, &name) != (&old_database, &old_name) {
        check_free(transaction, &database, &name)?;
    }
    check_keys(transaction, &old, entry)?;
    let mut entry = entry.clone();
    let environment = statistics::take_wish(&mut entry, table::PARAMETERS, environment);
    if entry.text(table::TABLE_TYPE).is_none() {
        entry.set(table::TABLE_TYPE, old.entry.text(table::TABLE_TYPE).unwrap_or(HiveTable::EXTERNAL));
    }
    if entry.i32(table::CREATE_TIME).unwrap_or_default() == 0 {
        entry.set(table::CREATE_TIME, old.entry.i32(table::CREATE_TIME).unwrap_or_default());
    }
    if !is_view(&entry) {
        let descriptor = entry.inner_mut(table::STORAGE);
        if descriptor.text(storage::LOCATION).unwrap_or_default().is_empty() {
            descriptor.set(storage::LOCATION, old.location().unwrap_or_default());
        }
        let location = descriptor.text(storage::LOCATION).unwrap_or_default().to_owned();
        let counted = keys(&entry).is_empty().then_some(location.as_str());
        statistics::update(&mut entry, table::PARAMETERS, counted, &environment);
    }
    statistics::stamp(&mut entry, table::PARAMETERS);
    if environment.get("CASCADE").is_some_and(|cascade| cascade.eq_ignore_ascii_case("true")) {
        partitions::set_columns(transaction, old.id, &entry)?;
    }
    let entry = completed(entry, &database, &name);
    transaction.execute(
        "UPDATE tables SET database = ?, name = ?, kind = ?, entry = ? WHERE id = ?",
        params![database, name, entry.text(table::TABLE_TYPE), encode_struct(&entry), old.id],
    )?;
    Ok(())
}

/// The words are Hive's, its mistake included: writers recognise a conflict by them.
fn check_expected(old: &Struct, key: &str, value: &str) -> Answer<()> {
    let found = old.map(table::PARAMETERS).and_then(|map: &Map| map.text(key));
    if found == Some(value) {
        return Ok(());
    }
    let found = found.unwrap_or("null");
    Err(Fault::meta(format!(
        "The table has been modified. The parameter value for key '{key}' is '{found}'. The expected was value was '{value}'"
    )))
}

fn check_free(transaction: &Transaction<'_>, database: &str, name: &str) -> Answer<()> {
    if databases::find(transaction, database)?.is_none() {
        return Err(Fault::invalid_operation(format!("Unable to change database: {CATALOG}.{database} does not exist")));
    }
    match find(transaction, database, name)? {
        Some(_) => Err(Fault::invalid_operation(format!("new table {CATALOG}.{database}.{name} already exists"))),
        None => Ok(()),
    }
}

fn check_keys(transaction: &Transaction<'_>, old: &Kept, new: &Struct) -> Answer<()> {
    if old.keys() != keys(new) && !partitions::names(transaction, old.id)?.is_empty() {
        return Err(Fault::invalid_operation("partition keys can not be changed."));
    }
    Ok(())
}

/// Drops a table. The directories that may go once this is committed.
pub(super) fn drop(transaction: &Transaction<'_>, database: &str, name: &str, delete: bool) -> Answer<Vec<String>> {
    let kept = get(transaction, database, name)?;
    let mut directories = Vec::new();
    if delete && kept.owns_files() {
        directories.extend(kept.location().map(str::to_owned));
        directories.extend(partitions::locations(transaction, kept.id)?);
    }
    transaction.execute("DELETE FROM tables WHERE id = ?", [kept.id])?;
    Ok(directories)
}
