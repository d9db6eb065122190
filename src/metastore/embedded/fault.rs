//! What a request is refused with.

use super::super::contract::{Exception, Method};
use super::super::thrift::{Application, Message, MessageKind, Struct};

/// A refusal, on its way to becoming the exception that the method declares.
#[derive(Debug)]
pub(super) enum Fault {
    Thrown(Exception, String),
    UnknownMethod,
}

pub(super) type Answer<T> = Result<T, Fault>;

impl Fault {
    pub(super) fn meta(message: impl Into<String>) -> Self {
        Fault::Thrown(Exception::Meta, message.into())
    }

    pub(super) fn no_such_object(message: impl Into<String>) -> Self {
        Fault::Thrown(Exception::NoSuchObject, message.into())
    }

    pub(super) fn already_exists(message: impl Into<String>) -> Self {
        Fault::Thrown(Exception::AlreadyExists, message.into())
    }

    pub(super) fn invalid_object(message: impl Into<String>) -> Self {
        Fault::Thrown(Exception::InvalidObject, message.into())
    }

    pub(super) fn invalid_operation(message: impl Into<String>) -> Self {
        Fault::Thrown(Exception::InvalidOperation, message.into())
    }

    pub(super) fn no_such_lock(lock_id: i64) -> Self {
        Fault::Thrown(Exception::NoSuchLock, format!("No such lock lockid:{lock_id}"))
    }

    /// The reply to a call. An exception that the method does not declare becomes a `MetaException`, or Thrift's own.
    pub(super) fn reply(self, method: Option<&Method>, call: &Message) -> Message {
        let (kind, body) = match self {
            Fault::UnknownMethod => {
                let message = format!("Invalid method name: '{}'", call.name);
                (MessageKind::Exception, Application { code: Application::UNKNOWN_METHOD, message }.to_struct())
            }
            Fault::Thrown(exception, message) => {
                let id = method.and_then(|method| method.id_of(exception).or_else(|| method.id_of(Exception::Meta)));
                match id {
                    Some(id) => {
                        let mut body = Struct::new();
                        body.push(id, Struct::new().with(Exception::MESSAGE, message).into());
                        (MessageKind::Reply, body)
                    }
                    None => {
                        let message = format!("{}: {message}", exception.name());
                        (MessageKind::Exception, Application { code: Application::INTERNAL_ERROR, message }.to_struct())
                    }
                }
            }
        };
        Message { kind, name: call.name.clone(), sequence_id: call.sequence_id, body }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Fault::meta(format!("the metastore's database failed: {error}"))
    }
}
