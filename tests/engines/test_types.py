"""Every type that lakesmith writes, at its edges: silver (Iceberg, or partitions of Parquet files) and gold (Hive) as each engine reads them,
equal to what was sent.

The columns have names that are reserved words, and capitals; silver is partitioned by text that no directory can be named after as it is.
"""

import base64
import datetime
import json
import unittest

from engine import TABLES, Hive, Spark, Spark35, Trino, one_value, session
from lake import Lake
from matrix import Cells

PLANES = "".join(chr(plane << 16 | 0x1F60) for plane in range(17))
# Column, type in the pipeline file, values of five records: a null, the least, the largest, and what is awkward in between.
TYPES = (
    ("Flag", "boolean", (None, False, True, True, False)),
    ("Select", "int", (None, -(2**31), 2**31 - 1, 0, -1)),
    ("Order", "long", (None, -(2**63), 2**63 - 1, 0, 2**53 + 1)),
    ("Float4", "float", (None, -3.4028234663852886e38, 3.4028234663852886e38, 0.5, 1.401298464324817e-45)),
    ("Double8", "double", (None, -1.7976931348623157e308, 1.7976931348623157e308, 0.1, 5e-324)),
    ("Decimal9", "decimal(9, 2)", (None, "-9999999.99", "9999999.99", "0.01", "0.00")),
    ("Decimal18", "decimal(18, 4)", (None, "-99999999999999.9999", "99999999999999.9999", "0.0001", "-0.0001")),
    ("Decimal38", "decimal(38, 10)", (None, "-" + "9" * 28 + "." + "9" * 10, "9" * 28 + "." + "9" * 10, "0.0000000001", "1.0000000000")),
    ("Decimal38_0", "decimal(38, 0)", (None, "-" + "9" * 38, "9" * 38, "0", "1")),
    ("Date", "date", (None, "0001-01-01", "9999-12-31", "1969-12-31", "1582-10-10")),
    ("OldDate", "date", (None, "1582-10-04", "1582-10-15", "1500-02-28", "1500-03-01")),
    (
        "Timestamp",
        "timestamp",
        (None, "1900-01-01T00:00:00.000001", "2100-12-31T23:59:59.999999", "1969-12-31T23:59:59.999999", "2024-03-31T02:30:00.123456"),
    ),
    (
        "OldTimestamp",
        "timestamp",
        (None, "0001-01-01T00:00:00.000001", "9999-12-31T23:59:59.999999", "1582-10-10T12:00:00.000001", "1500-02-28T23:59:59.500000"),
    ),
    ("Group", "string", (None, "", PLANES, "'\"\\\n\t%_\u0000 end ", "a\u0301 é ﬁ \u202e")),
    ("Where", "string", ("a b", "a/b=c%d:e", "Ünï 😀", "..", "%2F{}[]#?*'")),
)
# Fields of the records that no column reads, and what is kept of them.
OTHERS = ({}, {"Text": PLANES, "None": None}, {"Text": "", "Number\"s": [1.50, {"a": None}]}, {"Text": "'", "It": True}, {"Text": "5"})
NAMES = [name for name, _, _ in TYPES]
TIMESTAMPS = [name for name, kind, _ in TYPES if kind == "timestamp"]
# Hive 4 takes the days of an INT96 before 1582-10-15 for those of the Julian calendar, whatever the file's footer says of it. The README
# says so.
JULIAN = {"OldTimestamp": (None, "0001-01-03T00:00:00.000001", None, "1582-09-30T12:00:00.000001", "1500-02-19T23:59:59.500000")}
# Neither may be a dimension of gold; what is measured of them has their type.
MEASURED = ("Float4", "Double8")
RECORDS = len(TYPES[0][2])
# What is rejected.
BROKEN = b'{"Number": 1, "Flag": '


def pipeline() -> str:
    columns = "".join(
        f'[[silver.columns]]\nname = "{name}"\ntype = "{kind}"\nrequired = false\n' for name, kind, _ in [("Number", "int", ()), *TYPES]
    )
    dimensions = ", ".join(f'"{name}"' for name in ["Number", *NAMES] if name not in MEASURED)
    measures = "".join(f'[[gold.measures]]\nname = "{name}"\nsql = "MAX(\\"{name}\\")"\n' for name in MEASURED)
    return f"""
[pipeline]
name = "types"
[source]
kind = "kafka"
topic = "t"
[source.kafka]
brokers = "localhost:9092"
[storage]
warehouse = "./lakehouse"
[metastore]
uris = []
[tables]
database = "datalake"
[bronze]
table = "bronze_amazon_sales"
[silver]
table = "silver_amazon_sales"
partition_by = ["Where"]
message_format = "json"
[silver.rejected]
table = "silver_amazon_sales_rejected"
{columns}
[[gold]]
table = "gold_amazon_sales_aggregated"
view = "gold_amazon_sales_aggregated_view"
window = "1m"
dimensions = [{dimensions}]
{measures}
"""


def message(number: int) -> bytes:
    """Numbers as they are written here: JSON's own would pass through a float."""
    fields = [f'"Number": {number}']
    for name, kind, values in TYPES:
        value = values[number]
        text = value if kind.startswith("decimal") and value is not None else json.dumps(value, ensure_ascii=False)
        fields.append(f'"{name}": {text}')
    # No column reads these.
    fields += [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in OTHERS[number].items()]
    return ("{" + ", ".join(fields) + "}").encode()


def wanted(name: str) -> list:
    """The values of a column as engine.py shows them."""
    kind, values = next((kind, values) for known, kind, values in TYPES if known == name)
    return [f"{value}.000000"[:26] if kind == "timestamp" and value and "." not in value else value for value in values]


def milliseconds(moment: str) -> int:
    at = datetime.datetime.fromisoformat(one_value(moment, "timestamp"))
    return round(at.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000)


class Types:
    """The tests; below is a class for each metastore."""

    metastore: str
    iceberg_servers: tuple[str, ...]
    hive_servers: tuple[str, ...]
    # Its name in the README's table, if that is not the metastore's.
    row = None
    spark_kind = Spark
    session = staticmethod(session)
    # The layers that are plain Hive tables, and what the README's table calls them.
    plain = {"gold": "gold", "view": "view"}
    settings = {"LAKESMITH_SILVER__UNKNOWN_FIELDS": "keep"}

    @classmethod
    def setUpClass(cls):
        cls.cells = Cells()
        cls.addClassCleanup(cls.cells.save)
        cls.spark, cls.trino = cls.session(cls.spark_kind, cls.metastore), cls.session(Trino, cls.metastore)
        servers = dict.fromkeys((*cls.iceberg_servers, *cls.hive_servers))
        cls.hives = {server: cls.session(Hive, cls.metastore, server) for server in servers}
        cls.lake = Lake(cls.metastore)
        cls.addClassCleanup(cls.lake.close)
        cls.lake.environment.update(cls.settings)
        (cls.lake.directory / "pipeline.toml").write_text(pipeline(), encoding="utf-8")
        cls.values = [message(number) for number in range(RECORDS)]
        cls.lake.send(cls.values, moments=((-2, "09:30:00"),))
        cls.lake.catch_up()
        # The next closes gold's window.
        cls.lake.send([b'{"Number": 99, "Where": "later"}', BROKEN], moments=((-1, "09:30:00"),))
        cls.lake.catch_up()

    def readers(self, layer: str) -> list:
        servers = self.hive_servers if layer in self.plain else self.iceberg_servers
        return [self.spark, self.trino, *(self.hives[server] for server in servers)]

    def table(self, engine, layer: str) -> str:
        name = f"{self.lake.database}.{TABLES[layer]}"
        return f"{engine.catalog('hive' if layer in self.plain else 'iceberg')}.{name}" if isinstance(engine, Trino) else name

    def column(self, engine, layer: str, name: str) -> list:
        value = engine.column(name.lower())
        if name in TIMESTAMPS:
            # As the engine writes it: Python's own type has bounds, and no year 1 in a zone. Spark shows what it takes for an instant in the
            # session's zone.
            if isinstance(engine, Spark) and layer in self.plain:
                value = f"to_utc_timestamp({value}, current_timezone())"
            value = f"cast({value} as {'varchar' if isinstance(engine, Trino) else 'string'})"
        rows = engine.run(f"select number, {value} from {self.table(engine, layer)} where number < 99 order by number").rows
        self.assertEqual([number for number, _ in rows], list(range(RECORDS)))
        return [one_value(value, "timestamp") if name in TIMESTAMPS else value for _, value in rows]

    def cell(self, engine, layer: str):
        return self.cells.cell(self.row or self.metastore, engine.name, self.plain.get(layer, layer))

    def check(self, layer: str):
        for name in NAMES:
            for engine in self.readers(layer):
                with self.subTest(engine=engine.name, layer=layer, column=name), self.cell(engine, layer):
                    values = wanted(name)
                    if layer in self.plain and engine.name == "HiveServer2 4.0.1":
                        values = [julian or value for julian, value in zip(JULIAN.get(name, values), values)]
                    self.assertEqual(self.column(engine, layer, name), values)

    def test_silver(self):
        self.check("silver")

    def test_gold(self):
        self.check("gold")

    def test_fields_that_no_column_reads(self):
        if "silver" in self.plain:
            self.skipTest("a plain Hive table keeps none")
        for engine in self.readers("silver"):
            with self.subTest(engine=engine.name), self.cell(engine, "silver"):
                size = "cardinality" if isinstance(engine, Trino) else "size"
                table = self.table(engine, "silver")
                select = f"select number, unknown_fields['Text'], {size}(unknown_fields) from {table} where number between 1 and 4"
                wanted = [[number, OTHERS[number]["Text"], len(OTHERS[number])] for number in range(1, RECORDS)]
                self.assertEqual(sorted(engine.run(select).rows), wanted)
                nested = f"select unknown_fields['Number\"s'] from {table} where number = 2"
                self.assertEqual(engine.run(nested).rows, [['[1.5, {"a": null}]']])
                self.assertEqual(engine.run(f"select {size}(unknown_fields) from {table} where number = 0").rows, [[0]])

    def test_windows_of_gold_and_its_view(self):
        day = datetime.datetime.now(datetime.timezone.utc).date() - datetime.timedelta(days=2)
        for layer in ("gold", "view"):
            for engine in self.readers(layer):
                with self.subTest(engine=engine.name, layer=layer), self.cell(engine, layer):
                    columns = f"window_start, window_end, window_date, {engine.column('select')}, {engine.column('timestamp')}"
                    found = engine.run(f"select {columns} from {self.table(engine, layer)} where number = 4").rows
                    minutes = [f"{day}T09:30:00.000000", f"{day}T09:31:00.000000"]
                    self.assertEqual(found, [[*minutes, str(day), wanted("Select")[4], wanted("Timestamp")[4]]])

    def test_lakesmith_itself(self):
        self.assertIn(f"{RECORDS + 2} = {RECORDS + 1} + 1 records", self.lake.lakesmith("verify", "--strict"))

    def test_bronze_and_rejected_have_the_bytes_and_the_moments(self):
        sent = {(one.value, one.timestamp_ms) for one in self.lake.sent}
        for layer, wanted in (("bronze", sent), ("rejected", {one for one in sent if one[0] == BROKEN})):
            for engine in self.readers(layer):
                with self.subTest(engine=engine.name, layer=layer), self.cell(engine, layer):
                    value, moment = engine.column("value"), engine.column("timestamp" if layer == "bronze" else "kafka_timestamp")
                    # Spark reads the text of a time in the session's zone, and so shows the same text.
                    moment = f"cast({moment} as {'varchar' if isinstance(engine, Trino) else 'string'})"
                    rows = engine.run(f"select {value}, {moment} from {self.table(engine, layer)}").rows
                    found = {(value.encode() if layer in self.plain else base64.b64decode(value), milliseconds(at)) for value, at in rows}
                    self.assertEqual(found, wanted)

    def test_partitions_are_found_by_their_values(self):
        for number, value in enumerate(wanted("Where")):
            literal = value.replace("'", "''")
            for engine in self.readers("silver"):
                with self.subTest(engine=engine.name, value=value), self.cell(engine, "silver"):
                    text = f"'{literal}'" if isinstance(engine, Trino) else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
                    found = engine.run(
                        f"select number from {self.table(engine, 'silver')} where {engine.column('where')} = {text}"
                    ).rows
                    self.assertEqual(found, [[number]])


class AsHive(Types):
    """With bronze as text, and silver as partitions of Parquet files."""

    plain = {**Types.plain, "bronze": "bronze as text", "silver": "silver as Parquet"}
    settings = {"LAKESMITH_BRONZE__FORMAT": "hive", "LAKESMITH_SILVER__FORMAT": "hive"}


class OnMetastore401(Types, unittest.TestCase):
    metastore = "4.0.1"
    iceberg_servers = ("3.1.3",)
    hive_servers = ("4.0.1",)


class AsHiveOnMetastore401(AsHive, unittest.TestCase):
    metastore = "4.0.1"
    iceberg_servers = ("3.1.3",)
    hive_servers = ("4.0.1",)


class OnMetastore313(Types, unittest.TestCase):
    metastore = "3.1.3"
    iceberg_servers = ("3.1.3",)
    hive_servers = ("3.1.3",)


class AsHiveOnMetastore313(AsHive, unittest.TestCase):
    metastore = "3.1.3"
    iceberg_servers = ("3.1.3",)
    hive_servers = ("3.1.3",)


class OnMetastore2310(Types, unittest.TestCase):
    metastore = "2.3.10"
    iceberg_servers = ()
    hive_servers = ()


class WithSpark35On401(Types, unittest.TestCase):
    metastore = "4.0.1"
    spark_kind = Spark35
    iceberg_servers = ()
    hive_servers = ()


class AsHiveWithSpark35On401(AsHive, unittest.TestCase):
    metastore = "4.0.1"
    spark_kind = Spark35
    iceberg_servers = ()
    hive_servers = ()


if __name__ == "__main__":
    unittest.main()
