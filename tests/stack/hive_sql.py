#!/usr/bin/env python3
"""Runs SQL in one session of a HiveServer2 of the stack.

    eval "$(tests/stack/stack env)"
    tests/stack/hive_sql.py 'select * from datalake.gold_amazon_sales_aggregated_view limit 3'
    tests/stack/hive_sql.py --server 3.1.3 'set hive.vectorized.execution.enabled=false' 'select count(*) from datalake.silver_amazon_sales'
    tests/stack/hive_sql.py --server 3.1.3 --metastore 4.0.1 < statements.sql

How statements and answers look is said in sql_client.py. A HiveServer2 reads the metastore of its own version unless told otherwise.
"""

import argparse
import os
import sys

from sql_client import become, serve, setting


def variable(name: str, version: str) -> str:
    return f"{name}_{version.replace('.', '_').upper()}" if version else name


def type_name(column: tuple) -> str:
    """A column's type with its precision, from what the client says of it."""
    kind, precision, scale = column[1].lower(), column[4], column[5]
    return f"decimal({precision},{scale})" if kind == "decimal" else kind


def main(arguments: list[str]) -> int:
    become("LAKESMITH_CLIENTS_PYTHON", __file__, arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", metavar="VERSION", default="", help="instead of the one beside the main metastore")
    parser.add_argument("--metastore", metavar="VERSION", default="", help="instead of the server's own")
    parser.add_argument("statements", nargs="*")
    options = parser.parse_args(arguments)
    from impala.dbapi import connect

    host, port = setting(variable("HIVESERVER2", options.server)).split(":")
    connection = connect(host, int(port), auth_mechanism="PLAIN", user=os.environ.get("USER", "stack"), password="stack")
    configuration = {"hive.metastore.uris": setting(variable("HIVE_METASTORE_URIS", options.metastore))} if options.metastore else None
    # A cursor is a session of the server, which ends with it.
    cursor = connection.cursor(configuration=configuration)

    def execute(sql: str):
        cursor.execute(sql)
        if not cursor.has_result_set:
            return [], []
        return [[column[0], type_name(column)] for column in cursor.description], cursor.fetchall()

    try:
        return serve(execute, options.statements, sys.stdout)
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
