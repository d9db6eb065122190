//! One sale: drawn from its row number, with money in whole cents and every total exact.

use std::io::Write;

use chrono::{Days, NaiveDate};

use super::DateFormat;
use super::catalogue::*;
use super::draw::{Draw, Purpose};
use crate::source::messages::append_json_string;

/// The columns of a sale, in the order of the file and of the messages.
pub const COLUMNS: [&str; 20] = [
    "OrderID",
    "OrderDate",
    "CustomerID",
    "CustomerName",
    "ProductID",
    "ProductName",
    "Category",
    "Brand",
    "Quantity",
    "UnitPrice",
    "Discount",
    "Tax",
    "ShippingCost",
    "TotalAmount",
    "PaymentMethod",
    "OrderStatus",
    "City",
    "State",
    "Country",
    "SellerID",
];

/// Positions in [`COLUMNS`].
pub const ORDER_ID: usize = 0;
pub const ORDER_DATE: usize = 1;
pub const QUANTITY: usize = 8;
pub const UNIT_PRICE: usize = 9;
pub const TOTAL_AMOUNT: usize = 13;
/// Quantity to TotalAmount are numbers, the rest texts.
pub const NUMBERS: std::ops::RangeInclusive<usize> = QUANTITY..=TOTAL_AMOUNT;

/// Days from 2020-01-01 to 2024-12-31.
const DAYS: u32 = 1_827;

/// The texts of a sale's cells, by position in [`COLUMNS`]. Reused from row to row.
#[derive(Debug, Default)]
pub struct Sale {
    pub cells: [String; COLUMNS.len()],
}

impl Sale {
    /// Fills in the sale of a row.
    pub fn draw(&mut self, seed: u64, row: u64, date_format: DateFormat) {
        let mut draw = Draw::new(seed, Purpose::Sale, row);
        self.cells.iter_mut().for_each(String::clear);
        let number = row + 1;
        self.set(ORDER_ID, format_args!("ORD{number:07}"));
        self.set(ORDER_DATE, format_args!("{}", date_format.text(date(draw.below(DAYS)))));
        self.set(2, format_args!("CUST{:06}", draw.below(50_000) + 1));
        self.set(3, format_args!("{} {}", draw.one_of(&FIRST_NAMES), draw.one_of(&LAST_NAMES)));
        let product = draw.below(PRODUCTS.len() as u32);
        self.set(4, format_args!("P{:05}", product + 1));
        self.set(5, format_args!("{}", PRODUCTS[product as usize]));
        self.set(6, format_args!("{}", draw.one_of(&CATEGORIES)));
        self.set(7, format_args!("{}", draw.one_of(&BRANDS)));
        let price = Price {
            quantity: draw.below(5) + 1,
            unit_cents: draw.below(59_501) + 500,
            discount_percent: draw.weighted(&DISCOUNTS_PERCENT),
            tax_percent: draw.one_of(&TAX_RATES_PERCENT),
            shipping_cents: draw.below(1_501),
        };
        self.set(QUANTITY, format_args!("{}", price.quantity));
        self.set_cents(UNIT_PRICE, price.unit_cents.into());
        self.set_cents(10, price.discount_percent.into());
        self.set_cents(11, price.tax_cents());
        self.set_cents(12, price.shipping_cents.into());
        self.set_cents(TOTAL_AMOUNT, price.total_cents());
        self.set(14, format_args!("{}", draw.weighted(&PAYMENT_METHODS)));
        self.set(15, format_args!("{}", draw.weighted(&ORDER_STATUSES)));
        let (city, state) = draw.one_of(&CITIES);
        self.set(16, format_args!("{city}"));
        self.set(17, format_args!("{state}"));
        self.set(18, format_args!("{}", draw.weighted(&COUNTRIES)));
        self.set(19, format_args!("SELL{:05}", draw.below(2_000) + 1));
    }

    /// Replaces a cell's text.
    pub fn set(&mut self, column: usize, text: std::fmt::Arguments<'_>) {
        let cell = &mut self.cells[column];
        cell.clear();
        // Writing to a String does not fail.
        let _ = std::fmt::write(cell, text);
    }

    /// Hundredths as the file writes them: two decimals at most, no trailing zeros.
    pub fn set_cents(&mut self, column: usize, cents: u64) {
        let (whole, hundredths) = (cents / 100, cents % 100);
        match hundredths {
            0 => self.set(column, format_args!("{whole}")),
            tenths if tenths % 10 == 0 => self.set(column, format_args!("{whole}.{}", tenths / 10)),
            _ => self.set(column, format_args!("{whole}.{hundredths:02}")),
        }
    }

    /// Appends the JSON message of the sale.
    pub fn write_json(&self, message: &mut Vec<u8>) {
        self.write_json_of(message, |_| true);
    }

    /// Appends the JSON message with only some of the columns.
    pub fn write_json_of(&self, message: &mut Vec<u8>, wanted: impl Fn(usize) -> bool) {
        message.push(b'{');
        for (index, (name, cell)) in COLUMNS.iter().zip(&self.cells).enumerate().filter(|(index, _)| wanted(*index)) {
            if message.last() != Some(&b'{') {
                message.push(b',');
            }
            message.push(b'"');
            message.extend_from_slice(name.as_bytes());
            message.extend_from_slice(b"\":");
            if NUMBERS.contains(&index) { message.extend_from_slice(cell.as_bytes()) } else { append_json_string(cell, message) }
        }
        message.push(b'}');
    }

    /// Writes the CSV row with its line end; only the cells that need quotes get them.
    pub fn write_csv(&self, out: &mut impl Write) -> std::io::Result<()> {
        self.write_first_cells(COLUMNS.len(), out)
    }

    /// Writes a CSV row that ends after some of its cells.
    pub fn write_first_cells(&self, count: usize, out: &mut impl Write) -> std::io::Result<()> {
        for (index, cell) in self.cells.iter().take(count).enumerate() {
            if index > 0 {
                out.write_all(b",")?;
            }
            if cell.contains(['"', ',', '\n', '\r']) {
                write!(out, "\"{}\"", cell.replace('"', "\"\""))?;
            } else {
                out.write_all(cell.as_bytes())?;
            }
        }
        out.write_all(b"\n")
    }
}

fn date(days: u32) -> NaiveDate {
    const FIRST: NaiveDate = NaiveDate::from_ymd_opt(2020, 1, 1).expect("a date of the calendar");
    FIRST.checked_add_days(Days::new(days.into())).unwrap_or(FIRST)
}

/// The numbers that a sale's amounts follow from.
#[derive(Debug, Clone, Copy)]
struct Price {
    quantity: u32,
    unit_cents: u32,
    discount_percent: u32,
    tax_percent: u32,
    shipping_cents: u32,
}

impl Price {
    /// Quantity × UnitPrice × (1 − Discount), in hundredths of a cent.
    fn net(&self) -> u64 {
        u64::from(self.quantity) * u64::from(self.unit_cents) * u64::from(100 - self.discount_percent)
    }

    fn tax_cents(&self) -> u64 {
        round_half_even(self.net() * u64::from(self.tax_percent), 10_000)
    }

    fn total_cents(&self) -> u64 {
        round_half_even(self.net() + (self.tax_cents() + u64::from(self.shipping_cents)) * 100, 100)
    }
}

/// A quotient rounded to the nearest whole number, halves to the even one, as the amounts of the real file are.
pub fn round_half_even(dividend: u64, divisor: u64) -> u64 {
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    quotient + u64::from(rest * 2 > divisor || (rest * 2 == divisor && quotient % 2 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_follow_the_formula_to_the_cent() {
        let price = |quantity, unit_cents, discount_percent, tax_percent, shipping_cents| {
            let price = Price { quantity, unit_cents, discount_percent, tax_percent, shipping_cents };
            (price.tax_cents(), price.total_cents())
        };
        assert_eq!(price(3, 10_659, 0, 0, 9), (0, 31_986));
        assert_eq!(price(1, 25_137, 5, 8, 174), (1_910, 25_964));
        assert_eq!(price(1, 1_668, 15, 8, 239), (113, 1_770));
        assert_eq!(price(5, 3_358, 15, 8, 553), (1_142, 15_966));
        assert_eq!(price(2, 15_195, 5, 5, 350), (1_444, 30_664));
    }

    #[test]
    fn money_is_written_without_trailing_zeros() {
        let mut sale = Sale::default();
        for (cents, text) in [(0, "0"), (5, "0.05"), (10, "0.1"), (26_980, "269.8"), (500, "5"), (10_659, "106.59")] {
            sale.set_cents(UNIT_PRICE, cents);
            assert_eq!(sale.cells[UNIT_PRICE], text);
        }
    }

    #[test]
    fn the_first_and_the_last_day_are_those_of_the_file() {
        assert_eq!((date(0).to_string(), date(DAYS - 1).to_string()), ("2020-01-01".to_owned(), "2024-12-31".to_owned()));
    }
}
