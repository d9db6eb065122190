//! Expressions of derived columns and expectations in Trino's SQL, as far as both engines give the same result for every row.
//!
//! What is translated is what DataFusion evaluates, with every conversion spelled out. Only what is known to be equal is here: whole numbers and
//! decimals without rounding of their own, doubles but for the order of zeros (-0.0 is less than 0.0 here), texts byte by byte.
//!
//! *Invariants*: where an expression fails here, it fails in Trino, so that it is null under `TRY`. What may fail stands only below operators that
//! are null when an operand is: nothing that failed can be hidden by a branch that was not taken.
//!
//! *Failure*: the part that has no equal is named.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, Case, Expr, ScalarFunction};
use datafusion::logical_expr::{ExprSchemable, Like, Operator};

use super::literal;
use crate::error::{Error, Result};
use crate::record::INSTANT;

/// An expression as Trino has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Translated {
    pub sql: String,
    /// For some values it fails, in both.
    pub can_fail: bool,
    /// It is null exactly if one of its columns is, or it failed.
    pub is_strict: bool,
    /// What it reads, as the query calls it.
    pub columns: BTreeSet<String>,
}

impl Translated {
    fn strict(sql: String, of: &[&Translated]) -> Self {
        Self {
            sql,
            can_fail: of.iter().any(|part| part.can_fail),
            is_strict: of.iter().all(|part| part.is_strict),
            columns: of.iter().flat_map(|part| part.columns.iter().cloned()).collect(),
        }
    }

    fn that_fails(self) -> Self {
        Self { can_fail: true, ..self }
    }

    /// Above it nothing tells any more whether a column was null.
    fn lenient(self) -> Self {
        Self { is_strict: false, ..self }
    }
}

/// Translates expressions over the columns of a schema.
pub(super) struct Translator<'a> {
    pub schema: &'a DFSchema,
    /// What the query calls a column.
    pub name: &'a dyn Fn(&str) -> Option<String>,
}

/// Trino's name of a type.
pub(super) fn type_name(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "varchar".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Decimal128(precision, scale) if *scale >= 0 => format!("decimal({precision}, {scale})"),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp(6)".to_owned(),
        _ => return None,
    })
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

fn is_whole(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int32 | DataType::Int64)
}

/// Types whose values both engines order in the same way.
fn is_ordered(data_type: &DataType) -> bool {
    let is_decimal = matches!(data_type, DataType::Decimal128(_, scale) if *scale >= 0);
    is_decimal
        || is_text(data_type)
        || is_whole(data_type)
        || matches!(data_type, DataType::Boolean | DataType::Date32)
        || *data_type == INSTANT
}

impl Translator<'_> {
    pub fn translate(&self, expr: &Expr) -> Result<Translated> {
        let unknown = || refused(expr);
        Ok(match expr {
            Expr::Column(column) => {
                let name = (self.name)(&column.name).ok_or_else(unknown)?;
                type_name(&self.type_of(expr)?).ok_or_else(unknown)?;
                Translated { sql: name.clone(), can_fail: false, is_strict: true, columns: BTreeSet::from([name]) }
            }
            Expr::Literal(value, _) => constant(value).ok_or_else(unknown)?,
            Expr::Cast(cast) => self.cast(expr, &cast.expr, &cast.data_type)?,
            Expr::BinaryExpr(binary) => self.binary(expr, binary)?,
            Expr::Negative(of) => {
                let (inner, data_type) = (self.translate(of)?, self.type_of(of)?);
                let negated = Translated::strict(format!("(- {})", inner.sql), &[&inner]);
                match data_type {
                    DataType::Int32 | DataType::Int64 => negated.that_fails(),
                    DataType::Decimal128(..) | DataType::Float64 => negated,
                    _ => return Err(unknown()),
                }
            }
            Expr::Not(of) => self.sure(expr, &[of], |parts| format!("(NOT {})", parts[0]))?,
            Expr::IsNull(of) => self.sure(expr, &[of], |parts| format!("({} IS NULL)", parts[0]))?,
            Expr::IsNotNull(of) => self.sure(expr, &[of], |parts| format!("({} IS NOT NULL)", parts[0]))?,
            Expr::IsTrue(of) => self.sure(expr, &[of], |parts| format!("coalesce({}, false)", parts[0]))?,
            Expr::IsFalse(of) => self.sure(expr, &[of], |parts| format!("coalesce(NOT {}, false)", parts[0]))?,
            Expr::Between(between) => {
                let parts: [&Expr; 3] = [&between.expr, &between.low, &between.high];
                self.ensure_alike(expr, &parts)?;
                let not = if between.negated { "NOT " } else { "" };
                // Where one end decides, the other may be null.
                self.sure(expr, &parts, |parts| format!("({} {not}BETWEEN {} AND {})", parts[0], parts[1], parts[2]))?
            }
            Expr::InList(list) => {
                let parts: Vec<&Expr> = std::iter::once(&*list.expr).chain(&list.list).collect();
                self.ensure_alike(expr, &parts)?;
                let not = if list.negated { "NOT " } else { "" };
                self.sure(expr, &parts, |parts| format!("({} {not}IN ({}))", parts[0], parts[1..].join(", ")))?
            }
            Expr::Like(like) => self.like(expr, like)?,
            Expr::Case(case) => self.case(expr, case)?,
            Expr::ScalarFunction(call) => self.call(expr, call)?,
            _ => return Err(unknown()),
        })
    }

    /// The conditions that must all hold, apart: one that fails is not true, whatever the others are.
    pub fn conditions(&self, expr: &Expr) -> Result<Vec<Translated>> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                let mut all = self.conditions(left)?;
                all.extend(self.conditions(right)?);
                Ok(all)
            }
            other => Ok(vec![self.translate(other)?]),
        }
    }

    fn type_of(&self, expr: &Expr) -> Result<DataType> {
        expr.get_type(self.schema).map_err(|error| refused(expr).caused_by(error))
    }

    /// An operator that need not be null when a part is; no part of it may fail.
    fn sure(&self, expr: &Expr, parts: &[&Expr], sql: impl Fn(&[String]) -> String) -> Result<Translated> {
        let parts = parts.iter().map(|part| self.translate(part)).collect::<Result<Vec<_>>>()?;
        if parts.iter().any(|part| part.can_fail) {
            return Err(refused(expr).hint("a part of it can fail: compute that part in a derived column of its own"));
        }
        let texts: Vec<String> = parts.iter().map(|part| part.sql.clone()).collect();
        Ok(Translated::strict(sql(&texts), &parts.iter().collect::<Vec<_>>()).lenient())
    }

    /// Stops unless all parts are of one type, whose values both engines order in the same way.
    fn ensure_alike(&self, expr: &Expr, parts: &[&Expr]) -> Result<()> {
        let types = parts.iter().map(|part| self.type_of(part)).collect::<Result<Vec<_>>>()?;
        let same = |other: &DataType| *other == types[0] || is_text(other) && is_text(&types[0]);
        if is_ordered(&types[0]) && types.iter().all(same) { Ok(()) } else { Err(refused(expr)) }
    }

    fn binary(&self, expr: &Expr, BinaryExpr { left, op, right }: &BinaryExpr) -> Result<Translated> {
        let words = match op {
            Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                let are_doubles =
                    [left, right].iter().all(|part| self.type_of(part).is_ok_and(|found| found == DataType::Float64));
                if !are_doubles {
                    self.ensure_alike(expr, &[left, right])?;
                }
                let sign = if *op == Operator::NotEq { "<>".to_owned() } else { op.to_string() };
                let (left, right) = (self.translate(left)?, self.translate(right)?);
                let compared = Translated::strict(format!("({} {sign} {})", left.sql, right.sql), &[&left, &right]);
                return Ok(if are_doubles { of_doubles(compared, &left.sql, &right.sql) } else { compared });
            }
            Operator::StringConcat if is_text(&self.type_of(left)?) && is_text(&self.type_of(right)?) => {
                let (left, right) = (self.translate(left)?, self.translate(right)?);
                return Ok(Translated::strict(format!("({} || {})", left.sql, right.sql), &[&left, &right]));
            }
            Operator::And => "AND",
            Operator::Or => "OR",
            Operator::IsDistinctFrom | Operator::IsNotDistinctFrom => {
                self.ensure_alike(expr, &[left, right])?;
                if *op == Operator::IsDistinctFrom { "IS DISTINCT FROM" } else { "IS NOT DISTINCT FROM" }
            }
            _ => return self.arithmetic(expr, left, *op, right),
        };
        self.sure(expr, &[left, right], |parts| format!("({} {words} {})", parts[0], parts[1]))
    }

    fn arithmetic(&self, expr: &Expr, left: &Expr, op: Operator, right: &Expr) -> Result<Translated> {
        use DataType::{Decimal128, Float64};
        let (left_type, right_type) = (self.type_of(left)?, self.type_of(right)?);
        let (left_sql, right_sql) = (self.translate(left)?, self.translate(right)?);
        let sql = format!("({} {op} {})", left_sql.sql, right_sql.sql);
        let result = Translated::strict(sql, &[&left_sql, &right_sql]);
        let is_sum = matches!(op, Operator::Plus | Operator::Minus);
        match (left_type, right_type) {
            (Float64, Float64) if is_sum || matches!(op, Operator::Multiply | Operator::Divide) => Ok(result),
            (left, right) if left == right && is_whole(&left) => match op {
                Operator::Plus | Operator::Minus | Operator::Multiply => Ok(result.that_fails()),
                // The least number divided by -1 is too large for one and not for the other.
                Operator::Divide | Operator::Modulo if is_positive(expr) => Ok(result),
                _ => Err(refused(expr)),
            },
            (Decimal128(p1, s1), Decimal128(p2, s2)) if s1 >= 0 && s2 >= 0 && (is_sum || op == Operator::Multiply) => {
                let whole = |precision: u8, scale: i8| i16::from(precision) - i16::from(scale);
                let (precision, scale) = match is_sum {
                    true => (whole(p1, s1).max(whole(p2, s2)) + i16::from(s1.max(s2)) + 1, s1.max(s2)),
                    false => (i16::from(p1) + i16::from(p2) + 1, s1 + s2),
                };
                match self.type_of(expr)? {
                    // Beyond 38 digits each engine cuts in its own way.
                    Decimal128(p, s) if i16::from(p) == precision && s == scale && precision <= 38 => {
                        Ok(Translated { sql: format!("CAST({} AS decimal({p}, {s}))", result.sql), ..result })
                    }
                    _ => Err(refused(expr)
                        .hint("its result may have more than 38 digits: give derived columns on the way a smaller type")),
                }
            }
            _ => Err(refused(expr)),
        }
    }

    fn cast(&self, expr: &Expr, of: &Expr, to: &DataType) -> Result<Translated> {
        use DataType::{Boolean, Date32, Decimal128, Float32, Float64, Int32, Int64};
        let from = self.type_of(of)?;
        let inner = self.translate(of)?;
        let (Some(from_name), Some(to_name)) = (type_name(&from), type_name(to)) else { return Err(refused(expr)) };
        if from_name == to_name {
            return Ok(inner);
        }
        let cast = Translated::strict(format!("CAST({} AS {to_name})", inner.sql), &[&inner]);
        let whole = |precision: &u8, scale: &i8| i16::from(*precision) - i16::from(*scale);
        Ok(match (&from, to) {
            (Int32, Int64) | (Int32 | Int64 | Float32, Float64) => cast,
            (Int64, Int32) => cast.that_fails(),
            (Int32, Decimal128(p, s)) if whole(p, s) >= 10 => cast,
            (Int64, Decimal128(p, s)) if whole(p, s) >= 19 => cast,
            (Int32 | Int64, Decimal128(..)) => cast.that_fails(),
            (Decimal128(p1, s1), Decimal128(p2, s2)) => {
                // Rounding may need one digit more.
                let carries = i16::from(s2 < s1);
                if whole(p2, s2) >= whole(p1, s1) + carries { cast } else { cast.that_fails() }
            }
            (Int32 | Int64 | Date32 | Boolean, to) if is_text(to) => cast,
            (Date32, to) if *to == INSTANT => cast,
            (from, Date32) if *from == INSTANT => since_1970(&inner, &cast.sql),
            _ => return Err(refused(expr)),
        })
    }

    fn like(&self, expr: &Expr, like: &Like) -> Result<Translated> {
        let pattern = constant_text(&like.pattern);
        // By default a backslash is an escape here, and a character there.
        let pattern = pattern.filter(|pattern| !pattern.contains('\\') && like.escape_char.is_none() && !like.case_insensitive);
        let (Some(pattern), true) = (pattern, is_text(&self.type_of(&like.expr)?)) else { return Err(refused(expr)) };
        let not = if like.negated { "NOT " } else { "" };
        self.sure(expr, &[&like.expr], |parts| format!("({} {not}LIKE {})", parts[0], literal(pattern)))
    }

    fn case(&self, expr: &Expr, case: &Case) -> Result<Translated> {
        let result = self.type_of(expr)?;
        let result = type_name(&result).ok_or_else(|| refused(expr))?;
        let mut parts: Vec<&Expr> = Vec::new();
        let mut text = String::from("CASE");
        let mut place = |part| {
            parts.push(part);
            format!("\u{0}{}\u{0}", parts.len() - 1)
        };
        if let Some(of) = &case.expr {
            let mut compared: Vec<&Expr> = vec![of];
            compared.extend(case.when_then_expr.iter().map(|(when, _)| &**when));
            self.ensure_alike(expr, &compared)?;
            text += &format!(" {}", place(of));
        }
        for (when, then) in &case.when_then_expr {
            text += &format!(" WHEN {} THEN {}", place(when), place(then));
        }
        if let Some(otherwise) = &case.else_expr {
            text += &format!(" ELSE {}", place(otherwise));
        }
        self.sure(expr, &parts, |parts| {
            let whole = (0..parts.len()).fold(text.clone(), |text, at| text.replace(&format!("\u{0}{at}\u{0}"), &parts[at]));
            format!("CAST({whole} END AS {result})")
        })
    }

    fn call(&self, expr: &Expr, call: &ScalarFunction) -> Result<Translated> {
        let (name, arguments) = (call.func.name(), call.args.iter().collect::<Vec<_>>());
        let first = *arguments.first().ok_or_else(|| refused(expr))?;
        match (name, &*arguments) {
            ("date_part", [part, of]) => self.date_part(expr, part, of),
            ("date_trunc", [unit, of]) => {
                let unit =
                    word(unit).filter(|unit| ["year", "quarter", "month", "week", "day", "hour", "minute"].contains(&&**unit));
                let (Some(unit), true) = (unit, self.type_of(of)? == INSTANT) else { return Err(refused(expr)) };
                let of = self.translate(of)?;
                Ok(since_1970(&of, &format!("date_trunc('{unit}', {})", of.sql)))
            }
            ("coalesce", _) => {
                self.ensure_alike(expr, &arguments)?;
                self.sure(expr, &arguments, |parts| format!("coalesce({}, NULL)", parts.join(", ")))
            }
            ("nullif", [_, _]) => {
                self.ensure_alike(expr, &arguments)?;
                self.sure(expr, &arguments, |parts| format!("nullif({}, {})", parts[0], parts[1]))
            }
            ("upper" | "lower", [_]) if is_text(&self.type_of(first)?) => {
                // Beyond ASCII a letter may become two, or not.
                let of = self.translate(first)?;
                let sql = format!(r"IF(regexp_like({0}, '\A[\x00-\x7F]*\z'), {name}({0}))", of.sql);
                Ok(Translated::strict(sql, &[&of]).that_fails())
            }
            ("btrim" | "ltrim" | "rtrim", [_]) if is_text(&self.type_of(first)?) => {
                // Of blanks alone; without being told, Trino takes all white space away.
                let side = match name {
                    "ltrim" => "LEADING",
                    "rtrim" => "TRAILING",
                    _ => "BOTH",
                };
                let of = self.translate(first)?;
                Ok(Translated::strict(format!("trim({side} ' ' FROM {})", of.sql), &[&of]))
            }
            ("replace", [_, old, new]) if is_text(&self.type_of(first)?) => {
                let (Some(old), Some(new)) = (constant_text(old).filter(|old| !old.is_empty()), constant_text(new)) else {
                    return Err(refused(expr));
                };
                let of = self.translate(first)?;
                Ok(Translated::strict(format!("replace({}, {}, {})", of.sql, literal(old), literal(new)), &[&of]))
            }
            ("left", [_, length]) if is_text(&self.type_of(first)?) => {
                let length = number(length).filter(|length| *length >= 0).ok_or_else(|| refused(expr))?;
                let of = self.translate(first)?;
                Ok(Translated::strict(format!("substr({}, 1, {length})", of.sql), &[&of]))
            }
            ("character_length", [_]) if is_text(&self.type_of(first)?) && self.type_of(expr)? == DataType::Int32 => {
                let of = self.translate(first)?;
                Ok(Translated::strict(format!("CAST(length({}) AS integer)", of.sql), &[&of]))
            }
            ("substr", [_, bounds @ ..]) if is_text(&self.type_of(first)?) => {
                let bounds: Option<Vec<i64>> = bounds.iter().map(|bound| number(bound)).collect();
                let sql = match bounds.as_deref() {
                    Some([start]) if *start >= 1 => format!("{start}"),
                    Some([start, length]) if *start >= 1 && *length >= 0 => format!("{start}, {length}"),
                    _ => return Err(refused(expr)),
                };
                let of = self.translate(first)?;
                Ok(Translated::strict(format!("substr({}, {sql})", of.sql), &[&of]))
            }
            ("concat", _) => {
                if !arguments.iter().map(|argument| self.type_of(argument)).all(|found| found.is_ok_and(|found| is_text(&found)))
                {
                    return Err(refused(expr));
                }
                // A null is an empty text here.
                let joined =
                    |parts: &[String]| parts.iter().map(|part| format!("coalesce({part}, '')")).collect::<Vec<_>>().join(" || ");
                self.sure(expr, &arguments, |parts| format!("({})", joined(parts)))
            }
            _ => Err(refused(expr)),
        }
    }

    fn date_part(&self, expr: &Expr, part: &Expr, of: &Expr) -> Result<Translated> {
        let data_type = self.type_of(of)?;
        let is_instant = data_type == INSTANT;
        let part = word(part).filter(|_| self.type_of(expr).is_ok_and(|found| found == DataType::Int32));
        let (Some(part), true) = (part, is_instant || data_type == DataType::Date32) else { return Err(refused(expr)) };
        let of = self.translate(of)?;
        let sql = match &*part {
            "year" | "quarter" | "month" | "day" | "week" => format!("CAST({part}({}) AS integer)", of.sql),
            "hour" | "minute" if is_instant => format!("CAST({part}({}) AS integer)", of.sql),
            // Sunday is 0 here and 7 there.
            "dow" => format!("CAST(day_of_week({}) % 7 AS integer)", of.sql),
            "doy" => format!("CAST(day_of_year({}) AS integer)", of.sql),
            _ => return Err(refused(expr)),
        };
        Ok(if is_instant { since_1970(&of, &sql) } else { Translated::strict(sql, &[&of]) })
    }
}

/// For instants from 1970 on; before, engines round in more than one direction.
fn since_1970(of: &Translated, sql: &str) -> Translated {
    Translated::strict(format!("IF({} >= TIMESTAMP '1970-01-01 00:00:00.000000', {sql})", of.sql), &[of]).that_fails()
}

/// A comparison of doubles. Zeros of different signs, and what is no number, stand in another order here.
fn of_doubles(compared: Translated, left: &str, right: &str) -> Translated {
    let sql = format!("IF(is_finite({left}) AND is_finite({right}) AND ({left} <> 0 OR {right} <> 0), {})", compared.sql);
    Translated { sql, ..compared }.that_fails()
}

/// Whether the right side is a number above zero.
fn is_positive(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryExpr(BinaryExpr { right, .. }) if number(right).is_some_and(|number| number > 0))
}

fn number(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::Int64(value), _) => *value,
        Expr::Literal(ScalarValue::Int32(value), _) => value.map(i64::from),
        _ => None,
    }
}

fn word(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_lowercase),
        _ => None,
    }
}

fn constant_text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}

fn constant(value: &ScalarValue) -> Option<Translated> {
    let name = type_name(&value.data_type())?;
    let sql = match value {
        value if value.is_null() => "NULL".to_owned(),
        ScalarValue::Boolean(Some(value)) => value.to_string(),
        ScalarValue::Int32(Some(value)) => format!("'{value}'"),
        ScalarValue::Int64(Some(value)) => format!("'{value}'"),
        // The shortest text that is read as this number.
        ScalarValue::Float64(Some(value)) if value.is_finite() => format!("'{value:e}'"),
        ScalarValue::Decimal128(Some(_), ..) => format!("'{}'", decimal(value)?),
        ScalarValue::Date32(Some(_)) => format!("'{value}'"),
        value => literal(value.try_as_str()??),
    };
    let is_strict = !value.is_null();
    Some(Translated { sql: format!("CAST({sql} AS {name})"), can_fail: false, is_strict, columns: BTreeSet::new() })
}

/// A decimal's digits with its point.
fn decimal(value: &ScalarValue) -> Option<String> {
    let ScalarValue::Decimal128(Some(unscaled), _, scale) = value else { return None };
    let scale = usize::try_from(*scale).ok()?;
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if *unscaled < 0 { "-" } else { "" };
    Some(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

fn refused(expr: &Expr) -> Error {
    Error::config(format!("Trino has no equal of {}", expr.human_display()))
}
