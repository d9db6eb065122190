"""Where a metastore keeps its data: PostgreSQL as in production, or a Derby of its own inside the metastore's process."""

import shutil
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path

from .layout import HOST, Layout, StackError
from .postgres import Postgres


class Database(ABC):
    # Names of the servers that it needs.
    needs: tuple[str, ...] = ()

    @abstractmethod
    def site(self) -> dict[str, object]:
        """The metastore's settings that name the database."""

    @abstractmethod
    def create_schema(self, scripts: list[Path], sql_shell: list[str]) -> None:
        """Runs the scripts unless that was done before. `sql_shell` is a command with sqlline on its class path."""


class PostgresDatabase(Database):
    needs = (Postgres.name,)

    def __init__(self, metastore: str, postgres: Postgres) -> None:
        self.name = metastore.replace("-", "_").replace(".", "_")
        self.postgres = postgres

    def site(self) -> dict[str, object]:
        return {
            "javax.jdo.option.ConnectionURL": f"jdbc:postgresql://{HOST}:{self.postgres.ports['postgres']}/{self.name}",
            "javax.jdo.option.ConnectionDriverName": "org.postgresql.Driver",
            "javax.jdo.option.ConnectionUserName": "postgres",
            "javax.jdo.option.ConnectionPassword": "",
        }

    def create_schema(self, scripts: list[Path], sql_shell: list[str]) -> None:
        """Runs the scripts by psql, in one transaction: Hive's own tool does the same in ten times the time."""
        if self.postgres.psql("postgres", f"--command=select 1 from pg_database where datname = '{self.name}'") == "":
            self.postgres.psql("postgres", f"--command=create database {self.name}")
        if self.postgres.psql(self.name, "--command=select to_regclass('\"VERSION\"')") == "":
            self.postgres.psql(self.name, "--single-transaction", *(f"--file={script}" for script in scripts))


class DerbyDatabase(Database):
    driver = "org.apache.derby.jdbc.EmbeddedDriver"

    def __init__(self, metastore: str, layout: Layout) -> None:
        self.directory = layout.data / metastore

    def site(self) -> dict[str, object]:
        return {
            "javax.jdo.option.ConnectionURL": f"jdbc:derby:{self.directory}",
            "javax.jdo.option.ConnectionDriverName": self.driver,
        }

    def create_schema(self, scripts: list[Path], sql_shell: list[str]) -> None:
        if self.directory.is_dir():
            return
        building = self.directory.with_name(self.directory.name + ".part")
        shutil.rmtree(building, ignore_errors=True)
        for script in scripts:
            url = f"jdbc:derby:{building};create=true"
            command = [*sql_shell, "-u", url, "-n", "APP", "-p", "mine", "-d", self.driver, f"--run={script}"]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            # Its exit code says nothing about the statements; `Error:` does.
            failed = [line for line in done.stdout.splitlines() if line.startswith("Error:")]
            if done.returncode != 0 or failed:
                raise StackError(f"sqlline failed with exit code {done.returncode} on {script.name}: {' '.join(failed)}")
        building.rename(self.directory)
