//! Answers that are always the same: engines ask, and an empty answer lets them go on where an error stops or delays them.

use super::super::contract::fields::{
    aggregate_statistics, all_constraints, check_constraints, default_constraints, foreign_keys, functions, not_null_constraints,
    notification_id, notifications, partitions_statistics, primary_keys, table_statistics, unique_constraints,
};
use super::super::contract::{GET_CONFIG_VALUE, PARTITION_NAME_HAS_VALID_CHARACTERS, SET_UGI};
use super::super::thrift::{Field, List, Map, Struct, Type, Value};
use super::fault::{Answer, Fault};

/// Clients take the first number for the server's generation.
const VERSION: &str = concat!("4.0.1-lakesmith-", env!("CARGO_PKG_VERSION"));

pub(super) fn answer(method: &str, body: &Struct) -> Option<Answer<Option<Value>>> {
    Some(Ok(match method {
        "getVersion" => Some(VERSION.into()),
        "set_ugi" => {
            let groups = SET_UGI.arguments.get(1).and_then(|field| body.list(*field)).map(List::to_texts).unwrap_or_default();
            Some(List::texts(groups).into())
        }
        "flushCache" | "setMetaConf" => None,
        "getMetaConf" => Some("".into()),
        // There are no settings: whoever asks has a default.
        "get_config_value" => {
            let default = GET_CONFIG_VALUE.arguments.get(1).and_then(|field| body.text(*field));
            Some(default.unwrap_or_default().into())
        }
        "get_all_functions" => no(functions::FUNCTIONS),
        "get_current_notificationEventId" => Some(Struct::new().with(notification_id::EVENT_ID, 0i64).into()),
        "get_next_notification" => no(notifications::EVENTS),
        "get_primary_keys" => no(primary_keys::PRIMARY_KEYS),
        "get_foreign_keys" => no(foreign_keys::FOREIGN_KEYS),
        "get_unique_constraints" => no(unique_constraints::UNIQUE_CONSTRAINTS),
        "get_not_null_constraints" => no(not_null_constraints::NOT_NULL_CONSTRAINTS),
        "get_default_constraints" => no(default_constraints::DEFAULT_CONSTRAINTS),
        "get_check_constraints" => no(check_constraints::CHECK_CONSTRAINTS),
        "get_all_table_constraints" => Some(Struct::new().with(all_constraints::ALL_TABLE_CONSTRAINTS, Struct::new()).into()),
        "get_materialized_views_for_rewriting" => Some(List::texts::<&str>([]).into()),
        "get_all_materialized_view_objects_for_rewriting" | "get_runtime_stats" => Some(Vec::new().into()),
        "get_table_statistics_req" => no(table_statistics::TABLE_STATS),
        "get_partitions_statistics_req" => {
            let none = Map::new(Type::String, Type::List, Vec::new());
            Some(Struct::new().with(partitions_statistics::PART_STATS, none).into())
        }
        "get_aggr_stats_for" => {
            let none = Struct::new().with(aggregate_statistics::COL_STATS, Vec::new());
            Some(none.with(aggregate_statistics::PARTS_FOUND, 0i64).into())
        }
        // Column statistics are accepted and not kept.
        "update_table_column_statistics" | "update_partition_column_statistics" => Some(true.into()),
        "partition_name_has_valid_characters" => return Some(valid_characters(body)),
        _ => return None,
    }))
}

/// A response whose one list is empty.
fn no(field: Field) -> Option<Value> {
    Some(Struct::new().with(field, Vec::new()).into())
}

fn valid_characters(body: &Struct) -> Answer<Option<Value>> {
    let [values, throw] = PARTITION_NAME_HAS_VALID_CHARACTERS.arguments else { return Ok(Some(true.into())) };
    let values = body.list(*values).map(List::to_texts).unwrap_or_default();
    match values.iter().find(|value| value.chars().any(char::is_control)) {
        Some(wrong) if body.flag(*throw).unwrap_or_default() => {
            Err(Fault::meta(format!("Partition value {wrong:?} contains a control character")))
        }
        wrong => Ok(Some(wrong.is_none().into())),
    }
}
