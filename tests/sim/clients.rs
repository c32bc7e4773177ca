//! Drives. Clients: they send clicks in batches of every shape, pipelined, on several connections; give up, come back with the
//! same ids, send duplicates at the same time, send late, send nonsense; and tell the oracle what they were answered.

use std::collections::VecDeque;

use serde_json::Value;

use crate::http::{self, Reply};
use crate::options::BATCH_MAX;
use crate::oracle::{Verdict, ad_name};
use crate::world::{Happening, MS, SECOND, World};

#[derive(Default)]
pub struct Client {
    pub conns: Vec<usize>,
    /// Ids without a final answer, to be sent again.
    retries: VecDeque<usize>,
}

pub struct Request {
    tries: Vec<usize>,
    sent_ns: u64,
    /// It must be refused as a whole.
    broken: bool,
}

/// One click of a request that is being put together.
#[derive(Clone)]
struct Planned {
    id: usize,
    stamp: i64,
    other_payload: bool,
}

impl World {
    pub fn client_acts(&mut self, client: usize) {
        if self.draining {
            self.drain_client(client);
        } else {
            self.act(client);
        }
        let every_ns = match () {
            () if self.draining => 50 * MS,
            () if self.rests() => (100 * SECOND).min((self.resting_until_ns - self.now_ns) / 2),
            () => self.options.act_every_ns,
        };
        let next = self.rng.below(2 * every_ns) + 1;
        if !self.finished {
            self.after(next, Happening::ClientActs(client));
        }
    }

    /// Once more, out of turn.
    pub fn client_hurries(&mut self, client: usize) {
        if !self.draining {
            self.act(client);
        }
    }

    fn act(&mut self, client: usize) {
        self.give_up_on_silence(client, 1_500 * MS);
        if self.clients[client].conns.len() < 2
            && self.rng.percent(60)
            && let Some(number) = self.connect(client)
        {
            self.clients[client].conns.push(number);
        }
        let Some(number) = self.some_conn(client) else { return };
        match self.rng.below(100) {
            0..=2 => self.leave(number, true),
            3..=4 => self.leave(number, false),
            5..=6 => self.send_broken(number),
            _ => {
                for _ in 0..self.rng.between(1, 3) {
                    let Some(number) = self.some_conn(client) else { return };
                    let planned = self.plan(client);
                    self.send(number, &planned);
                    if self.rng.percent(25) {
                        self.send_at_the_same_time(&planned);
                    }
                }
            }
        }
    }

    /// After the load: what has no final answer is sent again until it has one.
    fn drain_client(&mut self, client: usize) {
        self.stop_when_answered();
        self.give_up_on_silence(client, 5 * SECOND);
        if self.clients[client].conns.is_empty()
            && let Some(number) = self.connect(client)
        {
            self.clients[client].conns.push(number);
        }
        let Some(number) = self.some_conn(client) else { return };
        let clients = self.clients.len();
        let mine = (0..self.oracle.ids.len()).filter(|id| id % clients == client);
        let left: Vec<usize> = mine.filter(|id| !self.oracle.settled(*id) && self.oracle.ids[*id].open == 0).collect();
        let planned: Vec<Planned> = left
            .into_iter()
            .take(20)
            .map(|id| Planned { id, stamp: self.oracle.last_stamp(id), other_payload: false })
            .collect();
        if !planned.is_empty() && self.conns[number].outstanding.len() < 2 {
            self.send(number, &planned);
        }
    }

    pub fn all_answered(&self) -> bool {
        (0..self.oracle.ids.len()).all(|id| self.oracle.settled(id) && self.oracle.ids[id].open == 0)
    }

    fn some_conn(&mut self, client: usize) -> Option<usize> {
        let conns = &self.clients[client].conns;
        (!conns.is_empty()).then(|| conns[self.rng.index(conns.len())])
    }

    /// The clicks of a request: new ones, retries, repeats, wrong ones.
    fn plan(&mut self, client: usize) -> Vec<Planned> {
        let large = self.rng.percent(self.options.large_percent);
        let clicks = match self.rng.below(100) {
            0 => u64::from(BATCH_MAX) + 2,
            _ if large => self.rng.between(9, 40),
            1..=49 => 1,
            _ => self.rng.between(2, 8),
        };
        let mut planned = Vec::new();
        for _ in 0..clicks {
            let one = self.plan_one(client);
            if self.rng.percent(2) {
                planned.push(one.clone());
            }
            planned.push(one);
        }
        planned
    }

    fn plan_one(&mut self, client: usize) -> Planned {
        let wall_ms = self.now().wall_ms;
        let known = self.oracle.ids.len();
        let choice = self.rng.below(100);
        if choice < 25 && !self.clients[client].retries.is_empty() {
            let id = self.clients[client].retries.pop_front().expect("there is one");
            let stamp = if self.rng.percent(10) { wall_ms } else { self.oracle.last_stamp(id) };
            return Planned { id, stamp, other_payload: false };
        }
        if choice < 38 && known > 0 {
            // A repeat, mostly of something recent.
            let back = self.rng.skewed(known as u64 - 1) as usize;
            let id = if self.rng.percent(70) { known - 1 - back } else { self.rng.index(known) };
            let restamped = self.rng.percent(15);
            let stamp = if restamped { wall_ms } else { self.oracle.last_stamp(id) };
            if !self.oracle.ids[id].never {
                return Planned { id, stamp, other_payload: self.rng.percent(10) };
            }
        }
        let age_ms = match self.rng.below(100) {
            0..=74 => self.rng.skewed(3_000) as i64,
            75..=92 => self.rng.below(25_000) as i64,
            93..=95 => self.rng.below(100_000) as i64,
            96..=98 => -(self.rng.below(1_500) as i64),
            _ => -3_600_000,
        };
        let shared = self.rng.percent(self.options.shared_percent);
        let campaign = if shared { format!("shared_{}", self.rng.below(6)) } else { format!("c{known}") };
        let ad = self.rng.skewed(30) as u32;
        // The hour may pass at once, where the clock leaps.
        let far = age_ms < -1_000_000;
        let never = if far { self.options.clock_is_right() } else { self.rng.percent(4) };
        Planned { id: self.oracle.id(ad, campaign, never), stamp: wall_ms - age_ms, other_payload: false }
    }

    fn send(&mut self, number: usize, planned: &[Planned]) {
        let wall_ms = self.now().wall_ms;
        let documents: Vec<String> = planned.iter().map(|click| self.document(click)).collect();
        self.hear_side(number);
        let tries = planned.iter().map(|click| self.oracle.send(click.id, click.stamp, wall_ms)).collect();
        let bytes = http::request(&documents, &mut self.rng);
        self.note("request", &[number as u64, planned.len() as u64]);
        self.put(number, &bytes, Request { tries, sent_ns: self.now_ns, broken: false });
    }

    fn put(&mut self, number: usize, bytes: &[u8], request: Request) {
        self.requests.push(request);
        self.conns[number].outstanding.push_back(self.requests.len() - 1);
        self.send_up(number, bytes);
    }

    /// The same clicks on another connection, now.
    fn send_at_the_same_time(&mut self, planned: &[Planned]) {
        let other = self.rng.index(self.clients.len());
        if let Some(number) = self.some_conn(other) {
            self.send(number, planned);
        }
    }

    fn send_broken(&mut self, number: usize) {
        let id = self.oracle.id(0, "broken".to_owned(), true);
        let wall_ms = self.now().wall_ms;
        let documents = [self.document(&Planned { id, stamp: wall_ms, other_payload: false })];
        let bytes = http::broken_request(&documents, &mut self.rng);
        let tries = vec![self.oracle.send(id, wall_ms, wall_ms)];
        self.put(number, &bytes, Request { tries, sent_ns: self.now_ns, broken: true });
    }

    /// The click as a JSON document. One that may never be taken is wrong by itself, or far in the future.
    fn document(&mut self, click: &Planned) -> String {
        let Planned { id, stamp, other_payload } = *click;
        let known = &self.oracle.ids[id];
        let (ad, campaign) = (ad_name(known.ad), known.campaign.clone());
        let user = if other_payload { "someone_else".to_owned() } else { format!("u{}", id % 50) };
        let name = match id % 10 {
            0..=5 => format!("\"request_id\":\"{:08x}-0000-4000-8000-{:012x}\"", self.seed as u32, id),
            6..=8 => format!("\"request_id\":\"request {id}\""),
            _ => format!("\"impression_id\":\"imp {id}\",\"event_type\":\"click\""),
        };
        let far_ahead = stamp > self.now().wall_ms + 1_000_000;
        if known.never && !far_ahead {
            return match self.rng.below(4) {
                0 => format!("{{\"timestamp\":{stamp},{name},\"campaign_id\":\"{campaign}\"}}"),
                1 => format!("{{\"ad_id\":\"{ad}\",\"timestamp\":\"when\",{name},\"campaign_id\":\"{campaign}\"}}"),
                2 => format!("{{\"ad_id\":7,\"timestamp\":{stamp},{name},\"campaign_id\":\"{campaign}\"}}"),
                _ => format!("{{\"ad_id\":\"{}\",\"timestamp\":{stamp},{name}}}", "x".repeat(65)),
            };
        }
        format!(
            "{{\"ad_id\":\"{ad}\",\"timestamp\":{stamp},{name},\"user_id\":\"{user}\",\"campaign_id\":\"{campaign}\"}}"
        )
    }

    /// Bytes of replies came: each answers the oldest request of its connection.
    pub fn client_reads(&mut self, number: usize) {
        loop {
            let taken = http::take_reply(&mut self.conns[number].received);
            let Some(reply) = self.held(taken) else { return };
            self.note("reply", &[number as u64, u64::from(reply.status)]);
            self.trace.bytes(&reply.body);
            self.hear_side(number);
            let Some(request) = self.conns[number].outstanding.pop_front() else {
                // Said of the connection, not of a request: too many are open, or the next one never came.
                assert!(matches!(reply.status, 503 | 408), "an answer {} that nobody asked for", reply.status);
                continue;
            };
            self.answered(request, &reply);
            if reply.close {
                self.abandon(number, false);
                self.client_lost(number);
                return;
            }
        }
    }

    fn answered(&mut self, request: usize, reply: &Reply) {
        let Request { tries, broken, .. } = &self.requests[request];
        let (tries, broken) = (tries.clone(), *broken);
        let verdicts = match reply.status {
            202 | 422 => {
                assert!(!broken, "a request that breaks the rules was answered {}", reply.status);
                let read = self.read_verdicts(&tries, reply);
                self.held(read)
            }
            503 => {
                self.trace.cover("shed");
                if String::from_utf8_lossy(&reply.body).contains("unfinished requests") {
                    self.trace.cover("shed for want of memory");
                }
                vec![Verdict::Unknown; tries.len()]
            }
            400..=431 | 501 | 505 => {
                self.trace.cover("request refused as a whole");
                vec![Verdict::NotTaken; tries.len()]
            }
            status => panic!("an answer {status}: {}", String::from_utf8_lossy(&reply.body)),
        };
        for (at, verdict) in tries.into_iter().zip(verdicts) {
            self.end_try(at, verdict);
        }
    }

    fn end_try(&mut self, at: usize, verdict: Verdict) {
        let wall_ms = self.now().wall_ms;
        let ended = self.oracle.end(at, verdict, wall_ms);
        self.held(ended);
        let id = self.oracle.tries[at].id;
        if !self.oracle.settled(id) && self.rng.percent(85) {
            let client = self.rng.index(self.clients.len());
            self.clients[client].retries.push_back(id);
        }
    }

    /// What an answer with counts says of each click.
    fn read_verdicts(&mut self, tries: &[usize], reply: &Reply) -> Result<Vec<Verdict>, String> {
        let body: Value = serde_json::from_slice(&reply.body).map_err(|error| format!("a reply's body: {error}"))?;
        let number = |name: &str| body[name].as_u64().ok_or_else(|| format!("a reply without {name}: {body}"));
        let (accepted, duplicates, rejected) = (number("accepted")?, number("duplicates")?, number("rejected")?);
        if accepted + duplicates + rejected != tries.len() as u64 {
            return Err(format!("{body} answers {} clicks", tries.len()));
        }
        if (reply.status == 422) != (accepted + duplicates == 0) {
            return Err(format!("{body} came as {}", reply.status));
        }
        let mut verdicts = vec![if duplicates == 0 { Verdict::Accepted } else { Verdict::Taken }; tries.len()];
        let errors = body["errors"].as_array().cloned().unwrap_or_default();
        if (errors.len() as u64) < rejected {
            // A reader that does not read gets shorter lists: which clicks were refused is not said.
            self.trace.cover("list of errors cut short");
            verdicts.fill(Verdict::Unknown);
            self.oracle.some_accepted(tries, accepted);
        }
        for error in &errors {
            let index = error["index"].as_u64().unwrap_or(u64::MAX) as usize;
            *verdicts.get_mut(index).ok_or_else(|| format!("{body} refuses click {index}"))? = Verdict::Refused;
            if error["reason"] == "too_old" {
                self.trace.cover("too old");
            }
        }
        let may = self.oracle.may_be_accepted(tries) as u64;
        if accepted > may {
            return Err(format!(
                "{body} accepts more than the {may} clicks that may be new: {}",
                self.oracle.story(tries)
            ));
        }
        if duplicates > 0 {
            self.trace.cover("duplicate answered");
        }
        Ok(verdicts)
    }

    fn give_up_on_silence(&mut self, client: usize, patience_ns: u64) {
        for number in self.clients[client].conns.clone() {
            let oldest = self.conns[number].outstanding.front();
            let silent = oldest.is_some_and(|oldest| self.now_ns > self.requests[*oldest].sent_ns + patience_ns);
            if silent {
                self.trace.cover("client gave up");
                let reset = self.rng.percent(50);
                self.leave(number, reset);
            }
        }
    }

    pub fn leave(&mut self, number: usize, reset: bool) {
        self.note("leave", &[number as u64, u64::from(reset)]);
        self.abandon(number, reset);
        self.client_lost(number);
    }

    /// A connection is over for its client: what was not answered may have been taken or not.
    pub fn client_lost(&mut self, number: usize) {
        let client = self.conns[number].client;
        self.clients[client].conns.retain(|conn| *conn != number);
        for request in std::mem::take(&mut self.conns[number].outstanding) {
            for at in self.requests[request].tries.clone() {
                self.end_try(at, Verdict::Unknown);
            }
        }
    }
}
