"""A client that is not ours against the embedded metastore: pyiceberg's, which Thrift's compiler made of Hive's interface. Every served
method that it has is called.

LAKESMITH_BIN is the program. No other server is needed; pyiceberg is installed into the stack's cache.
"""

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TESTS / "stack"))

from stacklib import pyiceberg  # noqa: E402

SUBJECTS = ("databases", "tables", "partitions_read", "partitions_written", "locks", "fixed_answers")


def ask(*arguments: str) -> list[str]:
    client = str(Path(__file__).with_name("thrift_client.py"))
    done = subprocess.run([str(pyiceberg.install()), client, *arguments], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return json.loads(done.stdout)


@functools.cache
def called(subject: str) -> list[str]:
    """The methods that were called on a new server, each with the answer that was to be."""
    with tempfile.TemporaryDirectory(prefix="lakesmith-thrift-") as directory:
        command = [os.environ["LAKESMITH_BIN"], "metastore", "--warehouse", "./lakehouse", "--listen", "127.0.0.1:0"]
        with subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as server:
            try:
                serving = re.search(r"thrift://127\.0\.0\.1:(\d+)$", server.stdout.readline())
                if not serving:
                    raise AssertionError("the metastore does not start")
                return ask(serving[1], subject)
            finally:
                server.kill()


class Thrift(unittest.TestCase):
    def test_databases(self):
        called("databases")

    def test_tables(self):
        called("tables")

    def test_reading_partitions(self):
        called("partitions_read")

    def test_writing_partitions(self):
        called("partitions_written")

    def test_locks(self):
        called("locks")

    def test_fixed_answers(self):
        called("fixed_answers")

    def test_what_is_left_out_on_purpose_is_unknown(self):
        self.assertIn("get_partitions_by_expr", called("unknown"))

    def test_every_served_method_that_the_client_has_is_called(self):
        served = ask("served")
        self.assertIn("get_table", served)
        self.assertEqual(set(served) - {name for subject in SUBJECTS for name in called(subject)}, set())


if __name__ == "__main__":
    unittest.main()
