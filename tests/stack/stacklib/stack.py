"""The stack: all servers, in the order in which they need each other."""

import shutil
import threading
import time
from typing import Optional, Sequence

from . import choices, hdfs, settings, spark
from .hdfs import DataNode, NameNode
from .kafka import Kafka
from .layout import Layout, StackError, say
from .metastore import SMALL, Metastore, further_name
from .postgres import Postgres
from .server import Server


class Stack:
    def __init__(self, layout: Layout, versions: Sequence[str] = (), lock_timeout_seconds: Optional[int] = None) -> None:
        """`versions` of the metastore, the main one first, and the timeout of its locks; nothing given: as they were before."""
        self.layout = layout
        layout.create()
        made = choices.read(layout)
        self.choices = choices.extended(made, versions, lock_timeout_seconds)
        further = {further_name(version): version for version in self.choices.further_metastores}
        self.ports = settings.ports(layout, (*settings.PORTS, *further))
        postgres = Postgres(layout, self.ports)
        timeout = self.choices.lock_timeout_seconds
        main = Metastore(layout, self.ports, self.choices.metastore_version, postgres, lock_timeout_seconds=timeout)
        self.metastores = {self.choices.metastore_version: main}
        for name, version in further.items():
            self.metastores[version] = Metastore(
                layout, self.ports, version, postgres, name=name, size=SMALL, lock_timeout_seconds=timeout
            )
        self.servers: dict[str, Server] = {
            server.name: server
            for server in (
                Kafka(layout, self.ports),
                NameNode(layout, self.ports),
                DataNode(layout, self.ports),
                postgres,
                *self.metastores.values(),
            )
        }
        if made and made.lock_timeout_seconds != timeout:
            self._require_no_metastore()
        if self.choices != made:
            choices.write(layout, self.choices)

    def _require_no_metastore(self) -> None:
        running = [server.name for server in self.metastores.values() if server.process.identity()]
        if running:
            raise StackError(
                f"{', '.join(running)} would keep the lock timeout of {'its' if len(running) == 1 else 'their'} start\n"
                " hint: `stack down` first; the data stays"
            )

    def server(self, name: str) -> Server:
        """The server of this name; the main metastore also answers to the name that it would have beside another."""
        if name == further_name(self.choices.metastore_version):
            name = Metastore.name
        if name not in self.servers:
            raise StackError(f"unknown server {name}; known: {', '.join(self.servers)}")
        return self.servers[name]

    def padded(self, server: Server) -> str:
        """Its name in a column that is wide enough for all."""
        return server.name.ljust(max(map(len, self.servers)))

    def write_client_settings(self) -> None:
        """The directory for HADOOP_CONF_DIR."""
        hdfs.write_client_settings(self.layout.hadoop_conf, self.layout.data, self.ports)
        settings.write_hadoop_xml(
            self.layout.hadoop_conf / "hive-site.xml", {"hive.metastore.uris": self.servers["metastore"].address()}
        )

    def up(self) -> None:
        """Starts whatever does not run. Servers that do not need each other start at the same time."""
        started = time.monotonic()
        down = [server for server in self.servers.values() if not server.is_up()]
        if not down:
            return
        self.write_client_settings()
        for server in self.servers.values():
            server.install()
        self._start(down)
        say(f"up after {time.monotonic() - started:.1f} s")

    def start(self, name: str) -> None:
        self.write_client_settings()
        server = self.server(name)
        server.install()
        self._start([server])

    def _start(self, servers: list[Server]) -> None:
        finished = {server.name: threading.Event() for server in servers}
        failures: dict[str, Exception] = {}

        def start(server: Server) -> None:
            try:
                for need in server.needs:
                    if need in finished:
                        finished[need].wait()
                if not failures:
                    seconds = server.start()
                    pid = server.process.identity().pid
                    say(f"{self.padded(server)} ready after {seconds:4.1f} s  pid {pid}, {server.process.memory_mib()} MiB")
            except Exception as error:
                failures[server.name] = error
            finally:
                finished[server.name].set()

        # Daemons: an interrupted command does not wait for servers that are still starting.
        threads = [threading.Thread(target=start, args=(server,), daemon=True) for server in servers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in failures.values():
            raise error

    def down(self) -> None:
        """Stops the servers in the opposite order, those that need others first."""
        for server in reversed(self.servers.values()):
            if server.stop():
                say(f"{self.padded(server)} stopped")

    def wipe(self) -> None:
        """Removes data, logs and ports of the stopped stack, and nothing that was downloaded."""
        self.servers["postgres"].wipe()
        for path in (self.layout.conf, self.layout.data, self.layout.logs, self.layout.run):
            shutil.rmtree(path, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        return {
            "LAKESMITH_STACK_DIR": str(self.layout.root),
            "KAFKA_BROKER": self.servers["kafka"].address(),
            "HDFS_URL": self.servers["namenode"].address(),
            "HIVE_METASTORE_URIS": self.servers["metastore"].address(),
            **{f"HIVE_METASTORE_URIS_{variable(version)}": server.address() for version, server in self.metastores.items()},
            "HADOOP_CONF_DIR": str(self.layout.hadoop_conf),
            **spark.variables(),
        }


def variable(version: str) -> str:
    """A version as the end of a variable's name: 4_0_1, DERBY."""
    return version.replace(".", "_").upper()
