"""Bronze and silver in plain Hive form (`bronze.format = "hive"`, `silver.format = "hive"`) as Spark, Trino and HiveServer2 read them: equal
values, types and NULLs, equal to what was sent, and for silver to what Python computes.

Hive is given the SerDe's jar (`hive-hcatalog-core`, which a Hive release has in `hcatalog/share/hcatalog`) on its class path.
"""

import base64
import json
import unittest
from contextlib import contextmanager
from decimal import Decimal

from engine import TABLES
from engines import WithEngines, on_further_metastores
from lake import BURST, Lake

COLUMNS = [
    ("topic", "string"),
    ("partition", "int"),
    ("offset", "bigint"),
    ("timestamp", "timestamp"),
    ("key", "string"),
    ("value", "string"),
    ("key_base64", "string"),
    ("value_base64", "string"),
]
# The columns of the README's table.
FORMS = {"bronze": "bronze as text", "silver": "silver as Parquet"}
# Values that no text, or no JSON, would survive by itself.
STRANGE = [b"\xff\xfe", b"", b"two\nlines\r\n\ttab \x00 \x1f", '"quotes" \\ \u2028 \U0001f6d2 Z\u00fcrich'.encode()]


class PlainHive(WithEngines):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.lake = Lake(cls.metastore)
        cls.addClassCleanup(cls.lake.close)
        cls.lake.environment["LAKESMITH_BRONZE__FORMAT"] = "hive"
        cls.lake.environment["LAKESMITH_SILVER__FORMAT"] = "hive"
        sales = cls.lake.sales(BURST, seed=11)
        cls.lake.send(sales[: BURST // 2])
        cls.lake.catch_up()
        cls.lake.send(sales[BURST // 2 :])
        cls.lake.send(STRANGE)
        cls.lake.catch_up()
        cls.expected = cls.lake.expected()

    def table(self, engine, layer="bronze") -> str:
        name = f"{self.lake.database}.{TABLES[layer]}"
        return f"{self.trino.catalog('hive')}.{name}" if engine is self.trino else name

    @contextmanager
    def reading(self, engine, layer="bronze"):
        """The table's name for an engine; the others go on where one fails."""
        with self.subTest(engine=engine.name), self.cells.cell(self.metastore, engine.name, FORMS[layer]):
            yield self.table(engine, layer)

    def silver_readers(self) -> list:
        """The filters on partitions that a HiveServer2 of another version sends are not understood by the metastore."""
        return [self.spark, self.trino, *(hive for hive in self.hives if hive.server == self.metastore)]

    def test_every_record_is_there_once(self):
        self.lake.lakesmith("verify")
        wanted = [[len(self.lake.sent)] * 2]
        for engine in self.engines:
            with self.reading(engine) as table:
                kind = "varchar" if engine is self.trino else "string"
                position = ", ':', ".join(f"cast({engine.column(name)} as {kind})" for name in ("partition", "offset"))
                self.assertEqual(engine.run(f"select count(*), count(distinct concat({position})) from {table}").rows, wanted)

    def test_records_are_the_same_in_all_and_as_they_were_sent(self):
        sent = sorted((message.timestamp_ms, base64.b64encode(message.value).decode()) for message in self.lake.sent)
        answers = {}
        for engine in self.engines:
            with self.reading(engine) as table:
                names = ", ".join(engine.column(name) for name, _ in COLUMNS)
                found = engine.run(f"select {names} from {table}")
                self.assertEqual(found.columns, COLUMNS)
                answers[engine.name] = sorted(found.rows, key=lambda row: (row[1], row[2]))
                values = [row[7] if row[7] is not None else base64.b64encode(row[5].encode()).decode() for row in found.rows]
                self.assertEqual(sorted(values), sorted(value for _, value in sent))
                self.assertIn(b"\xff\xfe", [base64.b64decode(row[7]) for row in found.rows if row[7] is not None])
                self.assertEqual({row[4] is None for row in found.rows}, {True, False})
        first = answers[self.spark.name]
        for name, rows in answers.items():
            self.assertEqual(rows, first, name)

    def test_lakesmith_shows_the_same(self):
        names = ", ".join(f'"{name}"' for name, _ in COLUMNS)
        order = 'order by "partition", "offset" limit 200'
        own = self.lake.query(f"select {names} from {TABLES['bronze']} {order}", COLUMNS)
        names = ", ".join(self.spark.column(name) for name, _ in COLUMNS)
        spark = self.spark.run(f"select {names} from {self.table(self.spark)} order by `partition`, `offset` limit 200")
        self.assertEqual(own, spark)

    def test_headers_are_lists_of_structs(self):
        for engine in self.engines:
            with self.reading(engine) as table:
                size, first = ("cardinality", 1) if engine is self.trino else ("size", 0)
                fields = ", ".join(f"headers[{first}].{engine.column(name)}" for name in ("key", "value", "value_base64"))
                # Not `is not null`: HiveServer2 3.1.3 takes some lists that are absent for lists, though of size -1.
                found = engine.run(f"select distinct {size}(headers), {fields} from {table} where {size}(headers) > 0")
                self.assertEqual(found.rows, [[1, "source", None, base64.b64encode(b"shop \xff").decode()]])

    def test_the_bare_files_are_lines_of_json_in_the_order_of_their_commits(self):
        directory = f"{self.lake.environment['LAKESMITH_STORAGE__WAREHOUSE']}/datalake/bronze/amazon_sales"
        found = self.spark.run(f"select value, input_file_name() from text.`{directory}/*.json`")
        self.assertEqual(len(found.rows), len(self.lake.sent))
        self.assertTrue(all(json.loads(line)["topic"] == self.lake.database for line, _ in found.rows))
        self.assertEqual(len({file for _, file in found.rows}), 2)

    # ---- silver

    def test_silver_adds_up_by_partition(self):
        silver = self.expected["silver"]
        for engine in self.silver_readers():
            with self.reading(engine, "silver") as table:
                columns = ", ".join(f"sum({name})" for name in silver["sums"])
                ((count, *sums),) = engine.run(f"select count(*), {columns} from {table}").rows
                self.assertEqual(count, silver["rows"])
                for name, found in zip(silver["sums"], sums):
                    self.assertEqual(Decimal(found), Decimal(silver["sums"][name]), name)
                months = engine.run(f"select year, month, count(*) from {table} group by year, month").rows
                self.assertEqual(sorted(months), silver["months"])
                # The engines' own count of one partition, which their statistics must not answer wrongly.
                year, month, rows = silver["months"][0]
                where = f"where year = {year} and month = {month}"
                self.assertEqual(engine.run(f"select count(*) from {table} {where}").value(), rows)
                by_date = f"where year(orderdate) = {year} and month(orderdate) = {month}"
                self.assertEqual(engine.run(f"select count(*) from {table} {by_date}").value(), rows)

    def test_silver_s_rows_are_the_same_in_all(self):
        columns = [column for column in self.lake.types("silver") if column[0] not in ("partition", "offset")]
        year, month, _ = self.expected["silver"]["months"][0]
        where = f"where year = {year} and month = {month} order by orderid limit 50"
        names = ", ".join(name for name, _ in columns)
        own = self.lake.query(f"select {names} from {TABLES['silver']} {where}", columns)
        self.assertTrue(own.rows)
        for engine in self.silver_readers():
            with self.reading(engine, "silver") as table:
                found = engine.run(f"select {names} from {table} {where}")
                self.assertEqual(found.columns, columns)
                # Trino shows a Hive table's times to the millisecond.
                times = [at for at, (_, kind) in enumerate(columns) if kind == "timestamp"] if engine is self.trino else []
                cut = lambda rows: [[value[:23] if at in times else value for at, value in enumerate(row)] for row in rows]
                self.assertEqual(cut(found.rows), cut(own.rows))

    def test_a_filter_on_partition_columns_opens_no_other_directory(self):
        year, month, _ = self.expected["silver"]["months"][0]
        table = self.table(self.spark, "silver")
        files = self.spark.run(f"select distinct input_file_name() from {table} where year = {year} and month = {month}").rows
        self.assertTrue(files)
        self.assertTrue(all(f"/Year={year}/Month={month}/" in file for (file,) in files), files)
        self.assertIn("PartitionFilters: [isnotnull(", self.spark.run(f"explain select * from {table} where year = {year}").text())
        for hive in self.hives:
            shown = hive.run(f"show partitions {self.table(hive, 'silver')}").text().splitlines()
            self.assertEqual(len(shown), len(self.expected["silver"]["months"]))

    def test_the_entry_is_described(self):
        for engine in self.engines:
            with self.reading(engine) as table:
                if engine is self.trino:
                    self.assertIn("format = 'JSON'", engine.run(f"show create table {table}").text())
                else:
                    found = [engine.run(f"{statement} {table}").text() for statement in ("describe formatted", "show create table")]
                    self.assertIn("lakesmith.commit-log", "\n".join(found))


class OnMetastore401(PlainHive, unittest.TestCase):
    metastore, hive_servers = "4.0.1", ("4.0.1", "3.1.3")


class OnMetastore313(PlainHive, unittest.TestCase):
    metastore, hive_servers = "3.1.3", ("3.1.3",)


on_further_metastores(PlainHive, globals())


if __name__ == "__main__":
    unittest.main()
