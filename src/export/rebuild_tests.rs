//! A range rebuilt from frames counts what its records are, and names a loss that was accepted.

use crate::click::{Agent, Class, Click, ClickKey, Device, EventTime, Extras};
use crate::cut::Totals;
use crate::export::Room;
use crate::export::rebuild::Rebuilder;
use crate::wal::frame::FrameHeader;
use crate::wal::record::{self, Record};
use crate::wal::replay::ReplayedFrame;
use std::ops::ControlFlow;

fn click_bytes(ad_id: &[u8], user_id: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let click = Click {
        key: ClickKey { bytes: [1; 16], hashed: false },
        event_time: EventTime(25_000),
        class: Class::Valid,
        device: Device::Mobile,
        agent: Agent::Chrome,
        region: b"DE",
        ad_id,
        campaign_id: b"",
        advertiser_id: b"",
        user_id,
        extras: Extras::default(),
    };
    record::encode_click(&click, 26_000, &mut bytes);
    bytes
}

fn frame(first_lsn: u64, clicks_total: u64, records: &[Vec<u8>]) -> ReplayedFrame<'_> {
    let header = FrameHeader {
        frame_bytes: 4096,
        payload_bytes: 0,
        log_id: [7; 16],
        segment: 1,
        incarnation: 1,
        first_lsn,
        records: records.len() as u32,
        flags: 0,
        durable_lsn: 0,
        horizon_ms: first_lsn as i64,
        watermark_ms: 10 * first_lsn as i64,
        built_ms: 0,
        newest_ms: 0,
        totals: Totals { clicks: clicks_total, dead_letters: 0 },
        previous_chain: 0,
        payload_crc: 0,
    };
    let records = records.iter().map(|bytes| record::decode(bytes).unwrap().0).collect::<Vec<Record<'_>>>();
    ReplayedFrame { header, chain: first_lsn * 100, records }
}

fn room(rows: usize) -> Room {
    Room { rows, bytes: usize::MAX, clicks: u64::MAX }
}

#[test]
fn a_range_stops_where_its_clicks_are_too_many_and_takes_one_frame_at_least() {
    let click = click_bytes(b"ad", b"");
    let frames = [vec![click.clone(); 3], vec![click.clone(); 2], vec![click; 5]];
    let mut rebuilder = Rebuilder::new(1);
    rebuilder.begin(0, 0, Room { rows: 100, bytes: usize::MAX, clicks: 5 });
    assert_eq!(rebuilder.frame(&frame(1, 3, &frames[0])), ControlFlow::Continue(()));
    assert_eq!(rebuilder.frame(&frame(4, 5, &frames[1])), ControlFlow::Continue(()));
    assert_eq!(rebuilder.frame(&frame(6, 10, &frames[2])), ControlFlow::Break(()));
    assert_eq!(rebuilder.finish().unwrap().to.lsn, 5);
    rebuilder.begin(5, 5, Room { rows: 100, bytes: usize::MAX, clicks: 4 });
    assert_eq!(rebuilder.frame(&frame(6, 10, &frames[2])), ControlFlow::Continue(()));
    assert_eq!(rebuilder.finish().unwrap().to.lsn, 10);
}

#[test]
fn a_range_counts_its_frames_alone_and_stops_at_a_frames_end() {
    let (a, b) = (click_bytes(b"ad_a", b"u"), click_bytes(b"ad_b", b""));
    let (before, first, second, third) = ([a.clone()], [a.clone(), b.clone()], [a.clone()], [b, a]);
    let mut rebuilder = Rebuilder::new(1);
    for _ in 0..2 {
        rebuilder.begin(1, 1, room(4));
        assert_eq!(rebuilder.frame(&frame(1, 1, &before)), ControlFlow::Continue(()));
        assert_eq!(rebuilder.frame(&frame(2, 3, &first)), ControlFlow::Continue(()));
        assert_eq!(rebuilder.frame(&frame(4, 3, &[])), ControlFlow::Continue(()));
        assert_eq!(rebuilder.frame(&frame(4, 4, &second)), ControlFlow::Continue(()));
        assert_eq!(rebuilder.frame(&frame(5, 6, &third)), ControlFlow::Continue(()));
        let built = rebuilder.finish().unwrap();
        assert_eq!((built.to.lsn, built.to.chain, built.totals.clicks, built.lost_clicks), (6, 500, 6, 0));
        assert_eq!((built.horizon_ms, built.watermark_ms), (5, 50));
        assert_eq!((built.table.clicks(), built.table.rows.len(), built.table.users.len()), (5, 2, 3));
        assert!(rebuilder.finish().is_none());
    }
    rebuilder.begin(1, 1, room(3));
    assert_eq!(rebuilder.frame(&frame(2, 3, &first)), ControlFlow::Continue(()));
    assert_eq!(rebuilder.frame(&frame(4, 4, &second)), ControlFlow::Continue(()));
    assert_eq!(rebuilder.frame(&frame(5, 6, &third)), ControlFlow::Break(()));
    assert_eq!(rebuilder.finish().unwrap().to.lsn, 4);
}

#[test]
fn clicks_of_an_accepted_loss_are_named_not_counted() {
    let (one, two) = ([click_bytes(b"ad", b"")], [click_bytes(b"ad", b"")]);
    let mut rebuilder = Rebuilder::new(1);
    rebuilder.begin(0, 0, room(100));
    let _ = rebuilder.frame(&frame(1, 1, &one));
    // LSN 2 to 9 are gone, with 6 clicks.
    let _ = rebuilder.frame(&frame(10, 7, &[]));
    let _ = rebuilder.frame(&frame(10, 8, &two));
    let built = rebuilder.finish().unwrap();
    assert_eq!((built.lost_clicks, built.table.clicks(), built.totals.clicks), (6, 2, 8));
}
