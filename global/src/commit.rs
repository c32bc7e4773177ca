//! One commit of the store: what it writes to the file, and what is in memory after it. Everything here happens in one
//! transaction of the file, or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use redb::WriteTransaction;
use tollgate_wire::{Checkpoint, EndRecord, Transaction};

use crate::ads::AdIndex;
use crate::batch::{Applied, Batch, Delivered, Delivery};
use crate::catalogue::Catalogue;
use crate::edges::{Claims, TroubleKind, Verdict};
use crate::entries::Entries;
use crate::fold::{add_corrections, add_late, add_to_rows, drop_folded_runs, merge_runs};
use crate::hearing::Hearing;
use crate::history::Corrections;
use crate::key::{self, PANE_MS, Parts};
use crate::panes::{Run, RunBuilder, RunError, merge_rows};
use crate::records::{Edge, Place, Trouble};
use crate::rollup::{self, Step};
use crate::snapshot::Moment;
use crate::source;
use crate::store::{Options, Store};
use crate::tables::{
    CAUGHT_UP, CHECKPOINTS, COMMITTED_MS, COUNTED, EDGES, GENERATION, RUNS, STATE, StoreError, damaged_key,
    put_progress, put_state, read,
};
use crate::tops::{self, Tops};
use crate::transaction::Refusal;
use crate::window::Grain;

/// More runs make every query look into more places; a cut a second closes its panes within 20 s unless an edge is silent.
const OPEN_RUNS_MAX: usize = 256;
/// More is not merged into one run: the file takes values of up to 3 GiB, and sketches that are few users' each take more than twice as
/// much when they are one of many.
const MERGED_BYTES_MAX: usize = 1 << 30;
/// A pane this far ahead of its edge's watermark goes to its row at once: it would stay open too long.
const OPEN_AHEAD_MS: i64 = 5 * 60 * 1000;

/// What whoever commits keeps in memory from one commit to the next.
pub struct Writer {
    pub edges: BTreeMap<String, Edge>,
    ads: AdIndex,
    /// Windows do not close beyond this, however far the edges are: partitions are behind.
    pub closing_cap_ms: Option<i64>,
}

impl Writer {
    /// Of a store that keeps hours from `kept_from_ms` on.
    pub fn new(edges: BTreeMap<String, Edge>, kept_from_ms: i64) -> Writer {
        Writer { edges, ads: AdIndex::new(kept_from_ms), closing_cap_ms: None }
    }
}

/// A commit in the making.
pub struct Commit<'a> {
    file: &'a WriteTransaction,
    writer: &'a mut Writer,
    options: &'a Options,
    before: Arc<Moment>,
    pub after: Moment,
    /// Those that change.
    edges: BTreeMap<String, Edge>,
    now_ms: i64,
    hearing: Hearing,
    catalogue: &'a Catalogue,
    /// Clicks that named another campaign, and another advertiser, than the catalogue does.
    pub mismatches: [u64; 2],
}

impl<'a> Commit<'a> {
    pub fn new(
        file: &'a WriteTransaction,
        writer: &'a mut Writer,
        options: &'a Options,
        before: Arc<Moment>,
        (now_ms, hearing): (i64, Hearing),
        catalogue: &'a Catalogue,
    ) -> Commit<'a> {
        let after = Moment { generation: before.generation + 1, ..Moment::clone(&before) };
        let (edges, mismatches) = (BTreeMap::new(), [0; 2]);
        Commit { file, writer, options, before, after, edges, now_ms, hearing, catalogue, mismatches }
    }

    /// Takes an edge's transaction with its checkpoint, if it is the next after the stored one.
    /// `entries` are of its partials.
    pub fn take(&mut self, transaction: &Transaction, entries: &Entries) -> Result<(), StoreError> {
        let (next, end) = (&transaction.checkpoint, &transaction.end);
        let edge_id = next.edge_id.as_str();
        {
            let mut table = self.file.open_table(CHECKPOINTS).map_err(redb::Error::from)?;
            let last: Option<Checkpoint> = read(&table, edge_id)?;
            if last.as_ref() == Some(next) {
                return Err(StoreError::AlreadyCommitted { edge_id: edge_id.to_owned(), txn_seq: next.txn_seq });
            }
            let expected = last.map_or(0, |last| last.txn_seq) + 1;
            if next.txn_seq != expected {
                return Err(StoreError::Sequence { edge_id: edge_id.to_owned(), expected, found: next.txn_seq });
            }
            table.insert(edge_id, next.encode_to_vec().as_slice()).map_err(redb::Error::from)?;
        }
        let silent = self.is_silent(edge_id);
        let now_ms = self.now_ms;
        self.edge(edge_id).advance(end, now_ms);
        self.count(&[Counted { entries, end, silent }])
    }

    /// Takes what was consumed.
    pub fn apply(&mut self, batch: &Batch<'_>) -> Result<Applied, StoreError> {
        self.writer.closing_cap_ms = batch.closing_cap_ms;
        self.after.has_caught_up |= batch.closing_cap_ms.is_none();
        let (mut applied, mut counted) = (Applied::default(), Vec::new());
        for delivered in batch.deliveries {
            match delivered {
                Delivered::Whole(delivery) => counted.extend(self.judge(delivery, &mut applied)),
                Delivered::Torn(torn) => {
                    if !self.was_read(&torn.edge_id, torn.place) {
                        self.edge(&torn.edge_id).place = Some(torn.place);
                        let trouble = self.trouble(TroubleKind::Torn, torn.txn_seq, 0, torn.why.clone());
                        self.note(&torn.edge_id, trouble, &mut applied);
                    }
                }
            }
        }
        source::put_offsets(self.file, batch.offsets)?;
        self.count(&counted)?;
        Ok(applied)
    }

    /// What stands in a partition, or in all, is read anew, and judged anew.
    pub fn forget_places(&mut self, partition: Option<i32>) -> Result<(), StoreError> {
        for edge_id in self.writer.edges.keys().cloned().collect::<Vec<_>>() {
            self.edge(&edge_id).forget_places(partition);
        }
        source::remove_offsets(self.file, partition)
    }

    /// Closes what time has closed, and does a step of rolling up or pruning. True: there is more to do.
    pub fn keep_up(&mut self) -> Result<bool, StoreError> {
        self.keep_up_by(Step::default())
    }

    pub fn keep_up_by(&mut self, step: Step) -> Result<bool, StoreError> {
        self.count(&[])?;
        let rolled = rollup::roll(self.file, &mut self.after.progress, step)?;
        let pruned = rollup::prune(self.file, &mut self.after.progress, &self.options.retention, step)?;
        let kept_from_ms = self.after.progress.kept_from(Grain::Hour);
        let swept = self.writer.ads.sweep(self.file, kept_from_ms, step.rows)?;
        Ok(rolled || pruned || swept)
    }

    /// False: there is no such edge.
    pub fn change_edge(&mut self, edge_id: &str, change: impl FnOnce(&mut Edge)) -> Result<bool, StoreError> {
        if !self.writer.edges.contains_key(edge_id) {
            return Ok(false);
        }
        change(self.edge(edge_id));
        self.count(&[])?;
        Ok(true)
    }

    /// Writes what goes with every commit; what is in memory after it.
    pub fn finish(self) -> Result<(Moment, BTreeMap<String, Edge>), StoreError> {
        let mut table = self.file.open_table(EDGES).map_err(redb::Error::from)?;
        for (edge_id, edge) in &self.edges {
            table.insert(edge_id.as_str(), edge.encode_to_vec().as_slice()).map_err(redb::Error::from)?;
        }
        if self.after.progress != self.before.progress {
            put_progress(self.file, &self.after.progress)?;
        }
        if self.after.counted != self.before.counted {
            let mut counted = self.file.open_table(COUNTED).map_err(redb::Error::from)?;
            for (class, clicks) in &self.after.counted {
                counted.insert(class, clicks).map_err(redb::Error::from)?;
            }
        }
        let mut state = self.file.open_table(STATE).map_err(redb::Error::from)?;
        put_state(&mut state, GENERATION, self.after.generation)?;
        if self.after.has_caught_up && !self.before.has_caught_up {
            put_state(&mut state, CAUGHT_UP, 1)?;
        }
        if let Some(committed_ms) = self.after.committed_ms {
            put_state(&mut state, COMMITTED_MS, committed_ms)?;
        }
        Ok((self.after, self.edges))
    }

    /// Adds counts of the last hour to the ranking, which lets go of what is older.
    fn add_to_tops(&mut self, run: &Run, direct: &Run) -> Result<(), StoreError> {
        let closed_before_ms = self.after.progress.marks.closed_before_ms;
        let (tops, mut batch) = (&mut self.after.tops, tops::Batch::default());
        if !run.is_empty() || !direct.is_empty() {
            // Once for all rows, or each would wait for another ranking.
            let mut names = tops.names();
            for entry in run.entries().chain(direct.entries()) {
                let row = Parts::read(entry.key).ok_or_else(damaged_key)?;
                if !row.ad_id.is_empty() && row.window_start_ms >= Tops::from_ms(closed_before_ms) {
                    batch.put(&mut names, &row, entry.clicks);
                }
            }
        }
        tops.add(batch, closed_before_ms);
        Ok(())
    }

    fn edge(&mut self, edge_id: &str) -> &mut Edge {
        let known = || self.writer.edges.get(edge_id).cloned().unwrap_or_default();
        self.edges.entry(edge_id.to_owned()).or_insert_with(known)
    }

    fn known(&self, edge_id: &str) -> Option<&Edge> {
        self.edges.get(edge_id).or_else(|| self.writer.edges.get(edge_id))
    }

    fn is_silent(&self, edge_id: &str) -> bool {
        let idle_after_ms = self.options.idle_after_ms;
        let presence = self.known(edge_id).map(|edge| edge.presence(self.now_ms, idle_after_ms, &self.hearing));
        presence.is_some_and(|presence| !presence.holds_back())
    }

    /// Records are read again after a restart, from before what was left unfinished: what was judged then is not judged again.
    fn was_read(&self, edge_id: &str, place: Place) -> bool {
        let last = self.known(edge_id).and_then(|edge| edge.place);
        last.is_some_and(|last| last.partition == place.partition && place.offset <= last.offset)
    }

    /// Compares a transaction with what was counted of its edge; gives it back where it is to be counted.
    fn judge<'b>(&mut self, delivery: &'b Delivery, applied: &mut Applied) -> Option<Counted<'b>> {
        let Delivery { entries, end, place } = delivery;
        let edge_id = end.edge_id.as_str();
        if self.was_read(edge_id, *place) {
            return None;
        }
        let silent = self.is_silent(edge_id);
        let last_seq = self.known(edge_id).map_or(0, |edge| edge.end.txn_seq);
        let verdict = self.known(edge_id).map_or_else(|| Edge::default().judge(end), |edge| edge.judge(end));
        let now_ms = self.now_ms;
        self.edge(edge_id).place = Some(*place);
        if let Some((kind, clicks, text)) = verdict.trouble(end.txn_seq, last_seq) {
            let trouble = self.trouble(kind, end.txn_seq, clicks, text);
            self.note(edge_id, trouble, applied);
        }
        match verdict {
            Verdict::Next | Verdict::AfterGap { .. } => {
                let edge = self.edge(edge_id);
                edge.advance(end, now_ms);
                edge.counted_at = Some(*place);
            }
            Verdict::Repeated => {
                self.edge(edge_id).repeats(end, now_ms);
                return None;
            }
            Verdict::Overlap => {
                self.edge(edge_id).seen_ms = now_ms;
                return None;
            }
        }
        applied.transactions += 1;
        applied.partials += entries.len() as u64;
        applied.clicks += end.ranges.iter().map(|range| range.clicks).sum::<u64>();
        Some(Counted { entries, end, silent })
    }

    fn trouble(&self, kind: TroubleKind, txn_seq: u64, clicks: u64, text: String) -> Trouble {
        Trouble { kind: kind.code(), at_ms: self.now_ms, txn_seq, clicks, text }
    }

    fn note(&mut self, edge_id: &str, trouble: Trouble, applied: &mut Applied) {
        self.edge(edge_id).note(trouble.clone());
        applied.troubles.push((edge_id.to_owned(), trouble));
    }

    /// Keeps the partials of open panes as a run, adds those of closed ones to their rows, and folds what has closed.
    fn count(&mut self, counted: &[Counted<'_>]) -> Result<(), StoreError> {
        self.raise_marks();
        if !counted.is_empty() {
            self.after.committed_ms = Some(self.now_ms);
        }
        for entry in counted.iter().flat_map(|counted| counted.entries.iter()) {
            *self.after.counted.entry(key::class(entry.key)).or_default() += entry.clicks;
        }
        let folded_before_ms = self.before.progress.folded_before_ms.max(self.after.progress.marks.closed_before_ms);
        self.compare(counted)?;
        let (run, direct) = self.sort_out(counted, folded_before_ms)?;
        self.writer.ads.note(self.file, &run)?;
        self.writer.ads.note(self.file, &direct)?;
        self.add_to_tops(&run, &direct)?;
        let late: Vec<_> = merge_rows([&direct].into_iter(), i64::MIN, i64::MAX).collect();
        add_late(self.file, &late, &self.after.progress)?;
        self.keep_run(run)?;
        self.fold(folded_before_ms)
    }

    /// What the edges claim now.
    fn raise_marks(&mut self) {
        let unchanged = self.writer.edges.iter().filter(|(edge_id, _)| !self.edges.contains_key(*edge_id));
        let edges = unchanged.map(|(_, edge)| edge).chain(self.edges.values());
        let claims = Claims::of(edges, self.now_ms, self.options.idle_after_ms, &self.hearing);
        let cap_ms = self.writer.closing_cap_ms.unwrap_or(i64::MAX);
        let closed_by_ms = claims.watermark_ms.map(|at| at.min(cap_ms));
        self.after.claims = claims;
        self.after.progress.marks = self.before.progress.marks.raised(closed_by_ms, claims.horizon_ms);
    }

    /// What clicks say of whose they are, and what the catalogue says.
    fn compare(&mut self, counted: &[Counted<'_>]) -> Result<(), StoreError> {
        if self.catalogue.ads() == 0 {
            return Ok(());
        }
        for entry in counted.iter().flat_map(|counted| counted.entries.iter()) {
            let row = Parts::read(entry.key).ok_or_else(damaged_key)?;
            let Some(owner) = self.catalogue.owner(row.ad_id) else { continue };
            let differs = |clicked: &str, said: &str| !clicked.is_empty() && !said.is_empty() && clicked != said;
            self.mismatches[0] += u64::from(differs(row.campaign_id, owner.campaign_id)) * entry.clicks;
            self.mismatches[1] += u64::from(differs(row.advertiser_id, owner.advertiser_id)) * entry.clicks;
        }
        Ok(())
    }

    /// What waits for its pane to close, and what goes to its row at once; notes what comes after its minute was closed.
    fn sort_out(&self, counted: &[Counted<'_>], folded_before_ms: i64) -> Result<(Run, Run), StoreError> {
        let (mut run, mut direct, mut corrections) =
            (RunBuilder::default(), RunBuilder::default(), Corrections::default());
        let marks = self.before.progress.marks;
        for Counted { entries, end, silent } in counted {
            let open_until_ms = end.watermark_ms.saturating_add(OPEN_AHEAD_MS);
            for (index, entry) in entries.iter().enumerate() {
                let pane_ms = key::window_start(entry.key);
                let to = if (folded_before_ms..=open_until_ms).contains(&pane_ms) { &mut run } else { &mut direct };
                to.add(&entry).map_err(|source| refused(RunError::Users { entry: index, source }))?;
                if pane_ms < marks.closed_before_ms {
                    let row = Parts::read(entry.key).ok_or_else(damaged_key)?;
                    corrections.add(marks, *silent, row.ad_id, pane_ms, row.class, entry.clicks);
                }
            }
        }
        let runs = (run.finish().map_err(refused)?, direct.finish().map_err(refused)?);
        add_corrections(self.file, &corrections, self.now_ms)?;
        Ok(runs)
    }

    fn keep_run(&mut self, run: Run) -> Result<(), StoreError> {
        if run.is_empty() {
            return Ok(());
        }
        let mut runs = self.file.open_table(RUNS).map_err(redb::Error::from)?;
        runs.insert(self.after.generation, run.bytes()).map_err(redb::Error::from)?;
        self.after.open.runs.push((self.after.generation, Arc::new(run)));
        Ok(())
    }

    /// Writes the rows of panes before `folded_before_ms`, or of all where memory is short, and lets runs go that are done.
    fn fold(&mut self, mut folded_before_ms: i64) -> Result<(), StoreError> {
        let (open, bytes_max) = (&mut self.after.open, self.options.open_bytes_max);
        let is_full = open.bytes() > bytes_max;
        if is_full && open.runs.len() > 1 && open.bytes() <= MERGED_BYTES_MAX {
            merge_runs(self.file, open, self.after.generation)?;
        }
        // With less room than a quarter they would be merged again and again.
        if open.runs.len() > OPEN_RUNS_MAX || is_full && open.bytes() > bytes_max - bytes_max / 4 {
            let last_pane = open.runs.iter().filter_map(|(_, run)| run.last_pane()).max();
            folded_before_ms =
                last_pane.map_or(folded_before_ms, |pane| folded_before_ms.max(pane.saturating_add(PANE_MS)));
        }
        let folded_to_ms = self.before.progress.folded_before_ms;
        if folded_before_ms <= folded_to_ms {
            return Ok(());
        }
        let rows = merge_rows(open.runs.iter().map(|(_, run)| run.as_ref()), folded_to_ms, folded_before_ms);
        add_to_rows(self.file, Grain::Pane, rows)?;
        open.folded_before_ms = folded_before_ms;
        self.after.progress.folded_before_ms = folded_before_ms;
        drop_folded_runs(self.file, open)
    }
}

/// A transaction that is counted.
struct Counted<'a> {
    entries: &'a Entries,
    end: &'a EndRecord,
    /// Nothing waited for its edge.
    silent: bool,
}

impl Store {
    /// Whether time has done something that a commit must write down.
    pub(crate) fn is_due(&self, writer: &Writer, now_ms: i64) -> bool {
        let moment = self.moment();
        let claims = Claims::of(writer.edges.values(), now_ms, self.options.idle_after_ms, &self.hearing());
        let is_swept = writer.ads.is_swept(moment.progress.kept_from(Grain::Hour));
        claims != moment.claims || !is_swept || rollup::is_due(self, &moment.progress)
    }
}

fn refused(error: RunError) -> StoreError {
    StoreError::Refused(Refusal::Run(error.to_string()))
}
