//! The one statement of a query: parsed, and refused unless it only reads.

use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{Expr, ObjectName, Query, SelectItem, SetExpr, Statement as SqlStatement};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, HiveDialect, PostgreSqlDialect};

use crate::error::{Error, Result};

/// What is read: rows, or the list of tables.
#[derive(Debug)]
pub enum Reading {
    Rows(Box<Statement>),
    /// `SHOW TABLES`, in one database or in all.
    Tables(Option<String>),
}

/// Parses the text of a query.
pub fn parse(sql: &str) -> Result<Reading> {
    let statement = parse_one(sql, &GenericDialect {})?;
    if let Statement::Statement(inner) = &statement
        && let SqlStatement::ShowTables { show_options, .. } = &**inner
    {
        let database = show_options.show_in.as_ref().and_then(|show_in| show_in.parent_name.as_ref()).map(last_part);
        return Ok(Reading::Tables(database));
    }
    refuse_writing(&statement)?;
    Ok(Reading::Rows(Box::new(statement)))
}

/// Parses the text of a Hive view.
pub fn parse_view(sql: &str) -> Result<Statement> {
    let statement = parse_one(sql, &HiveDialect {})?;
    refuse_writing(&statement)?;
    Ok(statement)
}

fn parse_one(sql: &str, dialect: &dyn Dialect) -> Result<Statement> {
    let parsed = DFParser::parse_sql_with_dialect(sql, dialect);
    // The generic dialect takes the comma in `SELECT partition, offset` for a superfluous one, and OFFSET for the clause; PostgreSQL's
    // knows no superfluous commas.
    let parsed = parsed.or_else(|error| DFParser::parse_sql_with_dialect(sql, &PostgreSqlDialect {}).map_err(|_| error));
    let unreadable = |error: DataFusionError| {
        Error::config(format!("the SQL text cannot be read: {}", without_prefix(&error.strip_backtrace())))
    };
    let mut statements = parsed.map_err(unreadable)?;
    match (statements.pop_front(), statements.len()) {
        (Some(statement), 0) => Ok(statement),
        (None, _) => Err(Error::config("there is no SQL statement").hint("try `lakesmith query \"show tables\"`")),
        (_, more) => Err(Error::config(format!("expected one SQL statement, found {}", more + 1)).hint("run them one by one")),
    }
}

/// The message of an error without DataFusion's and sqlparser's nested headings.
fn without_prefix(message: &str) -> String {
    let mut rest = message;
    for prefix in [
        "SQL error: ",
        "ParserError(\"",
        "Error during planning: ",
        "Schema error: ",
        "External error: ",
        "This feature is not implemented: ",
    ] {
        rest = rest.strip_prefix(prefix).unwrap_or(rest);
    }
    rest.strip_suffix("\")").unwrap_or(rest).to_string()
}

fn last_part(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.to_lowercase()).unwrap_or_default()
}

fn refuse_writing(statement: &Statement) -> Result<()> {
    match statement {
        Statement::Explain(explain) => refuse_writing(&explain.statement),
        Statement::Statement(statement) => match &**statement {
            SqlStatement::Query(query) => refuse_writing_query(query),
            SqlStatement::ExplainTable { .. } => Ok(()),
            SqlStatement::Explain { statement, .. } => refuse_writing(&Statement::Statement(statement.clone())),
            other => Err(refused(&other.to_string())),
        },
        other => Err(refused(&other.to_string())),
    }
}

fn refuse_writing_query(query: &Query) -> Result<()> {
    for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
        refuse_writing_query(&cte.query)?;
    }
    refuse_writing_body(&query.body)
}

fn refuse_writing_body(body: &SetExpr) -> Result<()> {
    match body {
        SetExpr::Query(query) => refuse_writing_query(query),
        SetExpr::SetOperation { left, right, .. } => {
            refuse_writing_body(left)?;
            refuse_writing_body(right)
        }
        SetExpr::Select(select) if select.into.is_some() => Err(refused("SELECT INTO")),
        SetExpr::Select(_) | SetExpr::Values(_) | SetExpr::Table(_) => Ok(()),
        SetExpr::Insert(other) | SetExpr::Update(other) | SetExpr::Delete(other) | SetExpr::Merge(other) => {
            Err(refused(&other.to_string()))
        }
    }
}

fn refused(statement: &str) -> Error {
    let words: Vec<_> = statement.split_whitespace().take(2).collect();
    Error::config(format!("`{}` is refused: a query only reads", words.join(" ").to_uppercase()))
        .hint("SELECT, WITH, VALUES, EXPLAIN, DESCRIBE and SHOW TABLES are allowed")
}

/// How the writer of a statement names a column of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heading {
    /// `AS name`: it is called so.
    Alias(String),
    /// A column by its name, in the writer's spelling.
    Column(String),
    /// An expression.
    None,
}

impl Heading {
    /// The heading of a column whose name is `name`. A name without capitals (Hive has no others) gives way to the writer's spelling.
    pub fn over<'a>(&'a self, name: &'a str) -> &'a str {
        match self {
            Self::Alias(alias) => alias,
            Self::Column(written) if name.eq_ignore_ascii_case(written) && name == name.to_lowercase() => written,
            Self::Column(_) | Self::None => name,
        }
    }
}

/// The headings that the writer of a statement asked for; none where a `*` makes their number unknown, or for statements whose columns are
/// not theirs to name (EXPLAIN).
pub fn headings(statement: &Statement) -> Option<Vec<Heading>> {
    let Statement::Statement(statement) = statement else { return None };
    let SqlStatement::Query(query) = &**statement else { return None };
    let mut body = &*query.body;
    let select = loop {
        match body {
            SetExpr::Select(select) => break select,
            SetExpr::Query(query) => body = &query.body,
            SetExpr::SetOperation { left, .. } => body = left,
            _ => return None,
        }
    };
    let heading = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(Heading::Alias(alias.value.clone())),
        SelectItem::UnnamedExpr(Expr::Identifier(column)) => Some(Heading::Column(column.value.clone())),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
            parts.last().map(|column| Heading::Column(column.value.clone()))
        }
        SelectItem::UnnamedExpr(_) => Some(Heading::None),
        _ => None,
    };
    select.projection.iter().map(heading).collect()
}

/// An error of ours on its way through DataFusion; [`query_error`] takes it out again.
pub(super) fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// An error of DataFusion for a person. What we put into it ourselves comes out as it was.
pub fn query_error(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(error) => *error,
            Err(inner) => match inner.downcast::<DataFusionError>() {
                Ok(inner) => query_error(*inner),
                Err(inner) => Error::failed(format!("the query failed: {}", told(inner.as_ref()))),
            },
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => query_error(*inner),
        DataFusionError::ArrowError(inner, _) => match *inner {
            ArrowError::ExternalError(inner) => query_error(DataFusionError::External(inner)),
            inner => Error::failed(format!("the query failed: {inner}")),
        },
        DataFusionError::Shared(inner) => Error::failed(format!("the query failed: {}", without_prefix(&told(&*inner)))),
        DataFusionError::ResourcesExhausted(message) => {
            Error::failed(format!("the query needs more memory: {message}")).hint("raise query.memory_limit")
        }
        DataFusionError::SchemaError(error, _) if matches!(*error, SchemaError::FieldNotFound { .. }) => unknown_column(&error),
        error @ (DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::SQL(..)
        | DataFusionError::NotImplemented(_)) => {
            Error::config(format!("the query cannot be planned: {}", without_prefix(&error.strip_backtrace())))
        }
        other => Error::failed(format!("the query failed: {}", without_prefix(&other.strip_backtrace()))),
    }
}

/// An error with what caused it.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// A column that no table has, with the one that was most likely meant.
fn unknown_column(error: &SchemaError) -> Error {
    let SchemaError::FieldNotFound { field, valid_fields } = error else { return Error::config(error.to_string()) };
    let mut known: Vec<&str> = valid_fields.iter().map(|column| column.name()).collect();
    known.dedup();
    let wanted = field.name().to_lowercase();
    let near = known.iter().map(|name| (strsim::damerau_levenshtein(&wanted, &name.to_lowercase()), *name)).min();
    let error = Error::config(format!("column {} does not exist", field.flat_name()));
    match near {
        Some((slips, near)) if slips <= 1 + wanted.len() / 4 => error.hint(format!("did you mean {near}?")),
        Some(_) => error.hint(format!("columns: {}", known.join(", "))),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_is_allowed() {
        for sql in [
            "select 1",
            "with a as (select 1) select * from a union all select 2",
            "explain analyze select 1",
            "describe a.b",
            "values (1)",
            "select topic, partition, offset, timestamp, key, value from a order by partition, offset",
            "(select 1)",
        ] {
            assert!(matches!(parse(sql), Ok(Reading::Rows(_))), "{sql}");
        }
        assert!(matches!(parse("show tables"), Ok(Reading::Tables(None))));
        assert!(matches!(parse("SHOW TABLES IN DataLake"), Ok(Reading::Tables(Some(name))) if name == "datalake"));
    }

    #[test]
    fn writing_is_refused_wherever_it_hides() {
        for (sql, named) in [
            ("insert into a values (1)", "`INSERT INTO`"),
            ("create table a (b int)", "`CREATE TABLE`"),
            ("drop table a", "`DROP TABLE`"),
            ("copy a to '/tmp/x'", "`COPY A`"),
            ("create external table a stored as csv location '/etc/passwd'", "`CREATE EXTERNAL`"),
            ("explain insert into a values (1)", "`INSERT INTO`"),
            ("set x = 1", "`SET X`"),
            ("delete from a", "`DELETE FROM`"),
            ("select 1 into b from a", "`SELECT INTO`"),
        ] {
            let error = parse(sql).unwrap_err();
            assert!(error.to_string().contains(named), "{sql}: {error}");
            assert_eq!(error.kind(), crate::error::Kind::Config);
        }
    }

    #[test]
    fn text_that_is_no_statement_says_so() {
        assert!(parse("").unwrap_err().to_string().contains("no SQL statement"));
        assert!(parse("select 1; select 2").unwrap_err().to_string().contains("found 2"));
        let error = parse("selec 1").unwrap_err().to_string();
        assert!(error.starts_with("the SQL text cannot be read: "), "{error}");
    }

    #[test]
    fn headings_keep_the_spelling_of_their_writer() {
        let Ok(Reading::Rows(statement)) = parse("select TotalA, t.b, b as TotalB, count(*) \"N\", 1 + 1 from t") else {
            panic!()
        };
        let headings = super::headings(&statement).unwrap();
        let over = ["totala", "B", "totalb", "n", "sum"];
        let over: Vec<_> = headings.iter().zip(over).map(|(heading, name)| heading.over(name)).collect();
        assert_eq!(over, ["TotalA", "B", "TotalB", "N", "sum"]);
        let Ok(Reading::Rows(statement)) = parse("select *, b as c from t") else { panic!() };
        assert_eq!(super::headings(&statement), None);
    }
}
