//! Pure. Transactions for tests, whole by construction.

use tollgate_wire::users::Users;
use tollgate_wire::{Checkpoint, EndRecord, FORMAT_VERSION, LogPosition, LogRange, Partial, Transaction, crc_of};

/// A partial of one ad, pane and class; `transaction` numbers it.
pub fn partial(ad_id: &str, pane_start_ms: i64, class: u32, clicks: u64, users: &[u64]) -> Partial {
    Partial {
        format_version: FORMAT_VERSION,
        log_uuid: vec![7; 16],
        pane_start_ms,
        ad_id: ad_id.into(),
        region: "DE".into(),
        class,
        rules: 1,
        clicks,
        users: Users::bytes_of(users.iter().copied()),
        ..Partial::default()
    }
}

/// The edge's transaction of these partials, closed by its end record.
pub fn transaction(edge_id: &str, txn_seq: u64, watermark_ms: i64, mut partials: Vec<Partial>) -> Transaction {
    for (index, partial) in partials.iter_mut().enumerate() {
        (partial.edge_id, partial.txn_seq, partial.index) = (edge_id.into(), txn_seq, index as u32);
        partial.watermark_ms = watermark_ms;
    }
    let clicks = partials.iter().map(|partial| partial.clicks).sum();
    let range = LogRange { log_uuid: vec![7; 16], from_lsn: 0, to_lsn: clicks, clicks, clicks_total: clicks };
    let end = EndRecord {
        format_version: FORMAT_VERSION,
        edge_id: edge_id.into(),
        txn_seq,
        partials: partials.len() as u32,
        crc: crc_of(&partials),
        ranges: vec![range],
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
