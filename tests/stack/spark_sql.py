#!/usr/bin/env python3
"""Runs SQL in one Spark session on the stack: the second engine, which counts what lakesmith has written.

    eval "$(tests/stack/stack env)"
    tests/stack/spark_sql.py 'select count(*) from datalake.silver_amazon_sales' 'show tables in datalake'
    tests/stack/spark_sql.py < statements.sql

Statements are separated by `;` and may be given as arguments; without arguments they are read from standard input, where a
line holds whole statements and is answered before the next one is read, so that a test can keep one session open. Every
statement is answered by one line of JSON, in order:

    {"sql": …, "columns": [[name, type], …], "rows": [[…], …], "seconds": …}    or    {"sql": …, "error": …, "seconds": …}

Decimals are strings in plain notation, dates `2024-07-01`, timestamps `2024-07-01T13:00:00.000000` in UTC, binary values
base64, structs objects, maps lists of pairs. The exit code is 1 if a statement failed.

Iceberg and Hive tables and Hive views are all called `database.table`: the session catalog is Iceberg's, which hands on what
is not its own. Nothing is cached between statements, so that each one sees what others have committed before it.
"""

import base64
import datetime
import decimal
import json
import math
import os
import re
import sys
import time
from pathlib import Path
from typing import Iterator

STACK = Path(__file__).resolve().parent


def setting(name: str) -> str:
    """What `stack env` has set."""
    value = os.environ.get(name)
    if not value:
        sys.exit(f"error: {name} is not set\n hint: eval \"$({STACK / 'stack'} env)\", after `stack up --with spark`")
    return value


# Quoted text, comments, and everything else character by character.
TOKEN = re.compile(r"""'(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*" | `[^`]*` | --[^\n]* | /\*.*?\*/ | .""", re.DOTALL | re.VERBOSE)


def statements(text: str) -> Iterator[str]:
    """Splits at semicolons outside quotes and comments; drops comments, but not hints."""
    statement = ""
    for token in [*TOKEN.findall(text), ";"]:
        if token == ";":
            if statement.strip():
                yield statement.strip()
            statement = ""
        elif not token.startswith(("--", "/*")) or token.startswith("/*+"):
            statement += token


def session():
    """A local session whose metastore client is that of Hive 4."""
    import logging

    from pyspark.sql import SparkSession

    # It logs every failed statement with the JVM's whole stack; the answer says what failed.
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    jars = Path(setting("LAKESMITH_SPARK_JARS"))
    # Iceberg's catalog loads the metastore's classes beside Spark's own Hive 2.3 client, so these come first.
    # hive-common must not: it renames configuration keys which that client uses.
    first = [
        jar
        for name in ("iceberg-spark-runtime", "hive-standalone-metastore-common", "hive-storage-api")
        for jar in jars.glob(f"{name}-*.jar")
    ]
    hive_client = [jar for jar in jars.glob("*.jar") if not jar.name.startswith("iceberg-")]
    scratch = Path(setting("LAKESMITH_STACK_DIR")) / "data" / "spark"
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    java_options = f"-Duser.timezone=UTC -XX:+UseSerialGC -Dlog.level=ERROR -Dlog4j2.configurationFile={STACK / 'conf/log4j2.properties'}"
    settings = {
        "spark.master": "local[2]",
        "spark.driver.memory": "1g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraClassPath": ":".join(map(str, first)),
        "spark.driver.extraJavaOptions": java_options,
        "spark.local.dir": scratch,
        "spark.log.level": "ERROR",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.hadoop.fs.defaultFS": setting("HDFS_URL"),
        "spark.hadoop.hive.metastore.uris": setting("HIVE_METASTORE_URIS"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": 2,
        "spark.sql.warehouse.dir": setting("HDFS_URL") + "/warehouse/external",
        "spark.sql.catalogImplementation": "hive",
        "spark.sql.hive.metastore.version": "4.0.1",
        "spark.sql.hive.metastore.jars": "path",
        "spark.sql.hive.metastore.jars.path": ",".join(f"file://{jar}" for jar in hive_client),
        "spark.sql.hive.filesourcePartitionFileCacheSize": 0,
        "spark.sql.filesourceTableRelationCacheSize": 0,
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.spark_catalog": "org.apache.iceberg.spark.SparkSessionCatalog",
        "spark.sql.catalog.spark_catalog.type": "hive",
        "spark.sql.catalog.spark_catalog.cache-enabled": "false",
    }
    builder = SparkSession.builder.appName("spark_sql")
    for name, value in settings.items():
        builder = builder.config(name, str(value))
    return builder.getOrCreate()


def plain(value):
    """A value as JSON can hold it."""
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, datetime.datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return [[plain(key), plain(item)] for key, item in value.items()]
    if hasattr(value, "asDict"):
        return {name: plain(item) for name, item in zip(value.__fields__, value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def answer(spark, sql: str) -> dict:
    started = time.monotonic()
    try:
        frame = spark.sql(sql)
        columns = [[field.name, field.dataType.simpleString()] for field in frame.schema.fields]
        rows = [[plain(value) for value in row] for row in frame.collect()]
        result = {"sql": sql, "columns": columns, "rows": rows}
    except Exception as error:
        # Spark's messages go on for pages with the plan and the JVM's stack; the first part says what is wrong.
        result = {"sql": sql, "error": str(error).split("\n\nJVM stacktrace")[0].strip()}
    return {**result, "seconds": round(time.monotonic() - started, 3)}


def main(arguments: list[str]) -> int:
    python = Path(setting("LAKESMITH_SPARK_PYTHON"))
    if Path(sys.prefix) != python.parent.parent:
        os.execv(python, [str(python), __file__, *arguments])
    # The JVM inherits standard output: keep it for the answers alone.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # Python's datetime values are in the process's zone.
    os.environ["TZ"] = "UTC"
    time.tzset()
    spark, failed = session(), False
    try:
        for text in arguments or sys.stdin:
            for sql in statements(text):
                result = answer(spark, sql)
                failed = failed or "error" in result
                print(json.dumps(result, ensure_ascii=False), file=answers)
    finally:
        spark.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
