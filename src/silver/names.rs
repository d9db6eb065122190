//! Names of columns: which are allowed, and which is meant when one is misspelt.

use crate::error::{Error, Result};
use crate::record::{KAFKA_TIMESTAMP, OFFSET, PARTITION, TOPIC};

/// When the row was made.
pub const PROCESSING_TIMESTAMP: &str = "processing_timestamp";

/// The columns that every row of silver has besides the declared ones.
pub const RESERVED: [&str; 5] = [TOPIC, PARTITION, OFFSET, KAFKA_TIMESTAMP, PROCESSING_TIMESTAMP];

/// Whether every engine takes a name without quotes around it, reserved words aside: up to 128 letters, digits and underscores of ASCII, with
/// no digit in front.
pub fn is_column_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.len() <= 128
}

/// Checks the names of all columns of a table. Case does not tell two apart, because Hive ignores it.
pub fn check<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let mut known: Vec<&str> = RESERVED.to_vec();
    for name in names {
        if name.is_empty() {
            return Err(Error::config("a silver column has no name").hint("give it a `name`"));
        }
        if !is_column_name(name) {
            return Err(Error::config(format!("silver column {name:?} has a name that not every engine takes"))
                .hint("use up to 128 letters, digits and underscores, with no digit in front"));
        }
        if let Some(other) = known.iter().find(|known| known.eq_ignore_ascii_case(name)) {
            return Err(match RESERVED.contains(other) {
                true => Error::config(format!("silver column {name} has the name of a column that every row has"))
                    .hint(format!("choose another name and keep `field = {name:?}`")),
                false => Error::config(format!("silver columns {other} and {name} have one name"))
                    .hint("Hive does not tell case apart"),
            });
        }
        known.push(name);
    }
    Ok(())
}

/// The known name that a misspelt one is nearest to, if any is near.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    known
        .map(|known| (strsim::damerau_levenshtein(&name, &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= known.len().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_some_engine_could_not_tell_apart_are_refused() {
        assert!(check(["OrderID", "Year", "_x1"]).is_ok());
        for names in [["a", "A"], ["Topic", "b"], ["a", "Processing_Timestamp"], ["", "b"], ["1a", "b"], ["a b", "b"], ["é", "b"]]
        {
            assert_eq!(check(names).unwrap_err().kind(), crate::Kind::Config, "{names:?}");
        }
    }

    #[test]
    fn the_nearest_name_is_found_only_when_it_is_near() {
        let known = || ["TotalAmount", "Tax", "Quantity"].into_iter();
        assert_eq!(nearest("totalamout", known()), Some("TotalAmount"));
        assert_eq!(nearest("Delivered", known()), None);
    }
}
