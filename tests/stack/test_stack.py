"""What the stack's scripts must get right without any server running."""

import datetime
import decimal
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import unittest
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

from sql_client import plain, statements
from stacklib import artifacts, choices, settings, trino
from stacklib.choices import Choices
from stacklib.layout import CONF, Layout, StackError
from stacklib.metastore_versions import VERSIONS
from stacklib.process import Process, identify
from stacklib.stack import Stack


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


class WhatWasChosen(InDirectory):
    def test_a_stack_keeps_its_main_metastore_and_takes_others_beside_it(self):
        made = choices.extended(None, (), None)
        self.assertEqual(made.metastore_versions, ("4.0.1",))
        more = choices.extended(made, ("4.0.1", "2.3.9"), 20)
        more = choices.extended(more, ("4.0.1", "derby", "2.3.9", "4.0.1"), None)
        more = choices.extended(more, (), None, ["trino"])
        more = choices.extended(more, (), None, ["hiveserver2", "trino"])
        self.assertEqual(more, Choices("4.0.1", ("2.3.9", "derby"), 20, ("trino", "hiveserver2")))
        self.assertEqual(choices.extended(more, (), None), more)
        with self.assertRaisesRegex(StackError, "main metastore is 4.0.1, not 2.3.9"):
            choices.extended(more, ("2.3.9",), None)

    def test_it_is_read_again(self):
        self.assertIsNone(choices.read(self.layout))
        written = Choices("3.1.3", ("2.3.9",), 20, ("trino",))
        choices.write(self.layout, written)
        self.assertEqual(choices.read(self.layout), written)

    def test_a_stack_that_knew_only_one_metastore_is_read(self):
        (self.layout.run / "choices.json").write_text('{"metastore_version": "3.1.3"}')
        self.assertEqual(choices.read(self.layout), Choices("3.1.3"))

    def test_a_lock_timeout_is_not_changed_under_a_running_metastore(self):
        running = Stack(self.layout, lock_timeout_seconds=20).server("metastore").process
        running.spawn([sys.executable, "-c", "import time; time.sleep(600)"], Path("/"), {}, None)
        self.addCleanup(running.kill)
        with self.assertRaisesRegex(StackError, "^metastore would keep"):
            Stack(self.layout, lock_timeout_seconds=30)
        self.assertEqual(Stack(self.layout).choices.lock_timeout_seconds, 20)


def warehouse(site: dict) -> str:
    return next(value for name, value in site.items() if name.endswith("metastore.warehouse.dir"))


class Metastores(InDirectory):
    def test_each_has_its_name_its_port_and_its_data(self):
        stack = Stack(self.layout, list(VERSIONS))
        servers = list(stack.metastores.values())
        names = ["metastore", *(f"metastore-{version}" for version in VERSIONS if version != "4.0.1")]
        self.assertEqual([server.name for server in servers], names)
        self.assertEqual([server.name for server in stack.servers.values()][-len(names) :], names)
        for what in (lambda one: one.address(), lambda one: one.conf):
            self.assertEqual(len({what(server) for server in servers}), len(servers))
        alone = [server for server in servers if server.name != "metastore-second"]
        for what in (lambda one: one.site()["javax.jdo.option.ConnectionURL"], lambda one: warehouse(one.site())):
            self.assertEqual(len({what(server) for server in alone}), len(alone))

    def test_a_second_server_shares_the_data_of_the_main_one(self):
        stack = Stack(self.layout, ["4.0.1", "second"])
        main, second = stack.server("metastore"), stack.server("metastore-second")
        self.assertNotEqual(main.address(), second.address())
        for what in (lambda one: one.site()["javax.jdo.option.ConnectionURL"], lambda one: warehouse(one.site())):
            self.assertEqual(what(main), what(second))
        self.assertIn("metastore", second.needs)
        with self.assertRaisesRegex(StackError, "would not share with it"):
            choices.extended(None, ["3.1.3", "second"], None)

    def test_the_environment_names_each(self):
        stack = Stack(self.layout, ["3.1.3", "2.3.10", "derby"])
        environment = stack.environment()
        self.assertEqual(
            {name: environment[name] for name in environment if name.startswith("HIVE_METASTORE")},
            {
                "HIVE_METASTORE_URIS": stack.server("metastore").address(),
                "HIVE_METASTORE_URIS_3_1_3": stack.server("metastore-3.1.3").address(),
                "HIVE_METASTORE_URIS_2_3_10": stack.server("metastore-2.3.10").address(),
                "HIVE_METASTORE_URIS_DERBY": stack.server("metastore-derby").address(),
            },
        )
        self.assertIs(stack.server("metastore"), stack.server("metastore-3.1.3"))
        with self.assertRaisesRegex(StackError, "unknown server metastore-4.0.1"):
            stack.server("metastore-4.0.1")

    def test_settings_have_the_names_of_the_version(self):
        stack = Stack(self.layout, list(VERSIONS))
        for version, server in stack.metastores.items():
            with self.subTest(version):
                site = server.site()
                self.assertNotIn("hive.txn.timeout", site)
                old = version.startswith("2.")
                self.assertEqual(any(name.startswith("metastore.") for name in site), not old)
                self.assertIn("hive.metastore.warehouse.dir" if old else "metastore.warehouse.dir", site)
                main = server.owner == "metastore"
                self.assertRegex(warehouse(site), "/warehouse/managed$" if main else f"/warehouse-{version}/managed$")

    def test_a_lock_timeout_is_looked_for_in_time(self):
        for version, server in Stack(self.layout, list(VERSIONS), 20).metastores.items():
            with self.subTest(version):
                site = server.site()
                self.assertEqual(site["hive.txn.timeout"], "20s")
                self.assertEqual({site[name] for name in VERSIONS[version].reaper_intervals}, {"5s"})

    def test_each_version_says_what_it_is_made_of(self):
        for name, version in VERSIONS.items():
            for pom in {version.pom, version.server_pom or version.pom}:
                with self.subTest(name, pom=pom):
                    self.assertTrue((CONF / f"{pom}.pom.xml").is_file())


class Engines(InDirectory):
    def test_a_hiveserver2_stands_beside_each_metastore_that_has_one(self):
        stack = Stack(self.layout, ["4.0.1", "3.1.3", "2.3.9"], engines=["hiveserver2"])
        self.assertEqual([server.name for server in stack.hiveserver2s.values()], ["hiveserver2", "hiveserver2-3.1.3"])
        for version, server in stack.hiveserver2s.items():
            self.assertEqual(server.site()["hive.metastore.uris"], stack.metastores[version].address())
            self.assertEqual(server.needs, (stack.metastores[version].name,))
        environment = stack.environment()
        self.assertEqual(environment["HIVESERVER2"], environment["HIVESERVER2_4_0_1"])
        self.assertNotEqual(environment["HIVESERVER2"], environment["HIVESERVER2_3_1_3"])
        self.assertIs(stack.server("hiveserver2-4.0.1"), stack.server("hiveserver2"))
        # Commands that name no engine know them all the same.
        self.assertIn("hiveserver2-3.1.3", Stack(self.layout).servers)

    def test_trino_has_two_catalogs_for_each_metastore_that_lead_to_each_other(self):
        stack = Stack(self.layout, ["4.0.1", "3.1.3", "2.3.10"], engines=["trino"])
        locking = {}
        for version, metastore in stack.metastores.items():
            catalogs = stack.trino.catalogs(version, metastore)
            (hive, of_hive), (iceberg, of_iceberg) = catalogs.items()
            self.assertEqual((of_hive["connector.name"], of_iceberg["connector.name"]), ("hive", "iceberg"))
            self.assertEqual((of_hive["hive.iceberg-catalog-name"], of_iceberg["iceberg.hive-catalog-name"]), (iceberg, hive))
            self.assertEqual({catalog["hive.metastore.uri"] for catalog in catalogs.values()}, {metastore.address()})
            locking[iceberg] = of_iceberg["iceberg.hive-catalog.locking-enabled"]
        self.assertEqual(locking, {"iceberg": "false", "iceberg_3_1_3": "true", "iceberg_2_3_10": "false"})
        self.assertEqual(stack.environment()["TRINO_URL"], stack.trino.address())

    def test_a_stack_without_engines_has_none(self):
        stack = Stack(self.layout)
        self.assertEqual((stack.hiveserver2s, stack.trino), ({}, None))
        self.assertFalse({"TRINO_URL", "HIVESERVER2", "LAKESMITH_CLIENTS_PYTHON"} & set(stack.environment()))


class Unpacking(InDirectory):
    def test_links_of_a_tarball_hold_and_what_nobody_needs_goes(self):
        tarball, into = self.layout.root / "server.tar.gz", self.layout.root / "server"
        with tarfile.open(tarball, "w:gz") as archive:
            for name in ("server-1/plugin/other/a.jar", "server-1/plugin/hive/b.jar"):
                member = tarfile.TarInfo(name)
                member.size = 3
                archive.addfile(member, io.BytesIO(b"jar"))
            link = tarfile.TarInfo("server-1/plugin/hive/a.jar")
            link.type, link.linkname = tarfile.LNKTYPE, "server-1/plugin/other/a.jar"
            archive.addfile(link)
        artifacts._unpack(tarball, into)
        trino.without_other_plugins(into)
        self.assertEqual(sorted(path.name for path in into.rglob("*")), ["a.jar", "b.jar", "hive", "plugin"])
        self.assertEqual((into / "plugin/hive/a.jar").read_bytes(), b"jar")


class SettingsFiles(InDirectory):
    def test_hadoop_values_are_escaped(self):
        file = self.layout.conf / "site.xml"
        settings.write_hadoop_xml(file, {"a": "x & <y>"})
        self.assertIn("<value>x &amp; &lt;y&gt;</value>", file.read_text())


class Values(unittest.TestCase):
    def test_every_engine_answers_in_one_form(self):
        east = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
        cases = {
            None: None,
            decimal.Decimal("1E+2"): "100",
            datetime.datetime(2024, 7, 1, 13): "2024-07-01T13:00:00.000000",
            datetime.datetime(2024, 7, 1, 13, tzinfo=east): "2024-07-01T07:30:00.000000",
            datetime.date(2024, 7, 1): "2024-07-01",
            b"\xff": "/w==",
            float("inf"): "inf",
            (1, ("a", None)): [1, ["a", None]],
        }
        for value, expected in cases.items():
            with self.subTest(value):
                self.assertEqual(plain(value), expected)
        self.assertEqual(plain({"k": b"v"}), [["k", "dg=="]])


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
