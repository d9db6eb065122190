#!/usr/bin/env python3
"""How long it takes until a message that was sent is in silver, and in gold, while messages come at a steady rate.

    benches/compare/freshness.py --program target/release/lakesmith            5,000 rows a second for a minute, a commit every second
    benches/compare/freshness.py --program ... --rate 1000 --seconds 20

Starts a stack of its own and stops it. The sales are of today, as live ones are, so silver gets one table partition. A message counts from its
timestamp in Kafka, which the producer gives it, to the commit of silver that holds its offset, and to the end of the first refresh of gold
that began after that: from then on any query sees it. Printed: median, 95th and 99th percentile, and the daemon's processor time as a share
of one core. What comes in the first seconds, while the daemon starts, is not counted.
"""

import argparse
import bisect
import csv
import datetime
import io
import re
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from compare import PARTITIONS, Comparison, Stack, parsed
from watch import cost

WARM_UP = 5.0
COMMIT = re.compile(r'committed table=\S+\.silver_amazon_sales snapshot=.*? offsets="?([^"]*?)"? ?(?:lag=\S+ )?ms=')
REFRESH = re.compile(r"refreshed table=.*? ms=(\d+)")


def moment(line: str) -> float:
    return datetime.datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp()


def events(log: str) -> tuple[dict[int, list[tuple[int, float]]], list[tuple[float, float]]]:
    """By topic partition the next offset after each commit of silver, with its time; and when each refresh of gold began and ended."""
    commits: dict[int, list[tuple[int, float]]] = {}
    refreshes = []
    for line in log.splitlines():
        if found := COMMIT.search(line):
            for partition, end in re.findall(r"(\d+):\[\d+,(\d+)\)", found[1]):
                commits.setdefault(int(partition), []).append((int(end), moment(line)))
        elif found := REFRESH.search(line):
            refreshes.append((moment(line) - int(found[1]) / 1_000, moment(line)))
    return commits, refreshes


def percentiles(values: list[float]) -> str:
    values = sorted(values)
    at = lambda share: values[min(int(len(values) * share), len(values) - 1)]  # noqa: E731
    return f"{at(0.5):.2f} s in the median, 95 % within {at(0.95):.2f} s, 99 % within {at(0.99):.2f} s"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--refresh", default="2s", help="gold.refresh_interval")
    arguments = parsed(parser)
    with Stack() as stack, tempfile.TemporaryDirectory(prefix="lakesmith-freshness-") as name:
        here = Comparison(arguments.program, stack, Path(name), interval=1)
        here.run(here.lakesmith("init"))
        topic = f"fresh_{uuid.uuid4().hex[:12]}"
        settings = (*here.settings(topic, topic), f"gold.0.refresh_interval={arguments.refresh}")
        here.create_topic(topic, PARTITIONS)
        rows = arguments.rate * arguments.seconds
        sales = here.sales_of_today(rows)
        log = here.directory / "daemon.log"
        with open(log, "wb") as errors:
            daemon = subprocess.Popen(here.lakesmith("run", settings=settings), cwd=name, env=here.environment, stderr=errors)
        produce = here.lakesmith("produce", str(sales), "--topic", topic, "--key", "OrderID", "--rate", str(arguments.rate), settings=settings)
        while "reading" not in log.read_text(errors="replace"):
            time.sleep(0.1)
        began, before = time.time(), cost(daemon.pid)[0]
        here.run(produce)
        ended, after = time.time(), cost(daemon.pid)[0]
        daemon.terminate()
        if daemon.wait(timeout=60) != 0:
            raise SystemExit(log.read_text(errors="replace"))
        sql = f'SELECT partition, "offset", CAST("timestamp" AS BIGINT) AS us FROM {topic}.bronze_amazon_sales'
        sent = csv.DictReader(io.StringIO(here.run(here.lakesmith("query", sql, "--output", "csv", settings=settings))))
        commits, refreshes = events(log.read_text(errors="replace"))
        ends = {partition: [end for end, _ in entries] for partition, entries in commits.items()}
        starts = [start for start, _ in refreshes]
        silver, gold = [], []
        for message in sent:
            at, partition = int(message["us"]) / 1_000_000, int(message["partition"])
            if at < began + WARM_UP:
                continue
            committed = commits[partition][bisect.bisect_right(ends[partition], int(message["offset"]))][1]
            silver.append(committed - at)
            gold.append(refreshes[bisect.bisect_left(starts, committed)][1] - at)
    share = (after - before) / (ended - began)
    print(f"{rows / (ended - began):,.0f} rows a second for {ended - began:.0f} s, a commit every second, gold refreshed every {arguments.refresh}")
    print(f"silver: {percentiles(silver)}")
    print(f"gold:   {percentiles(gold)}")
    print(f"the daemon took {share:.0%} of a core")


if __name__ == "__main__":
    main()
