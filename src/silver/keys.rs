//! The keys of messages: which column each stands for, and what becomes of those that no column reads.
//!
//! The key of the next field is guessed from the message before, because producers write fields in one order; a guess costs one comparison, a
//! wrong one a look into a hash table.
//!
//! *Invariants*: a key stands once in a message; names that are remembered are bounded, in number and in length.

use ahash::{HashMap, HashSet};

use super::decoder::{Fault, Layout, Stage, excerpt};
use super::settings::UnknownFields;

/// What a key of the object stands for.
pub(super) enum Key {
    Column(usize),
    Ignored,
    /// No column reads it, and it is kept with its name.
    Kept(Box<str>),
    Refused(Fault),
}

/// The keys seen so far: first those that columns read, then others as they come.
pub(super) struct Keys {
    names: Vec<Box<str>>,
    /// By key: its name between quotes, as it stands in a message; empty if it cannot stand there as it is.
    quoted: Vec<Box<str>>,
    indexes: HashMap<Box<str>, usize>,
    /// How many of the names are columns.
    columns: usize,
    /// By key: the key that followed it last time; at the end, the one that began a message.
    followers: Vec<usize>,
    /// By key: the last message that had it.
    seen: Vec<u64>,
    message: u64,
    /// The key before the next one; the number of names stands for the beginning.
    previous: Option<usize>,
    /// The first key of the message before.
    first: usize,
    /// Keys of this message beyond those that are remembered.
    strangers: HashSet<String>,
    unknown_fields: UnknownFields,
}

/// Keys that are remembered between messages; an object with keys made of data must not grow the memory.
const KEYS_MAX: usize = 1024;
const KEY_BYTES_MAX: usize = 256;

impl Keys {
    pub fn new(layout: Layout<'_>) -> Self {
        let mut keys = Self {
            names: Vec::new(),
            quoted: Vec::new(),
            indexes: HashMap::default(),
            columns: layout.columns.len(),
            followers: Vec::new(),
            seen: Vec::new(),
            message: 0,
            previous: None,
            first: 0,
            strangers: HashSet::default(),
            unknown_fields: layout.unknown_fields,
        };
        for column in layout.columns {
            keys.learn(&column.field);
        }
        keys
    }

    fn learn(&mut self, name: &str) -> usize {
        let index = self.names.len();
        self.names.push(name.into());
        let needs_escapes = name.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
        self.quoted.push(if needs_escapes { Box::default() } else { format!("\"{name}\"").into() });
        self.indexes.insert(name.into(), index);
        self.followers.push(index + 1);
        self.seen.push(0);
        index
    }

    pub fn begin_message(&mut self) {
        self.message += 1;
        self.previous = None;
        if !self.strangers.is_empty() {
            self.strangers.clear();
        }
    }

    /// Names that no column reads, of those that are remembered.
    pub fn unread(&self) -> impl Iterator<Item = &str> {
        self.names[self.columns..].iter().map(|name| &**name)
    }

    /// The key that is likely to come next.
    fn guess(&self) -> usize {
        self.previous.map_or(self.first, |previous| self.followers[previous])
    }

    /// The key that the text begins with, and how long it is there with its quotes, if it is the one that was to be expected: then nobody has
    /// to look where it ends.
    pub fn expected(&mut self, text: &str) -> Option<(Key, usize)> {
        let guess = self.guess();
        let length = self.quoted.get(guess).filter(|quoted| !quoted.is_empty() && text.starts_with(&***quoted))?.len();
        Some((self.found(guess, text.get(1..length - 1)?), length))
    }

    pub fn resolve(&mut self, name: &str) -> Key {
        let guess = self.guess();
        let known = match self.names.get(guess) {
            Some(guessed) if **guessed == *name => Some(guess),
            _ => self.indexes.get(name).copied(),
        };
        let index = match known {
            Some(index) => index,
            None if self.unknown_fields == UnknownFields::Reject => {
                return Key::Refused(Fault::field(
                    Stage::Decode,
                    excerpt(name),
                    "is not known, and silver.unknown_fields is reject",
                ));
            }
            None if self.names.len() < self.columns + KEYS_MAX && name.len() <= KEY_BYTES_MAX => self.learn(name),
            None if self.strangers.insert(name.to_owned()) => return self.other(name),
            None => return Key::twice(name),
        };
        if index != guess {
            match self.previous {
                None => self.first = index,
                Some(previous) => self.followers[previous] = index,
            }
        }
        self.found(index, name)
    }

    /// What becomes of a key that is known, once in each message.
    fn found(&mut self, index: usize, name: &str) -> Key {
        self.previous = Some(index);
        if std::mem::replace(&mut self.seen[index], self.message) == self.message {
            return Key::twice(name);
        }
        if index < self.columns { Key::Column(index) } else { self.other(name) }
    }

    /// What becomes of a key that no column reads.
    fn other(&self, name: &str) -> Key {
        match self.unknown_fields {
            UnknownFields::Keep => Key::Kept(name.into()),
            UnknownFields::Ignore | UnknownFields::Reject | UnknownFields::Add => Key::Ignored,
        }
    }
}

impl Key {
    fn twice(name: &str) -> Self {
        Self::Refused(Fault::field(Stage::Decode, excerpt(name), "stands twice in the object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::silver::columns::Column;

    #[test]
    fn keys_are_found_in_any_order_and_twice_only_within_a_message() {
        let columns = ["a", "b"].map(Column::optional_text);
        let mut keys = Keys::new(Layout { columns: &columns, unknown_fields: UnknownFields::Ignore, max_depth: 1 });
        let long = "x".repeat(KEY_BYTES_MAX + 1);
        for message in [vec!["a", "b"], vec!["b", "z", "a"], vec!["z", "a", "b", &long], vec![&long, "b", "z"], vec!["a"], vec![]]
        {
            keys.begin_message();
            for name in &message {
                match (keys.resolve(name), *name) {
                    (Key::Column(0), "a") | (Key::Column(1), "b") | (Key::Ignored, _) => {}
                    _ => panic!("{name} in {message:?}"),
                }
            }
            assert!(message.iter().all(|name| matches!(keys.resolve(name), Key::Refused(_))), "{message:?}");
        }
    }

    #[test]
    fn remembered_keys_are_bounded() {
        let mut keys = Keys::new(Layout { columns: &[], unknown_fields: UnknownFields::Ignore, max_depth: 1 });
        for number in 0..3 * KEYS_MAX {
            keys.begin_message();
            assert!(matches!(keys.resolve(&number.to_string()), Key::Ignored));
        }
        assert_eq!(keys.names.len(), KEYS_MAX);
        assert_eq!(keys.strangers.len(), 1);
    }
}
