"""What the stack's scripts must get right without any server running."""

import json
import subprocess
import sys
import tempfile
import unittest
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

from spark_sql import statements
from stacklib import settings
from stacklib.layout import Layout
from stacklib.process import Process, identify


class InDirectory(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        environment = mock.patch.dict("os.environ", LAKESMITH_STACK_DIR=directory.name, LAKESMITH_CACHE=directory.name)
        environment.start()
        self.addCleanup(environment.stop)
        self.layout = Layout()
        self.layout.create()


class Processes(InDirectory):
    def sleeper(self) -> Process:
        process = Process(self.layout, "sleeper")
        process.spawn([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"], Path("/"), {}, None)
        self.addCleanup(process.kill)
        return process

    def test_a_process_is_found_again_and_killed(self):
        identity = self.sleeper().identity()
        self.assertIsNotNone(identity)
        again = Process(self.layout, "sleeper")
        self.assertEqual(again.identity(), identity)
        self.assertTrue(again.kill())
        self.assertIsNone(again.identity())
        self.assertFalse(again.kill())

    def test_a_process_id_used_again_is_left_alone(self):
        stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.addCleanup(stranger.wait)
        self.addCleanup(stranger.kill)
        earlier = replace(identify(stranger.pid), start_ticks=identify(stranger.pid).start_ticks - 1)
        process = Process(self.layout, "server")
        process.record.write_text(json.dumps(asdict(earlier)))
        self.assertIsNone(process.identity())
        self.assertFalse(process.kill())
        self.assertIsNone(stranger.poll())

    def test_the_end_of_the_log_is_shown(self):
        process = Process(self.layout, "talker")
        process.log.write_text("".join(f"line {number}\n" for number in range(100)))
        self.assertEqual(process.log_tail(2), "line 98\nline 99")


class Ports(InDirectory):
    def test_ports_are_distinct_kept_and_never_outgoing(self):
        ports = settings.ports(self.layout)
        self.assertEqual(sorted(ports), sorted(settings.PORTS))
        self.assertEqual(len(set(ports.values())), len(ports))
        self.assertEqual(settings.ports(self.layout), ports)
        first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        self.assertLess(max(ports.values()), first_outgoing)


class SettingsFiles(InDirectory):
    def test_hadoop_values_are_escaped(self):
        file = self.layout.conf / "site.xml"
        settings.write_hadoop_xml(file, {"a": "x & <y>"})
        self.assertIn("<value>x &amp; &lt;y&gt;</value>", file.read_text())


class Statements(unittest.TestCase):
    def test_split(self):
        cases = {
            "": [],
            ";;": [],
            "select 1": ["select 1"],
            "select 1; select 2;": ["select 1", "select 2"],
            "select ';' ; select \"a;b\", `c;d`": ["select ';'", 'select "a;b", `c;d`'],
            r"select 'it\'s; one'": [r"select 'it\'s; one'"],
            "select 1 -- a; b\n, 2": ["select 1 \n, 2"],
            "select /* a; ' */ 1": ["select  1"],
            "select /*+ coalesce(1) */ 1 -- the end;": ["select /*+ coalesce(1) */ 1"],
        }
        for text, expected in cases.items():
            with self.subTest(text):
                self.assertEqual(list(statements(text)), expected)


if __name__ == "__main__":
    unittest.main()
