"""The stack: all servers, in the order in which they need each other."""

import shutil
import threading
import time
from typing import Optional, Sequence

from . import choices, clients, hdfs, hiveserver2, settings, spark
from .hdfs import DataNode, NameNode
from .hiveserver2 import HiveServer2
from .kafka import Kafka
from .layout import Layout, StackError, say
from .metastore import SMALL, Metastore, further_name, variable
from .postgres import Postgres
from .server import Server
from .trino import Trino


class Stack:
    def __init__(
        self,
        layout: Layout,
        versions: Sequence[str] = (),
        lock_timeout_seconds: Optional[int] = None,
        engines: Sequence[str] = (),
    ) -> None:
        """`versions` of the metastore, the main one first, the timeout of its locks, and engines that are servers; nothing given: as
        they were before."""
        self.layout = layout
        layout.create()
        made = choices.read(layout)
        self.choices = choices.extended(made, versions, lock_timeout_seconds, engines)
        further = {further_name(version): version for version in self.choices.further_metastores}
        self.ports = settings.ports(layout, (*settings.PORTS, *further, *self._engine_names()))
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
                *self._engines(),
            )
        }
        if made and made.lock_timeout_seconds != timeout:
            self._require_no_metastore()
        if self.choices != made:
            choices.write(layout, self.choices)

    def _engine_names(self) -> list[str]:
        names = [] if "trino" not in self.choices.engines else [Trino.name]
        if "hiveserver2" in self.choices.engines:
            metastores = [Metastore.name, *map(further_name, self.choices.further_metastores)]
            names += map(hiveserver2.name_beside, metastores)
        return names

    def _engines(self) -> list[Server]:
        self.hiveserver2s: dict[str, HiveServer2] = {}
        self.trino: Optional[Trino] = None
        if "hiveserver2" in self.choices.engines:
            beside = {version: server for version, server in self.metastores.items() if version in hiveserver2.RELEASES}
            self.hiveserver2s = {version: HiveServer2(self.layout, self.ports, server, version) for version, server in beside.items()}
        if "trino" in self.choices.engines:
            self.trino = Trino(self.layout, self.ports, self.metastores)
        return [*self.hiveserver2s.values(), *([self.trino] if self.trino else [])]

    def _require_no_metastore(self) -> None:
        running = [server.name for server in self.metastores.values() if server.process.identity()]
        if running:
            raise StackError(
                f"{', '.join(running)} would keep the lock timeout of {'its' if len(running) == 1 else 'their'} start\n"
                " hint: `stack down` first; the data stays"
            )

    def server(self, name: str) -> Server:
        """The server of this name; the main metastore and what is beside it also answer to names with the version."""
        name = name.removesuffix(further_name(self.choices.metastore_version).removeprefix(Metastore.name))
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
            **hiveserver2.variables(self.hiveserver2s),
            **(self.trino.variables() if self.trino else {}),
            **(clients.variables() if self.choices.engines else {}),
        }
