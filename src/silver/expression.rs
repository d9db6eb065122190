//! SQL expressions over rows: planned once by DataFusion, evaluated per batch, with failures pinned to their rows.
//!
//! Names of columns are taken as they are written, and if no column is written so, without regard to case where that is unambiguous.
//! Numbers with a point are decimals, integer arithmetic that overflows is an error instead of wrapping, and a result is cast to its
//! declared type (decimals round half away from zero).
//!
//! *Invariants*: the same row always gives the same result. What depends on anything else (`now()`, `random()`, aggregates, windows,
//! subqueries) is refused when the pipeline starts.
//!
//! *Failure*: when a batch cannot be evaluated it is halved until the rows that fail stand alone; a kernel that panics on a value counts
//! as a failure of that row.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_empty_array};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::expr::Expr;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{ExprSchemable, Operator, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal, NegativeExpr};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Ident, visit_expressions_mut};

use super::decoder::excerpt;
use super::names;
use crate::error::{Error, Result};

/// Plans expressions; made once per pipeline.
pub struct Planner {
    state: SessionState,
}

impl Default for Planner {
    fn default() -> Self {
        let config = SessionConfig::new()
            .with_target_partitions(1)
            .set_bool("datafusion.sql_parser.enable_ident_normalization", false)
            .set_bool("datafusion.sql_parser.parse_float_as_decimal", true);
        Self { state: SessionStateBuilder::new().with_config(config).with_default_features().build() }
    }
}

/// An expression that is ready to be evaluated.
#[derive(Debug, Clone)]
pub struct Expression {
    sql: String,
    logical: Expr,
    physical: Arc<dyn PhysicalExpr>,
    result: DataType,
    /// Indexes of the columns that it reads.
    columns: Vec<usize>,
}

/// What an expression has to result in.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A value that is cast to this type.
    Value(DataType),
    /// True, false or null.
    Condition,
}

impl Planner {
    /// Plans `sql` over the columns of `scope`. Errors say what is wrong with the expression, not whose it is.
    pub fn plan(&self, sql: &str, scope: &SchemaRef, target: &Target) -> Result<Expression> {
        let schema = DFSchema::try_from(scope.as_ref().clone()).map_err(refused)?;
        let dialect = self.state.config_options().sql_parser.dialect;
        let mut parsed = self.state.sql_to_expr_with_alias(sql, &dialect).map_err(refused)?;
        if parsed.alias.is_some() {
            return Err(Error::config("an expression has no alias").hint("the name stands beside it"));
        }
        resolve_names(&mut parsed.expr, scope)?;
        let expr = self.state.create_logical_expr_from_sql_expr(parsed, &schema).map_err(refused)?;
        check_pure(&expr)?;
        let found = expr.get_type(&schema).map_err(refused)?;
        let expr = match target {
            Target::Value(wanted) if found == *wanted => expr,
            Target::Value(wanted) => expr.cast_to(wanted, &schema).map_err(refused)?,
            Target::Condition if found == DataType::Boolean => expr,
            Target::Condition => {
                return Err(Error::config(format!("it results in {found} instead of true or false")).hint("write a comparison"));
            }
        };
        let context = SimplifyContext::default()
            .with_schema(Arc::new(schema.clone()))
            .with_config_options(self.state.config_options().clone());
        let simplifier = ExprSimplifier::new(context);
        let expr = simplifier.coerce(expr, &schema).and_then(|expr| simplifier.simplify(expr)).map_err(refused)?;
        let physical = self.state.create_physical_expr(expr.clone(), &schema).map_err(refused)?;
        let physical = physical.transform_up(|node| checked(node, scope)).data().map_err(refused)?;
        let mut columns: Vec<_> = collect_columns(&physical).iter().map(Column::index).collect();
        columns.sort_unstable();
        let result = physical.data_type(scope).map_err(refused)?;
        Ok(Expression { sql: sql.trim().to_owned(), logical: expr, physical, result, columns })
    }
}

/// An expression that DataFusion refuses.
fn refused(error: DataFusionError) -> Error {
    Error::config(words(&error))
}

/// DataFusion's words without backtrace and without the class in front.
fn words(error: &DataFusionError) -> String {
    let text = match error.find_root() {
        DataFusionError::SQL(error, _) => error.to_string(),
        error => error.strip_backtrace(),
    };
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    [
        "sql parser error: ",
        "Error during planning: ",
        "Schema error: ",
        "Execution error: ",
        "Arrow error: ",
        "Cast error: ",
        "This feature is not implemented: ",
    ]
    .iter()
    .fold(text.as_str(), |text, class| text.strip_prefix(class).unwrap_or(text))
    .trim_end_matches('.')
    .to_owned()
}

/// Replaces every name by that of the column it means.
fn resolve_names(sql: &mut SqlExpr, scope: &SchemaRef) -> Result<()> {
    let found = visit_expressions_mut(sql, |expr| match expr {
        SqlExpr::Identifier(ident) => match resolve_name(ident, scope) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        },
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

fn resolve_name(ident: &mut Ident, scope: &SchemaRef) -> Result<()> {
    let names = || scope.fields().iter().map(|field| field.name().as_str());
    if names().any(|name| name == ident.value) {
        return Ok(());
    }
    let mut alike = names().filter(|name| name.eq_ignore_ascii_case(&ident.value));
    match (alike.next(), alike.next()) {
        (Some(name), None) => {
            ident.value = name.to_owned();
            Ok(())
        }
        _ => {
            let error = Error::config(format!("there is no column {}", ident.value));
            Err(match (ident.quote_style, names::nearest(&ident.value, names())) {
                (_, Some(near)) => error.hint(format!("did you mean {near}?")),
                (Some('"'), None) => error.hint("text stands in single quotes, double quotes are for names of columns"),
                _ => error.hint(format!("columns known here are {}", names().collect::<Vec<_>>().join(", "))),
            })
        }
    }
}

/// Refuses what does not depend on the row alone.
fn check_pure(expr: &Expr) -> Result<()> {
    let mut found = None;
    let outcome = expr.apply(|node| {
        found = match node {
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                Some(format!("{}() gives another result each time", call.func.name()))
            }
            Expr::AggregateFunction(call) => Some(format!("{}() is an aggregate over many rows", call.func.name())),
            Expr::WindowFunction(call) => Some(format!("{} looks at other rows", call.fun)),
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) | Expr::ScalarSubquery(_) => {
                Some("a subquery reads other rows".to_owned())
            }
            Expr::ScalarVariable(..) | Expr::Placeholder(_) => Some("a variable has no value here".to_owned()),
            Expr::Unnest(_) | Expr::GroupingSet(_) | Expr::OuterReferenceColumn(..) => Some("it is no single value".to_owned()),
            _ => None,
        };
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    outcome.map_err(refused)?;
    match found {
        None => Ok(()),
        Some(reason) => Err(Error::config(format!("{reason}, but the same record must always give the same row"))),
    }
}

/// Arithmetic that overflows becomes an error; DataFusion's own default is to wrap.
fn checked(node: Arc<dyn PhysicalExpr>, scope: &SchemaRef) -> datafusion::common::Result<Transformed<Arc<dyn PhysicalExpr>>> {
    if let Some(binary) = node.as_any().downcast_ref::<BinaryExpr>() {
        let (left, right) = (binary.left().clone(), binary.right().clone());
        return Ok(Transformed::yes(Arc::new(BinaryExpr::new(left, *binary.op(), right).with_fail_on_overflow(true))));
    }
    if let Some(negative) = node.as_any().downcast_ref::<NegativeExpr>() {
        let data_type = negative.arg().data_type(scope)?;
        if data_type.is_integer() {
            let zero = Arc::new(Literal::new(ScalarValue::new_zero(&data_type)?));
            let minus = BinaryExpr::new(zero, Operator::Minus, negative.arg().clone()).with_fail_on_overflow(true);
            return Ok(Transformed::yes(Arc::new(minus)));
        }
    }
    Ok(Transformed::no(node))
}

/// The rows of a batch for which an expression failed, with the reasons.
pub type FailedRows = Vec<(usize, String)>;

impl Expression {
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The expression with every conversion spelled out, as it is evaluated but for overflows, which are failures.
    pub fn logical(&self) -> &Expr {
        &self.logical
    }

    /// The result for every row, or the rows that fail. The columns of `batch` begin with those that the expression was planned over.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, FailedRows> {
        if batch.num_rows() == 0 {
            return Ok(new_empty_array(&self.result));
        }
        self.attempt(batch).map_err(|reason| {
            let mut failed = Vec::new();
            self.bisect(batch, 0, reason, &mut failed);
            failed
        })
    }

    fn attempt(&self, batch: &RecordBatch) -> Result<ArrayRef, String> {
        let rows = batch.num_rows();
        match catch_unwind(AssertUnwindSafe(|| self.physical.evaluate(batch).and_then(|value| value.into_array(rows)))) {
            Ok(Ok(array)) if array.len() == rows => Ok(array),
            Ok(Ok(array)) => Err(format!("{} values for {rows} rows", array.len())),
            Ok(Err(error)) => Err(words(&error)),
            Err(_) => Err("the evaluation panicked".to_owned()),
        }
    }

    /// Collects the failing rows of a batch that failed for `reason` and begins at row `first`.
    fn bisect(&self, batch: &RecordBatch, first: usize, reason: String, failed: &mut FailedRows) {
        let rows = batch.num_rows();
        if rows == 1 {
            failed.push((first, reason));
            return;
        }
        let before = failed.len();
        for (start, length) in [(0, rows / 2), (rows / 2, rows - rows / 2)] {
            let half = batch.slice(start, length);
            if let Err(reason) = self.attempt(&half) {
                self.bisect(&half, first + start, reason, failed);
            }
        }
        if failed.len() == before {
            // Only together do they fail, as when a result outgrows an array: none of them can be told from the others.
            failed.extend((first..first + rows).map(|row| (row, reason.clone())));
        }
    }

    /// The values of one row that the expression depends on, as `TotalAmount = -5.00, Quantity = 1`.
    pub fn inputs(&self, batch: &RecordBatch, row: usize) -> String {
        let options = FormatOptions::default().with_null("null").with_display_error(true);
        let value = |index: &usize| {
            let shown = ArrayFormatter::try_new(batch.column(*index).as_ref(), &options)
                .and_then(|formatter| formatter.value(row).try_to_string())
                .unwrap_or_else(|error| error.to_string());
            format!("{} = {}", batch.schema_ref().field(*index).name(), excerpt(&shown))
        };
        self.columns.iter().map(value).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Date32Array, Decimal128Array, Int32Array, StringArray};
    use arrow::datatypes::{Decimal128Type, Field, Int32Type, Schema};

    use super::*;

    fn batch() -> RecordBatch {
        let price = Decimal128Array::from(vec![26_980, 500, 1]).with_precision_and_scale(12, 2).unwrap();
        let schema = Schema::new(vec![
            Field::new("Quantity", DataType::Int32, false),
            Field::new("UnitPrice", price.data_type().clone(), false),
            Field::new("City", DataType::Utf8, true),
            Field::new("city", DataType::Utf8, true),
            Field::new("OrderDate", DataType::Date32, false),
        ]);
        let city: ArrayRef = Arc::new(StringArray::from(vec![Some("Austin"), Some("7"), None]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![3, 0, i32::MAX])),
            Arc::new(price),
            city.clone(),
            city,
            // A Sunday, a Monday, and the last day of a leap year.
            Arc::new(Date32Array::from(vec![19_554, 19_555, 20_088])),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    fn plan(sql: &str, target: Target) -> Result<Expression> {
        Planner::default().plan(sql, &batch().schema(), &target)
    }

    fn ints(sql: &str) -> Result<Vec<Option<i32>>, FailedRows> {
        let array = plan(sql, Target::Value(DataType::Int32)).unwrap().evaluate(&batch())?;
        Ok(array.as_primitive::<Int32Type>().iter().collect())
    }

    fn decimals(sql: &str, precision: u8, scale: i8) -> Result<Vec<Option<i128>>, FailedRows> {
        let array = plan(sql, Target::Value(DataType::Decimal128(precision, scale))).unwrap().evaluate(&batch())?;
        Ok(array.as_primitive::<Decimal128Type>().iter().collect())
    }

    #[test]
    fn decimals_stay_exact_and_round_half_away_from_zero() {
        assert_eq!(decimals("Quantity * UnitPrice", 18, 2), Ok(vec![Some(80_940), Some(0), Some(2_147_483_647)]));
        assert_eq!(decimals("UnitPrice * 0.5", 12, 2), Ok(vec![Some(13_490), Some(250), Some(1)]));
        assert_eq!(decimals("UnitPrice * -0.5", 12, 2), Ok(vec![Some(-13_490), Some(-250), Some(-1)]));
        assert_eq!(decimals("UnitPrice * 0.07", 12, 4), Ok(vec![Some(188_860), Some(3_500), Some(7)]));
    }

    #[test]
    fn parts_of_dates_are_those_of_sql() {
        assert_eq!(ints("EXTRACT(YEAR FROM OrderDate)"), Ok(vec![Some(2023), Some(2023), Some(2024)]));
        assert_eq!(ints("EXTRACT(QUARTER FROM OrderDate)"), Ok(vec![Some(3), Some(3), Some(4)]));
        assert_eq!(ints("EXTRACT(DOW FROM OrderDate) + 1"), Ok(vec![Some(1), Some(2), Some(3)]));
    }

    #[test]
    fn failures_stay_with_their_rows() {
        let failed = ints("10 / Quantity").unwrap_err();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].0, 1);
        assert!(failed[0].1.to_lowercase().contains("divide by zero"), "{failed:?}");
        let rows = |result: Result<_, FailedRows>| result.unwrap_err().into_iter().map(|(row, _)| row).collect::<Vec<_>>();
        assert_eq!(rows(ints("Quantity * 2")), [2]);
        assert_eq!(rows(ints("Quantity * Quantity / Quantity")), [1, 2], "no wrapping on the way");
        assert_eq!(rows(ints("-(-Quantity - arrow_cast(1, 'Int32')) + 1")), [2], "the least integer has no negative");
        assert_eq!(rows(ints("City")), [0]);
        assert_eq!(rows(ints("1 / 0")), [0, 1, 2]);
        assert!(
            plan("1 / 0", Target::Value(DataType::Int32)).unwrap().evaluate(&batch().slice(0, 0)).is_ok(),
            "no row, no failure"
        );
        assert_eq!(rows(decimals("UnitPrice", 4, 2).map(|_| vec![])), [0]);
    }

    #[test]
    fn names_are_exact_or_unambiguous() {
        assert_eq!(ints("quantity").unwrap(), ints("\"QUANTITY\"").unwrap());
        assert!(plan("city = 'Austin'", Target::Condition).is_ok());
        let error = plan("CITY = 'Austin'", Target::Condition).unwrap_err();
        assert_eq!(error.to_string(), "there is no column CITY");
        let error = plan("Quantty > 0", Target::Condition).unwrap_err();
        assert_eq!(error.hint_text(), Some("did you mean Quantity?"));
        let error = plan("City = \"Delivered\"", Target::Condition).unwrap_err();
        assert!(error.hint_text().unwrap().contains("single quotes"));
    }

    #[test]
    fn what_does_not_depend_on_the_row_alone_is_refused() {
        for (sql, reason) in [
            ("now() > OrderDate", "now() gives another result"),
            ("random() > 0.5", "random() gives another result"),
            ("current_date > OrderDate", "gives another result"),
            ("sum(Quantity) > 1", "sum() is an aggregate"),
            ("row_number() OVER () > 1", "row_number"),
            ("Quantity = (SELECT 1)", "a subquery"),
            ("EXISTS (SELECT 1)", "a subquery"),
            ("Quantity IN (SELECT 1)", "a subquery"),
            ("Quantity > $1", "a variable"),
        ] {
            let error = plan(sql, Target::Condition).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Config);
            assert!(error.chain().contains(reason), "{sql}: {}", error.chain());
        }
    }

    #[test]
    fn nonsense_is_a_configuration_error() {
        for sql in
            ["", "Quantity >", "Quantity > 0 AS x", "Quantity; DROP TABLE x", "no_such_function(Quantity)", "*", "x.Quantity > 0"]
        {
            let error = plan(sql, Target::Condition).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Config, "{sql}");
        }
        let error = plan("Quantity + 1", Target::Condition).unwrap_err();
        assert!(error.to_string().contains("instead of true or false"));
        assert!(plan("OrderDate", Target::Value(DataType::Boolean)).is_err());
    }

    #[test]
    fn a_reason_shows_what_the_condition_saw() {
        let condition = plan("UnitPrice > 0 AND City <> ''", Target::Condition).unwrap();
        assert_eq!(condition.inputs(&batch(), 2), "UnitPrice = 0.01, City = null");
    }
}
