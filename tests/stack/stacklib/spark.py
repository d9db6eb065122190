"""Spark, the second engine: a Python environment with pyspark, and the jars that make it a client of Iceberg and of each metastore.

Two lines of it, each at its newest release that Iceberg has a runtime for.
"""

from dataclasses import dataclass
from pathlib import Path

from . import artifacts


@dataclass(frozen=True)
class Spark:
    # As `stack up --with` calls it, and its pom.
    name: str
    # What the variables of `stack env` begin with.
    prefix: str
    pyspark: str

    @property
    def environment(self) -> str:
        return self.pyspark.replace("==", "-")

    def install(self) -> Path:
        """Returns the directory of the jars."""
        artifacts.install_programs(["java"])
        artifacts.install_python_environment(self.environment, (self.pyspark,))
        return artifacts.maven(self.name)

    def variables(self) -> dict[str, str]:
        """What spark_sql.py needs, if this Spark has been installed."""
        python = artifacts.python_environment(self.environment) / "bin" / "python"
        jars = artifacts.maven_directory(self.name)
        if not (python.exists() and jars.is_dir()):
            return {}
        return {f"{self.prefix}_PYTHON": str(python), f"{self.prefix}_JARS": str(jars)}


SPARK = Spark("spark", "LAKESMITH_SPARK", "pyspark==4.1.4")
SPARK_3_5 = Spark("spark-3.5", "LAKESMITH_SPARK_3_5", "pyspark==3.5.9")
SPARKS = {one.name: one for one in (SPARK, SPARK_3_5)}


def variables() -> dict[str, str]:
    return {**SPARK.variables(), **SPARK_3_5.variables()}
