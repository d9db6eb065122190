"""Spark, Trino and pyiceberg on the embedded metastore: they read every layer and write Iceberg tables, and lakesmith goes on. DuckDB reads.

LAKESMITH_BIN is the program. No server of the stack is needed; the engines are installed into the stack's cache.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import unittest
from decimal import Decimal
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TESTS / "stack"), str(TESTS / "engines"), str(Path(__file__).resolve().parent)]

from matrix import EMBEDDED, Cells  # noqa: E402
from python_clients import DUCKDB, GOLD, LAYERS, PYICEBERG, PythonClients  # noqa: E402
from stacklib import clients, settings, spark  # noqa: E402
from trino_here import TrinoHere  # noqa: E402

ROWS, MORE = 3_000, 750


class Embedded(PythonClients, unittest.TestCase):
    database = "datalake"

    @classmethod
    def setUpClass(cls):
        cls.cells = Cells(swaps={EMBEDDED: "false"})
        cls.addClassCleanup(cls.cells.save)
        spark.SPARK.install()
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

    def spark(self, *statements: str) -> list[list]:
        environment = {
            **spark.variables(),
            "LAKESMITH_STACK_DIR": str(self.directory),
            "HDFS_URL": f"file://{self.directory}/lakehouse",
            "HIVE_METASTORE_URIS": self.uri,
        }
        return self.engine("spark_sql.py", environment, statements)

    def trino(self, uri: str, *statements: str) -> list[list]:
        return self.engine("trino_sql.py", {**clients.variables(), "TRINO_URL": uri}, statements)

    def engine(self, script: str, environment: dict[str, str], statements: tuple[str, ...]) -> list[list]:
        """The rows that each statement returns."""
        command = [str(TESTS / "stack" / script), *statements]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(done.returncode, 0, "\n".join(str(answer.get("error")) for answer in answers) + done.stderr[-3000:])
        self.assertEqual(len(answers), len(statements))
        return [answer["rows"] for answer in answers]

    def go_on(self, rows: range) -> None:
        """More sales arrive, and lakesmith commits them on top of what others did."""
        with open(self.directory / "sales.jsonl", "ab") as file:
            file.writelines(self.sales[rows.start : rows.stop])
        self.lakesmith("run", "--until-caught-up")
        self.lakesmith("verify")

    def go_on_beside_one_row_of_theirs(self, before: dict[str, int]) -> None:
        """`before` are the counts before an engine inserted a row of its own into silver."""

        def theirs(counts: dict[str, int]) -> int:
            bronze, silver, rejected = (counts[layer] for layer in LAYERS)
            return silver + rejected - bronze

        bronze = before[LAYERS[0]]
        self.go_on(range(bronze, bronze + MORE // 3))
        after = self.counts()
        self.assertEqual(after[LAYERS[0]], bronze + MORE // 3)
        self.assertEqual(theirs(after), theirs(before) + 1)

    def cell(self, engine: str, *columns: str):
        return self.cells.cell(EMBEDDED, engine, *columns)

    def test_spark_reads_every_layer_and_writes(self):
        with self.cell("Spark 4.1.4", "bronze", "silver", "rejected", "gold", "view", "its writes"):
            self.spark_reads_every_layer_and_writes()

    def spark_reads_every_layer_and_writes(self):
        before = self.counts(LAYERS + GOLD)
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
        self.go_on_beside_one_row_of_theirs(before)

    def test_trino_reads_every_layer_and_writes(self):
        tables = (f"iceberg.datalake.{LAYERS[0]}", f"hive.datalake.{GOLD[0]}")
        server = TrinoHere(self.directory / "trino", self.uri, tables)
        server.install()
        self.addCleanup(server.stop)
        server.start()
        with self.cell("Trino 476", "bronze", "silver", "rejected", "gold", "view", "its writes"):
            self.trino_reads_every_layer_and_writes(server.address())

    def trino_reads_every_layer_and_writes(self, uri: str):
        before = self.counts(LAYERS + GOLD)
        answers = self.trino(
            uri,
            # Either catalog leads to the other one's tables.
            *(f"select count(*) from hive.datalake.{table}" for table in LAYERS + GOLD),
            "select cast(sum(TotalAmount) as varchar) from iceberg.datalake.silver_amazon_sales",
            # The view has doubles.
            "select cast(cast(sum(total_revenue) as decimal(38,2)) as varchar) from hive.datalake.gold_amazon_sales_aggregated_view",
            "insert into iceberg.datalake.silver_amazon_sales select * from iceberg.datalake.silver_amazon_sales limit 1",
            "create table iceberg.datalake.trino_own (id bigint, day date) with (partitioning = array['day'])",
            "insert into iceberg.datalake.trino_own values (1, date '2025-01-01'), (2, date '2025-01-02')",
            "alter table iceberg.datalake.trino_own add column note varchar",
            "insert into iceberg.datalake.trino_own values (3, date '2025-01-02', 'n')",
            "delete from iceberg.datalake.trino_own where id = 1",
            "alter table iceberg.datalake.trino_own rename to iceberg.datalake.trino_renamed",
            "select count(*), max(note) from iceberg.datalake.trino_renamed",
            'select count(*) > 2 from iceberg.datalake."trino_renamed$snapshots"',
            "drop table iceberg.datalake.trino_renamed",
            "select count(*) from iceberg.datalake.silver_amazon_sales",
        )
        self.assertEqual({table: answers[at][0][0] for at, table in enumerate(LAYERS + GOLD)}, before)
        # What other tests inserted into silver since gold was computed is in silver alone.
        total, gold = Decimal(answers[5][0][0]), Decimal(answers[6][0][0])
        own = Decimal(self.rows("SELECT sum(TotalAmount) AS t FROM datalake.silver_amazon_sales")[0]["t"])
        self.assertGreaterEqual(total, gold)
        self.assertEqual(answers[14], [[2, "n"]])
        self.assertEqual(answers[15], [[True]])
        self.assertEqual(answers[17], [[before["silver_amazon_sales"] + 1]])
        self.assertGreater(own, total)
        self.go_on_beside_one_row_of_theirs(before)

    def test_pyiceberg_reads_every_layer_and_writes(self):
        with self.cell(PYICEBERG, "bronze", "silver", "rejected", "its writes"):
            self.pyiceberg_reads_every_layer_and_writes()
        for column in ("gold", "view"):
            self.cells.limit(EMBEDDED, PYICEBERG, column, "no Hive")

    def pyiceberg_reads_every_layer_and_writes(self):
        more = self.count("bronze_amazon_sales")
        self.pyiceberg_reads_every_layer()
        self.pyiceberg_writes()
        self.go_on(range(more, more + MORE // 3))
        self.pyiceberg_reads_on_and_drops()

    def test_duckdb_reads_every_layer(self):
        with self.cell(DUCKDB, "bronze", "silver", "rejected", "gold"):
            self.duckdb_reads_every_layer()

    def test_what_was_acknowledged_survives_a_kill_of_the_server(self):
        before = self.pyiceberg("read")
        self.stop()
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=5)
        self.serve()
        self.assertEqual(self.pyiceberg("read"), before)


if __name__ == "__main__":
    unittest.main()
