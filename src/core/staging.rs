//! Pure. Requests on their way to their clicks' home: parsed, checked, encoded as records, waiting for a verdict.
//!
//!     records    … | request 7's records | request 8's records | …        shared by the requests of a turn
//!     requests     [ 7: shared from..to ] [ 8: shared from..to ] [ 9: own (it arrived over several turns) ]
//!
//! A request that is not yet whole keeps its records to itself (`OpenRequest`): nothing of it goes home before its last byte
//! is in and its framing is sound. Between two turns it is parked, and what parked requests hold together has a bound:
//! thousands of peers that stop in the middle of a body would otherwise take all memory.

use std::collections::VecDeque;

use crate::chunk::{RequestId, Tally};
use crate::click::Refusal;
use crate::config::ERRORS_LISTED_MAX;
use crate::event::ConnectionId;
use crate::metrics::Shed;
use crate::net::fault::Fault;
use crate::net::reply::{ListedError, Ticket};
use crate::parse::Format;

/// Shared records in front of the first unsettled one are given up when there are this many bytes of them.
const COMPACT_BYTES: usize = 1 << 20;

/// Emptied vectors kept for reuse, and the memory above which one is not kept.
const SPARES_KEPT: usize = 64;
const SPARE_KEPT_BYTES: usize = 64 << 10;

/// A request whose body is still coming in.
#[derive(Debug)]
pub struct OpenRequest {
    pub ticket: Ticket,
    pub format: Format,
    pub prefetch: bool,
    pub clicks: u32,
    pub errors: Vec<ListedError>,
    /// Where its records begin in the shared ones, unless it is parked or `own` holds them.
    pub from: usize,
    /// Its turn's input is used up.
    pub parked: bool,
    pub own: Vec<u8>,
    /// Nothing of it is taken, though its clicks are counted: known when it began, or when there was no room to park it.
    pub shed: Option<Shed>,
    /// It is refused as a whole, for a reason that showed in its body.
    pub fault: Option<Fault>,
    pub began_ns: u64,
}

impl OpenRequest {
    /// Memory that it holds between two turns.
    fn held_bytes(&self) -> usize {
        self.own.capacity() + self.errors.capacity() * size_of::<ListedError>()
    }

    pub fn list_error(&mut self, refusal: Refusal) {
        if self.errors.len() < ERRORS_LISTED_MAX {
            self.errors.push(ListedError { index: self.clicks, refusal });
        }
    }
}

/// A whole request that awaits its verdicts.
#[derive(Debug)]
pub struct StagedRequest {
    pub connection: ConnectionId,
    pub ticket: Ticket,
    pub clicks: u32,
    pub began_ns: u64,
    pub errors: Vec<ListedError>,
    records: Records,
    /// Bytes of its records, and records, that are judged or on their way.
    done: usize,
    pub passed: u32,
    /// Its place among those that wait for other homes, if a click of it has one.
    pub away: Option<RequestId>,
    pub tally: Tally,
}

impl StagedRequest {
    /// That many bytes more of its records are through.
    pub fn advance(&mut self, bytes: usize) {
        self.done += bytes;
    }
}

#[derive(Debug)]
enum Records {
    Shared { from: u64, length: usize },
    Own(Vec<u8>),
}

#[derive(Debug)]
pub struct Staging {
    records: Vec<u8>,
    /// Bytes of shared records given up so far: the absolute place of `records[0]`.
    base: u64,
    requests: VecDeque<StagedRequest>,
    /// Memory of the whole requests that have their own.
    own_bytes: usize,
    /// Memory of the parked requests, and its bound.
    parked_bytes: usize,
    parked_bytes_max: usize,
    /// Emptied vectors for requests that arrive over several turns.
    spare: Vec<Vec<u8>>,
    /// Clicks staged since the last pass over the home.
    fresh_clicks: usize,
    /// Requests at the front that the home has looked ahead at.
    looked: usize,
}

impl Staging {
    pub fn new(parked_bytes_max: usize) -> Staging {
        Staging {
            records: Vec::new(),
            base: 0,
            requests: VecDeque::new(),
            own_bytes: 0,
            parked_bytes: 0,
            parked_bytes_max,
            spare: Vec::new(),
            fresh_clicks: 0,
            looked: 0,
        }
    }

    /// Where the next request's records begin.
    pub fn mark(&self) -> usize {
        self.records.len()
    }

    /// Where the open request's next record goes.
    pub fn sink<'a>(&'a mut self, open: &'a mut OpenRequest) -> &'a mut Vec<u8> {
        if open.own.is_empty() { &mut self.records } else { &mut open.own }
    }

    /// Drops an open request's records.
    pub fn drop_open(&mut self, open: OpenRequest) {
        if open.parked {
            self.parked_bytes -= open.held_bytes();
        }
        if !open.own.is_empty() {
            self.keep_spare(open.own);
        } else if !open.parked {
            self.records.truncate(open.from);
        }
    }

    /// The turn's input ended within the request: its records leave the shared ones. Without room to keep them the request
    /// is shed, and the rest of its body is read for its framing only.
    pub fn park(&mut self, open: &mut OpenRequest) {
        if open.own.is_empty() && self.records.len() > open.from {
            let mut own = self.spare.pop().unwrap_or_default();
            own.extend_from_slice(&self.records[open.from..]);
            self.records.truncate(open.from);
            open.own = own;
        }
        if self.parked_bytes + open.held_bytes() > self.parked_bytes_max {
            self.keep_spare(std::mem::take(&mut open.own));
            open.errors = Vec::new();
            open.shed = Some(Shed::Memory);
        }
        self.parked_bytes += open.held_bytes();
        open.parked = true;
    }

    /// A parked request goes on: what it adds lands behind what it has.
    pub fn unpark(&mut self, open: &mut OpenRequest) {
        self.parked_bytes -= open.held_bytes();
        open.parked = false;
        open.from = self.records.len();
    }

    /// The request is whole: its verdicts are due.
    pub fn stage(&mut self, connection: ConnectionId, open: OpenRequest) {
        let records = if open.own.is_empty() {
            Records::Shared { from: self.base + open.from as u64, length: self.records.len() - open.from }
        } else {
            self.own_bytes += open.own.capacity();
            Records::Own(open.own)
        };
        self.fresh_clicks += open.clicks as usize;
        self.requests.push_back(StagedRequest {
            connection,
            ticket: open.ticket,
            clicks: open.clicks,
            began_ns: open.began_ns,
            errors: open.errors,
            records,
            done: 0,
            passed: 0,
            away: None,
            tally: Tally::default(),
        });
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Clicks that no pass over the home has seen.
    pub fn fresh_clicks(&self) -> usize {
        self.fresh_clicks
    }

    /// Bytes of staged records.
    pub fn bytes(&self) -> usize {
        self.records.len() + self.own_bytes
    }

    /// Memory of the parked requests.
    pub fn parked_bytes(&self) -> usize {
        self.parked_bytes
    }

    /// Bytes of staged records without those of the open request, which would otherwise shed itself.
    pub fn bytes_before(&self, open: &OpenRequest) -> usize {
        let shared = if open.own.is_empty() { open.from } else { self.records.len() };
        shared + self.own_bytes
    }

    /// The records of the requests that were staged since the last call, in order.
    pub fn look(&mut self) -> impl Iterator<Item = &[u8]> {
        let from = std::mem::replace(&mut self.looked, self.requests.len());
        let this = &*self;
        this.requests.range(from..).map(|request| this.rest(request))
    }

    /// The oldest request that has no verdict yet.
    pub fn pop(&mut self) -> Option<StagedRequest> {
        self.fresh_clicks = 0;
        self.looked = self.looked.saturating_sub(1);
        self.requests.pop_front()
    }

    /// A request that found no room waits at the head of the line.
    pub fn unpop(&mut self, request: StagedRequest) {
        self.requests.push_front(request);
        self.looked += 1;
    }

    /// The records that are still to come, of a request that was popped.
    pub fn rest<'a>(&'a self, request: &'a StagedRequest) -> &'a [u8] {
        match &request.records {
            Records::Shared { from, length } => {
                let from = (from - self.base) as usize;
                &self.records[from + request.done..from + length]
            }
            Records::Own(bytes) => &bytes[request.done..],
        }
    }

    /// A popped request whose records are judged or on their way waits elsewhere: its memory is free, but for itself.
    pub fn let_go(&mut self, mut request: StagedRequest) -> StagedRequest {
        let nothing = Records::Shared { from: self.base, length: 0 };
        let records = std::mem::replace(&mut request.records, nothing);
        self.give_back(records);
        request
    }

    /// A popped request is settled: its memory is free.
    pub fn release(&mut self, request: StagedRequest) {
        self.give_back(request.records);
    }

    fn give_back(&mut self, records: Records) {
        if let Records::Own(own) = records {
            self.own_bytes -= own.capacity();
            self.keep_spare(own);
        }
    }

    /// After a pass: gives up the shared records that are through. No request may be open in them.
    pub fn compact(&mut self) {
        let first = self.requests.iter().find_map(|request| match &request.records {
            Records::Shared { from, .. } => Some((from - self.base) as usize),
            Records::Own(_) => None,
        });
        match first {
            None => {
                self.base += self.records.len() as u64;
                self.records.clear();
            }
            Some(through) if through >= COMPACT_BYTES => {
                self.base += through as u64;
                self.records.drain(..through);
            }
            Some(_) => {}
        }
    }

    fn keep_spare(&mut self, mut own: Vec<u8>) {
        if self.spare.len() < SPARES_KEPT && own.capacity() <= SPARE_KEPT_BYTES {
            own.clear();
            self.spare.push(own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARKED_MAX: usize = 8 << 20;

    fn open(staging: &Staging) -> OpenRequest {
        OpenRequest {
            ticket: crate::net::reply::ReplyQueue::default().reserve(),
            format: Format::Lines,
            prefetch: true,
            clicks: 0,
            errors: Vec::new(),
            from: staging.mark(),
            parked: false,
            own: Vec::new(),
            shed: None,
            fault: None,
            began_ns: 0,
        }
    }

    /// Takes in so many bytes of records, and stalls.
    fn stalled(staging: &mut Staging, bytes: usize) -> OpenRequest {
        let mut request = open(staging);
        for _ in 0..bytes.div_ceil(16 << 10) {
            staging.unpark(&mut request);
            if request.shed.is_none() {
                staging.sink(&mut request).extend_from_slice(&[1; 16 << 10]);
            }
            staging.park(&mut request);
        }
        request
    }

    #[test]
    fn stalled_bodies_hold_no_more_than_the_bound_and_the_others_are_shed() {
        let mut staging = Staging::new(PARKED_MAX);
        let requests: Vec<_> = (0..4096).map(|_| stalled(&mut staging, 1 << 20)).collect();
        let held = |requests: &[OpenRequest]| requests.iter().map(OpenRequest::held_bytes).sum::<usize>();
        assert!(held(&requests) <= PARKED_MAX, "{} bytes are held", held(&requests));
        let kept = requests.iter().filter(|request| request.shed.is_none()).count();
        assert!(kept >= 4 && requests.iter().all(|request| matches!(request.shed, None | Some(Shed::Memory))));
        assert_eq!(staging.parked_bytes, held(&requests), "what is counted is what is held");
        for request in requests {
            staging.drop_open(request);
        }
        assert_eq!(staging.parked_bytes, 0);
        assert_eq!(stalled(&mut staging, 1 << 20).shed, None, "room came back");
    }

    #[test]
    fn what_is_parked_is_counted_until_it_is_staged_and_large_buffers_are_not_kept() {
        let mut staging = Staging::new(PARKED_MAX);
        let mut request = stalled(&mut staging, 1 << 20);
        let memory = request.held_bytes();
        assert_eq!((staging.parked_bytes, staging.bytes()), (memory, 0));
        staging.unpark(&mut request);
        assert_eq!(staging.bytes_before(&request), 0);
        staging.stage(ConnectionId { slot: 0, generation: 1 }, request);
        assert_eq!((staging.parked_bytes, staging.bytes()), (0, memory));
        let staged = staging.pop().unwrap();
        assert_eq!(staging.rest(&staged).len(), 1 << 20);
        staging.release(staged);
        assert_eq!((staging.bytes(), staging.spare.len()), (0, 0));
        let small = stalled(&mut staging, 16 << 10);
        staging.drop_open(small);
        assert_eq!(staging.spare.len(), 1);
    }
}
