"""What `lakesmith schema` makes of a table as each engine reads it: old rows, new rows, and an old snapshot by time travel."""

import unittest

from engine import Hive
from engines import WithEngines
from lake import Lake

MONTHS = ("2024-06", "2024-07")


class Schema(WithEngines):
    """The tests; below is a class for each metastore."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.readers = [engine for engine in cls.engines if not isinstance(engine, Hive) or engine.server == "3.1.3"]
        cls.lake = lake = Lake(cls.metastore)
        cls.addClassCleanup(lake.close)
        sales = lake.sales(4_000, seed=5, bad_share=0, months=MONTHS)
        half = len(sales) // 2
        lake.send(sales[:half])
        lake.catch_up()
        cls.before, cls.rows = lake.types("silver"), half
        cls.snapshot = cls.latest()
        for change in (
            ("add-column", "silver", "Coupon", "string", "--after", "Brand", "--doc", "code of the coupon"),
            ("widen-column", "silver", "Quantity", "long"),
            ("widen-column", "silver", "UnitPrice", "decimal(18, 2)"),
            ("rename-column", "silver", "City", "Town"),
            ("drop-column", "silver", "SellerID"),
            ("move-column", "silver", "TotalAmount", "--first"),
            ("partition", "add", "silver", "bucket(2, OrderID)"),
            ("set-property", "silver", "team=sales"),
        ):
            lake.lakesmith("schema", *change)
        cls.rewrite_pipeline()
        lake.send(sales[half:])
        lake.catch_up()
        cls.all_rows = len(sales)

    @classmethod
    def latest(cls) -> int:
        table = cls.spark.metadata_table(cls.spark.table(cls.lake.database, "silver"), "snapshots")
        return cls.spark.run(f"select snapshot_id from {table} order by committed_at desc limit 1").value()

    @classmethod
    def rewrite_pipeline(cls):
        """The pipeline file says the same as the table: City is Town, nobody sells, and the coupon is filled."""
        file = cls.lake.directory / "pipeline.toml"
        text = file.read_text(encoding="utf-8")
        for old, new in (
            ('[[silver.columns]]\nname = "City"\n', '[[silver.columns]]\nname = "Town"\nfield = "City"\n'),
            ('[[silver.columns]]\nname = "SellerID"\n', '[[silver.columns]]\nname = "Coupon"\nfield = "SellerID"\n'),
        ):
            assert old in text, old
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")

    def table(self, engine) -> str:
        return engine.table(self.lake.database, "silver")

    def test_old_rows_and_new_rows(self):
        columns = self.lake.types("silver")
        names = [name for name, _ in columns]
        self.assertEqual((names[0], dict(columns)["quantity"], dict(columns)["unitprice"]), ("totalamount", "bigint", "decimal(18,2)"))
        self.assertNotIn("sellerid", names)
        shown = ", ".join(f'"{name}"' for name, _ in self.lake.described("silver"))
        own = self.lake.query(f"select {shown} from silver_amazon_sales order by OrderID", columns)
        self.assertEqual(len(own.rows), self.all_rows)
        coupons = [row[names.index("coupon")] for row in own.rows]
        self.assertEqual(coupons.count(None), self.rows)
        self.assertNotIn(None, [row[names.index("town")] for row in own.rows])
        for engine in self.readers:
            with self.subTest(engine=engine.name), self.cells.cell(self.metastore, engine.name, "silver"):
                asked = ", ".join(engine.column(name) for name in names)
                found = engine.run(f"select {asked} from {self.table(engine)} order by {engine.column('orderid')}")
                self.assertEqual(found, own)

    def test_the_snapshot_of_before(self):
        for engine in self.readers:
            if isinstance(engine, Hive):
                continue
            with self.subTest(engine=engine.name), self.cells.cell(self.metastore, engine.name, "silver"):
                found = engine.run(f"select * from {engine.as_of(self.table(engine), self.snapshot)} order by orderid limit 5")
                self.assertEqual(found.columns, self.before)
                self.assertNotIn(None, [row[found.names.index("city")] for row in found.rows])
                count = engine.run(f"select count(sellerid) from {engine.as_of(self.table(engine), self.snapshot)}").value()
                self.assertEqual(count, self.rows)

    def test_the_entry_says_the_same(self):
        """A commit that moved a column leaves the entry's columns shorter on some servers; the next one completes it."""
        for hive in self.hives:
            if hive.server == "3.1.3":
                described = hive.run(f"describe {self.table(hive)}").rows
                kinds = {row[0].lower(): row[1] for row in described if row[0]}
                self.assertEqual((kinds["quantity"], kinds["town"], kinds["coupon"]), ("bigint", "string", "string"), hive.name)
        self.assertIn("team", self.spark.run(f"show tblproperties {self.table(self.spark)}").text())

    def test_lakesmith_goes_on(self):
        self.lake.lakesmith("verify", "--strict")
        history = self.lake.lakesmith("schema", "history", "silver")
        for change in ("added Coupon string", "renamed City to Town", "dropped SellerID string", "ordered the columns anew"):
            self.assertIn(change, history)


class OnMetastore401(Schema, unittest.TestCase):
    metastore = "4.0.1"
    hive_servers = ("4.0.1", "3.1.3")


class OnMetastore313(Schema, unittest.TestCase):
    metastore = "3.1.3"
    hive_servers = ("3.1.3",)


class OnMetastore2310(Schema, unittest.TestCase):
    metastore = "2.3.10"
    hive_servers = ()


if __name__ == "__main__":
    unittest.main()
