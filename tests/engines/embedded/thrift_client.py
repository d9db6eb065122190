"""What the test asks of the metastore, in pyiceberg's environment: `thrift_client.py PORT SUBJECT`, answered by a line of JSON, the names
of the methods called. `thrift_client.py served` names the served methods that this client has.
"""

import inspect
import json
import re
import sys
from pathlib import Path
from unittest import TestCase

from hive_metastore import ttypes as hive
from hive_metastore.ThriftHiveMetastore import Client
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.Thrift import TApplicationException
from thrift.transport.TSocket import TSocket
from thrift.transport.TTransport import TBufferedTransport

INTERFACE = Path(__file__).resolve().parents[3] / "thrift" / "hive_metastore.thrift"

check = TestCase()
check.maxDiff = None


class Recorded(TBinaryProtocol):
    """Knows what was called."""

    def __init__(self, transport):
        super().__init__(transport)
        self.called = set()

    def writeMessageBegin(self, name, kind, sequence_id):
        self.called.add(name)
        super().writeMessageBegin(name, kind, sequence_id)


def served() -> list[str]:
    _, service = INTERFACE.read_text().split("\nservice ", 1)
    return [name for name in re.findall(r"^  \w[\w<>, ]* (\w+)\(", service, re.MULTILINE) if hasattr(Client, name)]


def context(**properties: str) -> hive.EnvironmentContext:
    return hive.EnvironmentContext(properties)


def with_database(client) -> None:
    client.create_database(hive.Database(name="Sales"))


def table(database: str, name: str) -> hive.Table:
    return hive.Table(
        tableName=name,
        dbName=database,
        owner="ann",
        sd=hive.StorageDescriptor(cols=[hive.FieldSchema("total", "bigint")], serdeInfo=hive.SerDeInfo()),
        partitionKeys=[hive.FieldSchema("day", "string"), hive.FieldSchema("hour", "int")],
        parameters={"EXTERNAL": "TRUE", "table_type": "ICEBERG", "comment": "what it is"},
        tableType="EXTERNAL_TABLE",
    )


def partition(day: str, hour: str) -> hive.Partition:
    descriptor = hive.StorageDescriptor(serdeInfo=hive.SerDeInfo())
    return hive.Partition(values=[day, hour], dbName="sales", tableName="t", sd=descriptor, parameters={})


def databases(client) -> None:
    with_database(client)
    check.assertRaises(hive.AlreadyExistsException, client.create_database, hive.Database(name="sales"))
    check.assertEqual(client.get_all_databases(), ["default", "sales"])
    for pattern, found in [("s*", ["sales"]), ("@hive#", ["default", "sales"]), ("@hive#sal*|x", ["sales"])]:
        check.assertEqual(client.get_databases(pattern), found)
    database = client.get_database("@hive#SALES")
    check.assertTrue(database.locationUri.endswith("/sales.db"), database.locationUri)
    check.assertEqual(client.get_database_req(hive.GetDatabaseRequest(name="sales", catalogName="hive")), database)
    check.assertRaises(hive.NoSuchObjectException, client.get_database, "absent")
    check.assertRaises(hive.NoSuchObjectException, client.get_database_req, hive.GetDatabaseRequest(name="absent"))
    client.alter_database("sales", hive.Database(name="sales", description="new"))
    check.assertEqual(client.get_database("sales").description, "new")

    def request(name: str, **flags: bool) -> hive.DropDatabaseRequest:
        return hive.DropDatabaseRequest(name=name, **{"ignoreUnknownDb": False, "deleteData": False, "cascade": False, **flags})

    client.create_table(table("sales", "t"))
    check.assertRaises(hive.InvalidOperationException, client.drop_database, "sales", False, False)
    check.assertRaises(hive.InvalidOperationException, client.drop_database_req, request("sales"))
    client.drop_database("sales", True, True)
    check.assertEqual(client.get_all_databases(), ["default"])
    with_database(client)
    client.drop_database_req(request("sales"))
    check.assertEqual(client.get_all_databases(), ["default"])
    client.drop_database_req(request("sales", ignoreUnknownDb=True))
    check.assertRaises(hive.NoSuchObjectException, client.drop_database_req, request("sales"))


def tables(client) -> None:
    with_database(client)
    client.create_table(table("Sales", "T"))
    check.assertRaises(hive.AlreadyExistsException, client.create_table, table("sales", "t"))
    check.assertRaises(hive.AlreadyExistsException, client.create_table_req, hive.CreateTableRequest(table("sales", "t")))
    statistics = context(DO_NOT_UPDATE_STATS="true")
    client.create_table_with_environment_context(table("sales", "u"), statistics)
    view = table("sales", "v")
    view.tableType, view.parameters = "VIRTUAL_VIEW", None
    client.create_table_req(hive.CreateTableRequest(view, statistics))

    check.assertEqual(client.get_all_tables("sales"), ["t", "u", "v"])
    check.assertEqual(client.get_tables("@hive#sales", "t|u"), ["t", "u"])
    check.assertEqual(client.get_tables("sales", ".*"), ["t", "u", "v"])
    check.assertEqual(client.get_tables_by_type("sales", "*", "VIRTUAL_VIEW"), ["v"])
    of_iceberg = 'hive_filter_field_params__table_type like "ICEBERG"'
    check.assertEqual(client.get_table_names_by_filter("sales", of_iceberg, -1), ["t", "u"])
    of_ann = 'hive_filter_field_owner__ = "ann" and hive_filter_field_last_access__ = 0'
    check.assertEqual(client.get_table_names_by_filter("sales", of_ann, 2), ["t", "u"])
    lines = [(line.dbName, line.tableName, line.comments) for line in client.get_table_meta("s*", "*", ["EXTERNAL_TABLE"])]
    check.assertEqual(lines, [("sales", "t", "what it is"), ("sales", "u", "what it is")])

    read = client.get_table("sales", "T")
    check.assertEqual((read.tableName, read.owner), ("t", "ann"))
    check.assertRaises(hive.NoSuchObjectException, client.get_table, "sales", "absent")
    check.assertEqual(client.get_table_req(hive.GetTableRequest("sales", "t")).table, read)
    check.assertRaises(hive.NoSuchObjectException, client.get_table_req, hive.GetTableRequest("sales", "absent"))
    several = client.get_table_objects_by_name("sales", ["t", "absent", "u"])
    check.assertEqual([found.tableName for found in several], ["t", "u"])
    for names, found in [(["u"], ["u"]), (None, ["t", "u", "v"])]:
        several = client.get_table_objects_by_name_req(hive.GetTablesRequest("sales", names)).tables
        check.assertEqual([found.tableName for found in several], found)

    read.parameters = {"EXTERNAL": "TRUE", "n": "1"}
    client.alter_table("sales", "t", read)
    client.alter_table_with_cascade("sales", "t", read, True)
    check.assertEqual(client.get_table("sales", "t").parameters["n"], "1")
    right, wrong = (context(expected_parameter_key="n", expected_parameter_value=value) for value in ("1", "2"))
    modified = "The table has been modified. The parameter value for key 'n' is '1'"
    client.alter_table_with_environment_context("sales", "t", read, right)
    with check.assertRaisesRegex(hive.MetaException, modified):
        client.alter_table_with_environment_context("sales", "t", read, wrong)
    request = hive.AlterTableRequest(dbName="sales", tableName="t", table=read, environmentContext=right)
    client.alter_table_req(request)
    request.environmentContext = wrong
    with check.assertRaisesRegex(hive.MetaException, modified):
        client.alter_table_req(request)
    check.assertRaises(hive.InvalidOperationException, client.alter_table, "sales", "absent", read)

    client.drop_table("sales", "u", True)
    client.drop_table_with_environment_context("sales", "v", True, statistics)
    check.assertRaises(hive.NoSuchObjectException, client.drop_table, "sales", "v", True)
    check.assertEqual(client.get_all_tables("sales"), ["t"])


def with_partitions(client) -> list[str]:
    """Adds them in every way that there is; returns their names in order."""
    with_database(client)
    client.create_table(table("sales", "t"))
    client.add_partition(partition("2024-07-01", "9"))
    check.assertRaises(hive.AlreadyExistsException, client.add_partition, partition("2024-07-01", "9"))
    client.add_partition_with_environment_context(partition("2024-07-01", "10"), context())
    check.assertEqual(client.add_partitions([partition("2024-07-02", "9"), partition("2024-07-02", "10")]), 2)
    request = hive.AddPartitionsRequest("sales", "t", [partition("2024-07-02", "9"), partition("a/b", "1")], ifNotExists=False)
    check.assertRaises(hive.AlreadyExistsException, client.add_partitions_req, request)
    request.ifNotExists = True
    check.assertEqual([added.values for added in client.add_partitions_req(request).partitions], [["a/b", "1"]])
    first, second = "day=2024-07-01", "day=2024-07-02"
    return [f"{first}/hour=10", f"{first}/hour=9", f"{second}/hour=10", f"{second}/hour=9", "day=a%2Fb/hour=1"]


def partitions_read(client) -> None:
    names = with_partitions(client)
    st = ("sales", "t")
    check.assertEqual(client.get_partition_names(*st, -1), names)
    check.assertEqual(client.get_partition_names(*st, 2), names[:2])
    at_nine = [names[1], names[3]]
    check.assertEqual(client.get_partition_names_ps(*st, ["", "9"], -1), at_nine)
    request = hive.GetPartitionNamesPsRequest(None, *st, ["", "9"])
    check.assertEqual(client.get_partition_names_ps_req(request).names, at_nine)

    def named(partitions) -> list[str]:
        return [f"day={day.replace('/', '%2F')}/hour={hour}" for day, hour in (partition.values for partition in partitions)]

    check.assertEqual(named(client.get_partitions(*st, -1)), names)
    check.assertEqual(named(client.get_partitions_req(hive.PartitionsRequest(None, *st, 3)).partitions), names[:3])
    check.assertEqual(named(client.get_partitions_with_auth(*st, 3, "ann", [])), names[:3])
    check.assertEqual(named(client.get_partitions_ps(*st, ["2024-07-01"], -1)), names[:2])
    check.assertEqual(named(client.get_partitions_ps_with_auth(*st, ["2024-07-01", "9"], -1, "ann", [])), names[1:2])
    request = hive.GetPartitionsPsWithAuthRequest(None, *st, ["2024-07-01"])
    check.assertEqual(named(client.get_partitions_ps_with_auth_req(request).partitions), names[:2])
    some = [names[0], "day=x/hour=0"]
    check.assertEqual(named(client.get_partitions_by_names(*st, some)), names[:1])
    request = hive.GetPartitionsByNamesRequest(*st, some)
    check.assertEqual(named(client.get_partitions_by_names_req(request).partitions), names[:1])
    for condition, found in [
        ('day = "2024-07-01" and hour >= 9', names[:2]),
        ('(hour) in (1) or day > "2024-07-01" and hour < 10', names[3:]),
    ]:
        check.assertEqual(named(client.get_partitions_by_filter(*st, condition, -1)), found)
    for condition in ("total = 1", "hour ==== 1"):
        check.assertRaises(hive.MetaException, client.get_partitions_by_filter, *st, condition, -1)

    values = ["a/b", "1"]
    one = client.get_partition(*st, values)
    check.assertEqual(one.values, values)
    check.assertEqual(client.get_partition_req(hive.GetPartitionRequest(None, *st, values)).partition, one)
    check.assertEqual(client.get_partition_with_auth(*st, values, "ann", []), one)
    check.assertEqual(client.get_partition_by_name(*st, names[4]), one)
    check.assertRaises(hive.NoSuchObjectException, client.get_partition, *st, ["x", "1"])
    check.assertRaises(hive.NoSuchObjectException, client.get_partitions, "sales", "absent", -1)


def partitions_written(client) -> None:
    names = with_partitions(client)
    st, values = ("sales", "t"), ["a/b", "1"]
    one = client.get_partition(*st, values)

    def changed(n: str) -> hive.Partition:
        one.parameters = {"n": n}
        return one

    def found() -> str:
        return client.get_partition(*st, values).parameters["n"]

    client.alter_partition(*st, changed("1"))
    check.assertEqual(found(), "1")
    client.alter_partition_with_environment_context(*st, changed("2"), context())
    check.assertEqual(found(), "2")
    client.alter_partitions(*st, [changed("3")])
    check.assertEqual(found(), "3")
    client.alter_partitions_with_environment_context(*st, [changed("4")], context())
    check.assertEqual(found(), "4")
    client.alter_partitions_req(hive.AlterPartitionsRequest(None, *st, [changed("5")]))
    check.assertEqual(found(), "5")
    # All or none.
    check.assertRaises(hive.InvalidOperationException, client.alter_partitions, *st, [changed("6"), partition("x", "1")])
    check.assertEqual(found(), "5")

    check.assertIs(client.drop_partition(*st, values, False), True)
    check.assertRaises(hive.NoSuchObjectException, client.drop_partition, *st, values, False)
    check.assertIs(client.drop_partition_with_environment_context(*st, ["2024-07-02", "9"], False, context()), True)
    check.assertIs(client.drop_partition_by_name(*st, names[2], False), True)
    check.assertIs(client.drop_partition_by_name_with_environment_context(*st, names[0], False, context()), True)
    request = hive.DropPartitionsRequest(*st, hive.RequestPartsSpec(names=[names[1]]), deleteData=False, ifExists=True)
    check.assertEqual([dropped.values for dropped in client.drop_partitions_req(request).partitions], [["2024-07-01", "9"]])
    check.assertEqual(client.get_partition_names(*st, -1), [])
    check.assertIs(client.partition_name_has_valid_characters(["a b"], False), True)
    check.assertRaises(hive.MetaException, client.partition_name_has_valid_characters, ["a\nb"], True)


def locks(client) -> None:
    component = hive.LockComponent(hive.LockType.EXCLUSIVE, hive.LockLevel.TABLE, "sales", "t")
    request = hive.LockRequest([component], user="ann", hostname="here", agentInfo="agent")
    first, second = client.lock(request), client.lock(request)
    check.assertEqual((first.state, second.state), (hive.LockState.ACQUIRED, hive.LockState.WAITING))
    check.assertEqual(client.check_lock(hive.CheckLockRequest(second.lockid)).state, hive.LockState.WAITING)
    client.heartbeat(hive.HeartbeatRequest(first.lockid))
    shown = client.show_locks(hive.ShowLocksRequest()).locks
    check.assertEqual([lock.lockid for lock in shown], [first.lockid, second.lockid])
    client.unlock(hive.UnlockRequest(first.lockid))
    check.assertEqual(client.check_lock(hive.CheckLockRequest(second.lockid)).state, hive.LockState.ACQUIRED)
    check.assertRaises(hive.NoSuchLockException, client.check_lock, hive.CheckLockRequest(first.lockid))


def fixed_answers(client) -> None:
    check.assertTrue(client.getVersion().startswith("4.0.1-lakesmith-"))
    check.assertEqual(client.set_ugi("ann", ["staff"]), ["staff"])
    client.flushCache()
    client.setMetaConf("k", "v")
    check.assertEqual(client.getMetaConf("k"), "")
    check.assertEqual(client.get_config_value("hive.some.key", "50"), "50")
    check.assertEqual(client.get_all_functions().functions, [])
    check.assertEqual(client.get_current_notificationEventId().eventId, 0)
    check.assertEqual(client.get_next_notification(hive.NotificationEventRequest(0)).events, [])
    dt = {"db_name": "d", "tbl_name": "t"}
    check.assertEqual(client.get_primary_keys(hive.PrimaryKeysRequest(**dt)).primaryKeys, [])
    check.assertEqual(client.get_foreign_keys(hive.ForeignKeysRequest()).foreignKeys, [])
    check.assertEqual(client.get_unique_constraints(hive.UniqueConstraintsRequest(**dt)).uniqueConstraints, [])
    check.assertEqual(client.get_not_null_constraints(hive.NotNullConstraintsRequest(**dt)).notNullConstraints, [])
    check.assertEqual(client.get_default_constraints(hive.DefaultConstraintsRequest(**dt)).defaultConstraints, [])
    check.assertEqual(client.get_check_constraints(hive.CheckConstraintsRequest(**dt)).checkConstraints, [])
    constraints = client.get_all_table_constraints(hive.AllTableConstraintsRequest("d", "t")).allTableConstraints
    check.assertEqual(constraints, hive.SQLAllTableConstraints())
    check.assertEqual(client.get_materialized_views_for_rewriting("d"), [])
    check.assertEqual(client.get_all_materialized_view_objects_for_rewriting(), [])
    check.assertEqual(client.get_runtime_stats(hive.GetRuntimeStatsRequest(1, 0)), [])
    check.assertEqual(client.get_table_statistics_req(hive.TableStatsRequest("d", "t", ["c"])).tableStats, [])
    request = hive.PartitionsStatsRequest("d", "t", [], [])
    check.assertEqual(client.get_partitions_statistics_req(request).partStats, {})
    check.assertEqual(client.get_aggr_stats_for(request).partsFound, 0)
    statistics = hive.ColumnStatistics(hive.ColumnStatisticsDesc(True, "d", "t"), [])
    check.assertIs(client.update_table_column_statistics(statistics), True)
    check.assertIs(client.update_partition_column_statistics(statistics), True)


def unknown(client) -> None:
    """The fallback of HiveServer2 needs this very answer to the first of them. One connection bears them all."""

    def assert_unknown(name: str, *arguments) -> None:
        with check.assertRaises(TApplicationException, msg=name) as raised:
            getattr(client, name)(*arguments)
        answer = (raised.exception.type, raised.exception.message)
        check.assertEqual(answer, (TApplicationException.UNKNOWN_METHOD, f"Invalid method name: '{name}'"))

    assert_unknown("get_partitions_by_expr", hive.PartitionsByExprRequest("d", "t", b"kryo"))
    # Those that are sent one way have no answer, and nothing to receive it.
    answered = {name.removeprefix("recv_") for name in dir(Client) if name.startswith("recv_")}
    left_out = sorted(answered - set(served()))
    check.assertIn("get_partitions_spec_by_expr", left_out)
    for name in left_out:
        assert_unknown(name, *(None for _ in inspect.signature(getattr(client, name)).parameters))


SUBJECTS = (databases, tables, partitions_read, partitions_written, locks, fixed_answers, unknown)


def run(subject: str, port: int) -> list[str]:
    transport = TBufferedTransport(TSocket("127.0.0.1", port))
    protocol = Recorded(transport)
    transport.open()
    try:
        {function.__name__: function for function in SUBJECTS}[subject](Client(protocol))
    finally:
        transport.close()
    return sorted(protocol.called)


if __name__ == "__main__":
    print(json.dumps(served() if sys.argv[1:] == ["served"] else run(sys.argv[2], int(sys.argv[1]))))
