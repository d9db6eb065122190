"""What classes of tests on one metastore share: the engines that read there, and the cells of the README's table that they fill."""

from engine import Hive, Spark, Trino, session
from matrix import Cells


class WithEngines:
    metastore: str
    # Versions of the HiveServer2s.
    hive_servers: tuple[str, ...]

    @classmethod
    def setUpClass(cls):
        cls.cells = Cells()
        cls.addClassCleanup(cls.cells.save)
        # They start while a lake is written.
        cls.spark, cls.trino = session(Spark, cls.metastore), session(Trino, cls.metastore)
        cls.hives = [session(Hive, cls.metastore, server) for server in cls.hive_servers]
        cls.engines = [cls.spark, cls.trino, *cls.hives]
