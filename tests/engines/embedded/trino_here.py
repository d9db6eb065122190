"""A Trino of the test's own, on the embedded metastore and the files of a local directory."""

from pathlib import Path
from types import SimpleNamespace

from stacklib import settings
from stacklib.layout import Layout
from stacklib.metastore import Metastore
from stacklib.trino import Trino


class TrinoHere(Trino):
    """Everything it writes lies below `root`; it is ready when it reads the tables given, each named with its catalog."""

    def __init__(self, root: Path, metastore_uri: str, tables: tuple[str, ...]) -> None:
        layout = Layout()
        layout.root = root
        layout.conf, layout.data, layout.logs, layout.run = (root / name for name in ("conf", "data", "logs", "run"))
        layout.create()
        # What the stack's catalogs ask of a metastore.
        metastore = SimpleNamespace(
            name=Metastore.name, address=lambda: metastore_uri, version=SimpleNamespace(keeps_expected_values=True)
        )
        super().__init__(layout, {self.name: settings.free_ports(1, set())[0]}, {"embedded": metastore})
        self.needs = ()
        self.probes = tuple(f"select count(*) from {table}" for table in tables)

    def configure(self) -> None:
        super().configure()
        for name in ("core-site.xml", "hdfs-site.xml"):
            settings.write_hadoop_xml(self.layout.hadoop_conf / name, {"fs.defaultFS": "file:///"})
