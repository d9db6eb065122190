"""pyiceberg, a client of tables and metastores that is neither Java nor ours: a Python environment of its own."""

import sys
import time
from pathlib import Path

from . import artifacts
from .layout import cache_dir, locked, say

PYICEBERG = "pyiceberg==0.12.0"
PACKAGES = ("pyiceberg[hive,pyarrow]==0.12.0",)


def python() -> Path:
    return cache_dir() / PYICEBERG.replace("==", "-") / "bin" / "python"


def install() -> Path:
    """Returns the environment's Python."""
    environment = python().parent.parent
    with locked(cache_dir() / "pyiceberg.lock"):
        if not environment.is_dir():
            started = time.monotonic()
            artifacts.install_programs(["ensurepip"])
            with artifacts.under_construction(environment) as building:
                artifacts.run_logged([sys.executable, "-m", "venv", str(building)], "creating a Python environment")
                pip = [str(building / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-cache-dir", *PACKAGES]
                artifacts.run_logged(pip, f"installing {PYICEBERG}")
            say(f"{PYICEBERG}: installed in {time.monotonic() - started:.1f} s")
    return python()
