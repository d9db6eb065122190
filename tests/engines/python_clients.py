"""What pyiceberg and DuckDB have to find in a lake whose files lie in a local directory, whichever metastore it is registered in."""

import csv
import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "stack"))

from stacklib import duckdb, pyiceberg  # noqa: E402

PYICEBERG, DUCKDB = "pyiceberg 0.12.0", "DuckDB 1.4.4"
LAYERS = ("bronze_amazon_sales", "silver_amazon_sales", "silver_amazon_sales_rejected")
GOLD = ("gold_amazon_sales_aggregated", "gold_amazon_sales_aggregated_view")


class PythonClients:
    """A class of tests has a directory, a database, the address of its metastore, and a `lakesmith` that returns what a command prints."""

    directory: Path
    database: str
    uri: str

    def rows(self, sql: str) -> list[dict[str, str]]:
        return list(csv.DictReader(self.lakesmith("query", "--output", "csv", sql).splitlines()))

    def count(self, table: str) -> int:
        return int(self.rows(f"SELECT count(*) AS n FROM {self.database}.{table}")[0]["n"])

    def counts(self, tables: tuple[str, ...] = LAYERS) -> dict[str, int]:
        return {table: self.count(table) for table in tables}

    def pyiceberg(self, command: str) -> dict:
        done = self.run_pyiceberg(command)
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])
        return json.loads(done.stdout)

    def run_pyiceberg(self, command: str) -> subprocess.CompletedProcess:
        client = str(Path(__file__).with_name("pyiceberg_client.py"))
        # It looks for a configuration of its own in the home directory.
        environment = {**os.environ, "PYICEBERG_HOME": str(self.directory)}
        arguments = [str(pyiceberg.install()), client, self.uri, self.database, command]
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300)

    def pyiceberg_reads_every_layer(self):
        read = self.pyiceberg("read")
        self.assertEqual(read["rows"], self.counts())
        self.assertEqual(read["tables"], sorted(f"{self.database}.{table}" for table in LAYERS))
        (total,) = self.rows(f"SELECT sum(TotalAmount) AS t FROM {self.database}.silver_amazon_sales")
        self.assertEqual(Decimal(read["total"]), Decimal(total["t"]))

    def pyiceberg_writes(self):
        self.assertEqual(self.pyiceberg("write"), {"rows": 2})
        self.assertEqual(self.count("pyiceberg_renamed"), 2)

    def pyiceberg_reads_on_and_drops(self):
        self.assertEqual(self.pyiceberg("read")["rows"], self.counts())
        self.assertEqual(self.pyiceberg("drop"), {"exists": False})

    def duckdb_reads_every_layer(self):
        """At the metadata files and locations that lakesmith names: DuckDB asks no metastore."""
        shown = {table: self.lakesmith("tables", "show", f"{self.database}.{table}") for table in LAYERS}
        found = {table: re.search(r"^  metadata +(\S+)$", text, re.MULTILINE) for table, text in shown.items()}
        names = dict(zip(("bronze", "silver", "rejected"), (path(found[table][1]) for table in LAYERS)))
        partitions = self.rows(f'SELECT location FROM {self.database}."{GOLD[0]}$partitions"')
        tables = {**names, "gold": [path(row["location"]) for row in partitions]}
        client = str(Path(__file__).with_name("duckdb_client.py"))
        done = subprocess.run([str(duckdb.install()), client, json.dumps(tables)], capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])
        bronze, silver, rejected, gold = (f"{self.database}.{table}" for table in (*LAYERS, GOLD[0]))
        own = {
            "bronze": f'SELECT count(*), sum("offset"), min(md5(value)), max(md5(value)) FROM {bronze}',
            "silver": "SELECT count(*), sum(TotalAmount), sum(Discount), count(DISTINCT OrderID), min(OrderDate), max(OrderDate),"
            f" count(*) FILTER (WHERE Year = 2024 AND Month = 6) FROM {silver}",
            "rejected": f"SELECT count(*), count(DISTINCT reason) FROM {rejected}",
            "gold": f"SELECT count(*), sum(TotalOrders), sum(TotalRevenue), min(window_start) FROM {gold}",
        }
        wanted = {layer: list(self.rows(sql)[0].values()) for layer, sql in own.items()}
        self.assertEqual(json.loads(done.stdout), wanted)
        for layer, values in wanted.items():
            self.assertNotIn(values[0], ("", "0"), layer)


def path(location: str) -> str:
    return location.removeprefix("file://")
