//! Names as Hive writes them: lower case, with a catalog before a `#`, patterns with `*`, partitions as escaped paths.

use percent_encoding::percent_decode_str;
use regex::{Regex, RegexBuilder};

use super::fault::{Answer, Fault};

/// The value of a partition key that is null or empty.
const DEFAULT_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

/// Takes the catalog from before a name: `@hive#sales` is `sales`, `@hive#` is nothing.
pub(super) fn without_catalog(name: &str) -> &str {
    match name.strip_prefix('@').and_then(|rest| rest.split_once('#')) {
        Some((_, "!")) | Some((_, "")) => "",
        Some((_, rest)) => rest,
        None => name,
    }
}

/// A database's or table's name as it is kept.
pub(super) fn normal(name: &str) -> String {
    without_catalog(name).trim().to_lowercase()
}

pub(super) fn is_valid_database(name: &str) -> bool {
    is_valid(name, |symbol| symbol.is_ascii_alphanumeric() || symbol == '_')
}

/// Hive 4 allows more in a table's name than in a database's, and so do other engines.
pub(super) fn is_valid_table(name: &str) -> bool {
    is_valid(name, |symbol| symbol.is_ascii_alphanumeric() || "_-$ ".contains(symbol))
}

fn is_valid(name: &str, symbol: impl Fn(char) -> bool) -> bool {
    !name.is_empty() && name.len() <= 256 && name.chars().all(symbol)
}

/// A pattern of Hive's: alternatives between `|`, `*` for any text, `.` for any character; empty for all.
pub(super) struct Pattern(Option<Regex>);

impl Pattern {
    pub(super) fn new(pattern: &str) -> Answer<Self> {
        let pattern = without_catalog(pattern).trim();
        if pattern.is_empty() || pattern == "*" {
            return Ok(Self(None));
        }
        let alternatives: Vec<String> = pattern
            .split('|')
            .map(|part| part.trim().split('*').map(|text| regex::escape(text).replace("\\.", ".")).collect::<Vec<_>>().join(".*"))
            .collect();
        let regex =
            RegexBuilder::new(&format!("^(?:{})$", alternatives.join("|"))).case_insensitive(true).size_limit(1 << 20).build();
        Ok(Self(Some(regex.map_err(|_| Fault::meta(format!("pattern {pattern} is too long")))?)))
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|regex| regex.is_match(name))
    }
}

/// Whether Hive escapes a character in a partition's path.
fn is_escaped(symbol: char) -> bool {
    symbol.is_ascii_control() || "\"#%'*/:=?\\{[]^".contains(symbol)
}

fn escape(value: &str) -> String {
    if value.is_empty() {
        return DEFAULT_VALUE.to_owned();
    }
    let mut escaped = String::with_capacity(value.len());
    for symbol in value.chars() {
        if is_escaped(symbol) {
            escaped.push_str(&format!("%{:02X}", symbol as u32));
        } else {
            escaped.push(symbol);
        }
    }
    escaped
}

/// The name of a partition: `year=2024/month=7`.
pub(super) fn partition_name(keys: &[String], values: &[String]) -> String {
    let parts = keys.iter().zip(values).map(|(key, value)| format!("{}={}", escape(&key.to_lowercase()), escape(value)));
    parts.collect::<Vec<_>>().join("/")
}

/// The values in a partition's name, in the order of the keys.
pub(super) fn partition_values(name: &str) -> Answer<Vec<String>> {
    let value = |part: &str| {
        let (_, value) = part.split_once('=')?;
        percent_decode_str(value).decode_utf8().ok().map(|value| value.into_owned())
    };
    let values: Option<Vec<String>> = name.split('/').map(value).collect();
    values.ok_or_else(|| Fault::meta(format!("Invalid partition name {name}")))
}

/// A name that a client wrote, as it is kept.
pub(super) fn normal_partition_name(name: &str) -> Answer<String> {
    let values = partition_values(name)?;
    let keys: Vec<String> = name.split('/').filter_map(|part| part.split_once('=')).map(|(key, _)| key.to_owned()).collect();
    Ok(partition_name(&keys, &values))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_catalog_goes_from_before_a_name() {
        assert_eq!((normal("@hive#Sales"), normal("Sales"), normal("@hive#")), ("sales".into(), "sales".into(), "".into()));
        assert!(Pattern::new("@hive#*").unwrap().matches("x") && Pattern::new("@hive#").unwrap().matches("x"));
    }

    #[test]
    fn patterns_are_of_both_styles() {
        let sales = Pattern::new("sales_*|Gold").unwrap();
        assert!(sales.matches("sales_2024") && sales.matches("gold") && !sales.matches("my_sales_2024"));
        assert!(Pattern::new(".*").unwrap().matches("anything"));
        assert!(!Pattern::new("a+").unwrap().matches("aa"));
    }

    /// As a metastore 4.0.1 wrote them.
    #[test]
    fn partition_names_are_escaped_as_hive_does() {
        let name = |value: &str| partition_name(&["Cat".into()], &[value.into()]);
        let expected =
            ["cat=a b", "cat=a%2Fb", "cat=a%25b", "cat=a%3Db", "cat=a%3Ab", "cat=Ünï", "cat=__HIVE_DEFAULT_PARTITION__"];
        assert_eq!(["a b", "a/b", "a%b", "a=b", "a:b", "Ünï", ""].map(name), expected);
    }

    proptest! {
        #[test]
        fn names_come_back_as_values(values in prop::collection::vec(".{1,12}", 1..4)) {
            let keys: Vec<String> = (0..values.len()).map(|index| format!("k{index}")).collect();
            let name = partition_name(&keys, &values);
            prop_assert_eq!(partition_values(&name).unwrap(), values);
            prop_assert_eq!(normal_partition_name(&name).unwrap(), name);
        }
    }
}
