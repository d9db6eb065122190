#!/usr/bin/env python3
"""What the tables of the preset `amazon-sales` must hold for a given input: computed a second time, by other means.

    tests/reference/expected.py --csv orders.csv          the file that `lakesmith generate` writes
    tests/reference/expected.py --messages values.jsonl   one message value per line, as it was produced
    tests/reference/expected.py --dump dump.jsonl         what a consumer saw, which is what gold needs as well:
                                                          {"partition": 0, "offset": 7, "timestamp_ms": …, "value": base64 or null}

Prints one JSON document. Decimals are strings in plain notation, at the scale of the table's column; timestamps are in UTC,
in the form of `spark_sql.py`. Nothing but Python's csv, json and decimal is used, and nothing of lakesmith: an error would have
to be made twice to go unseen.
"""

import argparse
import base64
import csv
import datetime
import decimal
import functools
import json
import re
import sys
from dataclasses import dataclass
from typing import Callable, Iterable, Iterator, Optional

DECIMAL = decimal.Context(prec=60, rounding=decimal.ROUND_HALF_UP)
INT32_MAX = 2**31 - 1

# name -> (precision, scale)
MONEY = {"UnitPrice": (12, 2), "Discount": (5, 4), "Tax": (12, 2), "ShippingCost": (12, 2), "TotalAmount": (12, 2)}
FIELDS = (
    "OrderID OrderDate CustomerID CustomerName ProductID ProductName Category Brand Quantity UnitPrice Discount Tax ShippingCost "
    "TotalAmount PaymentMethod OrderStatus City State Country SellerID"
).split()
DATE_FORMATS = ("%Y-%m-%d", "%d-%m-%Y")
DIMENSIONS = ("Category", "Country", "PaymentMethod")
# name -> scale, of what is summed
SUMMED = {**{name: scale for name, (_, scale) in MONEY.items()}, "Revenue": 2, "DiscountAmount": 6, "NetRevenue": 6}
JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class Rejected(Exception):
    """The record belongs into the table of rejected records; the message says why."""


@dataclass(frozen=True)
class Message:
    value: Optional[bytes]
    timestamp_ms: Optional[int] = None


# ---- how a decimal with too many places is taken


def round_half_up(value: decimal.Decimal, scale: int) -> decimal.Decimal:
    return value.quantize(decimal.Decimal(1).scaleb(-scale), context=DECIMAL)


def reject_excess(value: decimal.Decimal, scale: int) -> decimal.Decimal:
    rounded = round_half_up(value, scale)
    if rounded != value:
        raise Rejected(f"more than {scale} places: {value}")
    return rounded


EXCESS_SCALE = {"round": round_half_up, "reject": reject_excess}
ExcessScale = Callable[[decimal.Decimal, int], decimal.Decimal]


def as_decimal(value, precision: int, scale: int, excess: ExcessScale = round_half_up) -> decimal.Decimal:
    """A JSON number as DECIMAL(precision, scale), from its text and never by way of a float."""
    if isinstance(value, bool) or not isinstance(value, (int, decimal.Decimal)):
        raise Rejected(f"not a number: {value!r}")
    try:
        result = excess(decimal.Decimal(value), scale)
    except decimal.InvalidOperation:
        raise Rejected(f"out of range: {value}") from None
    if len(result.as_tuple().digits) > precision:
        raise Rejected(f"out of range for DECIMAL({precision},{scale}): {value}")
    return result


# ---- from bytes to a silver row


def decode(value: Optional[bytes]) -> dict:
    """The message as a JSON object whose names are unique."""

    def unique(pairs: list) -> dict:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise Rejected("duplicate key")
        return fields

    def no_constant(name: str):
        raise Rejected(f"not JSON: {name}")

    if value is None:
        raise Rejected("no value")
    try:
        text = value.decode("utf-8")
        message = json.loads(text, parse_float=decimal.Decimal, parse_constant=no_constant, object_pairs_hook=unique)
    except (ValueError, RecursionError, decimal.InvalidOperation) as error:
        raise Rejected(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise Rejected("not an object")
    return message


def as_text(value) -> str:
    if not isinstance(value, str):
        raise Rejected(f"not a string: {value!r}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise Rejected("half of a surrogate pair") from None
    return value


def as_date(value) -> datetime.date:
    return _date(as_text(value))


@functools.cache
def _date(text: str) -> datetime.date:
    for form in DATE_FORMATS:
        try:
            return datetime.datetime.strptime(text, form).date()
        except ValueError:
            continue
    raise Rejected(f"not a date: {text!r}")


def as_int(value) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Rejected(f"not an integer: {value!r}")
    if not -INT32_MAX - 1 <= value <= INT32_MAX:
        raise Rejected(f"out of range: {value}")
    return value


def silver_row(value: Optional[bytes], excess: ExcessScale = round_half_up) -> dict:
    """The typed and enriched row, or Rejected."""
    message = decode(value)
    row = {}
    for name in FIELDS:
        field = message.get(name)
        if field is None:
            raise Rejected(f"{name} is missing or null")
        if name in MONEY:
            row[name] = as_decimal(field, *MONEY[name], excess)
        elif name == "Quantity":
            row[name] = as_int(field)
        else:
            row[name] = as_date(field) if name == "OrderDate" else as_text(field)
    if not row["TotalAmount"] > 0:
        raise Rejected("expectation TotalAmount > 0")
    if not row["Quantity"] > 0:
        raise Rejected("expectation Quantity > 0")
    return enrich(row)


def enrich(row: dict) -> dict:
    day = row["OrderDate"]
    revenue = DECIMAL.multiply(row["Quantity"], row["UnitPrice"])
    discount_amount = DECIMAL.multiply(revenue, row["Discount"])
    return {
        **row,
        "Year": day.year,
        "Month": day.month,
        "Quarter": (day.month + 2) // 3,
        "DayOfWeek": day.isoweekday() % 7 + 1,
        "Revenue": revenue,
        "DiscountAmount": discount_amount,
        "NetRevenue": DECIMAL.subtract(revenue, discount_amount),
    }


# ---- the three inputs


def csv_messages(lines: Iterable[str]) -> Iterator[Message]:
    """Each record as `lakesmith produce` sends it: numbers keep the text that they have in the file."""
    for record in csv.DictReader(lines):
        pairs = []
        for name in FIELDS:
            text = record.get(name)
            if text is None:
                continue
            numeric = (name in MONEY or name == "Quantity") and JSON_NUMBER.fullmatch(text)
            pairs.append(f'"{name}":{text if numeric else json.dumps(text)}')
        yield Message(("{" + ",".join(pairs) + "}").encode())


def line_messages(lines: Iterable[bytes]) -> Iterator[Message]:
    for line in lines:
        yield Message(line.rstrip(b"\n"))


def dumped_messages(lines: Iterable[str]) -> Iterator[Message]:
    seen = set()
    for line in lines:
        record = json.loads(line)
        position = (record["partition"], record["offset"])
        if position in seen:
            raise ValueError(f"partition {position[0]} offset {position[1]} stands twice in the dump")
        seen.add(position)
        value = record["value"]
        yield Message(None if value is None else base64.b64decode(value, validate=True), record["timestamp_ms"])


# ---- what the tables hold


class Window:
    """One gold row in the making."""

    def __init__(self) -> None:
        self.orders, self.quantity, self.customers = 0, 0, set()
        self.revenue, self.net_revenue = zero(SUMMED["TotalAmount"]), zero(SUMMED["NetRevenue"])

    def add(self, row: dict) -> None:
        self.orders += 1
        self.quantity += row["Quantity"]
        self.revenue = DECIMAL.add(self.revenue, row["TotalAmount"])
        self.net_revenue = DECIMAL.add(self.net_revenue, row["NetRevenue"])
        self.customers.add(row["CustomerID"])

    def result(self) -> dict:
        return {
            "TotalOrders": self.orders,
            "TotalQuantity": self.quantity,
            "TotalRevenue": plain(self.revenue),
            "TotalNetRevenue": plain(self.net_revenue),
            "AvgOrderValue": plain(average(self.revenue, self.orders, scale=4)),
            "UniqueCustomers": len(self.customers),
        }


def average(total: decimal.Decimal, count: int, scale: int) -> decimal.Decimal:
    """Rounded half up, once: from whole numbers, because a quotient that was cut to a precision would be rounded twice."""
    dividend = int(total.scaleb(scale))
    quotient, remainder = divmod(abs(dividend), count)
    rounded = quotient + (2 * remainder >= count)
    return decimal.Decimal(rounded if dividend >= 0 else -rounded).scaleb(-scale)


def zero(scale: int) -> decimal.Decimal:
    return decimal.Decimal(0).scaleb(-scale)


def plain(value: decimal.Decimal) -> str:
    return format(value, "f")


def iso(timestamp_ms: int) -> str:
    epoch = datetime.datetime(1970, 1, 1)
    return (epoch + datetime.timedelta(milliseconds=timestamp_ms)).isoformat(timespec="microseconds")


def expected(messages: Iterable[Message], excess: ExcessScale = round_half_up, window_ms: int = 60_000) -> dict:
    rows = rejected = failed_expectation = untimed = quantity = 0
    sums = {name: zero(scale) for name, scale in SUMMED.items()}
    months: dict[tuple[int, int], int] = {}
    weekdays: dict[int, int] = {}
    windows: dict[tuple, Window] = {}
    for message in messages:
        try:
            row = silver_row(message.value, excess)
        except Rejected as reason:
            rejected += 1
            failed_expectation += str(reason).startswith("expectation")
            continue
        rows += 1
        quantity += row["Quantity"]
        for name in SUMMED:
            sums[name] = DECIMAL.add(sums[name], row[name])
        month = (row["Year"], row["Month"])
        months[month] = months.get(month, 0) + 1
        weekdays[row["DayOfWeek"]] = weekdays.get(row["DayOfWeek"], 0) + 1
        if message.timestamp_ms is None or message.timestamp_ms < 0:
            untimed += 1
        else:
            start = message.timestamp_ms // window_ms * window_ms
            windows.setdefault((start, *(row[name] for name in DIMENSIONS)), Window()).add(row)
    return {
        "bronze": {"rows": rows + rejected},
        "silver": {
            "rows": rows,
            "sums": {"Quantity": quantity, **{name: plain(total) for name, total in sums.items()}},
            "months": [[year, month, count] for (year, month), count in sorted(months.items())],
            "days_of_week": sorted([day, count] for day, count in weekdays.items()),
        },
        "rejected": {"rows": rejected, "by_expectation": failed_expectation},
        # Without timestamps there is nothing to say about gold.
        "gold": [gold_row(key, windows[key], window_ms) for key in sorted(windows)] if untimed == 0 else None,
    }


def gold_row(key: tuple, window: Window, window_ms: int) -> dict:
    start, *dimensions = key
    return {
        "window_start": iso(start),
        "window_end": iso(start + window_ms),
        "window_date": iso(start)[:10],
        **dict(zip(DIMENSIONS, dimensions)),
        **window.result(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--csv", metavar="FILE")
    source.add_argument("--messages", metavar="FILE")
    source.add_argument("--dump", metavar="FILE")
    parser.add_argument("--excess-scale", choices=list(EXCESS_SCALE), default="round", help="what happens to a third decimal place")
    parser.add_argument("--window-seconds", type=int, default=60)
    arguments = parser.parse_args()
    excess, window_ms = EXCESS_SCALE[arguments.excess_scale], arguments.window_seconds * 1000
    if arguments.csv:
        with open(arguments.csv, newline="", encoding="utf-8") as file:
            result = expected(csv_messages(file), excess, window_ms)
    elif arguments.messages:
        with open(arguments.messages, "rb") as file:
            result = expected(line_messages(file), excess, window_ms)
    else:
        with open(arguments.dump, encoding="utf-8") as file:
            result = expected(dumped_messages(file), excess, window_ms)
    json.dump(result, sys.stdout, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
