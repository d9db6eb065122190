"""Spark and pyiceberg on the embedded metastore: they read every layer and write Iceberg tables, and lakesmith goes on. DuckDB reads.

LAKESMITH_BIN is the program. No other server is needed; Spark, pyiceberg and DuckDB are installed into the stack's cache.
"""

import csv
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import unittest
from decimal import Decimal
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TESTS / "stack"), str(TESTS / "engines")]

from matrix import EMBEDDED, Cells  # noqa: E402
from stacklib import duckdb, pyiceberg, settings, spark  # noqa: E402

ROWS, MORE = 3_000, 500
LAYERS = ("bronze_amazon_sales", "silver_amazon_sales", "silver_amazon_sales_rejected")
GOLD = ("gold_amazon_sales_aggregated", "gold_amazon_sales_aggregated_view")


class Embedded(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cells = Cells(swaps={EMBEDDED: "false"})
        cls.addClassCleanup(cls.cells.save)
        spark.install()
        directory = tempfile.TemporaryDirectory(prefix="lakesmith-embedded-")
        cls.addClassCleanup(directory.cleanup)
        cls.directory = Path(directory.name)
        cls.lakesmith("init")
        file = cls.directory / "pipeline.toml"
        text = file.read_text().replace('kind = "kafka"', 'kind = "file"')
        file.write_text(text.replace("[source.kafka]", '[source.file]\npath = "sales.jsonl"\n\n[source.kafka]', 1))
        generate = ("generate", "--rows", str(ROWS + MORE), "--bad-share", "0.02", "--format", "jsonl", "--output", "all.jsonl")
        cls.lakesmith(*generate)
        cls.sales = (cls.directory / "all.jsonl").read_bytes().splitlines(keepends=True)
        (cls.directory / "sales.jsonl").write_bytes(b"".join(cls.sales[:ROWS]))
        cls.lakesmith("run", "--until-caught-up")
        cls.port = settings.free_ports(1, set())[0]
        cls.uri = f"thrift://127.0.0.1:{cls.port}"
        cls.serve()
        cls.addClassCleanup(lambda: cls.stop())

    @classmethod
    def serve(cls):
        warehouse = "./lakehouse"
        command = [os.environ["LAKESMITH_BIN"], "metastore", "--warehouse", warehouse, "--listen", f"127.0.0.1:{cls.port}"]
        cls.server = subprocess.Popen(command, cwd=cls.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        if "serving" not in cls.server.stdout.readline():
            raise AssertionError("the metastore does not start")

    @classmethod
    def stop(cls):
        cls.server.kill()
        cls.server.wait()
        cls.server.stdout.close()

    @classmethod
    def lakesmith(cls, *arguments: str) -> str:
        done = subprocess.run([os.environ["LAKESMITH_BIN"], *arguments], cwd=cls.directory, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise AssertionError(f"lakesmith {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def count(self, table: str) -> int:
        answer = self.lakesmith("query", "--output", "csv", f"SELECT count(*) AS n FROM datalake.{table}")
        return int(next(csv.DictReader(answer.splitlines()))["n"])

    def counts(self, tables: tuple[str, ...] = LAYERS) -> dict[str, int]:
        return {table: self.count(table) for table in tables}

    def spark(self, *statements: str) -> list[list]:
        environment = {
            **os.environ,
            **spark.variables(),
            "LAKESMITH_STACK_DIR": str(self.directory),
            "HDFS_URL": f"file://{self.directory}/lakehouse",
            "HIVE_METASTORE_URIS": self.uri,
        }
        script = str(TESTS / "stack" / "spark_sql.py")
        done = subprocess.run([script, *statements], env=environment, capture_output=True, text=True, timeout=600)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(done.returncode, 0, "\n".join(str(answer.get("error")) for answer in answers) + done.stderr[-3000:])
        self.assertEqual(len(answers), len(statements))
        return [answer["rows"] for answer in answers]

    def pyiceberg(self, command: str) -> dict:
        client = str(Path(__file__).with_name("pyiceberg_client.py"))
        # It looks for a configuration of its own in the home directory.
        environment = {**os.environ, "PYICEBERG_HOME": str(self.directory)}
        done = subprocess.run(
            [str(pyiceberg.install()), client, self.uri, command], env=environment, capture_output=True, text=True, timeout=300
        )
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])
        return json.loads(done.stdout)

    def go_on(self, rows: range) -> None:
        """More sales arrive, and lakesmith commits them on top of what others did."""
        with open(self.directory / "sales.jsonl", "ab") as file:
            file.writelines(self.sales[rows.start : rows.stop])
        self.lakesmith("run", "--until-caught-up")
        self.lakesmith("verify")

    def cell(self, engine: str, *columns: str):
        return self.cells.cell(EMBEDDED, engine, *columns)

    def test_spark_reads_every_layer_and_writes(self):
        with self.cell("Spark 4.1.1", "bronze", "silver", "rejected", "gold", "view", "its writes"):
            self.spark_reads_every_layer_and_writes()

    def spark_reads_every_layer_and_writes(self):
        before = self.counts(LAYERS + GOLD)
        more = self.count("bronze_amazon_sales")
        answers = self.spark(
            *(f"select count(*) from datalake.{table}" for table in LAYERS + GOLD),
            "select cast(sum(TotalAmount) as string) from datalake.silver_amazon_sales",
            "select cast(sum(total_revenue) as decimal(38,2)) from datalake.gold_amazon_sales_aggregated_view",
            "insert into datalake.silver_amazon_sales select * from datalake.silver_amazon_sales limit 1",
            "create table datalake.spark_own (id bigint, day date) using iceberg partitioned by (day)",
            "insert into datalake.spark_own values (1, date'2025-01-01'), (2, date'2025-01-02')",
            "alter table datalake.spark_own add column note string first",
            "insert into datalake.spark_own values ('n', 3, date'2025-01-02')",
            "delete from datalake.spark_own where id = 1",
            "alter table datalake.spark_own rename to datalake.spark_renamed",
            "select count(*), max(note) from datalake.spark_renamed",
            "select count(*) from datalake.spark_renamed.snapshots",
            "drop table datalake.spark_renamed",
            "select count(*) from datalake.silver_amazon_sales",
        )
        self.assertEqual({table: answers[at][0][0] for at, table in enumerate(LAYERS + GOLD)}, before)
        total, gold = Decimal(answers[5][0][0]), Decimal(answers[6][0][0])
        self.assertEqual(total, gold)
        self.assertEqual(answers[14], [[2, "n"]])
        self.assertEqual(answers[15], [[3]])
        self.assertEqual(answers[17], [[before["silver_amazon_sales"] + 1]])
        self.go_on(range(more, more + MORE // 2))
        after = self.counts()
        self.assertEqual(after["bronze_amazon_sales"], before["bronze_amazon_sales"] + MORE // 2)
        mine = after["silver_amazon_sales"] + after["silver_amazon_sales_rejected"] - after["bronze_amazon_sales"]
        theirs = before["silver_amazon_sales"] + before["silver_amazon_sales_rejected"] - before["bronze_amazon_sales"]
        self.assertEqual(mine, theirs + 1)

    def test_pyiceberg_reads_every_layer_and_writes(self):
        with self.cell("pyiceberg 0.12.0", "bronze", "silver", "rejected", "its writes"):
            self.pyiceberg_reads_every_layer_and_writes()
        for column in ("gold", "view"):
            self.cells.limit(EMBEDDED, "pyiceberg 0.12.0", column, "no Hive")

    def pyiceberg_reads_every_layer_and_writes(self):
        before = self.counts()
        more = self.count("bronze_amazon_sales")
        read = self.pyiceberg("read")
        self.assertEqual(read["rows"], before)
        self.assertEqual(read["tables"], sorted(f"datalake.{table}" for table in LAYERS))
        (total,) = csv.DictReader(
            self.lakesmith("query", "--output", "csv", "SELECT sum(TotalAmount) AS t FROM datalake.silver_amazon_sales").splitlines()
        )
        self.assertEqual(Decimal(read["total"]), Decimal(total["t"]))
        self.assertEqual(self.pyiceberg("write"), {"rows": 2})
        self.assertEqual(self.count("pyiceberg_renamed"), 2)
        self.go_on(range(more, more + MORE // 2))
        self.assertEqual(self.pyiceberg("read")["rows"], self.counts())
        self.assertEqual(self.pyiceberg("drop"), {"exists": False})

    def test_duckdb_reads_every_layer(self):
        """At the metadata files and locations that lakesmith names: DuckDB asks no metastore."""
        with self.cell("DuckDB 1.4.4", "bronze", "silver", "rejected", "gold"):
            shown = {table: self.lakesmith("tables", "show", f"datalake.{table}") for table in LAYERS}
            found = {table: re.search(r"^  metadata +(\S+)$", text, re.MULTILINE) for table, text in shown.items()}
            names = dict(zip(("bronze", "silver", "rejected"), (path(found[table][1]) for table in LAYERS)))
            partitions = self.rows(f"SELECT location FROM datalake.{GOLD[0]}$partitions")
            tables = {**names, "gold": [path(row["location"]) for row in partitions]}
            client = str(Path(__file__).with_name("duckdb_client.py"))
            done = subprocess.run([str(duckdb.install()), client, json.dumps(tables)], capture_output=True, text=True, timeout=300)
            self.assertEqual(done.returncode, 0, done.stderr[-3000:])
            bronze, silver, rejected, gold = (f"datalake.{table}" for table in (*LAYERS, GOLD[0]))
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

    def rows(self, sql: str) -> list[dict[str, str]]:
        return list(csv.DictReader(self.lakesmith("query", "--output", "csv", sql).splitlines()))

    def test_what_was_acknowledged_survives_a_kill_of_the_server(self):
        before = self.pyiceberg("read")
        self.stop()
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=5)
        self.serve()
        self.assertEqual(self.pyiceberg("read"), before)


def path(location: str) -> str:
    return location.removeprefix("file://")


if __name__ == "__main__":
    unittest.main()
