//! What a broker says to an EndTxn, read from the bytes of both:
//!
//!     request   length 4 | key 2 | version 2 | correlation id 4 | client … | transactional id … | producer 8 | epoch 2 | commit 1 (| tags 1)
//!     answer    length 4 | correlation id 4 (| tags 1) | throttle 4 | error 2
//!
//! Tags are there from version 3 on, and empty.

use std::collections::BTreeMap;

/// How often each came.
pub type Outcomes = BTreeMap<&'static str, u64>;

/// The producer's epoch is over, in the protocol's old word and in its new one.
pub const FENCED: [&str; 2] = ["INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED"];

/// What it came to: done, or the name of the error.
pub fn outcome(request: &[u8], answer: &[u8]) -> &'static str {
    let tags = usize::from(request[6..8] >= [0, 3][..]);
    let at = 8 + tags + 4;
    let code = answer.get(at..at + 2).map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]]));
    match code {
        Some(0) if request[request.len() - 1 - tags] == 0 => "ABORTED",
        Some(0) => "COMMITTED",
        Some(14) => "COORDINATOR_LOAD_IN_PROGRESS",
        Some(15) => "COORDINATOR_NOT_AVAILABLE",
        Some(16) => "NOT_COORDINATOR",
        Some(47) => FENCED[0],
        Some(48) => "INVALID_TXN_STATE",
        Some(49) => "INVALID_PRODUCER_ID_MAPPING",
        Some(51) => "CONCURRENT_TRANSACTIONS",
        Some(90) => FENCED[1],
        Some(_) => "OTHER_ERROR",
        None => "NO_ERROR_CODE",
    }
}

#[test]
fn what_a_commit_came_to_is_read_in_each_version() {
    let said = |version: u8, commit: u8, error: u8| {
        let tags: &[u8] = if version < 3 { &[] } else { &[0] };
        let request =
            [&[0, 0, 0, 0, 0, 26, 0, version, 0, 0, 0, 7][..], b"client, id, producer, epoch", &[commit], tags];
        let answer = [&[0, 0, 0, 0, 0, 0, 0, 7][..], tags, &[0, 0, 0, 0, 0, error], tags];
        outcome(&request.concat(), &answer.concat())
    };
    for version in [1, 3] {
        let all = [
            said(version, 1, 0),
            said(version, 0, 0),
            said(version, 1, 47),
            said(version, 1, 90),
            said(version, 1, 99),
        ];
        assert_eq!(all, ["COMMITTED", "ABORTED", FENCED[0], FENCED[1], "OTHER_ERROR"], "version {version}");
    }
    assert_eq!(outcome(&[0; 12], &[0; 8]), "NO_ERROR_CODE");
}
