//! Measures: one SQL aggregate call each, understood once and computed by our own accumulators.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::SortOptions;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type, TimeUnit};
use arrow::row::{RowConverter, SortField};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::physical_expr::PhysicalExpr;

use super::accumulator::{Accumulator, Argument, Count, ExactSum, Extreme, FloatSum, MinMax, SUM_PRECISION, SumOutput};
use super::average::AVERAGE_SCALE;
use super::distinct::CountDistinct;
use super::settings::MeasureSettings;
use crate::error::{Error, Result};

const SUPPORTED: &str =
    "one of COUNT(*), COUNT(x), COUNT(DISTINCT x), SUM(x), AVG(x), MIN(x), MAX(x), x being an expression over silver columns";

/// What is computed over a group's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    CountRows,
    Count,
    CountDistinct,
    Sum,
    Average,
    Min,
    Max,
}

/// A column of a gold table that is computed.
#[derive(Clone)]
pub struct Measure {
    pub name: String,
    pub aggregate: Aggregate,
    /// The aggregate as it was written.
    pub sql: String,
    /// Silver columns that the argument reads.
    pub columns: Vec<String>,
    argument: Option<Expr>,
    physical: Option<Arc<dyn PhysicalExpr>>,
    /// Type of the argument as accumulators take it.
    input: DataType,
    converter: Option<Arc<RowConverter>>,
}

impl std::fmt::Debug for Measure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Measure").field("name", &self.name).field("sql", &self.sql).finish_non_exhaustive()
    }
}

impl Measure {
    /// Understands a measure over silver's columns. [`Measure::bind`] makes it computable.
    pub fn parse(settings: &MeasureSettings, context: &SessionContext, silver: &DFSchema) -> Result<Self> {
        let bad = |what: String| Error::config(format!("measure {}: {what}", settings.name));
        let expr = context.parse_sql_expr(&settings.sql, silver).map_err(|error| {
            bad(format!("`{}` is not understood", settings.sql)).caused_by(error).hint(format!("write {SUPPORTED}"))
        })?;
        let unsupported = || bad(format!("`{}` is not supported", settings.sql)).hint(format!("write {SUPPORTED}"));
        // COUNT(*) comes with an alias that keeps its name; an alias of the user's own does not end in a parenthesis.
        let expr = if settings.sql.trim_end().ends_with(')') { expr.unalias() } else { expr };
        let Expr::AggregateFunction(call) = expr else { return Err(unsupported()) };
        let params = &call.params;
        let [argument] = params.args.as_slice() else { return Err(unsupported()) };
        if params.filter.is_some() || !params.order_by.is_empty() || params.null_treatment.is_some() {
            return Err(unsupported());
        }
        let every_row = match argument {
            #[expect(deprecated, reason = "the parser still gives this for COUNT(*)")]
            Expr::Wildcard { .. } => true,
            Expr::Literal(value, _) => !value.is_null(),
            _ => false,
        };
        let aggregate = match (call.func.name(), params.distinct) {
            ("count", false) if every_row => Aggregate::CountRows,
            ("count", false) => Aggregate::Count,
            ("count", true) => Aggregate::CountDistinct,
            ("sum", false) => Aggregate::Sum,
            ("avg", false) => Aggregate::Average,
            ("min", _) => Aggregate::Min,
            ("max", _) => Aggregate::Max,
            _ => return Err(unsupported()),
        };
        let argument = (aggregate != Aggregate::CountRows).then(|| argument.clone());
        let mut columns = Vec::new();
        if let Some(argument) = &argument {
            ensure_repeatable(argument).map_err(|function| {
                bad(format!("{function} gives other values each time")).hint("a measure may only depend on silver's columns")
            })?;
            columns = argument.column_refs().into_iter().map(|column| column.name.clone()).collect();
            columns.sort();
        }
        Ok(Self {
            name: settings.name.clone(),
            aggregate,
            sql: settings.sql.clone(),
            columns,
            argument,
            physical: None,
            input: DataType::Null,
            converter: None,
        })
    }

    /// Plans the argument over the columns that are read.
    pub fn bind(mut self, context: &SessionContext, input: &DFSchema) -> Result<Self> {
        let Some(argument) = self.argument.clone() else { return Ok(self) };
        let bad = |what: String| Error::config(format!("measure {}: {what}", self.name));
        let physical = context
            .create_physical_expr(argument, input)
            .map_err(|error| bad(format!("`{}` cannot be computed", self.sql)).caused_by(error))?;
        let data_type =
            physical.data_type(input.as_arrow()).map_err(|error| bad("its type is unknown".into()).caused_by(error))?;
        self.input = normalize(&data_type, self.aggregate).ok_or_else(|| {
            bad(format!("{:?} of the type {data_type} is not supported", self.aggregate))
                .hint("cast the argument to another type")
        })?;
        let options = match self.aggregate {
            Aggregate::CountDistinct if matches!(self.input, DataType::Utf8 | DataType::Binary) => None,
            Aggregate::CountDistinct | Aggregate::Max => Some(SortOptions { descending: false, nulls_first: true }),
            Aggregate::Min => Some(SortOptions { descending: false, nulls_first: false }),
            _ => None,
        };
        if let Some(options) = options {
            let field = SortField::new_with_options(self.input.clone(), options);
            self.converter = Some(Arc::new(RowConverter::new(vec![field])?));
        }
        self.physical = Some(physical);
        Ok(self)
    }

    /// The column that a bound measure fills. Rows from before the table had it have a null there, be it a count.
    pub fn field(&self) -> Field {
        let data_type = match (self.aggregate, &self.input) {
            (Aggregate::CountRows | Aggregate::Count | Aggregate::CountDistinct, _) => DataType::Int64,
            (Aggregate::Sum, DataType::Decimal128(_, scale)) => DataType::Decimal128(SUM_PRECISION, *scale),
            (Aggregate::Average, DataType::Decimal128(_, _) | DataType::Int64) => {
                DataType::Decimal128(SUM_PRECISION, AVERAGE_SCALE)
            }
            (_, input) => input.clone(),
        };
        Field::new(&self.name, data_type, true)
    }

    pub fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        let no_form = || Error::failed(format!("measure {} was not bound", self.name));
        Ok(match (self.aggregate, &self.input) {
            (Aggregate::CountRows | Aggregate::Count, _) => Box::new(Count::default()),
            (Aggregate::CountDistinct, _) => Box::new(CountDistinct::default()),
            (Aggregate::Sum, DataType::Int64) => Box::new(ExactSum::new(SumOutput::Integer)),
            (Aggregate::Sum, DataType::Decimal128(_, scale)) => Box::new(ExactSum::new(SumOutput::Decimal { scale: *scale })),
            (Aggregate::Sum, DataType::Float64) => Box::new(FloatSum::sum()),
            (Aggregate::Average, DataType::Int64) => Box::new(ExactSum::new(SumOutput::Average { scale: 0 })),
            (Aggregate::Average, DataType::Decimal128(_, scale)) => Box::new(ExactSum::new(SumOutput::Average { scale: *scale })),
            (Aggregate::Average, DataType::Float64) => Box::new(FloatSum::average()),
            (Aggregate::Min, input) => Box::new(MinMax::new(Extreme::Min, self.converter.clone().ok_or_else(no_form)?, input)?),
            (Aggregate::Max, input) => Box::new(MinMax::new(Extreme::Max, self.converter.clone().ok_or_else(no_form)?, input)?),
            (Aggregate::Sum | Aggregate::Average, _) => return Err(no_form()),
        })
    }

    /// The argument's values for a batch of the columns that were bound.
    pub fn argument(&self, batch: &RecordBatch) -> Result<Argument> {
        let Some(physical) = &self.physical else { return Ok(Argument::None) };
        let failed = |error| Error::failed(format!("measure {}: `{}` failed", self.name, self.sql)).caused_by(error);
        let values = physical.evaluate(batch).and_then(|value| value.into_array(batch.num_rows())).map_err(failed)?;
        if self.aggregate == Aggregate::Count {
            return Ok(Argument::Nulls(values.logical_nulls()));
        }
        let values: ArrayRef = if values.data_type() == &self.input { values } else { cast(&values, &self.input)? };
        Ok(match (&self.converter, &self.input) {
            (Some(converter), _) => {
                let nulls = values.logical_nulls();
                Argument::Encoded { rows: converter.convert_columns(&[values])?, nulls }
            }
            (None, DataType::Utf8) => Argument::Bytes(values.as_string::<i32>().clone().into()),
            (None, DataType::Binary) => Argument::Bytes(values.as_binary().clone()),
            (None, DataType::Int64) => Argument::Integers(values.as_primitive::<Int64Type>().clone()),
            (None, DataType::Decimal128(_, _)) => Argument::Decimals(values.as_primitive::<Decimal128Type>().clone()),
            (None, DataType::Float64) => Argument::Floats(values.as_primitive::<Float64Type>().clone()),
            (None, other) => return Err(Error::failed(format!("measure {} has no form for the type {other}", self.name))),
        })
    }
}

/// The type in which an aggregate takes values of `data_type`; none if it does not.
fn normalize(data_type: &DataType, aggregate: Aggregate) -> Option<DataType> {
    use DataType as T;
    let numeric = matches!(aggregate, Aggregate::Sum | Aggregate::Average);
    match data_type {
        _ if aggregate == Aggregate::Count => Some(data_type.clone()),
        T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::UInt8 | T::UInt16 | T::UInt32 if numeric => Some(T::Int64),
        T::Int8 | T::Int16 | T::Int32 | T::UInt8 | T::UInt16 => Some(T::Int32),
        T::Int64 | T::UInt32 => Some(T::Int64),
        T::Decimal32(precision, scale) | T::Decimal64(precision, scale) | T::Decimal128(precision, scale) if *scale >= 0 => {
            Some(T::Decimal128(*precision, *scale))
        }
        T::Float16 | T::Float32 | T::Float64 => Some(T::Float64),
        _ if numeric => None,
        T::Utf8 | T::LargeUtf8 | T::Utf8View => Some(T::Utf8),
        T::Boolean => Some(T::Boolean),
        T::Date32 => Some(T::Date32),
        T::Timestamp(_, _) => Some(T::Timestamp(TimeUnit::Microsecond, None)),
        T::Binary | T::LargeBinary | T::BinaryView if aggregate == Aggregate::CountDistinct => Some(T::Binary),
        _ => None,
    }
}

/// Err: the name of a function whose value is not decided by its arguments.
fn ensure_repeatable(expr: &Expr) -> Result<(), String> {
    let mut found = None;
    // The closure does not fail.
    let _ = expr.apply(|part| {
        if let Expr::ScalarFunction(call) = part
            && call.func.signature().volatility != Volatility::Immutable
        {
            found = Some(call.func.name().to_string());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found.map_or(Ok(()), Err)
}
