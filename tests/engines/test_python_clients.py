"""pyiceberg and DuckDB on real metastores, with files in a local directory: neither has HDFS without Hadoop's native library."""

import unittest

from lake import Lake
from matrix import Cells
from python_clients import DUCKDB, PYICEBERG, PythonClients
from stacklib import duckdb, pyiceberg

ROWS = 2_000


class Clients(PythonClients):
    """The tests; below is a class for each metastore."""

    metastore: str

    @classmethod
    def setUpClass(cls):
        cls.cells = Cells()
        cls.addClassCleanup(cls.cells.save)
        duckdb.install(), pyiceberg.install()
        cls.lake = lake = Lake(cls.metastore)
        cls.addClassCleanup(lake.close)
        cls.directory, cls.database, cls.uri = lake.directory, lake.database, lake.environment["HIVE_METASTORE_URIS"]
        lake.environment["LAKESMITH_STORAGE__WAREHOUSE"] = f"file://{lake.directory}/warehouse"
        lake.send(lake.sales(ROWS, seed=1))
        lake.catch_up()

    def lakesmith(self, *arguments: str) -> str:
        return self.lake.output(*arguments)

    def test_duckdb_reads_every_layer(self):
        with self.cells.cell(self.metastore, DUCKDB, "bronze", "silver", "rejected", "gold"):
            self.duckdb_reads_every_layer()

    def pyiceberg_reads_every_layer_and_writes(self):
        with self.cells.cell(self.metastore, PYICEBERG, "bronze", "silver", "rejected", "its writes"):
            self.pyiceberg_reads_every_layer()
            self.pyiceberg_writes()
            self.lake.send(self.lake.sales(ROWS // 4, seed=2))
            self.lake.catch_up()
            self.lake.lakesmith("verify")
            self.pyiceberg_reads_on_and_drops()
        for column in ("gold", "view"):
            self.cells.limit(self.metastore, PYICEBERG, column, "no Hive")


class OnMetastore401(Clients, unittest.TestCase):
    metastore = "4.0.1"

    def test_pyiceberg_does_not_speak_to_it(self):
        refused = self.run_pyiceberg("read").stderr
        self.assertIn("Invalid method name: 'get_table'", refused)
        for column in ("bronze", "silver", "rejected", "its writes"):
            self.cells.limit(self.metastore, PYICEBERG, column, "no get_table")
        for column in ("gold", "view"):
            self.cells.limit(self.metastore, PYICEBERG, column, "no Hive")


# On the newest of the metastores that speak to it.
class PyicebergOnMetastore313(Clients, unittest.TestCase):
    metastore = "3.1.3"

    def test_pyiceberg_reads_every_layer_and_writes(self):
        self.pyiceberg_reads_every_layer_and_writes()


if __name__ == "__main__":
    unittest.main()
