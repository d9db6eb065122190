//! One connection and the one call that is under way on it.

use std::io;
use std::time::Duration;

use super::super::contract::{Exception, Method};
use super::super::error::{MetastoreError, MetastoreResult};
use super::super::thrift::{Application, ChannelError, Message, MessageKind, Struct, Value};
use super::wire::{Dial, Line};
use crate::clock::{self, Instant, timeout, timeout_at};

/// A connection to one server. After an error of a call it is not used again.
pub(super) struct Connection {
    line: Line,
    address: String,
    /// Its place among the configured servers.
    pub(super) server: usize,
    sequence_id: i32,
    pub(super) used_at: Instant,
}

/// What a server answered: the result, if the method has one, or what it refused with.
pub(super) type Answer = MetastoreResult<Option<Value>>;

impl Connection {
    pub(super) async fn open(address: &str, server: usize, within: Duration, dial: Option<&dyn Dial>) -> io::Result<Self> {
        let line = timeout(within, Line::open(address, dial)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Self { line, address: address.to_owned(), server, sequence_id: 0, used_at: clock::now() })
    }

    pub(super) fn is_usable(&self, idle_timeout: Duration) -> bool {
        clock::since(self.used_at) < idle_timeout && self.line.is_quiet()
    }

    /// Makes a call. An error here is about the connection, which must be dropped; what the server refused with is in the answer.
    pub(super) async fn call(&mut self, method: &'static Method, body: &Struct, deadline: Instant) -> MetastoreResult<Answer> {
        let begun = clock::now();
        self.sequence_id = self.sequence_id.wrapping_add(1);
        let call =
            Message { kind: MessageKind::Call, name: method.name.into(), sequence_id: self.sequence_id, body: body.clone() };
        let mut sent = 0;
        let exchange = async {
            self.line.send(&call, &mut sent).await?;
            self.line.receive().await
        };
        let outcome = timeout_at(deadline, exchange).await;
        let request_sent = sent > 0;
        let reply = match outcome {
            Err(_) => {
                let after = clock::since(begun);
                return Err(MetastoreError::Timeout { method: method.name, server: self.address.clone(), after, request_sent });
            }
            Ok(Ok(Some(reply))) => reply,
            Ok(Ok(None)) => return Err(self.lost(method, request_sent, io::ErrorKind::UnexpectedEof.into())),
            Ok(Err(ChannelError::Io(error))) => return Err(self.lost(method, request_sent, error)),
            Ok(Err(ChannelError::Thrift(error))) => return Err(MetastoreError::protocol(method.name, &self.address, error)),
        };
        if reply.sequence_id != call.sequence_id || reply.name != call.name {
            let reason = format!("{} {} is no reply to {} {}", reply.name, reply.sequence_id, call.name, call.sequence_id);
            return Err(MetastoreError::Protocol { method: method.name, server: self.address.clone(), reason });
        }
        self.used_at = clock::now();
        match reply.kind {
            MessageKind::Reply => Ok(answer(method, reply.body)),
            MessageKind::Exception => Ok(Err(application(method, &Application::from_struct(&reply.body)))),
            MessageKind::Call | MessageKind::Oneway => {
                let reason = "a call where a reply was due".to_owned();
                Err(MetastoreError::Protocol { method: method.name, server: self.address.clone(), reason })
            }
        }
    }

    fn lost(&self, method: &Method, request_sent: bool, source: io::Error) -> MetastoreError {
        MetastoreError::Transport { method: method.name, server: self.address.clone(), request_sent, source }
    }
}

fn application(method: &Method, exception: &Application) -> MetastoreError {
    match exception.code {
        Application::UNKNOWN_METHOD => MetastoreError::UnknownMethod { method: method.name },
        _ => MetastoreError::Application { method: method.name, message: exception.message.clone() },
    }
}

/// A reply's body holds the result, or one of the declared exceptions, or nothing for a method without a result.
fn answer(method: &Method, mut body: Struct) -> Answer {
    for (id, exception) in method.exceptions {
        if let Some(Value::Struct(thrown)) = body.at(*id) {
            let message = thrown.text(Exception::MESSAGE).unwrap_or_default().to_owned();
            return Err(MetastoreError::declared(method.name, *exception, message));
        }
    }
    match (method.result, body.take_at(0)) {
        (None, _) if body.fields().is_empty() => Ok(None),
        (Some(kind), Some(value)) if value.kind() == kind => Ok(Some(value)),
        _ => Err(MetastoreError::Application { method: method.name, message: "a reply without a result".into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::contract::{ALTER_TABLE, GET_TABLES, LOCK};
    use super::*;

    #[test]
    fn no_declared_exception_is_taken_for_success() {
        for method in [&ALTER_TABLE, &GET_TABLES, &LOCK] {
            for (id, exception) in method.exceptions {
                let mut body = Struct::new();
                body.push(*id, Struct::new().with(Exception::MESSAGE, "its words").into());
                let error = answer(method, body).unwrap_err();
                assert!(error.to_string().contains("its words"), "{} of {}", exception.name(), method.name);
            }
        }
    }

    #[test]
    fn an_undeclared_exception_or_a_missing_result_is_an_error() {
        let mut body = Struct::new();
        body.push(9, Struct::new().with(Exception::MESSAGE, "new in Hive 5").into());
        assert!(matches!(answer(&ALTER_TABLE, body), Err(MetastoreError::Application { .. })));
        assert!(matches!(answer(&GET_TABLES, Struct::new()), Err(MetastoreError::Application { .. })));
        assert!(matches!(answer(&ALTER_TABLE, Struct::new()), Ok(None)));
    }
}
