"""A lake of its own on the stack, which the program under test writes: a topic, a database, a warehouse, a directory for the pipeline file.

LAKESMITH_BIN is the program; the addresses are those of `stack env`.
"""

import datetime
import json
import os
import subprocess
import sys
import tempfile
import uuid
from decimal import Decimal
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "reference"))

from engine import TABLES, Answer, answer, variable  # noqa: E402
from expected import Message, expected  # noqa: E402

# The day before yesterday and yesterday, around midnight and later: several windows, two partitions of gold, no time ahead of the clock.
MOMENTS = ((-2, "09:30:00"), (-2, "23:59:00"), (-1, "00:00:00"), (-1, "12:34:00"), (-1, "12:35:00"))
# What is sent in one go has about these many records.
BURST = 4_000


class Lake:
    def __init__(self, metastore: str) -> None:
        self.temporary = tempfile.TemporaryDirectory(prefix="lakesmith-engines-")
        self.directory = Path(self.temporary.name)
        self.database = f"engines_{metastore.replace('.', '_')}_{uuid.uuid4().hex[:8]}"
        self.environment = {
            **os.environ,
            "HIVE_METASTORE_URIS": os.environ[variable("HIVE_METASTORE_URIS", metastore)],
            "LAKESMITH_TABLES__DATABASE": self.database,
            "LAKESMITH_STORAGE__WAREHOUSE": f"{os.environ['HDFS_URL']}/{self.database}",
            "KAFKA_TOPIC": self.database,
            "LAKESMITH_PIPELINE__ALLOWED_DISORDER": "0s",
        }
        self.sent: list[Message] = []
        self.lakesmith("init")
        self.lakesmith("topic", "create", self.database, "--partitions", "3")

    def close(self) -> None:
        self.temporary.cleanup()

    def lakesmith(self, *arguments: str, exit_code: int = 0) -> str:
        """What the program prints on both outputs."""
        done = self._run(*arguments, exit_code=exit_code)
        return done.stdout + done.stderr

    def output(self, *arguments: str) -> str:
        """What the program prints on standard output."""
        return self._run(*arguments).stdout

    def _run(self, *arguments: str, exit_code: int = 0) -> subprocess.CompletedProcess:
        command = [os.environ["LAKESMITH_BIN"], *arguments]
        done = subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300
        )
        if done.returncode != exit_code:
            raise AssertionError(f"lakesmith {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def sales(self, rows: int, seed: int, bad_share: float = 0.002, months: tuple[str, ...] = ()) -> list[bytes]:
        """Made-up sales, some of them bad; those of certain months (2024-07) alone, where a test needs few partitions."""
        file = self.directory / f"sales-{seed}.jsonl"
        self.lakesmith("generate", "--rows", str(rows), "--seed", str(seed), "--bad-share", str(bad_share), "-o", str(file))
        lines = file.read_bytes().splitlines()
        return [line for line in lines if any(f'"OrderDate":"{month}'.encode() in line for month in months)] if months else lines

    def send(self, values: list[bytes], moments=MOMENTS) -> None:
        """In equal shares at the given moments; some records have a key and a header."""
        midnight = datetime.datetime.now(datetime.timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
        starts = []
        for days, time in moments:
            clock = datetime.time.fromisoformat(time)
            at = midnight + datetime.timedelta(days=days, hours=clock.hour, minutes=clock.minute, seconds=clock.second)
            starts.append(int(at.timestamp() * 1000))
        messages = [Message(value, starts[number * len(starts) // len(values)] + number % 60_000) for number, value in enumerate(values)]
        lines = "".join(json.dumps([message.timestamp_ms, message.value.decode("utf-8", "surrogateescape")]) + "\n" for message in messages)
        producer = [sys.executable, str(Path(__file__).with_name("send.py")), self.database]
        subprocess.run(producer, input=lines, text=True, check=True, timeout=120)
        self.sent += messages

    def catch_up(self) -> str:
        return self.lakesmith("run", "--until-caught-up")

    def expected(self) -> dict:
        return expected(self.sent)

    def query(self, sql: str, columns: list[tuple[str, str]]) -> Answer:
        """The program's own SQL; JSON has no types, so those of the columns are said."""
        return answer(columns, [list(row.values()) for row in self._json(sql)])

    def _json(self, sql: str) -> list[dict]:
        command = [os.environ["LAKESMITH_BIN"], "query", "--output", "json", sql]
        done = subprocess.run(command, cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise AssertionError(f"lakesmith query {sql}: {done.stderr}")
        return [json.loads(line, parse_float=Decimal) for line in done.stdout.splitlines()]

    def described(self, layer: str) -> list[tuple[str, str]]:
        """A table's columns and types, spelt as they are."""
        return [(row["column_name"], row["data_type"]) for row in self._json(f"DESCRIBE {TABLES[layer]}")]

    def types(self, layer: str) -> list[tuple[str, str]]:
        return answer(self.described(layer), []).columns
