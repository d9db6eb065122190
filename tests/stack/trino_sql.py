#!/usr/bin/env python3
"""Runs SQL in the stack's Trino.

    eval "$(tests/stack/stack env)"
    tests/stack/trino_sql.py 'select count(*) from iceberg.datalake.silver_amazon_sales'
    tests/stack/trino_sql.py 'select * from hive.datalake.gold_amazon_sales_aggregated_view limit 3'
    tests/stack/trino_sql.py 'show tables in iceberg_3_1_3.datalake'

How statements and answers look is said in sql_client.py. Every metastore of the stack has two catalogs: `hive` and `iceberg`, with the
version behind it where it isn't the main one.
"""

import os
import sys
from urllib.parse import urlsplit

from sql_client import become, serve, setting


def main(arguments: list[str]) -> int:
    become("LAKESMITH_CLIENTS_PYTHON", __file__, arguments)
    from trino.dbapi import connect

    address = urlsplit(setting("TRINO_URL"))
    connection = connect(host=address.hostname, port=address.port, user=os.environ.get("USER", "stack"), catalog="iceberg", timezone="UTC")

    def execute(sql: str):
        cursor = connection.cursor()
        cursor.execute(sql)
        rows = cursor.fetchall()
        return [[column[0], column[1]] for column in cursor.description or []], rows

    return serve(execute, arguments, sys.stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
