"""What classes of tests on one metastore share: the engines that read there, and the cells of the README's table that they fill."""

import unittest

from engine import Hive, Spark, Spark35, Trino, session
from matrix import Cells


class WithEngines:
    metastore: str
    spark_kind: type = Spark
    # Versions of the HiveServer2s.
    hive_servers: tuple[str, ...]

    @classmethod
    def setUpClass(cls):
        cls.cells = Cells()
        cls.addClassCleanup(cls.cells.save)
        # They start while a lake is written.
        cls.spark, cls.trino = session(cls.spark_kind, cls.metastore), session(Trino, cls.metastore)
        cls.hives = [session(Hive, cls.metastore, server) for server in cls.hive_servers]
        cls.engines = [cls.spark, cls.trino, *cls.hives]


# Of these no HiveServer2 runs here; the newest Spark 3.5 reads on one metastore of each line.
FURTHER = ("2.3.10", "2.3.9", "4.1.0", "4.2.1")
WITH_SPARK_3_5 = ("4.0.1", "3.1.3", "2.3.10")


def on_further_metastores(tests: type, module: dict) -> None:
    """Adds classes of these tests to a module: `OnMetastore2310` and so on, and `WithSpark35On401` and so on."""
    for versions, prefix, more in ((FURTHER, "OnMetastore", {}), (WITH_SPARK_3_5, "WithSpark35On", {"spark_kind": Spark35})):
        for version in versions:
            name = prefix + version.replace(".", "")
            body = {"metastore": version, "hive_servers": (), **more, "__module__": module["__name__"], "__qualname__": name}
            module[name] = type(name, (tests, unittest.TestCase), body)
