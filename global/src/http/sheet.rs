//! Rows of an answer as CSV (RFC 4180).

use serde_json::Value;

use super::names;
use crate::question::{Counts, GroupBy};

use super::answers::{RowAnswer, value_of};

/// The columns, in their order.
pub fn columns(group_by: Option<GroupBy>) -> Vec<&'static str> {
    let group = group_by.map(names::group_field);
    let before = ["window_start", "window_end"].into_iter();
    before.chain(group).chain(["gross", "net", "users", "state", "version"]).collect()
}

/// One line a row, after one of names; a question without rows has one, of the whole span.
pub fn of(counts: &Counts, group_by: Option<GroupBy>, has_rows: bool) -> String {
    let columns = columns(group_by);
    let rows = if has_rows { counts.rows.as_slice() } else { std::slice::from_ref(&counts.total) };
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let written = "memory takes all that is written";
    writer.write_record(&columns).expect(written);
    for row in rows {
        let row = value_of(&RowAnswer::of(row, group_by));
        let cells = columns.iter().map(|column| match &row[column] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        writer.write_record(cells).expect(written);
    }
    String::from_utf8(writer.into_inner().expect(written)).expect("texts are UTF-8")
}
