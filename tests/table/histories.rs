//! Random histories of changes, batches and replacements against a model: whatever becomes of a table's columns, each row keeps the values of
//! its fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use futures::TryStreamExt;
use iceberg::TableIdent;
use iceberg::spec::{FormatVersion, ManifestList, NestedField, PrimitiveType, Schema, Type};
use lakesmith::checkpoint::OffsetRange;
use lakesmith::query::{QuerySession, QuerySettings};
use lakesmith::schema::{self, Change, FieldPath, NewDefault, Position};
use lakesmith::storage::CloseBarrier;
use lakesmith::table::{Append, LakeTable, Preparation, Replacement, TableSpec, UpkeepSettings, WriterSettings};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use uuid::Uuid;

use super::lake::{Lake, collect, committed, delta, origin};

fn path(text: &str) -> FieldPath {
    text.parse().unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    /// Rows with the columns of now, but for one that is left out.
    Append {
        rows: u8,
        without: u8,
    },
    /// Rows of a stretch of offsets are replaced by rows with the columns of now, but for one; some get none.
    Replace {
        from: u8,
        rows: u8,
        without: u8,
        thinned: u8,
    },
    Add {
        kind: u8,
        first: bool,
        with_default: bool,
    },
    Rename {
        at: u8,
    },
    Drop {
        at: u8,
    },
    Widen {
        at: u8,
    },
    Move {
        at: u8,
        after: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..20, any::<u8>()).prop_map(|(rows, without)| Step::Append { rows, without }),
        2 => (any::<u8>(), 1u8..30, any::<u8>(), 2u8..5)
            .prop_map(|(from, rows, without, thinned)| Step::Replace { from, rows, without, thinned }),
        3 => (any::<u8>(), any::<bool>(), prop::bool::weighted(0.3))
            .prop_map(|(kind, first, with_default)| Step::Add { kind, first, with_default }),
        2 => any::<u8>().prop_map(|at| Step::Rename { at }),
        1 => any::<u8>().prop_map(|at| Step::Drop { at }),
        2 => any::<u8>().prop_map(|at| Step::Widen { at }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(at, after)| Step::Move { at, after }),
    ]
}

const KINDS: [(&str, Option<&str>); 6] = [
    ("int", Some("long")),
    ("float", Some("double")),
    ("decimal(6, 2)", Some("decimal(20, 2)")),
    ("long", None),
    ("double", None),
    // The iceberg crate does not make nulls of it.
    ("binary", None),
];

/// What a field of this id holds in the row of this offset, whatever its type is by now.
fn value(id: i32, offset: i64) -> i64 {
    i64::from(id) * 100 + offset % 100
}

fn column(field: &NestedField, offsets: &[i64]) -> ArrayRef {
    let values = offsets.iter().map(|offset| value(field.id, *offset));
    match field.field_type.as_ref() {
        Type::Primitive(PrimitiveType::Int) => Arc::new(Int32Array::from_iter_values(values.map(|value| value as i32))),
        Type::Primitive(PrimitiveType::Binary) => Arc::new(BinaryArray::from_iter_values(values.map(|value| value.to_string()))),
        Type::Primitive(PrimitiveType::Long) => Arc::new(Int64Array::from_iter_values(values)),
        Type::Primitive(PrimitiveType::Float) => Arc::new(Float32Array::from_iter_values(values.map(|value| value as f32))),
        Type::Primitive(PrimitiveType::Double) => Arc::new(Float64Array::from_iter_values(values.map(|value| value as f64))),
        Type::Primitive(PrimitiveType::Decimal { precision, scale }) => {
            // Hundredths: 6 digits hold them all.
            let values = Decimal128Array::from_iter_values(values.map(i128::from));
            Arc::new(values.with_precision_and_scale(*precision as u8, *scale as i8).unwrap())
        }
        other => panic!("{other}"),
    }
}

/// As whole numbers, a decimal in hundredths.
fn whole(values: &ArrayRef) -> Vec<Option<i64>> {
    let values = match values.data_type() {
        DataType::Decimal128(_, _) => {
            return values
                .as_primitive::<arrow::datatypes::Decimal128Type>()
                .iter()
                .map(|value| value.map(|value| value as i64))
                .collect();
        }
        DataType::Binary | DataType::LargeBinary => cast(&cast(values, &DataType::Utf8).unwrap(), &DataType::Int64).unwrap(),
        _ => cast(values, &DataType::Int64).unwrap(),
    };
    values.as_primitive::<Int64Type>().iter().collect()
}

/// Which fields each row has, by offset.
type Rows = BTreeMap<i64, Vec<i32>>;

/// The fields that have a default, and what it is.
type Defaults = BTreeMap<i32, i64>;

/// The rows of now; and what each snapshot was like.
#[derive(Default)]
struct Model {
    rows: Rows,
    defaults: Defaults,
    snapshots: Vec<Written>,
    /// The id of the first row of each file, by its path.
    row_ids: BTreeMap<String, u64>,
}

/// A snapshot, the columns of then with their ids, and its rows.
struct Written {
    snapshot_id: i64,
    columns: Vec<(String, i32)>,
    rows: Rows,
}

fn wanted(rows: &Rows, defaults: &Defaults, id: i32, offset: i64) -> Option<i64> {
    if rows[&offset].contains(&id) { Some(value(id, offset)) } else { defaults.get(&id).copied() }
}

/// Each row is there once, with the values of its fields.
fn check(rows: &Rows, defaults: &Defaults, batches: &[RecordBatch], columns: &[(String, i32)]) {
    let mut seen = Vec::new();
    for batch in batches {
        let offsets = batch.column_by_name("offset").unwrap().as_primitive::<Int64Type>().values().to_vec();
        for (name, id) in columns {
            let found = whole(batch.column_by_name(name).unwrap());
            let wanted: Vec<_> = offsets.iter().map(|offset| wanted(rows, defaults, *id, *offset)).collect();
            assert_eq!(found, wanted, "{name}");
        }
        seen.extend(offsets);
    }
    seen.sort_unstable();
    assert_eq!(seen, rows.keys().copied().collect::<Vec<_>>());
}

/// The columns that may change, with their ids.
fn free_columns(schema: &Schema) -> Vec<(String, i32)> {
    let fields = schema.as_struct().fields().iter().filter(|field| field.name != "partition" && field.name != "offset");
    fields.map(|field| (field.name.clone(), field.id)).collect()
}

async fn play(lake: &Lake, steps: &[Step]) {
    let required = |id, name: &str, kind| Arc::new(NestedField::required(id, name, Type::Primitive(kind)));
    let fields = [required(1, "partition", PrimitiveType::Int), required(2, "offset", PrimitiveType::Long)];
    let spec = TableSpec {
        ident: TableIdent::from_strs([lake.database.clone(), format!("t_{}", Uuid::new_v4().simple())]).unwrap(),
        location: None,
        schema: Schema::builder().with_fields(fields).build().unwrap(),
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        properties: BTreeMap::new(),
        comment: None,
    };
    // Manifests are merged every few steps.
    let upkeep = UpkeepSettings { manifests_to_merge: 3, ..UpkeepSettings::default() };
    let mut table = LakeTable::open_or_create(&lake.catalog, &spec).await.unwrap().with_upkeep(upkeep);
    let (mut model, mut end, mut names) = (Model::default(), 0_i64, 0);
    for step in steps {
        let columns = free_columns(table.metadata().current_schema());
        let chosen = |at: &u8| columns.get(usize::from(*at) % columns.len().max(1)).map(|(name, _)| path(name));
        let changed = match step {
            Step::Append { rows, without } => {
                let left_out = chosen(without).map(|path| path.to_string()).filter(|_| without % 3 == 0);
                end = write(&mut table, &mut model, end, i64::from(*rows), left_out).await;
                continue;
            }
            Step::Replace { from, rows, without, thinned } => {
                let left_out = chosen(without).map(|path| path.to_string()).filter(|_| without % 3 == 0);
                if end > 0 {
                    let start = i64::from(*from) % end;
                    let range = OffsetRange::new(start, (start + i64::from(*rows)).min(end));
                    replace(lake, &mut table, &mut model, range, i64::from(*thinned), left_out).await;
                }
                continue;
            }
            Step::Add { kind, first, with_default } => {
                names += 1;
                let position = first.then_some(Position::First);
                let field_type = KINDS[usize::from(*kind) % KINDS.len()].0.to_owned();
                let (id, value) = (table.metadata().last_column_id() + 1, i64::from(*kind) * 10);
                let has_default = *with_default && field_type != "binary";
                if has_default {
                    model.defaults.insert(id, value);
                }
                let value = match field_type.starts_with("decimal") {
                    true => format!("{}.{:02}", value / 100, value % 100),
                    false => value.to_string(),
                };
                let default = has_default.then_some(NewDefault { value, required: *first });
                Some(Change::Add { path: path(&format!("c{names}")), field_type, doc: None, position, default })
            }
            Step::Rename { at } => chosen(at).map(|path| {
                names += 1;
                Change::Rename { path, to: format!("R{names}") }
            }),
            Step::Drop { at } => chosen(at).map(|path| Change::Drop { path }),
            Step::Widen { at } => chosen(at).and_then(|path| {
                let schema = table.metadata().current_schema();
                let now = schema.field_by_name(&path.to_string()).unwrap().field_type.to_string();
                let wider = KINDS.iter().find(|(kind, _)| *kind == now).and_then(|(_, wider)| *wider);
                wider.map(|to| Change::Widen { path, to: to.to_owned() })
            }),
            Step::Move { at, after } => chosen(at)
                .zip(chosen(after))
                .filter(|(at, after)| at != after)
                .map(|(path, after)| Change::Move { path, position: Position::After(after.to_string()) }),
        };
        if let Some(change) = changed {
            schema::apply(&table, &["partition", "offset"], &[change]).await.unwrap();
            table.refresh().await.unwrap();
        }
    }
    let columns = free_columns(table.metadata().current_schema());
    if end > 0 {
        // The scan of the table, which follows names of now; then each snapshot as it was.
        let batches: Vec<RecordBatch> = table.scan(None, None).await.unwrap().try_collect().await.unwrap();
        check(&model.rows, &model.defaults, &batches, &columns);
        ask(lake, &table, &model, &columns).await;
        let iceberg = table.to_iceberg().unwrap();
        for Written { snapshot_id, columns, rows } in &model.snapshots {
            // With the file's name, the iceberg crate finds columns by their ids; see `LakeTable::scan_where`.
            let schema = table.metadata().snapshot_by_id(*snapshot_id).unwrap().schema(table.metadata()).unwrap();
            let is_binary = |id| *schema.field_by_id(id).unwrap().field_type == Type::Primitive(PrimitiveType::Binary);
            // It gives up where it would have to make nulls of these.
            let columns: Vec<_> = columns.iter().filter(|(_, id)| !is_binary(*id)).cloned().collect();
            let names = columns.iter().map(|(name, _)| name.as_str()).chain(["offset", "_file"]);
            let batches = collect(iceberg.scan().snapshot_id(*snapshot_id).select(names).build().unwrap()).await;
            check(rows, &model.defaults, &batches, &columns);
        }
    }
}

/// What SQL says: all rows, and those that a filter on each column leaves.
async fn ask(lake: &Lake, table: &LakeTable, Model { rows, defaults, .. }: &Model, columns: &[(String, i32)]) {
    let session = QuerySession::new(lake.catalog.clone(), &lake.database, &QuerySettings::default()).unwrap();
    let name = table.ident().name();
    check(rows, defaults, &answered(&session, &format!("SELECT * FROM {name}")).await, columns);
    let count = |batches: &[RecordBatch]| batches[0].column(0).as_primitive::<Int64Type>().value(0);
    assert_eq!(count(&answered(&session, &format!("SELECT count(*) FROM {name}")).await), rows.len() as i64);
    for (column, id) in columns {
        let wanted: Vec<Option<i64>> = rows.keys().map(|offset| wanted(rows, defaults, *id, *offset)).collect();
        let middle = value(*id, rows.len() as i64 / 2);
        // Decimals stand in hundredths.
        let field_type = table.arrow_schema().unwrap().field_with_name(column).unwrap().data_type().clone();
        let literal = if field_type.is_decimal() { format!("{}.{:02}", middle / 100, middle % 100) } else { middle.to_string() };
        let filters: [(&str, &dyn Fn(i64) -> bool); 3] =
            [(">=", &|value| value >= middle), ("<>", &|value| value != middle), ("=", &|value| value == middle)];
        // Bytes have no order that numbers have.
        for (operator, keeps) in filters.into_iter().filter(|_| field_type != DataType::Binary) {
            let filter = format!("{column} {operator} {literal}");
            let found = count(&answered(&session, &format!("SELECT count(*) FROM {name} WHERE {filter}")).await);
            assert_eq!(found, wanted.iter().flatten().filter(|value| keeps(**value)).count() as i64, "{filter}");
        }
        let missing = count(&answered(&session, &format!("SELECT count(*) FROM {name} WHERE {column} IS NULL")).await);
        assert_eq!(missing, wanted.iter().filter(|value| value.is_none()).count() as i64, "{column} IS NULL");
    }
}

async fn answered(session: &QuerySession, sql: &str) -> Vec<RecordBatch> {
    let mut answer = session.query(sql).await.unwrap();
    let mut batches = Vec::new();
    while let Some(batch) = answer.next().await {
        batches.push(batch.unwrap());
    }
    batches
}

/// Commits rows with the table's columns of now, but one.
async fn write(table: &mut LakeTable, model: &mut Model, start: i64, count: i64, left_out: Option<String>) -> i64 {
    let offsets: Vec<i64> = (start..start + count).collect();
    append(table, &mut model.rows, &offsets, OffsetRange::new(start, start + count), left_out).await;
    remember(table, model).await;
    start + count
}

/// Keeps in mind what the current snapshot is like.
async fn remember(table: &LakeTable, model: &mut Model) {
    check_row_ids(table, model).await;
    let columns = free_columns(table.metadata().current_schema());
    model.snapshots.push(Written { snapshot_id: table.snapshot_id().unwrap(), columns, rows: model.rows.clone() });
}

/// Once a table keeps ids of rows, each row has one of its own, and has it for as long as its file is there.
async fn check_row_ids(table: &LakeTable, model: &mut Model) {
    let metadata = table.metadata();
    if metadata.format_version() < FormatVersion::V3 {
        return;
    }
    let (iceberg, mut found) = (table.to_iceberg().unwrap(), Vec::new());
    let list = metadata.current_snapshot().unwrap().manifest_list().to_owned();
    let list = iceberg.file_io().new_input(list).unwrap().read().await.unwrap();
    for manifest in ManifestList::parse_with_version(&list, FormatVersion::V3).unwrap().entries() {
        let mut next = manifest.first_row_id.unwrap();
        for entry in manifest.load_manifest(iceberg.file_io()).await.unwrap().entries().iter().filter(|entry| entry.is_alive()) {
            let file = entry.data_file();
            let first = file.first_row_id().map_or(next, |id| id as u64);
            if file.first_row_id().is_none() {
                next += file.record_count();
            }
            let known = model.row_ids.insert(file.file_path().to_owned(), first);
            assert!(known.is_none_or(|known| known == first), "{}: {known:?}, then {first}", file.file_path());
            found.push(first..first + file.record_count());
        }
    }
    found.sort_by_key(|ids| ids.start);
    assert!(found.windows(2).all(|pair| pair[0].end <= pair[1].start), "{found:?}");
    assert!(found.last().is_none_or(|ids| ids.end <= metadata.next_row_id()), "{found:?} {}", metadata.next_row_id());
}

async fn append(table: &mut LakeTable, rows: &mut Rows, offsets: &[i64], range: OffsetRange, left_out: Option<String>) {
    let schema = table.metadata().current_schema().clone();
    let kept: Vec<_> = schema.as_struct().fields().iter().filter(|field| left_out.as_ref() != Some(&field.name)).collect();
    let columns = kept.iter().map(|field| {
        let values: ArrayRef = match field.name.as_str() {
            "partition" => Arc::new(Int32Array::from(vec![0; offsets.len()])),
            "offset" => Arc::new(Int64Array::from(offsets.to_vec())),
            _ => column(field, offsets),
        };
        (field.name.clone(), values)
    });
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    for offset in offsets {
        rows.insert(*offset, kept.iter().map(|field| field.id).collect());
    }
    let barrier = CloseBarrier::new();
    let mut writer = table.writer(&WriterSettings::default(), &barrier).unwrap();
    writer.write(&batch).await.unwrap();
    let files = writer.finish().await.unwrap();
    let mut delta = delta(0, range);
    delta.partitions.get_mut(&0).unwrap().records = offsets.len() as u64;
    let batch = Append { files, delta, origin: origin(), commit_id: Uuid::now_v7(), input: None, summary: BTreeMap::new() };
    let Preparation::Ready(prepared) = table.prepare(batch, &barrier).await.unwrap() else { panic!("not ready") };
    barrier.wait().await.unwrap();
    committed(prepared.swap(table).await);
}

/// Replaces the rows of a range, by way of a twin; every `thinned`th offset gets none.
async fn replace(
    lake: &Lake,
    table: &mut LakeTable,
    model: &mut Model,
    range: OffsetRange,
    thinned: i64,
    left_out: Option<String>,
) {
    let ident = TableIdent::from_strs([lake.database.clone(), format!("twin_{}", Uuid::new_v4().simple())]).unwrap();
    let location = format!("{}/{}", lake.warehouse, ident.name());
    let mut twin = table.create_twin(&ident, &location, "a twin", &BTreeMap::new()).await.unwrap();
    let offsets: Vec<i64> = (range.start..range.end).filter(|offset| offset % thinned != 0).collect();
    model.rows.retain(|offset, _| !range.contains(*offset));
    append(&mut twin, &mut model.rows, &offsets, range, left_out).await;
    let (files, rows) = (twin.data_files().await.unwrap(), BTreeMap::from([(0, offsets.len() as u64)]));
    let ranges = BTreeMap::from([(0, range)]);
    let replacement = Replacement { commit_id: Uuid::now_v7(), ranges, files, rows, summary: BTreeMap::new(), while_noted: None };
    table.replace(&replacement, &WriterSettings::default()).await.unwrap();
    twin.drop_twin().await.unwrap();
    remember(table, model).await;
}

/// Whatever was added, renamed, dropped, widened and moved in between: each row reads back with the value that its field had.
#[test]
fn every_row_reads_back_with_the_value_of_its_field() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let lake = runtime.block_on(async {
        let lake = Lake::embedded().await;
        // The database.
        lake.table("t", &[]).await;
        lake
    });
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, max_shrink_iters: 100, ..Config::default() });
    runner
        .run(&prop::collection::vec(step(), 1..24), |steps| {
            runtime.block_on(play(&lake, &steps));
            Ok(())
        })
        .unwrap();
    runtime.block_on(lake.remove());
}
