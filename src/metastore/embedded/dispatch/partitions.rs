//! Calls about partitions.

use rusqlite::Transaction;

use super::super::super::contract::Exception;
use super::super::super::contract::fields::{add_partitions, add_partitions_result, alter_partitions, drop_partition};
use super::super::super::contract::fields::{drop_partitions, drop_partitions_result, get_partition, get_partition_response};
use super::super::super::contract::fields::{
    partition, partition_names, partition_names_ps, partition_names_ps_response, storage,
};
use super::super::super::contract::fields::{partitions as all, partitions_by_filter, partitions_by_names, partitions_ps};
use super::super::super::contract::fields::{partitions_by_names_result, partitions_ps_response, partitions_response};
use super::super::super::thrift::{Field, Struct, Value};
use super::super::super::types::EnvironmentContext;
use super::super::fault::{Answer, Fault};
use super::super::names::partition_values;
use super::super::partitions::{self, Existing, first};
use super::super::store::Store;
use super::super::tables::{self, Kept};
use super::arguments::{Arguments, texts_of};
use super::{Outcome, delete_all, structs, texts};

pub(super) fn call(store: &Store, call: &Arguments<'_>) -> Option<Outcome> {
    reads(store, call).or_else(|| requested_reads(store, call)).or_else(|| writes(store, call)).or_else(|| drops(store, call))
}

/// Which partitions of a table are asked for.
enum Which<'a> {
    All,
    Named(Vec<String>),
    /// A prefix of the values; an empty one is any.
    WithValues(Vec<String>),
    Filtered(&'a str),
}

impl Which<'_> {
    fn names(self, transaction: &Transaction<'_>, of: &Kept) -> Answer<Vec<String>> {
        match self {
            Which::All => partitions::names(transaction, of.id),
            Which::Named(names) => Ok(names),
            Which::WithValues(values) => partitions::names_with(transaction, of, &values),
            Which::Filtered(filter) => partitions::names_by_filter(transaction, of, filter),
        }
    }
}

fn names_of(store: &Store, (database, table): (&str, &str), which: Which<'_>, max: i16) -> Answer<Vec<String>> {
    store.read(|transaction| {
        let of = tables::get(transaction, database, table)?;
        Ok(first(which.names(transaction, &of)?, max))
    })
}

/// All names. Of a table that does not exist there are none: so says a 4.0 server, here and nowhere else.
fn all_names(store: &Store, table: (&str, &str), max: i16) -> Answer<Vec<String>> {
    match names_of(store, table, Which::All, max) {
        Err(Fault::Thrown(Exception::NoSuchObject, _)) => Ok(Vec::new()),
        names => names,
    }
}

fn entries_of(store: &Store, (database, table): (&str, &str), which: Which<'_>, max: i16) -> Answer<Vec<Struct>> {
    store.read(|transaction| {
        let of = tables::get(transaction, database, table)?;
        let names = first(which.names(transaction, &of)?, max);
        partitions::by_names(transaction, &of, &names)
    })
}

fn entry_of(store: &Store, (database, table): (&str, &str), values: &[String]) -> Answer<Struct> {
    store.read(|transaction| partitions::get(transaction, &tables::get(transaction, database, table)?, values))
}

fn reads(store: &Store, call: &Arguments<'_>) -> Option<Outcome> {
    let table = || Ok::<_, Fault>((call.text(0)?, call.text(1)?));
    Some(match call.method.name {
        "get_partition_names" => table().and_then(|table| all_names(store, table, call.max(2)).map(texts)),
        "get_partition_names_ps" => {
            table().and_then(|table| names_of(store, table, Which::WithValues(call.texts(2)?), call.max(3)).map(texts))
        }
        "get_partitions" | "get_partitions_with_auth" => {
            table().and_then(|table| entries_of(store, table, Which::All, call.max(2)).map(structs))
        }
        "get_partitions_ps" | "get_partitions_ps_with_auth" => {
            table().and_then(|table| entries_of(store, table, Which::WithValues(call.texts(2)?), call.max(3)).map(structs))
        }
        "get_partitions_by_names" => {
            table().and_then(|table| entries_of(store, table, Which::Named(call.texts(2)?), -1).map(structs))
        }
        "get_partitions_by_filter" => {
            table().and_then(|table| entries_of(store, table, Which::Filtered(call.text(2)?), call.max(3)).map(structs))
        }
        "get_partition" | "get_partition_with_auth" => {
            table().and_then(|table| Ok(Some(entry_of(store, table, &call.texts(2)?)?.into())))
        }
        "get_partition_by_name" => {
            table().and_then(|table| Ok(Some(entry_of(store, table, &partition_values(call.text(2)?)?)?.into())))
        }
        _ => return None,
    })
}

fn wrapped(field: Field, value: impl Into<Value>) -> Option<Value> {
    Some(Struct::new().with(field, value).into())
}

fn requested_reads(store: &Store, call: &Arguments<'_>) -> Option<Outcome> {
    let request = call.inner(0);
    let table = |request, database, table| Ok::<_, Fault>((call.need(request, database)?, call.need(request, table)?));
    let max = |request: &Struct, field| request.i16(field).unwrap_or(-1);
    Some(match call.method.name {
        "fetch_partition_names_req" => request.and_then(|request| {
            let table = table(request, all::DATABASE, all::TABLE)?;
            all_names(store, table, max(request, all::MAX)).map(texts)
        }),
        "get_partitions_req" => request.and_then(|request| {
            let table = table(request, all::DATABASE, all::TABLE)?;
            let found = entries_of(store, table, Which::All, max(request, all::MAX))?;
            Ok(wrapped(partitions_response::PARTITIONS, found))
        }),
        "get_partition_names_ps_req" => request.and_then(|request| {
            let table = table(request, partition_names_ps::DATABASE, partition_names_ps::TABLE)?;
            let which = Which::WithValues(texts_of(request, partition_names_ps::VALUES));
            let found = names_of(store, table, which, max(request, partition_names_ps::MAX))?;
            Ok(wrapped(partition_names_ps_response::NAMES, found.as_slice()))
        }),
        "get_partitions_ps_with_auth_req" => request.and_then(|request| {
            let table = table(request, partitions_ps::DATABASE, partitions_ps::TABLE)?;
            // Spark's 4.0 client names the partitions instead of giving values.
            let which = match request.list(partitions_ps::NAMES) {
                Some(names) => Which::Named(names.to_texts()),
                None => Which::WithValues(texts_of(request, partitions_ps::VALUES)),
            };
            let found = entries_of(store, table, which, max(request, partitions_ps::MAX))?;
            Ok(wrapped(partitions_ps_response::PARTITIONS, found))
        }),
        "get_partitions_by_names_req" => request.and_then(|request| {
            let table = table(request, partitions_by_names::DATABASE, partitions_by_names::TABLE)?;
            let found = entries_of(store, table, Which::Named(texts_of(request, partitions_by_names::NAMES)), -1)?;
            Ok(wrapped(partitions_by_names_result::PARTITIONS, found))
        }),
        "get_partitions_by_filter_req" => request.and_then(|request| {
            let table = table(request, partitions_by_filter::DATABASE, partitions_by_filter::TABLE)?;
            let which = Which::Filtered(request.text(partitions_by_filter::FILTER).unwrap_or_default());
            entries_of(store, table, which, max(request, partitions_by_filter::MAX)).map(structs)
        }),
        "get_partition_req" => request.and_then(|request| {
            let table = table(request, get_partition::DATABASE, get_partition::TABLE)?;
            let found = entry_of(store, table, &texts_of(request, get_partition::VALUES))?;
            Ok(wrapped(get_partition_response::PARTITION, found))
        }),
        _ => return None,
    })
}

fn environment(sent: Option<&Struct>) -> EnvironmentContext {
    sent.map(EnvironmentContext::from_struct).unwrap_or_default()
}

fn writes(store: &Store, call: &Arguments<'_>) -> Option<Outcome> {
    let alter = |entries: Vec<Struct>, environment: &EnvironmentContext| -> Outcome {
        let (database, table) = (call.text(0)?, call.text(1)?);
        store.write(|transaction| partitions::alter(transaction, database, table, &entries, environment)).map(|()| None)
    };
    let none = EnvironmentContext::new();
    Some(match call.method.name {
        "add_partition" => call.inner(0).and_then(|entry| add_one(store, entry, &none)),
        "add_partition_with_environment_context" => {
            call.inner(0).and_then(|entry| add_one(store, entry, &environment(call.inner(1).ok())))
        }
        "add_partitions" => call.structs(0).and_then(|entries| {
            let added = add(store, &entries, Existing::Refuse, &none)?;
            Ok(Some(Value::I32(added.len().try_into().unwrap_or(i32::MAX))))
        }),
        "add_partitions_req" => call.inner(0).and_then(|request| add_requested(store, call, request)),
        "alter_partition" => call.inner(2).and_then(|entry| alter(vec![entry.clone()], &none)),
        "alter_partition_with_environment_context" => {
            call.inner(2).and_then(|entry| alter(vec![entry.clone()], &environment(call.inner(3).ok())))
        }
        "alter_partitions" => call.structs(2).and_then(|entries| alter(entries, &none)),
        "alter_partitions_with_environment_context" => {
            call.structs(2).and_then(|entries| alter(entries, &environment(call.inner(3).ok())))
        }
        "alter_partitions_req" => call.inner(0).and_then(|request| {
            let (database, table) =
                (call.need(request, alter_partitions::DATABASE)?, call.need(request, alter_partitions::TABLE)?);
            let entries: Vec<Struct> = request.structs(alter_partitions::PARTITIONS).cloned().collect();
            let environment = environment(request.inner(alter_partitions::ENVIRONMENT));
            store.write(|transaction| partitions::alter(transaction, database, table, &entries, &environment))?;
            // `AlterPartitionsResponse` has no fields.
            Ok(Some(Value::Struct(Struct::new())))
        }),
        _ => return None,
    })
}

fn add(store: &Store, entries: &[Struct], existing: Existing, environment: &EnvironmentContext) -> Answer<Vec<Struct>> {
    let Some(first) = entries.first() else { return Ok(Vec::new()) };
    let name = |field| first.text(field).unwrap_or_default();
    let (database, table) = (name(partition::DATABASE), name(partition::TABLE));
    store.write(|transaction| partitions::add(transaction, database, table, entries, existing, environment))
}

fn add_one(store: &Store, entry: &Struct, environment: &EnvironmentContext) -> Outcome {
    let mut added = add(store, std::slice::from_ref(entry), Existing::Refuse, environment)?;
    Ok(added.pop().map(Value::Struct))
}

fn add_requested(store: &Store, call: &Arguments<'_>, request: &Struct) -> Outcome {
    let (database, table) = (call.need(request, add_partitions::DATABASE)?, call.need(request, add_partitions::TABLE)?);
    let mut entries: Vec<Struct> = request.structs(add_partitions::PARTITIONS).cloned().collect();
    // 4.x clients may send the columns once, beside partitions without them.
    if let Some(columns) = request.value(add_partitions::PARTITION_COL_SCHEMA) {
        for descriptor in entries.iter_mut().map(|entry| entry.inner_mut(partition::STORAGE)) {
            if descriptor.list(storage::COLUMNS).is_none_or(|columns| columns.items().is_empty()) {
                descriptor.set(storage::COLUMNS, columns.clone());
            }
        }
    }
    let if_not_exists = request.flag(add_partitions::IF_NOT_EXISTS).unwrap_or_default();
    let existing = if if_not_exists { Existing::Keep } else { Existing::Refuse };
    let environment = environment(request.inner(add_partitions::ENVIRONMENT));
    let added = store.write(|transaction| partitions::add(transaction, database, table, &entries, existing, &environment))?;
    let mut result = Struct::new();
    if request.flag(add_partitions::NEED_RESULT).unwrap_or(true) {
        result.set(add_partitions_result::PARTITIONS, added);
    }
    Ok(Some(result.into()))
}

fn drops(store: &Store, call: &Arguments<'_>) -> Option<Outcome> {
    Some(match call.method.name {
        "drop_partition" | "drop_partition_with_environment_context" => {
            call.texts(2).and_then(|values| drop_one(store, (call.text(0)?, call.text(1)?), &One::Values(values), call.flag(3)))
        }
        "drop_partition_by_name" | "drop_partition_by_name_with_environment_context" => call
            .text(2)
            .and_then(|name| drop_one(store, (call.text(0)?, call.text(1)?), &One::Name(name.to_owned()), call.flag(3))),
        "drop_partition_req" => call.inner(0).and_then(|request| {
            let table = (call.need(request, drop_partition::DATABASE)?, call.need(request, drop_partition::TABLE)?);
            let one = match request.text(drop_partition::NAME).filter(|name| !name.is_empty()) {
                Some(name) => One::Name(name.to_owned()),
                None => One::Values(texts_of(request, drop_partition::VALUES)),
            };
            drop_one(store, table, &one, request.flag(drop_partition::DELETE_DATA).unwrap_or_default())
        }),
        "drop_partitions_req" => call.inner(0).and_then(|request| drop_requested(store, call, request)),
        _ => return None,
    })
}

/// How a client says which partition it means.
enum One {
    Name(String),
    Values(Vec<String>),
}

fn drop_one(store: &Store, (database, table): (&str, &str), one: &One, delete: bool) -> Outcome {
    let directory = store.write(|transaction| {
        let of = tables::get(transaction, database, table)?;
        let name = match one {
            One::Name(name) => name.clone(),
            One::Values(values) => partitions::existing_name(transaction, &of, values)?,
        };
        partitions::drop(transaction, &of, &name, delete)
    })?;
    delete_all(store, directory);
    Ok(Some(true.into()))
}

/// By names. The other way of saying which, serialised expressions of a JVM, cannot be read here.
fn drop_requested(store: &Store, call: &Arguments<'_>, request: &Struct) -> Outcome {
    let (database, table) = (call.need(request, drop_partitions::DATABASE)?, call.need(request, drop_partitions::TABLE)?);
    let which = call.need_inner(request, drop_partitions::WHICH)?;
    if which.list(partition_names::NAMES).is_none() {
        return Err(Fault::meta("this metastore drops partitions by name only, not by a serialised expression"));
    }
    let names = texts_of(which, partition_names::NAMES);
    let (if_exists, delete) =
        (request.flag(drop_partitions::IF_EXISTS).unwrap_or(true), request.flag(drop_partitions::DELETE_DATA));
    let (dropped, directories) = store.write(|transaction| {
        let of = tables::get(transaction, database, table)?;
        let dropped = partitions::by_names(transaction, &of, &names)?;
        if dropped.len() < names.len() && !if_exists {
            return Err(Fault::no_such_object("Some partitions to drop are missing"));
        }
        let mut directories = Vec::new();
        for entry in &dropped {
            let name = partitions::existing_name(transaction, &of, &texts_of(entry, partition::VALUES))?;
            directories.extend(partitions::drop(transaction, &of, &name, delete.unwrap_or_default())?);
        }
        Ok((dropped, directories))
    })?;
    delete_all(store, directories);
    let mut result = Struct::new();
    if request.flag(drop_partitions::NEED_RESULT).unwrap_or(true) {
        result.set(drop_partitions_result::PARTITIONS, dropped);
    }
    Ok(Some(result.into()))
}
