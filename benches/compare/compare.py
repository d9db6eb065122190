#!/usr/bin/env python3
"""lakesmith beside Spark Structured Streaming and Kafka Connect: the same topic drained into layers on the same HDFS, in turn.

    benches/compare/compare.py                              1,000,000 rows, three rounds
    benches/compare/compare.py --rows 1000000 4000000       two sizes: what each further row costs, without starts and warm-up
    benches/compare/compare.py --rows 100000 --rounds 1     to see that it works

lakesmith and both forms of Spark write three layers, Kafka Connect with Iceberg's sink one table, the like of bronze: it does less.

Starts a stack of its own (Kafka, HDFS, metastore) and stops it, fills the topic once for each size, and lets the contenders take turns.
Of each: the median over the rounds of rows per second, processor seconds of all its processes (its start counted), rows per processor
second, peak memory, seconds from its start to the first commit of silver (Kafka Connect: of its table). Servers are not counted. The tables go
to benches/results.
"""

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parents[1] / "tests"
sys.path.insert(0, str(TESTS / "stack"))

from stacklib import artifacts, pyiceberg  # noqa: E402

LAYERS = ("bronze", "silver", "gold")
NAMES = {
    "lakesmith": "lakesmith",
    "spark-classic": "Spark, JSON and Parquet",
    "spark-iceberg": "Spark, Iceberg",
    "kafka-connect": "Kafka Connect, one Iceberg table",
}
PARTITIONS = 3


class Stack:
    """Servers of its own, and what they are called."""

    def __init__(self):
        self.environment = dict(os.environ)

    def __enter__(self):
        self._stack("up", "--with", "spark", "--hms", "4.0.1")
        for line in self._stack("env").splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.environment[name] = value.strip("'\"")
        for name in ("spark-kafka", "connect", "connect-iceberg"):
            self.environment[f"LAKESMITH_{name.replace('-', '_').upper()}_JARS"] = str(artifacts.maven(name))
        self.environment["LAKESMITH_PYICEBERG_PYTHON"] = str(pyiceberg.install())
        return self

    def __exit__(self, *_):
        self._stack("down", "--wipe")

    def _stack(self, *arguments: str) -> str:
        done = subprocess.run([str(TESTS / "stack" / "stack"), *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"stack {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout


class Comparison:
    def __init__(self, program: str, stack: Stack, directory: Path, interval: int):
        self.program, self.environment, self.directory, self.interval = program, stack.environment, directory, interval

    def lakesmith(self, *arguments: str, settings: tuple[str, ...] = ()) -> list[str]:
        flags = [word for setting in settings for word in ("--set", setting)]
        return [self.program, *arguments, *flags]

    def topic(self, rows: int) -> str:
        """A topic with so many sales of the last five years."""
        topic = f"compare_{uuid.uuid4().hex[:12]}"
        self.create_topic(topic, PARTITIONS)
        sales = self.sales(rows)
        self.run(self.lakesmith("produce", str(sales), "--topic", topic, "--key", "OrderID", "--broker", self.environment["KAFKA_BROKER"]))
        sales.unlink()
        return topic

    def sales(self, rows: int) -> Path:
        """A file of them, of the last five years."""
        file = self.directory / "sales.jsonl"
        self.run(self.lakesmith("generate", "--rows", str(rows), "--format", "jsonl", "--force", "--output", str(file)))
        return file

    def sales_of_today(self, rows: int) -> Path:
        """As live ones are."""
        file, today = self.directory / "today.jsonl", f'"OrderDate":"{datetime.date.today().isoformat()}"'
        with open(self.sales(rows)) as old, open(file, "w") as new:
            new.writelines(re.sub(r'"OrderDate":"[^"]*"', today, line) for line in old)
        return file

    def create_topic(self, name: str, partitions: int) -> None:
        self.run(self.lakesmith("topic", "create", name, "--partitions", str(partitions), "--broker", self.environment["KAFKA_BROKER"]))

    def run(self, command: list[str]) -> str:
        done = subprocess.run(command, cwd=self.directory, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def drain(self, contender: str, topic: str, rows: int) -> dict:
        name = f"c_{uuid.uuid4().hex[:12]}"
        if contender == "lakesmith":
            return self._drain_with_lakesmith(name, topic)
        return json.loads(self.run(self.job(contender, name, topic, rows)).splitlines()[-1])

    def job(self, contender: str, name: str, topic: str, rows: int) -> list[str]:
        """What has a contender read so many rows, and prints a line of JSON; its tables are in a database of this name."""
        if contender == "kafka-connect":
            control = f"{name}_control"
            self.create_topic(control, 1)
            command = [str(HERE / "connect_job.py"), "--control-topic", control]
        else:
            command = [str(HERE / "spark_job.py"), "--form", contender.removeprefix("spark-")]
        command += ["--topic", topic, "--brokers", self.environment["KAFKA_BROKER"], "--directory", f"{self.environment['HDFS_URL']}/{name}"]
        return command + ["--database", name, "--rows", str(rows), "--interval", str(self.interval)]

    def settings(self, name: str, topic: str) -> tuple[str, ...]:
        """Of a pipeline with tables of its own on the stack."""
        return (
            f"tables.database={name}",
            f"storage.warehouse={self.environment['HDFS_URL']}/{name}",
            f"source.topic={topic}",
            f"source.kafka.brokers={self.environment['KAFKA_BROKER']}",
            f'metastore.uris=["{self.environment["HIVE_METASTORE_URIS"]}"]',
            f"pipeline.commit_interval={self.interval}s",
            # As often as the others, whatever files that makes.
            f"pipeline.commit_interval_max={self.interval}s",
        )

    def _drain_with_lakesmith(self, name: str, topic: str) -> dict:
        command = self.lakesmith("run", "--until-caught-up", settings=self.settings(name, topic))
        log, out = self.directory / "run.log", self.directory / "run.out"
        began, began_at = time.monotonic(), time.time()
        with open(log, "wb") as errors, open(out, "wb") as output:
            process = subprocess.Popen(command, cwd=self.directory, env=self.environment, stdout=output, stderr=errors)
            _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        text = log.read_text(errors="replace")
        if status != 0:
            raise SystemExit(f"lakesmith ended with {status}:\n{text}")
        commits = (line for line in text.splitlines() if "committed" in line and "silver_amazon_sales snapshot" in line)
        moment = datetime.datetime.fromisoformat(next(commits).split()[0].replace("Z", "+00:00")).timestamp()
        layers = {row[0]: row for row in (re.split(r"\s*[│┆]\s*", line)[1:-1] for line in out.read_text().splitlines() if "│" in line) if row}
        number = lambda text: int(text.replace(",", ""))  # noqa: E731
        return {
            "first": moment - began_at,
            "wall": wall,
            "cpu": usage.ru_utime + usage.ru_stime,
            "memory": usage.ru_maxrss / 1024,
            "rows": number(layers["silver"][2]),
            "files": {layer: (number(layers[layer][3]), size(layers[layer][4])) for layer in LAYERS},
        }


def size(text: str) -> int:
    number, unit = text.split()
    return int(float(number.replace(",", "")) * {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit])


def medians(results: list[dict]) -> dict:
    found = {key: statistics.median(result[key] for result in results) for key in ("first", "wall", "cpu", "memory", "rows")}
    return {**found, "files": results[-1]["files"]}


def table(rows: int, found: dict[str, dict]) -> str:
    """A Markdown table, with what each is as a ratio of lakesmith."""
    own = found["lakesmith"]
    lines = [
        f"| {rows:,} rows | rows/s | CPU-s | rows per CPU-s | peak memory | first commit | files of bronze, silver, gold | MB of these |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in found.items():
        speed, per_cpu = rows / result["wall"], rows / result["cpu"]
        ratio = "" if name == "lakesmith" else f" (1/{rows / own['cpu'] / per_cpu:.1f})"
        memory = "" if name == "lakesmith" else f" ({result['memory'] / own['memory']:.1f} ×)"
        first = "" if name == "lakesmith" else f" ({result['first'] / own['first']:.1f} ×)"
        written = [result["files"].get(layer) for layer in LAYERS]
        files = " / ".join(f"{of[0]:,}" if of else "–" for of in written)
        megabytes = " / ".join(f"{of[1] / 1e6:.1f}" if of else "–" for of in written)
        lines.append(
            f"| {NAMES[name]} | {speed:,.0f} | {result['cpu']:.1f} | {per_cpu:,.0f}{ratio} | {result['memory']:,.0f} MiB{memory} "
            f"| {result['first']:.1f} s{first} | {files} | {megabytes} |"
        )
    return "\n".join(lines)


def marginal(sizes: list[int], found: dict[int, dict[str, dict]]) -> str:
    """What each further row costs, between the least and the greatest size."""
    least, greatest = min(sizes), max(sizes)
    further = {name: (greatest - least) / (found[greatest][name]["cpu"] - found[least][name]["cpu"]) for name in found[least]}
    own = further["lakesmith"]
    lines = [f"| from {least:,} to {greatest:,} rows | rows per CPU-s |", "| --- | --- |"]
    for name, rate in further.items():
        lines.append(f"| {NAMES[name]} | {rate:,.0f}{'' if name == 'lakesmith' else f' (1/{own / rate:.1f})'} |")
    return "\n".join(lines)


def plot(rows: int, found: dict[str, dict], file: Path) -> None:
    """Rows per processor second as bars."""
    python = artifacts.install_python_environment("matplotlib-3.10.7", ("matplotlib==3.10.7",))
    script = """
import json, sys
import matplotlib
matplotlib.use("svg")
from matplotlib import pyplot
names, rates, title, file = json.load(sys.stdin)
figure, axes = pyplot.subplots(figsize=(7, 0.6 + 0.5 * len(names)))
bars = axes.barh(names[::-1], rates[::-1], color="#3b6ea5")
axes.bar_label(bars, labels=[f"{rate:,.0f}" for rate in rates[::-1]], padding=4)
axes.set_xlim(0, max(rates) * 1.15)
axes.set_title(title, loc="left", fontsize=10)
axes.spines[["top", "right"]].set_visible(False)
figure.tight_layout()
figure.savefig(file, metadata={"Date": None})
"""
    names, rates = [NAMES[name] for name in found], [rows / result["cpu"] for result in found.values()]
    title = f"rows per processor second, {rows:,} rows from Kafka to HDFS"
    subprocess.run([str(python), "-c", script], input=json.dumps([names, rates, title, str(file)]), text=True, check=True)


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, with the program that each of these scripts measures."""
    parser.add_argument("--program", default=os.environ.get("LAKESMITH_BIN"), help="a release build of lakesmith; or LAKESMITH_BIN")
    arguments = parser.parse_args()
    if not arguments.program:
        parser.error("which lakesmith? give --program target/release/lakesmith, or set LAKESMITH_BIN")
    arguments.program = str(Path(arguments.program).resolve())
    return arguments


def parsed_with_contenders(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The same, with whom lakesmith is measured beside."""
    parser.add_argument("--interval", type=int, default=10, help="seconds between two commits, or triggers")
    parser.add_argument("--contenders", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--results", type=Path, default=HERE.parent / "results")
    arguments = parsed(parser)
    arguments.contenders = ["lakesmith", *(name for name in arguments.contenders if name != "lakesmith")]
    return arguments


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parsed_with_contenders(parser)
    contenders = arguments.contenders
    with Stack() as stack, tempfile.TemporaryDirectory(prefix="lakesmith-compare-") as name:
        comparison = Comparison(arguments.program, stack, Path(name), arguments.interval)
        comparison.run(comparison.lakesmith("init"))
        found: dict[int, dict[str, dict]] = {}
        for rows in arguments.rows:
            topic = comparison.topic(rows)
            results: dict[str, list[dict]] = {name: [] for name in contenders}
            for number in range(arguments.rounds):
                # Each goes first once in a while.
                for contender in contenders[number % len(contenders) :] + contenders[: number % len(contenders)]:
                    result = comparison.drain(contender, topic, rows)
                    results[contender].append(result)
                    print(f"{rows:,} rows, round {number + 1}, {NAMES[contender]}: {result['cpu']:.1f} CPU-s, {result['wall']:.1f} s", flush=True)
            found[rows] = {name: medians(results[name]) for name in contenders}
    parts = [table(rows, found[rows]) for rows in arguments.rows]
    if len(arguments.rows) > 1:
        parts.append(marginal(arguments.rows, found))
    load = f"{os.cpu_count()} cores, {platform.machine()}, {datetime.date.today()}, medians of {arguments.rounds} rounds"
    text = f"{load}; a commit, or trigger, every {arguments.interval} s; starts are counted\n\n" + "\n\n".join(parts) + "\n"
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "compare.md").write_text(text, encoding="utf-8")
    plot(arguments.rows[0], found[arguments.rows[0]], arguments.results / "compare.svg")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
