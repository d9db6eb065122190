#!/usr/bin/env python3
"""Iceberg's sink for Kafka Connect, drained to the end of a topic: what compare.py measures beside lakesmith and Spark.

    bronze   the fields of each message, untyped but for what JSON knows, as one Iceberg table

It writes one table where the others write three: no typing, no enrichment, no table partitions, no gold. Its like is their bronze alone.

Prints one line of JSON: seconds since the worker's start until its first commit and until all rows were in the table; processor seconds and
peak memory of the worker; the steady part of these (watch.py); data files of the table and their bytes; its rows. What the table holds is
asked of the metastore, where Iceberg leaves the current snapshot's summary; that asking is not the worker's and not counted. The topic may
still be filled meanwhile.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STACK = Path(__file__).resolve().parents[2] / "tests" / "stack"
sys.path.insert(0, str(STACK))

from sql_client import become, setting  # noqa: E402
from stacklib import server, settings  # noqa: E402
from watch import Watch  # noqa: E402

# It holds what is not yet committed of a Parquet row group; twice as much made no difference.
HEAP_MIB = 1024
TABLE = "bronze"


def worker(directory: Path, options) -> dict[str, object]:
    """Settings of the worker. It takes 500 records at a time, as by default: more at a time cost more processor time."""
    # A plugin is a directory below the path.
    (directory / "plugins").mkdir()
    (directory / "plugins" / "iceberg").symlink_to(setting("LAKESMITH_CONNECT_ICEBERG_JARS"))
    (port,) = settings.free_ports(1, set())
    return {
        "bootstrap.servers": options.brokers,
        "listeners": f"http://127.0.0.1:{port}",
        "plugin.path": directory / "plugins",
        # Without a search through all classes, which older plugins need.
        "plugin.discovery": "service_load",
        "key.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
        "offset.storage.file.filename": directory / "offsets",
        # As long as a task with nothing to read may sleep, and so what a commit waits for it: a minute by default.
        "offset.flush.interval.ms": 1000,
        "consumer.auto.offset.reset": "earliest",
        "consumer.fetch.min.bytes": 1 << 20,
        "consumer.max.partition.fetch.bytes": 8 << 20,
    }


def sink(options) -> dict[str, object]:
    """Settings of the connector. A task for each topic partition was slower, cost more processor time and wrote smaller files."""
    return {
        "name": options.database,
        "connector.class": "org.apache.iceberg.connect.IcebergSinkConnector",
        "tasks.max": 1,
        "topics": options.topic,
        "iceberg.tables": f"{options.database}.{TABLE}",
        "iceberg.tables.auto-create-enabled": "true",
        "iceberg.catalog.type": "hive",
        "iceberg.catalog.uri": setting("HIVE_METASTORE_URIS"),
        "iceberg.catalog.warehouse": options.directory,
        "iceberg.hadoop-conf-dir": setting("HADOOP_CONF_DIR"),
        "iceberg.control.topic": options.control_topic,
        "iceberg.control.commit.interval-ms": options.interval * 1000,
    }


class Metastore:
    """Of which one thing is asked: the summary of the table's current snapshot."""

    def __init__(self, uri: str):
        from hive_metastore.ThriftHiveMetastore import Client
        from thrift.protocol.TBinaryProtocol import TBinaryProtocol
        from thrift.transport import TSocket, TTransport

        host, _, port = uri.removeprefix("thrift://").partition(":")
        transport = TTransport.TBufferedTransport(TSocket.TSocket(host, int(port)))
        transport.open()
        self.client = Client(TBinaryProtocol(transport))

    def summary(self, database: str) -> dict[str, str]:
        from hive_metastore import ttypes

        try:
            table = self.client.get_table_req(ttypes.GetTableRequest(dbName=database, tblName=TABLE)).table
        except ttypes.NoSuchObjectException:
            return {}
        return json.loads(table.parameters.get("current-snapshot-summary", "{}"))


def drain(process: subprocess.Popen, options) -> dict:
    metastore, watch = Metastore(setting("HIVE_METASTORE_URIS")), Watch(process.pid)
    while watch.rows < options.rows:
        time.sleep(0.2)
        if process.poll() is not None:
            raise SystemExit(f"the worker ended with {process.returncode}")
        summary = metastore.summary(options.database)
        rows = int(summary.get("total-records", 0))
        watch.committed(rows, rows)
    files = (int(summary["total-data-files"]), int(summary["total-files-size"]))
    return {**watch.result(), "rows": rows, "files": {"bronze": files}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topic", required=True)
    parser.add_argument("--control-topic", required=True, help="of the sink's own, which exists and is empty")
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--directory", required=True, help="on HDFS, for everything that is written")
    parser.add_argument("--database", required=True, help="for the Iceberg table")
    parser.add_argument("--rows", type=int, required=True, help="how many the topic has")
    parser.add_argument("--interval", type=int, default=10, help="seconds between two commits")
    options = parser.parse_args()
    become("LAKESMITH_PYICEBERG_PYTHON", __file__, sys.argv[1:])
    # Then the worker is stopped as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="lakesmith-connect-") as name:
        directory = Path(name)
        files = directory / "worker.properties", directory / "sink.properties"
        for file, values in zip(files, (worker(directory, options), sink(options))):
            settings.write_properties(file, values)
        flags = (f"-Dlog4j2.configurationFile={STACK / 'conf/log4j2.properties'}", "-Dlog.level=ERROR")
        main_class = "org.apache.kafka.connect.cli.ConnectStandalone"
        command = server.java(HEAP_MIB, [f"{setting('LAKESMITH_CONNECT_JARS')}/*"], main_class, *map(str, files), flags=flags)
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        try:
            result = drain(process, options)
        finally:
            process.terminate()
            process.wait()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
