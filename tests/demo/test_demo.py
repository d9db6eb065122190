"""The program that users get, run as they run it first: `lakesmith demo`, then its tables against the reference.

LAKESMITH_BIN is the program.
"""

import csv
import os
import subprocess
import sys
import tempfile
import unittest
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "reference"))

from expected import SUMMED, expected, line_messages  # noqa: E402

ROWS = 20_000


class Demo(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="lakesmith-demo-")
        cls.addClassCleanup(directory.cleanup)
        cls.directory = Path(directory.name)
        cls.lakesmith("demo", "--rows", str(ROWS))
        # The same sales once more; one in a thousand is bad, as in the demo.
        cls.lakesmith("generate", "--rows", str(ROWS), "--bad-share", "0.001", "--output", "sales.jsonl")
        with open(cls.directory / "sales.jsonl", "rb") as sales:
            cls.expected = expected(line_messages(sales))

    @classmethod
    def lakesmith(cls, *arguments: str) -> str:
        done = subprocess.run([os.environ["LAKESMITH_BIN"], *arguments], cwd=cls.directory, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise AssertionError(f"lakesmith {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def query(self, sql: str) -> list[dict]:
        answer = self.lakesmith("query", "--output", "csv", sql)
        return list(csv.DictReader(answer.splitlines()))

    def count(self, table: str) -> int:
        return int(self.query(f"SELECT count(*) AS n FROM datalake.{table}")[0]["n"])

    def test_counts(self):
        self.assertEqual(self.count("bronze_amazon_sales"), self.expected["bronze"]["rows"])
        self.assertEqual(self.count("silver_amazon_sales"), self.expected["silver"]["rows"])
        self.assertEqual(self.count("silver_amazon_sales_rejected"), self.expected["rejected"]["rows"])
        self.assertGreater(self.expected["rejected"]["rows"], 0)

    def test_sums_of_silver(self):
        sums = self.expected["silver"]["sums"]
        columns = ", ".join(f"sum({name}) AS {name}" for name in sums)
        (row,) = self.query(f"SELECT {columns} FROM datalake.silver_amazon_sales")
        for name in SUMMED:
            self.assertEqual(Decimal(row[name]), Decimal(sums[name]), name)

    def test_months_of_silver(self):
        rows = self.query("SELECT Year AS y, Month AS m, count(*) AS n FROM datalake.silver_amazon_sales GROUP BY Year, Month ORDER BY 1, 2")
        self.assertEqual([[int(row["y"]), int(row["m"]), int(row["n"])] for row in rows], self.expected["silver"]["months"])

    def test_gold_adds_up_to_silver(self):
        (row,) = self.query("SELECT sum(TotalOrders) AS orders, sum(TotalRevenue) AS revenue FROM datalake.gold_amazon_sales_aggregated")
        self.assertEqual(int(row["orders"]), self.expected["silver"]["rows"])
        self.assertEqual(Decimal(row["revenue"]), Decimal(self.expected["silver"]["sums"]["TotalAmount"]))

    def test_verify_finds_no_difference(self):
        self.lakesmith("verify")


if __name__ == "__main__":
    unittest.main()
