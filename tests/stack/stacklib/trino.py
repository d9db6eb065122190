"""Trino: one node that is coordinator and worker, with a catalog for Hive's tables and one for Iceberg's of every metastore.

The name of a table of the other kind leads to the other catalog: `hive.datalake.silver_…` is answered by `iceberg`, and the reverse.
"""

import json
import shutil
import urllib.request
from pathlib import Path

from . import artifacts, clients, newer_java, settings
from .layout import HOST, Layout
from .metastore import Metastore, variable
from .server import Server

# Of some sixty.
PLUGINS = ("hive", "iceberg")
JVM = (
    "-Xmx1536m",
    "-Xms256m",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:ReservedCodeCacheSize=256M",
    "-Djdk.attach.allowAttachSelf=true",
    "--enable-native-access=ALL-UNNAMED",
)


class Trino(Server):
    name = "trino"
    # On a machine that compiles meanwhile.
    ready_seconds = 480
    # Queries that it must answer to be ready. Until it has found itself as a worker, for each catalog, it refuses those that read tables.
    probes: tuple[str, ...] = ("select 1",)

    def __init__(self, layout: Layout, ports: dict[str, int], metastores: dict[str, Metastore]) -> None:
        super().__init__(layout, ports)
        self.metastores = metastores
        # It starts without them, but a catalog is asked for its schemas by the first query.
        self.needs = tuple(metastore.name for metastore in metastores.values())

    def install(self) -> None:
        self.home = artifacts.maven("trino", trim=without_other_plugins)
        artifacts.maven("trino-cli")
        clients.install()
        self.java = newer_java.install()

    @property
    def conf(self) -> Path:
        return self.layout.conf / self.name

    @property
    def data(self) -> Path:
        return self.layout.data / self.name

    def configure(self) -> None:
        shutil.rmtree(self.conf, ignore_errors=True)
        settings.write_properties(
            self.conf / "config.properties",
            {
                "coordinator": "true",
                "node-scheduler.include-coordinator": "true",
                "http-server.http.port": self.ports[self.name],
                "http-server.log.enabled": "false",
                "discovery.uri": self.address(),
                "node.internal-address": HOST,
                "query.max-memory": "600MB",
                "query.max-memory-per-node": "600MB",
                "memory.heap-headroom-per-node": "300MB",
            },
        )
        settings.write_properties(
            self.conf / "node.properties",
            {"node.environment": "stack", "node.id": "stack", "node.data-dir": self.data, "node.bind-ip": HOST},
        )
        settings.write_properties(self.conf / "log.properties", {"io.trino": "INFO"})
        for version, metastore in self.metastores.items():
            for catalog, properties in self.catalogs(version, metastore).items():
                settings.write_properties(self.conf / "catalog" / f"{catalog}.properties", properties)

    def catalogs(self, version: str, metastore: Metastore) -> dict[str, dict[str, object]]:
        suffix = "" if metastore.name == Metastore.name else "_" + variable(version).lower()
        hive, iceberg = f"hive{suffix}", f"iceberg{suffix}"
        site = ",".join(str(self.layout.hadoop_conf / name) for name in ("core-site.xml", "hdfs-site.xml"))
        hadoop = {"hive.metastore.uri": metastore.address(), "fs.hadoop.enabled": "true", "hive.config.resources": site}
        return {
            hive: {
                "connector.name": "hive",
                **hadoop,
                "hive.hive-views.enabled": "true",
                "hive.non-managed-table-writes-enabled": "true",
                "hive.iceberg-catalog-name": iceberg,
                # Else timestamps of Hive tables are rounded to milliseconds,
                "hive.timestamp-precision": "MICROSECONDS",
                # and shifted by the zone of the machine.
                "hive.parquet.time-zone": "UTC",
            },
            iceberg: {
                "connector.name": "iceberg",
                "iceberg.catalog.type": "hive_metastore",
                **hadoop,
                "iceberg.hive-catalog-name": hive,
                # What tables say by engine.hive.lock-enabled, and Trino does not look at.
                "iceberg.hive-catalog.locking-enabled": str(not metastore.version.keeps_expected_values).lower(),
                "iceberg.expire-snapshots.min-retention": "0s",
                "iceberg.remove-orphan-files.min-retention": "0s",
            },
        }

    def command(self) -> list[str]:
        where = {
            "node.data-dir": self.data,
            "config": self.conf / "config.properties",
            "catalog.config-dir": self.conf / "catalog",
            "log.levels-file": self.conf / "log.properties",
            "plugin.dir": self.home / "plugin",
            **settings.read_properties(self.conf / "node.properties"),
        }
        properties = [f"-D{name}={value}" for name, value in where.items()]
        return [str(self.java), *JVM, *properties, "-cp", f"{self.home}/lib/*", "io.trino.server.TrinoServer"]

    def ready(self) -> bool:
        with urllib.request.urlopen(f"{self.address()}/v1/info", timeout=5) as response:
            if json.load(response).get("starting") is not False:
                return False
        return all(self.answers(sql) for sql in self.probes)

    def answers(self, sql: str) -> bool:
        next_page = urllib.request.Request(f"{self.address()}/v1/statement", data=sql.encode(), headers={"X-Trino-User": "stack"})
        while next_page:
            with urllib.request.urlopen(next_page, timeout=30) as response:
                page = json.load(response)
            if "error" in page:
                return False
            next_page = page.get("nextUri")
        return True

    def address(self) -> str:
        return f"http://{HOST}:{self.ports[self.name]}"

    def variables(self) -> dict[str, str]:
        """What clients need: the address, and, once it has been installed, the jar that is Trino's own client."""
        jars = artifacts.maven_directory("trino-cli").glob("*.jar")
        return {"TRINO_URL": self.address(), **{"TRINO_CLI": str(jar) for jar in jars}}


def without_other_plugins(home: Path) -> None:
    for plugin in (home / "plugin").iterdir():
        if plugin.name not in PLUGINS:
            shutil.rmtree(plugin)
