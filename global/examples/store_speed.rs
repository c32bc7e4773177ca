//! What the store costs: CPU a row to commit, time to answer, time to open. Run it with `--release`; a first argument
//! gives the rows of a transaction, a second the number of transactions.

use std::sync::Arc;
use std::time::Instant;

use tollgate_global::Store;
use tollgate_wire::users::Users;
use tollgate_wire::{Checkpoint, EndRecord, LogRange, Partial, Transaction, crc_of};

const START_MS: i64 = 1_712_908_800_000;
const ADS: u64 = 1_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let rows = arguments.next().transpose()?.unwrap_or(1_000);
    let transactions = arguments.next().transpose()?.unwrap_or(200);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store");
    let store = Arc::new(Store::open(&path)?);

    let (mut worst_ms, mut last) = (0.0f64, None);
    let (cpu, wall) = (thread_cpu_us(), Instant::now());
    let mut building_us = 0.0;
    for seq in 1..=transactions {
        let building = thread_cpu_us();
        let sent = transaction(seq, rows);
        building_us += thread_cpu_us() - building;
        let began = Instant::now();
        store.commit(&sent)?;
        worst_ms = worst_ms.max(began.elapsed().as_secs_f64() * 1e3);
        last = Some(sent);
    }
    let (all, count) = (thread_cpu_us() - cpu - building_us, (rows * transactions) as f64);
    println!(
        "commit: {:.3} us of CPU a row, folds included; wall {:?}, worst {worst_ms:.1} ms",
        all / count,
        wall.elapsed()
    );
    if let Some(last) = last {
        let began = thread_cpu_us();
        let crc = crc_of(&last.partials);
        println!("crc {crc:08x}: {:.3} us a row", (thread_cpu_us() - began) / rows as f64);
    }
    println!("file {} MB", std::fs::metadata(&path)?.len() >> 20);

    let end_ms = START_MS + (transactions as i64 + 10) * 1_000;
    for (name, hour) in [("ad, last hour", true), ("ad, everything", false)] {
        let from_ms = if hour { end_ms - 3_600_000 } else { 0 };
        report(
            name,
            (0..2_000)
                .map(|n| time(|| store.snapshot()?.ad(&ad(n % ADS), from_ms, end_ms)))
                .collect::<Result<_, _>>()?,
        );
    }
    report(
        "totals, last hour",
        (0..200).map(|_| time(|| store.snapshot()?.totals(end_ms - 3_600_000, end_ms))).collect::<Result<_, _>>()?,
    );

    drop(store);
    let began = Instant::now();
    Store::open(&path)?;
    println!("open: {:?}", began.elapsed());
    Ok(())
}

fn time<T, E>(answer: impl FnOnce() -> Result<T, E>) -> Result<f64, E> {
    let began = Instant::now();
    answer()?;
    Ok(began.elapsed().as_secs_f64() * 1e6)
}

fn report(name: &str, mut micros: Vec<f64>) {
    micros.sort_by(f64::total_cmp);
    println!("{name}: p50 {:.0} us, p99 {:.0} us", micros[micros.len() / 2], micros[micros.len() * 99 / 100]);
}

fn ad(number: u64) -> String {
    format!("ad_{number}")
}

fn transaction(seq: u64, rows: u64) -> Transaction {
    let now_ms = START_MS + seq as i64 * 1_000;
    let partials: Vec<Partial> = (0..rows)
        .map(|row| Partial {
            format_version: 1,
            edge_id: "edge-1".into(),
            log_uuid: vec![7; 16],
            txn_seq: seq,
            index: row as u32,
            pane_start_ms: now_ms.div_euclid(10_000) * 10_000,
            ad_id: ad(row % ADS),
            campaign_id: format!("campaign_{}", row % 50),
            advertiser_id: format!("advertiser_{}", row % 20),
            region: ["DE", "US", "FR"][row as usize / ADS as usize % 3].into(),
            device: (row / ADS / 3) as u32,
            agent: 3,
            class: u32::from(row % 20 == 0),
            rules: 1,
            clicks: 3,
            users: Users::bytes_of((0..3).map(|user| seq * rows + row * 7 + user)),
            watermark_ms: now_ms - 5_000,
        })
        .collect();
    let end = EndRecord {
        format_version: 1,
        edge_id: "edge-1".into(),
        txn_seq: seq,
        partials: rows as u32,
        crc: crc_of(&partials),
        ranges: vec![LogRange { log_uuid: vec![7; 16], clicks: 3 * rows, ..LogRange::default() }],
        watermark_ms: now_ms - 5_000,
        ..EndRecord::default()
    };
    let checkpoint = Checkpoint { format_version: 1, edge_id: "edge-1".into(), txn_seq: seq, ..Checkpoint::default() };
    Transaction { partials, end, checkpoint }
}

/// CPU that this thread has used.
fn thread_cpu_us() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e3
}
