//! Avro as anybody could read it: a file's values by the schema that stands in its header. Only what manifests and their lists need:
//! no compression, no names that refer to a type defined elsewhere in the schema.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use serde_json::{Map, Value};

/// Schemas by their text: there are few of them, and many files.
static SCHEMAS: LazyLock<Mutex<HashMap<String, Arc<Value>>>> = LazyLock::new(Mutex::default);

/// The records of an Avro file. Byte strings become text where they are text, else null.
pub fn records(file: &[u8]) -> Result<Vec<Value>, String> {
    let mut reader = Reader(file);
    if reader.take(4)? != b"Obj\x01" {
        return Err("not an Avro file".to_owned());
    }
    let header = reader.value(&serde_json::json!({"type": "map", "values": "bytes"}))?;
    let entry = |key: &str| header[key].as_str().ok_or_else(|| format!("an Avro file without {key}"));
    if header["avro.codec"].as_str().is_some_and(|codec| codec != "null") {
        return Err("a compressed Avro file".to_owned());
    }
    let schema = schema(entry("avro.schema")?)?;
    let sync = reader.take(16)?;
    let mut records = Vec::new();
    while !reader.0.is_empty() {
        let (count, _bytes) = (reader.long()?, reader.long()?);
        for _ in 0..count {
            records.push(reader.value(&schema)?);
        }
        if reader.take(16)? != sync {
            return Err("a block of an Avro file ends elsewhere".to_owned());
        }
    }
    Ok(records)
}

fn schema(text: &str) -> Result<Arc<Value>, String> {
    let mut known = SCHEMAS.lock().unwrap();
    if let Some(schema) = known.get(text) {
        return Ok(schema.clone());
    }
    let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(known.entry(text.to_owned()).or_insert(Arc::new(schema)).clone())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("an Avro file ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn long(&mut self) -> Result<i64, String> {
        let (mut bits, mut shift) = (0u64, 0);
        loop {
            let byte = self.take(1)?[0];
            bits |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
            if shift > 63 {
                return Err("a number of an Avro file is too long".to_owned());
            }
        }
    }

    fn length(&mut self) -> Result<usize, String> {
        usize::try_from(self.long()?).map_err(|_| "a negative length in an Avro file".to_owned())
    }

    fn value(&mut self, schema: &Value) -> Result<Value, String> {
        let kind = match schema {
            Value::Array(branches) => {
                let branch = self.length()?;
                return self.value(branches.get(branch).ok_or("an Avro union without that branch")?);
            }
            Value::Object(object) => match &object["type"] {
                Value::String(kind) => kind,
                inner => return self.value(inner),
            },
            Value::String(kind) => kind,
            other => return Err(format!("{other} is no Avro type")),
        };
        match kind.as_str() {
            "null" => Ok(Value::Null),
            "boolean" => Ok(Value::Bool(self.take(1)?[0] != 0)),
            "int" | "long" => Ok(self.long()?.into()),
            "float" => self.take(4).map(|_| Value::Null),
            "double" => self.take(8).map(|_| Value::Null),
            "string" | "bytes" => {
                let length = self.length()?;
                Ok(std::str::from_utf8(self.take(length)?).map_or(Value::Null, Value::from))
            }
            "record" => {
                let mut record = Map::new();
                for field in schema["fields"].as_array().ok_or("an Avro record without fields")? {
                    let name = field["name"].as_str().ok_or("an Avro field without a name")?;
                    record.insert(name.to_owned(), self.value(&field["type"])?);
                }
                Ok(record.into())
            }
            "array" => {
                let mut items = Vec::new();
                self.blocks(|reader| reader.value(&schema["items"]).map(|item| items.push(item)))?;
                Ok(items.into())
            }
            "map" => {
                let (mut entries, text) = (Map::new(), Value::from("string"));
                self.blocks(|reader| {
                    let key = reader.value(&text)?.as_str().unwrap_or_default().to_owned();
                    reader.value(&schema["values"]).map(|value| _ = entries.insert(key, value))
                })?;
                Ok(entries.into())
            }
            other => Err(format!("the Avro type {other} is not read here")),
        }
    }

    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), String>) -> Result<(), String> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                self.long()?;
            }
            for _ in 0..count.unsigned_abs() {
                item(self)?;
            }
        }
    }
}
