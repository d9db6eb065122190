//! Where does a message end? The binary protocol has no frames, so the bytes have to be walked.

use super::binary::{Limits, ThriftError};
use super::value::Type;

/// Walks a message as its bytes arrive and keeps its place between calls, so that a long message costs one pass and no allocation beyond
/// its own bytes. Types, nesting and lengths are checked against the limits on the way.
#[derive(Debug)]
pub struct Scanner {
    limits: Limits,
    /// Bytes walked so far, from the start of the message.
    position: usize,
    /// Bytes of a string or number that are passed over without a look.
    skip: usize,
    stack: Vec<Frame>,
    state: State,
}

#[derive(Debug, PartialEq)]
enum State {
    Header,
    Body,
    Done,
}

#[derive(Debug)]
enum Frame {
    Struct,
    List { element: Type, left: u32 },
    Map { key: Type, value: Type, left: u32, key_is_next: bool },
}

impl Scanner {
    pub fn new(limits: Limits) -> Self {
        Self { limits, position: 0, skip: 0, stack: Vec::new(), state: State::Header }
    }

    /// Walks on in a buffer that begins with the message. The message's length once its end is there, none while bytes are missing.
    pub fn advance(&mut self, buffer: &[u8]) -> Result<Option<usize>, ThriftError> {
        while self.state != State::Done {
            if self.skip > 0 {
                let step = self.skip.min(buffer.len() - self.position);
                self.skip -= step;
                self.position += step;
                if self.skip > 0 {
                    return Ok(None);
                }
            }
            if !self.step(buffer)? {
                return Ok(None);
            }
        }
        Ok(Some(self.position))
    }

    /// One token. False if its bytes are not all there; then nothing has moved.
    fn step(&mut self, buffer: &[u8]) -> Result<bool, ThriftError> {
        let rest = &buffer[self.position..];
        if self.state == State::Header {
            return self.header(rest);
        }
        match self.stack.last_mut() {
            None => {
                self.state = State::Done;
                Ok(true)
            }
            Some(Frame::Struct) => {
                let Some(&byte) = rest.first() else { return Ok(false) };
                if byte == 0 {
                    self.position += 1;
                    self.stack.pop();
                    return Ok(true);
                }
                let kind = Type::from_wire(byte).ok_or(ThriftError::UnknownType(byte))?;
                // The value's own header is read together with the field's: a token is never left half read.
                self.value(kind, rest, 3)
            }
            Some(Frame::List { left: 0, .. } | Frame::Map { left: 0, .. }) => {
                self.stack.pop();
                Ok(true)
            }
            Some(Frame::List { element, .. }) => {
                let element = *element;
                let there = self.stack.len() - 1;
                let moved = self.value(element, rest, 0)?;
                if moved && let Some(Frame::List { left, .. }) = self.stack.get_mut(there) {
                    *left -= 1;
                }
                Ok(moved)
            }
            Some(Frame::Map { key, value, key_is_next, .. }) => {
                let kind = if *key_is_next { *key } else { *value };
                let there = self.stack.len() - 1;
                let moved = self.value(kind, rest, 0)?;
                if moved && let Some(Frame::Map { left, key_is_next, .. }) = self.stack.get_mut(there) {
                    *left -= u32::from(!*key_is_next);
                    *key_is_next = !*key_is_next;
                }
                Ok(moved)
            }
        }
    }

    fn header(&mut self, rest: &[u8]) -> Result<bool, ThriftError> {
        let Some((head, _)) = rest.split_first_chunk::<8>() else { return Ok(false) };
        if head[..3] != [0x80, 0x01, 0x00] {
            return Err(ThriftError::BadVersion);
        }
        let length = i32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let name_length = u32::try_from(length).map_err(|_| ThriftError::BadLength(length.into()))?;
        self.pass(8, i64::from(name_length) + 4)?;
        self.state = State::Body;
        self.stack.push(Frame::Struct);
        Ok(true)
    }

    /// Begins a value of a type, `before` bytes into the rest.
    fn value(&mut self, kind: Type, rest: &[u8], before: usize) -> Result<bool, ThriftError> {
        let Some(there) = rest.get(before..) else { return Ok(false) };
        match kind {
            Type::Bool | Type::Byte => self.pass(before, 1)?,
            Type::I16 => self.pass(before, 2)?,
            Type::I32 => self.pass(before, 4)?,
            Type::I64 | Type::Double => self.pass(before, 8)?,
            Type::Struct => {
                self.pass(before, 0)?;
                self.push(Frame::Struct)?;
            }
            Type::String => {
                let Some((head, _)) = there.split_first_chunk::<4>() else { return Ok(false) };
                self.pass(before + 4, i32::from_be_bytes(*head).into())?;
            }
            Type::List | Type::Set => {
                let Some(([element, length @ ..], _)) = there.split_first_chunk::<5>() else { return Ok(false) };
                let element = Type::from_wire(*element).ok_or(ThriftError::UnknownType(*element))?;
                let left = self.count(i32::from_be_bytes([length[0], length[1], length[2], length[3]]), element.min_size())?;
                self.pass(before + 5, 0)?;
                self.push(Frame::List { element, left })?;
            }
            Type::Map => {
                let Some(([key, value, length @ ..], _)) = there.split_first_chunk::<6>() else { return Ok(false) };
                let key = Type::from_wire(*key).ok_or(ThriftError::UnknownType(*key))?;
                let value = Type::from_wire(*value).ok_or(ThriftError::UnknownType(*value))?;
                let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
                let left = self.count(length, key.min_size() + value.min_size())?;
                self.pass(before + 6, 0)?;
                self.push(Frame::Map { key, value, left, key_is_next: true })?;
            }
        }
        Ok(true)
    }

    /// Moves over bytes that are there and marks the ones to pass over.
    fn pass(&mut self, there: usize, skip: i64) -> Result<(), ThriftError> {
        self.skip = usize::try_from(skip).map_err(|_| ThriftError::BadLength(skip))?;
        self.position += there;
        if self.position.saturating_add(self.skip) > self.limits.message_bytes {
            return Err(ThriftError::TooLong(self.limits.message_bytes));
        }
        Ok(())
    }

    fn push(&mut self, frame: Frame) -> Result<(), ThriftError> {
        if self.stack.len() >= self.limits.depth {
            return Err(ThriftError::TooDeep(self.limits.depth));
        }
        self.stack.push(frame);
        Ok(())
    }

    fn count(&self, claimed: i32, min_size: usize) -> Result<u32, ThriftError> {
        let count = u32::try_from(claimed).map_err(|_| ThriftError::BadLength(claimed.into()))?;
        if (count as usize).saturating_mul(min_size) > self.limits.message_bytes {
            return Err(ThriftError::TooLong(self.limits.message_bytes));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::binary::tests::any_struct;
    use super::super::message::{Message, MessageKind};
    use super::*;

    proptest! {
        #[test]
        fn the_end_is_found_however_the_bytes_are_cut(body in any_struct(3), chunk in 1usize..40, noise in prop::collection::vec(any::<u8>(), 0..9)) {
            let message = Message { kind: MessageKind::Call, name: "get_table".into(), sequence_id: 7, body };
            let mut bytes = message.encode();
            let end = bytes.len();
            bytes.extend(noise);
            let mut scanner = Scanner::new(Limits::default());
            let mut there = 0;
            let found = loop {
                there = (there + chunk).min(bytes.len());
                if let Some(found) = scanner.advance(&bytes[..there]).unwrap() {
                    break found;
                }
                prop_assert!(there < end);
            };
            prop_assert_eq!(found, end);
            prop_assert_eq!(Message::decode(&bytes[..end], &Limits::default()).unwrap(), message);
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut scanner = Scanner::new(Limits::default());
            let _ = scanner.advance(&[&[0x80, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], bytes.as_slice()].concat());
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_at_its_claim() {
        let limits = Limits { message_bytes: 1000, ..Limits::default() };
        let head = [0x80, 1, 0, 1, 0, 0, 0, 1, b'x', 0, 0, 0, 0, 11, 0, 1, 0, 0, 4, 0];
        assert_eq!(Scanner::new(limits).advance(&head), Err(ThriftError::TooLong(1000)));
        assert_eq!(Scanner::new(limits).advance(b"GET / HTTP/1.1\r\n"), Err(ThriftError::BadVersion));
    }
}
