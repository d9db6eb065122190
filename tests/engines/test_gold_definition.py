"""A gold table that gets another definition, as each engine reads it: a measure that old rows lack, then other dimensions and measures."""

import unittest

from engine import Spark
from engines import WithEngines
from lake import Lake

# After all that was sent before: the windows of then keep their rows.
LATER = ((-1, "18:00:00"),)
TYPES = {"orders": "bigint", "items": "bigint", "revenue": "decimal(38,2)", "largest": "decimal(12,2)"}


class GoldDefinition(WithEngines):
    """The tests; below is a class for each metastore."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.lake = lake = Lake(cls.metastore)
        cls.addClassCleanup(lake.close)
        sales = lake.sales(1_500, seed=7)
        cls.rest = sales[1_000:]
        lake.send(sales[:1_000])
        lake.catch_up()

    def redefine(self, *changes: tuple[str, str]) -> str:
        """Changes the pipeline file, and leads gold to what it says."""
        file = self.lake.directory / "pipeline.toml"
        text = file.read_text(encoding="utf-8")
        for old, new in changes:
            self.assertIn(old, text)
            text = text.replace(old, new, 1)
        file.write_text(text, encoding="utf-8")
        plan = self.lake.lakesmith("schema", "plan", "--output", "plan.json")
        self.lake.lakesmith("schema", "apply", "plan.json")
        return plan

    def assert_read(self, select: str, names: list[str]) -> None:
        """Each engine reads table and view as lakesmith does."""
        kinds = [(name, TYPES.get(name, "string")) for name in names]
        own = self.lake.query(f"select {select} from gold_amazon_sales_aggregated group by 1 order by 1", kinds)
        self.assertGreater(len(own.rows), 1)
        for engine in self.engines:
            with self.subTest(engine=engine.name), self.cells.cell(self.metastore, engine.name, "gold", "view"):
                table, view = engine.table(self.lake.database, "gold"), engine.table(self.lake.database, "view")
                if isinstance(engine, Spark):
                    engine.run(f"refresh table {table}")
                found = engine.run(f"select {select} from {table} group by {names[0]} order by {names[0]}")
                self.assertEqual(found.rows, own.rows)
                orders = engine.run(f"select sum(total_orders) from {view}").value()
                self.assertEqual(orders, sum(row[names.index("orders")] for row in own.rows))

    def test_each_definition_is_read_by_all(self):
        items = '[[gold.measures]]\nname = "Items"\nsql = "COUNT(Quantity)"\n\n[[gold.measures]]\nname = "TotalOrders"'
        plan = self.redefine(('[[gold.measures]]\nname = "TotalOrders"', items))
        self.assertIn("null in the rows so far", plan)
        self.lake.send(self.rest, moments=LATER)
        self.lake.catch_up()
        self.lake.lakesmith("verify")
        own = self.lake.query("select sum(items), sum(totalorders) from gold_amazon_sales_aggregated", [("a", "bigint"), ("b", "bigint")])
        ((new, all_orders),) = own.rows
        self.assertTrue(0 < new < all_orders, own)
        self.assert_read(
            "category, sum(totalorders) as orders, sum(items) as items, cast(sum(totalrevenue) as decimal(38,2)) as revenue",
            ["category", "orders", "items", "revenue"],
        )

        plan = self.redefine(
            ('dimensions = ["Category", "Country", "PaymentMethod"]', 'dimensions = ["Brand"]'),
            ('name = "TotalRevenue"', 'name = "Revenue"'),
            ('name = "TotalQuantity"\nsql = "SUM(Quantity)"', 'name = "Largest"\nsql = "MAX(TotalAmount)"'),
        )
        for step in ("drop dimension Country", "rename measure TotalRevenue to Revenue", "drop measure TotalQuantity"):
            self.assertIn(step, plan)
        self.lake.lakesmith("verify")
        self.assert_read(
            "brand, sum(totalorders) as orders, sum(items) as items, cast(sum(revenue) as decimal(38,2)) as revenue,"
            " cast(max(largest) as decimal(12,2)) as largest",
            ["brand", "orders", "items", "revenue", "largest"],
        )
        for engine in self.engines:
            table = engine.table(self.lake.database, "gold")
            names = engine.run(f"select * from {table} limit 1").names
            self.assertNotIn("totalrevenue", names, engine.name)
            self.assertIn("brand", names, engine.name)


class OnMetastore401(GoldDefinition, unittest.TestCase):
    metastore = "4.0.1"
    hive_servers = ("4.0.1", "3.1.3")


class OnMetastore313(GoldDefinition, unittest.TestCase):
    metastore = "3.1.3"
    hive_servers = ("3.1.3",)


class OnMetastore2310(GoldDefinition, unittest.TestCase):
    metastore = "2.3.10"
    hive_servers = ()


if __name__ == "__main__":
    unittest.main()
