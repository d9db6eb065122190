"""HDFS: a NameNode and one DataNode."""

import json
import shutil
import urllib.request
from pathlib import Path

from . import artifacts, settings
from .layout import CONF, HOST
from .process import Process
from .server import Server, java

# WebHDFS answers 500 without it: its JSON writer looks into java.lang.
WEBHDFS = "--add-opens=java.base/java.lang=ALL-UNNAMED"


class HdfsServer(Server):
    """What both have in common: the settings, which are those of the clients too."""

    main: str

    def install(self) -> None:
        self.lib = artifacts.maven("hadoop")

    def configure(self) -> None:
        server_conf = self.layout.conf / "hdfs-server"
        # The jars bring no web pages, and a server without its page directory does not start.
        for page in ("hdfs", "datanode", "static", "secondary"):
            (server_conf / "webapps" / page).mkdir(parents=True, exist_ok=True)
        shutil.copy(CONF / "log4j.properties", server_conf / "log4j.properties")

    def command(self) -> list[str]:
        return self._java(384)

    def _java(self, heap_mib: int, *arguments: str) -> list[str]:
        classpath = [str(self.layout.conf / "hdfs-server"), str(self.layout.hadoop_conf), f"{self.lib}/*"]
        return java(heap_mib, classpath, self.main, *arguments, flags=(WEBHDFS,))

    def _attribute(self, port: str, bean: str, attribute: str):
        url = f"http://{HOST}:{self.ports[port]}/jmx?get=Hadoop:{bean}::{attribute}"
        with urllib.request.urlopen(url, timeout=5) as response:
            beans = json.load(response).get("beans", [])
        return beans[0].get(attribute) if beans else None

    def _safe_mode_is_off(self) -> bool:
        return self._attribute("namenode_http", "service=NameNode,name=FSNamesystemState", "FSState") == "Operational"


class NameNode(HdfsServer):
    name = "namenode"
    main = "org.apache.hadoop.hdfs.server.namenode.NameNode"

    def configure(self) -> None:
        super().configure()
        if not (self.layout.data / "namenode" / "current").is_dir():
            artifacts.run_logged(self._java(256, "-format", "-nonInteractive"), "formatting the NameNode")

    def ready(self) -> bool:
        """It answers and, when there is a DataNode to report blocks, has left safe mode."""
        off = self._safe_mode_is_off()
        return off or Process(self.layout, DataNode.name).identity() is None

    def address(self) -> str:
        return f"hdfs://{HOST}:{self.ports['namenode']}"


class DataNode(HdfsServer):
    name = "datanode"
    main = "org.apache.hadoop.hdfs.server.datanode.DataNode"

    def ready(self) -> bool:
        """It heartbeats to the NameNode, and the NameNode takes writes.

        Asked before it has registered, a DataNode logs a stack trace; so the NameNode, which remembers it for ten minutes, goes first.
        """
        if not self._attribute("namenode_http", "service=NameNode,name=FSNamesystemState", "NumLiveDataNodes"):
            return False
        actors = json.loads(self._attribute("datanode_http", "service=DataNode,name=DataNodeInfo", "BPServiceActorInfo") or "[]")
        return any(actor.get("ActorState") == "RUNNING" for actor in actors) and self._safe_mode_is_off()

    def address(self) -> str:
        return f"{HOST}:{self.ports['datanode']}"


def write_client_settings(conf: Path, data: Path, ports: dict[str, int]) -> None:
    """core-site.xml and hdfs-site.xml, which servers and clients share as they do in a real cluster."""

    def at(port: str) -> str:
        return f"{HOST}:{ports[port]}"

    settings.write_hadoop_xml(
        conf / "core-site.xml",
        {"fs.defaultFS": f"hdfs://{at('namenode')}", "hadoop.tmp.dir": data / "hadoop-tmp"},
    )
    settings.write_hadoop_xml(
        conf / "hdfs-site.xml",
        {
            "dfs.replication": 1,
            "dfs.permissions.enabled": "false",
            "dfs.namenode.name.dir": f"file://{data / 'namenode'}",
            "dfs.datanode.data.dir": f"file://{data / 'datanode'}",
            "dfs.namenode.rpc-address": at("namenode"),
            "dfs.namenode.http-address": at("namenode_http"),
            "dfs.datanode.address": at("datanode"),
            "dfs.datanode.http.address": at("datanode_http"),
            "dfs.datanode.ipc.address": at("datanode_ipc"),
            "dfs.datanode.hostname": HOST,
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            # Out of safe mode only when every block has been reported (the default rounds 99.9 % of few blocks down to none),
            # but then at once: a restarted NameNode that is ready can be read from.
            "dfs.namenode.safemode.threshold-pct": "1.0",
            "dfs.namenode.safemode.min.datanodes": 1,
            "dfs.namenode.safemode.extension": 0,
        },
    )
