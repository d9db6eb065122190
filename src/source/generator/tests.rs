use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use arrow::array::{Array, BinaryArray};
use proptest::prelude::*;

use super::catalogue::*;
use super::sale::*;
use super::*;
use crate::record::{VALUE, column};
use crate::source::messages::RowToJson;
use crate::source::{PollLimits, Source, Start};

const ROWS: u64 = 100_000;
const LIMITS: PollLimits = PollLimits { max_rows: 4_000, max_bytes: 1 << 20, max_wait: Duration::ZERO };

fn settings() -> GeneratorSettings {
    GeneratorSettings { bad_share: 0.0, ..GeneratorSettings::default() }
}

/// The cells of the first 100,000 sales.
fn sales() -> &'static [[String; COLUMNS.len()]] {
    static SALES: LazyLock<Vec<[String; COLUMNS.len()]>> = LazyLock::new(|| {
        let drawn = |row| {
            let mut sale = Sale::default();
            sale.draw(42, row, DateFormat::Iso);
            sale.cells
        };
        (0..ROWS).map(drawn).collect()
    });
    &SALES
}

/// A decimal text as a whole number of hundredths.
fn cents(text: &str) -> u64 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    assert!(fraction.len() <= 2 && !fraction.ends_with('0'), "{text}");
    whole.parse::<u64>().unwrap() * 100 + format!("{fraction:0<2}").parse::<u64>().unwrap()
}

/// The total that follows from the other amounts; none if no tax rate explains the tax.
fn recompute(cells: &[&str]) -> Option<u64> {
    let discount = cents(cells[10]);
    let net = cells[QUANTITY].parse::<u64>().unwrap() * cents(cells[UNIT_PRICE]) * (100 - discount);
    TAX_RATES_PERCENT.iter().find(|rate| round_half_even(net * u64::from(**rate), 10_000) == cents(cells[11]))?;
    Some(round_half_even(net + (cents(cells[11]) + cents(cells[12])) * 100, 100))
}

/// Shares of a column's values in percent.
fn shares(column: usize) -> BTreeMap<&'static str, f64> {
    let mut counts = BTreeMap::new();
    sales().iter().for_each(|cells| *counts.entry(cells[column].as_str()).or_insert(0.0) += 100.0 / ROWS as f64);
    counts
}

fn assert_shares(column: usize, expected: &[(&str, u32)]) {
    let found = shares(column);
    assert_eq!(found.keys().copied().collect::<BTreeSet<_>>(), expected.iter().map(|(name, _)| *name).collect());
    for (name, percent) in expected {
        assert!((found[*name] - f64::from(*percent)).abs() < 0.7, "{name}: {} instead of {percent} %", found[*name]);
    }
}

#[test]
fn shares_are_those_of_the_data_set() {
    assert_shares(18, &COUNTRIES);
    assert_shares(15, &ORDER_STATUSES);
    assert_shares(14, &PAYMENT_METHODS);
    assert_shares(10, &[("0", 45), ("0.05", 12), ("0.1", 17), ("0.15", 11), ("0.2", 7), ("0.25", 4), ("0.3", 4)]);
    assert_shares(QUANTITY, &[("1", 20), ("2", 20), ("3", 20), ("4", 20), ("5", 20)]);
    for (column, distinct) in [(3, 200), (4, 50), (5, 50), (6, 6), (7, 10), (16, 20), (17, 13), (19, 2_000)] {
        assert_eq!(shares(column).len(), distinct, "{}", COLUMNS[column]);
    }
}

#[test]
fn every_amount_is_exact_and_their_sum_is_that_of_the_data_set() {
    let (mut revenue, mut ids) = (0, BTreeSet::new());
    for cells in sales() {
        let cells = cells.each_ref().map(String::as_str);
        let total = recompute(&cells).unwrap();
        assert_eq!(total, cents(cells[TOTAL_AMOUNT]), "{cells:?}");
        assert!((500..=60_000).contains(&cents(cells[UNIT_PRICE])) && cents(cells[12]) <= 1_500);
        assert!(("2020-01-01"..="2024-12-31").contains(&cells[ORDER_DATE]));
        ids.insert(cells[ORDER_ID].to_owned());
        revenue += total;
    }
    assert_eq!(
        (ids.len() as u64, ids.first().map(String::as_str), ids.last().map(String::as_str)),
        (ROWS, Some("ORD0000001"), Some("ORD0100000"))
    );
    assert!((9_130_000_000..9_240_000_000).contains(&revenue), "{revenue} cents");
}

/// The real file's rows, where the workspace has them, obey the rules by which rows are made.
#[test]
fn the_real_sample_could_have_come_from_here() {
    let path = crate::repository().join("../shared/data/amazon_sales_sample.csv");
    let Ok(text) = std::fs::read_to_string(path) else { return };
    let mut lines = text.lines();
    assert_eq!(lines.next().unwrap(), COLUMNS.join(","));
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let total = recompute(&cells).unwrap_or_else(|| panic!("no tax rate explains {line}"));
        assert_eq!(total, cents(cells[TOTAL_AMOUNT]), "{line}");
        let product: usize = cells[4][1..].parse().unwrap();
        assert_eq!(PRODUCTS[product - 1], cells[5], "{line}");
        let (first, last) = cells[3].split_once(' ').unwrap();
        assert!(FIRST_NAMES.contains(&first) && LAST_NAMES.contains(&last), "{line}");
        assert!(CATEGORIES.contains(&cells[6]) && BRANDS.contains(&cells[7]), "{line}");
        assert!(CITIES.contains(&(cells[16], cells[17])), "{line}");
        assert!(COUNTRIES.iter().any(|(country, _)| *country == cells[18]), "{line}");
        assert!(PAYMENT_METHODS.iter().any(|(method, _)| *method == cells[14]), "{line}");
        assert!(ORDER_STATUSES.iter().any(|(status, _)| *status == cells[15]), "{line}");
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn generated(settings: GeneratorSettings, format: GenerateFormat) -> (Vec<u8>, GenerateSummary) {
    let out = Shared::default();
    let summary = generate(GenerateOptions { settings, format }, out.clone(), |_| {}).await.unwrap();
    let bytes = out.0.lock().unwrap().clone();
    assert_eq!(summary.bytes, bytes.len() as u64);
    (bytes, summary)
}

#[tokio::test]
async fn the_csv_file_becomes_the_messages() {
    let settings = GeneratorSettings { rows: 2_000, ..settings() };
    let (csv, _) = generated(settings.clone(), GenerateFormat::Csv).await;
    let (lines, _) = generated(settings, GenerateFormat::JsonLines).await;
    let mut rows = csv.split(|byte| *byte == b'\n');
    let numeric = ["Quantity", "UnitPrice", "Discount", "Tax", "ShippingCost", "TotalAmount"].map(str::to_owned);
    let mut converter = RowToJson::new(rows.next().unwrap(), &numeric).unwrap();
    for (row, line) in rows.zip(lines.split(|byte| *byte == b'\n')).take(2_000) {
        let mut message = Vec::new();
        converter.convert(row, &mut message).unwrap();
        assert_eq!(String::from_utf8_lossy(&message), String::from_utf8_lossy(line));
    }
    let mean = lines.len() / 2_000;
    assert!((425..440).contains(&mean), "{mean} bytes in a message");
}

#[tokio::test]
async fn bad_rows_are_counted_and_the_csv_crate_can_read_them() {
    let settings = GeneratorSettings { rows: 5_000, bad_share: 0.02, ..settings() };
    let (csv, summary) = generated(settings, GenerateFormat::Csv).await;
    assert!((60..150).contains(&summary.bad_rows), "{}", summary.bad_rows);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(&csv[..]);
    assert_eq!(reader.records().filter(|record| record.is_ok()).count(), 5_000);
}

#[tokio::test]
async fn the_source_hands_out_every_row_once_in_three_partitions() {
    let settings = GeneratorSettings { rows: 10_001, ..GeneratorSettings::default() };
    let mut source = GeneratorSource::open(&settings, "sales", &Start::Earliest).unwrap();
    source.assign(&BTreeMap::new()).await.unwrap();
    let mut records = 0;
    while let Some(batch) = source.poll(&LIMITS).await.unwrap() {
        records += batch.delta.records();
    }
    assert_eq!(records, 10_001);
    let ends: BTreeMap<_, _> = source.watermarks().await.unwrap().into_iter().map(|(id, range)| (id, range.end)).collect();
    assert_eq!(source.positions(), ends);
    assert_eq!(ends, BTreeMap::from([(0, 3_334), (1, 3_334), (2, 3_333)]));
}

#[tokio::test]
async fn a_position_of_other_settings_stops() {
    let mut source = GeneratorSource::open(&GeneratorSettings { rows: 30, ..settings() }, "sales", &Start::Earliest).unwrap();
    assert_eq!(source.assign(&BTreeMap::from([(0, 11)])).await.unwrap_err().kind(), crate::Kind::Stop);
    assert_eq!(source.assign(&BTreeMap::from([(3, 0)])).await.unwrap_err().kind(), crate::Kind::Stop);
    let other = GeneratorSource::open(&GeneratorSettings { seed: 1, rows: 30, ..settings() }, "sales", &Start::Earliest).unwrap();
    assert_ne!(other.identity(), source.identity());
    let slower =
        GeneratorSource::open(&GeneratorSettings { rate: 5.0, rows: 30, ..settings() }, "sales", &Start::Earliest).unwrap();
    assert_eq!(slower.identity(), source.identity());
}

#[tokio::test]
async fn a_rate_bounds_what_one_poll_returns() {
    let settings = GeneratorSettings { rate: 1_000.0, ..settings() };
    let mut source = GeneratorSource::open(&settings, "sales", &Start::Earliest).unwrap();
    source.assign(&BTreeMap::new()).await.unwrap();
    let limits = PollLimits { max_wait: Duration::from_millis(20), ..LIMITS };
    let batch = source.poll(&limits).await.unwrap().unwrap();
    assert!(batch.delta.records() < 4_000, "{}", batch.delta.records());
}

#[test]
fn times_cover_the_span_and_a_few_come_late() {
    let settings = settings();
    let start = settings.start.timestamp_micros();
    let times: Vec<i64> = (0..ROWS).map(|row| settings.message_time_us(row) - start).collect();
    assert!(times.iter().all(|time| (0..3 * 3_600_000_000).contains(time) && time % 1_000 == 0));
    assert!(times[ROWS as usize - 1] > 3 * 3_600_000_000 - 200_000_000);
    let late = times.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!((800..1_200).contains(&late), "{late} of {ROWS} come late");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_position_continues_as_if_read_from_the_beginning(from in prop::array::uniform3(0i64..300), max_rows in 1usize..200) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let settings = GeneratorSettings { rows: 1_000, bad_share: 0.05, ..GeneratorSettings::default() };
            let mut source = GeneratorSource::open(&settings, "sales", &Start::Earliest).unwrap();
            source.assign(&(0..3).zip(from).collect()).await.unwrap();
            let mut messages = Messages::new(&settings);
            let mut read = 0;
            while let Some(batch) = source.poll(&PollLimits { max_rows, ..LIMITS }).await.unwrap() {
                let (partitions, offsets) = crate::record::coordinates(&batch.records).unwrap();
                let values: &BinaryArray = column(&batch.records, VALUE).unwrap();
                for index in 0..values.len() {
                    let row = offsets.value(index) as u64 * 3 + partitions.value(index) as u64;
                    let expected = messages.message(row).value.map(<[u8]>::to_vec);
                    assert_eq!(values.is_valid(index).then(|| values.value(index).to_vec()), expected, "row {row}");
                    read += 1;
                }
            }
            assert_eq!(read, 1_000 - from.iter().sum::<i64>());
        });
    }
}
