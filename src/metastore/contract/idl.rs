//! A reader of the interface file, as much of Thrift's language as the file uses, and the comparison with the tables.

use std::collections::BTreeMap;

use super::super::thrift::Type;
use super::{Exception, METHODS, Method, fields::STRUCTS};

/// Id to (type, name).
type Fields = BTreeMap<i16, (String, String)>;

#[derive(Default)]
struct Interface {
    enums: Vec<String>,
    structs: BTreeMap<String, Fields>,
    methods: BTreeMap<String, (String, Fields, Fields)>,
}

fn tokens(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut in_word = false;
    for line in text.lines().map(|line| line.split("//").next().unwrap_or_default()) {
        for symbol in line.chars() {
            let word = symbol.is_alphanumeric() || "_.*".contains(symbol);
            match found.last_mut() {
                Some(last) if word && in_word => last.push(symbol),
                _ if symbol.is_whitespace() => {}
                _ => found.push(symbol.into()),
            }
            in_word = word;
        }
        in_word = false;
    }
    found
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<String>>,
}

impl Parser {
    fn next(&mut self) -> String {
        self.tokens.next().expect("the file goes on")
    }

    fn accept(&mut self, token: &str) -> bool {
        self.tokens.next_if(|next| next == token).is_some()
    }

    fn expect(&mut self, token: &str) {
        assert_eq!(self.next(), token);
    }

    fn type_name(&mut self) -> String {
        let mut name = self.next();
        if self.accept("<") {
            name.push('<');
            name.push_str(&self.type_name());
            if self.accept(",") {
                name.push(',');
                name.push_str(&self.type_name());
            }
            self.expect(">");
            name.push('>');
        }
        name
    }

    fn fields(&mut self, end: &str) -> Fields {
        let mut fields = Fields::new();
        while !self.accept(end) {
            let id = self.next().parse().expect("a field begins with its id");
            self.expect(":");
            let _ = self.accept("required") || self.accept("optional");
            let kind = self.type_name();
            let name = self.next();
            assert!(fields.insert(id, (kind, name)).is_none(), "id {id} twice");
            let _ = self.accept(",");
        }
        fields
    }

    fn interface(mut self) -> Interface {
        let mut found = Interface::default();
        while let Some(keyword) = self.tokens.next() {
            let name = self.next();
            match keyword.as_str() {
                "namespace" => drop(self.next()),
                "enum" => {
                    self.expect("{");
                    while self.next() != "}" {}
                    found.enums.push(name);
                }
                "struct" | "union" | "exception" => {
                    self.expect("{");
                    let fields = self.fields("}");
                    assert!(found.structs.insert(name, fields).is_none());
                }
                "service" => {
                    self.expect("{");
                    while !self.accept("}") {
                        let result = self.type_name();
                        let name = self.next();
                        self.expect("(");
                        let arguments = self.fields(")");
                        let throws = if self.accept("throws") {
                            self.expect("(");
                            self.fields(")")
                        } else {
                            Fields::new()
                        };
                        assert!(found.methods.insert(name, (result, arguments, throws)).is_none());
                    }
                }
                other => panic!("{other} is not read here"),
            }
        }
        found
    }
}

fn interface() -> Interface {
    let text = include_str!("../../../thrift/hive_metastore.thrift");
    Parser { tokens: tokens(text).into_iter().peekable() }.interface()
}

impl Interface {
    fn wire_type(&self, name: &str) -> Type {
        match name {
            "bool" => Type::Bool,
            "byte" => Type::Byte,
            "i16" => Type::I16,
            "i32" => Type::I32,
            "i64" => Type::I64,
            "double" => Type::Double,
            "string" | "binary" => Type::String,
            _ if name.starts_with("list<") => Type::List,
            _ if name.starts_with("set<") => Type::Set,
            _ if name.starts_with("map<") => Type::Map,
            _ if self.enums.iter().any(|known| known == name) => Type::I32,
            _ => {
                assert!(self.structs.contains_key(name), "{name} is not declared");
                Type::Struct
            }
        }
    }

    /// Every type name in a type is declared.
    fn check_declared(&self, name: &str) {
        for part in name.split(['<', '>', ',']).filter(|part| !part.is_empty() && !["list", "set", "map"].contains(part)) {
            self.wire_type(part);
        }
    }
}

#[test]
fn every_type_in_the_file_is_declared_there() {
    let interface = interface();
    let of_methods = interface.methods.values().flat_map(|(_, arguments, throws)| arguments.values().chain(throws.values()));
    for (kind, _) in interface.structs.values().flat_map(BTreeMap::values).chain(of_methods) {
        interface.check_declared(kind);
    }
}

#[test]
fn the_views_have_the_files_ids_and_types() {
    let interface = interface();
    for (name, fields) in STRUCTS {
        let declared = interface.structs.get(*name).unwrap_or_else(|| panic!("struct {name} is not in the file"));
        for field in *fields {
            let (kind, declared_name) = declared.get(&field.id).unwrap_or_else(|| panic!("{name} has no field {}", field.id));
            assert_eq!((declared_name.as_str(), interface.wire_type(kind)), (field.name, field.kind), "{name}.{}", field.id);
        }
    }
}

#[test]
fn the_methods_are_the_files_methods() {
    let interface = interface();
    for Method { name, arguments, result, exceptions } in METHODS {
        let (declared_result, declared_arguments, throws) =
            interface.methods.get(*name).unwrap_or_else(|| panic!("method {name} is not in the file"));
        let declared_result = (declared_result != "void").then(|| interface.wire_type(declared_result));
        assert_eq!(declared_result, *result, "{name}");
        let declared: Vec<_> =
            declared_arguments.iter().map(|(id, (kind, name))| (*id, name.as_str(), interface.wire_type(kind))).collect();
        let ours: Vec<_> = arguments.iter().map(|field| (field.id, field.name, field.kind)).collect();
        assert_eq!(declared, ours, "{name}");
        let declared: Vec<_> = throws.iter().map(|(id, (kind, _))| (*id, kind.as_str())).collect();
        let ours: Vec<_> = exceptions.iter().map(|(id, exception)| (*id, exception.name())).collect();
        assert_eq!(declared, ours, "{name}");
    }
    assert_eq!(METHODS.len(), interface.methods.len(), "the file has methods that nobody speaks");
}

#[test]
fn every_exception_is_a_message() {
    let interface = interface();
    let message = (Exception::MESSAGE.id, ("string".to_owned(), Exception::MESSAGE.name.to_owned()));
    let exceptions = METHODS.iter().flat_map(|method| method.exceptions).map(|(_, exception)| exception.name());
    for name in exceptions {
        assert_eq!(interface.structs[name], Fields::from([message.clone()]));
    }
}
