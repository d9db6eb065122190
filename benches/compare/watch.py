"""A process that reads a topic and commits what it has read, seen from outside: what it has used until when, and for how many rows."""

import os
import time
from pathlib import Path
from typing import Optional

TICKS = os.sysconf("SC_CLK_TCK")
# Seconds after the first commit in which a JVM still compiles what it runs.
WARM_UP = 20.0


def since_start(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return float(Path("/proc/uptime").read_text().split()[0]) - int(fields[19]) / TICKS


def cost(pid: int) -> tuple[float, float]:
    """Processor seconds, and the peak of memory in MiB."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return (int(fields[11]) + int(fields[12])) / TICKS, int(peak.split()[1]) / 1024


class Watch:
    """Of a contender's processes, the first of which is the one that was started.

    Its steady part begins with the first commit that comes WARM_UP seconds or more after the very first. Right after a commit little has been
    read that is not yet committed: so the processor time from there on is that of the rows that are committed from there on. It ends with
    the result.
    """

    def __init__(self, *pids: int):
        self.pids = pids
        self.began = time.monotonic() - since_start(pids[0])
        self.first: Optional[float] = None
        self.rows = 0
        self._steady: Optional[tuple[float, int, float]] = None

    def committed(self, silver: int, everywhere: int) -> None:
        """How many rows silver (or the only table) has now, and how many all queries have read whose batches begin together."""
        seconds = time.monotonic() - self.began
        if self.first is None and silver:
            self.first = seconds
        if self._steady is None and everywhere > self.rows and seconds >= self.first + WARM_UP:
            self._steady = seconds, everywhere, self.cost()[0]
        self.rows = everywhere

    def cost(self) -> tuple[float, float]:
        cpu, memory = zip(*map(cost, self.pids))
        return sum(cpu), sum(memory)

    def result(self, used: Optional[tuple[float, float]] = None) -> dict:
        """In seconds and MiB; `used` is what a process that has ended since had used."""
        wall, (cpu, memory) = time.monotonic() - self.began, used or self.cost()
        steady = None
        if self._steady:
            seconds, rows, before = self._steady
            steady = {"seconds": wall - seconds, "rows": self.rows - rows, "cpu": cpu - before}
        return {"first": self.first, "wall": wall, "cpu": cpu, "memory": memory, "steady": steady}
