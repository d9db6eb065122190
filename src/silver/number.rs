//! Exact numbers from their text: integers and decimals, never through a binary fraction.
//!
//! *Failure*: a number is refused, never wrapped, cut or made infinite. Work is linear in the length of the text whatever its exponent
//! says, and nothing is allocated.

use super::settings::ScaleExcess;

/// Why a text is not the number that the column wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberFault {
    /// It is not a number at all.
    NotANumber,
    /// It has digits beyond the scale.
    ExcessDigits,
    /// It has more digits before the point than the column.
    OutOfRange,
}

/// A whole number. `2.0` and `2e3` are whole, `2.5` has an excess digit.
pub fn integer(text: &str) -> Result<i64, NumberFault> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // 18 digits always fit; anything else takes the general way.
    if (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) {
        let magnitude = digits.iter().fold(0, |number: i64, digit| number * 10 + i64::from(digit - b'0'));
        return Ok(if negative { -magnitude } else { magnitude });
    }
    i64::try_from(decimal(text, 38, 0, ScaleExcess::Reject)?).map_err(|_| NumberFault::OutOfRange)
}

/// A decimal as its unscaled value: `1.5` at scale 2 is 150. An exponent is honoured; excess digits are rounded half away from zero or
/// refused.
pub fn decimal(text: &str, precision: u8, scale: u8, excess: ScaleExcess) -> Result<i128, NumberFault> {
    let number = Parts::of(text).ok_or(NumberFault::NotANumber)?;
    let digits = number.whole.len() + number.fraction.len();
    // How many of the digits stand before the point once the value is multiplied by 10^scale.
    let kept = (number.whole.len() as i64).saturating_add(number.exponent).saturating_add(i64::from(scale));

    let mut unscaled: i128 = 0;
    let mut first_dropped = 0;
    let mut inexact = false;
    for (index, digit) in number.whole.iter().chain(number.fraction).map(|digit| digit - b'0').enumerate() {
        let index = index as i64;
        if index < kept {
            unscaled = times_ten(unscaled)? + i128::from(digit);
        } else {
            if index == kept {
                first_dropped = digit;
            }
            inexact |= digit != 0;
        }
    }
    if unscaled != 0 {
        // Bounded by the precision, not by the exponent: 39 zeros are too many for any decimal.
        for _ in digits as i64..kept {
            unscaled = times_ten(unscaled)?;
        }
    }
    match excess {
        ScaleExcess::Reject if inexact => return Err(NumberFault::ExcessDigits),
        ScaleExcess::Reject => {}
        ScaleExcess::Round => unscaled += i128::from(first_dropped >= 5),
    }
    if unscaled >= 10_i128.pow(u32::from(precision)) {
        return Err(NumberFault::OutOfRange);
    }
    Ok(if number.negative { -unscaled } else { unscaled })
}

/// Ten times a number, as long as another digit then still leaves fewer than 39 digits.
fn times_ten(number: i128) -> Result<i128, NumberFault> {
    const MAX: i128 = 10_i128.pow(37);
    if number < MAX { Ok(number * 10) } else { Err(NumberFault::OutOfRange) }
}

/// A number taken apart: `-12.50e3` is negative, `12`, `50` and 3.
struct Parts<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let (whole, rest) = leading_digits(rest)?;
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => leading_digits(rest)?,
            rest => (&rest[..0], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => exponent(rest)?,
            _ => return None,
        };
        Some(Self { negative, whole, fraction, exponent })
    }
}

/// At least one digit, and what follows.
fn leading_digits(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// An exponent; one beyond any use stays merely huge.
fn exponent(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    let (digits, rest) = leading_digits(digits)?;
    let magnitude =
        digits.iter().fold(0_i64, |number, digit| if number > 1 << 40 { number } else { number * 10 + i64::from(digit - b'0') });
    rest.is_empty().then_some(sign * magnitude)
}

/// A decimal's unscaled value if it fits as it is; nothing is rounded.
pub fn exact_decimal(text: &str, precision: u8, scale: u8) -> Option<i128> {
    decimal(text, precision, scale, ScaleExcess::Reject).ok()
}

/// Whether a text is a number in the grammar of JSON, but for leading zeros, which are harmless.
pub fn is_number(text: &str) -> bool {
    Parts::of(text).is_some()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::i256;
    use proptest::prelude::*;

    use super::*;

    fn rounded(text: &str) -> Result<i128, NumberFault> {
        decimal(text, 12, 2, ScaleExcess::Round)
    }

    #[test]
    fn decimals_are_read_exactly() {
        for (text, unscaled) in [
            ("0", 0),
            ("-0", 0),
            ("-0.0", 0),
            ("269.8", 26_980),
            ("1.50", 150),
            ("1e2", 10_000),
            ("1E+2", 10_000),
            ("12345e-2", 12_345),
            ("0.005", 1),
            ("-0.005", -1),
            ("0.0049999999999999999999999999999999999999999999", 0),
            ("0.1e-999999999999999999999", 0),
            ("0e999999999999999999999", 0),
            ("9999999999.99", 999_999_999_999),
            ("0.00000000000000000000000000000000000000000000000000000000000000123e63", 123),
        ] {
            assert_eq!(rounded(text), Ok(unscaled), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_quickly() {
        for text in ["10000000000", "9999999999.995", "1e10", "1e999999999", "-1e999999999999999999999999999999"] {
            assert_eq!(rounded(text), Err(NumberFault::OutOfRange), "{text}");
        }
        let long = "9".repeat(1 << 20);
        assert_eq!(rounded(&long), Err(NumberFault::OutOfRange));
        assert_eq!(decimal("1.505", 12, 2, ScaleExcess::Reject), Err(NumberFault::ExcessDigits));
        assert_eq!(decimal("1.500", 12, 2, ScaleExcess::Reject), Ok(150));
        assert_eq!(decimal(&"9".repeat(38), 38, 0, ScaleExcess::Reject), Ok(10_i128.pow(38) - 1));
        assert_eq!(decimal(&"9".repeat(39), 38, 0, ScaleExcess::Reject), Err(NumberFault::OutOfRange));
    }

    #[test]
    fn only_numbers_are_numbers() {
        for text in ["", "-", ".5", "5.", "1e", "1e+", "+1", "1 ", "inf", "NaN", "0x1", "1_000", "--1", "1.2.3", "1e2.5"] {
            assert_eq!(rounded(text), Err(NumberFault::NotANumber), "{text}");
            assert!(!is_number(text), "{text}");
        }
    }

    #[test]
    fn integers_may_be_written_with_a_point_or_an_exponent_if_they_are_whole() {
        assert_eq!(integer("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(integer("9223372036854775808"), Err(NumberFault::OutOfRange));
        assert_eq!(integer("2.0"), Ok(2));
        assert_eq!(integer("12e2"), Ok(1200));
        assert_eq!(integer("2.5"), Err(NumberFault::ExcessDigits));
        assert_eq!(integer("-"), Err(NumberFault::NotANumber));
    }

    /// The same by 256-bit integers: digits as one number, multiplied or divided by a power of ten.
    fn model(digits: &str, fraction_digits: i32, exponent: i32, scale: i32) -> (i256, bool) {
        let number = i256::from_string(digits).unwrap();
        let shift = exponent - fraction_digits + scale;
        let ten = i256::from_i128(10);
        let power = (0..shift.unsigned_abs()).fold(i256::ONE, |power, _| power.checked_mul(ten).unwrap());
        if shift >= 0 {
            return (number.checked_mul(power).unwrap(), true);
        }
        let (quotient, rest) = (number.checked_div(power).unwrap(), number.checked_rem(power).unwrap());
        let up = rest.checked_add(rest).unwrap() >= power;
        (if up { quotient.checked_add(i256::ONE).unwrap() } else { quotient }, rest == i256::ZERO)
    }

    proptest! {
        #[test]
        fn decimals_equal_the_model(
            whole in "(0|[1-9][0-9]{0,14})",
            fraction in "[0-9]{0,14}",
            exponent in prop::option::of(-24i32..24),
            negative: bool,
            precision in 1u8..=38,
            scale_share in 0u8..=100,
        ) {
            let scale = (u32::from(precision) * u32::from(scale_share) / 100) as u8;
            let mut text = format!("{}{whole}", if negative { "-" } else { "" });
            if !fraction.is_empty() {
                text.push_str(&format!(".{fraction}"));
            }
            if let Some(exponent) = exponent {
                text.push_str(&format!("e{exponent}"));
            }
            // Powers up to 10^72 times 29 digits would not fit 256 bits; the ranges above stay below 10^76.
            prop_assume!(exponent.unwrap_or(0) + i32::from(scale) < 46);
            let (magnitude, exact) = model(&format!("{whole}{fraction}"), fraction.len() as i32, exponent.unwrap_or(0), i32::from(scale));
            let limit = i256::from_i128(10_i128.pow(u32::from(precision)));
            let fitting = (magnitude < limit).then(|| magnitude.to_i128().unwrap() * if negative { -1 } else { 1 });
            prop_assert_eq!(decimal(&text, precision, scale, ScaleExcess::Round).ok(), fitting, "{}", text);
            let strict = decimal(&text, precision, scale, ScaleExcess::Reject);
            prop_assert_eq!(strict.ok(), fitting.filter(|_| exact), "{}", text);
        }

        #[test]
        fn any_text_ends_in_a_value_or_a_fault(text in "[-+0-9.eE]{0,30}") {
            let number = decimal(&text, 38, 10, ScaleExcess::Round);
            prop_assert_eq!(number == Err(NumberFault::NotANumber), !is_number(&text));
            // Leading zeros apart, the grammar is JSON's.
            let digits = text.strip_prefix('-').unwrap_or(&text);
            if !(digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit())) {
                prop_assert_eq!(is_number(&text), serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok());
            }
        }
    }
}
