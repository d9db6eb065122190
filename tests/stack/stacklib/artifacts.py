"""What the servers are made of: Debian packages for programs, Maven artifacts by pom, Python environments for clients.

Everything is kept in the cache directory and nothing is fetched twice. A directory of jars is named after the content of
the pom that asked for it, so that a changed version is a new directory and never a mixture of two.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Optional

from .layout import CONF, StackError, cache_dir, locked, say

DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"

# The program that is looked for, and the Debian package that brings it.
PACKAGES = {
    "java": "openjdk-17-jre-headless",
    "javac": "openjdk-17-jdk-headless",
    "mvn": "maven",
    "initdb": "postgresql",
    "psql": "postgresql-client",
    # A module of Python, which Debian packs apart.
    "ensurepip": "python3-venv",
}


def program(name: str) -> str:
    """The path of an installed program. Debian keeps PostgreSQL's out of PATH, but for wrappers that want their own settings."""
    versions = Path("/usr/lib/postgresql")
    places = sorted(versions.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4])) if versions.is_dir() else []
    found = str(places[-1]) if places else shutil.which(name)
    if not found:
        raise FileNotFoundError(name)
    return found


def have(name: str) -> bool:
    if name == "ensurepip":
        return importlib.util.find_spec(name) is not None
    try:
        return bool(program(name))
    except FileNotFoundError:
        return False


def install_programs(names: list[str]) -> None:
    """Installs the Debian packages of the programs that are missing; an existing installation is left alone."""
    packages = sorted({PACKAGES[name] for name in names if not have(name)})
    if not packages:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise StackError(f"missing programs; install them and try again:\n  apt-get install {' '.join(packages)}")
    say(f"installing {' '.join(packages)} (apt-get)")
    # Debian would create a cluster of its own and start it on port 5432: nobody has asked for that one.
    no_cluster = Path("/etc/postgresql-common/createcluster.d/lakesmith-stack.conf")
    if "postgresql" in packages and not no_cluster.exists():
        no_cluster.parent.mkdir(parents=True, exist_ok=True)
        no_cluster.write_text("create_main_cluster = false\n")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *packages]):
        run_logged(command, "apt-get", environment)


def run_logged(command: list[str], what: str, environment: Optional[dict[str, str]] = None) -> None:
    """Runs an installer; only a failure shows what it said."""
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise StackError(f"{what} failed with exit code {done.returncode}:\n{tail}")


def maven_directory(name: str) -> Path:
    """Where `maven` puts what `conf/NAME.pom.xml` asks for; a changed pom is another directory."""
    digest = hashlib.sha256(_pom(name).read_bytes()).hexdigest()[:8]
    return cache_dir() / "lib" / f"{name}-{digest}"


def _pom(name: str) -> Path:
    return CONF / f"{name}.pom.xml"


def maven(name: str, trim: Optional[Callable[[Path], None]] = None) -> Path:
    """A directory with what `conf/NAME.pom.xml` asks for: jars as links into the local repository, tarballs unpacked.

    `trim` removes from the unpacked what nobody needs; such a tarball is not kept either.
    """
    target = maven_directory(name)
    if target.is_dir():
        return target
    # One Maven at a time: its local repository is not made for several.
    with locked(cache_dir() / "maven.lock"):
        if not target.is_dir():
            install_programs(["mvn"])
            started = time.monotonic()
            with under_construction(target) as building:
                for file in _resolve(_pom(name)):
                    if file.name.endswith(".tar.gz"):
                        _unpack(file, building)
                        if trim:
                            trim(building)
                            file.unlink()
                    else:
                        (building / file.name).symlink_to(file)
            say(f"{name}: fetched in {time.monotonic() - started:.1f} s")
    return target


@contextmanager
def under_construction(target: Path):
    """A directory that gets its name when it is complete: what an interrupted command leaves is never taken for finished."""
    building = target.with_name(target.name + ".part")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    yield building
    building.rename(target)


def _resolve(pom: Path) -> list[Path]:
    """The files of all dependencies in Maven's local repository, fetched where they are missing."""
    listing = cache_dir() / "classpath.txt"
    command = [
        program("mvn"),
        "--quiet",
        "--batch-mode",
        f"--file={pom}",
        f"-Dmaven.repo.local={cache_dir() / 'maven'}",
        f"{DEPENDENCY_PLUGIN}:build-classpath",
        "-DincludeScope=runtime",
        f"-Dmdep.outputFile={listing}",
    ]
    run_logged(command, f"resolving {pom.name}")
    return [Path(entry) for entry in listing.read_text().strip().split(os.pathsep)]


def _unpack(tarball: Path, into: Path) -> None:
    """Unpacks without the directory that every release tarball has at its top."""

    def without_top(path: str) -> str:
        return path.partition("/")[2]

    # As a stream: a second pass would uncompress everything again.
    with tarfile.open(tarball, "r|gz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        for member in archive:
            member.name = without_top(member.name)
            if member.islnk():
                member.linkname = without_top(member.linkname)
            if member.name:
                archive.extract(member, into)


def without_jars(sources: Path, prefixes: tuple[str, ...]) -> Path:
    """A directory of links to the jars in `sources`, less those whose file name begins with one of the prefixes."""
    digest = hashlib.sha256(" ".join(prefixes).encode()).hexdigest()[:8]
    target = sources.with_name(f"{sources.name}-without-{digest}")
    with locked(cache_dir() / "maven.lock"):
        if not target.is_dir():
            with under_construction(target) as building:
                for jar in sources.glob("*.jar"):
                    if not jar.name.startswith(prefixes):
                        (building / jar.name).symlink_to(os.path.realpath(jar))
    return target


def hive3_classes() -> Path:
    """The classes of `conf/hive3`, by which Hive 3.1 runs on a Java newer than 8."""
    sources = sorted((CONF / "hive3").glob("*.java"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]
    target = cache_dir() / "lib" / f"hive3-{digest}"
    hive_exec = maven("hive-exec-3.1.3")
    with locked(cache_dir() / "maven.lock"):
        if not target.is_dir():
            install_programs(["javac"])
            with under_construction(target) as building:
                command = [program("javac"), "-Xlint:-options", "--release", "9", "-cp", f"{hive_exec}/*", "-d", str(building)]
                run_logged([*command, *map(str, sources)], "compiling conf/hive3")
    return target


def python_environment(name: str) -> Path:
    """Where `install_python_environment` puts one."""
    return cache_dir() / name


def install_python_environment(name: str, requirements: tuple[str, ...]) -> Path:
    """A Python environment with the given packages, and the path of its interpreter. The name stands for the versions."""
    environment = python_environment(name)
    with locked(cache_dir() / "python.lock"):
        if not environment.is_dir():
            started = time.monotonic()
            install_programs(["ensurepip"])
            with under_construction(environment) as building:
                run_logged([sys.executable, "-m", "venv", str(building)], "creating a Python environment")
                # No second copy of the large ones in pip's cache.
                pip = [str(building / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-cache-dir", *requirements]
                run_logged(pip, f"installing {name}")
            say(f"{name}: installed in {time.monotonic() - started:.1f} s")
    return environment / "bin" / "python"
