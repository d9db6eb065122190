"""The reference against numbers worked out by hand."""

import base64
import decimal
import json
import unittest

import expected
from expected import Message, Rejected, average, csv_messages, dumped_messages, round_half_up, silver_row

ORDER = {
    "OrderID": "ORD0000001",
    "OrderDate": "2023-12-31",
    "CustomerID": "CUST000001",
    "CustomerName": "Pooja Kumar",
    "ProductID": "P00001",
    "ProductName": "Children's \"Book\" & more",
    "Category": "Books",
    "Brand": "Apex",
    "Quantity": 3,
    "UnitPrice": 10.5,
    "Discount": 0.15,
    "Tax": 0,
    "ShippingCost": 1.25,
    "TotalAmount": 28.03,
    "PaymentMethod": "UPI",
    "OrderStatus": "Delivered",
    "City": "Austin",
    "State": "TX",
    "Country": "India",
    "SellerID": "SELL00001",
}


def encoded(**changes) -> bytes:
    return json.dumps({**ORDER, **changes}, ensure_ascii=False).encode()


def with_number(name: str, text: str) -> bytes:
    """The order with a number written as `text`, which json.dumps would write its own way."""
    return encoded(**{name: "@"}).replace(b'"@"', text.encode())


class SilverRow(unittest.TestCase):
    def test_derived_columns_are_exact(self):
        row = silver_row(encoded())
        self.assertEqual((row["Year"], row["Month"], row["Quarter"], row["DayOfWeek"]), (2023, 12, 4, 1))
        self.assertEqual(str(row["Revenue"]), "31.50")
        self.assertEqual(str(row["DiscountAmount"]), "4.725000")
        self.assertEqual(str(row["NetRevenue"]), "26.775000")

    def test_either_date_format(self):
        self.assertEqual(silver_row(encoded(OrderDate="31-12-2023"))["OrderDate"], silver_row(encoded())["OrderDate"])

    def test_numbers_are_read_from_their_text(self):
        self.assertEqual(str(silver_row(with_number("TotalAmount", "28.005"))["TotalAmount"]), "28.01")
        self.assertEqual(str(silver_row(with_number("TotalAmount", "2.8e1"))["TotalAmount"]), "28.00")
        self.assertEqual(str(silver_row(with_number("TotalAmount", "9999999999.99"))["TotalAmount"]), "9999999999.99")

    def test_excess_places_can_be_refused(self):
        self.assertEqual(str(silver_row(with_number("Tax", "1.500"), expected.reject_excess)["Tax"]), "1.50")
        with self.assertRaises(Rejected):
            silver_row(with_number("Tax", "1.501"), expected.reject_excess)

    def test_unknown_fields_are_ignored(self):
        self.assertEqual(silver_row(encoded(Coupon={"a": [1, None]})), silver_row(encoded()))

    def test_what_is_rejected(self):
        whole = encoded()
        cases = {
            "tombstone": None,
            "empty": b"",
            "truncated": whole[:-20],
            "invalid UTF-8": whole.replace(b"Pooja", b"\xff\xfe"),
            "byte order mark": b"\xef\xbb\xbf" + whole,
            "half a surrogate pair": whole.replace(b"Pooja", b"\\ud83d"),
            "two documents": whole + whole,
            "array": b"[" + whole + b"]",
            "null": b"null",
            "NaN": with_number("Tax", "NaN"),
            "duplicate key": whole[:-1] + b', "Tax": 0}',
            "missing field": json.dumps({name: value for name, value in ORDER.items() if name != "City"}).encode(),
            "null field": encoded(City=None),
            "number for a string": encoded(City=7),
            "string for a number": encoded(Tax="0"),
            "boolean for a number": encoded(Quantity=True),
            "Quantity with a fraction": with_number("Quantity", "3.0"),
            "Quantity with an exponent": with_number("Quantity", "3e0"),
            "Quantity beyond 32 bits": with_number("Quantity", "2147483648"),
            "amount beyond its precision": with_number("TotalAmount", "10000000000"),
            "amount that rounds beyond it": with_number("TotalAmount", "9999999999.995"),
            "amount beyond everything": with_number("TotalAmount", "1e999999999"),
            "exponent beyond everything": with_number("TotalAmount", "1e99999999999999999999"),
            "no date": encoded(OrderDate="2023/12/31"),
            "no such day": encoded(OrderDate="2023-02-29"),
            "TotalAmount 0": encoded(TotalAmount=0),
            "TotalAmount that rounds to 0": with_number("TotalAmount", "0.004"),
            "TotalAmount negative": encoded(TotalAmount=-1),
            "Quantity 0": encoded(Quantity=0),
        }
        for name, value in cases.items():
            with self.subTest(name), self.assertRaises(Rejected):
                silver_row(value)


class Rounding(unittest.TestCase):
    def test_half_up_is_away_from_zero(self):
        for text, rounded in (("0.005", "0.01"), ("-0.005", "-0.01"), ("0.00499999999999999999999999", "0.00"), ("2", "2.00")):
            self.assertEqual(str(round_half_up(decimal.Decimal(text), 2)), rounded)

    def test_average_is_rounded_once(self):
        for total, count, result in (("10.00", 3, "3.3333"), ("20.00", 3, "6.6667"), ("0.01", 200, "0.0001"), ("-0.01", 200, "-0.0001")):
            self.assertEqual(str(average(decimal.Decimal(total), count, 4)), result)


class Tables(unittest.TestCase):
    def test_counts_and_sums(self):
        result = expected.expected([Message(encoded()), Message(encoded(OrderDate="01-02-2024")), Message(encoded(Quantity=0)), Message(b"{")])
        self.assertEqual(result["bronze"], {"rows": 4})
        self.assertEqual(result["rejected"], {"rows": 2, "by_expectation": 1})
        self.assertEqual(result["silver"]["rows"], 2)
        self.assertEqual(result["silver"]["months"], [[2023, 12, 1], [2024, 2, 1]])
        self.assertEqual(result["silver"]["days_of_week"], [[1, 1], [5, 1]])
        self.assertEqual(result["silver"]["sums"]["Quantity"], 6)
        self.assertEqual(result["silver"]["sums"]["TotalAmount"], "56.06")
        self.assertEqual(result["silver"]["sums"]["NetRevenue"], "53.550000")
        self.assertIsNone(result["gold"])

    def test_nothing(self):
        result = expected.expected([])
        self.assertEqual(result["silver"]["sums"]["Discount"], "0.0000")
        self.assertEqual(result["gold"], [])

    def test_csv_becomes_the_messages_that_produce_sends(self):
        values = [str(ORDER[name]) for name in expected.FIELDS]
        values[expected.FIELDS.index("ProductName")] = '"Children\'s ""Book"" & more"'
        lines = [",".join(expected.FIELDS) + "\r\n", ",".join(values) + "\r\n"]
        self.assertEqual([json.loads(message.value) for message in csv_messages(lines)], [ORDER])

    def test_gold(self):
        minute = 1_719_838_800_000  # 2024-07-01 13:00:00 UTC
        inputs = (
            (minute, encoded()),
            (minute + 59_999, encoded(TotalAmount=10, CustomerID="CUST000002")),
            (minute + 59_999, encoded(TotalAmount=10)),
            (minute + 60_000, encoded()),
            (minute, encoded(Country="Canada")),
            (minute, b"not an order"),
        )
        lines = [
            json.dumps({"partition": 0, "offset": offset, "timestamp_ms": time, "value": base64.b64encode(value).decode()})
            for offset, (time, value) in enumerate(inputs)
        ]
        canada, india, later = expected.expected(dumped_messages(lines))["gold"]
        self.assertEqual((canada["Country"], canada["TotalOrders"]), ("Canada", 1))
        self.assertEqual(
            india,
            {
                "window_start": "2024-07-01T13:00:00.000000",
                "window_end": "2024-07-01T13:01:00.000000",
                "window_date": "2024-07-01",
                "Category": "Books",
                "Country": "India",
                "PaymentMethod": "UPI",
                "TotalOrders": 3,
                "TotalQuantity": 9,
                "TotalRevenue": "48.03",
                "TotalNetRevenue": "80.325000",
                "AvgOrderValue": "16.0100",
                "UniqueCustomers": 2,
            },
        )
        self.assertEqual((later["window_start"], later["TotalOrders"]), ("2024-07-01T13:01:00.000000", 1))

    def test_windows_before_1970_begin_before_their_rows(self):
        (row,) = expected.expected([Message(encoded(), timestamp_ms=0)])["gold"]
        self.assertEqual(row["window_start"], "1970-01-01T00:00:00.000000")

    def test_a_position_that_stands_twice_is_an_error(self):
        line = json.dumps({"partition": 0, "offset": 1, "timestamp_ms": 0, "value": None})
        with self.assertRaises(ValueError):
            list(dumped_messages([line, line]))


if __name__ == "__main__":
    unittest.main()
