"""Kafka in KRaft mode: one process that is both broker and controller."""

import base64
import socket
import struct
import uuid
from pathlib import Path

from . import artifacts, settings
from .layout import CONF, HOST
from .server import Server, java


class Kafka(Server):
    name = "kafka"

    def install(self) -> None:
        self.lib = artifacts.maven("kafka")

    @property
    def data(self) -> Path:
        return self.layout.data / "kafka"

    @property
    def properties(self) -> Path:
        return self.layout.conf / "kafka.properties"

    def configure(self) -> None:
        broker, controller = f"{HOST}:{self.ports['kafka']}", f"{HOST}:{self.ports['kafka_controller']}"
        settings.write_properties(
            self.properties,
            {
                "process.roles": "broker,controller",
                "node.id": 1,
                "controller.quorum.voters": f"1@{controller}",
                "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
                "advertised.listeners": f"PLAINTEXT://{broker}",
                "controller.listener.names": "CONTROLLER",
                "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
                "inter.broker.listener.name": "PLAINTEXT",
                "log.dirs": self.data,
                "num.partitions": 3,
                # A typing error in a topic's name must be an error.
                "auto.create.topics.enable": "false",
                "offsets.topic.replication.factor": 1,
                "offsets.topic.num.partitions": 1,
                "transaction.state.log.replication.factor": 1,
                "transaction.state.log.min.isr": 1,
                "transaction.state.log.num.partitions": 1,
                "share.coordinator.state.topic.replication.factor": 1,
                "share.coordinator.state.topic.min.isr": 1,
                "group.initial.rebalance.delay.ms": 0,
                # A killed broker can register again only when its last session has ended: 9 s by default.
                "broker.session.timeout.ms": 3000,
                "broker.heartbeat.interval.ms": 500,
            },
        )
        if not (self.data / "meta.properties").exists():
            # A cluster id of its own: lakesmith refuses to go on against another cluster, and tests rely on it.
            cluster_id = "L" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
            format_storage = self._java(256, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(self.properties))
            artifacts.run_logged(format_storage, "formatting Kafka's storage")

    def command(self) -> list[str]:
        return self._java(512, "kafka.Kafka", str(self.properties))

    def _java(self, heap_mib: int, main: str, *arguments: str) -> list[str]:
        log = f"-Dlog4j2.configurationFile={CONF / 'log4j2.properties'}"
        return java(heap_mib, [f"{self.lib}/*"], main, *arguments, flags=(log,))

    def ready(self) -> bool:
        """Asks for the cluster's metadata: a broker is listed once it takes produce and fetch requests."""
        api_key_metadata, version, correlation_id, no_client_id, no_topics = 3, 0, 1, -1, 0
        request = struct.pack(">hhihi", api_key_metadata, version, correlation_id, no_client_id, no_topics)
        with socket.create_connection((HOST, self.ports["kafka"]), timeout=5) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            reply = connection.makefile("rb").read(12)
        if len(reply) < 12:
            return False
        _size, correlation, brokers = struct.unpack(">iii", reply)
        return correlation == correlation_id and brokers == 1

    def address(self) -> str:
        return f"{HOST}:{self.ports['kafka']}"
