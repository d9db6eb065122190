#!/usr/bin/env python3
"""How the throughput grows with the writers on the same tables, and how many swaps that takes.

    eval "$(tests/stack/stack env)"
    LAKESMITH_BIN=target/release/lakesmith tests/measure/writers.py

A topic with six partitions is filled once. Then it is drained into new tables by one daemon, by two and by three of a consumer group, and by
one daemon with three workers, whose files are one commit. Commits are small (--commit-bytes) on purpose: what is measured is what many
commits to one table cost, not how fast a core encodes. All share the machine with the servers; printed are records per second from the
first start to the last end, the commits to bronze, and how many of them met another writer's and were made again on top of it.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faults"))

from kills import MEMBER, Lake  # noqa: E402

PARTITIONS = 6
PATIENCE = 900


def drain(program: str, directory: Path, topic: str, commit_bytes: str, daemons: int, workers: int) -> tuple[float, int, int]:
    """Seconds, commits to bronze, commits that were made again."""
    directory.mkdir()
    settings = (
        f"source.topic={topic}",
        "pipeline.batch_bytes=64KiB",
        f"pipeline.commit_bytes={commit_bytes}",
        f"pipeline.workers={workers}",
        # One file per commit and writer.
        "silver.partition_by=[]",
        *(MEMBER if daemons > 1 else ()),
    )
    lake = Lake(program, directory, settings)
    began = time.monotonic()
    command = ("run", "--until-caught-up", "--log", "info,lakesmith::table=debug")
    running = [lake.start(f"daemon-{number}.log", *command) for number in range(daemons)]
    for number, daemon in enumerate(running):
        try:
            code = daemon.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            code = "none in time"
            daemon.kill()
        if code != 0:
            sys.exit(f"daemon {number}: exit code {code}\n{(directory / f'daemon-{number}.log').read_text()[-4000:]}")
    seconds = time.monotonic() - began
    log = "".join((directory / f"daemon-{number}.log").read_text(errors="replace") for number in range(daemons))
    lake.run("verify", timeout=PATIENCE)
    return seconds, len(re.findall(r"committed table=\S+bronze_amazon_sales ", log)), log.count("another commit was faster")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--commit-bytes", default="512KiB", help="how much a commit of bronze holds at the most")
    arguments = parser.parse_args()
    program = os.environ["LAKESMITH_BIN"]
    with tempfile.TemporaryDirectory(prefix="lakesmith-writers-") as name:
        directory = Path(name)
        (directory / "source").mkdir()
        source = Lake(program, directory / "source")
        source.run("generate", "--rows", str(arguments.rows), "--format", "jsonl", "--output", "sales.jsonl")
        source.run("topic", "create", source.name, "--partitions", str(PARTITIONS))
        source.run("produce", "sales.jsonl", "--topic", source.name, timeout=PATIENCE)
        print("| writers | records/s | commits to bronze | made again |\n| --- | --- | --- | --- |", flush=True)
        for daemons, workers in ((1, 1), (2, 1), (3, 1), (1, 3)):
            lake = directory / f"{daemons}-{workers}"
            seconds, commits, again = drain(program, lake, source.name, arguments.commit_bytes, daemons, workers)
            name = f"{daemons} daemon{'s' * (daemons > 1)}" + (f", {workers} workers" if workers > 1 else "")
            print(f"| {name} | {arguments.rows / seconds:,.0f} | {commits} | {again} |", flush=True)


if __name__ == "__main__":
    main()
