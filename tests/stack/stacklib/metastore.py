"""The Hive Metastore, in one version or in several beside each other. What differs between versions is in `metastore_versions`."""

import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from . import artifacts, newer_java, settings
from .layout import CONF, HOST, Layout
from .metastore_database import Database, DerbyDatabase, PostgresDatabase
from .metastore_versions import HADOOP_WITHOUT, HIVE_EXEC_FLAGS, VERSIONS
from .postgres import Postgres
from .server import Server, java


@dataclass(frozen=True)
class Size:
    heap_mib: int
    # To the database, in each of the metastore's pools.
    connections: int
    java_flags: tuple[str, ...] = ()


MAIN = Size(heap_mib=512, connections=10)
# A metastore that a few tests talk to: the quick compiler alone starts sooner and takes less memory.
SMALL = Size(heap_mib=192, connections=5, java_flags=("-XX:TieredStopAtLevel=1",))


def further_name(version: str) -> str:
    """The server's name when it is not the stack's main metastore."""
    return f"metastore-{version}"


class Metastore(Server):
    """The main metastore is called `metastore` whatever its version; the others have their version in their name."""

    name = "metastore"

    def __init__(
        self,
        layout: Layout,
        ports: dict[str, int],
        version: str,
        postgres: Postgres,
        *,
        name: str = name,
        size: Size = MAIN,
        lock_timeout_seconds: Optional[int] = None,
    ) -> None:
        self.name = name
        super().__init__(layout, ports)
        self.version = VERSIONS[version]
        self.size = size
        self.lock_timeout_seconds = lock_timeout_seconds
        on_derby = self.version.database == "derby"
        # Whose data it works on.
        self.owner = Metastore.name if self.version.shares_main else name
        self.database: Database = DerbyDatabase(name, layout) if on_derby else PostgresDatabase(self.owner, postgres)
        # Its warehouse is on HDFS, and it creates the default database there when it starts.
        self.needs = ("datanode", *self.database.needs, *([self.owner] if self.owner != name else []))

    def install(self) -> None:
        self.dist = artifacts.maven(self.version.pom)
        self.server = artifacts.maven(self.version.server_pom or self.version.pom)
        lib, without = self.dist / "lib", self.version.lib_without
        self.lib = artifacts.without_jars(lib, without) if without else lib
        self.classes = artifacts.hive3_classes() if self.version.old_java else self.dist
        self.hadoop = artifacts.without_jars(artifacts.maven("hadoop"), HADOOP_WITHOUT)
        self.java = newer_java.install() if self.version.newer_java else None

    @property
    def conf(self) -> Path:
        return self.layout.conf / self.name

    def configure(self) -> None:
        settings.write_hadoop_xml(self.conf / self.version.site_file, self.site())
        settings.write(self.conf / self.version.log_file, (CONF / "log4j2.properties").read_text())
        for site in ("core-site.xml", "hdfs-site.xml"):
            settings.write(self.conf / site, (self.layout.hadoop_conf / site).read_text())
        scripts = self.dist / "scripts" / "metastore" / "upgrade" / self.version.database
        sql_shell = self._java(256, [f"{self.dist}/lib/*"], "sqlline.SqlLine")
        self.database.create_schema([scripts / f"{name}.{self.version.database}.sql" for name in self.version.schema], sql_shell)

    def site(self) -> dict[str, object]:
        warehouse = f"hdfs://{HOST}:{self.ports['namenode']}/{self.owner.replace('metastore', 'warehouse')}"
        common = {
            "server.min.threads": 2,
            "warehouse.dir": f"{warehouse}/managed",
            "schema.verification": "true",
        }
        return {
            **{f"{self.version.setting_prefix}metastore.{name}": value for name, value in common.items()},
            **self.database.site(),
            "datanucleus.connectionPool.maxPoolSize": self.size.connections,
            **{name: value.format(warehouse=warehouse) for name, value in self.version.site.items()},
            **self._lock_timeout(),
        }

    def _lock_timeout(self) -> dict[str, str]:
        """How long a lock lives without a heartbeat; looked for often enough that it ends within a quarter more."""
        if self.lock_timeout_seconds is None:
            return {}
        often = f"{max(1, self.lock_timeout_seconds // 4)}s"
        return {"hive.txn.timeout": f"{self.lock_timeout_seconds}s", **{name: often for name in self.version.reaper_intervals}}

    def environment(self) -> dict[str, str]:
        return {"METASTORE_HOME": str(self.dist), "METASTORE_CONF_DIR": str(self.conf)}

    def command(self) -> list[str]:
        places = {"conf": self.conf, "dist": self.dist, "lib": self.lib, "server": self.server, "hadoop": self.hadoop, "classes": self.classes}
        classpath = [entry.format(**places) for entry in self.version.classpath]
        main = "org.apache.hadoop.hive.metastore.HiveMetaStore"
        command = self._java(self.size.heap_mib, classpath, main, "-p", str(self.ports[self.name]))
        return [str(self.java), *command[1:]] if self.java else command

    def _java(self, heap_mib: int, classpath: list[str], main: str, *arguments: str) -> list[str]:
        flags = (
            *self.size.java_flags,
            *HIVE_EXEC_FLAGS,
            f"-Dlog4j2.configurationFile={CONF / 'log4j2.properties'}",
            f"-Dderby.stream.error.file={self.layout.log(self.name + '-database')}",
        )
        return java(heap_mib, classpath, main, *arguments, flags=flags)

    def ready(self) -> bool:
        """Calls `get_all_databases`, which asks the database, and looks whether the reply holds a result or an exception."""
        version_1_call, sequence_id, stop, list_type, success = 0x80010001, 1, 0, 15, 0
        method = b"get_all_databases"
        name = struct.pack(">I", len(method)) + method + struct.pack(">i", sequence_id)
        with socket.create_connection((HOST, self.ports[self.name]), timeout=10) as connection:
            connection.sendall(struct.pack(">I", version_1_call) + name + struct.pack(">B", stop))
            reply = connection.makefile("rb").read(4 + len(name) + 3)
        return reply[-3:] == struct.pack(">Bh", list_type, success)

    def address(self) -> str:
        return f"thrift://{HOST}:{self.ports[self.name]}"


def variable(version: str) -> str:
    """A version as the end of a variable's name: 4_0_1, DERBY."""
    return version.replace(".", "_").upper()
