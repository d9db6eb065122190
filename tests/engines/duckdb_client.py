"""What the test asks of DuckDB, in its environment: `duckdb_client.py TABLES`, answered by a line of JSON.

TABLES is JSON: for bronze, silver and rejected the current metadata file, for gold the locations of its partitions. Extensions are loaded
from the environment's own files, so that nothing is downloaded.
"""

import json
import sys
from pathlib import Path

import duckdb
import duckdb_ext


def connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("set autoinstall_known_extensions = false")
    for name in ("avro", "iceberg"):
        (file,) = (Path(path) for root in duckdb_ext.__path__ for path in Path(root).rglob(f"{name}.duckdb_extension"))
        connection.execute(f"load '{file}'")
    return connection


def main(tables: dict) -> None:
    connection = connect()

    def row(sql: str) -> list:
        return [None if value is None else str(value) for value in connection.execute(sql).fetchone()]

    files = [f"{location}/*.parquet" for location in tables["gold"]]
    answers = {
        "bronze": row(f'select count(*), sum("offset"), min(md5(value)), max(md5(value)) from iceberg_scan(\'{tables["bronze"]}\')'),
        "silver": row(
            "select count(*), sum(TotalAmount), sum(Discount), count(distinct OrderID), min(OrderDate), max(OrderDate),"
            f" count(*) filter (where Year = 2024 and Month = 6) from iceberg_scan('{tables['silver']}')"
        ),
        "rejected": row(f"select count(*), count(distinct reason) from iceberg_scan('{tables['rejected']}')"),
        "gold": row(
            "select count(*), sum(TotalOrders), sum(TotalRevenue), cast(min(window_start) as varchar)"
            f" from read_parquet({files!r}, hive_partitioning = false)"
        ),
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
