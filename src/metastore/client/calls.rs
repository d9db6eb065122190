//! The calls, one method each.

use super::contract::{self, fields};
use super::pool::Repeat;
use super::servers::Among;
use super::{COLUMN_CHECK, Cascade, DeleteData, IfNotExists, Metastore, MetastoreResult, found};
use crate::metastore::thrift::{List, Struct, Value};
use crate::metastore::types::{
    CATALOG, EnvironmentContext, HiveDatabase, HivePartition, HiveTable, LockRequest, LockResponse, ShownLock,
};

/// Partitions asked for in one call, as Hive's own client does it: a bound on the size of a reply.
const PARTITIONS_PER_CALL: usize = 300;

/// All of them, in Hive's way of saying so.
const ALL: i16 = -1;

impl Metastore {
    /// What the server says its version is. All of 2.x and 3.x say "3.0".
    pub async fn server_version(&self) -> MetastoreResult<String> {
        self.read(&contract::GET_VERSION, []).await?.text()
    }

    /// A setting of the server, or the default if it has none of that name.
    pub async fn config_value(&self, name: &str, default: &str) -> MetastoreResult<String> {
        self.read(&contract::GET_CONFIG_VALUE, [name.into(), default.into()]).await?.text()
    }

    pub async fn databases(&self) -> MetastoreResult<Vec<String>> {
        Ok(self.read(&contract::GET_ALL_DATABASES, []).await?.list()?.to_texts())
    }

    pub async fn database(&self, name: &str) -> MetastoreResult<Option<HiveDatabase>> {
        let answer = found(self.read(&contract::GET_DATABASE, [name.into()]).await)?;
        answer.map(|answer| Ok(HiveDatabase::from_entry(answer.inner()?))).transpose()
    }

    pub async fn create_database(&self, database: &HiveDatabase) -> MetastoreResult<()> {
        self.write(&contract::CREATE_DATABASE, [database.entry().clone().into()]).await.map(drop)
    }

    pub async fn drop_database(&self, name: &str, delete: DeleteData, cascade: Cascade) -> MetastoreResult<()> {
        let (delete, cascade) = (delete == DeleteData::Yes, cascade == Cascade::Yes);
        self.write(&contract::DROP_DATABASE, [name.into(), delete.into(), cascade.into()]).await.map(drop)
    }

    /// Names of tables and views.
    pub async fn tables(&self, database: &str) -> MetastoreResult<Vec<String>> {
        Ok(self.read(&contract::GET_ALL_TABLES, [database.into()]).await?.list()?.to_texts())
    }

    pub async fn table(&self, database: &str, name: &str) -> MetastoreResult<Option<HiveTable>> {
        let request = Struct::new()
            .with(fields::get_table::DATABASE, database)
            .with(fields::get_table::TABLE, name)
            .with(fields::get_table::CATALOG, CATALOG);
        let answer = found(self.read(&contract::GET_TABLE_REQ, [request.into()]).await)?;
        let entry = |result: &Struct| result.inner(fields::get_table_result::ENTRY).cloned();
        answer.map(|answer| answer.parse(entry).map(HiveTable::from_entry)).transpose()
    }

    pub async fn create_table(&self, table: &HiveTable) -> MetastoreResult<()> {
        self.write(&contract::CREATE_TABLE, [table.entry().clone().into()]).await.map(drop)
    }

    /// Replaces the whole entry. A parameter that is not in the new one is gone afterwards. With an expected value in `environment`, only
    /// servers are asked that were seen to look at it, once [`Self::compare_and_swap`] was called.
    ///
    /// A server that refuses columns because their types are not those of before, place by place, is asked again with that check set aside for
    /// the one call, as Hive's `SET metaconf:` does it: files of ours are read by names or ids. Hive 2.3's doesn't do that, and refuses.
    pub async fn alter_table(
        &self,
        database: &str,
        name: &str,
        table: &HiveTable,
        environment: &EnvironmentContext,
    ) -> MetastoreResult<()> {
        let arguments = [database.into(), name.into(), table.entry().clone().into(), environment.to_struct().into()];
        let expects = environment.get(EnvironmentContext::EXPECTED_KEY).is_some();
        let among = if expects && self.among == Among::Any { Among::Comparing } else { self.among };
        let method = &contract::ALTER_TABLE_WITH_ENVIRONMENT_CONTEXT;
        let body = method.call(arguments);
        match self.call(method, body.clone(), Repeat::OnlyUnsent, among).await {
            Err(refused) if refused.is_of_column_types() => {
                let unchecked = self.inner.pool.call_with((COLUMN_CHECK, "false"), method, body, among);
                Box::pin(unchecked).await.unwrap_or(Err(refused)).map(drop)
            }
            answer => answer.map(drop),
        }
    }

    pub async fn drop_table(&self, database: &str, name: &str, delete: DeleteData) -> MetastoreResult<()> {
        let delete = delete == DeleteData::Yes;
        self.write(&contract::DROP_TABLE, [database.into(), name.into(), delete.into()]).await.map(drop)
    }

    /// Names such as `year=2024/month=7`, their values escaped.
    pub async fn partition_names(&self, database: &str, table: &str) -> MetastoreResult<Vec<String>> {
        Ok(self.read(&contract::GET_PARTITION_NAMES, [database.into(), table.into(), ALL.into()]).await?.list()?.to_texts())
    }

    /// The partitions of these names that exist, in no certain order.
    pub async fn partitions_by_names(
        &self,
        database: &str,
        table: &str,
        names: &[String],
    ) -> MetastoreResult<Vec<HivePartition>> {
        let mut partitions = Vec::with_capacity(names.len());
        for names in names.chunks(PARTITIONS_PER_CALL) {
            let arguments = [database.into(), table.into(), Value::from(names)];
            let entries = self.read(&contract::GET_PARTITIONS_BY_NAMES, arguments).await?.list()?.into_structs();
            partitions.extend(entries.into_iter().map(HivePartition::from_entry));
        }
        Ok(partitions)
    }

    /// All partitions. Not one snapshot: they are read in several calls.
    pub async fn partitions(&self, database: &str, table: &str) -> MetastoreResult<Vec<HivePartition>> {
        let names = self.partition_names(database, table).await?;
        self.partitions_by_names(database, table, &names).await
    }

    /// Adds partitions of one table, all or none.
    pub async fn add_partitions(&self, partitions: &[HivePartition], if_not_exists: IfNotExists) -> MetastoreResult<()> {
        let Some(first) = partitions.first() else { return Ok(()) };
        let request = Struct::new()
            .with(fields::add_partitions::DATABASE, first.database())
            .with(fields::add_partitions::TABLE, first.table())
            .with(fields::add_partitions::PARTITIONS, entries(partitions))
            .with(fields::add_partitions::IF_NOT_EXISTS, if_not_exists == IfNotExists::Yes)
            .with(fields::add_partitions::NEED_RESULT, false);
        self.write(&contract::ADD_PARTITIONS_REQ, [request.into()]).await.map(drop)
    }

    /// Replaces the entries of existing partitions, all or none. No server honours an expected value here.
    pub async fn alter_partitions(
        &self,
        database: &str,
        table: &str,
        partitions: &[HivePartition],
        environment: &EnvironmentContext,
    ) -> MetastoreResult<()> {
        if partitions.is_empty() {
            return Ok(());
        }
        let arguments = [database.into(), table.into(), entries(partitions).into(), environment.to_struct().into()];
        self.write(&contract::ALTER_PARTITIONS_WITH_ENVIRONMENT_CONTEXT, arguments).await.map(drop)
    }

    /// Whether the server says that it dropped it. An absent partition is an error.
    pub async fn drop_partition(
        &self,
        database: &str,
        table: &str,
        values: &[String],
        delete: DeleteData,
    ) -> MetastoreResult<bool> {
        let arguments = [database.into(), table.into(), Value::from(values), (delete == DeleteData::Yes).into()];
        self.write(&contract::DROP_PARTITION, arguments).await?.flag()
    }

    /// Asks for a lock, or a place in its queue. See [`super::HeldLock`] for the whole of it.
    pub async fn lock(&self, request: &LockRequest) -> MetastoreResult<LockResponse> {
        self.write(&contract::LOCK, [request.to_struct().into()]).await?.parse(LockResponse::from_struct)
    }

    /// Where a lock stands; also keeps it alive.
    pub async fn check_lock(&self, lock_id: i64) -> MetastoreResult<LockResponse> {
        let request = Struct::new().with(fields::check_lock::LOCK_ID, lock_id);
        self.read(&contract::CHECK_LOCK, [request.into()]).await?.parse(LockResponse::from_struct)
    }

    pub async fn heartbeat(&self, lock_id: i64) -> MetastoreResult<()> {
        let request = Struct::new().with(fields::heartbeat::LOCK_ID, lock_id);
        self.read(&contract::HEARTBEAT, [request.into()]).await.map(drop)
    }

    pub async fn unlock(&self, lock_id: i64) -> MetastoreResult<()> {
        let request = Struct::new().with(fields::unlock::LOCK_ID, lock_id);
        self.write(&contract::UNLOCK, [request.into()]).await.map(drop)
    }

    /// Locks on a table, held and waited for.
    pub async fn show_locks(&self, database: &str, table: &str) -> MetastoreResult<Vec<ShownLock>> {
        let request = Struct::new()
            .with(fields::show_locks::DATABASE, database)
            .with(fields::show_locks::TABLE, table)
            .with(fields::show_locks::IS_EXTENDED, false);
        let shown = |response: &Struct| {
            let locks = response.structs(fields::show_locks_response::LOCKS);
            Some(locks.filter_map(ShownLock::from_struct).collect())
        };
        self.read(&contract::SHOW_LOCKS, [request.into()]).await?.parse(shown)
    }
}

fn entries(partitions: &[HivePartition]) -> List {
    List::structs(partitions.iter().map(|partition| partition.entry().clone()))
}

#[cfg(test)]
mod tests {
    use super::super::MetastoreError;
    use super::*;

    #[test]
    fn only_absence_is_none() {
        let absent = MetastoreError::NoSuchObject { method: "get_table_req", message: "gone".into() };
        assert!(matches!(found::<()>(Err(absent)), Ok(None)));
        let unknown = MetastoreError::UnknownMethod { method: "get_table_req" };
        assert!(found::<()>(Err(unknown)).is_err());
    }
}
