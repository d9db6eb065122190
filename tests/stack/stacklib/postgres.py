"""PostgreSQL, where the metastore keeps its data, as in production."""

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Optional

from . import artifacts
from .layout import HOST, StackError
from .process import as_user, identify
from .server import Server

# The longest path that fits into the kernel's address of a unix socket, less the name that PostgreSQL adds.
SOCKET_DIR_LENGTH_MAX = 107 - len("/.s.PGSQL.65535.lock")


class Postgres(Server):
    name = "postgres"
    # SIGINT is PostgreSQL's fast shutdown: it does not wait for clients to leave.
    stop_signal = signal.SIGINT

    def install(self) -> None:
        artifacts.install_programs(["initdb", "psql"])

    def user(self) -> Optional[str]:
        """PostgreSQL refuses to run as root."""
        return "postgres" if os.geteuid() == 0 else None

    @property
    def home(self) -> Path:
        """A directory that the server's user can reach: below root's home it could not, so then it is in that user's home."""
        recorded = self.layout.data / "postgres"
        if recorded.is_symlink() or recorded.is_dir():
            return recorded.resolve()
        recorded.mkdir()
        if self.user() is None or self._reaches(recorded):
            return recorded
        recorded.rmdir()
        digest = hashlib.sha256(str(self.layout.root).encode()).hexdigest()[:12]
        elsewhere = Path(pwd.getpwnam(self.user()).pw_dir) / f"lakesmith-{digest}"
        shutil.rmtree(elsewhere, ignore_errors=True)
        elsewhere.mkdir(parents=True)
        recorded.symlink_to(elsewhere)
        return elsewhere

    def _reaches(self, path: Path) -> bool:
        return subprocess.run(["test", "-x", str(path)], **as_user(self.user())).returncode == 0

    def wipe(self) -> None:
        """Removes the data that lies outside the stack's directory."""
        recorded = self.layout.data / "postgres"
        if recorded.is_symlink():
            shutil.rmtree(recorded.resolve(), ignore_errors=True)

    @property
    def cluster(self) -> Path:
        return self.home / "cluster"

    def configure(self) -> None:
        if (self.cluster / "PG_VERSION").exists():
            self._forget_killed_postmaster()
            return
        if self.user():
            os.chown(self.home, pwd.getpwnam(self.user()).pw_uid, pwd.getpwnam(self.user()).pw_gid)
        shutil.rmtree(self.cluster, ignore_errors=True)
        command = [
            artifacts.program("initdb"),
            f"--pgdata={self.cluster}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
            "--no-instructions",
        ]
        done = subprocess.run(
            command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **as_user(self.user())
        )
        if done.returncode != 0:
            raise StackError(f"initdb failed with exit code {done.returncode}:\n{done.stdout}")

    def _forget_killed_postmaster(self) -> None:
        """A killed server leaves lock files with its process id behind, and as long as nobody has waited for that zombie, PostgreSQL
        takes it for a running one. Whether its children still hold the shared memory, PostgreSQL finds out by itself."""
        for file in (self.cluster / "postmaster.pid", *self.home.glob(".s.PGSQL.*.lock")):
            if file.exists() and identify(int(file.read_text().split()[0])) is None:
                file.unlink()

    def command(self) -> list[str]:
        socket_dir = str(self.home)
        options = {
            "listen_addresses": HOST,
            "port": self.ports["postgres"],
            "unix_socket_directories": socket_dir if len(socket_dir) <= SOCKET_DIR_LENGTH_MAX else "",
            # A killed process loses nothing without fsync, only a killed machine does; and tests kill processes.
            "fsync": "off",
            "shared_buffers": "32MB",
            # A metastore keeps 20 to 30 open, and there may be eight of them.
            "max_connections": 300,
        }
        flags = [flag for name, value in options.items() for flag in ("-c", f"{name}={value}")]
        return [artifacts.program("postgres"), "-D", str(self.cluster), *flags]

    def _cwd(self) -> Path:
        return self.home

    def ready(self) -> bool:
        where = [f"--host={HOST}", f"--port={self.ports['postgres']}", "--username=postgres", "--dbname=postgres"]
        command = [artifacts.program("pg_isready"), "--quiet", *where]
        return subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def psql(self, database: str, *arguments: str) -> str:
        """Runs psql, stopping at the first error, and returns what it printed."""
        command = [
            artifacts.program("psql"),
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
            f"--host={HOST}",
            f"--port={self.ports['postgres']}",
            "--username=postgres",
            f"--dbname={database}",
            *arguments,
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise StackError(f"psql failed on database {database}:\n{done.stderr}")
        return done.stdout.strip()

    def address(self) -> str:
        return f"postgresql://postgres@{HOST}:{self.ports['postgres']}"
