//! Rows of an answer as CSV (RFC 4180).

use super::answers::RowAnswer;
use super::names;
use crate::question::{Counts, GroupBy};

/// One line a row, after one of names; a question without rows has one, of the whole span.
pub fn of(counts: &Counts, group_by: Option<GroupBy>, has_rows: bool) -> Vec<u8> {
    let rows = if has_rows { counts.rows.as_slice() } else { std::slice::from_ref(&counts.total) };
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let written = "memory takes all that is written";
    writer.write_record(RowAnswer::columns(group_by.map(names::group_field))).expect(written);
    for row in rows {
        writer.write_record(RowAnswer::of(row, group_by).cells()).expect(written);
    }
    writer.into_inner().expect(written)
}
