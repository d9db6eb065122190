"""Spark, the second engine: a Python environment with pyspark, and the jars that make it a client of Hive 4 and Iceberg."""

from pathlib import Path

from . import artifacts

PYSPARK = "pyspark==4.1.1"
ENVIRONMENT = PYSPARK.replace("==", "-")


def install() -> Path:
    """Returns the directory of the jars."""
    artifacts.install_programs(["java"])
    artifacts.install_python_environment(ENVIRONMENT, (PYSPARK,))
    return artifacts.maven("spark")


def variables() -> dict[str, str]:
    """What spark_sql.py needs, if Spark has been installed."""
    python = artifacts.python_environment(ENVIRONMENT) / "bin" / "python"
    jars = artifacts.maven_directory("spark")
    if not (python.exists() and jars.is_dir()):
        return {}
    return {"LAKESMITH_SPARK_PYTHON": str(python), "LAKESMITH_SPARK_JARS": str(jars)}
