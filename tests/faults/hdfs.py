#!/usr/bin/env python3
"""HDFS that refuses to be written to while a daemon works: the NameNode in safe mode, and a directory over its space quota (what a full
disk looks like to a client that is not the last one to find room).

    eval "$(tests/stack/stack env)"
    LAKESMITH_BIN=... tests/faults/hdfs.py

Each is put in force under a daemon that commits, and lifted some seconds later. The daemon must stay alive, say in its log what it waits
for and what leads out, go on by itself when that is lifted, and lose and double nothing: at the end `lakesmith verify` compares the
layers, and Spark counts what was sent.

All of the stack's HDFS is in safe mode for a while: nothing else may be tested beside this.
"""

import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable

from kills import TESTS, Lake, differences

sys.path.insert(0, str(TESTS / "stack"))

from stacklib import artifacts  # noqa: E402
from stacklib.server import java  # noqa: E402

# Rows that are sent each second, and at a time.
RATE = 200
PIECE = 400
# More than will be needed.
ROWS = 100_000
# How long a fault is in force, in seconds; long enough for several tries.
PAUSE = 8
# How soon the daemon must commit again: the longest pause between its tries (pipeline.retry.max_delay below), and a busy machine.
PATIENCE = 60
LOG = "daemon.log"


def dfsadmin(*arguments: str) -> str:
    classpath = [os.environ["HADOOP_CONF_DIR"], f"{artifacts.maven('hadoop')}/*"]
    command = java(128, classpath, "org.apache.hadoop.hdfs.tools.DFSAdmin", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise SystemExit(f"dfsadmin {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


class Daemon:
    def __init__(self, lake: Lake):
        self.lake = lake
        self.process = lake.start(LOG, "run")

    def log(self, since: int = 0) -> str:
        with open(self.lake.directory / LOG, errors="replace") as file:
            return file.read()[since:]

    def wait_for(self, text: str, since: int, times: int = 1) -> float:
        """Seconds until the log says something so many times; the daemon must live until then."""
        began = time.monotonic()
        while self.log(since).count(text) < times:
            if self.process.poll() is not None:
                raise SystemExit(f"the daemon ended by itself with {self.process.returncode}:\n{self.log()[-4000:]}")
            if time.monotonic() - began > PATIENCE:
                raise SystemExit(f"`{text}` not within {PATIENCE} s:\n{self.log(since)[-4000:]}")
            time.sleep(0.05)
        return time.monotonic() - began


class Feed(threading.Thread):
    """Sends sales, piece by piece, until it is stopped; `sent.jsonl` holds what it has sent."""

    def __init__(self, lake: Lake):
        super().__init__()
        self.lake, self.rows, self.failure, self.enough = lake, 0, None, threading.Event()

    def run(self):
        try:
            with open(self.lake.directory / "sales.jsonl", "rb") as sales, open(self.lake.directory / "sent.jsonl", "wb") as sent:
                while not self.enough.is_set():
                    piece = list(itertools.islice(sales, PIECE))
                    (self.lake.directory / "piece.jsonl").write_bytes(b"".join(piece))
                    self.lake.run("produce", "piece.jsonl", "--topic", self.lake.name, "--rate", str(RATE))
                    sent.writelines(piece)
                    self.rows += len(piece)
        except BaseException as failure:  # told by `stop`
            self.failure = failure

    def stop(self):
        self.enough.set()
        self.join()
        if self.failure:
            raise SystemExit(f"the feed failed: {self.failure}")


def survive(daemon: Daemon, name: str, begin: Callable, lift: Callable, told: list[str]):
    """Puts a fault in force under the daemon and lifts it. Each of `told` must stand in one line of its log."""
    daemon.wait_for("committed", len(daemon.log()), times=3)
    begin()
    in_force = len(daemon.log())
    try:
        told_after = daemon.wait_for(told[0], in_force)
        time.sleep(PAUSE)
    finally:
        lift()
    lifted = len(daemon.log())
    again_after = daemon.wait_for("committed", lifted, times=3)
    lines = [line for line in daemon.log(in_force).splitlines() if all(part in line for part in told)]
    if not lines:
        raise SystemExit(f"{name}: no line says all of {told}:\n{daemon.log(in_force)[:4000]}")
    errors = [line for line in daemon.log(in_force).splitlines() if " ERROR " in line]
    if errors:
        raise SystemExit(f"{name}: someone would have had to act:\n" + "\n".join(errors))
    print(f"{name}: told after {told_after:.1f} s, committed again {again_after:.1f} s after it was lifted\n  {lines[0]}", flush=True)


def main():
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lakesmith-hdfs-") as name, contextlib.ExitStack() as cleanup:
        lake = Lake(os.environ["LAKESMITH_BIN"], Path(name))
        lake.settings += ["pipeline.retry.initial_delay=250ms", "pipeline.retry.max_delay=2s", "pipeline.retry.attempts=1000"]
        lake.run("generate", "--rows", str(ROWS), "--format", "jsonl", "--bad-share", "0.005", "--output", "sales.jsonl")
        lake.run("topic", "create", lake.name, "--partitions", "3")
        feed = Feed(lake)
        feed.start()
        cleanup.callback(feed.enough.set)
        daemon = Daemon(lake)
        cleanup.callback(daemon.process.kill)
        survive(
            daemon,
            "NameNode in safe mode",
            lambda: dfsadmin("-safemode", "enter"),
            lambda: dfsadmin("-safemode", "leave"),
            ["safe mode", "dfsadmin -safemode leave"],
        )
        survive(
            daemon,
            "directory over its space quota",
            lambda: dfsadmin("-setSpaceQuota", "1m", f"/{lake.name}"),
            lambda: dfsadmin("-clrSpaceQuota", f"/{lake.name}"),
            ["quota", "dfsadmin -setSpaceQuota"],
        )
        feed.stop()
        daemon.process.terminate()
        if daemon.process.wait(timeout=90) != 0:
            raise SystemExit(f"the daemon left with {daemon.process.returncode}:\n{daemon.log()[-4000:]}")
        lake.run("run", "--until-caught-up")
        lake.run("verify")
        wrong = differences(lake, lake.directory / "sent.jsonl")
    for line in wrong:
        print(line)
    print(f"2 faults of HDFS, {feed.rows} rows, {time.monotonic() - began:.0f} s; "
          + ("nothing lost, nothing doubled" if not wrong else "WRONG"))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
