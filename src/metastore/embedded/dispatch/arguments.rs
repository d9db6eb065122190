//! The arguments of a call, by their place; what is missing is refused.

use super::super::super::contract::{Exception, Method};
use super::super::super::thrift::{Field, List, Struct};
use super::super::fault::{Answer, Fault};

pub(super) struct Arguments<'a> {
    pub method: &'static Method,
    pub body: &'a Struct,
}

impl<'a> Arguments<'a> {
    fn missing(&self, name: &str) -> Fault {
        let exception = self.method.exceptions.first().map_or(Exception::Meta, |(_, first)| *first);
        let exception = if self.method.id_of(Exception::Meta).is_some() { Exception::Meta } else { exception };
        Fault::Thrown(exception, format!("{}: {name} is missing", self.method.name))
    }

    fn field(&self, index: usize) -> Answer<Field> {
        self.method.arguments.get(index).copied().ok_or_else(|| self.missing("an argument"))
    }

    pub fn text(&self, index: usize) -> Answer<&'a str> {
        self.need(self.body, self.field(index)?)
    }

    pub fn inner(&self, index: usize) -> Answer<&'a Struct> {
        self.need_inner(self.body, self.field(index)?)
    }

    /// An absent list is an empty one.
    pub fn texts(&self, index: usize) -> Answer<Vec<String>> {
        Ok(texts_of(self.body, self.field(index)?))
    }

    pub fn structs(&self, index: usize) -> Answer<Vec<Struct>> {
        Ok(self.body.structs(self.field(index)?).cloned().collect())
    }

    /// A limit: absent or negative is none.
    pub fn max(&self, index: usize) -> i16 {
        self.field(index).ok().and_then(|field| self.body.i16(field)).unwrap_or(-1)
    }

    pub fn flag(&self, index: usize) -> bool {
        self.field(index).ok().and_then(|field| self.body.flag(field)).unwrap_or_default()
    }

    pub fn need(&self, request: &'a Struct, field: Field) -> Answer<&'a str> {
        request.text(field).ok_or_else(|| self.missing(field.name))
    }

    pub fn need_inner(&self, request: &'a Struct, field: Field) -> Answer<&'a Struct> {
        request.inner(field).ok_or_else(|| self.missing(field.name))
    }

    pub fn need_i64(&self, request: &Struct, field: Field) -> Answer<i64> {
        request.i64(field).ok_or_else(|| self.missing(field.name))
    }
}

/// The texts of a list field; none if it is absent.
pub(super) fn texts_of(request: &Struct, field: Field) -> Vec<String> {
    request.list(field).map(List::to_texts).unwrap_or_default()
}
