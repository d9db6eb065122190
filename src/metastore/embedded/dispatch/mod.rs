//! From a call to the operation behind it: old method names and `_req` names onto the same ones.

mod arguments;
mod partitions;
mod tables;

use super::super::contract::fields::{alter_database, create_database, database, drop_database, get_database};
use super::super::contract::fields::{check_lock, heartbeat, show_locks, show_locks_response, unlock};
use super::super::contract::{Exception, Method};
use super::super::thrift::{List, Message, MessageKind, Struct, Value};
use super::super::types::{LockRequest, ShownLock};
use super::fault::{Answer, Fault};
use super::store::Store;
use super::{databases, files, fixed, locks};
use arguments::Arguments;

/// The result of a method; none for `void`.
type Outcome = Answer<Option<Value>>;

/// Answers a call.
pub(super) fn dispatch(store: &Store, call: &Message) -> Message {
    let method = Method::by_name(&call.name);
    let outcome = match method {
        Some(method) => run(store, &Arguments { method, body: &call.body }),
        None => Err(Fault::UnknownMethod),
    };
    match outcome {
        Ok(result) => {
            let mut body = Struct::new();
            if let Some(result) = result {
                body.push(0, result);
            }
            Message { kind: MessageKind::Reply, name: call.name.clone(), sequence_id: call.sequence_id, body }
        }
        Err(fault) => fault.reply(method, call),
    }
}

fn run(store: &Store, call: &Arguments<'_>) -> Outcome {
    let groups = [databases_call, locks_call, tables::call, partitions::call];
    let answered = groups.into_iter().find_map(|group| group(store, call));
    answered.or_else(|| fixed::answer(call.method.name, call.body)).unwrap_or(Err(Fault::UnknownMethod))
}

fn texts(texts: Vec<String>) -> Option<Value> {
    Some(List::texts(texts).into())
}

fn structs(structs: Vec<Struct>) -> Option<Value> {
    Some(structs.into())
}

/// Deletes what a committed drop left without an entry.
fn delete_all(store: &Store, directories: impl IntoIterator<Item = String>) {
    directories.into_iter().for_each(|directory| files::delete(&directory, store.warehouse()));
}

fn databases_call(store: &Store, call: &Arguments<'_>) -> Option<Outcome> {
    Some(match call.method.name {
        "get_all_databases" => store.read(|transaction| databases::names(transaction, "")).map(texts),
        "get_databases" => {
            call.text(0).and_then(|pattern| store.read(|transaction| databases::names(transaction, pattern)).map(texts))
        }
        "get_database" => call.text(0).and_then(|name| database_of(store, name)),
        "get_database_req" => call.inner(0).and_then(|request| database_of(store, call.need(request, get_database::NAME)?)),
        "create_database" => call.inner(0).and_then(|entry| create(store, entry)),
        "create_database_req" => call.inner(0).and_then(|request| create(store, &requested(request))),
        "alter_database" => call.text(0).and_then(|name| alter(store, name, call.inner(1)?)),
        "alter_database_req" => call.inner(0).and_then(|request| {
            let name = call.need(request, alter_database::OLD_NAME)?;
            alter(store, name, call.need_inner(request, alter_database::ENTRY)?)
        }),
        "drop_database" => call.text(0).and_then(|name| drop(store, name, call.flag(1), call.flag(2))),
        "drop_database_req" => call.inner(0).and_then(|request| {
            let flag = |field| request.flag(field).unwrap_or_default();
            let name = call.need(request, drop_database::NAME)?;
            match drop(store, name, flag(drop_database::DELETE_DATA), flag(drop_database::CASCADE)) {
                Err(Fault::Thrown(Exception::NoSuchObject, _)) if flag(drop_database::IGNORE_UNKNOWN_DB) => Ok(None),
                outcome => outcome,
            }
        }),
        _ => return None,
    })
}

fn database_of(store: &Store, name: &str) -> Outcome {
    store.read(|transaction| databases::get(transaction, name)).map(|entry| Some(entry.into()))
}

fn create(store: &Store, entry: &Struct) -> Outcome {
    store.write(|transaction| databases::create(transaction, store.warehouse(), entry)).map(|()| None)
}

/// The request's fields have the numbers of the entry's, up to the type.
fn requested(request: &Struct) -> Struct {
    let mut entry = Struct::new();
    for (id, value) in request.fields().iter().filter(|(id, _)| *id <= create_database::KIND.id) {
        entry.push(*id, value.clone());
    }
    debug_assert_eq!((create_database::NAME.id, create_database::KIND.id), (database::NAME.id, database::KIND.id));
    entry
}

fn alter(store: &Store, name: &str, entry: &Struct) -> Outcome {
    store.write(|transaction| databases::alter(transaction, name, entry)).map(|()| None)
}

fn drop(store: &Store, name: &str, delete: bool, cascade: bool) -> Outcome {
    let directories = store.write(|transaction| databases::drop(transaction, name, delete, cascade))?;
    delete_all(store, directories);
    Ok(None)
}

fn locks_call(store: &Store, call: &Arguments<'_>) -> Option<Outcome> {
    let id = |field| call.inner(0).and_then(|request| call.need_i64(request, field));
    Some(match call.method.name {
        "lock" => call.inner(0).and_then(|request| {
            let wrong = || Fault::Thrown(Exception::TxnAborted, "a lock of an unknown kind was asked for".into());
            let request = LockRequest::from_struct(request).ok_or_else(wrong)?;
            store.write(|transaction| locks::lock(transaction, &request)).map(|response| Some(response.to_struct().into()))
        }),
        "check_lock" => id(check_lock::LOCK_ID)
            .and_then(|id| store.write(|transaction| locks::check(transaction, id)))
            .map(|response| Some(response.to_struct().into())),
        // A client may keep a transaction alive instead; there are none here.
        "heartbeat" => {
            id(heartbeat::LOCK_ID).and_then(|id| store.write(|transaction| locks::heartbeat(transaction, id))).map(|()| None)
        }
        "unlock" => id(unlock::LOCK_ID).and_then(|id| store.write(|transaction| locks::unlock(transaction, id))).map(|()| None),
        "show_locks" => call.inner(0).and_then(|request| {
            let (database, table) = (request.text(show_locks::DATABASE), request.text(show_locks::TABLE));
            let shown = store.read(|transaction| locks::show(transaction, database, table))?;
            let shown: Vec<Struct> = shown.iter().map(ShownLock::to_struct).collect();
            Ok(Some(Struct::new().with(show_locks_response::LOCKS, shown).into()))
        }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::contract;
    use super::*;

    #[test]
    fn every_method_of_the_contract_is_answered_and_every_other_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("metastore.sqlite")).unwrap();
        let unknown = |name: &str| {
            let call = Message { kind: MessageKind::Call, name: name.into(), sequence_id: 1, body: Struct::new() };
            let reply = dispatch(&store, &call);
            let application = reply.kind == MessageKind::Exception;
            application && reply.body.text(Exception::MESSAGE).is_some_and(|message| message.starts_with("Invalid method name"))
        };
        for method in contract::METHODS {
            assert!(!unknown(method.name), "{}", method.name);
        }
        assert!(unknown("get_partitions_by_expr"));
    }
}
