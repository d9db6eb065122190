"""Every layer of a lake as Spark, Trino and HiveServer2 read it: equal values, types and NULLs, equal to what Python computes.

One lake for each metastore, written by the program in two runs, so that its tables have several snapshots and gold has two partitions.
"""

import base64
import json
import unittest
from contextlib import contextmanager
from decimal import Decimal

from engine import ICEBERG, TABLES, EngineError, Hive, Trino
from engines import WithEngines, on_further_metastores
from lake import BURST, Lake

# The month of which a sample is read.
YEAR, MONTH = 2024, 6
VIEW = (
    "window_start window_end category country payment_method total_orders total_quantity total_revenue total_net_revenue "
    "avg_order_value unique_customers window_date"
).split()
VIEW_TYPES = "timestamp timestamp string string string bigint bigint double double double bigint string".split()
# Offsets at which send.py gives records a key, and others.
OFFSETS = "0, 1, 16, 33, 50"


class Reading(WithEngines):
    """The tests; below is a class for each metastore."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.lake = Lake(cls.metastore)
        cls.addClassCleanup(cls.lake.close)
        sales = cls.lake.sales(2 * BURST, seed=7)
        cls.lake.send(sales[:BURST], moments=((-2, "09:30:00"), (-2, "23:59:00"), (-1, "00:00:00")))
        cls.lake.catch_up()
        cls.lake.send(sales[BURST:], moments=((-1, "12:34:00"), (-1, "12:35:00")))
        cls.lake.catch_up()
        cls.expected = cls.lake.expected()
        cls.database = cls.lake.database
        properties = cls.spark.run(f"show tblproperties {cls.spark.table(cls.database, 'silver')}").rows
        cls.cells.swaps[cls.metastore] = dict(properties)["engine.hive.lock-enabled"]

    def readers(self, layer: str) -> list:
        """The engines that read a layer."""
        return [engine for engine in self.engines if not (isinstance(engine, Hive) and layer in self.limits(engine))]

    @contextmanager
    def cell(self, engine, layer: str):
        """The name of the layer's table; a failure counts against this engine's cell, and the other engines go on."""
        with self.subTest(engine=engine.name, layer=layer), self.cells.cell(self.metastore, engine.name, layer):
            yield engine.table(self.database, layer)

    def limits(self, _hive: Hive) -> dict[str, str]:
        return {}

    # ---- what is in them

    def test_bronze_and_rejected_are_complete(self):
        for engine in self.readers("bronze"):
            with self.cell(engine, "bronze") as table:
                position = ", ':', ".join(f"cast({engine.column(name)} as {text(engine)})" for name in ("partition", "offset"))
                sql = f"select count(*), count(distinct concat({position})) from {table}"
                self.assertEqual(engine.run(sql).rows, [[self.expected["bronze"]["rows"]] * 2])
        for engine in self.readers("rejected"):
            with self.cell(engine, "rejected") as table:
                found = engine.run(f"select stage, count(*) from {table} group by stage").rows
                rejected = self.expected["rejected"]
                self.assertEqual(dict(found).get("expect", 0), rejected["by_expectation"])
                self.assertEqual(sum(count for _, count in found), rejected["rows"])

    def test_silver_adds_up(self):
        silver = self.expected["silver"]
        for engine in self.readers("silver"):
            with self.cell(engine, "silver") as table:
                columns = ", ".join(f"sum({name})" for name in silver["sums"])
                ((count, *sums),) = engine.run(f"select count(*), {columns} from {table}").rows
                self.assertEqual(count, silver["rows"])
                for name, found in zip(silver["sums"], sums):
                    self.assertEqual(Decimal(found), Decimal(silver["sums"][name]), name)
                months = engine.run(f"select year, month, count(*) from {table} group by year, month").rows
                self.assertEqual(sorted(months), silver["months"])

    def test_records_are_the_same_in_all(self):
        """All columns but the headers, which every engine shows in a form of its own."""
        sent = {message.value for message in self.lake.sent}
        for layer in ("bronze", "rejected"):
            columns = [column for column in self.lake.types(layer) if column[0] != "headers"]
            answers = {}
            for engine in self.readers(layer):
                with self.cell(engine, layer) as table:
                    names = ", ".join(engine.column(name) for name, _ in columns)
                    where = f"where {engine.column('offset')} in ({OFFSETS})" if layer == "bronze" else ""
                    answers[engine.name] = found = engine.run(f"select {names} from {table} {where}")
                    self.assertEqual(found.columns, columns)
                    values = [base64.b64decode(row[found.names.index("value")] or "") for row in found.rows]
                    self.assertLessEqual(set(values), sent)
                    keys = [row[found.names.index("key")] for row in found.rows]
                    self.assertIn(None, keys)
                    if layer == "bronze":
                        self.assertEqual({base64.b64decode(key)[:4] for key in keys if key}, {b"key "})
            self.assert_equal_rows(answers)

    def test_headers_are_lists_of_structs(self):
        for engine in self.readers("bronze"):
            with self.cell(engine, "bronze") as table:
                size, first = ("cardinality", 1) if isinstance(engine, Trino) else ("size", 0)
                found = engine.run(
                    f"select {size}(headers), headers[{first}].{engine.column('key')}, headers[{first}].{engine.column('value')}"
                    # Hive 3.1.3 takes some absent lists for lists of size -1, which are not null.
                    f" from {table} where {size}(headers) > 0 limit 1"
                )
                count, name, value = found.rows[0]
                self.assertEqual((count, name, base64.b64decode(value)), (1, "source", b"shop \xff"))

    def test_a_sample_of_silver(self):
        """All columns of one month, as a dashboard shows them, compared with lakesmith's own SQL."""
        columns = self.lake.types("silver")
        where = f"where Year = {YEAR} and Month = {MONTH} order by OrderID limit 25"
        own = self.lake.query(f"select * from {TABLES['silver']} {where}", columns)
        self.assertEqual(len(own.rows), 25)
        for engine in self.readers("silver"):
            with self.cell(engine, "silver") as table:
                found = engine.run(f"select * from {table} {where}")
                self.assertEqual(found, own)

    def test_gold_is_what_python_computes(self):
        wanted = [list(row.values()) for row in self.expected["gold"]]
        order = list(self.expected["gold"][0])
        for engine in self.readers("gold"):
            with self.cell(engine, "gold") as table:
                found = engine.run(f"select {', '.join(order)} from {table}")
                self.assertEqual([kind for _, kind in found.columns], [kind for _, kind in ordered(self.lake.types("gold"), order)])
                as_wanted = [[plain(value, wanted_value) for value, wanted_value in zip(row, wanted[0])] for row in found.rows]
                self.assertEqual(sorted(as_wanted), sorted([[plain(value, value) for value in row] for row in wanted]))

    def test_the_view_as_the_dashboard_asks_for_it(self):
        wanted = sorted(view_row(row) for row in self.expected["gold"])
        self.assertLess(len(wanted), 1000)
        for engine in self.readers("view"):
            with self.cell(engine, "view") as table:
                found = engine.run(f"select {', '.join(VIEW)} from {table} order by window_start desc limit 1000")
                self.assertEqual(found.columns, list(zip(VIEW, VIEW_TYPES)))
                self.assertEqual(sorted(found.rows), wanted)
                starts = [row[0] for row in found.rows]
                self.assertEqual(starts, sorted(starts, reverse=True))

    def test_sums_of_the_view(self):
        rows = [dict(zip(VIEW, view_row(row))) for row in self.expected["gold"]]
        for column in ("category", "country", "payment_method"):
            wanted: dict[str, list] = {}
            for row in rows:
                sums = wanted.setdefault(row[column], [0, 0.0])
                sums[0] += row["total_orders"]
                sums[1] += row["total_revenue"]
            for engine in self.readers("view"):
                with self.cell(engine, "view") as table:
                    found = engine.run(f"select {column}, sum(total_orders), sum(total_revenue) from {table} group by {column}").rows
                    self.assertEqual(sorted(row[:2] for row in found), sorted([name, sums[0]] for name, sums in wanted.items()))
                    for name, _, revenue in found:
                        # DOUBLE, added up in any order.
                        self.assertAlmostEqual(revenue, wanted[name][1], places=3)

    # ---- how they are read

    def test_a_month_of_silver_is_all_that_is_read(self):
        silver = {(year, month): count for year, month, count in self.expected["silver"]["months"]}
        where = f"where year = {YEAR} and month = {MONTH}"
        with self.cell(self.spark, "silver") as table:
            plan = self.spark.run(f"explain select orderid from {table} {where}").text()
            self.assertIn(f"Year = {YEAR}, Month = {MONTH}", plan)
            # What the scan leaves to a filter would have been read for nothing.
            self.assertNotRegex(plan, r"\bFilter \(")
        with self.cell(self.trino, "silver") as table:
            plan = self.trino.run(f"explain analyze select orderid from {table} {where}").text()
            self.assertIn("constraint on [Year, Month]", plan)
            self.assertRegex(plan, rf"Input: {silver[YEAR, MONTH]} rows")
            self.assertNotIn("Filter", plan)

    def test_a_day_of_gold_is_all_that_is_read(self):
        days = sorted({row["window_date"] for row in self.expected["gold"]})
        self.assertEqual(len(days), 2)
        where = f"where window_date = '{days[0]}'"
        wanted = sum(row["window_date"] == days[0] for row in self.expected["gold"])
        for engine in self.readers("gold"):
            with self.cell(engine, "gold") as table:
                if isinstance(engine, Hive):
                    inputs = json.loads(engine.run(f"explain dependency select * from {table} {where}").text())["input_partitions"]
                    self.assertEqual([one["partitionName"].rpartition("@")[2] for one in inputs], [f"window_date={days[0]}"])
                else:
                    plan = engine.run(f"explain select category from {table} {where}").text()
                    self.assertRegex(plan, r"InMemoryFileIndex\(1 paths\)" if engine is self.spark else rf":: \[\[{days[0]}\]\]")
                self.assertEqual(engine.run(f"select count(*) from {table} {where}").value(), wanted)

    def test_time_travel(self):
        """The first commit of each Iceberg table is still there to be read."""
        for layer in ("bronze", "silver"):
            for engine in self.readers(layer):
                with self.cell(engine, layer) as table:
                    if isinstance(engine, Hive):
                        # Hive has no words for it before Hive 4.
                        continue
                    of_table = engine.metadata_table(table, "snapshots")
                    snapshots = engine.run(f"select snapshot_id, summary from {of_table} order by committed_at")
                    self.assertEqual(len(snapshots.rows), 2)
                    first, summary = snapshots.rows[0]
                    summary = dict(summary)
                    self.assertIn("lakesmith.positions", summary)
                    count = engine.run(f"select count(*) from {engine.as_of(table, first)}").value()
                    self.assertEqual(count, int(summary["total-records"]))
                    history = engine.run(f"select snapshot_id from {engine.metadata_table(table, 'history')} order by made_current_at").rows
                    self.assertEqual(history, [[snapshot] for snapshot, _ in snapshots.rows])
                    files = engine.run(f"select sum(record_count) from {engine.metadata_table(table, 'files')}").value()
                    self.assertEqual(files, engine.run(f"select count(*) from {table}").value())
                    partitions = engine.run(f"select record_count from {engine.metadata_table(table, 'partitions')}").rows
                    self.assertEqual(len(partitions), len(self.expected["silver"]["months"]) if layer == "silver" else 1)

    def test_trino_leads_to_the_other_catalog(self):
        hive, iceberg = self.trino.catalog("hive"), self.trino.catalog("iceberg")
        for layer, catalog in (("silver", hive), ("gold", iceberg)):
            with self.cell(self.trino, layer):
                found = self.trino.run(f"select count(*) from {catalog}.{self.database}.{TABLES[layer]}").value()
                self.assertEqual(found, self.expected["silver"]["rows"] if layer == "silver" else len(self.expected["gold"]))

    def test_hive_counts_right_with_and_without_statistics(self):
        for layer, wanted in (("silver", self.expected["silver"]["rows"]), ("gold", len(self.expected["gold"]))):
            for engine in self.readers(layer):
                with self.cell(engine, layer) as table:
                    if isinstance(engine, Hive):
                        for answer_from_statistics in ("true", "false"):
                            engine.run(f"set hive.compute.query.using.stats={answer_from_statistics}")
                            self.assertEqual(engine.run(f"select count(*) from {table}").value(), wanted, answer_from_statistics)

    def test_silver_and_gold_are_joined(self):
        orders = {}
        for row in self.expected["gold"]:
            orders[row["Category"]] = orders.get(row["Category"], 0) + row["TotalOrders"]
        for engine in self.readers("silver"):
            with self.cell(engine, "silver") as silver:
                if isinstance(engine, Hive) and "gold" in self.limits(engine):
                    continue
                gold = engine.table(self.database, "gold")
                found = engine.run(
                    f"select s.category, s.n, g.n from (select category, count(*) as n from {silver} group by category) s"
                    f" join (select category, sum(totalorders) as n from {gold} group by category) g on s.category = g.category"
                ).rows
                self.assertEqual(sorted(found), sorted([name, count, count] for name, count in orders.items()))

    # ----

    def assert_equal_rows(self, answers: dict):
        (first, one), *others = answers.items()
        self.assertTrue(one.rows)
        for name, other in others:
            self.assertEqual(sorted(other.rows, key=str), sorted(one.rows, key=str), f"{name} and {first}")


class OnMetastore401(Reading, unittest.TestCase):
    metastore = "4.0.1"
    hive_servers = ("4.0.1", "3.1.3")

    def limits(self, hive: Hive) -> dict[str, str]:
        if hive.server == "4.0.1":
            return {layer: "no Iceberg" for layer in ICEBERG}
        # Hive tables have their own HiveServer2; the filters that another one sends are not understood.
        return {"gold": "", "view": ""}

    def test_hive_4_has_no_iceberg(self):
        (hive, _) = self.hives
        for layer in ICEBERG:
            with self.assertRaisesRegex(EngineError, "Error in loading storage handler.*HiveIcebergStorageHandler"):
                hive.run(f"select count(*) from {hive.table(self.database, layer)}")
            self.cells.limit(self.metastore, hive.name, layer, "no Iceberg")


class OnMetastore313(Reading, unittest.TestCase):
    metastore = "3.1.3"
    hive_servers = ("3.1.3",)


on_further_metastores(Reading, globals())


def text(engine) -> str:
    return "varchar" if isinstance(engine, Trino) else "string"


def ordered(columns: list[tuple[str, str]], names: list[str]) -> list[tuple[str, str]]:
    kinds = dict(columns)
    return [(name.lower(), kinds[name.lower()]) for name in names]


def plain(value, like):
    """A decimal without regard to its scale, which the reference has its own."""
    number = isinstance(like, str) and like.replace(".", "", 1).lstrip("-").isdigit()
    return Decimal(value) if number else value


def view_row(row: dict) -> list:
    doubles = [float(row[name]) for name in ("TotalRevenue", "TotalNetRevenue", "AvgOrderValue")]
    keys = [row[name] for name in ("window_start", "window_end", "Category", "Country", "PaymentMethod")]
    return [*keys, row["TotalOrders"], row["TotalQuantity"], *doubles, row["UniqueCustomers"], row["window_date"]]


if __name__ == "__main__":
    unittest.main()
