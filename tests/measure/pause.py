#!/usr/bin/env python3
"""How long a running daemon commits nothing when silver's columns change, while a producer sends all the time.

    eval "$(tests/stack/stack env)"
    LAKESMITH_BIN=target/release/lakesmith tests/measure/pause.py               seven changes, a commit every second; the bar is one interval
    LAKESMITH_BIN=... tests/measure/pause.py --changes 3 --metastore 3.1.3      fewer, with a metastore that locks

Each change adds a derived column, first to the pipeline file and then to the table. Printed for each: from the moment at which the daemon took
the new definition up until it read on, and the time between the two commits of silver around it, less what is usual between two. The bar is
on the median of the latter.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faults"))

from kills import Lake  # noqa: E402
from recovery import wait_for  # noqa: E402

RATE = 500
INTERVAL = 1.0
STORED = 20_000


def moment(line: str) -> float:
    return datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp()


def pauses(log: str) -> tuple[list[tuple[float, float]], list[float]]:
    """For each change the seconds until reading went on, and between the commits of silver around it; and between all others."""
    found, usual, committed, taken_up, read_on = [], [], None, None, None
    for line in log.splitlines():
        if "defines silver anew" in line:
            taken_up, read_on = moment(line), None
        elif "reading continues" in line and taken_up and read_on is None:
            read_on = moment(line)
        elif "committed" in line and "silver_amazon_sales snapshot=" in line:
            gap = moment(line) - committed if committed else None
            committed = moment(line)
            if gap and read_on:
                found.append((read_on - taken_up, gap))
                taken_up = read_on = None
            elif gap and not taken_up:
                usual.append(gap)
    return found, usual


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--changes", type=int, default=7)
    parser.add_argument("--metastore", metavar="VERSION", help="not the stack's main one: 3.1.3 locks")
    parser.add_argument("--bar", type=float, default=INTERVAL, help="seconds that the median may be; 0 for none")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lakesmith-pause-") as name, contextlib.ExitStack() as cleanup:
        settings = (f"pipeline.commit_interval={INTERVAL:g}s",)
        lake = Lake(os.environ["LAKESMITH_BIN"], Path(name), settings, metastore=arguments.metastore)
        file, log = lake.directory / "pipeline.toml", lake.directory / "daemon.log"
        lake.run("topic", "create", lake.name, "--partitions", "3")
        lake.run("generate", "--rows", str(STORED), "--format", "jsonl", "--output", "stored.jsonl")
        lake.run("produce", "stored.jsonl", "--topic", lake.name)
        lake.run("generate", "--rows", str(RATE * 30 * (arguments.changes + 2)), "--seed", "2", "--format", "jsonl", "--output", "more.jsonl")
        producer = lake.start("producer.log", "produce", "more.jsonl", "--topic", lake.name, "--rate", str(RATE))
        cleanup.callback(producer.kill)
        daemon = lake.start("daemon.log", "run")
        cleanup.callback(daemon.kill)
        wait_for("refreshed", log, daemon)
        for number in range(1, arguments.changes + 1):
            text = file.read_text(encoding="utf-8")
            column = f'[[silver.derive]]\nname = "Initial{number}"\nsql = "left(CustomerID, {number})"\n\n[[silver.derive]]'
            file.write_text(text.replace("[[silver.derive]]", column, 1), encoding="utf-8")
            lake.run("schema", "add-column", "silver", f"Initial{number}", "string")
            began = time.monotonic()
            while len(pauses(log.read_text(errors="replace"))[0]) < number:
                if daemon.poll() is not None or time.monotonic() - began > 60:
                    raise SystemExit(f"change {number} was not taken up:\n{log.read_text(errors='replace')[-4000:]}")
                time.sleep(0.2)
            # Some commits that are as usual.
            time.sleep(5 * INTERVAL)
        producer.kill()
        daemon.terminate()
        daemon.wait(timeout=90)
        found, usual = pauses(log.read_text(errors="replace"))
        lake.run("run", "--until-caught-up", timeout=600)
        lake.run("verify", timeout=600)
    between = statistics.median(usual)
    for read_on, gap in found:
        print(f"read on after {read_on:.2f} s, {gap:.2f} s between two commits of silver")
    median, longest = (choose(gap for _, gap in found) - between for choose in (statistics.median, max))
    print(
        f"{len(found)} changes at {RATE} records/s, a commit every {INTERVAL:g} s: read on after "
        f"{statistics.median(read_on for read_on, _ in found):.2f} s; {between:.2f} s between two commits of silver, {median:.2f} s more around "
        f"a change, {longest:.2f} s at the most"
    )
    sys.exit(1 if arguments.bar and median > arguments.bar else 0)


if __name__ == "__main__":
    main()
