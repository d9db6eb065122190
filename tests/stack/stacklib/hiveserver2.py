"""HiveServer2, beside the metastore of its own version: 4.0.1 reads Hive tables and views, 3.1.3 Iceberg tables as well.

Iceberg's runtime for Hive was published up to Hive 3; Hive 4 has a handler of its own, which was not published apart.
"""

import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from . import artifacts, clients, settings
from .layout import CONF, HOST, Layout
from .metastore import Metastore, variable
from .metastore_versions import HIVE_EXEC_FLAGS
from .server import Server, java

# Further bindings of the logging interface, each of which may be found before the one that Hive brings.
WITHOUT = ("reload4j", "slf4j-reload4j", "slf4j-log4j12", "log4j-1.2.")


@dataclass(frozen=True)
class Release:
    # `conf/POM.pom.xml`
    pom: str
    # Whether it runs on a Java newer than 8 only with the classes of `conf/hive3`.
    old_java: bool = False


# By the version of the metastore that each is for.
RELEASES = {"4.0.1": Release("hiveserver2-4.0.1"), "3.1.3": Release("hiveserver2-3.1.3", old_java=True)}


class HiveServer2(Server):
    """Without YARN: an aggregate runs as a MapReduce job within the server."""

    def __init__(self, layout: Layout, ports: dict[str, int], metastore: Metastore, version: str) -> None:
        self.name = name_beside(metastore.name)
        super().__init__(layout, ports)
        self.metastore, self.release = metastore, RELEASES[version]
        self.needs = (metastore.name,)

    def install(self) -> None:
        self.lib = artifacts.without_jars(artifacts.maven(self.release.pom), WITHOUT)
        self.classes = artifacts.hive3_classes() if self.release.old_java else None
        clients.install()

    @property
    def conf(self) -> Path:
        return self.layout.conf / self.name

    @property
    def scratch(self) -> Path:
        return self.layout.data / self.name

    def configure(self) -> None:
        self.scratch.mkdir(parents=True, exist_ok=True)
        settings.write_hadoop_xml(self.conf / "hive-site.xml", self.site())
        settings.write_hadoop_xml(
            self.conf / "mapred-site.xml",
            {
                "mapreduce.framework.name": "local",
                "mapreduce.cluster.local.dir": self.scratch / "mapreduce",
                "mapreduce.task.io.sort.mb": 16,
            },
        )
        settings.write(self.conf / "hive-log4j2.properties", (CONF / "log4j2.properties").read_text())
        for site in ("core-site.xml", "hdfs-site.xml"):
            settings.write(self.conf / site, (self.layout.hadoop_conf / site).read_text())

    def site(self) -> dict[str, object]:
        return {
            "hive.metastore.uris": self.metastore.address(),
            "hive.server2.thrift.bind.host": HOST,
            "hive.server2.thrift.port": self.ports[self.name],
            "hive.server2.webui.port": 0,
            "hive.server2.authentication": "NONE",
            "hive.server2.enable.doAs": "false",
            "hive.server2.tez.initialize.default.sessions": "false",
            "hive.server2.materializedviews.registry.impl": "DUMMY",
            "hive.server2.logging.operation.log.location": self.scratch / "operations",
            "hive.execution.engine": "mr",
            "hive.exec.mode.local.auto": "true",
            # Joins of small tables would start a process of Hadoop's command, which is not there.
            "hive.auto.convert.join": "false",
            "hive.fetch.task.conversion": "more",
            "hive.exec.scratchdir": f"/tmp/{self.name}",
            "hive.exec.local.scratchdir": self.scratch / "local",
            "hive.downloaded.resources.dir": self.scratch / "resources",
            "hive.support.concurrency": "false",
            "hive.async.log.enabled": "false",
            # A test asks what is in the files.
            "hive.compute.query.using.stats": "false",
            "hive.stats.autogather": "false",
            "hive.query.results.cache.enabled": "false",
        }

    def command(self) -> list[str]:
        main = "org.apache.hive.service.server.HiveServer2"
        flags = (*HIVE_EXEC_FLAGS, f"-Djava.io.tmpdir={self.scratch}", f"-Dlog4j2.configurationFile={CONF / 'log4j2.properties'}")
        if not self.classes:
            return java(768, [str(self.conf), f"{self.lib}/*"], main, flags=flags)
        class_path = f"-Dmain.class.path={self.classes}:{self.conf}:{self.lib}/*"
        return java(768, [str(self.classes)], "UrlClassLoaderMain", main, flags=(*flags, class_path))

    def ready(self) -> bool:
        """It offers to authenticate: the first message of SASL is answered."""
        start, ok, mechanism = 1, 2, b"PLAIN"
        login = b"\0stack\0stack"
        with socket.create_connection((HOST, self.ports[self.name]), timeout=10) as connection:
            for status, message in ((start, mechanism), (ok, login)):
                connection.sendall(struct.pack(">BI", status, len(message)) + message)
            reply = connection.makefile("rb").read(1)
        return reply != b"" and reply[0] in (ok, 5)

    def address(self) -> str:
        return f"{HOST}:{self.ports[self.name]}"


def name_beside(metastore: str) -> str:
    """`hiveserver2` beside the main metastore, else with the version, as the metastore."""
    return metastore.replace("metastore", "hiveserver2")


def variables(servers: dict[str, HiveServer2]) -> dict[str, str]:
    """Where each of them is, by the version of its metastore; the first is that of the main one."""
    addresses = [(variable(version), server.address()) for version, server in servers.items()]
    return {**{"HIVESERVER2": address for _, address in addresses[:1]}, **{f"HIVESERVER2_{name}": address for name, address in addresses}}
