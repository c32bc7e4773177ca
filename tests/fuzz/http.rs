//! Any bytes to a connection, cut anywhere: it never panics, and the cuts change neither what is taken nor what is answered.
//!
//! An input is a line of cuts, as numbers, and after it the bytes of the connection.

#[path = "../http/harness.rs"]
#[allow(dead_code, reason = "the tests of HTTP use the rest")]
mod harness;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::LazyLock;

use harness::{End, Reply, WALL_MS, accepted, limits, replies};
use tollgate::config::HttpConfig;
use tollgate::net::assembly::AssemblyPool;
use tollgate::net::connection::{Connection, Step};
use tollgate::net::http::RequestInfo;
use tollgate::net::reply::{Letterhead, Ticket};
use xxhash_rust::xxh3::xxh3_64;

const CUTS_MAX: usize = 16;
/// Outputs that are known to be sound, each until another takes its place.
const SOUND: usize = 1 << 16;

const USUAL: usize = 0;
const SMALL: usize = 1;
/// As they are, and so small that each is met.
static LIMITS: LazyLock<[HttpConfig; 2]> = LazyLock::new(|| [limits(), harness::small_limits()]);
static LETTERHEAD: LazyLock<Letterhead> = LazyLock::new(|| Letterhead::new(WALL_MS));

thread_local! {
    /// What a run wrote down, whole and in pieces: their memory serves the next one.
    static RUNS: RefCell<[Run; 2]> = RefCell::default();
    /// Hashes of outputs whose replies were looked at, and of whether FIN followed, by their last bits.
    static LOOKED_AT: RefCell<Vec<u64>> = RefCell::new(vec![0; SOUND]);
}

pub fn check(input: &[u8]) {
    let (bytes, cuts) = parted(input);
    RUNS.with_borrow_mut(|[whole, pieces]| {
        for which in [SMALL, USUAL] {
            whole.run(bytes, &[], which, Answers::AtEnd);
            pieces.run(bytes, &cuts, which, Answers::AtEnd);
            whole.means_the_same(pieces, bytes, &cuts);
        }
        pieces.run(bytes, &cuts, USUAL, Answers::AtOnce);
        whole.says_the_same(pieces, &cuts);
        whole.is_sound();
    });
}

/// The next input has new slots.
#[allow(dead_code, reason = "for a run that must be the same from here on")]
pub fn forget() {
    RUNS.take();
}

/// Connections that an input is given to, with all of the check and with a third of it.
#[allow(dead_code, reason = "only whoever counts asks")]
pub const CONNECTIONS: [u64; 2] = [5, 2];

/// One of its three comparisons: whole and cut, with small limits or the usual ones, or with replies that go in between.
#[allow(dead_code, reason = "for volume")]
pub fn check_a_third(input: &[u8]) {
    let (bytes, cuts) = parted(input);
    let third = xxh3_64(input) % 3;
    RUNS.with_borrow_mut(|[whole, pieces]| {
        let (which, answers) = match third {
            0 => (SMALL, Answers::AtEnd),
            1 => (USUAL, Answers::AtEnd),
            _ => (USUAL, Answers::AtOnce),
        };
        whole.run(bytes, &[], which, Answers::AtEnd);
        pieces.run(bytes, &cuts, which, answers);
        match answers {
            Answers::AtEnd => whole.means_the_same(pieces, bytes, &cuts),
            Answers::AtOnce => whole.says_the_same(pieces, &cuts),
        }
        whole.is_sound();
    });
}

/// Each byte in turn is the last of a piece; and each is a piece.
#[allow(dead_code, reason = "for seeds and corpora, not for each input")]
pub fn cut_at_every_byte(input: &[u8]) {
    let (bytes, _) = parted(input);
    RUNS.with_borrow_mut(|[whole, pieces]| {
        for limits in 0..LIMITS.len() {
            whole.run(bytes, &[], limits, Answers::AtEnd);
            let mut cut_at = |cuts: &[usize]| {
                pieces.run(bytes, cuts, limits, Answers::AtEnd);
                whole.means_the_same(pieces, bytes, cuts);
                pieces.run(bytes, cuts, limits, Answers::AtOnce);
                whole.says_the_same(pieces, cuts);
            };
            (1..bytes.len()).for_each(|cut| cut_at(&[cut]));
            cut_at(&(1..bytes.len()).collect::<Vec<_>>());
        }
    });
}

/// The bytes of the connection, and where they are cut.
fn parted(input: &[u8]) -> (&[u8], Vec<usize>) {
    let line_end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let line = input[..line_end].split(|byte| !byte.is_ascii_digit());
    let mut cuts: Vec<usize> = line.take(CUTS_MAX).map(number).collect();
    cuts.sort_unstable();
    (input.get(line_end + 1..).unwrap_or(&[]), cuts)
}

fn number(digits: &[u8]) -> usize {
    digits.iter().take(5).fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}

/// What was answered but for `100 Continue`, which depends on what had arrived.
fn answers(out: &[u8]) -> Vec<Reply> {
    replies(out).into_iter().filter(|reply| reply.status != 100).collect()
}

fn are_sound(answers: &[Reply], shut_down: bool) {
    for reply in answers {
        let content_type = if reply.status == 202 { "application/json" } else { "application/problem+json" };
        assert_eq!(reply.field("content-type"), Some(content_type), "{}", reply.head);
        assert_eq!(reply.field("allow").is_some(), reply.status == 405, "{}", reply.head);
    }
    let closes = |reply: &Reply| reply.field("connection") == Some("close");
    if let Some((last, before)) = answers.split_last() {
        assert!(!before.iter().any(closes), "a reply follows one that says close");
        assert!(closes(last) || !shut_down, "FIN without a word");
    }
}

/// When replies go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// So that nothing but the cuts differs between two runs.
    AtEnd,
    /// As soon as they may.
    AtOnce,
}

#[derive(Debug, PartialEq, Eq)]
struct Taken {
    request: RequestInfo,
    end: End,
    /// Of `bodies`; a request that is not whole has handed on as many of its lines as had come.
    body: Range<usize>,
}

/// All that came of a connection.
#[derive(Debug, Default)]
struct Run {
    /// Of each of [`LIMITS`] a slot of a core, which has one tenant after the other, and the pool of all its slots.
    slots: [Option<Box<(Connection, AssemblyPool)>>; 2],
    taken: Vec<Taken>,
    bodies: Vec<u8>,
    refused: Vec<u16>,
    out: Vec<u8>,
    stopped: bool,
    shut_down: bool,
}

impl Run {
    /// A connection with a core of no brain: every whole request is accepted as one click.
    fn run(&mut self, bytes: &[u8], cuts: &[usize], which: usize, answers: Answers) {
        let limits = &LIMITS[which];
        self.taken.clear();
        self.bodies.clear();
        self.refused.clear();
        self.out.clear();
        (self.stopped, self.shut_down) = (false, false);
        let slot = self.slots[which].take();
        let mut slot =
            slot.unwrap_or_else(|| Box::new((Connection::new(), AssemblyPool::new(limits.assembly_bytes_max))));
        let (connection, pool) = &mut *slot;
        connection.reset(0, limits);
        let mut current = None;
        let mut from = 0;
        for &cut in cuts.iter().chain([&bytes.len()]) {
            let cut = cut.clamp(from, bytes.len());
            self.receive(connection, pool, &mut current, &bytes[from..cut], limits);
            from = cut;
            if answers == Answers::AtOnce || cut == bytes.len() {
                self.release(connection, limits);
                while connection.may_go_on(limits) {
                    self.receive(connection, pool, &mut current, &[], limits);
                    self.release(connection, limits);
                }
            }
        }
        connection.clear(pool);
        assert_eq!(pool.lent_bytes(), 0, "a cleared connection holds no memory");
        self.slots[which] = Some(slot);
    }

    fn receive(
        &mut self,
        connection: &mut Connection,
        pool: &mut AssemblyPool,
        current: &mut Option<Ticket>,
        mut input: &[u8],
        limits: &HttpConfig,
    ) {
        loop {
            match connection.next(&mut input, 0, limits, pool) {
                Step::Begin { ticket, request } => {
                    assert!(current.is_none(), "a request begins within another");
                    assert!(!self.stopped, "a request begins after Stop");
                    *current = Some(ticket);
                    let body = self.bodies.len()..self.bodies.len();
                    self.taken.push(Taken { request, end: End::Open, body });
                }
                Step::Body { bytes, last } => {
                    let taken = self.taken.last_mut().expect("a body belongs to a request");
                    assert_eq!(taken.end, End::Open, "a body piece after its end");
                    self.bodies.extend_from_slice(bytes);
                    taken.body.end = self.bodies.len();
                    assert!(last || bytes.ends_with(b"\n"), "a piece that is not the last holds whole lines");
                    if last {
                        taken.end = End::Whole;
                        let ticket = current.take().expect("a body belongs to a request");
                        connection.settle(ticket, accepted(1), 0, limits);
                    }
                }
                Step::Abandon { ticket, status } => {
                    assert_eq!(current.take(), Some(ticket), "only the request at hand is abandoned");
                    self.taken.last_mut().expect("it began").end = End::Abandoned(status);
                }
                Step::Refused { status } => self.refused.push(status),
                Step::Paused => break,
                Step::NeedMore => {
                    assert!(!self.stopped, "nothing is awaited after Stop");
                    break;
                }
                Step::Stop => {
                    self.stopped = true;
                    break;
                }
            }
        }
        assert!(input.is_empty(), "NeedMore, Paused and Stop leave nothing behind");
    }

    fn release(&mut self, connection: &mut Connection, limits: &HttpConfig) {
        let from = self.out.len();
        self.shut_down |= connection.release(0, 0, limits, &LETTERHEAD, &mut self.out);
        connection.sent(self.out.len() - from, 0, limits);
    }

    /// What was answered, unless the same was looked at before.
    fn is_sound(&self) {
        let known = xxh3_64(&self.out).wrapping_mul(2) | u64::from(self.shut_down);
        LOOKED_AT.with_borrow_mut(|looked_at| {
            let place = &mut looked_at[known as usize % SOUND];
            if *place != known {
                are_sound(&answers(&self.out), self.shut_down);
                *place = known;
            }
        });
    }

    fn means_the_same(&self, pieces: &Run, bytes: &[u8], cuts: &[usize]) {
        let same = self.takes_the_same(pieces) && (self.stopped, self.shut_down) == (pieces.stopped, pieces.shut_down);
        let told = || format!("{:?}: {self:?}, and in pieces {pieces:?}", String::from_utf8_lossy(bytes));
        assert!(same, "cuts {cuts:?} change what is taken of {}", told());
        let same = self.out == pieces.out || answers(&self.out) == answers(&pieces.out);
        assert!(same, "cuts {cuts:?} change the replies to {}", told());
    }

    /// Bodies of what is not whole aside.
    fn takes_the_same(&self, other: &Run) -> bool {
        let each_same = self.taken.iter().zip(&other.taken).all(|(one, its)| {
            let whole = one.end == End::Whole;
            let same_body = || self.bodies[one.body.clone()] == other.bodies[its.body.clone()];
            (one.request, one.end) == (its.request, its.end) && (!whole || same_body())
        });
        each_same && self.taken.len() == other.taken.len() && self.refused == other.refused
    }

    /// Where `Connection: close` stands depends on what had arrived when a reply went.
    fn says_the_same(&self, at_once: &Run, cuts: &[usize]) {
        let said = |run: &Run| -> Vec<(u16, String)> {
            answers(&run.out).into_iter().map(|reply| (reply.status, reply.body)).collect()
        };
        let same = self.out == at_once.out || said(self) == said(at_once);
        assert!(same, "replies that go between cuts {cuts:?} are others: {self:?}, {at_once:?}");
        assert!(
            self.takes_the_same(at_once),
            "replies that go between cuts {cuts:?} change what is taken: {self:?}, {at_once:?}"
        );
    }
}
