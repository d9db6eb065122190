"""The Python packages that talk to Kafka, Trino and HiveServer2, in an environment of their own."""

import hashlib
from pathlib import Path

from . import artifacts

# thrift and thrift-sasl decide whether impyla can log in.
PACKAGES = ("confluent-kafka==2.16.1", "impyla==0.24.0", "thrift==0.25.0", "thrift-sasl==0.4.3", "trino==0.340.0")
# Other packages are another environment.
ENVIRONMENT = f"clients-{hashlib.sha256(' '.join(PACKAGES).encode()).hexdigest()[:8]}"


def install() -> None:
    artifacts.install_python_environment(ENVIRONMENT, PACKAGES)


def variables() -> dict[str, str]:
    """What hive_sql.py and trino_sql.py need."""
    return {"LAKESMITH_CLIENTS_PYTHON": str(python())}


def python() -> Path:
    return artifacts.python_environment(ENVIRONMENT) / "bin" / "python"
