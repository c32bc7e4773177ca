//! One core whose next segment is not there: the disk has no room for it, or hangs.

use super::tests::{Bench, halted, seated};
use super::*;
use crate::core::home::Seat;
use crate::core::idle::IdleLog;
use crate::wal::writer::SegmentSummary;

/// Its first segment holds two frames, and the next one is not made before somebody says so. Clicks are on their way.
fn without_a_next_segment() -> Bench {
    let mut config = Config::default();
    config.log.frame_bytes = 8 << 10;
    config.log.segment_bytes = 24 << 10;
    let mut bench = seated(config, Seat::ALONE);
    bench.makes_segments = false;
    for slot in 0..8 {
        bench.click(slot);
        bench.written();
    }
    assert!(bench.core.home.writer.waits_for_segment(), "the first segment is full");
    bench
}

#[test]
fn a_segment_for_which_there_is_no_room_is_waited_for_as_long_as_it_takes() {
    let mut bench = without_a_next_segment();
    bench.told(vec![Event::Room { open: false, segments_over: 1, frees_seen: 0 }]);
    let (_, actions) = bench.sleep_for(3_600);
    assert_eq!(halted(&actions), None, "{actions:?}");
    let answers = |bench: &Bench| String::from_utf8_lossy(&bench.sent).matches("\"accepted\":1").count();
    let answered = answers(&bench);
    assert!(answered < 8, "what is not on the disk is not acknowledged");
    bench.told(vec![Event::SegmentReady { segment: 2 }, Event::Room { open: true, segments_over: 0, frees_seen: 0 }]);
    bench.written();
    assert_eq!(answers(&bench), 8, "after {answered}");
    let (_, actions) = bench.sleep_for(60);
    assert_eq!(halted(&actions), None, "{actions:?}");
}

#[test]
fn a_segment_that_is_never_made_though_there_is_room_is_stuck_after_thirty_seconds() {
    let mut bench = without_a_next_segment();
    let (_, actions) = bench.sleep_for(29);
    assert_eq!(halted(&actions), None, "{actions:?}");
    let (_, actions) = bench.sleep_for(3);
    assert_eq!(halted(&actions), Some(Exit::Stuck));
}

/// A write that hangs is not excused by a disk that is full.
#[test]
fn a_write_that_does_not_end_while_the_room_is_closed_is_stuck_all_the_same() {
    let mut bench = seated(Config::default(), Seat::ALONE);
    bench.click(0);
    bench.told(vec![Event::Room { open: false, segments_over: 0, frees_seen: 0 }]);
    let (_, actions) = bench.sleep_for(32);
    assert_eq!(halted(&actions), Some(Exit::Stuck));
}

/// Of a log that nobody writes to, too: what one try lacks costs no more of what is kept than one segment.
#[test]
fn as_many_segments_of_an_idle_log_go_early_as_are_asked_for() {
    let mut config = Config::default();
    config.log.retention_ms = 3_600_000;
    let mut bench = seated(config, Seat::ALONE);
    let built_ms = bench.now.wall_ms;
    let segment = |segment: u64| {
        let (base_lsn, last_lsn) = (segment * 10, segment * 10 + 10);
        SegmentSummary { segment, base_lsn, last_lsn, newest_ms: 0, built_ms }
    };
    let mut idle = IdleLog::new((1..=4).map(segment).collect(), 10, 40);
    idle.exported(50);
    bench.core.idle_logs.push(idle);
    bench.click(0);
    bench.written();
    let mut told = |segments_over, frees_seen| {
        let actions = bench.told(vec![Event::Room { open: true, segments_over, frees_seen }]);
        let freed = |action: &Action| matches!(action, Action::FreeIdleSegment { log: 0, .. });
        actions.iter().filter(|action| freed(action)).count()
    };
    assert_eq!([told(0, 0), told(1, 0), told(0, 1), told(2, 1)], [0, 1, 0, 2]);
}
