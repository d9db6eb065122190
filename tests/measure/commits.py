#!/usr/bin/env python3
"""What a commit costs when a table has seen many: bronze, silver and rejected in a local directory, as the daemon writes them.

LAKESMITH_BIN is the program. Each cycle commits 200 records to bronze, to silver and, if one is bad, to rejected, one file to each. The
bars: the last hundred cycles take at most twice as long as the first hundred, and no table's metadata directory grows beyond 20 MB.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECORDS = 200
RATIO_MAX = 2.0
METADATA_MAX = 20_000_000


def commit_times(binary: str, directory: Path, commits: int) -> list[float]:
    """When bronze was committed, by our clock."""
    subprocess.run([binary, "init", "pipeline.toml"], cwd=directory, check=True, capture_output=True)
    settings = {
        "source.kind": "generator",
        "source.generator.rows": commits * RECORDS,
        "pipeline.batch_rows": RECORDS,
        "pipeline.batch_bytes": "64KiB",
        "pipeline.commit_bytes": "64KiB",
        # One file per commit: what is measured is the number of commits, not that of files.
        "silver.partition_by": "[]",
        # Gold is rewritten as a whole at each refresh; here it is the commits that count.
        "gold.0.refresh_interval": "1h",
    }
    flags = [flag for key, value in settings.items() for flag in ("--set", f"{key}={value}")]
    times, log = [], []
    with subprocess.Popen([binary, "run", "--until-caught-up", *flags], cwd=directory, stderr=subprocess.PIPE, text=True) as run:
        for line in run.stderr:
            if "committed" in line and "table=datalake.bronze_amazon_sales" in line:
                times.append(time.monotonic())
            else:
                log.append(line)
    if run.returncode != 0:
        sys.exit("".join(log[-20:]))
    return times


def largest_metadata(directory: Path) -> tuple[int, str]:
    sizes = {}
    for metadata in directory.rglob("metadata"):
        if metadata.is_dir():
            sizes[str(metadata.relative_to(directory))] = sum(file.stat().st_size for file in metadata.iterdir())
    size, name = max((size, name) for name, size in sizes.items())
    return size, name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=2_000, help="cycles; at least 202")
    commits = max(parser.parse_args().commits, 202)
    with tempfile.TemporaryDirectory(prefix="lakesmith-commits-") as directory:
        times = commit_times(os.path.abspath(os.environ["LAKESMITH_BIN"]), Path(directory), commits)
        if len(times) < commits:
            sys.exit(f"{len(times)} commits instead of {commits}")
        first, last = times[100] - times[0], times[-1] - times[-101]
        size, name = largest_metadata(Path(directory))
    print(f"{len(times)} commits in {times[-1] - times[0]:.1f} s: the first hundred {first:.2f} s, the last hundred {last:.2f} s,")
    print(f"{last / first:.2f} times as much; the largest metadata directory, {name}, holds {size / 1e6:.1f} MB")
    if last > RATIO_MAX * first or size > METADATA_MAX:
        sys.exit("a bar is missed")


if __name__ == "__main__":
    main()
