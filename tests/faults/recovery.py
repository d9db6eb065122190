#!/usr/bin/env python3
"""How long a daemon that was killed by SIGKILL takes until it commits again, with many rows stored.

    eval "$(tests/stack/stack env)"
    LAKESMITH_BIN=target/release/lakesmith tests/faults/recovery.py                 a million rows, seven kills; the bar is 3 s
    LAKESMITH_BIN=... tests/faults/recovery.py --rows 100000 --kills 3 --bar 0      smaller, and without a bar

Measured is the time from the start of the next process to its first commit of bronze, while a producer sends all the time, with a commit
interval of 300 ms, which is part of it. Printed with each time: the load of the machine, and how long the start took until it had asked
all servers (`reading continues`). The bar is on the median.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from kills import Lake

RATE = 500
PATIENCE = 60


def wait_for(text: str, log: Path, daemon) -> float:
    """Seconds until the log says something; the daemon must live until then."""
    began = time.monotonic()
    while text not in (log.read_text(errors="replace") if log.exists() else ""):
        if daemon.poll() is not None or time.monotonic() - began > PATIENCE:
            raise SystemExit(f"`{text}` is not in the log:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.005)
    return time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=7)
    parser.add_argument("--metastore", metavar="VERSION", help="not the stack's main one: 3.1.3 locks")
    parser.add_argument("--bar", type=float, default=3.0, help="seconds that the median may take; 0 for none")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lakesmith-recovery-") as name, contextlib.ExitStack() as cleanup:
        lake = Lake(os.environ["LAKESMITH_BIN"], Path(name), metastore=arguments.metastore)
        began = time.monotonic()
        lake.run("generate", "--rows", str(arguments.rows), "--format", "jsonl", "--output", "stored.jsonl")
        lake.run("topic", "create", lake.name, "--partitions", "3")
        lake.run("produce", "stored.jsonl", "--topic", lake.name, timeout=1_200)
        lake.run("run", "--until-caught-up", timeout=1_200)
        print(f"{arguments.rows} rows stored after {time.monotonic() - began:.0f} s", flush=True)
        more = RATE * (arguments.kills + 2) * PATIENCE
        lake.run("generate", "--rows", str(more), "--seed", "2", "--format", "jsonl", "--output", "more.jsonl")
        producer = lake.start("producer.log", "produce", "more.jsonl", "--topic", lake.name, "--rate", str(RATE))
        cleanup.callback(producer.kill)
        daemon = lake.start("daemon-0.log", "run")
        cleanup.callback(lambda: daemon.kill())
        wait_for("refreshed", lake.directory / "daemon-0.log", daemon)
        times = []
        for number in range(1, arguments.kills + 1):
            time.sleep(1 + number % 3 / 3)
            daemon.kill()
            daemon.wait()
            log = lake.directory / f"daemon-{number}.log"
            started = time.monotonic()
            daemon = lake.start(log.name, "run")
            wait_for("reading continues", log, daemon)
            asked = time.monotonic() - started
            wait_for("bronze_amazon_sales snapshot=", log, daemon)
            times.append(time.monotonic() - started)
            print(f"{times[-1]:.2f} s to the first commit, {asked:.2f} s of it until reading continued, load {os.getloadavg()[0]:.1f}", flush=True)
        producer.kill()
        daemon.terminate()
        daemon.wait(timeout=90)
        lake.run("run", "--until-caught-up", timeout=1_200)
        lake.run("verify", timeout=1_200)
    median = statistics.median(times)
    print(f"recovery with {arguments.rows} rows stored: {median:.2f} s in the median of {len(times)}, {max(times):.2f} s at the most")
    sys.exit(1 if arguments.bar and median > arguments.bar else 0)


if __name__ == "__main__":
    main()
