//! Pure. The replies of one connection: a queue of places in the order of the requests, and how each is written.
//!
//!     front ──▶ [settled, LSN 7] [settled, LSN 9] [open] [settled, fault] [continue] [open] ◀── back
//!                └── written when durable LSN ≥ 7      └── waits for the open one before it
//!
//! A place is reserved when its request begins, so requests may be settled in any order and are answered in theirs.

use std::collections::VecDeque;
use std::io::Write;

use super::fault::{self, Fault};
use crate::click::Refusal;
use crate::config::ERRORS_LISTED_MAX;
use crate::metrics::Shed;
use crate::units::civil_date;

/// A reserved place in a connection's queue of replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u32);

/// A refused click of a request, by its index among the request's clicks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedError {
    pub index: u32,
    pub refusal: Refusal,
}

/// How a request of clicks ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Every click of it ended in one of three ways. `errors`: the refused, the first `ERRORS_LISTED_MAX` of them.
    Clicks { accepted: u32, duplicates: u32, rejected: u32, errors: Vec<ListedError> },
    /// Nothing of it was taken; it is worth another try.
    Shed(Shed),
    /// Nothing of it was taken, for the reason given: `Fault::Document`, `Fault::TooManyClicks`.
    Refused(Fault),
}

#[derive(Debug)]
enum Reply {
    Open,
    /// One click, accepted: by far the most frequent reply of unbatched clients, so it is kept ready-made.
    AcceptedOne,
    Clicks {
        accepted: u32,
        duplicates: u32,
        rejected: u32,
        errors: Vec<ListedError>,
    },
    Fault(Fault),
    Continue,
}

#[derive(Debug)]
struct Place {
    reply: Reply,
    release_lsn: u64,
    head_only: bool,
}

/// About what one listed error takes in a reply; `{"index":4999,"reason":"repeated_field","field":"advertiser_id"},` has 66.
const ERROR_BYTES: usize = 72;

/// About what any other reply takes.
const REPLY_BYTES: usize = 160;

/// The queue. Its length in requests and bytes is bounded by who reserves: see `has_room`.
#[derive(Debug, Default)]
pub struct ReplyQueue {
    places: VecDeque<Place>,
    /// The ticket of the place at the front.
    front: u32,
    /// About what the places will take when they are written.
    bytes: usize,
}

impl ReplyQueue {
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// About what the replies that are not yet written will take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn clear(&mut self) {
        self.front = self.front.wrapping_add(self.places.len() as u32);
        self.places.clear();
        self.bytes = 0;
    }

    /// Reserves the next place.
    pub fn reserve(&mut self) -> Ticket {
        self.push(Reply::Open, false)
    }

    /// Queues a refusal that the connection itself decided on.
    pub fn refuse(&mut self, fault: Fault, head_only: bool) {
        self.push(Reply::Fault(fault), head_only);
    }

    pub fn interim(&mut self) {
        self.push(Reply::Continue, false);
    }

    /// Whether the last place is a request's whose `100 Continue`, right before it, is not yet written.
    pub fn owes_continue(&self) -> bool {
        self.places.iter().nth_back(1).is_some_and(|place| matches!(place.reply, Reply::Continue))
    }

    fn push(&mut self, reply: Reply, head_only: bool) -> Ticket {
        let ticket = self.front.wrapping_add(self.places.len() as u32);
        self.places.push_back(Place { reply, release_lsn: 0, head_only });
        self.bytes += REPLY_BYTES;
        Ticket(ticket)
    }

    /// Gives back the last place, whose request will never be whole and gets no answer. One that is settled stays.
    pub fn withdraw(&mut self, ticket: Ticket) {
        let is_last = ticket.0.wrapping_add(1) == self.front.wrapping_add(self.places.len() as u32);
        if is_last && matches!(self.places.back(), Some(Place { reply: Reply::Open, .. })) {
            self.places.pop_back();
            self.bytes -= REPLY_BYTES;
        }
    }

    /// Fills a reserved place. A place that is filled already (its request was abandoned meanwhile) keeps its reply.
    pub fn settle(&mut self, ticket: Ticket, outcome: Outcome, release_lsn: u64, reply_bytes_max: usize) {
        let index = ticket.0.wrapping_sub(self.front) as usize;
        let Some(place) = self.places.get_mut(index) else { return };
        if !matches!(place.reply, Reply::Open) {
            return;
        }
        place.release_lsn = release_lsn;
        place.reply = match outcome {
            Outcome::Clicks { accepted: 1, duplicates: 0, rejected: 0, .. } => Reply::AcceptedOne,
            Outcome::Clicks { accepted, duplicates, rejected, mut errors } => {
                // A peer that asks without taking answers gets shorter ones: its lists must not hold others' memory.
                let listed_max = if self.bytes > reply_bytes_max { 1 } else { ERRORS_LISTED_MAX };
                if errors.len() > listed_max {
                    errors.truncate(listed_max);
                    errors.shrink_to_fit();
                }
                self.bytes += errors.len() * ERROR_BYTES;
                Reply::Clicks { accepted, duplicates, rejected, errors }
            }
            Outcome::Shed(shed) => Reply::Fault(Fault::Shed(shed)),
            Outcome::Refused(fault) => Reply::Fault(fault),
        };
    }

    /// Whether the front place may be written, given what is durable.
    pub fn is_due(&self, durable_lsn: u64) -> bool {
        match self.places.front() {
            Some(Place { reply: Reply::Open, .. }) | None => false,
            Some(place) => place.release_lsn <= durable_lsn,
        }
    }

    /// Writes the front place's reply, which is due, and frees the place. `close`: nothing is sent after it.
    pub fn write_front(&mut self, letterhead: &Letterhead, close: bool, out: &mut Vec<u8>) {
        let place = self.places.pop_front().expect("the caller asked is_due first");
        self.front = self.front.wrapping_add(1);
        self.bytes -= REPLY_BYTES;
        match place.reply {
            Reply::Open => unreachable!("an open place is never due"),
            Reply::AcceptedOne if !close => out.extend_from_slice(letterhead.accepted_one()),
            Reply::AcceptedOne => write_clicks(letterhead, [1, 0, 0], &[], close, out),
            Reply::Clicks { accepted, duplicates, rejected, errors } => {
                self.bytes -= errors.len() * ERROR_BYTES;
                write_clicks(letterhead, [accepted, duplicates, rejected], &errors, close, out);
            }
            Reply::Fault(fault) => write_fault(letterhead, &fault, close, place.head_only, out),
            Reply::Continue => out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"),
        }
    }
}

/// What all replies of one second have in common: their date, and the whole reply to one accepted click.
#[derive(Debug)]
pub struct Letterhead {
    second: i64,
    accepted_one: Vec<u8>,
}

/// `HTTP/1.1 202 Accepted CR LF Date: ` has 29 bytes, the date 29.
const DATE: std::ops::Range<usize> = 29..58;

impl Letterhead {
    pub fn new(wall_ms: i64) -> Letterhead {
        let second = wall_ms.div_euclid(1000);
        let mut letterhead = Letterhead { second, accepted_one: vec![b' '; DATE.end] };
        letterhead.accepted_one[DATE].copy_from_slice(&http_date(second));
        let mut accepted_one = Vec::with_capacity(160);
        write_clicks(&letterhead, [1, 0, 0], &[], false, &mut accepted_one);
        letterhead.accepted_one = accepted_one;
        letterhead
    }

    /// Called once a turn.
    pub fn set_time(&mut self, wall_ms: i64) {
        let second = wall_ms.div_euclid(1000);
        if second != self.second {
            self.second = second;
            self.accepted_one[DATE].copy_from_slice(&http_date(second));
        }
    }

    fn accepted_one(&self) -> &[u8] {
        &self.accepted_one
    }

    fn date(&self) -> &[u8] {
        &self.accepted_one[DATE]
    }
}

fn write_clicks(letterhead: &Letterhead, counts: [u32; 3], errors: &[ListedError], close: bool, out: &mut Vec<u8>) {
    let [accepted, duplicates, rejected] = counts;
    let all_rejected = rejected > 0 && accepted == 0 && duplicates == 0;
    let body = out.len();
    push(out, format_args!("{{\"accepted\":{accepted},\"duplicates\":{duplicates},\"rejected\":{rejected}"));
    for (position, error) in errors.iter().enumerate() {
        let Refusal { reason, field } = error.refusal;
        let before = if position == 0 { ",\"errors\":[" } else { "," };
        push(out, format_args!("{before}{{\"index\":{},\"reason\":\"{}\"", error.index, reason.name()));
        if !field.is_empty() {
            push(out, format_args!(",\"field\":\"{field}\""));
        }
        out.push(b'}');
    }
    out.extend_from_slice(if errors.is_empty() { b"}" } else { b"]}" });
    let status = if all_rejected { 422 } else { 202 };
    write_head_before(letterhead, status, "application/json", "", close, body, out);
}

fn write_fault(letterhead: &Letterhead, fault: &Fault, close: bool, head_only: bool, out: &mut Vec<u8>) {
    let status = fault.status();
    let body = out.len();
    let title = fault::title(status);
    push(
        out,
        format_args!("{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"detail\":\"{fault}\"}}"),
    );
    let mut retry = String::new();
    if let Some(seconds) = fault.retry_after_s() {
        retry = format!("Retry-After: {seconds}\r\n");
    } else if *fault == Fault::Method {
        retry.push_str("Allow: POST\r\n");
    }
    let body_end = write_head_before(letterhead, status, "application/problem+json", &retry, close, body, out);
    if head_only {
        out.truncate(body_end);
    }
}

/// Puts the head before the body, which begins at `body` and ends `out`. Where the body begins then.
fn write_head_before(
    letterhead: &Letterhead,
    status: u16,
    media_type: &str,
    more: &str,
    close: bool,
    body: usize,
    out: &mut Vec<u8>,
) -> usize {
    let length = out.len() - body;
    let title = fault::title(status);
    push(out, format_args!("HTTP/1.1 {status} {title}\r\nDate: "));
    out.extend_from_slice(letterhead.date());
    push(out, format_args!("\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n{more}"));
    out.extend_from_slice(if close { b"Connection: close\r\n\r\n" } else { b"\r\n" });
    out[body..].rotate_left(length);
    out.len() - length
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory cannot fail");
}

/// IMF-fixdate of RFC 9110, section 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(second: i64) -> [u8; 29] {
    // Four digits are all that the format has for a year.
    let second = second.clamp(0, 253_402_300_799);
    let (days, of_day) = (second / 86_400, second % 86_400);
    let (year, month, day) = civil_date(days);
    let weekdays = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (weekday, month) = (weekdays[(days % 7) as usize], months[(month - 1) as usize]);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let mut date = [0; 29];
    write!(&mut date[..], "{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
        .expect("a date has 29 bytes");
    date
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_the_internet_writes_them() {
        for (second, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (i64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (-1, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&http_date(second)), Ok(expected));
        }
    }

    #[test]
    fn the_letterhead_follows_the_clock() {
        let mut letterhead = Letterhead::new(999);
        let at_zero = letterhead.accepted_one().to_vec();
        letterhead.set_time(784_111_777_000);
        assert_eq!(letterhead.date(), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(letterhead.accepted_one().len(), at_zero.len());
        letterhead.set_time(0);
        assert_eq!(letterhead.accepted_one(), at_zero);
    }

    #[test]
    fn the_longest_listed_error_is_within_the_estimate() {
        let refusal = Refusal { reason: crate::click::Reason::RepeatedField, field: "advertiser_id" };
        let listed = |count| vec![ListedError { index: 4999, refusal }; count];
        let (mut two, mut three) = (Vec::new(), Vec::new());
        write_clicks(&Letterhead::new(0), [0, 0, 9], &listed(2), false, &mut two);
        write_clicks(&Letterhead::new(0), [0, 0, 9], &listed(3), false, &mut three);
        assert!(three.len() - two.len() <= ERROR_BYTES);
    }

    #[test]
    fn tickets_may_wrap_around() {
        let mut queue = ReplyQueue { front: u32::MAX, ..ReplyQueue::default() };
        let tickets = [queue.reserve(), queue.reserve(), queue.reserve()];
        queue.withdraw(tickets[2]);
        for ticket in tickets {
            queue.settle(ticket, Outcome::Shed(Shed::Clock), 0, 1000);
        }
        let mut out = Vec::new();
        for _ in 0..2 {
            assert!(queue.is_due(0));
            queue.write_front(&Letterhead::new(0), false, &mut out);
        }
        assert!(!queue.is_due(0));
        assert_eq!((queue.len(), queue.bytes()), (0, 0));
    }
}
