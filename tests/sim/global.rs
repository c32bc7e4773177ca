//! Drives. The global tier behind the simulated Kafka: the product's reading, assembly and store, killed at any moment; and a model of
//! what it must come to, which knows the topic and shares no code with it.
//!
//! - each committed transaction is counted once, whatever was read twice;
//! - what comes to a minute that was published as complete is shown as a correction of it, to the click;
//! - what was said to be settled does not change but as a new version;
//! - nothing comes to what was published as final;
//! - there are no troubles where the topic is what it was; where it was emptied, what is missing is said, and nothing is counted twice;
//! - a start that does not find what was counted last where it stood reads nothing on.

mod live;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use tempfile::TempDir;
use tollgate_global::{Applied, MINUTE_MS, Marks, Options, PANE_MS, Reading, Store, TroubleKind, Window, begin_at};
use tollgate_wire::Partial;

use crate::broker::PARTIALS;
use crate::disk::in_memory;
use crate::world::{Happening, MS, SECOND, World};
use live::Live;

/// The topic's one partition.
const PARTITION: i32 = 0;
/// Soon enough for worlds of some seconds.
const IDLE_AFTER_MS: i64 = 1_500;

/// Clicks by ad and start of the pane, or of the minute.
type Rows = BTreeMap<(String, i64), u64>;

pub struct GlobalTier {
    dir: TempDir,
    live: Option<Live>,
    /// The topic was emptied; and what was to be read next is not there: it ended for good.
    emptied: bool,
    /// Something had been counted by then, and is not there any more.
    lacks_counted: bool,
    halted: bool,
    counted: BTreeSet<(String, u64)>,
    /// Where the end records of these stand, or stood.
    counted_at: BTreeSet<i64>,
    /// Of each edge: when it was counted last, whether it stopped then, and up to where it ever said that it is complete.
    edges: BTreeMap<String, (i64, bool, i64)>,
    /// Edges that were heard, and what was final by then: of one that nobody knew, anything may come.
    known: BTreeMap<String, i64>,
    rows: Rows,
    /// What must be shown as corrections, by minute.
    corrected: Rows,
    marks: Marks,
}

impl GlobalTier {
    pub fn new() -> GlobalTier {
        GlobalTier {
            dir: in_memory(),
            live: None,
            emptied: false,
            lacks_counted: false,
            halted: false,
            known: BTreeMap::new(),
            counted: BTreeSet::new(),
            counted_at: BTreeSet::new(),
            edges: BTreeMap::new(),
            rows: Rows::new(),
            corrected: Rows::new(),
            marks: Marks::default(),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("global.redb")
    }

    fn begin(&mut self, now_ms: i64) -> Live {
        let options = Options { cache_bytes: 1 << 20, idle_after_ms: IDLE_AFTER_MS, ..Options::default() };
        let store = Store::open_with(&self.path(), options).expect("what a process left behind can be opened");
        let mut reading = Reading::new(now_ms);
        // As a start does: whoever is not heard yet holds all windows open.
        reading.listen(&store, now_ms);
        let applied = reading.commit(&store, now_ms).expect("the simulated disk takes it");
        assert_eq!(applied, Applied::default(), "nothing was read yet");
        Live { store, reading, at: 0, from: 0, open: BTreeMap::new(), ready: Vec::new() }
    }

    /// The process is gone; what it had not committed is not in the file, whatever its library would do at a clean end.
    pub fn kill(&mut self) {
        let Some(live) = self.live.take() else { return };
        let left = std::fs::read(self.path()).expect("the store's file");
        drop(live);
        std::fs::write(self.path(), left).expect("the simulated disk takes it");
    }

    /// The topic has lost all that was in it.
    pub fn topic_emptied(&mut self) {
        (self.emptied, self.lacks_counted) = (true, !self.counted.is_empty());
        // A client that lives knows a topic by more than its name, and ends.
        self.kill();
    }

    /// Commits what was read, and holds what is published to the model.
    fn commit(&mut self, now_ms: i64, must: bool) -> Result<bool, String> {
        let Some(live) = &mut self.live else { return Ok(false) };
        if !must && !live.reading.is_due() {
            return Ok(false);
        }
        let settled = live.settled(self.marks)?;
        let applied = live.reading.commit(&live.store, now_ms).map_err(|error| format!("the store: {error}"))?;
        let (mut transactions, mut clicks, mut heard) = (0, 0, BTreeSet::new());
        for (offset, end, partials) in std::mem::take(&mut live.ready) {
            if !self.counted.insert((end.edge_id.clone(), end.txn_seq)) {
                continue;
            }
            for Partial { ad_id, pane_start_ms, .. } in &partials {
                let key = (ad_id.clone(), *pane_start_ms);
                let Some(before) = settled.get(&key) else { continue };
                let now = live.version(&key)?.1;
                if now <= *before {
                    return Err(format!(
                        "{key:?} was said to be settled as version {before}, is changed, and now {now}"
                    ));
                }
            }
            transactions += 1;
            self.counted_at.insert(offset);
            let said_ms = self.edges.get(&end.edge_id).map_or(i64::MIN, |(_, _, said_ms)| *said_ms);
            self.edges.insert(end.edge_id.clone(), (now_ms, end.stopped, said_ms.max(end.watermark_ms)));
            heard.insert(end.edge_id.clone());
            for partial in partials {
                clicks += partial.clicks;
                let (ad, pane_ms) = (partial.ad_id, partial.pane_start_ms);
                let heard = self.known.get(&end.edge_id).is_some_and(|then_ms| pane_ms + PANE_MS > *then_ms);
                if heard && pane_ms + PANE_MS <= self.marks.final_before_ms {
                    return Err(format!(
                        "{} clicks of {ad} come to pane {pane_ms}, final: {:?}",
                        partial.clicks, self.marks
                    ));
                }
                let minute = Window::of(pane_ms, MINUTE_MS);
                if minute.end_ms <= self.marks.closed_before_ms {
                    *self.corrected.entry((ad.clone(), minute.start_ms)).or_default() += partial.clicks;
                }
                *self.rows.entry((ad, pane_ms)).or_default() += partial.clicks;
            }
        }
        let counted = (applied.transactions, applied.clicks);
        let expected = |kind: u32| self.emptied && kind == TroubleKind::Gap.code();
        if counted != (transactions, clicks) || applied.troubles.iter().any(|(_, trouble)| !expected(trouble.kind)) {
            let troubles: Vec<_> = applied.troubles.iter().map(|(edge, trouble)| (edge, &trouble.text)).collect();
            return Err(format!(
                "{counted:?} transactions and clicks are counted, not {transactions} and {clicks}; {troubles:?}"
            ));
        }
        let marks = live.store.snapshot().map_err(|error| error.to_string())?.as_of().marks;
        for edge in heard {
            self.known.entry(edge).or_insert(marks.final_before_ms);
        }
        Ok(true)
    }

    /// What is published now: never less than before, and not beyond what an edge has said that was heard just now and has not stopped.
    fn look_at_marks(&mut self, now_ms: i64) -> Result<(), String> {
        let Some(live) = &self.live else { return Ok(()) };
        let marks = live.store.snapshot().map_err(|error| error.to_string())?.as_of().marks;
        let before = std::mem::replace(&mut self.marks, marks);
        if marks.closed_before_ms < before.closed_before_ms || marks.final_before_ms < before.final_before_ms {
            return Err(format!("{marks:?} is published after {before:?}"));
        }
        let live = |(heard_ms, stopped, _): &(i64, bool, i64)| now_ms < heard_ms + IDLE_AFTER_MS && !stopped;
        let behind = self.edges.iter().find(|(_, edge)| live(edge) && edge.2 < marks.closed_before_ms);
        if let Some(behind) = behind
            && marks.closed_before_ms > before.closed_before_ms
        {
            return Err(format!("{marks:?} is published, and {behind:?} is complete up to that only"));
        }
        Ok(())
    }

    /// What the store holds, by ad and pane; what it shows as corrected; and that it had no troubles.
    fn judge(&self) -> Result<(), String> {
        let live = self.live.as_ref().ok_or("it lives")?;
        let snapshot = live.store.snapshot().map_err(|error| error.to_string())?;
        let mut rows = Rows::new();
        let visited = snapshot.visit_counts(|count| {
            *rows.entry((count.ad_id.to_owned(), count.pane_start_ms)).or_default() += count.clicks;
        });
        visited.map_err(|error| error.to_string())?;
        same("counts", &self.rows, &rows)?;
        let ads: BTreeSet<&String> = self.rows.keys().map(|(ad, _)| ad).collect();
        let (mut corrected, ever) = (Rows::new(), Window { start_ms: 0, end_ms: i64::MAX / 2 });
        for ad in ads {
            for correction in
                snapshot.history(Some(ad), ever, usize::MAX).map_err(|error| error.to_string())?.corrections
            {
                *corrected.entry((ad.clone(), correction.minute.start_ms)).or_default() += correction.gross_added;
            }
        }
        same("corrections", &self.corrected, &corrected)?;
        for edge in snapshot.edges(0).map_err(|error| error.to_string())? {
            if self.emptied {
                continue;
            }
            if !edge.troubles.is_empty() || edge.clicks_missing > 0 || edge.held_at_ms.is_some() {
                return Err(format!("{edge:?}"));
            }
        }
        Ok(())
    }
}

fn same(what: &str, expected: &Rows, found: &Rows) -> Result<(), String> {
    let keys: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    match keys.into_iter().find(|key| expected.get(key) != found.get(key)) {
        Some(key) => {
            Err(format!("the global tier's {what} of {key:?}: {:?}, not {:?}", found.get(key), expected.get(key)))
        }
        None => Ok(()),
    }
}

impl World {
    pub fn global_turn(&mut self) {
        let every_ns = if self.rests() { 60 * SECOND } else { 400 * MS };
        let next_ns = 10 * MS + self.rng.below(every_ns);
        self.after(next_ns, Happening::GlobalTurn);
        let Some(mut global) = self.global.take() else { return };
        let done = self.global_reads(&mut global);
        self.held(done);
        self.global = Some(global);
    }

    fn global_reads(&mut self, global: &mut GlobalTier) -> Result<(), String> {
        let now_ms = self.true_ms();
        if global.halted {
            return Ok(());
        }
        let Some(live) = &mut global.live else {
            global.live = Some(global.begin(now_ms));
            if self.stops_at("after the global tier's store is begun, or opened again") {
                global.kill();
                return Ok(());
            }
            return global.look_at_marks(now_ms);
        };
        if self.sink_away {
            live.reading.falls_silent(&live.store, now_ms, now_ms).map_err(|error| error.to_string())?;
            return global.look_at_marks(now_ms);
        }
        live.reading.answers(&live.store, now_ms);
        live.reading.listen(&live.store, now_ms);
        if !self.global_gathers(global)? {
            self.trace.cover("the global tier halts over topics that were emptied");
            return Ok(());
        }
        // What was read may be in part: it stops where it pleases.
        if self.global_dies("the global tier is killed before a commit")
            || self.stops_at("after the global tier has read, before it commits")
        {
            global.kill();
            return Ok(());
        }
        let more = global.counted.len();
        global.commit(now_ms, false)?;
        self.note("the global tier commits", &[(global.counted.len() - more) as u64]);
        if self.global_dies("the global tier is killed after a commit")
            || self.stops_at("after the global tier commits, before it keeps its store up")
        {
            global.kill();
            return Ok(());
        }
        if let Some(live) = &global.live {
            live.store.keep_up(now_ms).map_err(|error| error.to_string())?;
        }
        if self.stops_at("after the global tier has kept its store up") {
            global.kill();
            return Ok(());
        }
        global.look_at_marks(now_ms)
    }

    /// In hours in which little happens, this happens as rarely.
    fn global_dies(&mut self, when: &'static str) -> bool {
        let in_1000 = if self.rests() { 5 } else { 40 };
        // In the scripted world it is stopped at its points alone.
        let dies = self.points.is_none() && !self.draining && self.rng.below(1_000) < in_1000;
        if dies {
            self.trace.cover(when);
        }
        dies
    }

    /// Takes in some of what is committed. False: it cannot be read on.
    fn global_gathers(&mut self, global: &mut GlobalTier) -> Result<bool, String> {
        let now_ms = self.true_ms();
        let Some(live) = &mut global.live else { return Ok(true) };
        let (first, end) = self.broker.ends(PARTIALS);
        if !live.reading.partitions.all.contains_key(&PARTITION) {
            if self.stops_at("before the global tier asks where its partition begins and ends") {
                global.kill();
                return Ok(true);
            }
            let stored = live.store.offsets().map_err(|error| error.to_string())?.get(&PARTITION).copied();
            if stored.is_some() {
                self.trace.cover("the global tier reads on from stored offsets");
            }
            let Some(offset) = begin_at(stored, first, end) else {
                global.halted = true;
                return if global.emptied {
                    Ok(false)
                } else {
                    Err(format!("offset {stored:?} is not in {first} to {end}"))
                };
            };
            if stored.is_some_and(|stored| stored > end) {
                return Err(format!("it reads on at {offset}, and {stored:?} is not in {first} to {end}"));
            }
            live.reading.partitions.begin(PARTITION, offset, live.store.watermark_of_partition(PARTITION), now_ms);
            // What was counted last is read once more: whether it is still there.
            let last = live.store.last_counted(PARTITION, offset);
            (live.at, live.from) = (last.as_ref().map_or(offset, |last| last.offset), offset);
            if let Some(last) = last {
                live.reading.expect(PARTITION, last);
            }
        }
        if live.at > end {
            global.halted = true;
            return if global.emptied { Ok(false) } else { Err(format!("{} is beyond {end}", live.at)) };
        }
        let (records, stable) = self.broker.committed(PARTIALS, live.at);
        let most = if self.rng.percent(50) { records.len() } else { self.rng.index(records.len() + 1) };
        for (offset, record) in records.iter().take(most) {
            live.take(*offset, record)?;
        }
        if records.len() <= most {
            live.at = stable;
            live.reading.at_end(PARTITION, Some(stable), Some(end));
        }
        live.reading.tell(&live.store, now_ms);
        if live.reading.put_back().is_some() {
            global.halted = true;
            self.trace.cover("what was counted last does not stand where it stood");
            return if global.emptied { Ok(false) } else { Err("what was counted last is not there".to_owned()) };
        }
        Ok(true)
    }

    /// Topics that were emptied have grown, and the global tier was away: at the offset that it is to read next lies something else.
    fn topics_grow(&mut self, global: &mut GlobalTier) -> bool {
        if !global.lacks_counted || global.halted || !self.options.neighbour {
            return false;
        }
        let live = global.live.take().unwrap_or_else(|| global.begin(self.true_ms()));
        let stored = live.store.offsets().expect("its own").get(&PARTITION).copied();
        let witnessed = stored.filter(|stored| global.counted_at.first().is_some_and(|at| at < stored));
        global.live = Some(live);
        global.kill();
        witnessed.is_some_and(|stored| self.neighbour_writes_beyond(stored))
    }

    /// Everything is drained: the global tier reads to the end, and is judged.
    pub fn judge_global(&mut self) {
        let Some(mut global) = self.global.take() else { return };
        let grown = self.topics_grow(&mut global);
        // What is still open in the topic is another's.
        self.now_ns += 20 * SECOND;
        (self.draining, self.sink_away) = (true, false);
        self.broker_ticks();
        while !global.halted && global.live.as_ref().is_none_or(|live| live.at < self.broker.ends(PARTIALS).1) {
            let done = self.global_reads(&mut global);
            self.held(done);
        }
        if global.halted {
            let begun = global.live.take().unwrap_or_else(|| global.begin(self.true_ms()));
            global.live = Some(begun);
            return self.held(global.judge());
        }
        assert!(!grown, "topics were emptied and have grown since, and the global tier reads on in them");
        let mut expected = self.neighbour.rows.clone();
        for ((_, ad, pane_ms), clicks) in &self.sink.rows {
            *expected.entry((ad.clone(), *pane_ms)).or_default() += clicks;
        }
        let judged = if global.emptied {
            let twice = global.rows.iter().find(|(key, clicks)| expected.get(*key).is_none_or(|most| *clicks > most));
            twice.map_or(Ok(()), |row| Err(format!("of a topic that was emptied, {row:?} was read twice")))
        } else {
            same("reading", &expected, &global.rows)
        };
        self.held(judged.and_then(|()| global.judge()));
        if !global.corrected.is_empty() {
            self.trace.cover("a minute that was complete is corrected");
        }
        if global.marks.final_before_ms > 0 {
            self.trace.cover("windows become final");
        }
    }
}
