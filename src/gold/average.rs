//! Averages of exact numbers: sum ÷ count, rounded half up (ties away from zero) to four places.
//!
//! DataFusion's AVG truncates and its result type depends on the input; this one is what `BigDecimal.setScale(4, HALF_UP)` gives.

use arrow::datatypes::i256;

/// Places of an average of decimals or integers.
pub const AVERAGE_SCALE: i8 = 4;

/// The average of `count` numbers whose sum is `sum` × 10^-`scale`, in units of 10^-4. None if it has more than 38 digits, which an
/// average of decimals with at least four places never has, or if `count` is zero.
pub fn average(sum: i128, scale: i8, count: i64) -> Option<i128> {
    let (sum, count) = (i256::from_i128(sum), i256::from_i128(i128::from(count)));
    let shift = i32::from(AVERAGE_SCALE) - i32::from(scale);
    let power = i256::from_i128(10).checked_pow(shift.unsigned_abs())?;
    let (numerator, denominator) = if shift >= 0 { (sum.checked_mul(power)?, count) } else { (sum, count.checked_mul(power)?) };
    let quotient = numerator.checked_div(denominator)?;
    let rest = numerator.checked_sub(quotient.checked_mul(denominator)?)?.checked_abs()?;
    let up = rest.checked_add(rest)? >= denominator;
    let step = match (up, numerator.is_negative()) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => -1,
    };
    let rounded = quotient.checked_add(i256::from_i128(step))?.to_i128()?;
    (rounded.unsigned_abs() < 10u128.pow(38)).then_some(rounded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ties_go_away_from_zero() {
        // 0.01 / 8 = 0.00125 → 0.0013, and below zero likewise.
        assert_eq!(average(1, 2, 8), Some(13));
        assert_eq!(average(-1, 2, 8), Some(-13));
        assert_eq!(average(10, 2, 3), Some(333));
        assert_eq!(average(20, 2, 3), Some(667));
        assert_eq!(average(5, 5, 1), Some(1));
        assert_eq!(average(4, 5, 1), Some(0));
        assert_eq!(average(7, 0, 2), Some(35_000));
        assert_eq!(average(0, 2, 0), None);
        assert_eq!(average(10i128.pow(38) - 1, 0, 1), None);
        assert_eq!(average(10i128.pow(38) - 1, 4, 1), Some(10i128.pow(38) - 1));
    }

    /// Half up by schoolbook long division over decimal digits, without any integer type that could overflow.
    fn by_digits(sum: i128, scale: i8, count: i64) -> i128 {
        let mut digits: Vec<u8> = sum.unsigned_abs().to_string().bytes().map(|digit| digit - b'0').collect();
        // One place more than wanted would not be enough to see a tie; so the rest is compared, not a digit.
        let places = usize::try_from(AVERAGE_SCALE - scale.min(AVERAGE_SCALE)).unwrap();
        digits.extend(std::iter::repeat_n(0, places));
        let divisor = count as u128 * 10u128.pow(u32::try_from((scale - AVERAGE_SCALE).max(0)).unwrap());
        let (mut quotient, mut rest) = (0u128, 0u128);
        for digit in digits {
            rest = rest * 10 + u128::from(digit);
            quotient = quotient * 10 + rest / divisor;
            rest %= divisor;
        }
        if rest * 2 >= divisor {
            quotient += 1;
        }
        i128::try_from(quotient).unwrap() * sum.signum()
    }

    proptest! {
        #[test]
        fn equals_long_division(sum in -(10i128.pow(30))..10i128.pow(30), scale in 0i8..12, count in 1i64..1_000_000_000) {
            prop_assert_eq!(average(sum, scale, count), Some(by_digits(sum, scale, count)));
        }

        #[test]
        fn ties_of_every_size(whole in -(10i128.pow(20))..10i128.pow(20), half in 1i64..1_000_000) {
            // (2·whole·half ± half) / (2·half) lies exactly between two numbers of four places.
            let count = half * 2;
            let sum = whole * i128::from(count) + i128::from(half) * if whole < 0 { -1 } else { 1 };
            prop_assert_eq!(average(sum, 4, count), Some(whole + if whole < 0 { -1 } else { 1 }));
        }
    }
}
