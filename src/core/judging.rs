//! Pure. A turn's pass over what waits for verdicts: other cores' clicks whose home is here, then this core's own requests, whose
//! clicks are judged here or go to their homes.

use crate::chunk::{Chunk, CoreIndex, Tally};
use crate::config::ERRORS_LISTED_MAX;
use crate::core::Core;
use crate::core::home::Bench;
use crate::core::staging::StagedRequest;
use crate::event::Now;
use crate::net::reply::ListedError;

impl Core {
    /// As far as there is room; what finds none waits at the head of the line.
    pub(super) fn judge(&mut self, now: Now) {
        self.inbound.judge(&mut self.home, &mut self.ledger, now);
        for records in self.staging.look() {
            self.home.look_ahead(records, &mut self.ahead);
        }
        self.home.fetch(&mut self.ahead);
        while let Some(mut request) = self.staging.pop() {
            if !self.judge_request(&mut request, now) {
                self.staging.unpop(request);
                break;
            }
            let lsn = self.home.writer.end_lsn();
            if let Some(id) = request.away {
                // Its records are judged or on their way: only the request itself waits.
                let request = self.staging.let_go(request);
                if let Some((mut request, lsn)) = self.outbound.wait(id, request, lsn) {
                    self.lanes.settle(&mut request, lsn, &self.config);
                }
            } else {
                self.lanes.settle(&mut request, lsn, &self.config);
                self.staging.release(request);
            }
        }
        self.staging.compact();
    }

    /// A chunk is back from its home.
    pub(super) fn judged(&mut self, by: CoreIndex, chunk: Box<Chunk>) {
        let (ledger, mut whole) = (&mut self.ledger, std::mem::take(&mut self.whole));
        self.outbound.judged(by, chunk, |tally, request| {
            ledger.settle(tally);
            whole.extend(request);
        });
        for (mut request, lsn) in whole.drain(..) {
            self.lanes.settle(&mut request, lsn, &self.config);
        }
        self.whole = whole;
    }

    /// `false`: there is no room for the rest of it, at home or on the way.
    fn judge_request(&mut self, request: &mut StagedRequest, now: Now) -> bool {
        let (mut tally, mut errors) = (Tally::default(), std::mem::take(&mut request.errors));
        let (mut away, mut passed) = (request.away, request.passed);
        let rest = self.staging.rest(request);
        let mut through = 0;
        while through < rest.len() {
            let mut refused = |index, refusal| {
                if errors.len() < ERRORS_LISTED_MAX {
                    errors.push(ListedError { index, refusal });
                }
            };
            let (ledger, tally) = (&mut self.ledger, &mut tally);
            let mut bench = Bench { ledger, tally, refused: &mut refused, places: None, passed };
            through += self.home.judge(&rest[through..], &mut self.ahead, &mut bench, now);
            passed = bench.passed;
            let Some((to, bytes)) = self.ahead.next().filter(|_| through < rest.len()) else { break };
            let record = &rest[through..through + bytes];
            if to == self.home.seat().own || !self.outbound.take(to, &mut away, passed, record) {
                break;
            }
            self.ahead.pass();
            passed += 1;
            through += bytes;
        }
        let whole = through == rest.len();
        self.ledger.settle(&tally);
        if request.passed == 0 {
            request.tally = tally;
        } else {
            request.tally.add(&tally);
        }
        (request.errors, request.away, request.passed) = (errors, away, passed);
        request.advance(through);
        whole
    }
}
