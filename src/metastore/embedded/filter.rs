//! The filter text of `get_partitions_by_filter` and `get_table_names_by_filter`.
//!
//! Grammar: comparisons of a name with a literal (either way round), `in`, `not in`, `between`, `like`,
//! joined by `and`, `or` and parentheses. Literals are integers, quoted text and dates.

use regex::{Regex, RegexBuilder};

use super::fault::{Answer, Fault};

/// A filter this long or deep was not written by an engine.
const LENGTH_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 64;

#[derive(Debug)]
pub(super) enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Compare(String, Comparison, Literal),
    In(String, Vec<Literal>),
    NotIn(String, Vec<Literal>),
    Like(String, Regex),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Number(i64),
    Text(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Literal(Literal),
    Symbol(&'static str),
}

impl Filter {
    pub(super) fn parse(text: &str) -> Answer<Self> {
        let wrong = |reason: String| Fault::meta(format!("Error parsing partition filter: {reason}"));
        if text.len() > LENGTH_MAX {
            return Err(wrong(format!("it is longer than {LENGTH_MAX} bytes")));
        }
        let mut parser = Parser { tokens: tokens(text).map_err(wrong)?, position: 0 };
        let filter = parser.or(0).map_err(wrong)?;
        if parser.position < parser.tokens.len() {
            return Err(wrong("it goes on after its end".into()));
        }
        Ok(filter)
    }

    /// Whether a thing matches, whose values are found by name. A name without a value matches nothing.
    pub(super) fn matches<'v>(&self, value: &impl Fn(&str) -> Option<&'v str>) -> bool {
        match self {
            Filter::And(parts) => parts.iter().all(|part| part.matches(value)),
            Filter::Or(parts) => parts.iter().any(|part| part.matches(value)),
            Filter::Compare(name, comparison, literal) => value(name).is_some_and(|value| comparison.holds(value, literal)),
            Filter::In(name, literals) => {
                value(name).is_some_and(|value| literals.iter().any(|literal| Comparison::Equal.holds(value, literal)))
            }
            Filter::NotIn(name, literals) => {
                value(name).is_some_and(|value| literals.iter().all(|literal| Comparison::NotEqual.holds(value, literal)))
            }
            Filter::Like(name, regex) => value(name).is_some_and(|value| regex.is_match(value)),
        }
    }

    /// The names that the filter asks for.
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Filter::And(parts) | Filter::Or(parts) => parts.iter().flat_map(Filter::names).collect(),
            Filter::Compare(name, ..) | Filter::In(name, _) | Filter::NotIn(name, _) | Filter::Like(name, _) => vec![name],
        }
    }
}

impl Comparison {
    /// A number is compared as a number (`07` is 7), text as text.
    fn holds(self, value: &str, literal: &Literal) -> bool {
        let order = match literal {
            Literal::Number(number) => match value.parse::<i64>() {
                Ok(value) => value.cmp(number),
                Err(_) => return false,
            },
            Literal::Text(text) => value.cmp(text.as_str()),
        };
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }
    }

    fn from_symbol(symbol: &str) -> Option<Self> {
        Some(match symbol {
            "=" | "==" => Comparison::Equal,
            "!=" | "<>" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            _ => return None,
        })
    }

    /// The comparison with its sides exchanged.
    fn mirrored(self) -> Self {
        match self {
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
            same => same,
        }
    }
}

const SYMBOLS: [&str; 11] = ["<=", ">=", "<>", "!=", "==", "=", "<", ">", "(", ")", ","];

type Parsed<T> = Result<T, String>;

fn tokens(text: &str) -> Parsed<Vec<Token>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
            found.push(Token::Symbol(symbol));
            symbol.len()
        } else if first == '"' || first == '\'' {
            let (text, length) = quoted(rest, first)?;
            found.push(Token::Literal(Literal::Text(text)));
            length
        } else if first.is_ascii_digit() || first == '-' {
            let length = rest.find(|symbol: char| !symbol.is_ascii_digit() && symbol != '-').unwrap_or(rest.len());
            found.push(Token::Literal(number_or_date(&rest[..length])?));
            length
        } else if first.is_alphabetic() || first == '_' {
            let length = rest.find(|symbol: char| !symbol.is_alphanumeric() && !"_.$-".contains(symbol)).unwrap_or(rest.len());
            found.push(Token::Name(rest[..length].to_owned()));
            length
        } else {
            return Err(format!("{first:?} is not understood"));
        };
        rest = rest[length..].trim_start();
    }
    Ok(found)
}

/// The text within quotes, with backslashes taken out, and how many bytes it took.
fn quoted(rest: &str, quote: char) -> Parsed<(String, usize)> {
    let mut text = String::new();
    let mut symbols = rest.char_indices().skip(1);
    while let Some((at, symbol)) = symbols.next() {
        match symbol {
            '\\' => text.extend(symbols.next().map(|(_, escaped)| escaped)),
            _ if symbol == quote => return Ok((text, at + 1)),
            _ => text.push(symbol),
        }
    }
    Err("a quoted text has no end".into())
}

/// Dates come without quotes from some engines.
fn number_or_date(text: &str) -> Parsed<Literal> {
    if let Ok(number) = text.parse() {
        return Ok(Literal::Number(number));
    }
    let is_date = text.len() == 10 && text.bytes().enumerate().all(|(at, byte)| (byte == b'-') == (at == 4 || at == 7));
    if is_date { Ok(Literal::Text(text.to_owned())) } else { Err(format!("{text} is no number")) }
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.position)
    }

    fn accept_word(&mut self, word: &str) -> bool {
        let there = matches!(self.peek(), Some(Token::Name(name)) if name.eq_ignore_ascii_case(word));
        self.position += usize::from(there);
        there
    }

    fn accept(&mut self, symbol: &str) -> bool {
        let there = matches!(self.peek(), Some(Token::Symbol(found)) if *found == symbol);
        self.position += usize::from(there);
        there
    }

    fn expect(&mut self, symbol: &str) -> Parsed<()> {
        if self.accept(symbol) { Ok(()) } else { Err(format!("{symbol} is missing")) }
    }

    fn next(&mut self) -> Parsed<Token> {
        let token = self.peek().cloned().ok_or("it ends too early")?;
        self.position += 1;
        Ok(token)
    }

    fn or(&mut self, depth: usize) -> Parsed<Filter> {
        let mut parts = vec![self.and(depth)?];
        while self.accept_word("or") {
            parts.push(self.and(depth)?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Filter::Or(parts) })
    }

    fn and(&mut self, depth: usize) -> Parsed<Filter> {
        let mut parts = vec![self.factor(depth)?];
        while self.accept_word("and") {
            parts.push(self.factor(depth)?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Filter::And(parts) })
    }

    fn factor(&mut self, depth: usize) -> Parsed<Filter> {
        if depth > DEPTH_MAX {
            return Err(format!("it nests more than {DEPTH_MAX} levels deep"));
        }
        // A name may stand in parentheses of its own, before `in`.
        if let [Token::Symbol("("), Token::Name(name), Token::Symbol(")"), ..] = &self.tokens[self.position..] {
            let name = name.clone();
            self.position += 3;
            return self.predicate(name);
        }
        if self.accept("(") {
            let inner = self.or(depth + 1)?;
            self.expect(")")?;
            return Ok(inner);
        }
        match self.next()? {
            Token::Name(word) if is_type_word(&word) && matches!(self.peek(), Some(Token::Literal(_))) => {
                let literal = self.literal()?;
                self.mirrored(literal)
            }
            Token::Name(name) => self.predicate(name),
            Token::Literal(literal) => self.mirrored(literal),
            Token::Symbol(symbol) => Err(format!("{symbol} stands where a name is due")),
        }
    }

    fn mirrored(&mut self, literal: Literal) -> Parsed<Filter> {
        let comparison = self.comparison()?;
        match self.next()? {
            Token::Name(name) => Ok(Filter::Compare(name, comparison.mirrored(), literal)),
            _ => Err("two literals are compared".into()),
        }
    }

    fn comparison(&mut self) -> Parsed<Comparison> {
        match self.next()? {
            Token::Symbol(symbol) => Comparison::from_symbol(symbol).ok_or_else(|| format!("{symbol} is no comparison")),
            _ => Err("a comparison is missing".into()),
        }
    }

    fn predicate(&mut self, name: String) -> Parsed<Filter> {
        if self.accept_word("not") {
            if !self.accept_word("in") {
                return Err("not stands alone".into());
            }
            return Ok(Filter::NotIn(name, self.literals()?));
        }
        if self.accept_word("in") {
            return Ok(Filter::In(name, self.literals()?));
        }
        if self.accept_word("between") {
            let low = Filter::Compare(name.clone(), Comparison::GreaterOrEqual, self.literal()?);
            if !self.accept_word("and") {
                return Err("between has one bound".into());
            }
            return Ok(Filter::And(vec![low, Filter::Compare(name, Comparison::LessOrEqual, self.literal()?)]));
        }
        if self.accept_word("like") {
            let Literal::Text(pattern) = self.literal()? else { return Err("like wants a text".into()) };
            return Ok(Filter::Like(name, like(&pattern)?));
        }
        let comparison = self.comparison()?;
        Ok(Filter::Compare(name, comparison, self.literal()?))
    }

    fn literals(&mut self) -> Parsed<Vec<Literal>> {
        self.expect("(")?;
        let mut literals = vec![self.literal()?];
        while self.accept(",") {
            literals.push(self.literal()?);
        }
        self.expect(")")?;
        Ok(literals)
    }

    fn literal(&mut self) -> Parsed<Literal> {
        match self.next()? {
            Token::Literal(literal) => Ok(literal),
            Token::Name(word) if is_type_word(&word) => self.literal(),
            _ => Err("a literal is missing".into()),
        }
    }
}

/// The pattern of a `like`. Hive 4's clients write it as SQL does, with `%` and `_`; older ones as a regular expression, with `.*`.
fn like(pattern: &str) -> Parsed<Regex> {
    let expression = if pattern.contains('%') {
        let symbol = |symbol| match symbol {
            '%' => ".*".to_owned(),
            '_' => ".".to_owned(),
            other => regex::escape(other.encode_utf8(&mut [0; 4])),
        };
        pattern.chars().map(symbol).collect()
    } else {
        pattern.to_owned()
    };
    let built = RegexBuilder::new(&format!("^(?:{expression})$")).size_limit(1 << 20).dot_matches_new_line(true).build();
    built.map_err(|error| format!("{pattern:?} is no pattern: {error}"))
}

/// `date '2024-01-01'`.
fn is_type_word(word: &str) -> bool {
    word.eq_ignore_ascii_case("date") || word.eq_ignore_ascii_case("timestamp")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(filter: &str) -> bool {
        let value = |name: &str| match name {
            "y" => Some("2024"),
            "m" => Some("02"),
            "day" => Some("2024-02-29"),
            "cat" => Some("a\"b"),
            _ => None,
        };
        Filter::parse(filter).unwrap().matches(&value)
    }

    #[test]
    fn what_engines_send_is_understood() {
        for holds in [
            "y = 2024",
            "y >= 2024 and (m) in (\"02\", \"03\")",
            "2023 < y",
            "(y = 2023 or y = 2024) and m != '03'",
            "m not in (\"05\")",
            "m between \"01\" and \"02\"",
            "day = 2024-02-29",
            "day > date '2024-01-01'",
            "m like \"0.*\"",
            "m like \"0%\" and day like \"%-02-__\"",
            "m = 2",
            "cat = \"a\\\"b\"",
            "Y_is_not_there = 1 or y <> 1",
        ] {
            assert!(matches(holds), "{holds}");
        }
        for fails in [
            "y = 2023",
            "m = \"2\"",
            "absent != 1",
            "y = 2024 and m = \"03\"",
            "m like \"2\"",
            "m like \"2%\"",
            "day < 2024-02-29",
        ] {
            assert!(!matches(fails), "{fails}");
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        let deep = "(".repeat(100_000);
        for wrong in
            ["", "y", "y =", "y = 1 and", "(y = 1", "y in ()", "1 = 2", "y = 'open", "y ~ 1", "y = 1 y = 2", "y = 1-2", &deep]
        {
            assert!(Filter::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = Filter::parse(&text);
        }
    }
}
