//! A table whose columns, partitioning and properties change while batches come: `lakesmith schema` on real files and metastores.

use std::sync::Arc;

use iceberg::spec::{NestedField, PrimitiveType, Schema, SortDirection, Transform, Type};
use lakesmith::checkpoint::OffsetRange;
use lakesmith::schema::{self, Change, FieldPath, PartitionChange, Plan, Position, Wanted};
use lakesmith::table::{LakeTable, SortKey};

use super::lake::{Lake, append, committed, offsets};

super::on_every_lake!(
    each_kind_of_change_is_one_version_and_the_entry_says_the_same,
    rows_are_partitioned_anew_and_old_ones_are_found,
    a_batch_under_way_and_a_change_lose_nothing_of_each_other,
    a_plan_is_done_step_by_step_and_goes_on_after_an_end,
);

fn path(text: &str) -> FieldPath {
    text.parse().unwrap()
}

fn add(name: &str, field_type: &str) -> Change {
    Change::Add { path: path(name), field_type: field_type.to_owned(), doc: None, position: None, default: None }
}

async fn change(table: &mut LakeTable, change: Change) -> Schema {
    let after = schema::apply(table, &["partition", "offset"], std::slice::from_ref(&change)).await.unwrap();
    table.refresh().await.unwrap();
    after.unwrap_or_else(|| panic!("{change:?} changed nothing"))
}

/// Name, type and comment of the columns in the metastore's entry.
async fn entry(lake: &Lake, table: &LakeTable) -> Vec<(String, String, Option<String>)> {
    let entry = lake.catalog.metastore().table(&lake.database, table.ident().name()).await.unwrap().unwrap();
    assert_eq!(entry.parameter("metadata_location"), Some(table.metadata_location()));
    entry.columns().into_iter().map(|column| (column.name, column.hive_type, column.comment)).collect()
}

async fn each_kind_of_change_is_one_version_and_the_entry_says_the_same(lake: &Lake) {
    let mut table = lake.table("t", &["Year"]).await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;
    change(
        &mut table,
        Change::Add {
            path: path("Note"),
            field_type: "string".into(),
            doc: Some("what was said".into()),
            position: None,
            default: None,
        },
    )
    .await;
    change(&mut table, add("address", "struct<city: string, zip: int>")).await;
    change(&mut table, add("address.street", "string")).await;
    change(&mut table, Change::Widen { path: path("address.zip"), to: "long".into() }).await;
    change(&mut table, Change::Rename { path: path("note"), to: "Remark".into() }).await;
    change(&mut table, Change::Move { path: path("address.street"), position: Position::First }).await;
    change(&mut table, Change::Document { path: path("timestamp"), doc: Some("Kafka's".into()) }).await;
    let after = change(&mut table, Change::Move { path: path("Remark"), position: Position::After("offset".into()) }).await;
    let names: Vec<_> = after.as_struct().fields().iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["partition", "offset", "Remark", "timestamp", "value", "Year", "address"]);
    // A commit that moved a column may have left the entry's columns shorter where the server compares types by position.
    append(&mut table, 0, OffsetRange::new(10, 20)).await;
    let columns = entry(lake, &table).await;
    let shown = |name: &str| {
        columns
            .iter()
            .find(|column| column.0.eq_ignore_ascii_case(name))
            .cloned()
            .unwrap_or_else(|| panic!("{name}: {columns:?}"))
    };
    assert_eq!(shown("remark"), (shown("remark").0, "string".to_owned(), Some("what was said".to_owned())));
    assert_eq!(shown("address").1, "struct<street:string,city:string,zip:bigint>");
    assert_eq!(shown("timestamp").2.as_deref(), Some("Kafka's"));
    assert_eq!(offsets(&table, None).await, (0..20).collect::<Vec<_>>());

    let after = change(&mut table, Change::Drop { path: path("Remark") }).await;
    assert!(after.field_by_name("Remark").is_none());
    // The name comes back as another column, without the old one's values.
    let last = table.metadata().last_column_id();
    let again = change(&mut table, add("Remark", "string")).await;
    assert!(again.field_by_name("Remark").unwrap().id > last);
    append(&mut table, 0, OffsetRange::new(20, 30)).await;
    assert_eq!(offsets(&table, None).await, (0..30).collect::<Vec<_>>());
    assert!(schema::set_property(&table, "team", Some("sales")).await.unwrap());
    table.refresh().await.unwrap();
    let entry = lake.catalog.metastore().table(&lake.database, "t").await.unwrap().unwrap();
    assert_eq!(entry.parameter("team"), Some("sales"));
    assert!(!schema::set_property(&table, "team", Some("sales")).await.unwrap());
    assert!(schema::set_property(&table, "team", None).await.unwrap());
    let entry = lake.catalog.metastore().table(&lake.database, "t").await.unwrap().unwrap();
    assert_eq!(entry.parameter("team"), None);
    // A schema for each change, the snapshots of before with theirs.
    let history = schema::history(table.metadata());
    assert_eq!(history.iter().filter(|entry| entry.current).count(), 1);
    assert_eq!(history[0].snapshots, 1);
    assert_eq!(history[5].differences[0].to_string(), "renamed Note to Remark");
}

async fn rows_are_partitioned_anew_and_old_ones_are_found(lake: &Lake) {
    let mut table = lake.table("t", &["Year"]).await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;
    for (step, (change, fields)) in [
        (PartitionChange::Add("bucket(4, offset)".into()), "Year, bucket(4, offset)"),
        (PartitionChange::Replace { old: "Year".into(), new: "day(timestamp)".into() }, "day(timestamp), bucket(4, offset)"),
        (PartitionChange::Drop("offset_bucket".into()), "day(timestamp)"),
        (PartitionChange::Drop("day(timestamp)".into()), ""),
        (PartitionChange::Add("year".into()), "Year"),
    ]
    .into_iter()
    .enumerate()
    {
        let found = schema::repartition(&table, &change).await.unwrap().expect("a change");
        assert_eq!(found.join(", "), fields);
        table.refresh().await.unwrap();
        let start = (step as i64 + 1) * 10;
        append(&mut table, 0, OffsetRange::new(start, start + 10)).await;
        assert_eq!(offsets(&table, None).await, (0..start + 10).collect::<Vec<_>>());
    }
    let refused = schema::repartition(&table, &PartitionChange::Add("Year".into())).await.unwrap_err();
    assert!(refused.chain().contains("partitioned by Year already"), "{}", refused.chain());
}

async fn a_batch_under_way_and_a_change_lose_nothing_of_each_other(lake: &Lake) {
    let mut table = lake.table("t", &["Year"]).await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;
    let mut behind = lake.open(&lake.catalog, "t").await;
    // The batch is prepared on the old schema and swapped onto the new one.
    let prepared = super::lake::ready(&mut behind, 0, OffsetRange::new(10, 20)).await;
    change(&mut table, add("added", "int")).await;
    committed(prepared.swap(&mut behind).await);
    assert!(behind.metadata().current_schema().field_by_name("added").is_some());
    // A change that was worked out on the schema of before is refused, and one on a table with newer batches is not.
    let stale = lake.open(&lake.catalog, "t").await;
    append(&mut behind, 0, OffsetRange::new(20, 30)).await;
    assert!(schema::apply(&stale, &[], &[add("more", "int")]).await.unwrap().is_some());
    let refused = schema::apply(&stale, &[], &[add("other", "int")]).await.unwrap_err();
    assert!(refused.chain().contains("changed by someone else"), "{}", refused.chain());
    behind.refresh().await.unwrap();
    assert_eq!(offsets(&behind, None).await, (0..30).collect::<Vec<_>>());
    assert!(behind.metadata().current_schema().field_by_name("other").is_none());
}

#[tokio::test]
async fn what_would_break_the_table_is_refused_and_changes_nothing() {
    let lake = Lake::embedded().await;
    let mut table = lake.table("t", &["Year"]).await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;
    change(&mut table, add("address", "struct<city: string>")).await;
    let before = table.metadata_location().to_owned();
    let position = |name: &str| Position::After(name.to_owned());
    for (refused, why) in [
        (Change::Drop { path: path("Year") }, "partitioned by it"),
        (Change::Widen { path: path("Year"), to: "long".into() }, "partitioned by it"),
        (Change::Drop { path: path("offset") }, "lakesmith itself"),
        (Change::Rename { path: path("partition"), to: "p".into() }, "lakesmith itself"),
        (Change::Drop { path: path("address.city") }, "the last one"),
        (Change::Drop { path: path("adress") }, "no column adress"),
        (Change::Drop { path: path("value.x") }, "no fields in a binary"),
        (Change::Widen { path: path("value"), to: "string".into() }, "cannot become string"),
        (Change::Rename { path: path("value"), to: "TIMESTAMP".into() }, "Hive does not tell"),
        (Change::Rename { path: path("value"), to: "Year".into() }, "there is a Year already"),
        (Change::Rename { path: path("value"), to: "pay load".into() }, "not every engine"),
        (Change::Rename { path: path("value"), to: "_file".into() }, "engines show"),
        (add("VALUE", "int"), "Hive does not tell"),
        (add("address.City", "int"), "Hive does not tell"),
        (add("Number", "number"), "no type"),
        (add("nothing.x", "int"), "no column nothing"),
        (Change::Move { path: path("value"), position: position("value") }, "behind itself"),
        (Change::Move { path: path("value"), position: position("city") }, "no column city"),
    ] {
        let error = schema::apply(&table, &["partition", "offset"], std::slice::from_ref(&refused)).await.unwrap_err();
        assert!(error.chain().contains(why), "{refused:?}: {}", error.chain());
        assert_eq!(error.kind(), lakesmith::Kind::Config, "{refused:?}");
    }
    for (refused, why) in [
        (PartitionChange::Drop("value".into()), "not partitioned by value"),
        (PartitionChange::Add("month(value)".into()), "does not fit"),
        (PartitionChange::Add("week(timestamp)".into()), "no partition field"),
        (PartitionChange::Add("nothing".into()), "no column nothing"),
    ] {
        let error = schema::repartition(&table, &refused).await.unwrap_err();
        assert!(error.chain().contains(why), "{refused:?}: {}", error.chain());
    }
    assert!(schema::set_property(&table, "lakesmith.positions", None).await.is_err());
    table.refresh().await.unwrap();
    assert_eq!(table.metadata_location(), before);
    lake.remove().await;
}

// ---- plans

/// The table's columns as a definition would have them: one wider, one optional, one documented, one new, and another partitioning.
fn wanted() -> Schema {
    let field = |id, name: &str, kind, required| NestedField::new(id, name, Type::Primitive(kind), required);
    Schema::builder()
        .with_fields([
            Arc::new(field(1, "partition", PrimitiveType::Int, true)),
            Arc::new(field(2, "offset", PrimitiveType::Long, true)),
            Arc::new(field(3, "timestamp", PrimitiveType::Timestamp, false).with_doc("Kafka's")),
            Arc::new(field(4, "Coupon", PrimitiveType::String, true)),
            Arc::new(field(5, "value", PrimitiveType::Binary, false)),
            Arc::new(field(6, "Amount", PrimitiveType::Decimal { precision: 12, scale: 2 }, false)),
        ])
        .build()
        .unwrap()
}

async fn plan_for(table: &LakeTable, drop_unnamed: bool) -> Plan {
    let partition_by = [("timestamp".to_owned(), Transform::Day)];
    let kept = ["partition", "offset"];
    let schema = wanted();
    let by = |column: &str, direction| SortKey {
        column: column.to_owned(),
        transform: Transform::Identity,
        direction,
        nulls: SortKey::usual_nulls(direction),
    };
    // One key is a column that the plan itself adds.
    let sort_by = [by("Coupon", SortDirection::Ascending), by("Amount", SortDirection::Descending)];
    let wanted = Wanted {
        schema: &schema,
        partition_by: &partition_by,
        sort_by: Some(&sort_by),
        read_from: &[],
        kept: &kept,
        drop_unnamed,
    };
    // As it is written to a file and read from it.
    let text = serde_json::to_string(&Plan::new(table, wanted).unwrap()).unwrap();
    serde_json::from_str(&text).unwrap()
}

async fn a_plan_is_done_step_by_step_and_goes_on_after_an_end(lake: &Lake) {
    let mut table = lake.table("t", &["Year"]).await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;
    change(&mut table, add("Amount", "decimal(9, 2)")).await;
    change(&mut table, add("of_others", "int")).await;
    let plan = plan_for(&table, false).await;
    let steps: Vec<_> = plan.steps.iter().map(|step| format!("{}: {}", step.what, step.verdict)).collect();
    assert_eq!(
        steps,
        [
            "document timestamp: safe",
            "add Coupon string: needs backfill: null in the rows so far",
            "widen Amount from decimal(9, 2) to decimal(12, 2): safe",
            "partition no longer by Year: safe",
            "partition by day(timestamp): safe",
            "sort by Coupon, Amount desc: safe",
        ]
    );
    // As if it had been killed behind its second step; a batch comes in between, which changes nothing that the plan is about.
    let document = Change::Document { path: path("timestamp"), doc: Some("Kafka's".into()) };
    change(&mut table, document).await;
    change(
        &mut table,
        Change::Add {
            path: path("Coupon"),
            field_type: "string".into(),
            doc: None,
            position: Some(Position::After("timestamp".into())),
            default: None,
        },
    )
    .await;
    append(&mut table, 0, OffsetRange::new(10, 20)).await;
    let mut told = Vec::new();
    plan.apply(&mut table, &[], |_, before| told.push(before)).await.unwrap();
    assert_eq!(told, [true, true, false, false, false, false]);
    assert_eq!(lakesmith::schema::sort_keys(table.metadata()), ["Coupon", "Amount desc"]);
    append(&mut table, 0, OffsetRange::new(20, 30)).await;
    assert_eq!(offsets(&table, None).await, (0..30).collect::<Vec<_>>());
    assert!(plan_for(&table, false).await.steps.is_empty());
    plan.apply(&mut table, &[], |_, before| assert!(before)).await.unwrap();

    // What others have changed since makes it a plan for another table.
    change(&mut table, add("since", "int")).await;
    let before = table.metadata_location().to_owned();
    let refused = plan.apply(&mut table, &[], |_, _| panic!("a step")).await.unwrap_err();
    assert!(refused.chain().contains("changed since"), "{}", refused.chain());
    assert_eq!(table.metadata_location(), before);
}

#[tokio::test]
async fn a_plan_renames_and_moves_as_few_columns_as_lead_there() {
    let lake = Lake::embedded().await;
    let mut table = lake.table("t", &[]).await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;
    change(&mut table, add("SellerID", "int")).await;
    change(&mut table, add("Coupon", "string")).await;
    let have = table.metadata().current_schema().clone();
    let id = |name: &str| have.field_id_by_name(name).unwrap();
    let mut fields: Vec<_> = have.as_struct().fields().iter().filter(|field| field.name != "SellerID").cloned().collect();
    // The column by another name, wider, and in front of all.
    fields.insert(0, Arc::new(NestedField::optional(99, "Seller", Type::Primitive(PrimitiveType::Long))));
    let schema = Schema::builder().with_fields(fields).build().unwrap();
    let read_from = [("Seller".to_owned(), "SellerID".to_owned())];
    let wanted = Wanted {
        schema: &schema,
        partition_by: &[],
        sort_by: None,
        read_from: &read_from,
        kept: &["partition", "offset"],
        drop_unnamed: true,
    };
    let plan = Plan::new(&table, wanted).unwrap();
    let steps: Vec<_> = plan.steps.iter().map(|step| format!("{}: {}", step.what, step.verdict)).collect();
    assert_eq!(
        steps,
        [
            "rename SellerID to Seller: safe; queries need the new name",
            "widen Seller from int to long: safe",
            "move Seller to the front: safe",
        ]
    );
    assert_eq!(plan.needed().count(), 2, "rows go into the table whatever the order");
    plan.apply(&mut table, &[], |_, _| {}).await.unwrap();
    let now = table.metadata().current_schema();
    assert_eq!(now.field_id_by_name("Seller"), Some(id("SellerID")), "the column keeps its values");
    let names = |schema: &Schema| schema.as_struct().fields().iter().map(|field| field.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(now), names(&schema));
    assert!(Plan::new(&table, wanted).unwrap().steps.is_empty());
    lake.remove().await;
}

/// Only one of them can have the values of before.
#[tokio::test]
async fn of_two_columns_that_are_read_from_one_field_the_first_is_renamed() {
    let lake = Lake::embedded().await;
    let mut table = lake.table("t", &[]).await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;
    change(&mut table, add("SellerID", "int")).await;
    let have = table.metadata().current_schema().clone();
    let id = have.field_id_by_name("SellerID");
    let mut fields: Vec<_> = have.as_struct().fields().iter().filter(|field| field.name != "SellerID").cloned().collect();
    for (at, name) in ["Seller", "Shop"].into_iter().enumerate() {
        fields.push(Arc::new(NestedField::optional(98 + at as i32, name, Type::Primitive(PrimitiveType::Int))));
    }
    let schema = Schema::builder().with_fields(fields).build().unwrap();
    let read_from = ["Seller", "Shop"].map(|column| (column.to_owned(), "SellerID".to_owned()));
    let kept = &["partition", "offset"];
    let wanted = Wanted { schema: &schema, partition_by: &[], sort_by: None, read_from: &read_from, kept, drop_unnamed: true };
    let plan = Plan::new(&table, wanted).unwrap();
    let steps: Vec<_> = plan.steps.iter().map(|step| step.what.as_str()).collect();
    assert_eq!(steps, ["rename SellerID to Seller", "add Shop int"]);
    plan.apply(&mut table, &[], |_, _| {}).await.unwrap();
    let now = table.metadata().current_schema();
    assert_eq!(now.field_id_by_name("Seller"), id);
    assert_ne!(now.field_id_by_name("Shop"), id);
    assert!(Plan::new(&table, wanted).unwrap().steps.is_empty());
    lake.remove().await;
}

#[tokio::test]
async fn what_a_plan_cannot_do_is_refused_before_its_first_step() {
    let lake = Lake::embedded().await;
    let mut table = lake.table("t", &["Year"]).await;
    change(&mut table, add("Amount", "string")).await;
    let before = table.metadata_location().to_owned();
    let plan = plan_for(&table, true).await;
    let shown: Vec<_> = plan.steps.iter().map(|step| format!("{}: {}", step.what, step.verdict)).collect();
    assert!(shown.iter().any(|step| step.contains("change Amount from string to decimal(12, 2): refused")), "{shown:?}");
    assert!(shown.iter().any(|step| step.starts_with("drop Year: refused")), "{shown:?}");
    let refused = plan.apply(&mut table, &[], |_, _| panic!("a step")).await.unwrap_err();
    assert_eq!(refused.kind(), lakesmith::Kind::Config);
    // What a command refuses is a step of the plan, with the reason, and no failure of it.
    let year = Arc::new(NestedField::optional(1, "Year", Type::Primitive(PrimitiveType::Long)));
    let schema = Schema::builder().with_fields([year]).build().unwrap();
    let partition_by = [("Year".to_owned(), Transform::Identity)];
    let wider =
        Wanted { schema: &schema, partition_by: &partition_by, sort_by: None, read_from: &[], kept: &[], drop_unnamed: false };
    let plan = Plan::new(&table, wider).unwrap();
    assert!(plan.refusal().is_some_and(|(step, why)| step.starts_with("widen Year") && why.contains("partitioned by it")));
    table.refresh().await.unwrap();
    assert_eq!(table.metadata_location(), before);
    lake.remove().await;
}
