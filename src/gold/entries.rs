//! The table and the view that a plan asks for.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::GoldPlan;
use super::progress::{EPOCH, REVISION, Revision};
use crate::error::{Error, Result};
use crate::hive::{FileFormat, HiveTableSpec, HiveViewSpec, ViewColumn, hive_columns};
use crate::metastore::FieldSchema;

impl GoldPlan {
    /// The table's entry. `location` is a full URI.
    pub fn table_spec(&self, database: &str, location: &str) -> Result<HiveTableSpec> {
        let own = [(EPOCH, Some("0".to_string())), (REVISION, Some(Revision::default().to_string()))];
        let parameters = own.into_iter().chain(self.definition().parameters());
        Ok(HiveTableSpec {
            database: database.to_string(),
            name: self.settings().table.clone(),
            format: FileFormat::Parquet,
            serde_parameters: BTreeMap::new(),
            location: location.trim_end_matches('/').to_string(),
            columns: hive_columns(self.schema())?,
            partition_keys: self.partition_keys(),
            parameters: parameters.filter_map(|(key, value)| Some((key.to_string(), value?))).collect(),
        })
    }

    fn partition_keys(&self) -> Vec<FieldSchema> {
        self.windows().partition_columns().iter().map(|name| FieldSchema::new(*name, "string")).collect()
    }

    /// The view for dashboards, if one is wanted: window, dimensions, measures, and last the partition's columns, so that a filter on
    /// `window_date` prunes.
    pub fn view_spec(&self, database: &str) -> Result<Option<HiveViewSpec>> {
        let settings = self.settings();
        if settings.view.is_empty() {
            return Ok(None);
        }
        let about = |error: Error| error.context(format!("gold view {}", settings.view));
        let columns = hive_columns(self.schema())?;
        if let Some(unknown) = settings.view_columns.keys().find(|name| self.schema().column_with_name(name).is_none()) {
            let names: Vec<_> = self.schema().fields().iter().map(|field| field.name().as_str()).collect();
            let error = Error::config(format!("view_columns names {unknown}, which the table has not"));
            return Err(about(error.hint(format!("the table's columns are {}", names.join(", ")))));
        }
        let named = self.schema().fields().iter().zip(&columns).map(|(field, column)| {
            let given = settings.view_columns.get(field.name()).cloned();
            ViewColumn::new(column, given.unwrap_or_else(|| snake_case(field.name())))
        });
        let keys = self.partition_keys();
        // The hour before the date: the date stands last.
        let columns: Vec<ViewColumn> = named.chain(keys.iter().rev().map(|key| ViewColumn::new(key, &key.name))).collect();
        let mut names = BTreeSet::new();
        if let Some(twice) = columns.iter().find(|column| !names.insert(column.name.to_lowercase())) {
            let error =
                Error::config(format!("column {} is there twice", twice.name)).hint("name one of them in gold.view_columns");
            return Err(about(error));
        }
        Ok(Some(HiveViewSpec {
            database: database.to_string(),
            name: settings.view.clone(),
            table: settings.table.clone(),
            columns,
        }))
    }
}

/// `TotalNetRevenue` → `total_net_revenue`, `CustomerID` → `customer_id`, `HTTPStatus` → `http_status`.
fn snake_case(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (position, character) in characters.iter().enumerate() {
        if !character.is_alphanumeric() {
            snake.push('_');
            continue;
        }
        let before = position.checked_sub(1).map(|before| characters[before]);
        let after = characters.get(position + 1);
        let begins = character.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase()
                    || before.is_numeric()
                    || before.is_uppercase() && after.is_some_and(|after| after.is_lowercase())
            });
        if begins {
            snake.push('_');
        }
        snake.extend(character.to_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::gold::settings::{GoldSettings, MeasureSettings, PartitionBy};
    use crate::record::{INSTANT, KAFKA_TIMESTAMP, OFFSET, PARTITION};

    fn plan(change: impl FnOnce(&mut GoldSettings)) -> Result<GoldPlan> {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let money = |name: &str| Field::new(name, DataType::Decimal128(18, 2), true);
        let silver = Schema::new(vec![
            Field::new(PARTITION, DataType::Int32, false),
            Field::new(OFFSET, DataType::Int64, false),
            Field::new(KAFKA_TIMESTAMP, INSTANT, true),
            text("Category"),
            text("PaymentMethod"),
            text("CustomerID"),
            Field::new("Quantity", DataType::Int32, true),
            money("TotalAmount"),
            Field::new("Discount", DataType::Float64, true),
            Field::new("processing_timestamp", INSTANT, false),
        ]);
        let measures = [
            ("TotalOrders", "COUNT(*)"),
            ("TotalQuantity", "SUM(Quantity)"),
            ("TotalRevenue", "SUM(TotalAmount)"),
            ("AvgOrderValue", "AVG(TotalAmount)"),
            ("UniqueCustomers", "COUNT(DISTINCT CustomerID)"),
        ];
        let mut settings = GoldSettings {
            table: "gold".into(),
            view: "gold_view".into(),
            dimensions: vec!["Category".into(), "PaymentMethod".into()],
            measures: measures.map(|(name, sql)| MeasureSettings::new(name, sql)).into(),
            ..GoldSettings::default()
        };
        change(&mut settings);
        GoldPlan::new(&settings, &silver)
    }

    #[test]
    fn names_become_snake_case() {
        for (name, expected) in [
            ("TotalNetRevenue", "total_net_revenue"),
            ("CustomerID", "customer_id"),
            ("HTTPStatus", "http_status"),
            ("window_start", "window_start"),
            ("Category", "category"),
            ("Q1Sales", "q1_sales"),
            ("a b", "a_b"),
        ] {
            assert_eq!(snake_case(name), expected);
        }
    }

    #[test]
    fn the_table_and_the_view_have_the_planned_columns() {
        let plan = plan(|_| ()).unwrap();
        let table = plan.table_spec("lake", "file:///lake/gold/").unwrap();
        let columns: Vec<String> = table.columns.iter().map(|column| format!("{} {}", column.name, column.hive_type)).collect();
        let expected = [
            "window_start timestamp",
            "window_end timestamp",
            "category string",
            "paymentmethod string",
            "totalorders bigint",
            "totalquantity bigint",
            "totalrevenue decimal(38,2)",
            "avgordervalue decimal(38,4)",
            "uniquecustomers bigint",
        ];
        assert_eq!(columns, expected);
        assert_eq!(table.partition_keys, [FieldSchema::new("window_date", "string")]);
        let view = plan.view_spec("lake").unwrap().unwrap();
        let columns: Vec<String> = view.columns.iter().map(|column| format!("{} {}", column.name, column.hive_type)).collect();
        let expected = [
            "window_start timestamp",
            "window_end timestamp",
            "category string",
            "payment_method string",
            "total_orders bigint",
            "total_quantity bigint",
            "total_revenue double",
            "avg_order_value double",
            "unique_customers bigint",
            "window_date string",
        ];
        assert_eq!(columns, expected);
    }

    #[test]
    fn by_hour_the_date_still_stands_last() {
        let plan = plan(|settings| {
            settings.partition_by = PartitionBy::Hour;
            settings.view_columns = [("TotalOrders".to_string(), "orders".to_string())].into();
        });
        let plan = plan.unwrap();
        let keys: Vec<_> = plan.table_spec("lake", "/g").unwrap().partition_keys.into_iter().map(|key| key.name).collect();
        assert_eq!(keys, ["window_date", "window_hour"]);
        let view = plan.view_spec("lake").unwrap().unwrap();
        let names: Vec<_> = view.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names[4], "orders");
        assert_eq!(names[names.len() - 2..], ["window_hour", "window_date"]);
    }

    #[test]
    fn what_is_not_supported_is_a_configuration_error_with_a_way_out() {
        for (sql, part) in [
            ("MEDIAN(Quantity)", "`MEDIAN(Quantity)` is not supported"),
            ("SUM(Quantity) + 1", "is not supported"),
            ("SUM(Quantity) AS q", "is not supported"),
            ("SUM(DISTINCT Quantity)", "is not supported"),
            ("SUM(Quantity) FILTER (WHERE Quantity > 1)", "is not supported"),
            ("COUNT(DISTINCT Quantity, CustomerID)", "not supported"),
            ("Quantity", "is not supported"),
            ("SUM(nothing)", "is not understood"),
            ("SUM(Quantity", "is not understood"),
            ("SUM(CustomerID)", "type Utf8 is not supported"),
            ("MAX(now())", "now gives other values each time"),
            ("SUM(random())", "random gives other values each time"),
        ] {
            let error = plan(|settings| settings.measures = vec![MeasureSettings::new("m", sql)]).unwrap_err();
            assert!(error.chain().contains(part), "{sql}: {}", error.chain());
            assert_eq!(error.kind(), crate::error::Kind::Config, "{sql}");
        }
        let errors = [
            (plan(|settings| settings.dimensions.push("Nowhere".into())), "silver has no column Nowhere"),
            (plan(|settings| settings.dimensions.push("Discount".into())), "which makes no groups"),
            (plan(|settings| settings.time_column = "Category".into()), "is not a timestamp"),
            (plan(|settings| settings.measures[0].name = "category".into()), "column category is there twice"),
            (plan(|settings| settings.measures[0].name = "Window_Date".into()), "column Window_Date is there twice"),
            (plan(|settings| settings.window = std::time::Duration::from_millis(1500)), "not whole seconds"),
            (plan(|settings| settings.measures.clear()), "no measures"),
        ];
        for (result, part) in errors {
            let error = result.unwrap_err();
            assert!(error.chain().contains(part), "{}", error.chain());
        }
        let twice =
            plan(|settings| settings.view_columns = [("TotalOrders".to_string(), "category".to_string())].into()).unwrap();
        assert!(twice.view_spec("lake").unwrap_err().chain().contains("column category is there twice"));
    }
}
