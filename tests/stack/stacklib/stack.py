"""The stack: all servers, in the order in which they need each other."""

import json
import shutil
import threading
import time
from typing import Optional

from . import hdfs, settings, spark
from .hdfs import DataNode, NameNode
from .kafka import Kafka
from .layout import Layout, StackError, say
from .metastore import DEFAULT_VERSION, Metastore
from .postgres import Postgres
from .server import Server


class Stack:
    def __init__(self, layout: Layout, metastore_version: Optional[str] = None) -> None:
        self.layout = layout
        layout.create()
        self.metastore_version = self._remember("metastore_version", metastore_version, DEFAULT_VERSION)
        self.ports = settings.ports(layout)
        postgres = Postgres(layout, self.ports)
        self.servers: dict[str, Server] = {
            server.name: server
            for server in (
                Kafka(layout, self.ports),
                NameNode(layout, self.ports),
                DataNode(layout, self.ports),
                postgres,
                Metastore(layout, self.ports, self.metastore_version, postgres),
            )
        }

    def _remember(self, key: str, wanted: Optional[str], default: str) -> str:
        """A choice that the stack's data depends on: made by its first `up`, and then kept."""
        file = self.layout.run / "choices.json"
        choices = json.loads(file.read_text()) if file.exists() else {}
        chosen = choices.setdefault(key, wanted or default)
        if wanted and wanted != chosen:
            raise StackError(
                f"this stack was made with {key} {chosen}, not {wanted}\n"
                " hint: `stack down --wipe` first, or set LAKESMITH_STACK_DIR to another directory"
            )
        file.write_text(json.dumps(choices))
        return chosen

    def server(self, name: str) -> Server:
        if name not in self.servers:
            raise StackError(f"unknown server {name}; known: {', '.join(self.servers)}")
        return self.servers[name]

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
                    say(f"{server.name:<10} ready after {seconds:4.1f} s  pid {pid}, {server.process.memory_mib()} MiB")
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
                say(f"{server.name:<10} stopped")

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
            "HADOOP_CONF_DIR": str(self.layout.hadoop_conf),
            **spark.variables(),
        }
