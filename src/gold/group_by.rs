//! The same table by plain SQL: what a checker compares gold with, computed by DataFusion and none of our accumulators.
//!
//! DataFusion truncates averages and types sums by their input, so the query returns sum and count of each average, and
//! [`GoldPlan::from_group_by`] divides them and gives all columns their types.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type};

use super::average::{AVERAGE_SCALE, average};
use super::measure::Aggregate;
use super::plan::{GoldPlan, PROCESSING_TIMESTAMP};
use super::window::{NAMEABLE_US, WINDOW_END, WINDOW_START};
use crate::error::{Error, Result};

impl GoldPlan {
    /// A DataFusion query, for a session with `datafusion.sql_parser.enable_ident_normalization` off, whose result becomes gold's rows
    /// by [`GoldPlan::from_group_by`]. `silver` is a table name, or a subquery with alias, that has silver's columns.
    pub fn group_by_sql(&self, silver: &str) -> String {
        let dimensions: Vec<_> = self.settings().dimensions.iter().map(|name| quoted(name)).collect();
        let mut arguments = String::new();
        let measures = self.measures().iter().enumerate().map(|(position, measure)| {
            if measure.aggregate != Aggregate::Average {
                return format!("{} AS {}", measure.sql, quoted(&measure.name));
            }
            // A column of its own: DataFusion refuses a query in which one aggregate stands twice under two names.
            arguments.push_str(&format!(", {} AS lakesmith_argument_{position}", argument_of(&measure.sql)));
            let (sum, count) = (quoted(&sum_name(&measure.name)), quoted(&count_name(&measure.name)));
            format!("SUM(lakesmith_argument_{position}) AS {sum}, COUNT(lakesmith_argument_{position}) AS {count}")
        });
        let columns: Vec<_> = dimensions.iter().cloned().chain(measures).collect();
        let groups: Vec<_> = std::iter::once("lakesmith_window".to_string()).chain(dimensions).collect();
        format!(
            "SELECT arrow_cast(lakesmith_window, 'Timestamp(Microsecond, None)') AS {start}, \
             arrow_cast(lakesmith_window + {length}, 'Timestamp(Microsecond, None)') AS {end}, {columns} \
             FROM {windowed} GROUP BY {groups}",
            start = quoted(WINDOW_START),
            end = quoted(WINDOW_END),
            length = self.windows().length_us(),
            columns = columns.join(", "),
            windowed = self.windowed(silver, &arguments),
            groups = groups.join(", "),
        )
    }

    /// A DataFusion query for the windows that silver's rows fall into, each once.
    pub fn windows_sql(&self, silver: &str) -> String {
        format!(
            "SELECT DISTINCT arrow_cast(lakesmith_window, 'Timestamp(Microsecond, None)') AS {start} FROM {windowed}",
            start = quoted(WINDOW_START),
            windowed = self.windowed(silver, ""),
        )
    }

    /// Silver's rows with the start of their window.
    fn windowed(&self, silver: &str, arguments: &str) -> String {
        let (time, length) = (quoted(&self.settings().time_column), self.windows().length_us());
        let micros = |column: &str| format!("CAST(CAST({column} AS TIMESTAMP(6)) AS BIGINT)");
        let (happened, processed) = (micros(&time), micros(&quoted(PROCESSING_TIMESTAMP)));
        let nameable = format!("{happened} >= {} AND {happened} < {}", NAMEABLE_US.start, NAMEABLE_US.end);
        // Two remainders: the first takes the sign of an instant before 1970.
        format!(
            "(SELECT *, lakesmith_instant - ((lakesmith_instant % {length}) + {length}) % {length} AS lakesmith_window \
             FROM (SELECT *, COALESCE(CASE WHEN {nameable} THEN {happened} END, {processed}) AS lakesmith_instant{arguments} FROM {silver}))"
        )
    }

    /// Rows of [`GoldPlan::group_by_sql`] in gold's columns and types.
    pub fn from_group_by(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let averages: Vec<&str> = self
            .measures()
            .iter()
            .filter(|measure| measure.aggregate == Aggregate::Average)
            .map(|measure| measure.name.as_str())
            .collect();
        let column = |name: &str| -> Result<&ArrayRef> {
            rows.column_by_name(name).ok_or_else(|| Error::failed(format!("column {name} is missing in the GROUP BY's result")))
        };
        let columns = self.schema().fields().iter().map(|field| {
            if averages.contains(&field.name().as_str()) {
                divide(column(&sum_name(field.name()))?, column(&count_name(field.name()))?, field.data_type())
            } else {
                Ok(cast(column(field.name())?, field.data_type())?)
            }
        });
        Ok(RecordBatch::try_new(self.schema().clone(), columns.collect::<Result<_>>()?)?)
    }
}

fn divide(sums: &ArrayRef, counts: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let counts = cast(counts, &DataType::Int64)?;
    let counts: &Int64Array = counts.as_primitive();
    if *data_type == DataType::Float64 {
        let sums = cast(sums, &DataType::Float64)?;
        return Ok(arrow::compute::kernels::numeric::div(&sums, &cast(&nullif_zero(counts), &DataType::Float64)?)?);
    }
    let sums = match sums.data_type() {
        DataType::Decimal128(_, _) => sums.clone(),
        _ => cast(sums, &DataType::Decimal128(38, 0))?,
    };
    let DataType::Decimal128(_, scale) = *sums.data_type() else {
        return Err(Error::failed(format!("a sum has the type {}", sums.data_type())));
    };
    let sums = sums.as_primitive::<Decimal128Type>();
    let averages = (0..sums.len()).map(|row| {
        let present = sums.is_valid(row) && counts.value(row) > 0;
        present
            .then(|| {
                average(sums.value(row), scale, counts.value(row))
                    .ok_or_else(|| Error::stop("an average does not fit its column"))
            })
            .transpose()
    });
    let averages = Decimal128Array::from(averages.collect::<Result<Vec<_>>>()?);
    Ok(Arc::new(averages.with_precision_and_scale(38, AVERAGE_SCALE)?))
}

fn nullif_zero(counts: &Int64Array) -> ArrayRef {
    Arc::new(counts.iter().map(|count| count.filter(|count| *count > 0)).collect::<Int64Array>())
}

/// What stands between the parentheses of an aggregate call.
fn argument_of(sql: &str) -> &str {
    match (sql.find('('), sql.rfind(')')) {
        (Some(open), Some(close)) if open < close => sql[open + 1..close].trim(),
        _ => sql,
    }
}

fn sum_name(measure: &str) -> String {
    format!("{measure} (sum)")
}

fn count_name(measure: &str) -> String {
    format!("{measure} (count)")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
