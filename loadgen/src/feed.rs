//! Pure. One thread's share of a run as a state machine: what goes out on which connection and when, what each reply must
//! say, what is sent again. It is told bytes and times; `link.rs` and `run.rs` move them.

use crate::clicks::{Again, Clicks, NUMBERS_OF_A_CORE};
use crate::lane::Lane;
use crate::ledger::Ledger;
use crate::plan::{Plan, Rate};
use crate::reply::{Answer, Garbage, Replies};
use crate::report::Totals;
use crate::request::{Kind, Later, Request, Twins};
use crate::text::{mix, timestamp13};
use hdrhistogram::Histogram;
use std::cell::Cell;
use std::rc::Rc;

/// Between two looks at time-outs.
const PATROL_NS: u64 = 100_000_000;

/// Between two ticks where nothing is planned; also how late a retry may go out.
const TICK_NS: u64 = 2_000_000;

/// First pause before a request is sent again after its connection broke; grows with each attempt.
const RETRY_NS: u64 = 20_000_000;

pub struct Feed {
    plan: Plan,
    clicks: Clicks,
    /// Of each host.
    heads: Vec<Vec<u8>>,
    start_ms: i64,
    end_ns: u64,
    /// When the last new click went out, as far as that is known.
    over_ns: Option<u64>,
    interval_ns: Option<f64>,
    requests_max: u64,
    issued: u64,
    /// Of each host: where its next request's clicks begin.
    numbers: Vec<u64>,
    later: Later,
    draws: u64,
    /// Connection `lane` leads to host `lane % hosts`.
    pub lanes: Vec<Lane>,
    next_lane: usize,
    patrol_ns: u64,
    /// Open loop: since when planned requests wait for room on a connection, which is the server's doing and not ours.
    blocked_ns: Option<u64>,
    spare: Vec<Vec<u8>>,
    done: bool,
    pub totals: Totals,
    pub ledger: Ledger,
    /// From planned send time to the reply that settled the request.
    pub latency: Histogram<u64>,
    /// From planned send time to sending, as far as no connection's room was waited for.
    pub lag: Histogram<u64>,
}

impl Feed {
    /// `thread` of the plan's threads, with so many connections; times are nanoseconds since `start_ms`.
    pub fn new(plan: &Plan, thread: usize, connections: usize, start_ms: i64) -> Feed {
        let clicks = Clicks::new(plan);
        let ledger = Ledger::new(clicks.ads());
        let histogram = || Histogram::new_with_bounds(100, 3_600_000_000_000, 3).expect("these bounds are valid");
        Feed {
            clicks,
            heads: (0..plan.targets.len()).map(|host| crate::link::head(plan, host)).collect(),
            start_ms,
            over_ns: None,
            end_ns: plan.duration.as_nanos() as u64,
            interval_ns: plan.interval_ns(),
            requests_max: plan.requests_of_a_thread(),
            issued: 0,
            numbers: vec![thread as u64 * NUMBERS_OF_A_CORE; plan.targets.len()],
            later: Later::new(plan.targets.len()),
            draws: 0,
            lanes: (0..connections).map(|_| Lane::default()).collect(),
            next_lane: 0,
            patrol_ns: PATROL_NS,
            blocked_ns: None,
            spare: Vec::new(),
            done: false,
            totals: Totals::default(),
            ledger,
            latency: histogram(),
            lag: histogram(),
            plan: plan.clone(),
        }
    }

    pub fn is_done(&self) -> bool {
        self.done
    }

    pub fn opened(&mut self, lane: usize, now_ns: u64) {
        self.lanes[lane].open = true;
        self.lanes[lane].kill = false;
        self.lanes[lane].replies = Replies::default();
        self.totals.connects += 1;
        self.fill(lane, now_ns);
    }

    /// The connection is gone; what was under way on it goes out again elsewhere.
    pub fn lost(&mut self, lane: usize, now_ns: u64) {
        self.totals.disconnects += u64::from(!self.done);
        self.lanes[lane].open = false;
        self.lanes[lane].out.clear();
        for request in std::mem::take(&mut self.lanes[lane].in_flight) {
            let pause_ns = RETRY_NS * u64::from(request.attempts.min(10));
            let pause_ns = pause_ns + self.random() % pause_ns;
            self.retry(request, now_ns + pause_ns);
        }
    }

    /// Takes the replies in `bytes` and returns how many bytes they were.
    pub fn received(&mut self, lane: usize, bytes: &[u8], now_ns: u64) -> Result<usize, Garbage> {
        let mut replies = std::mem::take(&mut self.lanes[lane].replies);
        let mut taken = 0;
        while taken < bytes.len() {
            let Some((answer, length)) = replies.next(&bytes[taken..])? else { break };
            let Some(request) = self.lanes[lane].in_flight.pop_front() else {
                self.totals.wrong(|| format!("a reply to no request: {answer:?}"));
                return Err(Garbage("a reply to no request".to_owned()));
            };
            self.settle(request, lane, answer, now_ns);
            taken += length;
        }
        self.lanes[lane].replies = replies;
        self.fill(lane, now_ns);
        Ok(taken)
    }

    /// The upkeep: planned and repeated requests go to connections with room, time-outs are found, the end is seen. Returns
    /// when to come back.
    pub fn tick(&mut self, now_ns: u64) -> u64 {
        if now_ns >= self.patrol_ns {
            self.patrol_ns = now_ns + PATROL_NS;
            self.patrol(now_ns);
        }
        let lanes = self.lanes.len();
        for lane in 0..lanes {
            if (1..=now_ns).contains(&self.lanes[lane].resume_ns) {
                self.lanes[lane].resume_ns = 0;
                self.resume(lane, now_ns);
            }
        }
        let mut full = 0;
        while full < lanes && self.has_work(now_ns) {
            self.next_lane = (self.next_lane + 1) % lanes;
            full = if self.offer(self.next_lane, now_ns) { 0 } else { full + 1 };
        }
        self.blocked_ns = self.has_work(now_ns).then_some(now_ns);
        if self.finished(now_ns) {
            self.finish();
        }
        let retry_ns = self.later.first_ns().map_or(u64::MAX, |at_ns| at_ns.max(now_ns + TICK_NS / 4));
        let planned_ns = match self.interval_ns {
            Some(interval) if self.blocked_ns.is_none() => (self.issued as f64 * interval) as u64,
            _ => u64::MAX,
        };
        planned_ns.min(retry_ns).min(now_ns + TICK_NS)
    }

    /// Takes what is to be sent on a connection; `spent` is an empty buffer in exchange.
    pub fn take_out(&mut self, lane: usize, mut spent: Vec<u8>) -> Vec<u8> {
        spent.clear();
        if spent.capacity() > 0 {
            self.spare.push(spent);
        }
        std::mem::take(&mut self.lanes[lane].out)
    }

    fn has_work(&self, now_ns: u64) -> bool {
        let due = self.later.first_ns().is_some_and(|at_ns| at_ns <= now_ns);
        due || (self.interval_ns.is_some() && self.planned(now_ns).is_some())
    }

    /// When the next new request was planned for, if that is not in the future.
    fn planned(&self, now_ns: u64) -> Option<u64> {
        let planned_ns = match self.interval_ns {
            None => now_ns,
            Some(interval) => (self.issued as f64 * interval) as u64,
        };
        let more = self.issued < self.requests_max && planned_ns < self.end_ns;
        (more && planned_ns <= now_ns).then_some(planned_ns)
    }

    /// One request for this connection, if it has room and there is one for it.
    fn offer(&mut self, lane: usize, now_ns: u64) -> bool {
        if !self.lanes[lane].has_room(self.plan.pipeline, now_ns) {
            return false;
        }
        let Some(request) = self.next_request(lane, now_ns) else { return false };
        self.send(lane, request, now_ns);
        self.lanes[lane].wake();
        true
    }

    /// After replies: a closed loop sends the next burst when the last one is answered, an open loop whatever is due.
    fn fill(&mut self, lane: usize, now_ns: u64) {
        let paused = self.lanes[lane].resume_ns > now_ns;
        if self.plan.rate == Rate::Max && (paused || !self.lanes[lane].in_flight.is_empty()) {
            return;
        }
        // Until now there was no room.
        self.blocked_ns = self.blocked_ns.map(|_| now_ns);
        while self.lanes[lane].in_flight.len() < self.plan.pipeline {
            let Some(request) = self.next_request(lane, now_ns) else { break };
            self.send(lane, request, now_ns);
        }
    }

    fn next_request(&mut self, lane: usize, now_ns: u64) -> Option<Request> {
        let host = self.host(lane);
        if let Some(request) = self.later.take(host, lane, now_ns) {
            return Some(request);
        }
        let planned_ns = self.planned(now_ns)?;
        let since_ns = self.blocked_ns.map_or(planned_ns, |blocked_ns| planned_ns.max(blocked_ns));
        self.lag.saturating_record(now_ns - since_ns.min(now_ns));
        let first = self.numbers[host];
        self.numbers[host] = self.clicks.after(first, self.plan.batch, host);
        self.issued += 1;
        Some(Request {
            first,
            clicks: self.plan.batch,
            host,
            broken: 0,
            stamp_ms: self.start_ms + (now_ns / 1_000_000) as i64,
            planned_ns,
            sent_ns: now_ns,
            attempts: 0,
            avoid: None,
            kind: Kind::Single,
        })
    }

    fn send(&mut self, lane: usize, mut request: Request, now_ns: u64) {
        let fresh = request.attempts == 0 && matches!(request.kind, Kind::Single);
        let out = &mut self.lanes[lane].out;
        if out.capacity() == 0 {
            *out = self.spare.pop().unwrap_or_default();
        }
        out.extend_from_slice(&self.heads[request.host]);
        let stamp = timestamp13(request.stamp_ms);
        let mut broken = 0;
        for (line, number) in self.clicks.numbers(request.first, request.clicks, request.host).enumerate() {
            if line > 0 {
                out.push(b'\n');
            }
            match self.clicks.append(number, request.stamp_ms, &stamp, out) {
                Some(ad) if fresh => self.ledger.send(ad),
                Some(_) => {}
                None => broken += 1,
            }
        }
        request.broken = broken;
        request.attempts += 1;
        request.sent_ns = now_ns;
        self.totals.requests += 1;
        if fresh {
            self.totals.clicks += u64::from(request.clicks);
            if self.clicks.again(request.first) == Again::Racing {
                let twins = Rc::new(Cell::new(Twins::default()));
                request.kind = Kind::Racing(twins.clone());
                self.again(&request, Kind::Racing(twins), lane, now_ns);
            }
        }
        self.lanes[lane].in_flight.push_back(request);
    }

    fn settle(&mut self, request: Request, lane: usize, answer: &Answer, now_ns: u64) {
        match *answer {
            Answer::Counts { accepted, duplicates, rejected } => {
                self.latency.saturating_record(now_ns - request.planned_ns.min(now_ns));
                self.totals.answered += 1;
                self.totals.accepted += u64::from(accepted);
                self.totals.duplicates += u64::from(duplicates);
                self.totals.rejected += u64::from(rejected);
                let good = request.clicks - request.broken;
                if rejected != request.broken || accepted.checked_add(duplicates) != Some(good) {
                    let clicks = request.clicks;
                    // Sent again later than ids are remembered: refused as too old, and what the first try did is unknown.
                    let whole = u64::from(accepted) + u64::from(duplicates) + u64::from(rejected) == u64::from(clicks);
                    if request.attempts > 1 && rejected > request.broken && whole {
                        self.totals.too_old += u64::from(clicks);
                        return self.give_up(request);
                    }
                    self.totals.wrong(|| format!("sent {clicks} clicks, {good} of them good, and got {answer:?}"));
                    return self.give_up(request);
                }
                self.judge(request, lane, accepted, good, now_ns);
            }
            Answer::Shed { retry_after_s } => {
                self.totals.shed += u64::from(request.clicks);
                let pause_ns = u64::from(retry_after_s) * 1_000_000_000;
                let jitter_ns = |random: u64| random % (pause_ns / 2 + RETRY_NS);
                let at_ns = now_ns + pause_ns + jitter_ns(self.random());
                self.retry(request, at_ns);
                if self.plan.rate == Rate::Max {
                    self.lanes[lane].resume_ns = now_ns + pause_ns + jitter_ns(self.random());
                }
            }
            Answer::Other { status, ref text } => {
                self.totals.wrong(|| format!("answered {status}: {text}"));
                self.give_up(request);
            }
        }
    }

    /// Whether so many of a request's good clicks may be new, by what else was sent of them.
    fn judge(&mut self, request: Request, lane: usize, accepted: u32, good: u32, now_ns: u64) {
        match &request.kind {
            Kind::Single => {
                if request.attempts == 1 && accepted != good {
                    let duplicates = good - accepted;
                    self.totals.wrong(|| format!("{duplicates} clicks sent for the first time called duplicates"));
                }
                if self.clicks.again(request.first) == Again::Afterwards {
                    self.again(&request, Kind::Repeat, lane, now_ns);
                }
            }
            Kind::Racing(shared) => {
                let mut twins = shared.get();
                twins.accepted += accepted;
                twins.answered += 1;
                twins.retried |= request.attempts > 1;
                shared.set(twins);
                let wrong = twins.accepted > good || (!twins.retried && twins.accepted != good);
                if wrong && twins.answered == 2 {
                    self.totals.wrong(|| format!("{good} clicks sent twice, and {} accepted", twins.accepted));
                }
            }
            Kind::Repeat => {
                if accepted > 0 {
                    self.totals.wrong(|| format!("{accepted} clicks accepted again after they were acknowledged"));
                }
            }
        }
    }

    /// Sends the same clicks a second time, on another connection where there is one.
    fn again(&mut self, request: &Request, kind: Kind, lane: usize, now_ns: u64) {
        self.totals.repeats += u64::from(request.clicks);
        let twin = Request {
            kind,
            attempts: 0,
            planned_ns: now_ns,
            avoid: (self.lanes.len() > self.plan.targets.len() + request.host).then_some(lane),
            ..*request
        };
        self.later.push(now_ns, twin);
    }

    fn retry(&mut self, request: Request, at_ns: u64) {
        if request.attempts >= self.plan.attempts_max {
            return self.give_up(request);
        }
        self.totals.retries += 1;
        self.later.push(at_ns, request);
    }

    /// The outcome of a request stays unknown; that of its clicks too, unless another sending of them is known.
    fn give_up(&mut self, request: Request) {
        self.totals.gave_up += 1;
        let unknown = match &request.kind {
            Kind::Single => true,
            Kind::Racing(shared) => {
                let twins = shared.get();
                shared.set(Twins { gave_up: twins.gave_up + 1, ..twins });
                twins.gave_up == 1
            }
            Kind::Repeat => false,
        };
        if unknown {
            for number in self.clicks.numbers(request.first, request.clicks, request.host) {
                if let Some(ad) = self.clicks.ad(number) {
                    self.ledger.give_up(ad);
                }
            }
        }
    }

    fn patrol(&mut self, now_ns: u64) {
        let timeout_ns = self.plan.timeout.as_nanos() as u64;
        for lane in &mut self.lanes {
            let late = lane.in_flight.front().is_some_and(|oldest| oldest.sent_ns + timeout_ns < now_ns);
            if late && lane.open && !lane.kill {
                lane.kill = true;
                self.totals.timeouts += 1;
                lane.wake();
            }
        }
    }

    fn finished(&mut self, now_ns: u64) -> bool {
        let over = match self.interval_ns {
            None => self.issued >= self.requests_max || now_ns >= self.end_ns,
            Some(interval) => self.issued >= self.requests_max || self.issued as f64 * interval >= self.end_ns as f64,
        };
        if over {
            self.over_ns.get_or_insert(now_ns.min(self.end_ns));
        }
        let settled = over && self.later.is_empty() && self.lanes.iter().all(|lane| lane.in_flight.is_empty());
        settled || now_ns >= self.over_ns.unwrap_or(self.end_ns) + self.plan.drain.as_nanos() as u64
    }

    /// Whatever is still without an answer becomes unknown; all connections are told to close.
    fn finish(&mut self) {
        self.done = true;
        if let Some(interval) = self.interval_ns {
            let planned = self.requests_max.min((self.end_ns as f64 / interval).ceil() as u64);
            self.totals.unsent = planned.saturating_sub(self.issued);
        }
        let under_way = self.lanes.iter_mut().flat_map(|lane| std::mem::take(&mut lane.in_flight));
        let unanswered: Vec<Request> = under_way.chain(self.later.take_all()).collect();
        for request in unanswered {
            self.give_up(request);
        }
        for lane in &self.lanes {
            lane.wake();
        }
    }

    fn host(&self, lane: usize) -> usize {
        lane % self.plan.targets.len()
    }

    /// A connection that had to wait sends again.
    fn resume(&mut self, lane: usize, now_ns: u64) {
        if self.lanes[lane].open && !self.lanes[lane].kill {
            self.fill(lane, now_ns);
        }
        self.lanes[lane].wake();
    }

    fn random(&mut self) -> u64 {
        self.draws += 1;
        mix(self.plan.seed ^ mix(self.draws))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    const MS: u64 = 1_000_000;

    fn feed(plan: Plan, connections: usize) -> Feed {
        let mut feed = Feed::new(&plan, 0, connections, 1_763_791_000_000);
        for lane in 0..connections {
            feed.opened(lane, 0);
        }
        feed
    }

    fn sent(feed: &mut Feed, lane: usize) -> String {
        String::from_utf8(feed.take_out(lane, Vec::new())).unwrap()
    }

    fn reply(accepted: u32, duplicates: u32) -> Vec<u8> {
        let body = format!(r#"{{"accepted":{accepted},"duplicates":{duplicates},"rejected":0}}"#);
        format!("HTTP/1.1 202 Accepted\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn a_closed_loop_sends_a_burst_and_the_next_when_all_of_it_is_answered() {
        let mut feed = feed(Plan { pipeline: 3, ..Plan::default() }, 1);
        let count = |text: String| text.matches("POST ").count();
        assert_eq!(count(sent(&mut feed, 0)), 3);
        feed.received(0, &[reply(1, 0), reply(1, 0)].concat(), MS).unwrap();
        assert_eq!(count(sent(&mut feed, 0)), 0);
        feed.received(0, &reply(1, 0), MS).unwrap();
        assert_eq!(count(sent(&mut feed, 0)), 3);
        assert_eq!((feed.totals.accepted, feed.totals.wrong), (3, 0));
    }

    #[test]
    fn what_was_under_way_on_a_lost_connection_goes_out_again_byte_for_byte() {
        let mut feed = feed(Plan { batch: 10, clicks_max: Some(10), late: 0.5, ..Plan::default() }, 2);
        let first = sent(&mut feed, 0);
        assert!(first.contains("POST "));
        feed.lost(0, 5 * MS);
        let at = feed.tick(5 * MS);
        assert!(sent(&mut feed, 1).is_empty(), "not before a pause");
        assert!(at > 5 * MS);
        feed.tick(100 * MS);
        assert_eq!(sent(&mut feed, 1), first);
        feed.received(1, &reply(4, 6), 101 * MS).unwrap();
        feed.tick(102 * MS);
        assert_eq!((feed.is_done(), feed.totals.wrong, feed.totals.retries), (true, 0, 1));
        assert_eq!(feed.ledger.total(), 10..=10);
    }

    #[test]
    fn a_shed_request_waits_as_long_as_told() {
        let mut feed = feed(Plan { clicks_max: Some(1), ..Plan::default() }, 1);
        let first = sent(&mut feed, 0);
        let shed = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n";
        feed.received(0, shed, MS).unwrap();
        feed.tick(1_999 * MS);
        assert_eq!(sent(&mut feed, 0), "");
        feed.tick(3_100 * MS);
        assert_eq!(sent(&mut feed, 0), first);
        assert_eq!((feed.totals.shed, feed.totals.retries), (1, 1));
    }

    #[test]
    fn a_connection_that_was_told_to_wait_sends_nothing_new_meanwhile() {
        let mut feed = feed(Plan { batch: 10, ..Plan::default() }, 1);
        for round in 0..3u64 {
            let now_ns = 10_000 * MS * round;
            assert_eq!(sent(&mut feed, 0).matches("POST ").count(), 1);
            let shed = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n";
            feed.received(0, shed, now_ns + MS).unwrap();
            feed.tick(now_ns + 1_999 * MS);
            assert_eq!(sent(&mut feed, 0), "");
            feed.tick(now_ns + 4_000 * MS);
        }
        assert_eq!((feed.totals.clicks, feed.totals.retries), (10, 3), "one request, again and again");
    }

    #[test]
    fn requests_go_to_the_home_of_their_clicks_and_are_sent_again_there() {
        let address = Plan::default().targets[0];
        let plan = Plan { targets: vec![address, address], batch: 4, clicks_max: Some(40), ..Plan::default() };
        let clicks = Clicks::new(&plan);
        let mut feed = feed(plan, 4);
        for lane in 0..4 {
            let request = feed.lanes[lane].in_flight.front().unwrap();
            assert!(clicks.numbers(request.first, 4, lane % 2).all(|number| clicks.home(number) == lane % 2));
        }
        let first = sent(&mut feed, 1);
        feed.lost(1, MS);
        feed.received(0, &reply(4, 0), 100 * MS).unwrap();
        feed.received(2, &reply(4, 0), 100 * MS).unwrap();
        feed.tick(100 * MS);
        let others = [sent(&mut feed, 0), sent(&mut feed, 2)];
        assert!(others.iter().all(|text| !text.contains(&first)));
        feed.received(3, &reply(4, 0), 101 * MS).unwrap();
        assert!(sent(&mut feed, 3).ends_with(&first));
    }

    #[test]
    fn twins_go_out_on_two_connections_and_are_accepted_once_together() {
        for (replies, wrong) in [([(1, 0), (0, 1)], 0), ([(1, 0), (1, 0)], 1), ([(0, 1), (0, 1)], 1)] {
            // A seed with which the first request races against its twin.
            let plan = |seed| Plan { clicks_max: Some(1), duplicates: 1.0, seed, ..Plan::default() };
            let racing = |seed: &u64| Clicks::new(&plan(*seed)).again(0) == Again::Racing;
            let mut feed = feed(plan((1..).find(racing).unwrap()), 2);
            let out = [sent(&mut feed, 0), sent(&mut feed, 1)];
            assert_eq!(out[0], out[1]);
            for (lane, (accepted, duplicates)) in replies.into_iter().enumerate() {
                feed.received(lane, &reply(accepted, duplicates), MS).unwrap();
            }
            assert_eq!(feed.totals.wrong, wrong, "{replies:?}");
        }
    }

    #[test]
    fn clicks_sent_again_after_they_were_acknowledged_must_be_duplicates() {
        for (accepted, wrong) in [(0, 0), (1, 1)] {
            let plan = |seed| Plan { clicks_max: Some(1), duplicates: 1.0, seed, ..Plan::default() };
            let afterwards = |seed: &u64| Clicks::new(&plan(*seed)).again(0) == Again::Afterwards;
            let mut feed = feed(plan((1..).find(afterwards).unwrap()), 2);
            let first = sent(&mut feed, 0);
            assert_eq!(sent(&mut feed, 1), "", "not before the first is acknowledged");
            feed.received(0, &reply(1, 0), MS).unwrap();
            feed.tick(2 * MS);
            assert_eq!(sent(&mut feed, 1), first);
            feed.received(1, &reply(accepted, 1 - accepted), 3 * MS).unwrap();
            assert_eq!(feed.totals.wrong, wrong);
        }
    }

    #[test]
    fn a_retry_refused_as_too_old_is_unknown_and_a_first_try_refused_is_wrong() {
        for (retried, wrong, gave_up) in [(false, 1, 1), (true, 0, 1)] {
            let mut feed = feed(Plan { clicks_max: Some(1), ..Plan::default() }, 1);
            if retried {
                feed.lost(0, MS);
                feed.opened(0, 100 * MS);
            }
            let body = r#"{"accepted":0,"duplicates":0,"rejected":1}"#;
            let refused = format!("HTTP/1.1 422 No\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            feed.received(0, refused.as_bytes(), 101 * MS).unwrap();
            assert_eq!((feed.totals.wrong, feed.totals.gave_up, feed.ledger.total()), (wrong, gave_up, 0..=1));
        }
    }

    #[test]
    fn a_reply_never_asked_for_ends_the_connection() {
        let mut feed = feed(Plan { clicks_max: Some(1), ..Plan::default() }, 1);
        assert!(feed.received(0, &[reply(1, 0), reply(1, 0)].concat(), MS).is_err());
        assert_eq!(feed.totals.wrong, 1);
    }

    #[test]
    fn an_open_loop_keeps_its_schedule_and_measures_from_it() {
        let plan =
            Plan { rate: Rate::ClicksPerSecond(1_000.0), duration: Duration::from_millis(10), ..Plan::default() };
        let mut feed = feed(plan, 4);
        feed.tick(0);
        // Two milliseconds late: the two requests planned meanwhile go out at once, and count from their planned times.
        feed.tick(3 * MS);
        let busy: Vec<usize> = (0..4).filter(|lane| !feed.lanes[*lane].out.is_empty()).collect();
        assert_eq!((busy.len(), feed.lag.max() / MS), (4, 2));
        for lane in busy {
            feed.received(lane, &reply(1, 0), 5 * MS).unwrap();
        }
        assert_eq!(feed.latency.max() / MS, 5, "the first was planned at 0");
    }

    #[test]
    fn waiting_for_room_is_latency_but_not_the_generators_lag() {
        let plan =
            Plan { rate: Rate::ClicksPerSecond(1_000.0), duration: Duration::from_millis(10), ..Plan::default() };
        let mut feed = feed(plan, 1);
        for ms in 0..9 {
            feed.tick(ms * MS);
        }
        for _ in 0..9 {
            feed.received(0, &reply(1, 0), 9 * MS).unwrap();
        }
        assert!(feed.lag.max() < MS, "{}", feed.lag.max());
        assert_eq!((feed.latency.max() / MS, feed.issued), (9, 10));
    }

    #[test]
    fn a_request_that_is_never_answered_is_unknown_in_the_end() {
        let plan = Plan { batch: 7, clicks_max: Some(7), drain: Duration::from_secs(3), ..Plan::default() };
        // Its last new click goes out at once, so that three seconds are waited from there and not from the plan's ten.
        let mut feed = feed(Plan { timeout: Duration::from_millis(500), ..plan }, 1);
        feed.tick(400 * MS);
        assert!(!feed.lanes[0].kill);
        feed.tick(600 * MS);
        assert!(feed.lanes[0].kill, "its time is over");
        feed.lost(0, 600 * MS);
        feed.tick(2_999 * MS);
        assert!(!feed.is_done());
        feed.tick(3_401 * MS);
        assert_eq!((feed.is_done(), feed.totals.gave_up, feed.ledger.total()), (true, 1, 0..=7));
    }

    #[test]
    fn ids_are_never_sent_twice_by_chance() {
        let mut feed = feed(Plan { batch: 50, pipeline: 4, ..Plan::default() }, 8);
        let mut ids = BTreeSet::new();
        for lane in 0..8 {
            let text = sent(&mut feed, lane);
            ids.extend(text.match_indices("request_id").map(|(at, _)| text[at + 13..at + 49].to_owned()));
        }
        assert_eq!(ids.len(), 8 * 4 * 50);
    }
}
