//! Calls about tables and views.

use super::super::super::contract::fields::{alter_table, create_table, drop_table, get_table, get_table_result};
use super::super::super::contract::fields::{get_tables, get_tables_result};
use super::super::super::thrift::{Struct, Value};
use super::super::super::types::EnvironmentContext;
use super::super::fault::Answer;
use super::super::store::Store;
use super::super::tables::{self, Expected};
use super::arguments::{Arguments, texts_of};
use super::{Outcome, delete_all, structs, texts};

pub(super) fn call(store: &Store, call: &Arguments<'_>) -> Option<Outcome> {
    Some(match call.method.name {
        "get_all_tables" => call.text(0).and_then(|database| names(store, database, "", None)),
        "get_tables" => call.text(0).and_then(|database| names(store, database, call.text(1)?, None)),
        "get_tables_by_type" => call.text(0).and_then(|database| names(store, database, call.text(1)?, Some(call.text(2)?))),
        "get_table_names_by_filter" => call.text(0).and_then(|database| {
            let (filter, max) = (call.text(1)?, call.max(2));
            store.read(|transaction| tables::names_by_filter(transaction, database, filter, max)).map(texts)
        }),
        "get_table_meta" => call.text(0).and_then(|database| {
            let (pattern, kinds) = (call.text(1)?, call.texts(2)?);
            store.read(|transaction| tables::meta(transaction, database, pattern, &kinds)).map(structs)
        }),
        "get_table" => call.text(0).and_then(|database| entry(store, database, call.text(1)?).map(|entry| Some(entry.into()))),
        "get_table_req" => call.inner(0).and_then(|request| {
            let entry = entry(store, call.need(request, get_table::DATABASE)?, call.need(request, get_table::TABLE)?)?;
            Ok(Some(Struct::new().with(get_table_result::ENTRY, entry).into()))
        }),
        "get_table_objects_by_name" => call.text(0).and_then(|database| entries(store, database, &call.texts(1)?).map(structs)),
        "get_table_objects_by_name_req" => call.inner(0).and_then(|request| objects(store, request)),
        "create_table" => call.inner(0).and_then(|entry| create(store, entry, EnvironmentContext::new())),
        "create_table_with_environment_context" => {
            call.inner(0).and_then(|entry| create(store, entry, environment(call.inner(1).ok())))
        }
        "create_table_req" => call.inner(0).and_then(|request| {
            create(store, call.need_inner(request, create_table::ENTRY)?, environment(request.inner(create_table::ENVIRONMENT)))
        }),
        "alter_table" => alter_positional(store, call, EnvironmentContext::new()),
        "alter_table_with_environment_context" => alter_positional(store, call, environment(call.inner(3).ok())),
        "alter_table_with_cascade" => {
            let cascade = if call.flag(3) { "true" } else { "false" };
            alter_positional(store, call, EnvironmentContext::new().with("CASCADE", cascade))
        }
        "alter_table_req" => call.inner(0).and_then(|request| alter_requested(store, call, request)),
        "drop_table" | "drop_table_with_environment_context" => {
            call.text(0).and_then(|database| drop(store, database, call.text(1)?, call.flag(2)))
        }
        "drop_table_req" => call.inner(0).and_then(|request| {
            let delete = request.flag(drop_table::DELETE_DATA).unwrap_or_default();
            drop(store, call.need(request, drop_table::DATABASE)?, call.need(request, drop_table::TABLE)?, delete)
        }),
        _ => return None,
    })
}

fn environment(sent: Option<&Struct>) -> EnvironmentContext {
    sent.map(EnvironmentContext::from_struct).unwrap_or_default()
}

fn names(store: &Store, database: &str, pattern: &str, kind: Option<&str>) -> Outcome {
    store.read(|transaction| tables::names(transaction, database, pattern, kind)).map(texts)
}

fn entry(store: &Store, database: &str, name: &str) -> Answer<Struct> {
    store.read(|transaction| tables::get(transaction, database, name)).map(|kept| kept.entry)
}

fn entries(store: &Store, database: &str, names: &[String]) -> Answer<Vec<Struct>> {
    store.read(|transaction| tables::of_names(transaction, database, names))
}

/// By names, or by a pattern when there are no names. A projection is a permission to send less; all is sent.
fn objects(store: &Store, request: &Struct) -> Outcome {
    let database = request.text(get_tables::DATABASE).unwrap_or_default();
    let found = store.read(|transaction| {
        let names = match request.list(get_tables::TABLES) {
            Some(_) => texts_of(request, get_tables::TABLES),
            None => tables::names(transaction, database, request.text(get_tables::TABLES_PATTERN).unwrap_or_default(), None)?,
        };
        tables::of_names(transaction, database, &names)
    })?;
    Ok(Some(Struct::new().with(get_tables_result::TABLES, found).into()))
}

fn create(store: &Store, entry: &Struct, environment: EnvironmentContext) -> Outcome {
    store.write(|transaction| tables::create(transaction, entry, environment)).map(|()| None)
}

fn alter_positional(store: &Store, call: &Arguments<'_>, environment: EnvironmentContext) -> Outcome {
    alter(store, call.text(0)?, call.text(1)?, call.inner(2)?, environment, None).map(|()| None)
}

fn alter_requested(store: &Store, call: &Arguments<'_>, request: &Struct) -> Outcome {
    let (database, name) = (call.need(request, alter_table::DATABASE)?, call.need(request, alter_table::TABLE)?);
    let expected = request.text(alter_table::EXPECTED_PARAMETER_KEY).zip(request.text(alter_table::EXPECTED_PARAMETER_VALUE));
    let environment = environment(request.inner(alter_table::ENVIRONMENT));
    alter(store, database, name, call.need_inner(request, alter_table::ENTRY)?, environment, expected)?;
    // `AlterTableResponse` has no fields.
    Ok(Some(Value::Struct(Struct::new())))
}

/// What is expected of a parameter comes in the request or, as the older clients send it, in the environment.
fn alter(
    store: &Store,
    database: &str,
    name: &str,
    entry: &Struct,
    environment: EnvironmentContext,
    expected: Option<(&str, &str)>,
) -> Answer<()> {
    let sent = (environment.get(EnvironmentContext::EXPECTED_KEY), environment.get(EnvironmentContext::EXPECTED_VALUE));
    let sent = sent.0.zip(sent.1).map(|(key, value)| (key.to_owned(), value.to_owned()));
    let expected = expected.or(sent.as_ref().map(|(key, value)| (key.as_str(), value.as_str())));
    let expected = expected.map(|(key, value)| Expected { key, value });
    store.write(|transaction| tables::alter(transaction, database, name, entry, environment, expected))
}

fn drop(store: &Store, database: &str, name: &str, delete: bool) -> Outcome {
    let directories = store.write(|transaction| tables::drop(transaction, database, name, delete))?;
    delete_all(store, directories);
    Ok(None)
}
