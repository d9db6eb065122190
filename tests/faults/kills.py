#!/usr/bin/env python3
"""Kills daemons and servers at random while records arrive, then counts with another engine whether anything is lost or doubled.

    eval "$(tests/stack/stack env)"
    tests/faults/kills.py --kills 200               the long form: two daemons on the same tables, killed in turn
    tests/faults/kills.py --kills 15 --servers      each server of the stack killed and restarted once as well, and stopped
                                                    by SIGSTOP for a while
    tests/faults/kills.py --kills 15 --text         with bronze as text files and silver as plain Parquet files; goes with --servers and --group
    tests/faults/kills.py --kills 60 --group        three daemons in one consumer group, which share the partitions
    tests/faults/kills.py --metastore 3.1.3         on a metastore that does not compare: each commit takes the table's lock, and whoever
                                                    was killed with one holds the others up for the lock timeout

Without --group two daemons work on the same tables by mistake the whole time; the offsets keep them apart. A producer sends until all kills are done.
At the end one run catches up, `lakesmith verify` compares the layers, and Spark counts bronze's records and coordinates and sums silver;
the sums come from Python's json and decimal modules. The last line says how many kills, rows and seconds it was.

The seed is printed and may be given again (--seed); what the kernel makes of the times is not repeatable.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Optional

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "reference"))

from expected import SUMMED, expected, line_messages  # noqa: E402

# In the order in which they are killed. The NameNode takes longest. The second metastore is another one on the same database.
SERVERS = ("metastore", "kafka", "datanode", "namenode", *(["metastore-second"] if "HIVE_METASTORE_URIS_SECOND" in os.environ else []))
# Rows that the producer sends each second.
RATE = 400
# What makes daemons members of a group that misses its dead soon.
MEMBER = (
    "source.kafka.assignment=group",
    "source.kafka.options.session.timeout.ms=6000",
    "source.kafka.options.heartbeat.interval.ms=500",
)
# By year alone: a commit brings a file for each partition, and there are three commits a second.
PLAIN = ("bronze.format=hive", "silver.format=hive", 'silver.partition_by=["Year"]')
# How long a server is stopped by SIGSTOP, or stays dead, in seconds.
PAUSE = 4


class Lake:
    """One pipeline of its own on the stack."""

    def __init__(self, program: str, directory: Path, more_settings: tuple[str, ...] = (), metastore: Optional[str] = None):
        self.program, self.directory, self.metastore = program, directory, metastore
        self.name = f"kills_{uuid.uuid4().hex[:12]}"
        self.settings = [
            f"tables.database={self.name}",
            f"storage.warehouse={os.environ['HDFS_URL']}/{self.name}",
            f"source.topic={self.name}",
            f"source.kafka.brokers={os.environ['KAFKA_BROKER']}",
            f"metastore.uris={json.dumps(metastores(metastore))}",
            "pipeline.commit_interval=300ms",
            # A stopped server must not outlast the test's patience.
            "metastore.call_timeout=10s",
            "storage.call_timeout=10s",
            # A DataNode keeps a whole block free for each file that is open, also of a writer that was killed, until its lease ends.
            "storage.block_size=8MiB",
            f"source.kafka.group_id={self.name}",
            *more_settings,
        ]
        self.run("init")

    def command(self, *arguments: str) -> list[str]:
        flags = [] if arguments[0] in ("init", "generate") else [word for one in self.settings for word in ("--set", one)]
        return [self.program, *arguments, *flags]

    def run(self, *arguments: str, timeout: float = 300) -> str:
        done = subprocess.run(self.command(*arguments), cwd=self.directory, capture_output=True, text=True, timeout=timeout)
        if done.returncode != 0:
            raise SystemExit(f"lakesmith {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, log: str, *arguments: str) -> subprocess.Popen:
        with open(self.directory / log, "ab") as file:
            return subprocess.Popen(self.command(*arguments), cwd=self.directory, stdin=subprocess.DEVNULL, stdout=file, stderr=file)


def metastores(version: Optional[str]) -> list[str]:
    """That of a version, or the main one and the second one if the stack has it."""
    if version:
        return [os.environ[f"HIVE_METASTORE_URIS_{version.replace('.', '_')}"]]
    names = ("HIVE_METASTORE_URIS", "HIVE_METASTORE_URIS_SECOND")
    return [os.environ[name] for name in names if name in os.environ]


def stack(*arguments: str) -> str:
    done = subprocess.run([str(TESTS / "stack" / "stack"), *arguments], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise SystemExit(f"stack {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


def server_pid(name: str) -> int:
    # Its exit code says whether all servers are ready; one that was just started may not be.
    status = subprocess.run([str(TESTS / "stack" / "stack"), "status"], capture_output=True, text=True, timeout=120).stdout
    line = next(line for line in status.splitlines() if line.split()[0] == name)
    return int(line.split("pid")[1].split()[0])


class Daemons:
    """Daemons on the same tables; what is killed is started again."""

    def __init__(self, lake: Lake, group: bool):
        self.lake, self.group = lake, group
        self.processes = [self.begin(number) for number in range(3 if group else 2)]
        self.kills = 0

    def begin(self, number: int) -> subprocess.Popen:
        # One of a group keeps its partitions while it is dead, the others' go to those that live.
        named = ["--set", "source.kafka.group_instance_id=zero"] if self.group and number == 0 else []
        return self.lake.start(f"daemon-{number}.log", "run", *named)

    def kill(self, number: int):
        daemon = self.processes[number]
        if daemon.poll() is not None:
            self.complain(number)
        daemon.kill()
        daemon.wait()
        self.kills += 1
        self.processes[number] = self.begin(number)

    def complain(self, number: int):
        log = (self.lake.directory / f"daemon-{number}.log").read_text(errors="replace")
        raise SystemExit(f"daemon {number} ended by itself with {self.processes[number].returncode}:\n{log[-4000:]}")

    def check(self):
        for number, daemon in enumerate(self.processes):
            if daemon.poll() is not None:
                self.complain(number)

    def stop(self):
        """As an operator does: all must commit and leave."""
        for daemon in self.processes:
            daemon.send_signal(signal.SIGTERM)
        for number, daemon in enumerate(self.processes):
            try:
                daemon.wait(timeout=90)
            except subprocess.TimeoutExpired:
                daemon.kill()
                raise SystemExit(f"daemon {number} did not leave within 90 s of SIGTERM")


def disturb_servers(daemons: Daemons):
    for name in SERVERS:
        print(f"killing {name}", flush=True)
        stack("kill", name)
        time.sleep(PAUSE)
        stack("start", name)
        daemons.check()
        print(f"stopping {name} by SIGSTOP", flush=True)
        pid = server_pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(PAUSE)
        finally:
            os.kill(pid, signal.SIGCONT)
        time.sleep(2)
        daemons.check()


def spark(metastore: Optional[str], statements: list[str]) -> list[list]:
    named = ["--metastore", metastore] if metastore else []
    command = [sys.executable, str(TESTS / "stack" / "spark_sql.py"), *named, *statements]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0:
        raise SystemExit(f"Spark: {done.stdout}{done.stderr}")
    return [answer["rows"][0] for answer in answers]


def differences(lake: Lake, sent: Path) -> list[str]:
    """What Spark finds in the tables against what was sent."""
    with open(sent, "rb") as messages:
        wanted = expected(line_messages(messages))
    table = {layer: f"{lake.name}.{name}_amazon_sales{rest}" for layer, name, rest in
             (("bronze", "bronze", ""), ("silver", "silver", ""), ("rejected", "silver", "_rejected"), ("gold", "gold", "_aggregated"))}
    sums = ", ".join(f"sum({name})" for name in SUMMED)
    (bronze, distinct), (spread,), (silver, silver_distinct, *silver_sums), (rejected,), (orders, revenue) = spark(lake.metastore, [
        f"select count(*), count(distinct `partition`, `offset`) from {table['bronze']}",
        f"select sum(length) from (select max(`offset`) - min(`offset`) + 1 as length from {table['bronze']} group by `partition`)",
        f"select count(*), count(distinct `partition`, `offset`), {sums} from {table['silver']}",
        f"select count(*) from {table['rejected']}",
        f"select sum(TotalOrders), sum(TotalRevenue) from {table['gold']}",
    ])
    found = {
        "bronze rows": (bronze, wanted["bronze"]["rows"]),
        "bronze coordinates": (distinct, wanted["bronze"]["rows"]),
        "bronze offsets without a hole": (spread, wanted["bronze"]["rows"]),
        "silver rows": (silver, wanted["silver"]["rows"]),
        "silver coordinates": (silver_distinct, wanted["silver"]["rows"]),
        "rejected rows": (rejected, wanted["rejected"]["rows"]),
        "gold orders": (orders, wanted["silver"]["rows"]),
        "gold revenue": (Decimal(revenue), Decimal(wanted["silver"]["sums"]["TotalAmount"])),
    }
    for name, value in zip(SUMMED, silver_sums):
        found[f"sum of {name}"] = (Decimal(value), Decimal(wanted["silver"]["sums"][name]))
    return [f"{what}: found {is_}, sent {was}" for what, (is_, was) in found.items() if is_ != was]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=15)
    parser.add_argument("--servers", action="store_true", help="kill, restart and stop each server as well")
    parser.add_argument("--group", action="store_true", help="three daemons in one consumer group instead of two by mistake")
    parser.add_argument("--text", action="store_true", help="bronze and silver as plain Hive tables")
    parser.add_argument("--metastore", metavar="VERSION", help="not the stack's main one")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments = parser.parse_args()
    if arguments.servers and arguments.metastore:
        parser.error("--servers kills the main metastore")
    print(f"seed {arguments.seed}", flush=True)
    chance = random.Random(arguments.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lakesmith-kills-") as name, contextlib.ExitStack() as cleanup:
        settings = (*(MEMBER if arguments.group else ()), *(PLAIN if arguments.text else ()))
        lake = Lake(os.environ["LAKESMITH_BIN"], Path(name), settings, arguments.metastore)
        # More than will be needed: the producer is stopped when the kills are done.
        rows = int(RATE * (arguments.kills * 2 + (90 if arguments.servers else 0) + 20))
        lake.run("generate", "--rows", str(rows), "--format", "jsonl", "--bad-share", "0.005", "--output", "sales.jsonl")
        lake.run("topic", "create", lake.name, "--partitions", "6" if arguments.group else "3")
        producer = lake.start("producer.log", "produce", "sales.jsonl", "--topic", lake.name, "--rate", str(RATE))
        cleanup.callback(producer.kill)
        daemons = Daemons(lake, arguments.group)
        cleanup.callback(lambda: [daemon.kill() for daemon in daemons.processes])
        for number in range(arguments.kills):
            time.sleep(chance.uniform(0.2, 3.0))
            daemons.kill(number % len(daemons.processes))
        if arguments.servers:
            disturb_servers(daemons)
        # The rest at once: a producer that is killed would not say what it has sent.
        producer.wait(timeout=rows / RATE + 120)
        if producer.returncode != 0:
            raise SystemExit(f"the producer failed: {(lake.directory / 'producer.log').read_text()[-2000:]}")
        daemons.stop()
        lake.run("run", "--until-caught-up")
        lake.run("verify")
        wrong = differences(lake, lake.directory / "sales.jsonl")
        told = sum("is not where this daemon left it" in line for number in range(len(daemons.processes))
                   for line in (lake.directory / f"daemon-{number}.log").read_text(errors="replace").splitlines())
    for line in wrong:
        print(line)
    seconds = time.monotonic() - began
    print(f"{daemons.kills} kills, {rows} rows, {seconds:.0f} s; {told} times a daemon was told that the other had been faster; "
          + ("nothing lost, nothing doubled" if not wrong else "WRONG"))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
