//! Dates and instants from text or numbers, in the forms a column lists.
//!
//! Patterns are chrono's. One whose parts have fixed widths, such as `%d-%m-%Y`, is first tried byte by byte, which costs a tenth; a text
//! that isn't of these widths (`7-7-2023`) goes to chrono.
//!
//! *Invariants*: a year has four digits and lies between 1 and 9999, so that `17-07-20` is never the year 17 for a `%Y`, and every
//! engine that reads the table can show the value. An instant without an offset is UTC.

use std::fmt::{self, Write};
use std::str::FromStr;

use chrono::format::{Fixed, Item, Numeric, Parsed, StrftimeItems};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime};

use super::number;
use super::settings::ScaleExcess;
use super::types::ColumnType;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// The days of 0001-01-01 and 9999-12-31, counted from 1970-01-01.
const DAYS_MIN: i64 = -719_162;
const DAYS_MAX: i64 = 2_932_896;
const DAYS_FROM_CE_TO_1970: i32 = 719_163;

/// One form in which a date or an instant may be written.
#[derive(Debug, Clone, PartialEq)]
pub enum TimeFormat {
    /// `2023-07-17` for a date; `2023-07-17T10:20:30.123+02:00` for an instant, where a space may stand for the `T` and seconds,
    /// fraction and offset may be missing.
    Iso,
    /// A number of seconds since 1970, perhaps with a fraction.
    EpochSeconds,
    /// A number of milliseconds since 1970.
    EpochMillis,
    /// A number of microseconds since 1970.
    EpochMicros,
    /// A pattern in chrono's notation.
    Pattern(Pattern),
}

/// A pattern, taken apart once.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    text: String,
    items: Vec<Item<'static>>,
    /// The same as parts of fixed width, if it has only such.
    fixed: Option<Vec<Piece>>,
}

/// A part of a fixed width: four digits of a year, two of anything else.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Literal(Box<[u8]>),
}

/// A pattern was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFormat {
    #[error("`{0}` is neither iso, epoch_s, epoch_ms or epoch_us nor a pattern such as %Y-%m-%d")]
    Unknown(String),
    #[error("`{0}` uses %Z, but the name of a zone does not tell the offset: use %z or %:z")]
    ZoneName(String),
}

impl FromStr for TimeFormat {
    type Err = BadFormat;

    fn from_str(text: &str) -> Result<Self, BadFormat> {
        match text {
            "iso" => Ok(Self::Iso),
            "epoch_s" => Ok(Self::EpochSeconds),
            "epoch_ms" => Ok(Self::EpochMillis),
            "epoch_us" => Ok(Self::EpochMicros),
            pattern => {
                let unknown = || BadFormat::Unknown(pattern.to_owned());
                let items = StrftimeItems::new(pattern).parse_to_owned().map_err(|_| unknown())?;
                if items
                    .iter()
                    .all(|item| matches!(item, Item::Literal(_) | Item::OwnedLiteral(_) | Item::Space(_) | Item::OwnedSpace(_)))
                {
                    return Err(unknown());
                }
                if items.contains(&Item::Fixed(Fixed::TimezoneName)) {
                    return Err(BadFormat::ZoneName(pattern.to_owned()));
                }
                let fixed = items.iter().map(Piece::of).collect();
                Ok(Self::Pattern(Pattern { text: pattern.to_owned(), items, fixed }))
            }
        }
    }
}

impl fmt::Display for TimeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iso => "iso",
            Self::EpochSeconds => "epoch_s",
            Self::EpochMillis => "epoch_ms",
            Self::EpochMicros => "epoch_us",
            Self::Pattern(pattern) => &pattern.text,
        })
    }
}

impl TimeFormat {
    /// Whether values of this form are numbers rather than text.
    pub fn is_numeric(&self) -> bool {
        match self {
            Self::EpochSeconds | Self::EpochMillis | Self::EpochMicros => true,
            Self::Iso | Self::Pattern(_) => false,
        }
    }

    /// The parts of a pattern in which each has a fixed width, with spaces as they stand there; none for other forms.
    pub(super) fn pieces(&self) -> Option<Vec<Piece>> {
        let Self::Pattern(pattern) = self else { return None };
        let piece = |item: &Item<'static>| match item {
            Item::Space(text) => Some(Piece::Literal(text.as_bytes().into())),
            Item::OwnedSpace(text) => Some(Piece::Literal(text.as_bytes().into())),
            other => Piece::of(other),
        };
        pattern.items.iter().map(piece).collect()
    }

    /// Whether this form tells enough for a date or an instant.
    pub fn gives(&self, column_type: ColumnType) -> bool {
        let Self::Pattern(pattern) = self else { return true };
        let mut sample = String::new();
        let formatted = DateTime::UNIX_EPOCH.fixed_offset().format_with_items(pattern.items.iter());
        if write!(sample, "{formatted}").is_err() {
            return false;
        }
        match column_type {
            ColumnType::Date => self.days(&sample) == Some(0),
            _ => self.micros(&sample) == Some(0),
        }
    }

    /// The day in days since 1970-01-01, if the text has this form.
    pub fn days(&self, text: &str) -> Option<i32> {
        let days = match self {
            Self::Iso => {
                let (date, rest) = iso_date(text.as_bytes())?;
                rest.is_empty().then_some(date)?
            }
            Self::Pattern(pattern) => pattern.date(text)?,
            Self::EpochSeconds | Self::EpochMillis | Self::EpochMicros => self.micros(text)?.div_euclid(MICROS_PER_DAY),
        };
        i32::try_from(days).ok()
    }

    /// The instant in microseconds since 1970-01-01 in UTC, if the text has this form. A finer fraction is cut.
    pub fn micros(&self, text: &str) -> Option<i64> {
        let micros = match self {
            Self::Iso => iso_instant(text.as_bytes())?,
            Self::EpochSeconds => epoch(text, 6)?,
            Self::EpochMillis => epoch(text, 3)?,
            Self::EpochMicros => epoch(text, 0)?,
            Self::Pattern(pattern) => pattern.instant(text)?,
        };
        (DAYS_MIN..=DAYS_MAX).contains(&micros.div_euclid(MICROS_PER_DAY)).then_some(micros)
    }
}

/// Microseconds from a number whose unit is `10^scale` microseconds.
fn epoch(text: &str, scale: u8) -> Option<i64> {
    let micros = number::decimal(text, 38, scale, ScaleExcess::Round).ok()?;
    i64::try_from(micros).ok()
}

impl Piece {
    fn of(item: &Item<'static>) -> Option<Self> {
        Some(match item {
            Item::Numeric(Numeric::Year, _) => Self::Year,
            Item::Numeric(Numeric::Month, _) => Self::Month,
            Item::Numeric(Numeric::Day, _) => Self::Day,
            Item::Numeric(Numeric::Hour, _) => Self::Hour,
            Item::Numeric(Numeric::Minute, _) => Self::Minute,
            Item::Numeric(Numeric::Second, _) => Self::Second,
            Item::Literal(text) => Self::Literal(text.as_bytes().into()),
            Item::OwnedLiteral(text) => Self::Literal(text.as_bytes().into()),
            _ => return None,
        })
    }
}

impl Pattern {
    fn date(&self, text: &str) -> Option<i64> {
        match self.fixed(text) {
            Some((days, _)) => Some(days),
            None => days_of(self.parsed(text)?.to_naive_date().ok().filter(has_four_digits)?),
        }
    }

    fn instant(&self, text: &str) -> Option<i64> {
        if let Some((days, seconds)) = self.fixed(text) {
            return Some(days * MICROS_PER_DAY + seconds * MICROS_PER_SECOND);
        }
        let parsed = self.parsed(text)?;
        let instant: NaiveDateTime = if parsed.offset().is_some() {
            parsed.to_datetime().ok()?.naive_utc()
        } else {
            let with_time = parsed.to_naive_datetime_with_offset(0).ok();
            with_time.or_else(|| {
                let no_time = parsed.hour_mod_12().is_none() && parsed.minute().is_none();
                no_time.then(|| parsed.to_naive_date().ok()).flatten().map(|date| date.and_time(NaiveTime::MIN))
            })?
        };
        has_four_digits(&instant.date()).then(|| instant.and_utc().timestamp_micros())
    }

    fn parsed(&self, text: &str) -> Option<Parsed> {
        let mut parsed = Parsed::new();
        chrono::format::parse(&mut parsed, text, self.items.iter()).ok()?;
        Some(parsed)
    }

    /// Days since 1970 and seconds of the day, if every part has its full width.
    fn fixed(&self, text: &str) -> Option<(i64, i64)> {
        let mut rest = text.as_bytes();
        let (mut date, mut time) = ([0; 3], [0; 3]);
        for piece in self.fixed.as_deref()? {
            let (part, width) = match piece {
                Piece::Year => (&mut date[0], 4),
                Piece::Month => (&mut date[1], 2),
                Piece::Day => (&mut date[2], 2),
                Piece::Hour => (&mut time[0], 2),
                Piece::Minute => (&mut time[1], 2),
                Piece::Second => (&mut time[2], 2),
                Piece::Literal(literal) => {
                    rest = rest.strip_prefix(&**literal)?;
                    continue;
                }
            };
            (*part, rest) = digits(rest, width)?;
        }
        let [hour, minute, second] = time;
        // Leap seconds, like anything unusual, are chrono's.
        let usual = rest.is_empty() && hour < 24 && minute < 60 && second < 60;
        let days = days_of_parts(date[0], date[1], date[2])?;
        usual.then(|| (days, i64::from(hour * 3600 + minute * 60 + second)))
    }
}

/// A number of exactly so many digits, and what follows.
fn digits(text: &[u8], width: usize) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_at_checked(width)?;
    let mut number = 0;
    for digit in digits {
        number = number * 10 + u32::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    Some((number, rest))
}

fn days_of_parts(year: u32, month: u32, day: u32) -> Option<i64> {
    days_of(NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?)
}

fn days_of(date: NaiveDate) -> Option<i64> {
    let days = i64::from(date.num_days_from_ce() - DAYS_FROM_CE_TO_1970);
    (DAYS_MIN..=DAYS_MAX).contains(&days).then_some(days)
}

fn has_four_digits(date: &NaiveDate) -> bool {
    (1000..=9999).contains(&date.year())
}

/// `2023-07-17` and what follows.
fn iso_date(text: &[u8]) -> Option<(i64, &[u8])> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix(b"-")?, 2)?;
    let (day, rest) = digits(rest.strip_prefix(b"-")?, 2)?;
    Some((days_of_parts(year, month, day)?, rest))
}

fn iso_instant(text: &[u8]) -> Option<i64> {
    let (days, rest) = iso_date(text)?;
    let rest = match rest {
        [b'T' | b't' | b' ', rest @ ..] => rest,
        _ => return None,
    };
    let (hour, rest) = digits(rest, 2)?;
    let (minute, rest) = digits(rest.strip_prefix(b":")?, 2)?;
    let (second, rest) = match rest {
        [b':', rest @ ..] => digits(rest, 2)?,
        rest => (0, rest),
    };
    let (micros, rest) = match rest {
        [b'.' | b',', rest @ ..] => fraction(rest)?,
        rest => (0, rest),
    };
    // A second 60 is the one that UTC inserts at times; it is counted as the next minute's first.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = i64::from(hour * 3600 + minute * 60 + second) - offset_seconds(rest)?;
    Some(days * MICROS_PER_DAY + seconds * MICROS_PER_SECOND + micros)
}

/// Microseconds from the digits behind a decimal point, and what follows.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let micros = (0..6).fold(0, |micros, place| micros * 10 + digits.get(place).map_or(0, |digit| i64::from(digit - b'0')));
    (end > 0).then_some((micros, rest))
}

/// Seconds east of UTC: nothing, `Z`, `+02:00`, `+0200` or `+02`.
fn offset_seconds(text: &[u8]) -> Option<i64> {
    let (sign, rest) = match text {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, rest) = digits(rest, 2)?;
    let (minutes, rest) = match rest {
        [] => (0, rest),
        rest => digits(rest.strip_prefix(b":").unwrap_or(rest), 2)?,
    };
    (rest.is_empty() && hours < 24 && minutes < 60).then(|| sign * i64::from(hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn format(text: &str) -> TimeFormat {
        text.parse().unwrap()
    }

    fn date(pattern: &str, text: &str) -> Option<String> {
        let days = format(pattern).days(text)?;
        Some(NaiveDate::from_num_days_from_ce_opt(days + DAYS_FROM_CE_TO_1970).unwrap().to_string())
    }

    fn instant(pattern: &str, text: &str) -> Option<String> {
        Some(DateTime::from_timestamp_micros(format(pattern).micros(text)?).unwrap().naive_utc().to_string())
    }

    #[test]
    fn dates_are_read_in_each_form() {
        for (pattern, text) in [
            ("iso", "2023-07-17"),
            ("%Y-%m-%d", "2023-07-17"),
            ("%F", "2023-07-17"),
            ("%d-%m-%Y", "17-07-2023"),
            ("%d-%m-%Y", "17-7-2023"),
            ("%m/%d/%Y", "07/17/2023"),
            ("%Y%m%d", "20230717"),
            ("%d.%m.%y", "17.07.23"),
            ("%d %b %Y", "17 Jul 2023"),
            ("%Y-%m-%dT%H:%M:%S", "2023-07-17T23:59:59"),
            ("epoch_ms", "1689552000000"),
            ("epoch_s", "1689638399.999999"),
        ] {
            assert_eq!(date(pattern, text).as_deref(), Some("2023-07-17"), "{pattern} {text}");
        }
        assert_eq!(date("iso", "2024-02-29").as_deref(), Some("2024-02-29"));
        assert_eq!(date("epoch_s", "-1").as_deref(), Some("1969-12-31"));
    }

    #[test]
    fn what_is_no_such_date_is_none() {
        for (pattern, text) in [
            ("iso", "17-07-2023"),
            ("iso", "2023-7-17"),
            ("iso", "2023-07-17 "),
            ("iso", "2023-02-29"),
            ("iso", "0000-01-01"),
            ("iso", ""),
            ("iso", "２０２３-07-17"),
            ("%Y-%m-%d", "17-07-20"),
            ("%Y-%m-%d", "17-07-2023"),
            ("%d-%m-%Y", "2023-07-17"),
            ("%d-%m-%Y", "31-31-2023"),
            ("%d-%m-%Y", "17-07-12023"),
            ("%d-%m-%Y", "17-07-23"),
            ("epoch_ms", "1e300"),
            ("epoch_ms", "2023-07-17"),
            ("epoch_us", "9223372036854775807"),
        ] {
            assert_eq!(date(pattern, text), None, "{pattern} {text}");
        }
    }

    #[test]
    fn instants_are_moved_to_utc() {
        for (pattern, text, expected) in [
            ("iso", "2023-07-17T10:20:30Z", "2023-07-17 10:20:30"),
            ("iso", "2023-07-17 10:20:30", "2023-07-17 10:20:30"),
            ("iso", "2023-07-17T10:20", "2023-07-17 10:20:00"),
            ("iso", "2023-07-17T10:20:30.1234567+02:00", "2023-07-17 08:20:30.123456"),
            ("iso", "2023-07-17T00:20:30-0530", "2023-07-17 05:50:30"),
            ("iso", "2023-01-01T00:00:00+01", "2022-12-31 23:00:00"),
            ("%Y-%m-%d %H:%M:%S", "2023-07-17 10:20:30", "2023-07-17 10:20:30"),
            ("%Y-%m-%d %H:%M:%S", "2023-07-17 9:20:30", "2023-07-17 09:20:30"),
            ("%Y-%m-%d %H:%M:%S %z", "2023-07-17 10:20:30 +0200", "2023-07-17 08:20:30"),
            ("%d-%m-%Y", "17-07-2023", "2023-07-17 00:00:00"),
            ("epoch_s", "1689589230.5", "2023-07-17 10:20:30.500"),
            ("epoch_ms", "1689589230500", "2023-07-17 10:20:30.500"),
            ("epoch_us", "1689589230500000", "2023-07-17 10:20:30.500"),
            ("epoch_ms", "1.6895892305e12", "2023-07-17 10:20:30.500"),
        ] {
            assert_eq!(instant(pattern, text).as_deref(), Some(expected), "{pattern} {text}");
        }
        for text in
            ["2023-07-17", "2023-07-17T24:00:00", "2023-07-17T10:60", "2023-07-17T10:20:30+25:00", "2023-07-17T10:20:30.Z"]
        {
            assert_eq!(instant("iso", text), None, "{text}");
        }
        assert_eq!(instant("iso", "0001-01-01T00:00:00+01:00"), None, "before the first year once in UTC");
        assert_eq!(instant("%d-%m-%Y %H:%M", "17-07-2023 10"), None);
    }

    #[test]
    fn patterns_that_cannot_work_are_refused() {
        for text in ["", "date", "%Q", "ISO"] {
            assert!(matches!(text.parse::<TimeFormat>(), Err(BadFormat::Unknown(_))), "{text}");
        }
        for (text, date, timestamp) in [
            ("%Y-%m-%d", true, true),
            ("%d %H:%M", false, false),
            ("%Y", false, false),
            ("%c", true, true),
            ("%Y-%m-%d %H", true, false),
        ] {
            assert_eq!(
                (format(text).gives(ColumnType::Date), format(text).gives(ColumnType::Timestamp)),
                (date, timestamp),
                "{text}"
            );
        }
        assert!(matches!("%Y-%m-%d %Z".parse::<TimeFormat>(), Err(BadFormat::ZoneName(_))));
    }

    proptest! {
        #[test]
        fn every_day_is_read_back_from_every_pattern(days in DAYS_MIN..=DAYS_MAX, pattern in prop::sample::select(vec![
            "%Y-%m-%d", "%d-%m-%Y", "%m/%d/%Y", "%Y%m%d", "%d.%m.%Y",
        ])) {
            let day = NaiveDate::from_num_days_from_ce_opt(days as i32 + DAYS_FROM_CE_TO_1970).unwrap();
            prop_assert_eq!(format(pattern).days(&day.format(pattern).to_string()), Some(days as i32));
        }

        #[test]
        fn dates_equal_chronos(text in "[0-3][0-9]-[01][0-9]-[12][0-9]{3}", pattern in prop::sample::select(vec!["%d-%m-%Y", "%m-%d-%Y"])) {
            let chrono = NaiveDate::parse_from_str(&text, pattern).ok().map(|day| day.num_days_from_ce() - DAYS_FROM_CE_TO_1970);
            prop_assert_eq!(format(pattern).days(&text), chrono);
        }

        #[test]
        fn instants_equal_chronos(micros in -62_135_000_000_000_000i64..253_402_000_000_000_000, offset in -1439i32..1439) {
            let zone = chrono::FixedOffset::east_opt(offset * 60).unwrap();
            let text = DateTime::from_timestamp_micros(micros).unwrap().with_timezone(&zone).to_rfc3339();
            // Near both ends the local year may leave the four digits.
            prop_assume!(text.starts_with(|c: char| c.is_ascii_digit()) && !text.starts_with("0000"));
            prop_assert_eq!(format("iso").micros(&text), Some(micros), "{}", text);
            let pattern = format("%Y-%m-%dT%H:%M:%S%.f%:z");
            let year: i32 = text[..4].parse().unwrap();
            if year > 1000 {
                prop_assert_eq!(pattern.micros(&text), Some(micros), "{}", text);
            }
        }

        #[test]
        fn any_text_ends_in_a_value_or_none(text in "\\PC{0,24}", pattern in prop::sample::select(vec!["iso", "epoch_s", "%d-%m-%Y", "%c"])) {
            let _ = (format(pattern).days(&text), format(pattern).micros(&text));
        }
    }
}
