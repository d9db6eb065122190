"""A column with a default, for which silver becomes a table of Iceberg's format version 3: what Spark reads and writes of it beside
lakesmith, and why it is refused where Hive or Trino must read the table."""

import unittest

from engine import EngineError, Hive, Trino
from engines import WithEngines
from lake import Lake

MONTHS = ("2024-06",)


class Defaults(WithEngines):
    """The tests, in the order of their names: each goes on with the table that the one before left."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.lake = lake = Lake(cls.metastore)
        cls.addClassCleanup(lake.close)
        lake.environment["LAKESMITH_TABLES__COMPATIBILITY"] = '["spark"]'
        cls.sales = sales = lake.sales(6_000, seed=11, bad_share=0, months=MONTHS)
        cls.half, cls.rows = len(sales) // 2, len(sales)
        lake.send(sales[: cls.half])
        lake.catch_up()
        cls.table = cls.spark.table(lake.database, "silver")
        cls.before = cls.snapshot()
        cls.columns = lake.types("silver")
        for change in (
            ("add-column", "silver", "Origin", "string", "--default", "web", "--required"),
            ("add-column", "silver", "Points", "int", "--default", "7"),
            ("add-column", "silver", "Rate", "decimal(6, 2)", "--default", "-1.50"),
            ("add-column", "silver", "Opened", "date", "--default", "2020-02-29"),
            ("add-column", "silver", "Checked", "timestamp", "--default", "2026-11-28 12:00:00.5"),
            ("add-column", "silver", "Open", "boolean", "--default", "true"),
            ("widen-column", "silver", "Points", "long"),
        ):
            lake.lakesmith("schema", *change)

    @classmethod
    def snapshot(cls) -> int:
        snapshots = cls.spark.metadata_table(cls.table, "snapshots")
        return cls.spark.run(f"select snapshot_id from {snapshots} order by committed_at desc limit 1").value()

    def count(self, filter: str = "true", source: str = "") -> int:
        return self.spark.run(f"select count(*) from {source or self.table} where {filter}").value()

    ALL = (
        "origin = 'web' and points = 7 and rate = -1.50 and opened = date '2020-02-29'"
        " and checked = timestamp_ntz '2026-11-28 12:00:00.5' and open"
    )

    def assert_rows(self, rows: int) -> None:
        """Spark sees so many rows, all with their defaults, whether it filters in its readers or looks at each value; so does lakesmith."""
        self.assertEqual((self.count(), self.count(self.ALL)), (rows, rows))
        for column, value in (("origin", "'web'"), ("points", "7"), ("rate", "-1.50"), ("opened", "date '2020-02-29'")):
            self.assertEqual(self.count(f"{column} = {value}"), rows, column)
            self.assertEqual(self.count(f"{column} <> {value} or {column} is null"), 0, column)
        shown = "origin, points, cast(rate as string), cast(opened as string), open"
        seen = self.spark.run(f"select {shown}, count(*) from {self.table} group by 1, 2, 3, 4, 5")
        self.assertEqual(seen.rows, [["web", 7, "-1.50", "2020-02-29", True, rows]])
        own = "origin = 'web' and points = 7 and rate = -1.50 and opened = date '2020-02-29' and open"
        asked = self.lake.query(f"select count(*) from silver_amazon_sales where {own}", [("n", "bigint")])
        self.assertEqual(asked.value(), rows)

    def assert_row_ids(self) -> None:
        """Each row has an id of its own."""
        ids = self.spark.run(f"select count(distinct _row_id), count(_row_id), count(*) from {self.table}").rows[0]
        self.assertEqual(ids[0], ids[2])
        self.assertEqual(ids[1], ids[2])

    def test_1_rows_so_far_and_new_ones(self):
        self.assert_rows(self.half)
        self.lake.send(self.sales[self.half :])
        self.lake.catch_up()
        self.assert_rows(self.rows)
        self.assert_row_ids()
        before = self.spark.run(f"select * from {self.spark.as_of(self.table, self.before)} limit 1")
        self.assertEqual(before.columns, self.columns)
        self.assertEqual(self.count(source=self.spark.as_of(self.table, self.before)), self.half)

    def test_2_spark_writes_and_lakesmith_goes_on(self):
        ids = f"select `offset`, _row_id from {self.table} where partition = 0 order by `offset` limit 20"
        known = self.spark.run(ids).rows
        # Rows keep their ids when Spark merges their files.
        self.spark.run(f"call spark_catalog.system.rewrite_data_files(table => '{self.table}', options => map('rewrite-all', 'true'))")
        self.assertEqual(self.spark.run(ids).rows, known)
        self.spark.run(f"call spark_catalog.system.rewrite_manifests('{self.table}')")
        self.lake.send(self.lake.sales(2_000, seed=12, bad_share=0, months=MONTHS))
        self.lake.catch_up()
        self.assertEqual(self.spark.run(ids).rows, known)
        self.lake.lakesmith("verify", "--strict")
        self.assert_rows(self.count())
        self.assert_row_ids()

    def test_3_rows_are_computed_anew(self):
        rows = self.count()
        self.lake.lakesmith("reprocess")
        self.assert_rows(rows)
        self.assert_row_ids()
        self.lake.lakesmith("verify", "--strict")

    def test_4_deletion_vectors_are_not_read_as_if_they_were_not_there(self):
        rows = self.count()
        self.spark.run(f"alter table {self.table} set tblproperties ('write.delete.mode' = 'merge-on-read')")
        self.spark.run(f"delete from {self.table} where `offset` % 5 = 3")
        left = self.count()
        self.assertLess(left, rows)
        for command in (("query", "select count(*) from silver_amazon_sales"), ("verify",), ("reprocess",)):
            self.assertIn("by deletion vectors, which lakesmith does not read", self.lake.lakesmith(*command, exit_code=1))
        # The way out that the error names.
        self.spark.run(f"alter table {self.table} set tblproperties ('write.delete.mode' = 'copy-on-write')")
        options = "options => map('delete-file-threshold', '1')"
        self.spark.run(f"call spark_catalog.system.rewrite_data_files(table => '{self.table}', {options})")
        self.assert_rows(left)
        self.assert_row_ids()
        self.lake.lakesmith("reprocess")
        self.assert_rows(rows)
        self.lake.lakesmith("verify", "--strict")

    def test_5_what_the_others_make_of_it(self):
        """The README says so; where this fails, an engine has learnt to read such tables."""
        self.lake.lakesmith("schema", "add-column", "silver", "Late", "string", "--default", "late")
        for engine in self.engines:
            table = engine.table(self.lake.database, "silver")
            if isinstance(engine, Hive):
                with self.assertRaisesRegex(EngineError, "unsupported version 3"):
                    engine.run(f"select orderid from {table} limit 1")
            elif isinstance(engine, Trino):
                self.assertIsNone(engine.run(f"select max(late) from {table}").value())
            else:
                self.assertEqual(engine.run(f"select max(late) from {table}").value(), "late")


class OnMetastore401(Defaults, unittest.TestCase):
    metastore = "4.0.1"
    hive_servers = ("3.1.3",)


if __name__ == "__main__":
    unittest.main()
