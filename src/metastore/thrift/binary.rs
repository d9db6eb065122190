//! Bytes to tree and back.

use super::value::{List, Map, Struct, Type, Value};

/// What one message may cost the one who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message.
    pub message_bytes: usize,
    /// Structs and containers within each other.
    pub depth: usize,
    /// Values in one message: a list of a million booleans is a megabyte on the wire and forty of them in memory.
    pub values: usize,
}

impl Default for Limits {
    /// Room for the partitions of a large table: 64 MiB, 64 levels, 4 million values.
    fn default() -> Self {
        Self { message_bytes: 64 << 20, depth: 64, values: 4 << 20 }
    }
}

/// Bytes that are not what Thrift's binary protocol allows, or more of them than the limits do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThriftError {
    #[error("the message ends within a value")]
    Truncated,
    #[error("the message is longer than {0} bytes")]
    TooLong(usize),
    #[error("the message nests values more than {0} levels deep")]
    TooDeep(usize),
    #[error("the message has more than {0} values")]
    TooManyValues(usize),
    #[error("{0} is no type of the binary protocol")]
    UnknownType(u8),
    #[error("a length of {0} cannot be right")]
    BadLength(i64),
    #[error("the message does not begin as the strict binary protocol does")]
    BadVersion,
    #[error("the method's name is not UTF-8")]
    BadName,
    #[error("{0} bytes follow the end of the message")]
    TrailingBytes(usize),
}

/// The bytes of a struct, its stop byte included.
pub fn encode_struct(value: &Struct) -> Vec<u8> {
    let mut out = Vec::new();
    write_struct(&mut out, value);
    out
}

/// A struct from exactly these bytes.
pub fn decode_struct(bytes: &[u8], limits: &Limits) -> Result<Struct, ThriftError> {
    let mut reader = Reader::new(bytes, limits);
    let value = reader.structure(1)?;
    reader.end()?;
    Ok(value)
}

pub(super) fn write_struct(out: &mut Vec<u8>, value: &Struct) {
    for (id, value) in value.fields() {
        out.push(value.kind() as u8);
        out.extend_from_slice(&id.to_be_bytes());
        write_value(out, value);
    }
    out.push(0);
}

pub(super) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn write_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&(length as i32).to_be_bytes());
}

fn write_list(out: &mut Vec<u8>, list: &List) {
    out.push(list.element() as u8);
    write_length(out, list.items().len());
    list.items().iter().for_each(|item| write_value(out, item));
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Bool(flag) => out.push(u8::from(*flag)),
        Value::Byte(number) => out.extend_from_slice(&number.to_be_bytes()),
        Value::Double(number) => out.extend_from_slice(&number.to_bits().to_be_bytes()),
        Value::I16(number) => out.extend_from_slice(&number.to_be_bytes()),
        Value::I32(number) => out.extend_from_slice(&number.to_be_bytes()),
        Value::I64(number) => out.extend_from_slice(&number.to_be_bytes()),
        Value::String(bytes) => write_bytes(out, bytes),
        Value::Struct(inner) => write_struct(out, inner),
        Value::List(list) | Value::Set(list) => write_list(out, list),
        Value::Map(map) => {
            out.extend_from_slice(&[map.key() as u8, map.value() as u8]);
            write_length(out, map.entries().len());
            for (key, value) in map.entries() {
                write_value(out, key);
                write_value(out, value);
            }
        }
    }
}

/// Reads values from bytes that are all there.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    limits: &'a Limits,
    values_left: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], limits: &'a Limits) -> Self {
        Self { rest: bytes, limits, values_left: limits.values }
    }

    pub(super) fn end(&self) -> Result<(), ThriftError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ThriftError::TrailingBytes(self.rest.len())) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ThriftError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ThriftError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ThriftError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(ThriftError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn i32(&mut self) -> Result<i32, ThriftError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], ThriftError> {
        let length = self.i32()?;
        self.take(usize::try_from(length).map_err(|_| ThriftError::BadLength(length.into()))?)
    }

    fn kind(&mut self) -> Result<Type, ThriftError> {
        let [byte] = self.array()?;
        Type::from_wire(byte).ok_or(ThriftError::UnknownType(byte))
    }

    /// A number of elements, each of at least `min_size` bytes, that the rest of the message has room for.
    fn count(&mut self, min_size: usize) -> Result<usize, ThriftError> {
        let claimed = self.i32()?;
        let count = usize::try_from(claimed).map_err(|_| ThriftError::BadLength(claimed.into()))?;
        if count > self.rest.len() / min_size {
            return Err(ThriftError::BadLength(claimed.into()));
        }
        Ok(count)
    }

    fn spend(&mut self, values: usize) -> Result<(), ThriftError> {
        self.values_left = self.values_left.checked_sub(values).ok_or(ThriftError::TooManyValues(self.limits.values))?;
        Ok(())
    }

    pub(super) fn structure(&mut self, depth: usize) -> Result<Struct, ThriftError> {
        self.check_depth(depth)?;
        let mut value = Struct::new();
        loop {
            let [byte] = self.array()?;
            if byte == 0 {
                return Ok(value);
            }
            let kind = Type::from_wire(byte).ok_or(ThriftError::UnknownType(byte))?;
            let id = i16::from_be_bytes(self.array()?);
            self.spend(1)?;
            value.push(id, self.value(kind, depth)?);
        }
    }

    fn check_depth(&self, depth: usize) -> Result<(), ThriftError> {
        if depth > self.limits.depth { Err(ThriftError::TooDeep(self.limits.depth)) } else { Ok(()) }
    }

    fn list(&mut self, depth: usize) -> Result<List, ThriftError> {
        self.check_depth(depth)?;
        let element = self.kind()?;
        let count = self.count(element.min_size())?;
        self.spend(count)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.value(element, depth)?);
        }
        Ok(List::new(element, items))
    }

    fn map(&mut self, depth: usize) -> Result<Value, ThriftError> {
        self.check_depth(depth)?;
        let (key, value) = (self.kind()?, self.kind()?);
        let count = self.count(key.min_size() + value.min_size())?;
        self.spend(count.saturating_mul(2))?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push((self.value(key, depth)?, self.value(value, depth)?));
        }
        Ok(Value::Map(Map::new(key, value, entries)))
    }

    fn value(&mut self, kind: Type, depth: usize) -> Result<Value, ThriftError> {
        Ok(match kind {
            Type::Bool => Value::Bool(self.array::<1>()? != [0]),
            Type::Byte => Value::Byte(i8::from_be_bytes(self.array()?)),
            Type::Double => Value::Double(f64::from_bits(u64::from_be_bytes(self.array()?))),
            Type::I16 => Value::I16(i16::from_be_bytes(self.array()?)),
            Type::I32 => Value::I32(self.i32()?),
            Type::I64 => Value::I64(i64::from_be_bytes(self.array()?)),
            Type::String => Value::String(self.bytes()?.to_vec()),
            Type::Struct => Value::Struct(self.structure(depth + 1)?),
            Type::List => Value::List(self.list(depth + 1)?),
            Type::Set => Value::Set(self.list(depth + 1)?),
            Type::Map => self.map(depth + 1)?,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_type() -> impl Strategy<Value = Type> {
        prop::sample::select(vec![
            Type::Bool,
            Type::Byte,
            Type::Double,
            Type::I16,
            Type::I32,
            Type::I64,
            Type::String,
            Type::Struct,
            Type::Map,
            Type::Set,
            Type::List,
        ])
    }

    fn value_of(kind: Type, depth: u32) -> BoxedStrategy<Value> {
        let inner_type =
            any_type().prop_filter("leaves at the end", move |kind| depth > 0 || kind.min_size() != 5 && kind.min_size() != 6);
        let next = depth.saturating_sub(1);
        match kind {
            Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
            Type::Byte => any::<i8>().prop_map(Value::Byte).boxed(),
            Type::Double => (-1e9..1e9f64).prop_map(Value::Double).boxed(),
            Type::I16 => any::<i16>().prop_map(Value::I16).boxed(),
            Type::I32 => any::<i32>().prop_map(Value::I32).boxed(),
            Type::I64 => any::<i64>().prop_map(Value::I64).boxed(),
            Type::String => prop::collection::vec(any::<u8>(), 0..12).prop_map(Value::String).boxed(),
            Type::Struct if depth == 0 => Just(Value::Struct(Struct::new())).boxed(),
            Type::Struct => any_struct(next).prop_map(Value::Struct).boxed(),
            Type::List | Type::Set => inner_type
                .prop_flat_map(move |element| (Just(element), prop::collection::vec(value_of(element, next), 0..4)))
                .prop_map(move |(element, items)| {
                    let list = List::new(element, items);
                    if kind == Type::Set { Value::Set(list) } else { Value::List(list) }
                })
                .boxed(),
            Type::Map => (inner_type, any_type())
                .prop_flat_map(move |(key, value)| {
                    let entries = prop::collection::vec((value_of(key, 0), value_of(value, next)), 0..3);
                    (Just(key), Just(value), entries)
                })
                .prop_map(|(key, value, entries)| Value::Map(Map::new(key, value, entries)))
                .boxed(),
        }
    }

    /// Structs of every type, a few levels deep.
    pub fn any_struct(depth: u32) -> BoxedStrategy<Struct> {
        let field = (any::<i16>(), any_type()).prop_flat_map(move |(id, kind)| (Just(id), value_of(kind, depth)));
        prop::collection::vec(field, 0..5)
            .prop_map(|fields| {
                let mut value = Struct::new();
                fields.into_iter().for_each(|(id, inner)| value.push(id, inner));
                value
            })
            .boxed()
    }

    proptest! {
        #[test]
        fn a_tree_survives_the_wire(value in any_struct(3)) {
            let bytes = encode_struct(&value);
            let read = decode_struct(&bytes, &Limits::default()).unwrap();
            prop_assert_eq!(encode_struct(&read), bytes);
            prop_assert_eq!(read, value);
        }

        #[test]
        fn a_truncated_tree_is_an_error(value in any_struct(3), cut in any::<prop::sample::Index>()) {
            let bytes = encode_struct(&value);
            let cut = cut.index(bytes.len());
            prop_assert!(decode_struct(&bytes[..cut], &Limits::default()).is_err());
        }

        #[test]
        fn corrupt_bytes_never_panic(value in any_struct(3), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = encode_struct(&value);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode_struct(&bytes, &Limits::default());
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_struct(&bytes, &Limits::default());
        }
    }

    #[test]
    fn a_claimed_length_beyond_the_message_allocates_nothing() {
        let billion_strings = [15, 0, 1, 11, 0x3b, 0x9a, 0xca, 0, 0];
        assert_eq!(decode_struct(&billion_strings, &Limits::default()), Err(ThriftError::BadLength(1_000_000_000)));
        let negative = [11, 0, 1, 0xff, 0xff, 0xff, 0xff, 0];
        assert_eq!(decode_struct(&negative, &Limits::default()), Err(ThriftError::BadLength(-1)));
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let limits = Limits { depth: 4, values: 10, ..Limits::default() };
        let nested = [12, 0, 1].repeat(8);
        assert_eq!(decode_struct(&nested, &limits), Err(ThriftError::TooDeep(4)));
        let mut flags = vec![15, 0, 1, 2, 0, 0, 0, 20];
        flags.extend([1; 20]);
        flags.push(0);
        assert_eq!(decode_struct(&flags, &limits), Err(ThriftError::TooManyValues(10)));
    }
}
