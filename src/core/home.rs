//! Pure. A core as the home of clicks: it alone remembers their keys, ends the log and counts them. One click is one step:
//! room, horizon, look-up, log, merge, key; all of it or nothing.

use crate::chunk::{CoreIndex, Tally};
use crate::click::{EventTime, Reason, Refusal};
use crate::core::ahead::{Ahead, Lookahead};
use crate::core::cuts::Cuts;
use crate::cut::{Cut, CutTable};
use crate::dedup::{Hashed, Table as Dedup, Verdict};
use crate::event::{Actions, Now};
use crate::metrics::{Ledger, Shed};
use crate::preagg::Table as Partials;
use crate::wal::frame::{FLAG_CUT, FLAG_IDLE};
use crate::wal::record::{self, Cause, ClickRecord, KIND_CLICK, KIND_DEAD_LETTER};
use crate::wal::writer::{FrameMeta, FrameRoom, Writer};

/// A dead letter that wraps a whole click record is at most this much longer: its head, and one length byte for each 255.
const DEAD_LETTER_EXTRA_BYTES: usize = 128;

/// How many records before its own a click's room is looked for.
const ROOM_AHEAD: usize = 9;

const HOUR_NS: u64 = 3_600_000_000_000;

/// What a click or a refusal needs to be judged, beside the home itself.
pub struct Bench<'a> {
    /// Of the home's core, for what only the home counts.
    pub ledger: &'a mut Ledger,
    pub tally: &'a mut Tally,
    /// Told of a click that the home refuses: its place in its request.
    pub refused: &'a mut dyn FnMut(u32, Refusal),
    /// The place of each record in its request; `None`: they are all of the request's, in order.
    pub places: Option<&'a [u32]>,
    /// Records that are through.
    pub passed: u32,
}

impl Bench<'_> {
    fn place(&self) -> u32 {
        self.places.map_or(self.passed, |places| places[self.passed as usize])
    }
}

/// Which core this is, and of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    pub own: CoreIndex,
    pub cores: CoreIndex,
}

impl Seat {
    /// Of the one core of a process with no other.
    pub const ALONE: Seat = Seat { own: 0, cores: 1 };
}

pub struct Home {
    pub dedup: Dedup,
    pub writer: Writer,
    pub partials: Partials,
    pub cuts: Cuts,
    watermark_delay_ms: i64,
    watermark_ms: i64,
    dead_letters: HourlyBudget,
    scratch: Vec<u8>,
    seat: Seat,
    /// The log's end has been sealed by an empty frame since the last record.
    idle_sealed: bool,
    idle_frames: u64,
}

/// Raw bytes of dead letters that may still be kept this hour.
struct HourlyBudget {
    bytes_max: u64,
    bytes_left: u64,
    renewed_ns: u64,
}

impl Home {
    pub fn new(
        dedup: Dedup,
        writer: Writer,
        partials: Partials,
        cuts: Cuts,
        watermark: Watermark,
        dead_letter_bytes_max: u64,
        seat: Seat,
    ) -> Home {
        Home {
            dedup,
            writer,
            partials,
            cuts,
            watermark_delay_ms: watermark.delay_ms,
            watermark_ms: watermark.start_ms,
            dead_letters: HourlyBudget {
                bytes_max: dead_letter_bytes_max,
                bytes_left: dead_letter_bytes_max,
                renewed_ns: 0,
            },
            scratch: Vec::with_capacity(8 << 10),
            seat,
            idle_sealed: true,
            idle_frames: 0,
        }
    }

    /// Which core this is.
    pub fn seat(&self) -> Seat {
        self.seat
    }

    /// Hashes the keys of records that will be judged. [`Home::fetch`] follows, once for all records of a turn.
    pub fn look_ahead(&self, records: &[u8], ahead: &mut Lookahead) {
        let mut at = 0;
        while at < records.len() {
            let length = record::record_length(&records[at..]);
            let bytes = &records[at..at + length];
            let next = match bytes[2] {
                KIND_CLICK => {
                    let click = ClickRecord::encoded(bytes);
                    let hashed = self.dedup.hash(&click.key());
                    let to = hashed.home(self.seat.cores);
                    let sighted = if to == self.seat.own {
                        self.partials.sight(EventTime(click.event_ms()).pane(), click.dims_hash())
                    } else {
                        0
                    };
                    Ahead { hashed: Some(hashed), length: length as u32, sighted, to }
                }
                // A refusal stays in the log of the core that refused it.
                KIND_DEAD_LETTER => Ahead { hashed: None, length: length as u32, sighted: 0, to: self.seat.own },
                kind => unreachable!("this core staged a record of type {kind}"),
            };
            ahead.queue.push_back(next);
            at += length;
        }
    }

    /// Begins to fetch the lines in which the hashed keys will be looked up. A loop of nothing else: a prefetch retires when
    /// its address is translated, and so few instructions lie between two that as many translations are under way as the
    /// processor can do. From inside the parser's loop each cost 45 ns, because the next click's were out of its sight.
    pub fn fetch(&self, ahead: &mut Lookahead) {
        for next in ahead.queue.range(ahead.fetched..) {
            if let Some(hashed) = &next.hashed
                && next.to == self.seat.own
            {
                self.dedup.prefetch(hashed);
            }
        }
        ahead.fetched = ahead.queue.len();
    }

    /// Judges the records one by one, up to one that has another home or finds no room; returns the bytes that are through. They
    /// were looked ahead at, in this order.
    pub fn judge(&mut self, records: &[u8], ahead: &mut Lookahead, bench: &mut Bench<'_>, now: Now) -> usize {
        let mut through = 0;
        while through < records.len() {
            // Read where it lies: a copy would wait for what has just been written to be read back in other widths.
            let Some(&Ahead { ref hashed, length, sighted, to }) = ahead.queue.front() else {
                unreachable!("records are looked ahead at before they are judged")
            };
            if to != self.seat.own || !self.make_room(length as usize + DEAD_LETTER_EXTRA_BYTES, now) {
                break;
            }
            if let Some(Ahead { hashed: Some(hashed), to, .. }) = ahead.queue.get(ROOM_AHEAD)
                && *to == self.seat.own
            {
                self.dedup.prefetch_room(hashed);
            }
            let bytes = &records[through..through + length as usize];
            match hashed {
                Some(hashed) => self.click(ClickRecord::encoded(bytes), hashed, sighted, bench, now),
                None => self.refused(bytes, bench, now),
            }
            ahead.pass();
            bench.passed += 1;
            through += length as usize;
        }
        through
    }

    /// Room in the log for that many bytes, and in the table for one click.
    fn make_room(&mut self, bytes: usize, now: Now) -> bool {
        match self.writer.room(bytes) {
            FrameRoom::Now => {}
            FrameRoom::AfterSeal => {
                self.seal(now, 0);
            }
            FrameRoom::AfterWrite => return false,
        }
        if !self.partials.has_room(1) {
            // Never a reason to shed: the exporter rebuilds the range from the log.
            self.partials.discard();
            self.cuts.dropped = true;
        }
        true
    }

    #[inline]
    fn click(&mut self, click: ClickRecord<'_>, hashed: &Hashed, sighted: u32, bench: &mut Bench<'_>, now: Now) {
        match self.dedup.remember(hashed, click.check(), click.event_ms(), click.received_ms()) {
            Verdict::Fresh => {
                self.writer.append(click.bytes());
                if !self.cuts.dropped {
                    let pane = EventTime(click.event_ms()).pane();
                    let (dims_hash, key) = (click.dims_hash(), click.partial_key());
                    self.partials.merge_sighted(sighted, pane, dims_hash, key, click.user_token());
                }
                bench.tally.accepted += 1;
            }
            Verdict::Duplicate { same_payload } => {
                bench.tally.duplicates += 1;
                if !same_payload {
                    bench.tally.other_payload += 1;
                    self.keep_dead_letter(Cause::OtherPayload, click, bench.ledger, now);
                }
            }
            Verdict::TooOld => {
                let place = bench.place();
                (bench.refused)(place, Refusal { reason: Reason::TooOld, field: "timestamp" });
                bench.tally.rejected += 1;
                bench.tally.too_old += 1;
                self.keep_dead_letter(Cause::Refused(Reason::TooOld), click, bench.ledger, now);
            }
            Verdict::Full => {
                bench.tally.shed = Some(Shed::DedupFull);
                bench.tally.shed_clicks += 1;
            }
        }
    }

    /// A click that its core refused: its dead letter is durable before the reply, as far as the budget goes.
    fn refused(&mut self, bytes: &[u8], bench: &mut Bench<'_>, now: Now) {
        bench.tally.rejected += 1;
        if let Some(reason) = Reason::from_code(bytes[4]) {
            bench.ledger.rejected[reason as usize - 1] += 1;
        }
        self.append_dead_letter(bytes, bench.ledger, now);
    }

    fn keep_dead_letter(&mut self, cause: Cause, click: ClickRecord<'_>, ledger: &mut Ledger, now: Now) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        record::encode_dead_letter(cause, Some(click.key()), now.wall_ms, click.bytes(), &mut scratch);
        self.append_dead_letter(&scratch, ledger, now);
        self.scratch = scratch;
    }

    fn append_dead_letter(&mut self, bytes: &[u8], ledger: &mut Ledger, now: Now) {
        if self.dead_letters.take(bytes.len() as u64, now.mono_ns) {
            self.writer.append(bytes);
            ledger.dead_letters_kept += 1;
        } else {
            ledger.dead_letters_unkept += 1;
        }
    }

    /// Closes the open frame.
    pub fn seal(&mut self, now: Now, flags: u32) -> crate::cut::Position {
        let meta = FrameMeta {
            built_ms: now.wall_ms,
            horizon_ms: self.dedup.horizon_ms(),
            watermark_ms: self.watermark_ms,
            flags,
        };
        self.idle_sealed = false;
        self.writer.seal(meta)
    }

    /// Closes the log's end with an empty frame: once, to prove that all before it had been durable, and again whenever the
    /// horizon has risen, which is exported only as far as a frame holds it.
    pub fn seal_idle(&mut self, now: Now) {
        let news = !self.idle_sealed || self.dedup.horizon_ms() > self.writer.durable_horizon_ms();
        if news && !self.writer.unwritten() {
            self.seal(now, FLAG_IDLE);
            self.idle_sealed = true;
            self.idle_frames += 1;
        }
    }

    /// Empty frames so far.
    pub fn idle_frames(&self) -> u64 {
        self.idle_frames
    }

    /// The watermark follows the clock, unless the clock is not to be trusted; it never goes back.
    pub fn advance_watermark(&mut self, now: Now) {
        self.watermark_ms = self.watermark_ms.max(now.wall_ms - self.watermark_delay_ms);
    }

    pub fn watermark_ms(&self) -> i64 {
        self.watermark_ms
    }

    /// Whether the open table holds anything, or lacks something of its range.
    pub fn something_to_cut(&self) -> bool {
        self.writer.end_lsn() != self.cuts.last().lsn
    }

    /// Cuts at the log's end. Without a spare table the open one goes on, unless this is the last cut or the open table was
    /// dropped: then the range goes without.
    pub fn cut(&mut self, now: Now, last: bool) {
        let table = if self.cuts.dropped {
            self.partials.discard();
            None
        } else if self.partials.is_empty() {
            Some(CutTable::default())
        } else {
            match self.cuts.spare() {
                Some(spare) => Some(self.partials.swap(spare)),
                None if last => {
                    self.partials.discard();
                    None
                }
                None => return,
            }
        };
        let from = self.cuts.last();
        let idle = self.idle_sealed;
        let to = if self.something_to_cut() { self.seal(now, FLAG_CUT) } else { self.writer.position() };
        self.idle_sealed = idle && from.lsn == to.lsn;
        self.cuts.push(Cut {
            from,
            to,
            totals: self.writer.totals(),
            horizon_ms: self.dedup.horizon_ms(),
            watermark_ms: self.watermark_ms,
            oldest_ms: self.cuts.oldest_open_ms(),
            table,
            last,
        });
    }

    /// Once a turn, before anything is cut.
    pub fn note_clicks(&mut self, now: Now) {
        self.cuts.note_clicks(self.writer.totals().clicks, now.wall_ms);
    }

    pub fn hand_over(&mut self, actions: &mut Actions) {
        self.cuts.hand_over(self.writer.durable_lsn(), self.writer.durable_horizon_ms(), actions);
    }
}

/// Where the watermark starts, and how far behind the clock it stays.
#[derive(Clone, Copy, Debug)]
pub struct Watermark {
    pub start_ms: i64,
    pub delay_ms: i64,
}

impl HourlyBudget {
    fn take(&mut self, bytes: u64, mono_ns: u64) -> bool {
        if mono_ns.saturating_sub(self.renewed_ns) >= HOUR_NS {
            self.renewed_ns = mono_ns;
            self.bytes_left = self.bytes_max;
        }
        let enough = bytes <= self.bytes_left;
        if enough {
            self.bytes_left -= bytes;
        }
        enough
    }
}
