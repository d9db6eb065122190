//! Types as they are written on the command line and in plans: Iceberg's names, and `list<…>`, `map<…, …>` and `struct<name: …>` around
//! them.

use std::sync::Arc;

use iceberg::spec::{ListType, MapType, NestedField, PrimitiveType, StructType, Type};

use crate::error::{Error, Result};

/// What a type may be called.
const KNOWN: &str = "boolean, int, long, float, double, decimal(P, S), date, timestamp, string, binary, list<TYPE>, map<TYPE, TYPE>, \
                     struct<NAME: TYPE, ...>";

/// Reads a type. Its nested fields get ids from `next_id` on, outermost first, as Java assigns them.
pub fn parse_type(text: &str, next_id: &mut i32) -> Result<Type> {
    let mut parser = Parser { text, at: 0, next_id };
    let parsed = parser.type_().and_then(|parsed| match parser.rest().trim() {
        "" => Some(parsed),
        _ => None,
    });
    parsed.ok_or_else(|| Error::config(format!("`{text}` is no type")).hint(format!("types are {KNOWN}")))
}

/// A type as it is shown, and as [`parse_type`] takes it.
pub fn type_name(field_type: &Type) -> String {
    match field_type {
        Type::Primitive(primitive) => primitive.to_string(),
        Type::List(list) => format!("list<{}>", type_name(&list.element_field.field_type)),
        Type::Map(map) => format!("map<{}, {}>", type_name(&map.key_field.field_type), type_name(&map.value_field.field_type)),
        Type::Struct(fields) => {
            let fields = fields.fields().iter().map(|field| format!("{}: {}", field.name, type_name(&field.field_type)));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    next_id: &'a mut i32,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// A name, with what stands before it skipped.
    fn word(&mut self) -> Option<&'a str> {
        self.space();
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        self.at += end;
        (end > 0).then(|| &rest[..end])
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, mark: char) -> Option<()> {
        self.space();
        self.at += self.rest().starts_with(mark).then(|| mark.len_utf8())?;
        Some(())
    }

    fn id(&mut self) -> i32 {
        let id = *self.next_id;
        *self.next_id += 1;
        id
    }

    fn number(&mut self) -> Option<u32> {
        self.word()?.parse().ok()
    }

    fn type_(&mut self) -> Option<Type> {
        let primitive = match self.word()?.to_lowercase().as_str() {
            "boolean" => PrimitiveType::Boolean,
            "int" | "integer" => PrimitiveType::Int,
            "long" | "bigint" => PrimitiveType::Long,
            "float" => PrimitiveType::Float,
            "double" => PrimitiveType::Double,
            "date" => PrimitiveType::Date,
            "timestamp" => PrimitiveType::Timestamp,
            "string" => PrimitiveType::String,
            "binary" => PrimitiveType::Binary,
            "decimal" => return self.decimal(),
            "list" | "array" => return self.list(),
            "map" => return self.map(),
            "struct" => return self.fields(),
            _ => return None,
        };
        Some(Type::Primitive(primitive))
    }

    fn decimal(&mut self) -> Option<Type> {
        self.take('(')?;
        let precision = self.number()?;
        let scale = match self.take(',') {
            Some(()) => self.number()?,
            None => 0,
        };
        self.take(')')?;
        let fits = (1..=38).contains(&precision) && scale <= precision;
        fits.then_some(Type::Primitive(PrimitiveType::Decimal { precision, scale }))
    }

    fn list(&mut self) -> Option<Type> {
        self.take('<')?;
        let id = self.id();
        let element = self.type_()?;
        self.take('>')?;
        Some(Type::List(ListType::new(Arc::new(NestedField::list_element(id, element, false)))))
    }

    fn map(&mut self) -> Option<Type> {
        self.take('<')?;
        let (key_id, value_id) = (self.id(), self.id());
        let key = self.type_()?;
        self.take(',')?;
        let value = self.type_()?;
        self.take('>')?;
        Some(Type::Map(MapType::optional(key_id, key, value_id, value)))
    }

    fn fields(&mut self) -> Option<Type> {
        self.take('<')?;
        let mut fields: Vec<Arc<NestedField>> = Vec::new();
        loop {
            let name = self.word()?;
            self.take(':')?;
            let id = self.id();
            let field = NestedField::optional(id, name, self.type_()?);
            if fields.iter().any(|known| known.name.eq_ignore_ascii_case(name)) {
                return None;
            }
            fields.push(Arc::new(field));
            if self.take(',').is_none() {
                self.take('>')?;
                return Some(Type::Struct(StructType::new(fields)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_read_as_it_is_shown() {
        for (text, shown) in [
            ("int", "int"),
            ("BIGINT", "long"),
            ("decimal(10,2)", "decimal(10, 2)"),
            ("decimal( 9 )", "decimal(9, 0)"),
            ("list<string>", "list<string>"),
            ("map<string,list<int>>", "map<string, list<int>>"),
            ("struct<a: int, b: struct<c: date>>", "struct<a: int, b: struct<c: date>>"),
        ] {
            let mut next = 7;
            let parsed = parse_type(text, &mut next).unwrap();
            assert_eq!(type_name(&parsed), shown);
            assert_eq!(type_name(&parse_type(shown, &mut 1).unwrap()), shown);
        }
    }

    #[test]
    fn nested_fields_have_ids_of_their_own() {
        let mut next = 7;
        let Type::Struct(fields) = parse_type("struct<a: list<int>, b: map<string, int>>", &mut next).unwrap() else { panic!() };
        assert_eq!(fields.fields().iter().map(|field| field.id).collect::<Vec<_>>(), [7, 9]);
        assert_eq!(next, 12);
    }

    #[test]
    fn what_is_no_type_is_said_with_what_would_be_one() {
        for text in [
            "",
            "number",
            "decimal(39, 2)",
            "decimal(2, 3)",
            "list<int",
            "int)",
            "struct<>",
            "struct<a: int, A: int>",
            "map<int>",
        ] {
            let error = parse_type(text, &mut 1).unwrap_err();
            assert!(error.hint_text().is_some_and(|hint| hint.contains("decimal(P, S)")), "{text}");
        }
    }
}
