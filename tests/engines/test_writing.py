"""Other engines change lakesmith's tables, and lakesmith goes on: what they do stays, what it writes is complete, offsets are intact.

Each test has a lake of few partitions, and between the changes more records arrive.
"""

import datetime
import json
import re
import unittest
from contextlib import contextmanager
from decimal import Decimal

from engine import ICEBERG, TABLES, Hive
from engines import WithEngines, on_further_metastores
from lake import Lake

MONTHS = ("2024-06", "2024-07")
WRITES = "its writes"


class Writing(WithEngines):
    """The tests; below is a class for each metastore."""

    def setUp(self):
        self.lake = Lake(self.metastore)
        self.addCleanup(self.lake.close)
        self.sales = self.lake.sales(12_000, seed=11, bad_share=0, months=MONTHS)
        self.rejects = self.lake.sales(50, seed=12, bad_share=1)
        # Gold's window of these is closed by the next: gold keeps them, whatever becomes of them in silver.
        self.first = self.next_sales(20, (-2, "09:30:00"))
        self.next_sales(5, (-2, "12:00:00"))

    def next_sales(self, count: int, moment: tuple[int, str]) -> list[bytes]:
        """More records, some of them bad, all the way into gold."""
        batch, self.sales = [*self.sales[:count], self.rejects.pop()], self.sales[count:]
        self.assertEqual(len(batch), count + 1)
        self.lake.send(batch, moments=(moment,))
        self.lake.catch_up()
        return batch

    def table(self, engine, layer: str) -> str:
        return engine.table(self.lake.database, layer)

    def count(self, engine, layer: str) -> int:
        return engine.run(f"select count(*) from {self.table(engine, layer)}").value()

    def assert_complete(self, more_in_silver: int = 0):
        """All engines count what was sent, and every offset is where it belongs."""
        expected = self.lake.expected()
        counts = {layer: expected[layer]["rows"] for layer in ICEBERG}
        counts["silver"] += more_in_silver
        readers = [self.spark, self.trino, *(hive for hive in self.hives if hive.server == "3.1.3")]
        for engine in readers:
            self.assertEqual({layer: self.count(engine, layer) for layer in ICEBERG}, counts, engine.name)
        orders = self.trino.run(f"select sum(totalorders) from {self.table(self.trino, 'gold')}").value()
        self.assertEqual(orders, expected["silver"]["rows"])
        ends = self.lake.lakesmith("offsets", "show")
        # Of bronze: topic partition, first offset, next offset, records.
        bronze = ends.partition("silver_amazon_sales:")[0]
        rows = re.findall(r"│\s+(\d+) ┆\s+0 ┆\s+([\d,]+) ┆\s+([\d,]+) │", bronze)
        self.assertEqual(sum(int(records.replace(",", "")) for *_, records in rows), expected["bronze"]["rows"], ends)

    @contextmanager
    def cell(self, engine):
        with self.cells.cell(self.metastore, engine.name, WRITES):
            yield

    def rows_come_and_go(self, engine):
        """One foreign row in silver, which no record is behind, and one of lakesmith's gone; then it is put right by time travel."""
        silver = self.table(engine, "silver")
        (gone,) = re.findall(rb'"OrderID":"(ORD\d+)"', self.first[0])
        gone = gone.decode()
        snapshots = engine.metadata_table(silver, "snapshots")
        whole = engine.run(f"select snapshot_id from {snapshots} order by committed_at desc limit 1").value()
        foreign = {"orderid": "'FOREIGN'", "offset": "cast(-1 as bigint)"}
        columns = ", ".join(foreign.get(name, engine.column(name)) for name, _ in self.lake.types("silver"))
        engine.run(f"insert into {silver} select {columns} from {silver} where orderid = '{gone}'")
        engine.run(f"delete from {silver} where orderid = '{gone}'")
        report = self.lake.lakesmith("verify")
        self.assertIn("the differences can all be explained by these", report)
        self.assertRegex(report, rf"silver_amazon_sales \d+ (append|delete|overwrite) by {engine.name.split()[0].lower()}")
        self.lake.lakesmith("verify", "--strict", exit_code=1)
        self.next_sales(15, (-2, "23:59:00"))
        # One more, one less.
        self.assert_complete()
        self.lake.lakesmith("verify")
        engine.run(f"delete from {silver} where orderid = 'FOREIGN'")
        engine.run(f"insert into {silver} select * from {engine.as_of(silver, whole)} where orderid = '{gone}'")
        self.lake.lakesmith("verify", "--strict")

    def a_renamed_column_stops_silver_alone(self, engine):
        """Silver waits until it is told what the column is called; bronze goes on, and nothing is lost."""
        silver = self.table(engine, "silver")
        engine.run(f"alter table {silver} rename column sellerid to seller")
        before = self.count(engine, "silver")
        self.lake.send(self.sales[:10], moments=((-1, "00:00:00"),))
        self.sales = self.sales[10:]
        told = self.lake.lakesmith("run", "--until-caught-up", exit_code=1)
        self.assertIn("the table has no column SellerID", told)
        self.assertEqual(self.count(engine, "silver"), before)
        self.assertEqual(self.count(engine, "bronze"), self.lake.expected()["bronze"]["rows"])
        # Its name comes back in lower case, which is all that Trino can write.
        engine.run(f"alter table {silver} rename column seller to sellerid")
        self.lake.catch_up()
        self.assert_complete()

    def names_in_another_case_are_the_same_columns(self, engine):
        """Of silver's data, its partitions, gold's time and dimensions; of bronze's payload and coordinates."""
        renamed = {"silver": ("TotalAmount", "Category", "Year", "kafka_timestamp", "offset"), "bronze": ("value", "offset")}
        for layer, columns in renamed.items():
            table = self.table(engine, layer)
            for column in columns:
                # By way of another name: to Spark, a name in another case is the same, and taken. Trino writes both in lower case.
                new = column.lower() if any(map(str.isupper, column)) else column.upper()
                engine.run(f"alter table {table} rename column {engine.column(column)} to x")
                engine.run(f"alter table {table} rename column x to {engine.column(new)}")
        # Before a snapshot has the new names, and after it.
        self.lake.lakesmith("verify", "--strict")
        batch = self.next_sales(15, (-1, "06:00:00"))
        names = {name for name, _ in self.lake.described("silver")}
        self.assertLessEqual({"totalamount", "category", "year", "sellerid"}, names)
        self.assert_complete()
        self.lake.lakesmith("verify", "--strict")
        sales = [json.loads(line) for line in batch[:15]]
        orders = ", ".join(f"'{sale['OrderID']}'" for sale in sales)
        for reader in (self.spark, self.trino):
            found = reader.run(
                f"select orderid, category, totalamount, year from {self.table(reader, 'silver')} where orderid in ({orders})"
            ).rows
            wanted = [
                [sale["OrderID"], sale["Category"], Decimal(str(sale["TotalAmount"])), int(sale["OrderDate"][:4])] for sale in sales
            ]
            self.assertEqual(sorted([order, name, Decimal(amount), year] for order, name, amount, year in found), sorted(wanted))

    # ----

    def test_spark(self):
        with self.cell(self.spark):
            self.rows_come_and_go(self.spark)
            self.a_renamed_column_stops_silver_alone(self.spark)
            self.names_in_another_case_are_the_same_columns(self.spark)
            for layer in ("bronze", "silver"):
                table = self.table(self.spark, layer)
                arguments = f"table => '{table}', options => map('rewrite-all', 'true')"
                rewritten = self.spark.run(f"call spark_catalog.system.rewrite_data_files({arguments})")
                self.assertGreater(rewritten.rows[0][0], 0)
                self.next_sales(10, (-1, "12:34:00"))
                # Spark 3.5 takes nothing but literals there.
                now = datetime.datetime.now(datetime.timezone.utc).strftime("timestamp '%Y-%m-%d %H:%M:%S.%f'")
                arguments = f"table => '{table}', older_than => {now}, retain_last => 1"
                self.spark.run(f"call spark_catalog.system.expire_snapshots({arguments})")
                self.assertEqual(self.spark.run(f"select count(*) from {self.spark.metadata_table(table, 'snapshots')}").value(), 1)
            self.spark.run(f"alter table {self.table(self.spark, 'silver')} set tblproperties ('team' = 'sales')")
            self.spark.run(f"analyze table {self.table(self.spark, 'gold')} compute statistics")
            self.next_sales(10, (-1, "12:35:00"))
            self.assert_complete()
            self.lake.lakesmith("verify", "--strict")

    def test_trino(self):
        with self.cell(self.trino):
            self.rows_come_and_go(self.trino)
            self.a_renamed_column_stops_silver_alone(self.trino)
            self.names_in_another_case_are_the_same_columns(self.trino)
            for layer in ("bronze", "silver"):
                table = self.table(self.trino, layer)
                files = f"select count(*) from {self.trino.metadata_table(table, 'files')}"
                before = self.trino.run(files).value()
                self.trino.run(f"alter table {table} execute optimize")
                self.assertLess(self.trino.run(files).value(), before)
                self.next_sales(10, (-1, "12:34:00"))
                self.trino.run(f"alter table {table} execute expire_snapshots(retention_threshold => '0s')")
                self.assertEqual(self.trino.run(f"select count(*) from {self.trino.metadata_table(table, 'snapshots')}").value(), 1)
            for layer in ("silver", "gold"):
                self.trino.run(f"analyze {self.table(self.trino, layer)}")
            self.next_sales(10, (-1, "12:35:00"))
            self.assert_complete()
            self.lake.lakesmith("verify", "--strict")

    def test_hive_describes_and_changes_entries(self):
        for hive in self.hives:
            with self.subTest(hive.name), self.cell(hive):
                for layer in self.layers(hive):
                    self.describe_and_change(hive, layer)
        self.next_sales(10, (-1, "12:34:00"))
        self.assert_complete()
        self.lake.lakesmith("verify", "--strict")
        # What Hive has set is still there after lakesmith's commits.
        for hive in self.hives:
            with self.subTest(hive.name), self.cell(hive):
                for layer in self.layers(hive):
                    kept = hive.run(f"show tblproperties {self.table(hive, layer)}").text()
                    self.assertIn("team sales", kept, layer)

    def layers(self, hive: Hive) -> list[str]:
        """What a HiveServer2 reads: its own metastore's Hive tables, and Iceberg's if it can."""
        return [layer for layer in TABLES if (hive.server == "3.1.3" if layer in ICEBERG else hive.server == self.metastore)]

    def describe_and_change(self, hive: Hive, layer: str):
        table = self.table(hive, layer)
        kind = "view" if layer == "view" else "table"
        self.assertIn(TABLES[layer], hive.run(f"show create table {table}").text())
        hive.run(f"alter {kind} {table} set tblproperties ('team' = 'sales')")
        if layer == "gold":
            hive.run(f"analyze table {table} partition (window_date) compute statistics")
        described = hive.run(f"describe formatted {table}").text()
        self.assertIn("team", described)
        self.assertIn("VIRTUAL_VIEW" if layer == "view" else "EXTERNAL_TABLE", described)
        if layer in ICEBERG:
            self.assertIn("metadata_location", described)


class OnMetastore401(Writing, unittest.TestCase):
    metastore = "4.0.1"
    hive_servers = ("4.0.1", "3.1.3")


class OnMetastore313(Writing, unittest.TestCase):
    metastore = "3.1.3"
    hive_servers = ("3.1.3",)


on_further_metastores(Writing, globals())


if __name__ == "__main__":
    unittest.main()
