//! Splits a file or stream into records, one after the other, with bounded memory.
//!
//! A record of JSON lines is a line (an empty one too); a record of CSV ends at the first line end outside quotes, and empty lines are
//! skipped. The bytes come without the line end, otherwise untouched.

use std::io::Read;

use super::FileFormat;
use crate::error::{Context, Error, Result};
use crate::source::messages::CsvScan;

const READ_BYTES: usize = 256 << 10;

/// One record as it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRecord<'a> {
    pub bytes: &'a [u8],
    /// Number of the line on which it begins, from 1.
    pub line: u64,
}

/// Reads records from `input`.
pub struct Records<R> {
    input: R,
    format: FileFormat,
    record_bytes_max: usize,
    buffer: Vec<u8>,
    /// The unread part of the buffer.
    begin: usize,
    end: usize,
    /// Bytes taken, up to and including the last record's line end.
    bytes_read: u64,
    line: u64,
    /// The last record had no line end: what follows it, if the file grows, must begin with one.
    unterminated: bool,
}

impl<R: Read> Records<R> {
    pub fn new(input: R, format: FileFormat, record_bytes_max: usize) -> Self {
        let buffer = vec![0; READ_BYTES];
        Self { input, format, record_bytes_max, buffer, begin: 0, end: 0, bytes_read: 0, line: 1, unterminated: false }
    }

    /// Continues with another input from a position that this reader has come to.
    pub fn replace_input(&mut self, input: R) {
        self.input = input;
        (self.begin, self.end) = (0, 0);
    }

    /// Bytes of the file that the records so far take up.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The next record; none at the end of what is there now.
    pub fn next_record(&mut self) -> Result<Option<FileRecord<'_>>> {
        loop {
            let Some((length, taken)) = self.find_record()? else { return Ok(None) };
            let line = self.line;
            let bytes = self.begin..self.begin + length;
            self.line += memchr::memchr_iter(b'\n', &self.buffer[self.begin..self.begin + taken]).count() as u64;
            self.begin += taken;
            self.bytes_read += taken as u64;
            if bytes.is_empty() && self.format == FileFormat::Csv {
                continue;
            }
            return Ok(Some(FileRecord { bytes: &self.buffer[bytes], line }));
        }
    }

    /// Passes over records; returns how many there were, fewer than asked for at the end of the file.
    pub fn skip(&mut self, records: u64) -> Result<u64> {
        for skipped in 0..records {
            if self.next_record()?.is_none() {
                return Ok(skipped);
            }
        }
        Ok(records)
    }

    /// Makes the next record stand at `begin` and returns its length without and with its line end.
    fn find_record(&mut self) -> Result<Option<(usize, usize)>> {
        let mut scan = CsvScan::default();
        let mut seen = 0;
        loop {
            let unseen = &self.buffer[self.begin + seen..self.end];
            let found = match self.format {
                FileFormat::Csv => scan.record_end(unseen),
                FileFormat::JsonLines => memchr::memchr(b'\n', unseen),
            };
            if let Some(end) = found {
                if self.unterminated {
                    self.check_line_end()?;
                    seen = 0;
                    scan = CsvScan::default();
                    continue;
                }
                let length = seen + end;
                let carriage_return = length > 0 && self.buffer[self.begin + length - 1] == b'\r';
                return Ok(Some((length - usize::from(carriage_return), length + 1)));
            }
            seen = self.end - self.begin;
            if seen > self.record_bytes_max {
                let line = self.line;
                return Err(Error::failed(format!("the record on line {line} is longer than {} bytes", self.record_bytes_max))
                    .hint("raise record_bytes_max, or look for a quote without its counterpart"));
            }
            if self.fill()? == 0 {
                if seen == 0 {
                    return Ok(None);
                }
                if self.unterminated {
                    self.check_line_end()?;
                    seen = 0;
                    scan = CsvScan::default();
                    continue;
                }
                self.unterminated = true;
                return Ok(Some((seen, seen)));
            }
        }
    }

    /// After a record without a line end: passes over the line end that has been written since.
    fn check_line_end(&mut self) -> Result<()> {
        let unread = &self.buffer[self.begin..self.end];
        let taken = match unread {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => {
                return Err(Error::stop(format!(
                    "the record before line {} was changed after it had been read as the last one",
                    self.line
                ))
                .hint("append whole lines to a file that is being read"));
            }
        };
        self.begin += taken;
        self.bytes_read += taken as u64;
        self.line += 1;
        self.unterminated = false;
        Ok(())
    }

    fn fill(&mut self) -> Result<usize> {
        if self.begin > 0 {
            self.buffer.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        loop {
            match self.input.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => {
                    let read = read.context("reading failed")?;
                    self.end += read;
                    return Ok(read);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &[u8], format: FileFormat) -> Vec<(Vec<u8>, u64)> {
        let mut records = Records::new(text, format, 1 << 20);
        let mut found = Vec::new();
        while let Some(record) = records.next_record().unwrap() {
            found.push((record.bytes.to_vec(), record.line));
        }
        assert_eq!(records.bytes_read(), text.len() as u64);
        found
    }

    #[test]
    fn csv_records_span_lines_inside_quotes_and_skip_empty_lines() {
        let found = all(b"a,b\r\n\r\n\"x\ny\",2\n5\" pipe,3\nlast", FileFormat::Csv);
        let expected: Vec<(Vec<u8>, u64)> =
            vec![(b"a,b".into(), 1), (b"\"x\ny\",2".into(), 3), (b"5\" pipe,3".into(), 5), (b"last".into(), 6)];
        assert_eq!(found, expected);
    }

    #[test]
    fn every_json_line_is_a_record_even_an_empty_one() {
        let lines: Vec<Vec<u8>> = all(b"{}\n\n\xff\n", FileFormat::JsonLines).into_iter().map(|(bytes, _)| bytes).collect();
        assert_eq!(lines, [b"{}".to_vec(), b"".to_vec(), b"\xff".to_vec()]);
    }

    #[test]
    fn a_record_beyond_the_limit_is_an_error_with_its_line() {
        let text = [b"ok\n\"".to_vec(), vec![b'x'; 3 << 20]].concat();
        let mut records = Records::new(&text[..], FileFormat::Csv, 1 << 20);
        records.next_record().unwrap();
        assert!(records.next_record().unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn a_last_line_may_get_its_line_end_later_but_may_not_change() {
        let mut records = Records::new(&b"one\ntwo"[..], FileFormat::JsonLines, 1 << 20);
        assert_eq!(records.skip(5).unwrap(), 2);
        records.replace_input(b"\nthree\n");
        assert_eq!(records.next_record().unwrap().unwrap(), FileRecord { bytes: b"three", line: 3 });
        let mut records = Records::new(&b"one\ntwo"[..], FileFormat::JsonLines, 1 << 20);
        records.skip(2).unwrap();
        records.replace_input(b"thousand\n");
        assert_eq!(records.next_record().unwrap_err().kind(), crate::Kind::Stop);
    }

    proptest! {
        #[test]
        fn json_lines_join_to_the_file(lines in prop::collection::vec("[a-c]{0,5}", 0..30)) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let found: Vec<Vec<u8>> = all(text.as_bytes(), FileFormat::JsonLines).into_iter().map(|(bytes, _)| bytes).collect();
            prop_assert_eq!(found, lines.into_iter().map(String::into_bytes).collect::<Vec<_>>());
        }
    }
}
