//! Column names without regard to case: `OrderID`, `orderid` and `"ORDERID"` all mean the column that a table spells `OrderID`.
//!
//! Hive's metastore has names in lower case only, Iceberg keeps them as written, DataFusion folds what is not quoted and then compares
//! exactly. So the statement is rewritten, and every name of a column gets the one spelling it has in this statement ([`Spellings`]): that
//! of the first table that has it, one with capitals preferred. A table that spells it differently is read through a renaming view.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{ExcludeSelectItem, SelectItemQualifiedWildcardKind};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Query, SelectItem, SetExpr, Statement as SqlStatement,
    TableAlias, TableFactor, TableWithJoins, VisitMut, VisitorMut, WildcardAdditionalOptions,
};

/// The spelling of each column name in one statement, by its lower-case form.
#[derive(Debug, Default)]
pub struct Spellings(HashMap<String, String>);

impl Spellings {
    /// Collects the spellings of all tables of a statement.
    pub fn of<'a>(columns: impl IntoIterator<Item = &'a str>) -> Self {
        let mut spellings: HashMap<String, String> = HashMap::new();
        for column in columns {
            let lower = column.to_lowercase();
            match spellings.get(&lower) {
                Some(known) if *known != lower || column == lower => {}
                _ => {
                    spellings.insert(lower, column.to_string());
                }
            }
        }
        Self(spellings)
    }

    pub fn spelling(&self, name: &str) -> Option<&str> {
        self.0.get(&name.to_lowercase()).map(String::as_str)
    }

    /// Gives every column name in a statement its spelling. Names of tables, aliases and functions are left to DataFusion's own rule.
    pub fn rewrite(&self, statement: &mut Statement) {
        match statement {
            Statement::Statement(statement) => self.rewrite_sql(statement),
            Statement::Explain(explain) => self.rewrite(&mut explain.statement),
            _ => {}
        }
    }

    fn rewrite_sql(&self, statement: &mut SqlStatement) {
        let mut relations = Relations::default();
        let _ = statement.visit(&mut relations);
        let _ = statement.visit(&mut Rewriter { spellings: self, relations: relations.names });
    }

    fn fix(&self, ident: &mut Ident) {
        if let Some(spelling) = self.spelling(&ident.value) {
            *ident = Ident::with_quote('"', spelling);
        }
    }
}

/// The names by which relations are known in a statement: what may stand before the dot of a column.
#[derive(Default)]
struct Relations {
    names: HashSet<String>,
}

impl VisitorMut for Relations {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        self.names.extend(relation.0.iter().filter_map(ObjectNamePart::as_ident).map(|ident| ident.value.to_lowercase()));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        self.names.extend(alias_of(factor).map(|alias| alias.name.value.to_lowercase()));
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.names.extend(ctes.map(|cte| cte.alias.name.value.to_lowercase()));
        ControlFlow::Continue(())
    }
}

fn alias_of(factor: &mut TableFactor) -> Option<&mut TableAlias> {
    match factor {
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. }
        | TableFactor::NestedJoin { alias, .. } => alias.as_mut(),
        _ => None,
    }
}

struct Rewriter<'a> {
    spellings: &'a Spellings,
    relations: HashSet<String>,
}

impl VisitorMut for Rewriter<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => self.spellings.fix(ident),
            Expr::CompoundIdentifier(parts) => {
                // `t.column` and `database.t.column`, or `column.field` of a struct.
                let qualifiers = match parts.first() {
                    Some(first) if self.relations.contains(&first.value.to_lowercase()) => {
                        let more = parts.iter().skip(1).take(parts.len().saturating_sub(2));
                        1 + more.take_while(|part| self.relations.contains(&part.value.to_lowercase())).count()
                    }
                    _ => 0,
                };
                parts.iter_mut().skip(qualifiers).for_each(|part| self.spellings.fix(part));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            self.alias_columns(&mut cte.alias);
        }
        self.body(&mut query.body);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let Some(alias) = alias_of(factor) {
            self.alias_columns(alias);
        }
        ControlFlow::Continue(())
    }
}

impl Rewriter<'_> {
    /// The places in a SELECT that hold column names outside of expressions.
    fn body(&self, body: &mut SetExpr) {
        match body {
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left);
                self.body(right);
            }
            SetExpr::Select(select) => {
                for item in &mut select.projection {
                    match item {
                        SelectItem::ExprWithAlias { alias, .. } => self.spellings.fix(alias),
                        SelectItem::Wildcard(options) => self.wildcard(options),
                        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(_), options) => {
                            self.wildcard(options)
                        }
                        _ => {}
                    }
                }
                select.from.iter_mut().for_each(|from| self.joins(from));
            }
            _ => {}
        }
    }

    fn wildcard(&self, options: &mut WildcardAdditionalOptions) {
        match &mut options.opt_exclude {
            Some(ExcludeSelectItem::Single(ident)) => self.spellings.fix(ident),
            Some(ExcludeSelectItem::Multiple(idents)) => idents.iter_mut().for_each(|ident| self.spellings.fix(ident)),
            None => {}
        }
        if let Some(except) = &mut options.opt_except {
            self.spellings.fix(&mut except.first_element);
            except.additional_elements.iter_mut().for_each(|ident| self.spellings.fix(ident));
        }
    }

    fn joins(&self, from: &mut TableWithJoins) {
        for join in &mut from.joins {
            if let Some(JoinConstraint::Using(columns)) = constraint_of(&mut join.join_operator) {
                for part in columns.iter_mut().flat_map(|column| &mut column.0) {
                    if let ObjectNamePart::Identifier(ident) = part {
                        self.spellings.fix(ident);
                    }
                }
            }
        }
    }

    fn alias_columns(&self, alias: &mut TableAlias) {
        alias.columns.iter_mut().for_each(|column| self.spellings.fix(&mut column.name));
    }
}

fn constraint_of(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::CrossJoin(constraint)
        | JoinOperator::Semi(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::RightSemi(constraint)
        | JoinOperator::Anti(constraint)
        | JoinOperator::LeftAnti(constraint)
        | JoinOperator::RightAnti(constraint) => Some(constraint),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::statement::{Reading, parse};

    fn rewritten(columns: &[&str], sql: &str) -> String {
        let Ok(Reading::Rows(mut statement)) = parse(sql) else { panic!("{sql}") };
        Spellings::of(columns.iter().copied()).rewrite(&mut statement);
        statement.to_string()
    }

    const COLUMNS: &[&str] = &["OrderID", "Category", "Revenue", "partition"];

    #[test]
    fn any_case_finds_the_column() {
        assert_eq!(
            rewritten(COLUMNS, "select orderid, ORDERID, \"orderId\", sum(revenue) from t where CATEGORY = 'category'"),
            "SELECT \"OrderID\", \"OrderID\", \"OrderID\", sum(\"Revenue\") FROM t WHERE \"Category\" = 'category'"
        );
    }

    #[test]
    fn qualifiers_stay_even_when_they_are_named_as_a_column() {
        assert_eq!(
            rewritten(
                COLUMNS,
                "select category.category, d.t.orderid, c.Other from d.t join category on t.orderid = category.orderid, c"
            ),
            "SELECT category.\"Category\", d.t.\"OrderID\", c.Other FROM d.t JOIN category ON t.\"OrderID\" = category.\"OrderID\", c"
        );
    }

    #[test]
    fn aliases_agree_with_what_refers_to_them() {
        assert_eq!(
            rewritten(
                COLUMNS,
                "select category from (select upper(x) as category, sum(y) as Total from t group by 1) s order by total, category"
            ),
            "SELECT \"Category\" FROM (SELECT upper(x) AS \"Category\", sum(y) AS Total FROM t GROUP BY 1) s ORDER BY total, \"Category\""
        );
    }

    #[test]
    fn names_outside_of_expressions_are_found() {
        assert_eq!(
            rewritten(
                COLUMNS,
                "with w (ORDERID) as (select 1) select * except (revenue) from t join w using (orderid) union select 1 as category"
            ),
            "WITH w (\"OrderID\") AS (SELECT 1) SELECT * EXCEPT (\"Revenue\") FROM t JOIN w USING(\"OrderID\") UNION SELECT 1 AS \"Category\""
        );
        assert_eq!(
            rewritten(COLUMNS, "explain select count(*) over (partition by category order by orderid) from t"),
            "EXPLAIN SELECT count(*) OVER (PARTITION BY \"Category\" ORDER BY \"OrderID\") FROM t"
        );
    }

    #[test]
    fn functions_keep_their_names() {
        assert_eq!(rewritten(&["Count", "Sum"], "select count(*), sum(count) from t"), "SELECT count(*), sum(\"Count\") FROM t");
    }

    #[test]
    fn a_spelling_with_capitals_wins() {
        let spellings = Spellings::of(["category", "Category", "CATEGORY", "x"]);
        assert_eq!(spellings.spelling("cATEGORY"), Some("Category"));
        assert_eq!(spellings.spelling("X"), Some("x"));
        assert_eq!(spellings.spelling("y"), None);
    }
}
