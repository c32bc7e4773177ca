//! Which ads have the most clicks of the last minute, five minutes and hour: the counts of the last hour in memory, by ad and
//! region, so that a ranking reads no row.
//!
//! A pane's counts are a list of chunks, one a commit, never changed and shared by all moments; when there are many they become
//! one. Names are numbered once and only added to, so they are shared by all moments too. Counts and names have a bound: beyond it the
//! oldest are let go, and a window that begins before is read from rows.

mod counts;
mod names;
mod ranking;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};

use counts::{Chunk, Clicks};
use names::Names;
pub use ranking::Ranking;

use crate::catalogue::Catalogue;
use crate::key::{PANE_MS, Parts};
use crate::question::{TopAd, TopQuestion, TopWindow};
use crate::sums::CLASS_VALID;
use crate::window::{MINUTE_MS, Window, floor};

/// Chunks of one pane before they become one.
const CHUNKS_MAX: usize = 8;
/// Names before those that nothing counts any more are let go; twice those that count, if that is more.
const NAMES_MAX: usize = 250_000;

/// The counts of the last hour as of one moment.
#[derive(Clone)]
pub struct Tops {
    names: Arc<RwLock<Names>>,
    panes: BTreeMap<i64, Vec<Chunk>>,
    /// Everything that begins from here on was taken in. [`i64::MAX`]: nothing was read from the store yet.
    complete_from_ms: i64,
    /// And what begins before this was let go for want of room, also while the store is being read.
    let_go_before_ms: i64,
    /// Of the counts.
    counts_bytes: usize,
    names_max: usize,
    bytes_max: usize,
    /// Rankings are made one at a time: what their sums take of memory is taken once.
    turn: Arc<Mutex<()>>,
}

/// Room for nothing: it is not read from the store yet.
impl Default for Tops {
    fn default() -> Tops {
        Tops::new(0)
    }
}

/// Counts on their way in.
#[derive(Default)]
pub struct Batch {
    by_pane: BTreeMap<i64, HashMap<u32, (u64, u64)>>,
    entries: usize,
}

impl Batch {
    /// Adds a row's clicks.
    pub fn put(&mut self, names: &mut Names, row: &Parts<'_>, clicks: u64) {
        let name = names.number([row.ad_id, row.campaign_id, row.advertiser_id, row.region]);
        let of_pane = self.by_pane.entry(row.window_start_ms).or_default();
        let before = of_pane.len();
        let sums = of_pane.entry(name).or_default();
        let net = if row.class == CLASS_VALID { clicks } else { 0 };
        *sums = (sums.0 + clicks, sums.1 + net);
        self.entries += of_pane.len() - before;
    }

    /// Counts in it.
    pub fn len(&self) -> usize {
        self.entries
    }
}

impl Tops {
    /// Of nothing yet; counts and names take `bytes_max` of memory, about.
    pub fn new(bytes_max: usize) -> Tops {
        Tops {
            names: Arc::default(),
            panes: BTreeMap::new(),
            complete_from_ms: i64::MAX,
            let_go_before_ms: i64::MIN,
            counts_bytes: 0,
            names_max: NAMES_MAX,
            bytes_max,
            turn: Arc::default(),
        }
    }

    /// Counts that begin before this are not kept.
    pub fn from_ms(closed_before_ms: i64) -> i64 {
        Tops::window(TopWindow::Hour, closed_before_ms).start_ms
    }

    /// The window of that length that was closed last.
    pub fn window(window: TopWindow, closed_before_ms: i64) -> Window {
        let end_ms = floor(closed_before_ms, PANE_MS);
        Window { start_ms: end_ms.saturating_sub(window.minutes() * MINUTE_MS), end_ms }
    }

    /// What a batch numbers its names by: no ranking is made as long as this is held.
    pub fn names(&self) -> RwLockWriteGuard<'_, Names> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything from here on is in the batches that were and will be added.
    pub fn complete_from(&mut self, from_ms: i64) {
        self.complete_from_ms = from_ms;
    }

    /// Takes a batch in, and lets go what the windows have left behind, and what there is no room for.
    pub fn add(&mut self, batch: Batch, closed_before_ms: i64) {
        for (pane_ms, sums) in batch.by_pane {
            let clicks = sums.into_iter().map(|(name, (gross, net))| Clicks { name, gross, net });
            self.keep(pane_ms, clicks.collect());
        }
        self.let_go(closed_before_ms);
    }

    /// Takes in what another has, whose names have numbers of its own.
    pub fn absorb(&mut self, other: &Tops, closed_before_ms: i64) {
        let names = Arc::clone(&self.names);
        let mut names = names.write().unwrap_or_else(PoisonError::into_inner);
        let of_other = other.names.read().unwrap_or_else(PoisonError::into_inner);
        for (&pane_ms, chunk) in other.panes.iter().flat_map(|(pane, chunks)| chunks.iter().map(move |one| (pane, one)))
        {
            let renamed = |clicks: Clicks| Clicks { name: names.number(of_other.texts(clicks.name)), ..clicks };
            self.keep(pane_ms, chunk.clicks().map(renamed).collect());
        }
        drop(names);
        self.let_go_before_ms = self.let_go_before_ms.max(other.let_go_before_ms);
        self.let_go(closed_before_ms);
    }

    fn keep(&mut self, pane_ms: i64, mut clicks: Vec<Clicks>) {
        clicks.sort_unstable_by_key(|clicks| clicks.name);
        let chunks = self.panes.entry(pane_ms).or_default();
        chunks.push(Chunk::of(clicks));
        self.counts_bytes += chunks[chunks.len() - 1].bytes();
        if chunks.len() > CHUNKS_MAX {
            self.counts_bytes -= bytes_of(chunks);
            *chunks = vec![Chunk::merged(chunks)];
            self.counts_bytes += bytes_of(chunks);
        }
    }

    fn let_go(&mut self, closed_before_ms: i64) {
        let from_ms = Tops::from_ms(closed_before_ms);
        while let Some(pane) = self.panes.first_entry().filter(|pane| *pane.key() < from_ms) {
            self.counts_bytes -= bytes_of(&pane.remove());
        }
        let are_names_many = self.names.read().unwrap_or_else(PoisonError::into_inner).len() > self.names_max;
        let is_too_much = self.bytes() > self.bytes_max;
        if are_names_many || is_too_much {
            self.forget_names();
        }
        // An eighth of it at once, or every commit would have to.
        while is_too_much && self.counts_bytes > 0 && self.bytes() > self.bytes_max - self.bytes_max / 8 {
            let fewer = self.counts_bytes - self.counts_bytes.div_ceil(8);
            while self.counts_bytes > fewer {
                self.let_oldest_go();
            }
            self.forget_names();
        }
    }

    fn let_oldest_go(&mut self) {
        if let Some((pane_ms, chunks)) = self.panes.pop_first() {
            self.counts_bytes -= bytes_of(&chunks);
            self.let_go_before_ms = self.let_go_before_ms.max(pane_ms.saturating_add(PANE_MS));
        }
    }

    /// What one pass of a ranking that is read from rows may take: two are made at a time, beside one that reads none, and all take no
    /// more than the counts themselves.
    pub fn pass_bytes_max(&self) -> usize {
        self.bytes_max / 4
    }

    /// Of memory, about.
    fn bytes(&self) -> usize {
        self.counts_bytes + self.names.read().unwrap_or_else(PoisonError::into_inner).bytes()
    }

    /// The ads with the most clicks in [`Tops::window`]; None where not all of it is in memory.
    pub fn top(&self, question: &TopQuestion, window: Window, catalogue: &Catalogue) -> Option<Vec<TopAd>> {
        if self.complete_from_ms.max(self.let_go_before_ms) > window.start_ms {
            return None;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let takes = |number| {
            let [ad_id, campaign_id, advertiser_id, region] = names.texts(number);
            let clicked = (campaign_id, advertiser_id);
            let owner = if question.scope.is_some() { catalogue.owner_of(ad_id, clicked) } else { clicked };
            question.takes(owner.0, owner.1, region)
        };
        let is_taken: Vec<bool> = (0..names.len() as u32).map(takes).collect();
        let mut sums = vec![(0u64, 0u64); names.ads()];
        let chunks = self.panes.range(window.start_ms..window.end_ms).flat_map(|(_, chunks)| chunks);
        for clicks in chunks.flat_map(Chunk::clicks) {
            if is_taken[clicks.name as usize] {
                let sum = &mut sums[names.get(clicks.name).ad as usize];
                *sum = (sum.0 + clicks.gross, sum.1 + clicks.net);
            }
        }
        let rank = |ad: u32| question.rank(sums[ad as usize].0, sums[ad as usize].1);
        let order = |a: &u32, b: &u32| rank(*b).cmp(&rank(*a)).then_with(|| names.ad_id(*a).cmp(names.ad_id(*b)));
        let mut ads: Vec<u32> = (0..names.ads() as u32).filter(|ad| rank(*ad) > 0).collect();
        if question.k < ads.len() {
            ads.select_nth_unstable_by(question.k, order);
            ads.truncate(question.k);
        }
        ads.sort_unstable_by(order);
        let named = |ad: u32| (names.ad_id(ad).to_owned(), sums[ad as usize]);
        Some(ads.into_iter().map(named).map(|(ad_id, (gross, net))| TopAd { ad_id, gross, net }).collect())
    }

    pub fn is_warm(&self) -> bool {
        self.complete_from_ms != i64::MAX
    }

    /// Numbers anew what still counts, in the order it has.
    fn forget_names(&mut self) {
        let names = Arc::clone(&self.names);
        let names = names.read().unwrap_or_else(PoisonError::into_inner);
        let mut counts = vec![false; names.len()];
        for clicks in self.panes.values().flatten().flat_map(Chunk::clicks) {
            counts[clicks.name as usize] = true;
        }
        let (mut kept, mut numbers) = (Names::default(), vec![u32::MAX; names.len()]);
        for name in (0..names.len() as u32).filter(|name| counts[*name as usize]) {
            numbers[name as usize] = kept.number(names.texts(name));
        }
        for chunk in self.panes.values_mut().flatten() {
            let renamed = |clicks: Clicks| Clicks { name: numbers[clicks.name as usize], ..clicks };
            *chunk = Chunk::of(chunk.clicks().map(renamed));
        }
        self.counts_bytes = self.panes.values().map(|chunks| bytes_of(chunks)).sum();
        self.names_max = NAMES_MAX.max(2 * kept.len());
        self.names = Arc::new(RwLock::new(kept));
    }
}

fn bytes_of(chunks: &[Chunk]) -> usize {
    chunks.iter().map(Chunk::bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{partial, transaction};
    use crate::question::RankBy;
    use crate::store::{Options, Store};

    /// 2024-04-12T08:00:00Z.
    const START_MS: i64 = 1_712_908_800_000;
    const ADS: usize = 10;

    fn asked(window: TopWindow) -> TopQuestion {
        TopQuestion { window, k: 3, by: RankBy::Net, region: None, scope: None }
    }

    fn is_in_memory(store: &Store, window: TopWindow) -> bool {
        let snapshot = store.snapshot().expect("snapshot");
        let span = Tops::window(window, snapshot.as_of().marks.closed_before_ms);
        snapshot.moment().tops.top(&asked(window), span, &Catalogue::default()).is_some()
    }

    /// What was let go is let go of the store's rows that are read at a start, too.
    #[test]
    fn beyond_its_room_the_hour_is_read_from_rows_while_it_runs_and_after_a_start() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("store");
        let open = |now_ms| {
            // Names, and a third of what the hour has.
            let options = Options { ranking_bytes_max: 20 * (64 + 2 * ADS) + 700, ..Options::default() };
            let store = Store::open_with(&path, options).expect("it opens");
            store.keep_up(now_ms).expect("kept");
            store
        };
        let mut store = open(START_MS);
        for minute in 0..61 {
            let at = START_MS + minute * MINUTE_MS;
            let clicked = (0..ADS).map(|ad| partial(&format!("ad_{ad}"), at, 0, 1 + ad as u64, &[])).collect();
            store.commit(&transaction("e", minute as u64 + 1, at + MINUTE_MS, clicked)).expect("committed");
        }
        for when in ["while it runs", "after a start"] {
            assert!(!is_in_memory(&store, TopWindow::Hour), "{when}");
            assert!(is_in_memory(&store, TopWindow::FiveMinutes), "{when}");
            for (window, minutes) in [(TopWindow::Hour, 60), (TopWindow::FiveMinutes, 5)] {
                let top = store.snapshot().expect("snapshot").top(&asked(window)).expect("warm");
                let found: Vec<_> = top.ads.iter().map(|ad| (ad.ad_id.as_str(), ad.net)).collect();
                let expected = [("ad_9", 10 * minutes), ("ad_8", 9 * minutes), ("ad_7", 8 * minutes)];
                assert_eq!(found, expected, "{when}, {minutes} minutes");
            }
            drop(store);
            store = open(START_MS + 61 * MINUTE_MS);
        }
    }

    fn row(ad_id: &str, window_start_ms: i64) -> Parts<'_> {
        let (campaign_id, advertiser_id, region) = ("c", "a", "DE");
        Parts { ad_id, window_start_ms, campaign_id, advertiser_id, region, device: 0, agent: 0, class: 0, rules: 0 }
    }

    /// Windows that do not close keep no count from being let go: what is asked for is read from rows then.
    #[test]
    fn counts_are_bounded_however_far_they_are_ahead_and_however_many_names_they_have() {
        const ROOM: usize = 200_000;
        let mut tops = Tops::new(ROOM);
        tops.complete_from(i64::MIN);
        let window = Window { start_ms: START_MS - MINUTE_MS, end_ms: START_MS };
        let is_there = |tops: &Tops| tops.top(&asked(TopWindow::Minute), window, &Catalogue::default()).is_some();
        for pane in 0..2_000 {
            let mut batch = Batch::default();
            for ad in 0..100 {
                // Every tenth is never seen again.
                let ad_id = if ad % 10 == 0 { format!("once_{pane}_{ad}") } else { format!("ad_{ad}") };
                batch.put(&mut tops.names(), &row(&ad_id, START_MS - PANE_MS + pane * PANE_MS), 1);
            }
            tops.add(batch, START_MS);
            assert!(tops.bytes() <= ROOM, "{} bytes after {pane} panes", tops.bytes());
            assert!(pane > 0 || is_there(&tops), "the first are there");
        }
        assert!(!is_there(&tops), "not all of it is there any more");
        assert!(tops.bytes() > ROOM / 2, "{} bytes: too much was let go", tops.bytes());
        let mut later = Tops::new(ROOM / 10);
        later.absorb(&tops, START_MS);
        assert!(later.bytes() <= ROOM / 10, "{} bytes", later.bytes());
        assert!(later.let_go_before_ms > tops.let_go_before_ms);
    }

    /// What a commit brings while the store is being read is neither read a second time nor left out.
    #[test]
    fn commits_while_the_hour_is_read_are_ranked_once() {
        const COMMITS: u64 = 300;
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open_with(&folder.path().join("store"), Options::default()).expect("a new store");
        let clicked = || vec![partial("a", START_MS, 0, 1, &[])];
        store.commit(&transaction("e", 1, START_MS, clicked())).expect("committed");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for seq in 2..=COMMITS {
                    store.commit(&transaction("e", seq, START_MS, clicked())).expect("committed");
                }
            });
            while !store.snapshot().expect("snapshot").moment().tops.is_warm() {
                store.keep_up(START_MS).expect("kept");
            }
        });
        store.commit(&transaction("e", COMMITS + 1, START_MS + MINUTE_MS, Vec::new())).expect("committed");
        let top = store.snapshot().expect("snapshot").top(&asked(TopWindow::Minute)).expect("warm");
        assert_eq!(top.ads, [TopAd { ad_id: "a".to_owned(), gross: COMMITS, net: COMMITS }]);
    }
}
