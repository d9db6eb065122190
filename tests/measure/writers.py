#!/usr/bin/env python3
"""How the throughput of one pipeline grows with the daemons that share its topic.

    eval "$(tests/stack/stack env)"
    LAKESMITH_BIN=target/release/lakesmith tests/measure/writers.py                      1, 2 and 4 daemons, a twentieth of a core each
    LAKESMITH_BIN=... tests/measure/writers.py --metastore 3.1.3                         under locks
    LAKESMITH_BIN=... tests/measure/writers.py --small-commits --rows 20000              while commits are the limit

Each round has its own topic and tables. All daemons of a round are members of one consumer group and have their partitions before the first
record is sent. So that several can be measured on one machine, each gets a small share of its processors (a control group; root is needed),
as if it had a little machine of its own; a commit is due every 2 s. The time runs from when everything was sent until the last commit of
silver. The bar: the best round has 1.5 times the throughput of one daemon.

With --small-commits a commit takes about 500 records, and processors are not limited: it is the round trips to HDFS and to the metastore that
are counted, from the first record sent. No bar: pointers are swapped one after the other, so this grows little.

The log of each daemon tells rows and commits, and `verify` compares the layers in the end.
"""

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faults"))

from kills import MEMBER, Lake  # noqa: E402

PARTITIONS = 8
PATIENCE = 600
BAR = 1.5
# One file per commit and layer, and no refreshes of gold between.
SETTINGS = (*MEMBER, "silver.partition_by=[]", "gold.0.refresh_interval=1h")
SMALL_COMMITS = ("pipeline.batch_rows=500", "pipeline.batch_bytes=64KiB", "pipeline.commit_bytes=256KiB")
LARGE_COMMITS = ("pipeline.commit_interval=2s",)
PERIOD_US = 100_000


class Log:
    """What a daemon's log says, read on from where it was read to."""

    def __init__(self, path: Path):
        self.path, self.at, self.text = path, 0, ""

    def read(self) -> str:
        with open(self.path, errors="replace") as file:
            file.seek(self.at)
            self.text += file.read()
            self.at = file.tell()
        return self.text

    def rows(self, table: str) -> list[int]:
        """Of each commit to a table."""
        commits = re.findall(rf"committed table=\S+\.{table} snapshot=\S+ rows=(\d+)", self.read())
        return [int(rows) for rows in commits]


def wait(condition, daemons, what: str):
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > PATIENCE or any(daemon.poll() is not None for daemon, _ in daemons):
            logs = "\n".join(log.read()[-2000:] for _, log in daemons)
            raise SystemExit(f"{what}: not after {time.monotonic() - began:.0f} s\n{logs}")
        time.sleep(0.02)


@contextlib.contextmanager
def share_of_processors(share: float, process: subprocess.Popen):
    """Holds a process to so much of a core for as long as this lasts."""
    root, quota_us = Path("/sys/fs/cgroup"), int(share * PERIOD_US)
    first_version = (root / "cpu").is_dir()
    parent = root / "cpu" if first_version else root
    group = parent / f"lakesmith-{process.pid}"
    group.mkdir()
    try:
        if first_version:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        (group / "cgroup.procs").write_text(str(process.pid))
        yield
    finally:
        if process.poll() is None:
            (parent / "cgroup.procs").write_text(str(process.pid))
        group.rmdir()


def measure(writers: int, rows: int, metastore, share: float) -> tuple[float, int, int]:
    """Seconds, rows, and commits of bronze in that time. A share of 0 is no limit, and small commits."""
    settings = (*SETTINGS, *(LARGE_COMMITS if share else SMALL_COMMITS))
    with tempfile.TemporaryDirectory(prefix="lakesmith-writers-") as name, contextlib.ExitStack() as cleanup:
        lake = Lake(os.environ["LAKESMITH_BIN"], Path(name), settings, metastore)
        lake.run("generate", "--rows", str(rows), "--format", "jsonl", "--output", "sales.jsonl")
        lake.run("topic", "create", lake.name, "--partitions", str(PARTITIONS))
        daemons = []
        for number in range(writers):
            daemon = lake.start(f"daemon-{number}.log", "run")
            cleanup.callback(daemon.kill)
            daemons.append((daemon, Log(lake.directory / f"daemon-{number}.log")))
        given = "the group gives partitions to this daemon"
        wait(lambda: all(given in log.read() for _, log in daemons), daemons, "every daemon has partitions")
        # Nobody is to be asked for partitions again while the time runs.
        time.sleep(5)

        def done() -> int:
            return sum(sum(log.rows("silver_amazon_sales")) for _, log in daemons)

        def commits() -> int:
            return sum(len(log.rows("bronze_amazon_sales")) for _, log in daemons)

        with contextlib.ExitStack() as limits:
            for daemon, _ in daemons if share else ():
                limits.enter_context(share_of_processors(share, daemon))
            began, rows_before, commits_before = time.monotonic(), 0, 0
            lake.run("produce", "sales.jsonl", "--topic", lake.name, "--key", "OrderID", timeout=PATIENCE)
            if share:
                began, rows_before, commits_before = time.monotonic(), done(), commits()
            wait(lambda: done() >= rows, daemons, f"{rows} rows are in silver")
            seconds, taken, made = time.monotonic() - began, rows - rows_before, commits() - commits_before
        for daemon, _ in daemons:
            daemon.terminate()
        for daemon, _ in daemons:
            daemon.wait(timeout=PATIENCE)
        lake.run("run", "--until-caught-up")
        lake.run("verify")
    return seconds, taken, made


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--share", type=float, default=0.05, help="of a core, for each daemon")
    parser.add_argument("--small-commits", action="store_true")
    parser.add_argument("--writers", default="1,2,4", help="daemons of each round")
    parser.add_argument("--metastore", metavar="VERSION", help="not the stack's main one")
    arguments = parser.parse_args()
    rates = {}
    print("| daemons | seconds | records per second | commits of bronze per second | times one daemon |\n|---|---|---|---|---|", flush=True)
    for writers in map(int, arguments.writers.split(",")):
        share = 0 if arguments.small_commits else arguments.share
        seconds, rows, commits = measure(writers, arguments.rows, arguments.metastore, share)
        rates[writers] = rows / seconds
        times = rates[writers] / next(iter(rates.values()))
        print(f"| {writers} | {seconds:.1f} | {rates[writers]:,.0f} | {commits / seconds:.1f} | {times:.2f} |", flush=True)
    if not arguments.small_commits and max(rates.values()) < BAR * next(iter(rates.values())):
        sys.exit("more daemons are not faster")


if __name__ == "__main__":
    main()
