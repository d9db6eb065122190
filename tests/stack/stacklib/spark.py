"""Spark, the second engine: a Python environment with pyspark, and the jars that make it a client of Hive 4 and Iceberg."""

import sys
import time
from pathlib import Path

from . import artifacts
from .layout import cache_dir, locked, say

PYSPARK = "pyspark==4.1.1"


def python() -> Path:
    return cache_dir() / PYSPARK.replace("==", "-") / "bin" / "python"


def install() -> Path:
    """Returns the directory of the jars."""
    artifacts.install_programs(["java"])
    environment = python().parent.parent
    with locked(cache_dir() / "spark.lock"):
        if not environment.is_dir():
            started = time.monotonic()
            artifacts.install_programs(["ensurepip"])
            with artifacts.under_construction(environment) as building:
                artifacts.run_logged([sys.executable, "-m", "venv", str(building)], "creating a Python environment")
                # Its source archive is as large as everything else together: no second copy in pip's cache.
                pip = [str(building / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-cache-dir", PYSPARK]
                artifacts.run_logged(pip, f"installing {PYSPARK}")
            say(f"{PYSPARK}: installed in {time.monotonic() - started:.1f} s")
    return artifacts.maven("spark")


def variables() -> dict[str, str]:
    """What spark_sql.py needs, if Spark has been installed."""
    jars = artifacts.maven_directory("spark")
    if not (python().exists() and jars.is_dir()):
        return {}
    return {"LAKESMITH_SPARK_PYTHON": str(python()), "LAKESMITH_SPARK_JARS": str(jars)}
