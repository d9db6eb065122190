"""The Hive Metastore. What differs between versions is a row in `VERSIONS`."""

import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping

from . import artifacts, settings
from .layout import CONF, HOST, Layout, StackError
from .postgres import Postgres
from .server import Server, java


@dataclass(frozen=True)
class Version:
    """One version of the metastore server and what it is started with."""

    # `conf/POM.pom.xml`: the server's jars and its schema scripts.
    pom: str
    # Scripts that create the schema, in order.
    schema: tuple[str, ...]
    # Jars of Hadoop that the server brings in another version, or that would take over its logging.
    hadoop_without: tuple[str, ...]
    classpath: tuple[str, ...] = ("{conf}", "{dist}/lib/*", "{hadoop}/*")
    # Settings that other versions do not have, or have otherwise.
    site: Mapping[str, str] = field(default_factory=dict)
    java_flags: tuple[str, ...] = ()
    heap_mib: int = 512


VERSIONS = {
    "4.0.1": Version(
        pom="metastore-4.0.1",
        schema=("scripts/metastore/upgrade/postgres/hive-schema-4.0.0.postgres.sql",),
        hadoop_without=("reload4j", "slf4j-reload4j", "netty-", "guava-", "listenablefuture", "jsr305"),
        site={
            # The asynchronous logger needs a library that the tarball does not bring.
            "metastore.async.log.enabled": "false",
            # The default is a class of hive-exec; clients that send filters as text do without.
            "metastore.expression.proxy": "org.apache.hadoop.hive.metastore.DefaultPartitionExpressionProxy",
            # The other tasks of the default list want hive-exec, or serve what no test uses.
            "metastore.task.threads.always": "org.apache.hadoop.hive.metastore.events.EventCleanerTask",
            "metastore.event.db.notification.api.auth": "false",
            # As in production, the lock of a client that was killed ends after metastore.txn.timeout (300 s).
            "metastore.housekeeping.threads.on": "true",
            "metastore.task.threads.remote": "org.apache.hadoop.hive.metastore.txn.service.AcidHouseKeeperService",
            "metastore.compactor.initiator.on": "false",
            "metastore.compactor.cleaner.on": "false",
        },
    ),
}
DEFAULT_VERSION = "4.0.1"


class Metastore(Server):
    name = "metastore"
    # Its warehouse is on HDFS, and it creates the default database there when it starts.
    needs = ("postgres", "datanode")

    def __init__(self, layout: Layout, ports: dict[str, int], version: str, postgres: Postgres) -> None:
        super().__init__(layout, ports)
        if version not in VERSIONS:
            raise StackError(f"unknown metastore version {version}; known: {', '.join(VERSIONS)}")
        self.version = VERSIONS[version]
        self.postgres = postgres

    def install(self) -> None:
        self.dist = artifacts.maven(self.version.pom)
        self.hadoop = artifacts.without_jars(artifacts.maven("hadoop"), self.version.hadoop_without)

    @property
    def conf(self) -> Path:
        return self.layout.conf / "metastore"

    def configure(self) -> None:
        warehouse = f"hdfs://{HOST}:{self.ports['namenode']}/warehouse"
        settings.write_hadoop_xml(
            self.conf / "metastore-site.xml",
            {
                "metastore.thrift.uris": self.address(),
                "metastore.thrift.port": self.ports["metastore"],
                "metastore.thrift.bind.host": HOST,
                "metastore.server.min.threads": 2,
                "metastore.warehouse.dir": f"{warehouse}/managed",
                "metastore.warehouse.external.dir": f"{warehouse}/external",
                "javax.jdo.option.ConnectionURL": f"jdbc:postgresql://{HOST}:{self.ports['postgres']}/metastore",
                "javax.jdo.option.ConnectionDriverName": "org.postgresql.Driver",
                "javax.jdo.option.ConnectionUserName": "postgres",
                "javax.jdo.option.ConnectionPassword": "",
                "metastore.schema.verification": "true",
                **self.version.site,
            },
        )
        for site in ("core-site.xml", "hdfs-site.xml"):
            settings.write(self.conf / site, (self.layout.hadoop_conf / site).read_text())
        self._create_schema()

    def _create_schema(self) -> None:
        """Runs the schema scripts by psql, in one transaction: Hive's own tool does the same in ten times the time."""
        if self.postgres.psql("postgres", "--command=select 1 from pg_database where datname = 'metastore'") == "":
            self.postgres.psql("postgres", "--command=create database metastore")
        if self.postgres.psql("metastore", "--command=select to_regclass('\"VERSION\"')") == "":
            scripts = [f"--file={self.dist / script}" for script in self.version.schema]
            self.postgres.psql("metastore", "--single-transaction", *scripts)

    def environment(self) -> dict[str, str]:
        return {"METASTORE_HOME": str(self.dist), "METASTORE_CONF_DIR": str(self.conf)}

    def command(self) -> list[str]:
        places = {"conf": self.conf, "dist": self.dist, "hadoop": self.hadoop}
        classpath = [entry.format(**places) for entry in self.version.classpath]
        flags = (f"-Dlog4j2.configurationFile={CONF / 'log4j2.properties'}", *self.version.java_flags)
        main = "org.apache.hadoop.hive.metastore.HiveMetaStore"
        return java(self.version.heap_mib, classpath, main, "-p", str(self.ports["metastore"]), flags=flags)

    def ready(self) -> bool:
        """Calls `get_all_databases`, which asks the database, and looks whether the reply holds a result or an exception."""
        version_1_call, sequence_id, stop, list_type, success = 0x80010001, 1, 0, 15, 0
        method = b"get_all_databases"
        name = struct.pack(">I", len(method)) + method + struct.pack(">i", sequence_id)
        with socket.create_connection((HOST, self.ports["metastore"]), timeout=10) as connection:
            connection.sendall(struct.pack(">I", version_1_call) + name + struct.pack(">B", stop))
            reply = connection.makefile("rb").read(4 + len(name) + 3)
        return reply[-3:] == struct.pack(">Bh", list_type, success)

    def address(self) -> str:
        return f"thrift://{HOST}:{self.ports['metastore']}"
