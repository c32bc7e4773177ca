//! Pure. Transactions for tests, whole by construction.

use tollgate_wire::{Checkpoint, EndRecord, FORMAT_VERSION, LogPosition, Partial, Transaction};

use crate::transaction::crc_of;
use crate::users::Sketch;

/// A partial of one ad, pane and class; `transaction` numbers it.
pub fn partial(ad_id: &str, pane_start_ms: i64, class: u32, clicks: u64, users: &[u64]) -> Partial {
    let mut sketch = Sketch::new();
    users.iter().for_each(|&token| sketch.insert(token));
    Partial {
        format_version: FORMAT_VERSION,
        log_uuid: vec![7; 16],
        pane_start_ms,
        ad_id: ad_id.into(),
        region: "DE".into(),
        class,
        rules: 1,
        clicks,
        users: sketch.to_bytes(),
        ..Partial::default()
    }
}

/// The edge's transaction of these partials, closed by its end record.
pub fn transaction(edge_id: &str, txn_seq: u64, watermark_ms: i64, mut partials: Vec<Partial>) -> Transaction {
    for (index, partial) in partials.iter_mut().enumerate() {
        (partial.edge_id, partial.txn_seq, partial.index) = (edge_id.into(), txn_seq, index as u32);
        partial.watermark_ms = watermark_ms;
    }
    let end = EndRecord {
        format_version: FORMAT_VERSION,
        edge_id: edge_id.into(),
        txn_seq,
        partials: partials.len() as u32,
        crc: crc_of(&partials),
        watermark_ms,
        ..EndRecord::default()
    };
    let checkpoint = Checkpoint {
        format_version: FORMAT_VERSION,
        edge_id: edge_id.into(),
        txn_seq,
        logs: vec![LogPosition { log_uuid: vec![7; 16], lsn: txn_seq * 10, chain: 1, clicks_total: txn_seq }],
        nonce: vec![9; 16],
        data_dir_uuid: vec![8; 16],
        written_ms: watermark_ms,
    };
    Transaction { partials, end, checkpoint }
}
