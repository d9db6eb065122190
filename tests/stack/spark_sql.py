#!/usr/bin/env python3
"""Runs SQL in one Spark session on the stack: the second engine, which counts what lakesmith has written.

    eval "$(tests/stack/stack env)"
    tests/stack/spark_sql.py 'select count(*) from datalake.silver_amazon_sales' 'show tables in datalake'
    tests/stack/spark_sql.py < statements.sql
    tests/stack/spark_sql.py --spark 3.5 --metastore 3.1.3 'show tables in datalake'

How statements and answers look is said in sql_client.py.

Iceberg and Hive tables and Hive views are all called `database.table`: the session catalog is Iceberg's, which hands on what
is not its own. Nothing is cached between statements, so that each one sees what others have committed before it.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Optional, Sequence

from sql_client import STACK, become, serve, setting


# The line of Spark, and how its variables in `stack env` begin.
LINES = {"4.1": "LAKESMITH_SPARK", "3.5": "LAKESMITH_SPARK_3_5"}


def session(line: str, metastore: Optional[str], zone: str, more_jars: Sequence[Path] = (), more: Optional[dict] = None):
    """A local session, with further jars and settings. Hive 4 has to be asked by a newer client than the one that Spark brings, which older metastores are asked by."""
    import logging

    from pyspark.sql import SparkSession

    # It logs every failed statement with the JVM's whole stack; the answer says what failed.
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    uris = "HIVE_METASTORE_URIS" + (f"_{metastore.replace('.', '_').upper()}" if metastore else "")
    hive_4 = setting(uris) not in [os.environ.get(f"HIVE_METASTORE_URIS_{version}") for version in ("3_1_3", "2_3_10", "2_3_9")]
    jars = Path(setting(f"{LINES[line]}_JARS"))
    # Iceberg's catalog loads the metastore's classes beside Spark's own Hive 2.3 client, so these come first.
    # hive-common must not: it renames configuration keys which that client uses.
    (iceberg,) = jars.glob("iceberg-spark-runtime-*.jar")
    first = [iceberg, *jars.glob("hive-standalone-metastore-*.jar"), *jars.glob("hive-storage-api-*.jar")]
    hive_client = [jar for jar in jars.glob("*.jar") if jar != iceberg and (line == "4.1" or jar not in first)]
    scratch = Path(setting("LAKESMITH_STACK_DIR")) / "data" / "spark"
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    java_options = f"-Duser.timezone={zone} -XX:+UseSerialGC -Dlog.level=ERROR -Dlog4j2.configurationFile={STACK / 'conf/log4j2.properties'}"
    settings = {
        "spark.master": "local[2]",
        "spark.driver.memory": "1g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraClassPath": str(iceberg),
        "spark.driver.extraJavaOptions": java_options,
        "spark.local.dir": scratch,
        "spark.log.level": "ERROR",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.hadoop.fs.defaultFS": setting("HDFS_URL"),
        "spark.hadoop.hive.metastore.uris": setting(uris),
        "spark.sql.session.timeZone": zone,
        "spark.sql.shuffle.partitions": 2,
        "spark.sql.warehouse.dir": setting("HDFS_URL") + "/warehouse/external",
        "spark.sql.catalogImplementation": "hive",
        "spark.sql.hive.filesourcePartitionFileCacheSize": 0,
        "spark.sql.filesourceTableRelationCacheSize": 0,
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.spark_catalog": "org.apache.iceberg.spark.SparkSessionCatalog",
        "spark.sql.catalog.spark_catalog.type": "hive",
        "spark.sql.catalog.spark_catalog.cache-enabled": "false",
    }
    if hive_4:
        settings |= {
            "spark.driver.extraClassPath": ":".join(map(str, first)),
            "spark.sql.hive.metastore.version": "4.0.1" if line == "4.1" else "3.1.3",
            "spark.sql.hive.metastore.jars": "path",
            "spark.sql.hive.metastore.jars.path": ",".join(f"file://{jar}" for jar in hive_client),
        }
    else:
        # Before 4, a metastore on PostgreSQL fails to filter by whole numbers (Year = 2024) as soon as any table of it is partitioned by text.
        # Spark asks for all partitions then, and prunes them itself.
        settings["spark.sql.hive.metastorePartitionPruningFallbackOnException"] = "true"
    if line == "3.5":
        # Where a file does not say that Spark wrote it, days before 1582-10-15 are an error by default; as Spark 4 takes them:
        settings |= {f"spark.sql.parquet.{kind}RebaseModeInRead": "CORRECTED" for kind in ("datetime", "int96")}
    settings["spark.driver.extraClassPath"] = ":".join(map(str, [settings["spark.driver.extraClassPath"], *more_jars]))
    settings |= more or {}
    builder = SparkSession.builder.appName("spark_sql")
    for name, value in settings.items():
        builder = builder.config(name, str(value))
    return builder.getOrCreate()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spark", choices=LINES, default="4.1", help="the line of Spark")
    parser.add_argument("--metastore", metavar="VERSION", help="instead of the stack's main one")
    parser.add_argument("--zone", default="UTC", help="time zone of the JVM and the session; answers are in UTC all the same")
    parser.add_argument("statements", nargs="*")
    options = parser.parse_args(arguments)
    become(f"{LINES[options.spark]}_PYTHON", __file__, arguments)
    # The JVM inherits standard output: keep it for the answers alone.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    spark = session(options.spark, options.metastore, options.zone)

    def execute(sql: str):
        frame = spark.sql(sql)
        return [[field.name, field.dataType.simpleString()] for field in frame.schema.fields], frame.collect()

    try:
        return serve(execute, options.statements, answers)
    finally:
        spark.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
