#!/usr/bin/env python3
"""The pipeline as three queries of Spark Structured Streaming, drained to the end of a topic: what compare.py measures beside lakesmith.

    bronze   the message and its coordinates, as JSON files (classic) or an Iceberg table (iceberg)
    silver   its fields, typed and enriched, by year and month, as Parquet files or an Iceberg table
    gold     aggregates of one-minute windows, as Parquet files

Prints one line of JSON: seconds since the process began until the session was up, until silver's first batch was committed and until all
queries had read all rows; processor seconds and peak memory of Python and the JVM; the steady part of these (watch.py); files and bytes of
each layer; the rows of silver. The topic may still be filled meanwhile.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

STACK = Path(__file__).resolve().parents[2] / "tests" / "stack"
sys.path.insert(0, str(STACK))

from spark_sql import session  # noqa: E402
from sql_client import become  # noqa: E402
from watch import Watch, since_start  # noqa: E402

TEXTS = "OrderID CustomerID CustomerName ProductID ProductName Category Brand PaymentMethod OrderStatus City State Country SellerID"
NUMBERS = "UnitPrice Discount Tax ShippingCost TotalAmount"
SCHEMA = ", ".join(
    ["OrderDate DATE", "Quantity INT", *(f"{name} STRING" for name in TEXTS.split()), *(f"{name} DOUBLE" for name in NUMBERS.split())]
)
# What a job of its size should have: the defaults are 200 partitions of state, and writers that are closed for each partition in turn.
SETTINGS = {
    "spark.driver.memory": "2g",
    "spark.sql.shuffle.partitions": 4,
    "spark.sql.streaming.metricsEnabled": "false",
    "spark.sql.adaptive.enabled": "true",
}


def rows_read(query) -> int:
    """In batches that are committed, by their end in Kafka; the first record of a topic is at 0. Of all that a progress tells, Python would
    fetch each item by a call of its own: often enough that Spark, with which it shares the cores, would be slower."""
    progress = query._jsq.lastProgress()
    return sum(offset for partitions in json.loads(progress.sources()[0].endOffset()).values() for offset in partitions.values()) if progress else 0


def queries(spark, options):
    from pyspark.sql import functions as f

    def messages():
        return (
            spark.readStream.format("kafka")
            .option("kafka.bootstrap.servers", options.brokers)
            .option("subscribe", options.topic)
            .option("startingOffsets", "earliest")
            .load()
        )

    def started(frame, layer, trigger, partitions=()):
        writer = frame.writeStream.outputMode("append").trigger(processingTime=f"{trigger} seconds")
        writer = writer.option("checkpointLocation", f"{options.directory}/checkpoints/{layer}")
        if options.form == "iceberg" and layer != "gold":
            writer = writer.format("iceberg").option("fanout-enabled", "true").queryName(layer)
            return writer.toTable(f"{options.database}.{layer}")
        kind = "json" if layer == "bronze" else "parquet"
        writer = writer.format(kind).option("path", f"{options.directory}/{layer}").queryName(layer)
        return (writer.partitionBy(*partitions) if partitions else writer).start()

    bronze = messages().select("topic", "partition", "offset", "timestamp", f.col("value").cast("string").alias("value"))
    parsed = messages().select(f.from_json(f.col("value").cast("string"), SCHEMA).alias("sale"), "timestamp", "partition", "offset")
    date, revenue = f.col("OrderDate"), f.col("Quantity") * f.col("UnitPrice")
    silver = (
        parsed.select("sale.*", f.col("timestamp").alias("kafka_timestamp"), "partition", "offset")
        .where("TotalAmount > 0 AND Quantity > 0")
        .withColumns({"Year": f.year(date), "Month": f.month(date), "Quarter": f.quarter(date), "DayOfWeek": f.dayofweek(date)})
        .withColumns({"Revenue": revenue, "DiscountAmount": revenue * f.col("Discount")})
        .withColumns({"NetRevenue": f.col("Revenue") - f.col("DiscountAmount"), "processing_timestamp": f.current_timestamp()})
    )
    gold = (
        silver.withWatermark("processing_timestamp", "10 minutes")
        .groupBy(f.window("processing_timestamp", "1 minute"), "Category", "Country", "PaymentMethod")
        .agg(
            f.count("*").alias("TotalOrders"),
            f.sum("Quantity").alias("TotalQuantity"),
            f.sum("TotalAmount").alias("TotalRevenue"),
            f.sum("NetRevenue").alias("TotalNetRevenue"),
            f.avg("TotalAmount").alias("AvgOrderValue"),
            f.approx_count_distinct("CustomerID").alias("UniqueCustomers"),
        )
    )
    if options.form == "iceberg":
        spark.sql(f"CREATE DATABASE IF NOT EXISTS {options.database} LOCATION '{options.directory}'")
        for layer, frame, by in (("bronze", bronze, ""), ("silver", silver, "PARTITIONED BY (Year, Month)")):
            columns = ", ".join(f"`{field.name}` {field.dataType.simpleString()}" for field in frame.schema.fields)
            spark.sql(f"CREATE TABLE {options.database}.{layer} ({columns}) USING iceberg {by}")
    return [
        started(bronze, "bronze", options.interval),
        started(silver, "silver", options.interval, ("Year", "Month")),
        started(gold, "gold", options.interval * 3),
    ]


def files(spark, directory: str) -> tuple[int, int]:
    """Data files below a directory, and their bytes."""
    jvm = spark.sparkContext._jvm
    path = jvm.org.apache.hadoop.fs.Path(directory)
    entries = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()).listFiles(path, True)
    count = size = 0
    while entries.hasNext():
        entry = entries.next()
        if entry.getPath().getName().endswith((".parquet", ".json")) and "metadata" not in entry.getPath().toString():
            count, size = count + 1, size + entry.getLen()
    return count, size


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--form", choices=("classic", "iceberg"), required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--directory", required=True, help="on HDFS, for everything that is written")
    parser.add_argument("--database", required=True, help="for the Iceberg tables")
    parser.add_argument("--rows", type=int, required=True, help="how many the topic has")
    parser.add_argument("--interval", type=int, default=10, help="seconds between two batches; gold takes three times as long")
    options = parser.parse_args()
    become("LAKESMITH_SPARK_PYTHON", __file__, sys.argv[1:])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    jars = sorted(Path(os.environ["LAKESMITH_SPARK_KAFKA_JARS"]).glob("*.jar"))
    spark = session("4.1", None, "UTC", jars, SETTINGS)
    up = since_start(os.getpid())
    watch = Watch(os.getpid(), spark.sparkContext._gateway.proc.pid)
    running = {query.name: query for query in queries(spark, options)}
    while watch.rows < options.rows:
        time.sleep(0.5)
        for query in running.values():
            if not query.isActive:
                raise SystemExit(str(query.exception()))
        read = {layer: rows_read(query) for layer, query in running.items()}
        watch.committed(read["silver"], min(read.values()))
    result = watch.result()
    for query in running.values():
        query.stop()
    silver = f"{options.database}.silver" if options.form == "iceberg" else f"parquet.`{options.directory}/silver`"
    result |= {
        "session": up,
        "rows": spark.sql(f"SELECT count(*) FROM {silver}").first()[0],
        "files": {layer: files(spark, f"{options.directory}/{layer}") for layer in ("bronze", "silver", "gold")},
    }
    print(json.dumps(result), file=answers)
    spark.stop()


if __name__ == "__main__":
    main()
