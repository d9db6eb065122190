"""What all servers have in common: how one is prepared, started, found ready, stopped."""

import http.client
import signal
import struct
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Optional

from .artifacts import program
from .layout import Layout, StackError
from .process import Process


class Server(ABC):
    name: str
    # Names of the servers that have to be ready before this one is started.
    needs: tuple[str, ...] = ()
    ready_seconds = 120
    stop_seconds = 30
    stop_signal = signal.SIGTERM

    def __init__(self, layout: Layout, ports: dict[str, int]) -> None:
        self.layout = layout
        self.ports = ports
        self.process = Process(layout, self.name)

    @abstractmethod
    def install(self) -> None:
        """Fetches what the server is made of."""

    @abstractmethod
    def configure(self) -> None:
        """Writes its settings and, the first time, formats its data directory."""

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers a real request."""

    @abstractmethod
    def address(self) -> str: ...

    def environment(self) -> dict[str, str]:
        return {}

    def user(self) -> Optional[str]:
        return None

    def is_up(self) -> bool:
        return self.process.identity() is not None and self._answers()

    def start(self) -> float:
        """Starts the server unless it runs already, and waits until it is ready. Returns the seconds that took."""
        started = time.monotonic()
        if not self.process.identity():
            self.configure()
            self.process.spawn(self.command(), self._cwd(), self.environment(), self.user())
        while not self._answers():
            waited = time.monotonic() - started
            if not self.process.identity():
                raise self._failure(f"ended {waited:.1f} s after its start")
            if waited > self.ready_seconds:
                raise self._failure(f"is not ready after {waited:.0f} s")
            time.sleep(0.1)
        return time.monotonic() - started

    def stop(self) -> bool:
        return self.process.terminate(self.stop_signal, self.stop_seconds)

    def _answers(self) -> bool:
        try:
            return self.ready()
        except (OSError, ValueError, http.client.HTTPException, struct.error):
            return False

    def _cwd(self) -> Path:
        return self.layout.root

    def _failure(self, what: str) -> StackError:
        return StackError(f"{self.name} {what}; the end of {self.process.log}:\n{self.process.log_tail()}")


def java(heap_mib: int, classpath: list[str], main: str, *arguments: str, flags: tuple[str, ...] = ()) -> list[str]:
    """A JVM for a small machine: a bounded heap and the collector that costs least memory and threads."""
    return [program("java"), f"-Xmx{heap_mib}m", "-XX:+UseSerialGC", *flags, "-cp", ":".join(classpath), main, *arguments]
