#!/usr/bin/env python3
"""The table in the README of which engine reads what on which metastore: written from what the tests have seen.

    tests/engines/matrix.py --check README.md     after the tests: the README must say what they saw
    tests/engines/matrix.py --write README.md

A cell is `yes` if every test of it passed, else the number of a limit that a test has seen to be there. Cells are collected in
$LAKESMITH_STACK_DIR/engines.json, which a run of all tests writes anew.
"""

import argparse
import json
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Optional

BEGIN, END = "<!-- engines: begin -->", "<!-- engines: end -->"
# Not a server's version, but lakesmith's own metastore.
EMBEDDED = "embedded"
ENGINES = ("Spark", "Trino", "HiveServer2", "pyiceberg", "DuckDB")
COLUMNS = ("bronze", "bronze as text", "silver", "silver as Parquet", "rejected", "gold", "view", "its writes")
SWAPS = {"false": "compare-and-swap", "true": "lock"}

# What an engine can't do, whatever lakesmith writes. Each is seen to fail by a test, so that a release that can do it is noticed.
LIMITS = {
    "no Iceberg": "Hive 4 reads Iceberg by a handler of its own, which Hive's release holds but which was not published apart; so it could"
    " not be run here. HiveServer2 3.1.3 reads these tables on the same metastore.",
    "no Hive": "pyiceberg reads Iceberg tables only.",
    "no get_table": "pyiceberg asks by `get_table`, which metastores of the 4.x line no longer have.",
}


@dataclass
class Cells:
    """What was seen in this process."""

    # metastore -> swap
    swaps: dict[str, str] = field(default_factory=dict)
    # (metastore, engine, column) -> "yes", "no", or a limit's name
    seen: dict[tuple[str, str, str], str] = field(default_factory=dict)

    @contextmanager
    def cell(self, metastore: str, engine: str, *columns: str) -> Iterator[None]:
        """A check of one or more cells: one that fails once is no more `yes`."""
        try:
            yield
        except BaseException:
            for column in columns:
                self.seen[metastore, engine, column] = "no"
            raise
        for column in columns:
            self.seen.setdefault((metastore, engine, column), "yes")

    def limit(self, metastore: str, engine: str, column: str, name: str) -> None:
        assert name in LIMITS, name
        self.seen[metastore, engine, column] = name

    def save(self) -> None:
        """Adds to what other test modules of the run have saved."""
        rows = [[*key, value] for key, value in self.seen.items()]
        swaps, earlier = load()
        keys = {tuple(row[:3]) for row in rows}
        rows += [row for row in earlier if tuple(row[:3]) not in keys]
        file().write_text(json.dumps({"swaps": {**swaps, **self.swaps}, "seen": rows}, indent=1))


def file() -> Path:
    return Path(os.environ["LAKESMITH_STACK_DIR"]) / "engines.json"


def load() -> tuple[dict[str, str], list[list[str]]]:
    if not file().exists():
        return {}, []
    saved = json.loads(file().read_text())
    return saved["swaps"], saved["seen"]


def table(swaps: dict[str, str], rows: list[list[str]]) -> str:
    cells = {tuple(row[:3]): row[3] for row in rows}
    limits: list[str] = []

    def shown(value: Optional[str]) -> str:
        if value in LIMITS:
            if value not in limits:
                limits.append(value)
            return f"no ({limits.index(value) + 1})"
        return value or "–"

    lines = [
        "| metastore | commits by | engine | " + " | ".join(COLUMNS) + " |",
        "| --- | --- | --- |" + " --- |" * len(COLUMNS),
    ]
    for metastore, engine in dict.fromkeys((metastore, engine) for metastore, engine, _ in sorted(cells, key=order)):
        values = [shown(cells.get((metastore, engine, column))) for column in COLUMNS]
        swap = SWAPS[swaps[metastore.partition(" ")[0]]]
        lines.append(f"| {metastore} | {swap} | {engine} | " + " | ".join(values) + " |")
    notes = [f"({number}) {LIMITS[name]}" for number, name in enumerate(limits, 1)]
    return "\n".join([*lines, "", *notes]).rstrip() + "\n"


def order(key: tuple[str, str, str]) -> tuple:
    """The newest metastore first, the embedded one last; the engines as they are listed above."""
    metastore, engine, column = key
    name, version = engine.split()
    at = [1] if metastore == EMBEDDED else descending(metastore)
    return at, ENGINES.index(name), descending(version), COLUMNS.index(column)


def descending(version: str) -> list[int]:
    """A row may be named after more than a version: `4.0.1 in Asia/Kolkata`."""
    number, *more = version.split(" ")
    return [*(-int(part) for part in number.split(".")), len(more)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", metavar="README", type=Path)
    action.add_argument("--write", metavar="README", type=Path)
    arguments = parser.parse_args()
    readme = arguments.check or arguments.write
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"error: {readme} has no place for the table, between {BEGIN} and {END}")
    swaps, rows = load()
    failed = [row for row in rows if row[3] == "no"]
    if failed or not rows:
        sys.exit(f"error: the tests have not seen all cells pass: {failed or 'nothing was seen'}")
    wanted = f"{before}{BEGIN}\n{table(swaps, rows)}{END}{after}"
    if arguments.write:
        readme.write_text(wanted, encoding="utf-8")
    elif readme.read_text(encoding="utf-8") != wanted:
        sys.exit(f"error: the table in {readme} is not what the tests saw\n hint: {sys.argv[0]} --write {readme}\n{table(swaps, rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
