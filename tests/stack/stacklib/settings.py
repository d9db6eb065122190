"""Ports, and the settings files of servers and clients."""

import json
import random
import socket
from pathlib import Path
from xml.sax.saxutils import escape

from .layout import HOST, Layout

# Those that every stack has.
PORTS = (
    "kafka",
    "kafka_controller",
    "namenode",
    "namenode_http",
    "datanode",
    "datanode_http",
    "datanode_ipc",
    "postgres",
    "metastore",
)


def ports(layout: Layout, names: tuple[str, ...] = PORTS) -> dict[str, int]:
    """The stack's ports: chosen once, then kept, because locations and clients hold on to them."""
    file = layout.run / "ports.json"
    chosen = json.loads(file.read_text()) if file.exists() else {}
    missing = [name for name in names if name not in chosen]
    if missing:
        chosen.update(zip(missing, free_ports(len(missing), taken=set(chosen.values()))))
        file.write_text(json.dumps(chosen, indent=1))
    return chosen


def free_ports(count: int, taken: set[int]) -> list[int]:
    """Free ports below the range that the kernel uses for outgoing connections.

    A port from that range (as `bind` to port 0 gives) can be lost to any client while its server is down, and a client
    that retries on loopback can even connect to itself: tests that kill and restart servers would fail now and then.
    """
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = list(range(max(10000, min(20000, first_outgoing - 5000)), first_outgoing))
    random.SystemRandom().shuffle(candidates)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            break
        if port not in taken and is_free(port):
            found.append(port)
    return found


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_hadoop_xml(path: Path, values: dict[str, object]) -> None:
    properties = "".join(
        f"  <property><name>{escape(name)}</name><value>{escape(str(value))}</value></property>\n" for name, value in values.items()
    )
    write(path, f'<?xml version="1.0"?>\n<configuration>\n{properties}</configuration>\n')


def write_properties(path: Path, values: dict[str, object]) -> None:
    write(path, "".join(f"{name}={value}\n" for name, value in values.items()))


def read_properties(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())
