"""What the README's table says of what was seen."""

import unittest

from matrix import LIMITS, Cells, table


class Table(unittest.TestCase):
    def cells(self) -> Cells:
        cells = Cells(swaps={"4.0.1": "false", "3.1.3": "true"})
        for metastore, engine in (("3.1.3", "Trino 476"), ("4.0.1", "HiveServer2 4.0.1"), ("4.0.1", "Spark 4.1.4")):
            with cells.cell(metastore, engine, "gold", "view"):
                pass
        return cells

    def lines(self, cells: Cells) -> list[str]:
        return table(cells.swaps, [[*key, value] for key, value in cells.seen.items()]).splitlines()

    def test_rows_are_ordered_by_metastore_and_engine(self):
        rows = [line.split(" | ")[:3] for line in self.lines(self.cells())[2:5]]
        self.assertEqual(
            rows,
            [
                ["| 4.0.1", "compare-and-swap", "Spark 4.1.4"],
                ["| 4.0.1", "compare-and-swap", "HiveServer2 4.0.1"],
                ["| 3.1.3", "lock", "Trino 476"],
            ],
        )

    def test_the_embedded_metastore_comes_last(self):
        cells = self.cells()
        cells.swaps["embedded"] = "false"
        with cells.cell("embedded", "DuckDB 1.4.4", "gold"), cells.cell("embedded", "Spark 4.1.4", "gold"):
            pass
        rows = [line.split(" | ")[:3] for line in self.lines(cells)[5:7]]
        self.assertEqual(rows, [["| embedded", "compare-and-swap", "Spark 4.1.4"], ["| embedded", "compare-and-swap", "DuckDB 1.4.4"]])

    def test_a_cell_that_failed_once_stays_failed(self):
        cells = self.cells()
        with self.assertRaises(ValueError), cells.cell("4.0.1", "Spark 4.1.4", "gold"):
            raise ValueError
        with cells.cell("4.0.1", "Spark 4.1.4", "gold"):
            pass
        self.assertEqual(cells.seen["4.0.1", "Spark 4.1.4", "gold"], "no")

    def test_a_limit_is_explained_below_the_table(self):
        cells = self.cells()
        cells.limit("4.0.1", "HiveServer2 4.0.1", "bronze", "no Iceberg")
        lines = self.lines(cells)
        self.assertIn("| 4.0.1 | compare-and-swap | HiveServer2 4.0.1 | no (1) | – | – | – | – | yes | yes | – |", lines)
        self.assertEqual(lines[-1], f"(1) {LIMITS['no Iceberg']}")


if __name__ == "__main__":
    unittest.main()
