//! One core by hand: no disk, no peers. What it is told and what it asks for, turn by turn.

use std::collections::VecDeque;

use memmap2::MmapMut;

use super::*;
use crate::config::FRAME_BUFFERS;
use crate::core::home::Seat;
use crate::core::incarnation::{Incarnation, LogEnd};
use crate::cut::Cut;
use crate::dedup;
use crate::event::{Exported, Patience, ReceiveEnd, WriteEnd};
use crate::preagg;
use crate::wal::writer::buffer_bytes;

const SECOND_NS: u64 = 1_000_000_000;
const SLOTS: u32 = 200;

/// What the core asked for and has not got.
pub(super) struct Bench {
    pub core: Core,
    pub now: Now,
    pub writes: VecDeque<Box<FrameBuffer>>,
    pub cuts: Vec<Box<Cut>>,
    /// All that was sent, in order.
    pub sent: Vec<u8>,
    /// A segment is ready as soon as it is asked for.
    pub makes_segments: bool,
    actions: Actions,
}

fn bench() -> Bench {
    seated(Config::default(), Seat::ALONE)
}

/// One core of several.
pub(super) fn seated(config: Config, seat: Seat) -> Bench {
    let now = Now { wall_ms: 1_700_000_000_000, mono_ns: SECOND_NS };
    let memory = MmapMut::map_anon(8 << 20).unwrap();
    let table = dedup::Table::new(memory, [7; 16], &config.dedup, i64::MIN, now.wall_ms);
    let buffer = |id| {
        let memory = MmapMut::map_anon(buffer_bytes(config.log.frame_bytes)).unwrap();
        Box::new(FrameBuffer { memory, id: id as u32 })
    };
    let buffers = (0..FRAME_BUFFERS).map(buffer).collect();
    let (begun, buffer, _) =
        Incarnation::begin(&config, seat, [2; 16], table, LogEnd::new([3 + seat.own as u8; 16]), buffers, now);
    let (home, _) = begun.begun(&config, buffer, preagg::Table::new(100, 100, 5));
    let core = Core::new(config, home, Vec::new(), SLOTS, now);
    Bench {
        core,
        now,
        writes: VecDeque::new(),
        cuts: Vec::new(),
        sent: Vec::new(),
        makes_segments: true,
        actions: Vec::new(),
    }
}

impl Bench {
    /// A turn with these events, and what it asks for beside writes, sends, cuts and segments.
    fn turn(&mut self, events: &[fn(ConnectionId) -> Event<'static>], slot: u32) -> Vec<Action> {
        let events = events.iter().map(|event| event(ConnectionId { slot, generation: 1 })).collect();
        self.told(events)
    }

    pub fn told(&mut self, mut events: Vec<Event<'_>>) -> Vec<Action> {
        self.core.apply(&mut events, self.now, &mut self.actions);
        let (mut rest, mut answers) = (Vec::new(), Vec::new());
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::WriteLog { buffer, .. } => self.writes.push_back(buffer),
                Action::Export(cut) => self.cuts.push(cut),
                Action::PrepareSegment { segment } if self.makes_segments => {
                    answers.push(Event::SegmentReady { segment })
                }
                Action::Send { connection, buffer } => {
                    self.sent.extend_from_slice(&buffer.bytes);
                    let sent = buffer.bytes.len() as u32;
                    answers.push(Event::Sent { connection, buffer, sent });
                }
                other => rest.push(other),
            }
        }
        if !answers.is_empty() {
            rest.extend(self.told(answers));
        }
        rest
    }

    pub(super) fn after(&mut self, ns: u64) {
        self.now.mono_ns += ns;
        self.now.wall_ms += (ns / 1_000_000) as i64;
    }

    /// The disk has written everything it was given.
    pub fn written(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(buffer) = self.writes.pop_front() {
            self.after(1_000_000);
            actions.extend(self.told(vec![Event::LogWritten { buffer, end: WriteEnd::Synced }, Event::Idle]));
        }
        actions
    }

    /// Sends this on a connection that is open.
    fn send(&mut self, slot: u32, bytes: &[u8]) -> Vec<Action> {
        let connection = ConnectionId { slot, generation: 1 };
        self.told(vec![Event::Received { connection, bytes }, Event::Idle])
    }

    pub(super) fn click(&mut self, slot: u32) -> Vec<Action> {
        let body = format!("{{\"ad_id\":\"a\",\"timestamp\":{},\"request_id\":\"r{slot}\"}}", self.now.wall_ms);
        self.turn(&[accepted], slot);
        self.send(slot, request("application/json", body.len(), &body).as_bytes())
    }

    /// Wakes when the core asks to be woken, as long as it asks for nothing; how often, and what came then.
    pub(super) fn sleep_for(&mut self, seconds: u64) -> (usize, Vec<Action>) {
        let end_ns = self.now.mono_ns + seconds * SECOND_NS;
        for wakes in 0.. {
            let deadline_ns = self.core.next_deadline_ns().min(self.now.mono_ns + SECOND_NS);
            let sleep_ns = deadline_ns.saturating_sub(self.now.mono_ns).max(1_000);
            if self.now.mono_ns + sleep_ns > end_ns || wakes == 10_000 {
                return (wakes, Vec::new());
            }
            self.after(sleep_ns);
            let actions = self.told(vec![Event::Idle]);
            if !actions.is_empty() {
                return (wakes, actions);
            }
        }
        unreachable!("the loop returns")
    }

    /// So many times: a second, or less where something comes, and the disk keeps up.
    fn rest_for(&mut self, times: usize) {
        for _ in 0..times {
            self.written();
            self.sleep_for(1);
        }
    }
}

fn accepted(connection: ConnectionId) -> Event<'static> {
    Event::Accepted { connection }
}

fn stop(_: ConnectionId) -> Event<'static> {
    Event::Stop { patience: Patience::Deadline }
}

fn fin(connection: ConnectionId) -> Event<'static> {
    Event::ReceiveEnded { connection, end: ReceiveEnd::Finished }
}

fn closed(connection: ConnectionId) -> Event<'static> {
    Event::Closed { connection }
}

pub(super) fn request(kind: &str, length: usize, body: &str) -> String {
    format!("POST /v1/clicks HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}")
}

pub(super) fn halted(actions: &[Action]) -> Option<Exit> {
    actions.iter().find_map(|action| if let Action::Halt { exit, .. } = action { Some(*exit) } else { None })
}

fn closes(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Close { .. }))
}

#[test]
fn a_write_that_does_not_end_is_stuck_after_thirty_seconds() {
    let mut bench = bench();
    bench.click(0);
    assert_eq!(bench.writes.len(), 1);
    let (_, actions) = bench.sleep_for(29);
    assert_eq!(halted(&actions), None);
    let (_, actions) = bench.sleep_for(3);
    assert_eq!(halted(&actions), Some(Exit::Stuck), "the write hangs for 32 s");
    assert!(bench.sent.is_empty(), "nothing of it was acknowledged");
}

#[test]
fn a_process_that_was_stopped_for_minutes_is_not_stuck() {
    let mut bench = bench();
    bench.click(0);
    bench.after(300 * SECOND_NS);
    let actions = bench.told(vec![Event::Idle]);
    assert_eq!(halted(&actions), None);
    bench.written();
    assert!(String::from_utf8_lossy(&bench.sent).contains("\"accepted\":1"));
    for _ in 0..100 {
        bench.sleep_for(1);
        assert_eq!(halted(&bench.written()), None, "a disk that writes is not stuck");
    }
}

#[test]
fn a_last_cut_that_nobody_exports_ends_the_process_and_does_not_spin() {
    let mut bench = bench();
    bench.click(0);
    bench.written();
    bench.turn(&[fin], 0);
    bench.turn(&[closed], 0);
    bench.turn(&[stop], 0);
    bench.written();
    assert!(bench.cuts.iter().any(|cut| cut.last), "the last cut is on its way");
    let (wakes, actions) = bench.sleep_for(18);
    assert!(wakes < 40 && actions.is_empty(), "{wakes} turns in 18 s of waiting: {actions:?}");
    let (_, actions) = bench.sleep_for(3);
    assert_eq!(halted(&actions), Some(Exit::Store), "within 19 s of the stop");
}

/// As `--until-exported` does: nobody is waited for but the sink, and for that as long as it takes.
#[test]
fn a_patient_stop_waits_for_the_last_cut_and_does_not_spin() {
    let mut bench = bench();
    bench.told(vec![Event::Stop { patience: Patience::UntilExported }]);
    bench.written();
    let (wakes, actions) = bench.sleep_for(3_600);
    assert!(wakes <= 3_600 && actions.is_empty(), "{wakes} turns in an hour of waiting: {actions:?}");
    let cut = bench.cuts.pop().expect("the last cut is on its way");
    assert!(cut.last && bench.cuts.is_empty(), "{cut:?}");
    let exported = Exported { lsn: cut.to.lsn, table: cut.table, cuts: 1 };
    let actions = bench.told(vec![Event::Exported(Box::new(exported))]);
    assert!(matches!(actions[..], [Action::Stopped]), "{actions:?}");
}

#[test]
fn a_stop_whose_log_hangs_ends_too() {
    let mut bench = bench();
    bench.click(0);
    bench.turn(&[stop], 0);
    let (_, actions) = bench.sleep_for(16);
    assert!(closes(&actions), "after 15 s those left are closed");
    bench.turn(&[closed], 0);
    let (wakes, actions) = bench.sleep_for(5);
    assert_eq!(halted(&actions), Some(Exit::Stuck));
    assert!(wakes < 20, "{wakes} turns in 4 s of waiting");
}

#[test]
fn a_connection_that_is_accepted_after_the_stop_drains_at_once() {
    let mut bench = bench();
    bench.turn(&[accepted], 0);
    bench.turn(&[stop], 0);
    let actions = bench.turn(&[accepted], 1);
    let told = |actions: &[Action]| {
        actions.iter().any(|action| matches!(action, Action::ShutdownSend { connection } if connection.slot == 1))
    };
    assert!(told(&actions), "it is told that nothing is read from it: {actions:?}");
    assert!(closes(&bench.turn(&[fin], 1)));
    for slot in 0..2 {
        bench.turn(&[fin], slot);
        bench.turn(&[closed], slot);
    }
    bench.written();
    assert!(bench.cuts.iter().any(|cut| cut.last));
    assert!(closes(&bench.turn(&[accepted], 2)), "in the last cut there is nothing to say any more");
    let click = request("application/json", 2, "{}");
    assert!(bench.send(2, click.as_bytes()).is_empty() && bench.writes.is_empty());
}

#[test]
fn stalled_bodies_are_shed_beyond_their_bound() {
    let mut bench = bench();
    let line =
        format!("{{\"ad_id\":\"a\",\"timestamp\":{},\"request_id\":\"{}\"}}\n", bench.now.wall_ms, "r".repeat(60));
    let lines = 4_000;
    let whole = lines * line.len();
    let head = request("application/x-ndjson", whole, "");
    let half = line.repeat(lines / 2);
    for slot in 0..SLOTS {
        bench.turn(&[accepted], slot);
        bench.send(slot, head.as_bytes());
        for _ in 0..2 {
            bench.send(slot, &half.as_bytes()[..half.len() / 2]);
        }
    }
    let parked = bench.core.staging.parked_bytes();
    assert!(parked as u64 <= bench.core.config.http.parked_bytes_max, "{parked} bytes of records are parked");
    let mut shed = 0;
    for slot in 0..SLOTS {
        bench.send(slot, half.as_bytes());
        bench.written();
        let sent = String::from_utf8(std::mem::take(&mut bench.sent)).unwrap();
        let is_shed = sent.starts_with("HTTP/1.1 503");
        assert!(is_shed || sent.starts_with("HTTP/1.1 202"), "{sent}");
        shed += usize::from(is_shed);
    }
    assert!(0 < shed && shed < SLOTS as usize, "{shed} of {SLOTS} were shed");
    let ledger = &bench.core.ledger;
    assert!(balances(ledger) && ledger.shed[Shed::Memory as usize] == (shed * lines) as u64, "{ledger:?}");
}

/// They began while nothing waited for the log, so that none was told off then.
#[test]
fn requests_that_become_whole_behind_a_slow_disk_are_shed_beyond_their_bound() {
    let mut bench = bench();
    let body = |slot: u32| {
        let line = |number| {
            let stamp = bench.now.wall_ms;
            format!("{{\"ad_id\":\"a\",\"timestamp\":{stamp},\"request_id\":\"{slot}-{number}-{}\"}}\n", "r".repeat(50))
        };
        (0..4_000).map(line).collect::<String>()
    };
    let bodies: Vec<_> = (0..60).map(body).collect();
    for (slot, body) in (0..).zip(&bodies) {
        bench.turn(&[accepted], slot);
        bench.send(slot, request("application/x-ndjson", body.len(), "").as_bytes());
    }
    for (slot, body) in (0..).zip(&bodies) {
        bench.send(slot, body.as_bytes());
    }
    let (staged, http) = (bench.core.staging.bytes() as u64, &bench.core.config.http);
    assert!(staged <= http.staging_bytes_max + http.records_bytes_max(), "{staged} bytes of records wait");
    let shed = bench.core.ledger.shed[Shed::LogBehind as usize];
    assert!(shed > 0 && balances(&bench.core.ledger));
    for _ in 0..100 {
        bench.written();
    }
    let sent = String::from_utf8(std::mem::take(&mut bench.sent)).unwrap();
    assert_eq!(sent.matches("HTTP/1.1 202").count() + sent.matches("HTTP/1.1 503").count(), bodies.len());
    assert_eq!(bench.core.ledger.accepted + shed, 60 * 4_000, "what was taken comes to its end");
}

#[test]
fn while_the_clock_leaps_clicks_are_shed_and_one_that_stays_ahead_is_believed() {
    let mut bench = bench();
    let status = |bench: &mut Bench, slot| {
        bench.click(slot);
        bench.written();
        let sent = std::mem::take(&mut bench.sent);
        String::from_utf8_lossy(&sent[9..12]).into_owned()
    };
    assert_eq!(status(&mut bench, 0), "202");
    bench.now.wall_ms += 86_400_000;
    assert_eq!(status(&mut bench, 1), "503");
    assert!(bench.core.take_snapshot(bench.now).clock_leapt);
    let window_ns = bench.core.config.dedup.window_ms as u64 * 1_000_000;
    let end_ns = bench.now.mono_ns + window_ns;
    while bench.now.mono_ns < end_ns {
        bench.sleep_for(10);
        bench.written();
        for cut in std::mem::take(&mut bench.cuts) {
            let exported = Exported { lsn: cut.to.lsn, table: cut.table, cuts: 1 };
            bench.told(vec![Event::Exported(Box::new(exported))]);
        }
    }
    assert_eq!(status(&mut bench, 2), "202");
    assert!(!bench.core.take_snapshot(bench.now).clock_leapt);
}

/// What a cut says to be complete leaves a late click the delay to come in.
#[test]
fn the_watermark_of_a_cut_is_behind_the_clock_by_the_delay() {
    let mut bench = bench();
    let (began_ms, delay_ms) = (bench.now.wall_ms, bench.core.config.export.watermark_delay_ms);
    bench.click(0);
    bench.rest_for(3);
    let said = bench.cuts[0].watermark_ms + delay_ms;
    assert!((began_ms..=bench.now.wall_ms).contains(&said), "{said} from {began_ms} to {}", bench.now.wall_ms);
    assert!(delay_ms > bench.now.wall_ms - began_ms, "or it proves nothing");
}

/// Whether it is in the open table, waits to be handed over, is in the exporter's queue or in its hands: until it is exported, the
/// core says how old the oldest is. A blocked exporter says nothing of what it has not taken.
#[test]
fn the_age_of_the_oldest_click_is_shown_until_it_is_exported() {
    let mut bench = bench();
    let oldest_ms = |bench: &Bench| bench.core.take_snapshot(bench.now).export.oldest_ms;
    assert_eq!(oldest_ms(&bench), None);
    let mut taken_ms = Vec::new();
    // Without a spare table the third is not cut before the first is back.
    for number in 0..3 {
        taken_ms.push(bench.now.wall_ms);
        bench.click(2 * number);
        bench.after(300_000_000);
        bench.click(2 * number + 1);
        assert_eq!(oldest_ms(&bench), Some(taken_ms[0]), "also while later ones are in the open table");
        bench.rest_for(3);
    }
    assert_eq!(bench.cuts.len(), 2);
    for taken_ms in taken_ms {
        assert_eq!(oldest_ms(&bench), Some(taken_ms), "the exporter has it");
        let cut = bench.cuts.remove(0);
        assert_eq!(cut.oldest_ms, Some(taken_ms));
        bench.told(vec![Event::Exported(Box::new(Exported { lsn: cut.to.lsn, table: cut.table, cuts: 1 }))]);
        bench.rest_for(3);
    }
    assert_eq!(oldest_ms(&bench), None);
}

/// Whether every click received is accounted for.
pub(super) fn balances(ledger: &Ledger) -> bool {
    let refused = ledger.rejected.iter().sum::<u64>() + ledger.shed.iter().sum::<u64>();
    ledger.received == ledger.accepted + ledger.duplicate + refused + ledger.in_flight
}
