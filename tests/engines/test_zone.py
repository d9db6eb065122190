"""The types of test_types.py once more, with metastore, Trino and HiveServer2 on a machine whose clock is that of India, and Spark and
lakesmith too.

The servers of the stack are started in that zone before, and as they were after. It has half an hour, so that nothing comes out right by
accident.
"""

import os
import subprocess
import unittest

from engine import STACK, Spark
from test_types import AsHive, Types

ZONE = "Asia/Kolkata"
SERVERS = ("metastore", "hiveserver2", "hiveserver2-3.1.3", "trino")


def restart() -> None:
    """In the zone of this process."""
    for verb, servers in (("stop", reversed(SERVERS)), ("start", SERVERS)):
        for server in servers:
            subprocess.run([str(STACK / "stack"), verb, server], check=True, stdout=subprocess.DEVNULL)


def setUpModule():
    unittest.addModuleCleanup(restart)
    unittest.addModuleCleanup(os.environ.pop, "TZ")
    # Also of lakesmith's processes.
    os.environ["TZ"] = ZONE
    restart()


class India:
    metastore = "4.0.1"
    iceberg_servers = ("3.1.3",)
    hive_servers = ("4.0.1",)
    row = f"4.0.1 in {ZONE}"

    @classmethod
    def session(cls, kind: type, *arguments: str):
        """Those of other tests ended with their servers."""
        engine = kind(*arguments, *([ZONE] if kind is Spark else []))
        cls.addClassCleanup(engine.close)
        return engine


class InIndia(India, Types, unittest.TestCase):
    def test_the_servers_are_in_that_zone(self):
        self.assertEqual(self.spark.run("select current_timezone()").value(), ZONE)
        for hive in self.hives.values():
            shown = hive.run("set system:user.timezone").text()
            self.assertIn(f"user.timezone={ZONE}", shown, hive.name)


class AsHiveInIndia(India, AsHive, unittest.TestCase):
    pass


if __name__ == "__main__":
    unittest.main()
