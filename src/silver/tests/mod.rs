//! Silver as a whole: the preset's definition, a corpus of bad messages, and (in `properties`) arbitrary bytes.

mod properties;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::builder::{BinaryBuilder, ListBuilder, StructBuilder};
use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Decimal128Type, Field, Int32Type, Int64Type};
use arrow::util::display::array_value_to_string;

use super::*;
use crate::checkpoint::{Coverage, Delta, OffsetRange};
use crate::record::{RawBatch, SilverBatch, header_fields, raw_schema};

/// What the shipped preset says about silver.
const PRESET: &str = include_str!("../../config/amazon-sales.toml");

const PROCESSED_AT: i64 = 1_700_000_000_000_000;

fn preset() -> SilverSettings {
    let file: toml::Table = toml::from_str(PRESET).unwrap();
    file["silver"].clone().try_into().unwrap()
}

fn plan(settings: &str) -> SilverPlan {
    SilverPlan::new(&toml::from_str(settings).unwrap()).unwrap()
}

fn refused(settings: &str) -> crate::Error {
    let error = SilverPlan::new(&toml::from_str(settings).unwrap()).err().unwrap();
    assert_eq!(error.kind(), crate::Kind::Config);
    error
}

/// A batch of one topic partition from offset 100.
fn raw<T: AsRef<[u8]>>(values: &[Option<T>]) -> RawBatch {
    let rows = values.len();
    let mut value = BinaryBuilder::new();
    values.iter().for_each(|bytes| value.append_option(bytes.as_ref()));
    let mut headers = ListBuilder::new(StructBuilder::from_fields(header_fields(), 0)).with_field(Field::new(
        "element",
        DataType::Struct(header_fields()),
        false,
    ));
    (0..rows).for_each(|_| headers.append(true));
    let offsets = 100..100 + rows as i64;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values((0..rows).map(|_| "sales"))),
        Arc::new(Int32Array::from_value(3, rows)),
        Arc::new(Int64Array::from_iter_values(offsets.clone())),
        Arc::new(TimestampMicrosecondArray::from_value(5, rows)),
        new_null_array(&DataType::Binary, rows),
        Arc::new(value.finish()),
        Arc::new(headers.finish()),
        Arc::new(TimestampMicrosecondArray::from_value(6, rows)),
    ];
    let coverage = Coverage { range: OffsetRange::new(offsets.start, offsets.end), records: rows as u64 };
    let records = RecordBatch::try_new(raw_schema(), columns).unwrap();
    RawBatch { delta: Delta { partitions: BTreeMap::from([(3, coverage)]) }, records }
}

fn transform<T: AsRef<[u8]>>(plan: &SilverPlan, values: &[T]) -> SilverBatch {
    let values: Vec<_> = values.iter().map(Some).collect();
    plan.transform(&raw(&values), PROCESSED_AT).unwrap()
}

/// Offset, stage, field and reason of each rejected record.
fn rejections(batch: &SilverBatch) -> Vec<(i64, String, String, String)> {
    let text = |name: &str, row| array_value_to_string(batch.rejected.column_by_name(name).unwrap(), row).unwrap();
    let offsets = batch.rejected.column_by_name("offset").unwrap().as_primitive::<Int64Type>();
    (0..batch.rejected.num_rows())
        .map(|row| (offsets.value(row), text(rejected::STAGE, row), text(rejected::FIELD, row), text(rejected::REASON, row)))
        .collect()
}

fn good() -> String {
    r#"{"OrderID":"ORD0000001","OrderDate":"2023-07-16","CustomerID":"CUST000001","CustomerName":"Neha Joshi","ProductID":"P00001",
    "ProductName":"Children's \"Book\" & caf\u00e9 \ud83d\ude00","Category":"Books","Brand":"Zenith","Quantity":3,"UnitPrice":269.8,
    "Discount":0.15,"Tax":55.04,"ShippingCost":0,"TotalAmount":743.03,"PaymentMethod":"UPI","OrderStatus":"Delivered","City":"Austin",
    "State":"TX","Country":"India","SellerID":"SELL00001"}"#
        .to_owned()
}

#[test]
fn the_preset_types_derives_and_expects() {
    let plan = SilverPlan::new(&preset()).unwrap();
    let spreadsheet = good().replace("2023-07-16", "31-12-2024");
    let batch = transform(&plan, &[good(), spreadsheet]);
    assert_eq!(rejections(&batch), []);
    assert_eq!(batch.rows.schema(), *plan.arrow_schema());
    let shown = |name: &str, row| array_value_to_string(batch.rows.column_by_name(name).unwrap(), row).unwrap();
    for (name, value) in [
        ("topic", "sales"),
        ("partition", "3"),
        ("offset", "100"),
        ("kafka_timestamp", "1970-01-01T00:00:00.000005"),
        ("OrderDate", "2023-07-16"),
        ("ProductName", "Children's \"Book\" & café 😀"),
        ("Quantity", "3"),
        ("UnitPrice", "269.80"),
        ("Discount", "0.1500"),
        ("ShippingCost", "0.00"),
        ("Year", "2023"),
        ("Month", "7"),
        ("Quarter", "3"),
        ("DayOfWeek", "1"),
        ("Revenue", "809.40"),
        ("DiscountAmount", "121.4100"),
        ("NetRevenue", "687.9900"),
        ("processing_timestamp", "2023-11-14T22:13:20"),
    ] {
        assert_eq!(shown(name, 0), value, "{name}");
    }
    for (name, value) in [("offset", "101"), ("OrderDate", "2024-12-31"), ("Year", "2024"), ("Quarter", "4"), ("DayOfWeek", "3")]
    {
        assert_eq!(shown(name, 1), value, "{name}");
    }
}

#[test]
fn the_preset_makes_the_table_that_the_design_names() {
    let plan = SilverPlan::new(&preset()).unwrap();
    let names: Vec<_> = plan.schema().as_struct().fields().iter().map(|field| field.name.clone()).collect();
    assert_eq!(names[..5], ["topic", "partition", "offset", "kafka_timestamp", "OrderID"]);
    assert_eq!(
        names[24..],
        ["Year", "Month", "Quarter", "DayOfWeek", "Revenue", "DiscountAmount", "NetRevenue", "processing_timestamp"]
    );
    let partition_by: Vec<_> = plan.partition_by().iter().map(|(name, transform)| format!("{transform}({name})")).collect();
    assert_eq!(partition_by, ["identity(Year)", "identity(Month)"]);
    assert!(plan.schema().field_by_name("OrderID").unwrap().required);
    assert!(!plan.schema().field_by_name("kafka_timestamp").unwrap().required);
    assert!(plan.no_dictionary().iter().any(|name| name == "UnitPrice"));
    assert!(!plan.no_dictionary().iter().any(|name| name == "Category"));
}

/// `tests/corpus/bad_messages`: each file is one message for the preset's definition; `expected.tsv` has its stage, field and a part of
/// the reason.
#[test]
fn every_message_of_the_corpus_is_rejected_for_its_reason() {
    let folder = crate::repository().join("tests/corpus/bad_messages");
    let expected = std::fs::read_to_string(folder.join("expected.tsv")).unwrap();
    let plan = SilverPlan::new(&preset()).unwrap();
    let mut files = 0;
    for line in expected.lines().filter(|line| !line.is_empty()) {
        let [file, stage, field, reason] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let message = std::fs::read(folder.join(file)).unwrap();
        let message = message.strip_suffix(b"\n").unwrap_or(&message);
        expect_one_rejection(&plan, message, stage, field, reason, file);
        files += 1;
    }
    let messages =
        std::fs::read_dir(&folder).unwrap().filter(|entry| entry.as_ref().unwrap().path().extension().unwrap() == "json");
    assert_eq!(messages.count(), files, "every file has a line in expected.tsv");
}

/// A bad message between two good ones: it alone is rejected, with its bytes.
fn expect_one_rejection(plan: &SilverPlan, message: &[u8], stage: &str, field: &str, reason: &str, name: &str) {
    let good = good();
    let batch = transform(plan, &[good.as_bytes(), message, good.as_bytes()]);
    assert_eq!(batch.rows.num_rows(), 2, "{name}");
    let alone = transform(plan, &[good.as_bytes()]).rows;
    for (row, offset) in [(0, 100), (1, 102)] {
        assert_eq!(batch.rows.column(2).as_primitive::<Int64Type>().value(row), offset, "{name}");
        for column in 3..alone.num_columns() {
            assert_eq!(batch.rows.column(column).slice(row, 1).to_data(), alone.column(column).to_data(), "{name}");
        }
    }
    let [(offset, found_stage, found_field, found_reason)] = &rejections(&batch)[..] else { panic!("{name}") };
    assert_eq!((*offset, found_stage.as_str(), found_field.as_str()), (101, stage, field), "{name}: {found_reason}");
    assert!(found_reason.contains(reason), "{name}: {found_reason}");
    assert_eq!(batch.rejected.column_by_name("value").unwrap().as_binary::<i32>().value(0), message, "{name}");
}

#[test]
fn messages_too_large_for_a_file_are_rejected_too() {
    let plan = SilverPlan::new(&preset()).unwrap();
    let with = |field: &str| good().replacen('{', &format!("{{{field},"), 1).into_bytes();
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let objects = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
    for (name, message, stage, field, reason) in [
        ("deep array", with(&format!(r#""x":{}"#, nested(10_000))), "decode", "", "nested deeper than 128 levels"),
        ("deep objects", objects(10_000).into_bytes(), "decode", "", "nested deeper than 128 levels"),
        ("deep where text should be", with(&format!(r#""x":{}"#, nested(128))), "decode", "", "nested deeper than 128 levels"),
        ("deep and cut short", format!(r#"{{"x":{}"#, "[".repeat(1 << 20)).into_bytes(), "decode", "", "cut short"),
        ("deep without an object", nested(10_000).into_bytes(), "decode", "", "is an array instead of a JSON object"),
        ("10 MB", with(&format!(r#""x":"{}""#, "y".repeat(10_000_000))), "decode", "", "silver.max_value_bytes is 8388608"),
        ("long number", good().replace("269.8", &"9".repeat(1 << 20)).into_bytes(), "type", "UnitPrice", "out of the range"),
        ("many keys, one twice", with(&many_keys()), "decode", "k4999", "stands twice"),
    ] {
        expect_one_rejection(&plan, &message, stage, field, reason, name);
    }
    let admitted = with(&format!(r#""x":{},"y":"{}[[[[""#, nested(127), "[".repeat(300)));
    assert_eq!(rejections(&transform(&plan, &[admitted])), []);
    let settings = SilverSettings { max_value_bytes: bytesize::ByteSize::mib(16), ..preset() };
    let ten_megabytes = with(&format!(r#""x":"{}""#, "y".repeat(10_000_000)));
    assert_eq!(rejections(&transform(&SilverPlan::new(&settings).unwrap(), &[ten_megabytes])), []);
}

/// 5,000 ignored keys, more than are remembered, the last one twice.
fn many_keys() -> String {
    let keys: Vec<_> = (0..5000).chain([4999]).map(|key| format!(r#""k{key}":1"#)).collect();
    keys.join(",")
}

#[test]
fn null_and_empty_values_are_rejected_records() {
    let batch = SilverPlan::new(&preset()).unwrap().transform(&raw(&[None, Some("")]), PROCESSED_AT).unwrap();
    let reasons: Vec<_> = rejections(&batch).into_iter().map(|(_, _, _, reason)| reason).collect();
    assert_eq!(reasons, ["value is null", "value is empty"]);
    let value = batch.rejected.column_by_name("value").unwrap();
    assert!(value.is_null(0) && value.is_valid(1));
}

#[test]
fn a_batch_without_records_still_carries_its_delta() {
    let plan = SilverPlan::new(&preset()).unwrap();
    let mut empty = raw::<&str>(&[]);
    empty.delta.partitions.insert(0, Coverage { range: OffsetRange::new(5, 9), records: 0 });
    let batch = plan.transform(&empty, PROCESSED_AT).unwrap();
    assert_eq!((batch.rows.num_rows(), batch.rejected.num_rows()), (0, 0));
    assert_eq!(batch.delta, empty.delta);
    assert_eq!(batch.rows.schema(), *plan.arrow_schema());
}

#[test]
fn expectations_and_failed_expressions_reject_their_rows_alone() {
    let plan = plan(
        r#"
        columns = [{ name = "a", type = "int" }, { name = "b", type = "int", required = false }]
        derive = [{ name = "share", type = "decimal(5, 2)", sql = "100.00 / a" }, { name = "twice", type = "int", sql = "share * 2" }]
        expect = [{ name = "b_is_small", sql = "b < 10 AND Twice <> 8" }]
        "#,
    );
    let messages =
        [r#"{"a":1,"b":1}"#, r#"{"a":0,"b":1}"#, r#"{"a":2}"#, r#"{"a":3,"b":11}"#, r#"{"a":25,"b":1}"#, r#"{"a":50,"b":9}"#];
    let batch = transform(&plan, &messages);
    assert_eq!(batch.rows.column_by_name("offset").unwrap().as_primitive::<Int64Type>().values()[..], [100, 105]);
    assert_eq!(batch.rows.column_by_name("share").unwrap().as_primitive::<Decimal128Type>().values()[..], [10_000, 200]);
    let rejections = rejections(&batch);
    let expected = [
        (101, "derive", "share", "`100.00 / a` failed: "),
        (102, "expect", "b_is_small", "`b < 10 AND Twice <> 8` is unknown: b = null, twice = 100"),
        (103, "expect", "b_is_small", "is false: b = 11, twice = 66"),
        (104, "expect", "b_is_small", "is false: b = 1, twice = 8"),
    ];
    assert_eq!(rejections.len(), expected.len());
    for ((offset, stage, field, reason), (at, in_stage, of, contains)) in rejections.iter().zip(expected) {
        assert_eq!((*offset, stage.as_str(), field.as_str()), (at, in_stage, of));
        assert!(reason.contains(contains), "{reason}");
    }
    assert!(rejections[0].3.ends_with("; a = 0"), "{}", rejections[0].3);
}

#[test]
fn unknown_fields_are_ignored_or_rejected() {
    let columns = r#"columns = [{ name = "a", type = "int", field = "A a" }]"#;
    let messages =
        [r#"{"A a":1}"#, r#"{"x":{"y":[1e9999,"\ud800"]},"A a":1,"z":2}"#, r#"{"x":1,"A a":1,"x":2}"#, r#"{"A\u0020a":2}"#];
    let offsets =
        |batch: &SilverBatch| batch.rows.column_by_name("offset").unwrap().as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(offsets(&transform(&plan(columns), &messages)), [100, 101, 103]);
    let strict = transform(&plan(&format!("unknown_fields = \"reject\"\n{columns}")), &messages);
    assert_eq!(offsets(&strict), [100, 103]);
    assert_eq!(rejections(&strict)[0].2, "x");
}

#[test]
fn expressions_may_use_the_coordinates() {
    let plan = plan(
        r#"
        partition_by = ["day(kafka_timestamp)"]
        columns = [{ name = "a", type = "int" }]
        derive = [{ name = "at", type = "string", sql = "topic || '/' || partition || '/' || offset" },
                  { name = "micros", type = "long", sql = "to_unixtime(kafka_timestamp) * 1000000 + a" }]
        "#,
    );
    let batch = transform(&plan, &[r#"{"a":1}"#]);
    assert_eq!(rejections(&batch), []);
    assert_eq!(batch.rows.column_by_name("at").unwrap().as_string::<i32>().value(0), "sales/3/100");
}

#[test]
fn a_wrong_definition_names_the_column() {
    for (settings, message, hint) in [
        ("", "silver has no columns", "declare one"),
        (r#"columns = [{ name = "a" }, { name = "A" }]"#, "silver columns a and A have one name", "Hive"),
        (r#"columns = [{ name = "Offset" }]"#, "silver column Offset has the name of a column that every row has", "field"),
        (r#"columns = [{ name = "a" }, { name = "b", field = "a" }]"#, "are both read from field a", "derive"),
        (r#"columns = [{ name = "a", on_error = "null" }]"#, "silver column a is required", "required = false"),
        (r#"columns = [{ name = "a", formats = ["iso"] }]"#, "silver column a is of type string and has no formats", "dates"),
        ("message_format = \"jsno\"\ncolumns = [{ name = \"a\" }]", "silver.message_format `jsno` is not known", "json"),
        ("partition_by = [\"B\"]\ncolumns = [{ name = \"a\" }]", "silver.partition_by `B` names no column", ""),
        ("max_depth = 0\ncolumns = [{ name = \"a\" }]", "silver.max_depth is 0", ""),
    ] {
        let error = refused(settings);
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint_text().unwrap_or_default().contains(hint), "{error:?}");
    }
    let column = r#"columns = [{ name = "Quantity", type = "int" }]"#;
    let error = refused(&format!("{column}\nderive = [{{ name = \"x\", sql = \"Quantty + 1\" }}]"));
    assert_eq!(error.chain(), "derived column x is not usable: `Quantty + 1`: there is no column Quantty");
    assert_eq!(error.hint_text(), Some("did you mean Quantity?"));
    refused(&format!("{column}\nderive = [{{ name = \"x\", sql = \"y\" }}, {{ name = \"y\", sql = \"Quantity\" }}]"));
    refused(&format!("{column}\nexpect = [{{ name = \"x\", sql = \"true\" }}, {{ name = \"x\", sql = \"true\" }}]"));
    let error = refused(r#"columns = [{ name = "a", type = "date", formats = ["%Y", "day"] }]"#);
    assert!(error.chain().contains("a format of silver column a is wrong: `day`"), "{}", error.chain());
    for unknown in
        ["colums = []", "columns = [{ name = \"a\", typ = \"int\" }]", "columns = [{ name = \"a\", type = \"number\" }]"]
    {
        assert!(toml::from_str::<SilverSettings>(unknown).is_err(), "{unknown}");
    }
}

#[test]
fn the_hash_changes_with_what_rows_depend_on_and_with_nothing_else() {
    let hash = |change: fn(&mut SilverSettings)| {
        let mut settings = preset();
        change(&mut settings);
        SilverPlan::new(&settings).unwrap().definition_hash().to_owned()
    };
    let original = hash(|_| ());
    let same: [fn(&mut SilverSettings); 5] = [
        |settings| settings.table = "other".into(),
        |settings| settings.rejected.location = Some("/x".into()),
        |settings| settings.columns[0].doc = Some("a word".into()),
        |settings| settings.columns[0].field = Some("OrderID".into()),
        |settings| settings.partition_by.clear(),
    ];
    let other: [fn(&mut SilverSettings); 6] = [
        |settings| settings.columns[0].required = false,
        |settings| settings.derive[0].sql = "1".into(),
        |settings| settings.expect[0].sql = "true".into(),
        |settings| settings.unknown_fields = UnknownFields::Reject,
        |settings| settings.unknown_fields = UnknownFields::Keep,
        |settings| settings.columns.swap(0, 2),
    ];
    same.into_iter().for_each(|change| assert_eq!(hash(change), original));
    other.into_iter().for_each(|change| assert_ne!(hash(change), original));
    let text = toml::to_string(&preset()).unwrap();
    assert_eq!(toml::from_str::<SilverSettings>(&text).unwrap(), preset(), "settings survive being shown");
}

#[test]
fn fields_that_no_column_reads_are_kept_in_a_map() {
    let settings = "unknown_fields = \"keep\"\nunknown_fields_column = \"others\"\n[[columns]]\nname = \"id\"\ntype = \"int\"\n\
                    [[derive]]\nname = \"coupon\"\nsql = \"others['coupon']\"\n[[derive]]\nname = \"n\"\ntype = \"int\"\nsql = \"1\"\n";
    let plan = plan(settings);
    let long = "k".repeat(300);
    let last = format!(r#"{{"{long}": true, "id": 5}}"#);
    let messages = [
        r#"{"coupon": "A\"1", "id": 1, "n": 4.50, "nested": {"a": [1]}, "none": null}"#,
        r#"{"id": 2}"#,
        r#"{"gone": 1, "id": "no number"}"#,
        r#"{"id": 4, "coupon": ""}"#,
        &last,
    ];
    let batch = transform(&plan, &messages);
    assert_eq!(rejections(&batch).len(), 1);
    assert_eq!(batch.rows.schema(), *plan.arrow_schema());
    let kept = batch.rows.column_by_name("others").unwrap().as_map();
    let row = |row| -> Vec<(String, Option<String>)> {
        let entries = kept.value(row);
        let (names, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
        names.iter().zip(values).map(|(name, value)| (name.unwrap().to_owned(), value.map(str::to_owned))).collect()
    };
    let pair = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
    let first = [("coupon", Some("A\"1")), ("n", Some("4.50")), ("nested", Some("{\"a\": [1]}")), ("none", None)];
    assert_eq!(row(0), first.map(|(name, value)| pair(name, value)));
    assert_eq!(row(1), []);
    assert_eq!(kept.null_count(), 0);
    assert_eq!(row(2), [pair("coupon", Some(""))]);
    assert_eq!(row(3), [pair(&long, Some("true"))]);
    let coupons = batch.rows.column_by_name("coupon").unwrap().as_string::<i32>();
    assert_eq!(coupons.iter().collect::<Vec<_>>(), [Some("A\"1"), None, Some(""), None]);
    let plain = refused("format = \"hive\"\nunknown_fields = \"keep\"\n[[columns]]\nname = \"id\"\n");
    assert!(plain.to_string().contains("map column"), "{plain}");
    let taken = refused("unknown_fields = \"keep\"\n[[columns]]\nname = \"Unknown_Fields\"\n");
    assert!(taken.to_string().contains("one name"), "{taken}");
    let twice = transform(&plan, &[r#"{"id": 1, "x": 1, "x": 2}"#]);
    assert!(rejections(&twice)[0].3.contains("twice"));
}

#[test]
fn a_field_whose_name_needs_escapes_is_found_only_with_them() {
    let plan = plan(r#"columns = [{ name = "inch", field = 'a"b', type = "int" }]"#);
    let batch = transform(&plan, &[r#"{"a\"b": 1}"#, r#"{"a"b": 2}"#, r#"{"a\u0022b": 3}"#]);
    assert_eq!(batch.rows.column_by_name("inch").unwrap().as_primitive::<Int32Type>().values(), &[1, 3]);
    assert_eq!(rejections(&batch).len(), 1);
}

#[test]
fn a_message_cut_after_any_byte_is_rejected_and_leaves_its_neighbours_alone() {
    let plan = SilverPlan::new(&preset()).unwrap();
    let good = good();
    let messages: Vec<_> = (0..=good.len()).flat_map(|end| [good.as_bytes(), &good.as_bytes()[..end]]).collect();
    let batch = transform(&plan, &messages);
    assert_eq!(batch.rejected.num_rows(), good.len());
    assert_eq!(batch.rows.num_rows(), good.len() + 2);
    assert!(rejections(&batch).iter().all(|(_, stage, _, _)| stage == "decode"));
    let names = batch.rows.column_by_name("ProductName").unwrap().as_string::<i32>();
    assert!(names.iter().all(|name| name == Some("Children's \"Book\" & café 😀")));
}
