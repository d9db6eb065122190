//! Properties that hold for any bytes: whole objects, cut ones, ones with a byte changed, and noise.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::compute::concat_batches;
use arrow::datatypes::{Date32Type, Int32Type, Int64Type};
use proptest::prelude::*;

use super::{plan, rejections, transform};
use crate::silver::{SilverPlan, rejected};

/// A small table with each kind of column, none required, so that arbitrary objects can succeed.
fn loose() -> SilverPlan {
    plan(
        r#"
        max_depth = 6
        columns = [
          { name = "text", required = false }, { name = "int", type = "int", required = false },
          { name = "money", type = "decimal(12, 2)", required = false }, { name = "flag", type = "boolean", required = false },
          { name = "ratio", type = "double", required = false, on_error = "null" },
          { name = "day", type = "date", required = false, formats = ["%Y-%m-%d", "%d-%m-%Y", "epoch_ms"] },
          { name = "moment", type = "timestamp", required = false, lenient = true, formats = ["iso", "epoch_s"] },
        ]
        derive = [{ name = "inverse", type = "int", sql = "100 / int" }]
        expect = [{ name = "money_if_any", sql = "money IS NULL OR money >= 0" }]
        "#,
    )
}

fn json_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|flag| flag.to_string()),
        any::<i32>().prop_map(|number| number.to_string()),
        "-?(0|[1-9][0-9]{0,11})(\\.[0-9]{1,4})?([eE][-+]?[0-9]{1,3})?",
        "\\PC{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        "[0-9]{2}-[0-9]{2}-20[0-9]{2}".prop_map(|text| format!("\"{text}\"")),
        "20[0-9]{2}-[01][0-9]-[0-3][0-9](T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z)?".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(8, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|values| format!("[{}]", values.join(" , "))),
            prop::collection::vec(inner, 0..3).prop_map(|values| {
                let fields: Vec<_> = values.iter().enumerate().map(|(key, value)| format!("\"{key}\" :{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

fn json_object() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec!["text", "int", "money", "flag", "ratio", "day", "moment", "other", "\\u0069nt"]);
    prop::collection::vec((key, json_value()), 0..8).prop_map(|fields| {
        let fields: Vec<_> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", fields.join(", "))
    })
}

/// A message: an object, whole, cut, or with a byte changed; or anything.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let object = || json_object().prop_map(String::into_bytes);
    prop_oneof![
        4 => object(),
        1 => (object(), any::<prop::sample::Index>()).prop_map(|(message, end)| message[..end.index(message.len())].to_vec()),
        2 => (object(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut message, at, byte)| {
            let at = at.index(message.len());
            message[at] = byte;
            message
        }),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn each_record_has_one_fate_that_does_not_depend_on_its_neighbours(messages in prop::collection::vec(message(), 0..12)) {
        let plan = loose();
        let together = transform(&plan, &messages);
        prop_assert_eq!(together.rows.num_rows() + together.rejected.num_rows(), messages.len());
        let mut offsets: Vec<i64> = Vec::new();
        for batch in [&together.rows, &together.rejected] {
            let column = batch.column_by_name("offset").unwrap().as_primitive::<Int64Type>();
            prop_assert!(column.values().is_sorted());
            offsets.extend(column.values());
        }
        offsets.sort_unstable();
        prop_assert_eq!(offsets, (100..100 + messages.len() as i64).collect::<Vec<_>>());

        // One by one they become the same, but for the offset that the batch gives them.
        let alone: Vec<_> = messages.iter().map(|message| transform(&plan, &[message])).collect();
        let rows = concat_batches(plan.arrow_schema(), alone.iter().map(|batch| &batch.rows)).unwrap();
        let rejected = concat_batches(&rejected::arrow_schema(), alone.iter().map(|batch| &batch.rejected)).unwrap();
        for (one, other) in [(rows, &together.rows), (rejected, &together.rejected)] {
            for (index, field) in one.schema().fields().iter().enumerate().filter(|(_, field)| field.name() != "offset") {
                prop_assert_eq!(one.column(index), other.column(index), "{}", field.name());
            }
        }
    }

    #[test]
    fn what_is_accepted_is_what_serde_json_reads(message in message()) {
        let batch = transform(&loose(), &[&message]);
        let parsed: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(&message).ok();
        if batch.rows.num_rows() == 1 {
            let Some(parsed) = parsed else {
                // By the grammar it is an object; serde_json has no value for a number such as 1e400 in a field that nobody reads.
                let by_grammar = serde_json::from_slice::<BTreeMap<String, Box<serde_json::value::RawValue>>>(&message);
                prop_assert!(by_grammar.is_ok(), "an accepted message is a JSON object");
                return Ok(());
            };
            let rows = &batch.rows;
            let column = |name: &str| rows.column_by_name(name).unwrap();
            let given = |name: &str| parsed.get(name).filter(|value| !value.is_null());
            prop_assert_eq!(column("text").as_string::<i32>().iter().next().unwrap(), given("text").and_then(|value| value.as_str()));
            let int = column("int").as_primitive::<Int32Type>().iter().next().unwrap();
            prop_assert_eq!(int.map(f64::from), given("int").and_then(|value| value.as_f64()));
            prop_assert_eq!(column("flag").as_boolean().iter().next().unwrap(), given("flag").and_then(|value| value.as_bool()));
            if let Some(days) = column("day").as_primitive::<Date32Type>().iter().next().unwrap()
                && let Some(text) = given("day").and_then(|value| value.as_str())
            {
                let chrono = ["%Y-%m-%d", "%d-%m-%Y"].iter().find_map(|format| chrono::NaiveDate::parse_from_str(text, format).ok());
                prop_assert_eq!(chrono::DateTime::UNIX_EPOCH.date_naive() + chrono::Days::new(days as u64), chrono.unwrap());
            }
        } else if rejections(&batch)[0].1 == "decode" && parsed.is_some() {
            // What serde_json takes and silver does not: keys twice, and nesting beyond the limit.
            let reason = &rejections(&batch)[0].3;
            prop_assert!(reason == "stands twice in the object" || reason.contains("nested deeper"), "{}", reason);
        }
    }
}
