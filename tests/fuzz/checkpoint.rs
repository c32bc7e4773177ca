//! Any bytes where Kafka, or the mirror, should have what was exported: decoding is total, and an edge goes on only from what its own
//! logs can have led to.
//!
//! An input is a letter and bytes: `m` the mirror's text, else a record's value.

use std::path::Path;

use prost::Message;
use tollgate::cut::{LogId, Position, Totals};
use tollgate::event::Now;
use tollgate::export::mirror::MirrorFile;
use tollgate::export::{Behind, Exporter, Found, LogStart, Mirror, Start, Step, Told};
use tollgate_wire::{
    Checkpoint, LogPosition, PartialView, decode_checkpoint, decode_end_record, decode_partial, view_partial,
};

/// What the seeds in `fuzz/seeds/checkpoint` are true of.
const EDGE_ID: &str = "fra-1";
const DATA_DIR: [u8; 16] = *b"a data directory";
const NONCES: [[u8; 16]; 2] = [*b"nonce of today!!", *b"nonce of before!"];
const LOG_ID: LogId = *b"a fuzzer's log!!";
const BASE_LSN: u64 = 10;
/// Where frames end.
const ENDS: [(u64, u64); 2] = [(20, 0xC), (40, 0xE)];
const NOW: Now = Now { wall_ms: 1_763_791_100_000, mono_ns: 1_000_000_000 };

pub fn check(input: &[u8]) {
    match input {
        [b'm', text @ ..] => mirror(text),
        [_, value @ ..] => record(value),
        [] => {}
    }
}

fn mirror(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(file) = MirrorFile::parse(text, Path::new("exported.json")) else { return };
    let again = MirrorFile::parse(&file.text(), Path::new("exported.json")).expect("what was read can be written");
    assert_eq!(again, file, "a mirror says everything of itself");
    file.names().of(&LOG_ID);
    // What Kafka has is what the directory remembers; or it is one of ours that may be older or newer.
    for found in [file.checkpoint(), Some(ours())] {
        contact(found, MirrorFile::for_the_protocol(Some(&file)));
    }
}

/// As `fuzz/seeds/checkpoint/up_to_the_end` has it.
fn ours() -> Checkpoint {
    let (lsn, chain) = ENDS[1];
    Checkpoint {
        format_version: 1,
        edge_id: EDGE_ID.to_owned(),
        txn_seq: 7,
        logs: vec![LogPosition { log_uuid: LOG_ID.to_vec(), lsn, chain, clicks_total: lsn }],
        nonce: NONCES[0].to_vec(),
        data_dir_uuid: DATA_DIR.to_vec(),
        written_ms: NOW.wall_ms,
    }
}

fn record(value: &[u8]) {
    let (owned, view) = (decode_partial(value), view_partial(value));
    match (&owned, &view) {
        (Ok(owned), Ok(view)) => assert_eq!(PartialView::of(owned), *view, "two readings of one partial"),
        (owned, view) => assert_eq!(owned.is_ok(), view.is_ok(), "{owned:?}, {view:?}"),
    }
    if let Ok(end) = decode_end_record(value) {
        assert_eq!(decode_end_record(&end.encode_to_vec()).ok(), Some(end), "an end record says everything of itself");
    }
    if let Ok(checkpoint) = decode_checkpoint(value) {
        let again = decode_checkpoint(&checkpoint.encode_to_vec()).ok();
        assert_eq!(again.as_ref(), Some(&checkpoint), "a checkpoint says everything of itself");
        contact(Some(checkpoint), Mirror::Kept { checkpoint: None, adopted: None });
    }
}

/// The exporter finds this checkpoint: it halts, or it is one of ours.
fn contact(found: Option<Checkpoint>, mirror: Mirror) {
    let seq = found.as_ref().map(|found| found.txn_seq);
    // An operator's word is about the checkpoint of that number alone.
    let adopted = match &mirror {
        Mirror::Kept { adopted: Some(adopted), .. } if adopted.found == seq => Some(adopted.logs.clone()),
        _ => None,
    };
    let (remembered, keeps_nothing) = (mirror.txn_seq(), mirror == Mirror::Kept { checkpoint: None, adopted: None });
    let (lsn, chain) = ENDS[1];
    let log = LogStart {
        end: Position { log_id: LOG_ID, lsn, chain },
        totals: Totals { clicks: lsn, ..Totals::default() },
        horizon_ms: 0,
        watermark_ms: 0,
        base_lsn: BASE_LSN,
        open: true,
        behind: Behind::default(),
    };
    let mut exporter = Exporter::new(Start {
        edge_id: EDGE_ID.to_owned(),
        data_dir: DATA_DIR,
        nonce: NONCES[0],
        nonces: NONCES.to_vec(),
        mirror,
        logs: vec![log],
    });
    // At most: the look that fences nobody and the look that fences, each with a look into the logs.
    for _ in 0..6 {
        match exporter.next(NOW) {
            Step::ReadCheckpoint { .. } => exporter.apply(Told::Checkpoint(Ok(found.clone())), NOW),
            Step::LookUp(positions) => {
                let is_end = |at: &Position| at.log_id == LOG_ID && ENDS.contains(&(at.lsn, at.chain));
                let look = |at: &Position| if is_end(at) { Found::Same } else { Found::Other };
                exporter.apply(Told::LookedUp(Ok(positions.iter().map(look).collect())), NOW);
            }
            Step::Halt(_) => return,
            _ => {
                let in_turn = (remembered..=remembered.saturating_add(1)).contains(&seq.unwrap_or(0));
                let ours = match &adopted {
                    // Recovery has held their chains against the log.
                    Some(logs) => logs.iter().filter(|log| log.log_uuid == LOG_ID).all(is_reached),
                    None => found.as_ref().is_none_or(is_ours) && (keeps_nothing || in_turn),
                };
                assert!(ours, "an edge goes on from what is not its own: {found:?}");
                return;
            }
        }
    }
    panic!("the contact does not end");
}

fn is_reached(log: &LogPosition) -> bool {
    let (end, _) = ENDS[1];
    log.lsn <= end && log.clicks_total <= end && (log.lsn < end || log.clicks_total == end)
}

fn is_ours(checkpoint: &Checkpoint) -> bool {
    let is_of_our_log =
        |log: &LogPosition| log.log_uuid == LOG_ID && log.lsn >= BASE_LSN && ENDS.contains(&(log.lsn, log.chain));
    checkpoint.edge_id == EDGE_ID
        && checkpoint.data_dir_uuid == DATA_DIR
        && NONCES.iter().any(|nonce| *nonce == *checkpoint.nonce)
        && !checkpoint.logs.is_empty()
        && checkpoint.logs.iter().all(is_of_our_log)
}
