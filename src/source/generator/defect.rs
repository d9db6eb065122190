//! What is wrong with the few bad messages: each kind is one that real topics have, and each must end as one rejected record.

use super::Dialect;
use super::draw::{Draw, Purpose};
use super::sale::{ORDER_DATE, QUANTITY, Sale, TOTAL_AMOUNT, UNIT_PRICE};

/// A way in which a message is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// A day that no calendar has.
    BadDate,
    NegativeQuantity,
    ZeroTotal,
    /// A quantity beyond what 64 bits hold.
    QuantityOutOfRange,
    /// A text where a number belongs.
    TextForNumber,
    /// TotalAmount is not there; in CSV, the row ends too early.
    MissingField,
    /// The message ends in the middle.
    Truncated,
    DuplicateKey,
    InvalidUtf8,
    /// A value of no bytes.
    Empty,
    /// A null value, as deletions are marked in compacted topics.
    Null,
    /// Arrays within arrays.
    DeeplyNested,
}

/// The defects that a CSV row can have.
const IN_CSV: [Defect; 6] = [
    Defect::BadDate,
    Defect::NegativeQuantity,
    Defect::ZeroTotal,
    Defect::QuantityOutOfRange,
    Defect::TextForNumber,
    Defect::MissingField,
];

const IN_MESSAGES: [Defect; 12] = [
    Defect::BadDate,
    Defect::NegativeQuantity,
    Defect::ZeroTotal,
    Defect::QuantityOutOfRange,
    Defect::TextForNumber,
    Defect::MissingField,
    Defect::Truncated,
    Defect::DuplicateKey,
    Defect::InvalidUtf8,
    Defect::Empty,
    Defect::Null,
    Defect::DeeplyNested,
];

/// Levels of [`Defect::DeeplyNested`].
pub const NESTING_LEVELS: usize = 10_000;

impl Defect {
    /// The defect of a row, if it has one.
    pub fn of(seed: u64, row: u64, bad_share: f64, dialect: Dialect) -> Option<Self> {
        if bad_share <= 0.0 {
            return None;
        }
        let mut draw = Draw::new(seed, Purpose::Defect, row);
        draw.happens(bad_share).then(|| match dialect {
            Dialect::Csv => draw.one_of(&IN_CSV),
            Dialect::Message => draw.one_of(&IN_MESSAGES),
        })
    }

    /// Changes the cells that the defect concerns.
    pub fn spoil(self, sale: &mut Sale) {
        match self {
            Self::BadDate => sale.set(ORDER_DATE, format_args!("2023-02-30")),
            Self::NegativeQuantity => {
                let quantity = std::mem::take(&mut sale.cells[QUANTITY]);
                sale.set(QUANTITY, format_args!("-{quantity}"));
            }
            Self::ZeroTotal => sale.set(TOTAL_AMOUNT, format_args!("0")),
            Self::QuantityOutOfRange => sale.set(QUANTITY, format_args!("99999999999999999999")),
            Self::TextForNumber => sale.set(UNIT_PRICE, format_args!("n/a")),
            _ => {}
        }
    }

    /// Appends the message with this defect; false stands for a null value.
    pub fn write_message(self, sale: &mut Sale, message: &mut Vec<u8>) -> bool {
        self.spoil(sale);
        match self {
            Self::BadDate | Self::NegativeQuantity | Self::ZeroTotal | Self::QuantityOutOfRange => sale.write_json(message),
            Self::TextForNumber => {
                sale.set(UNIT_PRICE, format_args!("\"n/a\""));
                sale.write_json(message);
            }
            Self::MissingField => sale.write_json_of(message, |column| column != TOTAL_AMOUNT),
            Self::Truncated => {
                sale.write_json(message);
                message.truncate(message.len() / 2);
            }
            Self::DuplicateKey => {
                sale.write_json(message);
                message.pop();
                message.extend_from_slice(b",\"Quantity\":7}");
            }
            Self::InvalidUtf8 => {
                sale.write_json(message);
                // Every message has this name; the byte 0xFF is in no UTF-8 text.
                if let Some(at) = memchr::memmem::find(message, b"\"CustomerName\":\"") {
                    message[at + b"\"CustomerName\":\"".len()] = 0xff;
                }
            }
            Self::Empty => {}
            Self::Null => return false,
            Self::DeeplyNested => {
                message.extend_from_slice(b"{\"OrderID\":");
                message.resize(message.len() + NESTING_LEVELS, b'[');
                message.resize(message.len() + NESTING_LEVELS, b']');
                message.push(b'}');
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::generator::DateFormat;

    fn message(defect: Defect) -> Option<Vec<u8>> {
        let (mut sale, mut message) = (Sale::default(), Vec::new());
        sale.draw(42, 0, DateFormat::Iso);
        defect.write_message(&mut sale, &mut message).then_some(message)
    }

    #[test]
    fn each_defect_is_what_it_says() {
        let object = |defect| serde_json::from_slice::<serde_json::Value>(&message(defect).unwrap()).unwrap();
        assert_eq!(object(Defect::BadDate)["OrderDate"], "2023-02-30");
        assert!(object(Defect::NegativeQuantity)["Quantity"].as_i64().unwrap() < 0);
        assert_eq!(object(Defect::ZeroTotal)["TotalAmount"], 0);
        assert_eq!(object(Defect::TextForNumber)["UnitPrice"], "n/a");
        assert!(object(Defect::QuantityOutOfRange)["Quantity"].as_i64().is_none());
        assert!(object(Defect::MissingField).get("TotalAmount").is_none());
        assert!(serde_json::from_slice::<serde_json::Value>(&message(Defect::Truncated).unwrap()).is_err());
        assert!(std::str::from_utf8(&message(Defect::InvalidUtf8).unwrap()).is_err());
        let twice = String::from_utf8(message(Defect::DuplicateKey).unwrap()).unwrap();
        assert_eq!(twice.matches("\"Quantity\":").count(), 2);
        assert_eq!(message(Defect::Empty), Some(vec![]));
        assert_eq!(message(Defect::Null), None);
        assert_eq!(message(Defect::DeeplyNested).unwrap().len(), 2 * NESTING_LEVELS + 12);
    }

    #[test]
    fn about_one_row_in_a_thousand_is_bad_and_every_kind_occurs() {
        let found: Vec<Defect> = (0..100_000).filter_map(|row| Defect::of(42, row, 0.001, Dialect::Message)).collect();
        assert!((60..150).contains(&found.len()), "{} bad rows", found.len());
        assert_eq!(found.into_iter().collect::<std::collections::BTreeSet<_>>().len(), IN_MESSAGES.len());
        assert!((0..100_000).all(|row| Defect::of(42, row, 0.0, Dialect::Message).is_none()));
    }
}
