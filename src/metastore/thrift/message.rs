//! A message: a call, its reply, or the word that there is none.

use super::binary::{Limits, Reader, ThriftError, write_bytes, write_struct};
use super::value::{Field, Struct, Type};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    Call = 1,
    Reply = 2,
    /// The body is an [`Application`] exception.
    Exception = 3,
    Oneway = 4,
}

/// One message. The body of a call is its arguments, of a reply the result under id 0 or a declared exception under its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub kind: MessageKind,
    pub name: String,
    pub sequence_id: i32,
    pub body: Struct,
}

impl Message {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&[0x80, 0x01, 0x00, self.kind as u8]);
        write_bytes(&mut out, self.name.as_bytes());
        out.extend_from_slice(&self.sequence_id.to_be_bytes());
        write_struct(&mut out, &self.body);
        out
    }

    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, ThriftError> {
        if bytes.len() > limits.message_bytes {
            return Err(ThriftError::TooLong(limits.message_bytes));
        }
        let mut reader = Reader::new(bytes, limits);
        let [0x80, 0x01, 0x00, kind] = reader.i32()?.to_be_bytes() else { return Err(ThriftError::BadVersion) };
        let kind = match kind {
            1 => MessageKind::Call,
            2 => MessageKind::Reply,
            3 => MessageKind::Exception,
            4 => MessageKind::Oneway,
            _ => return Err(ThriftError::BadVersion),
        };
        let name = String::from_utf8(reader.bytes()?.to_vec()).map_err(|_| ThriftError::BadName)?;
        let sequence_id = reader.i32()?;
        let body = reader.structure(1)?;
        reader.end()?;
        Ok(Self { kind, name, sequence_id, body })
    }
}

/// Thrift's own exception: the server could not even begin, or failed in a way that the method does not declare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    pub code: i32,
    pub message: String,
}

impl Application {
    pub const UNKNOWN_METHOD: i32 = 1;
    pub const INTERNAL_ERROR: i32 = 6;
    pub const PROTOCOL_ERROR: i32 = 7;

    const MESSAGE: Field = Field { id: 1, name: "message", kind: Type::String };
    const CODE: Field = Field { id: 2, name: "type", kind: Type::I32 };

    pub fn to_struct(&self) -> Struct {
        Struct::new().with(Self::MESSAGE, self.message.as_str()).with(Self::CODE, self.code)
    }

    pub fn from_struct(body: &Struct) -> Self {
        Self { code: body.i32(Self::CODE).unwrap_or_default(), message: body.text(Self::MESSAGE).unwrap_or_default().to_owned() }
    }
}
