"""DuckDB, which reads Iceberg tables without a metastore: a Python environment with its extensions, which are loaded from there."""

from pathlib import Path

from . import artifacts

DUCKDB = "duckdb==1.4.4"
# An extension fits one version of DuckDB. Iceberg's manifests are Avro files.
PACKAGES = (DUCKDB, "duckdb-ext-iceberg==1.4.4.20260205", "duckdb-ext-avro==1.4.4.20260205")


def install() -> Path:
    """Returns the environment's Python."""
    return artifacts.install_python_environment(DUCKDB.replace("==", "-"), PACKAGES)
