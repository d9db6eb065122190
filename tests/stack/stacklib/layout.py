"""Where things lie: what is downloaded is shared by all stacks, everything else belongs to one stack."""

import fcntl
import os
import sys
from contextlib import contextmanager
from pathlib import Path

CONF = Path(__file__).resolve().parent.parent / "conf"
HOST = "127.0.0.1"


class StackError(Exception):
    """What went wrong and what to do about it, for a person: printed without a traceback."""


def cache_dir() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lakesmith"
    return Path(os.environ.get("LAKESMITH_CACHE") or default).absolute()


def say(text: str) -> None:
    """Progress goes to standard error: standard output is for what a script reads."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def locked(path: Path):
    """Holds an exclusive lock, which the kernel drops when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Layout:
    """The directories of one stack."""

    def __init__(self) -> None:
        self.cache = cache_dir()
        self.root = Path(os.environ.get("LAKESMITH_STACK_DIR") or self.cache / "stack").absolute()
        self.conf = self.root / "conf"
        self.data = self.root / "data"
        self.logs = self.root / "logs"
        self.run = self.root / "run"

    def create(self) -> None:
        for path in (self.conf, self.data, self.logs, self.run):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def hadoop_conf(self) -> Path:
        """What HADOOP_CONF_DIR is set to, for clients and for the servers themselves."""
        return self.conf / "hadoop"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def lock(self):
        """One command changes a stack at a time."""
        return locked(self.root / "lock")
