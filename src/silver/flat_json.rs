//! The message as it usually comes, in one pass: an object of plain values, without escapes in its texts or anything nested.
//!
//! The parser that takes everything finds the end of each value before somebody looks at it, which costs as much again. This one hands a
//! value over when it meets its end. It never says what is wrong: for all that it doesn't take, be it unusual, malformed or refused by a
//! column, the whole message is read again by that parser.
//!
//! *Invariants*: what it takes, the other takes too, with the same values in the same order.

use std::borrow::Cow;

use super::columns::Columns;
use super::decoder::Value;
use super::keys::{Key, Keys};

/// Reads a message into the row; none if it is not one of these, with the row half filled.
pub(super) fn read(message: &str, keys: &mut Keys, row: &mut Columns) -> Option<()> {
    let mut text = Scanner { text: message, at: 0 };
    text.skip_space();
    text.take(b'{')?;
    text.skip_space();
    if text.take(b'}').is_some() {
        return text.end();
    }
    loop {
        let key = match keys.expected(text.rest()?) {
            Some((key, length)) => {
                text.at += length;
                key
            }
            None => keys.resolve(text.string()?),
        };
        text.skip_space();
        text.take(b':')?;
        text.skip_space();
        let start = text.at;
        let value = text.value()?;
        match key {
            Key::Column(index) => row.set(index, value).ok()?,
            Key::Ignored => {}
            Key::Kept(name) => match value {
                Value::Null => row.keep(&name, None),
                Value::Text(text) => row.keep(&name, Some(&text)),
                _ => row.keep(&name, Some(message.get(start..text.at)?)),
            },
            Key::Refused(_) => return None,
        }
        text.skip_space();
        if text.take(b'}').is_some() {
            return text.end();
        }
        text.take(b',')?;
        text.skip_space();
    }
}

struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scanner<'t> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> Option<&'t str> {
        self.text.get(self.at..)
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        let found = self.byte() == Some(wanted);
        self.at += usize::from(found);
        found.then_some(())
    }

    fn skip_space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Nothing but white space may follow.
    fn end(mut self) -> Option<()> {
        self.skip_space();
        (self.at == self.text.len()).then_some(())
    }

    fn value(&mut self) -> Option<Value<'t>> {
        match self.byte()? {
            b'"' => Some(Value::Text(Cow::Borrowed(self.string()?))),
            b'-' | b'0'..=b'9' => Some(Value::Number(self.number()?)),
            b't' => self.word("true", Value::Boolean(true)),
            b'f' => self.word("false", Value::Boolean(false)),
            b'n' => self.word("null", Value::Null),
            _ => None,
        }
    }

    fn word(&mut self, word: &str, value: Value<'t>) -> Option<Value<'t>> {
        let found = self.text.as_bytes().get(self.at..)?.starts_with(word.as_bytes());
        self.at += word.len();
        found.then_some(value)
    }

    /// A text without escapes and control characters.
    fn string(&mut self) -> Option<&'t str> {
        self.take(b'"')?;
        let start = self.at;
        self.at += special(self.text.as_bytes().get(start..)?)?;
        let found = self.text.get(start..self.at);
        self.take(b'"')?;
        found
    }

    fn number(&mut self) -> Option<&'t str> {
        let start = self.at;
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        self.text.get(start..self.at)
    }

    /// One digit or more.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// Where the first quote, backslash or control character is; eight bytes are looked at together.
fn special(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    // The lowest bit that is set in the result is right; bits above it may be set in vain, by a borrow.
    let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word & HIGH;
    let (words, rest) = bytes.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let equals = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let found = equals(b'"') | equals(b'\\') | below(word, 0x20);
        if found != 0 {
            return Some(number * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
    Some(words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::special;

    proptest! {
        #[test]
        fn special_characters_are_found_wherever_they_are(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let slow = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
            prop_assert_eq!(special(&bytes), slow);
        }

        #[test]
        fn and_so_they_are_among_many_that_are_not(bytes in "[!#-\\[\\]-~é€😀]{0,40}", at in 0usize..40, found in prop::sample::select(vec![b'"', b'\\', 0, 31])) {
            let mut bytes = bytes.into_bytes();
            let at = at.min(bytes.len());
            bytes.insert(at, found);
            prop_assert_eq!(special(&bytes), Some(at));
        }
    }
}
