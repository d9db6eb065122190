"""What the test asks of pyiceberg, in its environment: `pyiceberg_client.py URI DATABASE COMMAND`, answered by a line of JSON."""

import json
import sys

from pyiceberg.catalog import load_catalog
from pyiceberg.types import StringType

TABLES = ("bronze_amazon_sales", "silver_amazon_sales", "silver_amazon_sales_rejected")


def read(catalog, database: str) -> dict:
    """Rows of each layer, and a sum that needs the types to be right."""
    rows = {name: catalog.load_table(f"{database}.{name}").scan().to_arrow().num_rows for name in TABLES}
    amounts = catalog.load_table(f"{database}.silver_amazon_sales").scan(selected_fields=("TotalAmount",)).to_arrow()
    total = sum(value for value in amounts["TotalAmount"].to_pylist() if value is not None)
    # Gold and its view are no Iceberg tables: they are not listed.
    listed = sorted(".".join(name) for name in catalog.list_tables(database))
    return {"rows": rows, "total": str(total), "tables": listed}


def write(catalog, database: str) -> dict:
    """A table of its own with two commits, a column more, and a row more in silver."""
    silver = catalog.load_table(f"{database}.silver_amazon_sales")
    row = silver.scan(limit=1).to_arrow()
    silver.append(row)
    own = catalog.create_table(f"{database}.pyiceberg_copy", schema=silver.schema())
    own.append(row)
    own.append(row)
    with own.update_schema() as update:
        update.add_column("note", StringType())
    catalog.rename_table(f"{database}.pyiceberg_copy", f"{database}.pyiceberg_renamed")
    return {"rows": catalog.load_table(f"{database}.pyiceberg_renamed").scan().to_arrow().num_rows}


def drop(catalog, database: str) -> dict:
    catalog.drop_table(f"{database}.pyiceberg_renamed")
    return {"exists": catalog.table_exists(f"{database}.pyiceberg_renamed")}


if __name__ == "__main__":
    uri, database, command = sys.argv[1:]
    print(json.dumps({"read": read, "write": write, "drop": drop}[command](load_catalog("lake", type="hive", uri=uri), database)))
