"""Processes that outlive the command that started them, known by a recorded id.

*Invariants*: a signal is sent only to a process whose start time and boot are those that were recorded when it was
started; a process id that the kernel has given to somebody else since is never touched.
"""

import json
import os
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from .layout import Layout


@dataclass(frozen=True)
class Identity:
    """A process id together with what makes it unique: ids are used again, start times within one boot are not."""

    pid: int
    start_ticks: int
    boot_id: str

    def alive(self) -> bool:
        return self == identify(self.pid)


def identify(pid: int) -> Optional[Identity]:
    """The running process with this id; a zombie, which nobody has waited for yet, is not running."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses and may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    state, start_ticks = fields[0], int(fields[19])
    return None if state in "ZX" else Identity(pid, start_ticks, boot_id)


def children(pid: int) -> list[Identity]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        found = [identify(int(child)) for child in listed.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [child for child in found if child]


def wait_until_gone(processes: list[Identity], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(process.alive() for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Process:
    """One server's process, found again through `run/NAME.json`."""

    def __init__(self, layout: Layout, name: str) -> None:
        self.name = name
        self.log = layout.log(name)
        self.record = layout.run / f"{name}.json"
        # Only in the command that started it; to every other one the process is a stranger's child.
        self._child: Optional[subprocess.Popen] = None

    def identity(self) -> Optional[Identity]:
        if self._child:
            self._child.poll()
        try:
            recorded = Identity(**json.loads(self.record.read_text()))
        except FileNotFoundError:
            return None
        return recorded if recorded.alive() else None

    def spawn(self, command: list[str], cwd: Path, environment: dict[str, str], user: Optional[str]) -> None:
        """Starts the server in a session of its own, so that no terminal and no test runner takes it down with it."""
        with open(self.log, "ab") as log:
            self._child = subprocess.Popen(
                command,
                cwd=cwd,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **as_user(user),
            )
        identity = identify(self._child.pid)
        if identity:
            self.record.write_text(json.dumps(asdict(identity)))

    def terminate(self, stop_signal: signal.Signals, seconds: float) -> bool:
        """Asks the server to stop, and kills it when it has not done so in time. False: it was not running."""
        identity = self.identity()
        if not identity:
            return False
        os.kill(identity.pid, stop_signal)
        if not wait_until_gone([identity], seconds):
            return self.kill()
        self._forget()
        return True

    def kill(self) -> bool:
        """SIGKILL, and back only when the server is gone with its children, which end by themselves. False: it was not running."""
        identity = self.identity()
        if not identity:
            return False
        family = [identity, *children(identity.pid)]
        os.kill(identity.pid, signal.SIGKILL)
        wait_until_gone(family, 30)
        self._forget()
        return True

    def _forget(self) -> None:
        self.record.unlink(missing_ok=True)
        if self._child:
            self._child.wait()

    def memory_mib(self) -> int:
        """Memory in MiB, children included; what several processes share (PostgreSQL's buffers) counts once."""
        identity = self.identity()
        if not identity:
            return 0
        return sum(_pss_kib(process.pid) for process in [identity, *children(identity.pid)]) // 1024

    def log_tail(self, lines: int = 40) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def as_user(user: Optional[str]) -> dict:
    """Arguments of `subprocess` that run a command as somebody else."""
    return {"user": user, "group": user, "extra_groups": []} if user else {}


def _pss_kib(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (OSError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
