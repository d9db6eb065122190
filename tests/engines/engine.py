"""Spark, Trino and HiveServer2 as sessions that answer in one form, whatever their dialect.

*Invariants*: an answer's column names are in lower case and without the table's name, its types are Hive's; a value has one text in
all engines: decimals with the column's scale, timestamps with microseconds, binary values in base64.
*Failure*: a statement that an engine refuses is an `EngineError` with the engine's words; one without an answer ends the session.
"""

import atexit
import functools
import json
import os
import re
import select
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact
from pathlib import Path
from typing import Optional

STACK = Path(__file__).resolve().parent.parent / "stack"
# The slowest statements are compactions and the first query of a session, on a machine that does much else.
ANSWER_SECONDS = 300

TABLES = {
    "bronze": "bronze_amazon_sales",
    "silver": "silver_amazon_sales",
    "rejected": "silver_amazon_sales_rejected",
    "gold": "gold_amazon_sales_aggregated",
    "view": "gold_amazon_sales_aggregated_view",
}
ICEBERG = ("bronze", "silver", "rejected")

TYPES = {
    "integer": "int",
    "varchar": "string",
    "varbinary": "binary",
    "timestamp_ntz": "timestamp",
    "real": "float",
    # As lakesmith's own SQL calls them.
    "Utf8": "string",
    "Int32": "int",
    "Int64": "bigint",
    "Float64": "double",
    "Date32": "date",
    "Timestamp(µs)": "timestamp",
    "Binary": "binary",
}


# A decimal that loses a digit is an error.
EXACT = Context(prec=80, traps=[Inexact])


class EngineError(Exception):
    pass


@dataclass(frozen=True)
class Answer:
    columns: list[tuple[str, str]]
    rows: list[list]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.columns]

    def value(self):
        ((value,),) = self.rows
        return value

    def text(self) -> str:
        """All of it, as the engine prints a plan or a description."""
        return "\n".join(" ".join("" if value is None else str(value) for value in row) for row in self.rows)


def one_type(name: str) -> str:
    """An engine's name of a type as Hive's."""
    name = re.sub(r"\s", "", name)
    if decimal := re.fullmatch(r"(?:decimal|Decimal128)\((\d+),(\d+)\)", name):
        return f"decimal({decimal[1]},{decimal[2]})"
    name = re.sub(r"^(varchar|timestamp)\(\d+\)$", r"\1", name)
    return TYPES.get(name, name)


def one_value(value, kind: str):
    """A value as all engines must show it."""
    if value is None:
        return None
    if scale := re.fullmatch(r"decimal\(\d+,(\d+)\)", kind):
        # Spark's small ones come with more digits, all of them zero.
        return format(Decimal(str(value)).quantize(Decimal(1).scaleb(-int(scale[1])), context=EXACT), "f")
    if kind == "float":
        return struct.unpack("f", struct.pack("f", value))[0]
    if kind == "double":
        return float(value)
    if kind == "timestamp":
        seconds, _, fraction = str(value).replace(" ", "T").partition(".")
        return f"{seconds}.{fraction:0<6}"
    return value


def answer(columns: list[tuple[str, str]], rows: list[list]) -> Answer:
    named = [(name.rpartition(".")[2].lower(), one_type(kind)) for name, kind in columns]
    return Answer(named, [[one_value(value, kind) for value, (_, kind) in zip(row, named)] for row in rows])


class Engine:
    """One session of an engine on one of the stack's metastores."""

    name: str
    script: str
    quote = "`"

    def __init__(self, metastore: str, *arguments: str) -> None:
        self.metastore = metastore
        self.statements, self.seconds, self.slowest = 0, 0.0, (0.0, "")
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, str(STACK / self.script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def close(self) -> None:
        seconds, sql = self.slowest
        took = f"{self.statements} statements in {self.seconds:.0f} s, the slowest in {seconds:.0f} s: {sql[:60]}"
        print(f"{self.name} on metastore {self.metastore}: {took}", file=sys.stderr)
        self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def table(self, database: str, layer: str) -> str:
        return f"{database}.{TABLES[layer]}"

    def column(self, name: str) -> str:
        return f"{self.quote}{name}{self.quote}"

    def run(self, sql: str) -> Answer:
        self.process.stdin.write(" ".join(sql.split()) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_SECONDS)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.process.kill()
            self.errors.seek(0)
            raise EngineError(f"{self.name} gave no answer to: {sql}\n{self.errors.read()[-4000:]}")
        reply = json.loads(line)
        self.statements, self.seconds = self.statements + 1, self.seconds + reply["seconds"]
        self.slowest = max(self.slowest, (reply["seconds"], reply["sql"]))
        if "error" in reply:
            raise EngineError(f"{self.name} refused: {sql}\n{reply['error']}")
        return answer([tuple(column) for column in reply["columns"]], reply["rows"])


@functools.cache
def session(kind: type, *arguments: str) -> "Engine":
    """One session for all tests of the process: an engine's first statements are by far its slowest."""
    engine = kind(*arguments)
    atexit.register(engine.close)
    return engine


class Spark(Engine):
    name = "Spark 4.1.4"
    script = "spark_sql.py"
    line = "4.1"

    def __init__(self, metastore: str, zone: str = "UTC") -> None:
        super().__init__(metastore, "--spark", self.line, "--metastore", metastore, "--zone", zone)

    def as_of(self, table: str, snapshot: int) -> str:
        return f"{table} VERSION AS OF {snapshot}"

    def metadata_table(self, table: str, name: str) -> str:
        return f"{table}.{name}"


class Spark35(Spark):
    name = "Spark 3.5.9"
    line = "3.5"


class Trino(Engine):
    name = "Trino 476"
    script = "trino_sql.py"
    quote = '"'

    def catalog(self, kind: str) -> str:
        """The main metastore's catalogs have no version in their names."""
        main = os.environ["HIVE_METASTORE_URIS"] == os.environ[variable("HIVE_METASTORE_URIS", self.metastore)]
        return kind if main else variable(kind, self.metastore).lower()

    def table(self, database: str, layer: str) -> str:
        return f"{self.catalog('iceberg' if layer in ICEBERG else 'hive')}.{super().table(database, layer)}"

    def as_of(self, table: str, snapshot: int) -> str:
        return f"{table} FOR VERSION AS OF {snapshot}"

    def metadata_table(self, table: str, name: str) -> str:
        database, _, table = table.rpartition(".")
        return f'{database}."{table}${name}"'


class Hive(Engine):
    script = "hive_sql.py"

    def __init__(self, metastore: str, server: Optional[str] = None) -> None:
        self.server = server or metastore
        self.name = f"HiveServer2 {self.server}"
        super().__init__(metastore, "--server", self.server, "--metastore", metastore)
        # Iceberg 1.4.3 in Hive 3.1.3 reads timestamps, decimals and zstd only without it.
        self.run("set hive.vectorized.execution.enabled=false")


def variable(name: str, version: str) -> str:
    return f"{name}_{version.replace('.', '_')}".upper()
