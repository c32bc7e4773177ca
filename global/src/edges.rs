//! Pure. What the store knows of each edge, and what the edges together claim: watermark, what is closed, what is final.

use std::collections::BTreeMap;

use tollgate_wire::EndRecord;

use crate::hearing::Hearing;
use crate::records::{Edge, LogSeen, Trouble};

/// Troubles of an edge that are kept; older ones are only counted.
const TROUBLES_MAX: usize = 16;
/// Logs of an edge whose position is kept, those written last. A new one begins with each set of cores.
const LOGS_MAX: usize = 1_024;

/// Whether something waits for an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Live,
    /// Nothing came for longer than `--idle-after`, and could not have: Kafka is away, or its partition is not read to the end. It
    /// holds windows open as a live one does.
    Unheard,
    /// Nothing came for longer than `--idle-after`: it holds no window open, but keeps windows from being final.
    Silent,
    /// It said that it stops: as silent, and as it should be.
    Stopped,
    /// An operator's word: nothing waits for it.
    Retired,
}

impl Presence {
    pub const ALL: [Presence; 5] =
        [Presence::Live, Presence::Unheard, Presence::Silent, Presence::Stopped, Presence::Retired];

    pub fn name(self) -> &'static str {
        match self {
            Presence::Live => "live",
            Presence::Unheard => "unheard",
            Presence::Silent => "silent",
            Presence::Stopped => "stopped",
            Presence::Retired => "retired",
        }
    }

    /// Whether windows wait for what it has not said yet.
    pub fn holds_back(self) -> bool {
        match self {
            Presence::Live | Presence::Unheard => true,
            Presence::Silent | Presence::Stopped | Presence::Retired => false,
        }
    }
}

/// What did not go as the contract says. Nothing is guessed: what it says of counts is all that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// Transactions are missing: their clicks are not counted.
    Gap,
    /// A transaction that is not whole, and was not counted.
    Torn,
    /// A transaction that had been counted came again, and was not counted again.
    Repeated,
    /// A transaction of which a part had been counted: it was not counted.
    Overlap,
}

impl TroubleKind {
    pub const ALL: [TroubleKind; 4] =
        [TroubleKind::Gap, TroubleKind::Torn, TroubleKind::Repeated, TroubleKind::Overlap];

    pub fn name(self) -> &'static str {
        match self {
            TroubleKind::Gap => "gap",
            TroubleKind::Torn => "torn",
            TroubleKind::Repeated => "repeated",
            TroubleKind::Overlap => "overlap",
        }
    }

    /// Codes are on disk.
    pub fn code(self) -> u32 {
        match self {
            TroubleKind::Gap => 1,
            TroubleKind::Torn => 2,
            TroubleKind::Repeated => 3,
            TroubleKind::Overlap => 4,
        }
    }

    /// Whether counts lack something, so that nothing after it is final until somebody has looked.
    pub fn lacks_clicks(self) -> bool {
        match self {
            TroubleKind::Gap | TroubleKind::Torn | TroubleKind::Overlap => true,
            TroubleKind::Repeated => false,
        }
    }
}

/// One edge, as `/v1/edges` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeState {
    pub edge_id: String,
    pub presence: Presence,
    /// When its last transaction was committed here; None: none that was whole.
    pub seen_ms: Option<i64>,
    /// None: it has claimed nothing yet.
    pub watermark_ms: Option<i64>,
    pub horizon_ms: i64,
    pub txn_seq: u64,
    /// Clicks counted from it, of all classes.
    pub clicks: u64,
    /// Clicks that are known to be missing: what a gap's logs counted.
    pub clicks_missing: u64,
    /// How often each kind was seen, in the order of [`TroubleKind::ALL`].
    pub troubles_seen: [u64; 4],
    /// The last few, the oldest first.
    pub troubles: Vec<Trouble>,
    /// Nothing past this is final until `tollgate edges accept`: counts lack something. Never of one that is retired.
    pub held_at_ms: Option<i64>,
    /// Nothing past this becomes final for its sake, whatever the others claim. None: it holds nothing.
    pub holds_final_at_ms: Option<i64>,
}

impl EdgeState {
    pub fn of(edge_id: &str, edge: &Edge, now_ms: i64, idle_after_ms: i64, hearing: &Hearing) -> EdgeState {
        let presence = edge.presence(now_ms, idle_after_ms, hearing);
        EdgeState {
            edge_id: edge_id.to_owned(),
            presence,
            seen_ms: (edge.seen_ms > 0).then_some(edge.seen_ms),
            watermark_ms: (edge.watermark_ms > 0).then_some(edge.watermark_ms),
            horizon_ms: edge.horizon_ms,
            txn_seq: edge.end.txn_seq,
            clicks: edge.clicks,
            clicks_missing: edge.clicks_missing,
            troubles_seen: TroubleKind::ALL.map(|kind| edge.seen(kind)),
            troubles: edge.troubles.clone(),
            held_at_ms: edge.held_at_ms.filter(|_| presence != Presence::Retired),
            holds_final_at_ms: edge.holds_final_at(presence),
        }
    }

    /// How long ago its last transaction was committed.
    pub fn silent_ms(&self, now_ms: i64) -> Option<i64> {
        self.seen_ms.map(|seen_ms| now_ms.saturating_sub(seen_ms).max(0))
    }
}

/// What a transaction is to what was counted of its edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The one after the last, from where the last ended.
    Next,
    /// Its clicks were not counted, but others before it are missing.
    AfterGap { clicks_missing: u64 },
    /// All of its clicks were counted.
    Repeated,
    /// Some of its clicks were counted, or its number was used for others: which, cannot be told.
    Overlap,
}

impl Verdict {
    /// What a person is told of transaction `txn_seq`, after which `last_seq` was counted; with the clicks that are missing.
    pub fn trouble(&self, txn_seq: u64, last_seq: u64) -> Option<(TroubleKind, u64, String)> {
        let told = match self {
            Verdict::Next => return None,
            Verdict::AfterGap { clicks_missing } => (
                TroubleKind::Gap,
                *clicks_missing,
                format!("transaction {txn_seq} came after {last_seq}; {clicks_missing} clicks are missing in between"),
            ),
            Verdict::Repeated => (
                TroubleKind::Repeated,
                0,
                format!("transaction {txn_seq} came again after {last_seq}, and was not counted again"),
            ),
            Verdict::Overlap => (
                TroubleKind::Overlap,
                0,
                format!(
                    "transaction {txn_seq} holds clicks that were counted with {last_seq} or before, and others: none of it was counted"
                ),
            ),
        };
        Some(told)
    }
}

impl Edge {
    pub fn presence(&self, now_ms: i64, idle_after_ms: i64, hearing: &Hearing) -> Presence {
        let partition = self.place.map(|place| place.partition);
        let (silent_ms, unseen_ms) = hearing.silence_ms(partition, self.seen_ms, now_ms);
        if self.retired {
            Presence::Retired
        } else if self.stopped {
            Presence::Stopped
        } else if silent_ms > idle_after_ms {
            Presence::Silent
        } else if unseen_ms > idle_after_ms {
            Presence::Unheard
        } else {
            Presence::Live
        }
    }

    /// Whether a transaction of it was ever counted. One of which none was has claimed nothing: it may be an edge whose first was torn,
    /// and it may be none at all, but a name in a record of somebody else's.
    pub fn is_counted(&self) -> bool {
        self.end.txn_seq > 0
    }

    /// Nothing past this becomes final for its sake: not what it may still take, nor what somebody has to look at first.
    pub fn holds_final_at(&self, presence: Presence) -> Option<i64> {
        let own = self.is_counted().then_some(self.horizon_ms);
        [own, self.held_at_ms].into_iter().flatten().min().filter(|_| presence != Presence::Retired)
    }

    /// Whether its last transaction stands in this partition.
    pub fn is_in(&self, partition: i32) -> bool {
        self.place.is_some_and(|place| place.partition == partition)
    }

    /// What is kept of its places in a partition, or in all, means nothing any more.
    pub fn forget_places(&mut self, partition: Option<i32>) {
        for place in [&mut self.place, &mut self.counted_at] {
            *place = place.filter(|place| partition.is_some_and(|of| place.partition != of));
        }
    }

    /// Compares a transaction's number and ranges with what was counted: a click is named by its log and its place there.
    pub fn judge(&self, end: &EndRecord) -> Verdict {
        let (mut counted, mut fresh, mut missing, mut broken) = (0u64, 0u64, 0u64, false);
        // Up to where each log is counted, this transaction's own ranges included: it may take a log in several.
        let mut counted_to: BTreeMap<&[u8], (u64, u64)> =
            self.logs.iter().map(|seen| (seen.log_uuid.as_slice(), (seen.lsn, seen.clicks_total))).collect();
        for range in &end.ranges {
            let known = counted_to.get(range.log_uuid.as_slice()).copied();
            let (lsn, total) = known.unwrap_or_default();
            if range.to_lsn <= lsn && known.is_some() {
                // A range without records says only how things stood.
                counted += u64::from(range.to_lsn > range.from_lsn);
                continue;
            }
            if range.from_lsn < lsn {
                return Verdict::Overlap;
            }
            fresh += 1;
            let before = range.clicks_total.saturating_sub(range.clicks);
            missing += before.saturating_sub(total);
            broken |= range.from_lsn > lsn;
            counted_to.insert(&range.log_uuid, (range.to_lsn, range.clicks_total));
        }
        let expected = self.end.txn_seq + 1;
        if end.txn_seq < expected {
            return if fresh == 0 { Verdict::Repeated } else { Verdict::Overlap };
        }
        match (counted > 0, fresh > 0) {
            (true, true) => Verdict::Overlap,
            (true, false) => Verdict::Repeated,
            // The first that is ever seen of an edge may begin anywhere: its topic may not reach back to the start. That
            // something is missing then is known all the same.
            (false, _) if end.txn_seq > expected || missing > 0 || broken && self.end.txn_seq > 0 => {
                Verdict::AfterGap { clicks_missing: missing }
            }
            (false, _) => Verdict::Next,
        }
    }

    /// Takes in what a counted transaction claims, keeping the highest.
    pub fn advance(&mut self, end: &EndRecord, now_ms: i64) {
        self.watermark_ms = self.watermark_ms.max(end.watermark_ms);
        self.horizon_ms = self.horizon_ms.max(end.horizon_ms);
        self.seen_ms = self.seen_ms.max(now_ms);
        (self.stopped, self.retired) = (end.stopped, false);
        self.clicks += end.ranges.iter().map(|range| range.clicks).sum::<u64>();
        for range in &end.ranges {
            self.logs.retain(|seen| seen.log_uuid != range.log_uuid || seen.lsn > range.to_lsn);
            if self.logs.iter().all(|seen| seen.log_uuid != range.log_uuid) {
                let seen =
                    LogSeen { log_uuid: range.log_uuid.clone(), lsn: range.to_lsn, clicks_total: range.clicks_total };
                self.logs.push(seen);
            }
        }
        let beyond = self.logs.len().saturating_sub(LOGS_MAX);
        self.logs.drain(..beyond);
        self.end = end.clone();
    }

    /// Takes in a transaction whose clicks were all counted: it adds nothing. Where its number is the next one, nothing lacks between
    /// it and the one after.
    pub fn repeats(&mut self, end: &EndRecord, now_ms: i64) {
        self.seen_ms = now_ms;
        if end.txn_seq == self.end.txn_seq + 1 {
            (self.end.txn_seq, self.counted_at) = (end.txn_seq, None);
        }
    }

    pub fn note(&mut self, trouble: Trouble) {
        let kind = TroubleKind::ALL.into_iter().find(|kind| kind.code() == trouble.kind);
        if kind.is_some_and(TroubleKind::lacks_clicks) {
            // Before it, nothing that was final can lack anything.
            self.held_at_ms.get_or_insert(self.horizon_ms);
        }
        self.clicks_missing += trouble.clicks;
        *self.troubles_seen.entry(trouble.kind).or_default() += 1;
        self.troubles.push(trouble);
        let beyond = self.troubles.len().saturating_sub(TROUBLES_MAX);
        self.troubles.drain(..beyond);
    }

    pub fn seen(&self, kind: TroubleKind) -> u64 {
        self.troubles_seen.get(&kind.code()).copied().unwrap_or(0)
    }
}

/// What all edges together claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The smallest watermark of live edges; where none is live, the highest of the others. None: no edge that was counted, or one
    /// that claims nothing yet.
    pub watermark_ms: Option<i64>,
    /// The smallest that an edge holds it at.
    pub horizon_ms: Option<i64>,
}

impl Claims {
    pub fn of<'a>(edges: impl Iterator<Item = &'a Edge>, now_ms: i64, idle_after_ms: i64, hearing: &Hearing) -> Claims {
        let (mut live, mut others, mut horizon) = (None::<i64>, None::<i64>, None::<i64>);
        for edge in edges {
            let presence = edge.presence(now_ms, idle_after_ms, hearing);
            if !edge.is_counted() {
                // It claims nothing, so it holds nothing open.
            } else if presence.holds_back() {
                live = Some(live.map_or(edge.watermark_ms, |least| least.min(edge.watermark_ms)));
            } else {
                others = others.max(Some(edge.watermark_ms));
            }
            if let Some(own) = edge.holds_final_at(presence) {
                horizon = Some(horizon.map_or(own, |least| least.min(own)));
            }
        }
        Claims { watermark_ms: live.or(others).filter(|at| *at > 0), horizon_ms: horizon }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_wire::LogRange;

    fn end(txn_seq: u64, from_lsn: u64, to_lsn: u64, clicks_total: u64) -> EndRecord {
        let clicks = to_lsn - from_lsn;
        let range = LogRange { log_uuid: vec![7; 16], from_lsn, to_lsn, clicks, clicks_total };
        EndRecord { txn_seq, ranges: vec![range], watermark_ms: 100, horizon_ms: 50, ..EndRecord::default() }
    }

    fn edge() -> Edge {
        let mut edge = Edge::default();
        edge.advance(&end(1, 0, 10, 10), 1_000);
        edge
    }

    #[test]
    fn a_transaction_is_judged_by_its_number_and_its_ranges() {
        assert_eq!(Edge::default().judge(&end(1, 0, 10, 10)), Verdict::Next);
        assert_eq!(Edge::default().judge(&end(5, 30, 40, 40)), Verdict::AfterGap { clicks_missing: 30 });
        let cases = [
            (end(2, 10, 20, 20), Verdict::Next),
            (end(2, 10, 10, 10), Verdict::Next),
            (end(3, 20, 30, 30), Verdict::AfterGap { clicks_missing: 10 }),
            (end(2, 15, 20, 20), Verdict::AfterGap { clicks_missing: 5 }),
            (end(3, 10, 20, 20), Verdict::AfterGap { clicks_missing: 0 }),
            (end(1, 0, 10, 10), Verdict::Repeated),
            (end(7, 0, 10, 10), Verdict::Repeated),
            (end(2, 5, 20, 20), Verdict::Overlap),
            (end(1, 10, 20, 20), Verdict::Overlap),
        ];
        for (sent, expected) in cases {
            assert_eq!(edge().judge(&sent), expected, "{sent:?}");
        }
        let mut in_two = end(2, 10, 20, 20);
        in_two.ranges.push(end(2, 20, 25, 25).ranges.remove(0));
        assert_eq!(edge().judge(&in_two), Verdict::Next, "one log in two ranges");
        in_two.ranges[1].from_lsn = 15;
        assert_eq!(edge().judge(&in_two), Verdict::Overlap, "that overlap");
        let mut other_log = end(2, 0, 4, 4);
        other_log.ranges[0].log_uuid = vec![8; 16];
        assert_eq!(edge().judge(&other_log), Verdict::Next, "a log that is new");
        other_log.ranges.push(end(2, 0, 10, 10).ranges.remove(0));
        assert_eq!(edge().judge(&other_log), Verdict::Overlap, "one range counted, one not");
    }

    /// Clicks that come again under the next number, as after a checkpoint was put back, leave no gap; under one that is further on,
    /// what lies in between may be missing.
    #[test]
    fn what_follows_a_repetition_is_next_where_no_number_is_skipped() {
        for (again, verdict) in [(2, Verdict::Next), (3, Verdict::AfterGap { clicks_missing: 0 })] {
            let mut edge = edge();
            let repeated = end(again, 0, 10, 10);
            assert_eq!(edge.judge(&repeated), Verdict::Repeated);
            edge.repeats(&repeated, 2_000);
            assert_eq!(edge.judge(&end(again + 1, 10, 20, 20)), verdict, "after {again}");
            assert_eq!((edge.clicks, edge.seen_ms), (10, 2_000));
        }
    }

    #[test]
    fn who_holds_back_what() {
        let counted = EndRecord { txn_seq: 1, ..EndRecord::default() };
        let with = |watermark_ms, horizon_ms, seen_ms| Edge {
            watermark_ms,
            horizon_ms,
            seen_ms,
            end: counted.clone(),
            ..Edge::default()
        };
        let (mut a, mut b) = (with(100, 50, 1_000), with(200, 150, 1_000));
        let claims = |a: &Edge, b: &Edge, now| Claims::of([a, b].into_iter(), now, 100, &Hearing::default());
        assert_eq!(claims(&a, &b, 1_050), Claims { watermark_ms: Some(100), horizon_ms: Some(50) });
        b.seen_ms = 1_200;
        let silent = Claims { watermark_ms: Some(200), horizon_ms: Some(50) };
        assert_eq!(claims(&a, &b, 1_200), silent, "silence closes and does not make final");
        let heard = |now, from_ms, to_ms: Option<i64>| {
            let mut hearing = Hearing::since(from_ms);
            to_ms.into_iter().for_each(|to_ms| hearing.others.is_deaf(to_ms));
            (Claims::of([&a, &b].into_iter(), now, 100, &hearing).watermark_ms, a.presence(now, 100, &hearing))
        };
        assert_eq!(heard(1_200, 1_150, None), (Some(100), Presence::Live), "not yet listened to");
        assert_eq!(heard(1_060, 0, Some(1_050)), (Some(100), Presence::Live));
        assert_eq!(
            heard(9_000, 0, Some(1_050)),
            (Some(100), Presence::Unheard),
            "nobody can be heard since it was live"
        );
        assert_eq!(heard(9_000, 0, Some(1_200)), (Some(200), Presence::Silent), "it was silent before");
        a.retired = true;
        assert_eq!(claims(&a, &b, 1_200), Claims { watermark_ms: Some(200), horizon_ms: Some(150) });
        b.note(Trouble { kind: TroubleKind::Gap.code(), clicks: 3, ..Trouble::default() });
        b.horizon_ms = 900;
        assert_eq!(claims(&a, &b, 1_200).horizon_ms, Some(150), "what lacks clicks is not final");
        assert_eq!(claims(&a, &b, 9_000).watermark_ms, Some(200), "all silent: the highest");
        b.watermark_ms = 0;
        assert_eq!(claims(&a, &b, 1_200).watermark_ms, None, "a live one that claims nothing yet");
    }

    /// What an operator reads is what holds: of an edge that was counted, of one that never was, live, silent or retired.
    #[test]
    fn each_says_where_it_holds_final() {
        let torn = || Trouble { kind: TroubleKind::Torn.code(), ..Trouble::default() };
        let mut never = Edge::default();
        let holds = |edge: &Edge| {
            let hearing = &Hearing::since(1_000);
            let shown = EdgeState::of("x", edge, 1_050, 100, hearing);
            let claims = Claims::of([edge].into_iter(), 1_050, 100, hearing);
            assert_eq!(claims.horizon_ms, shown.holds_final_at_ms);
            (shown.presence, shown.holds_final_at_ms, shown.held_at_ms, claims.watermark_ms)
        };
        never.note(torn());
        assert_eq!(holds(&never), (Presence::Live, Some(0), Some(0), None));
        never.held_at_ms = None;
        assert_eq!(holds(&never), (Presence::Live, None, None, None), "accepted");
        let mut edge = edge();
        assert_eq!(holds(&edge), (Presence::Live, Some(50), None, Some(100)));
        edge.note(torn());
        edge.horizon_ms = 900;
        assert_eq!(holds(&edge), (Presence::Live, Some(50), Some(50), Some(100)));
        edge.retired = true;
        assert_eq!(holds(&edge), (Presence::Retired, None, None, Some(100)), "whatever it lacks");
    }
}
