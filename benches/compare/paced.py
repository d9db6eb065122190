#!/usr/bin/env python3
"""lakesmith beside Spark Structured Streaming and Kafka Connect while rows come at a steady rate, as they do on most days.

    benches/compare/paced.py --program target/release/lakesmith                10,000 rows a second for three minutes, a commit every 10 s
    benches/compare/paced.py --program ... --five-years                        with sixty table partitions in each commit
    benches/compare/paced.py --program ... --rate 2000 --seconds 120 --contenders spark-iceberg

Starts a stack of its own and stops it. Each contender in turn is started at the moment at which its empty topic begins to be filled, and runs
until all rows are in all its layers. The sales are of today, as live ones are, so that silver gets one table partition, or of the last five
years as in compare.py, whose jobs and settings these are.

What is counted is the steady part, without start and warm-up: from the first commit at least 20 s after the contender's first commit, to
the end. Its rows are those that were not committed before it. A commit is one of silver, or of the only table; Spark's queries begin a batch
at the same moments, gold every third one, so theirs is one of gold. lakesmith's end includes its stop, which brings gold up to date. Of each:
the processor seconds of all its processes in that time, rows per processor second, the share of one core; processor seconds from its start to
the end. Neither servers nor the producer are counted. The table goes to benches/results.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import tempfile
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from compare import NAMES, PARTITIONS, Comparison, Stack, parsed_with_contenders
from freshness import events
from watch import Watch


def feed(here: Comparison, topic: str, sales: Path, rate: int) -> float:
    """Sends the file at so many rows a second; returns how many they were. In small bursts: a pause after each single row costs the
    producer most of a core, which the contender needs."""
    command = here.lakesmith("produce", "-", "--format", "jsonl", "--topic", topic, "--key", "OrderID", "--broker", here.environment["KAFKA_BROKER"])
    producer = subprocess.Popen(command, cwd=here.directory, env=here.environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    began, sent = time.monotonic(), 0
    with open(sales, "rb") as lines, producer.stdin as messages:
        for line in lines:
            messages.write(line)
            sent += 1
            if sent % max(1, rate // 10) == 0:
                messages.flush()
                time.sleep(max(0.0, began + sent / rate - time.monotonic()))
    if producer.wait() != 0:
        raise SystemExit(f"the producer ended with {producer.returncode}")
    return sent / (time.monotonic() - began)


def rows(log: str) -> int:
    """How many silver has, by lakesmith's log."""
    commits, _ = events(log)
    return sum(ends[-1][0] for ends in commits.values())


def measure(here: Comparison, contender: str, sales: Path, count: int, rate: int) -> dict:
    name = f"p_{uuid.uuid4().hex[:12]}"
    here.create_topic(name, PARTITIONS)
    own = contender == "lakesmith"
    command = here.lakesmith("run", settings=here.settings(name, name)) if own else here.job(contender, name, name, count)
    log, out = here.directory / "paced.log", here.directory / "paced.out"
    with open(log, "wb") as errors, open(out, "wb") as output, ThreadPoolExecutor() as pool:
        process = subprocess.Popen(command, cwd=here.directory, env=here.environment, stdout=output, stderr=errors)
        try:
            feeding = pool.submit(feed, here, name, sales, rate)
            result = follow(process, feeding, log, count) if own else follow_job(process, feeding, log, out)
        finally:
            process.terminate()
            process.wait()
        return {**result, "rate": feeding.result()}


def follow(process: subprocess.Popen, feeding: Future, log: Path, count: int) -> dict:
    """lakesmith, until it has all rows and was stopped: then gold has them too."""
    watch = Watch(process.pid)
    while watch.rows < count:
        time.sleep(0.2)
        check(process, feeding, log)
        silver = rows(log.read_text(errors="replace"))
        watch.committed(silver, silver)
    process.terminate()
    _, process.returncode, usage = os.wait4(process.pid, 0)
    check(process, feeding, log)
    return watch.result((usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024))


def follow_job(process: subprocess.Popen, feeding: Future, log: Path, out: Path) -> dict:
    while process.poll() is None:
        time.sleep(0.2)
        check(process, feeding, log)
    return json.loads(out.read_text().splitlines()[-1])


def check(process: subprocess.Popen, feeding: Future, log: Path) -> None:
    if process.returncode:
        raise SystemExit(f"{process.args[0]} ended with {process.returncode}:\n{log.read_text(errors='replace')}")
    if feeding.done():
        feeding.result()


def table(found: dict[str, dict]) -> str:
    """A Markdown table, with what each is as a ratio of lakesmith."""
    lines = [
        "| | steady part | rows in it | CPU-s in it | rows per CPU-s | of one core | CPU-s with the start | peak memory | first commit |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    own, own_cpu = found["lakesmith"]["steady"], found["lakesmith"]["cpu"]
    for name, result in found.items():
        steady = result["steady"]
        per_cpu = steady["rows"] / steady["cpu"]
        ratio = "" if name == "lakesmith" else f" (1/{own['rows'] / own['cpu'] / per_cpu:.1f})"
        times = "" if name == "lakesmith" else f" ({result['cpu'] / own_cpu:.1f} ×)"
        lines.append(
            f"| {NAMES[name]} | {steady['seconds']:.0f} s | {steady['rows']:,} | {steady['cpu']:.1f} | {per_cpu:,.0f}{ratio} "
            f"| {steady['cpu'] / steady['seconds']:.1%} | {result['cpu']:.1f}{times} | {result['memory']:,.0f} MiB | {result['first']:.1f} s |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=int, default=10_000, help="rows a second")
    parser.add_argument("--seconds", type=int, default=180, help="how long they come; Spark takes a minute or more until its steady part begins")
    parser.add_argument("--five-years", action="store_true", help="sales of these, as if a history were sent again, instead of today's")
    arguments = parsed_with_contenders(parser)
    found: dict[str, dict] = {}
    with Stack() as stack, tempfile.TemporaryDirectory(prefix="lakesmith-paced-") as name:
        here = Comparison(arguments.program, stack, Path(name), arguments.interval)
        here.run(here.lakesmith("init"))
        count = arguments.rate * arguments.seconds
        sales = here.sales(count) if arguments.five_years else here.sales_of_today(count)
        for contender in arguments.contenders:
            result = measure(here, contender, sales, count, arguments.rate)
            print(f"{NAMES[contender]}: {result['rate']:,.0f} rows a second, {result['cpu']:.1f} CPU-s in all, {result['steady']}", flush=True)
            if not result["steady"]:
                raise SystemExit(f"{NAMES[contender]} was not steady before the end: give more --seconds")
            found[contender] = result
    dates, suffix = ("sales of five years", "-five-years") if arguments.five_years else ("sales of today", "")
    load = f"{arguments.rate:,} {dates} a second for {arguments.seconds} s; a commit, or trigger, every {arguments.interval} s"
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {datetime.date.today()}"
    text = f"{machine}; {load}; without start and warm-up but where it says so\n\n{table(found)}\n"
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / f"paced{suffix}.md").write_text(text, encoding="utf-8")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
