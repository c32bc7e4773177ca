//! Which ads have the most clicks of the last minute, five minutes and hour: the counts of the last hour in memory, by ad and
//! region, so that a ranking reads no row. Panes for some minutes, minutes for the rest.
//!
//! A pane's counts are a list of chunks, one a commit, never changed and shared by all moments; when there are many they become
//! one. Names are numbered once and only added to, so they are shared by all moments too.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::catalogue::Catalogue;
use crate::key::{PANE_MS, Parts};
use crate::question::{RankBy, TopAd, TopQuestion, TopWindow};
use crate::sums::CLASS_VALID;
use crate::window::{HOUR_MS, MINUTE_MS, Window, floor};

/// Panes are kept apart for so long after closing: the five-minute window slides by panes.
const PANES_MS: i64 = 6 * MINUTE_MS;
/// The longest window, and what it slides by.
const MINUTES_MS: i64 = HOUR_MS + 2 * MINUTE_MS;
/// Chunks of one pane or minute before they become one.
const CHUNKS_MAX: usize = 8;
/// Names, of some 200 bytes each, before those that nothing counts any more are let go; twice those that count, if that is more.
const NAMES_MAX: usize = 250_000;

/// Clicks of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clicks {
    name: u32,
    gross: u32,
    net: u32,
}

type Chunks = Vec<Arc<[Clicks]>>;

/// What is told apart: by scope and region.
#[derive(Clone, PartialEq, Eq)]
struct Name {
    ad_id: Arc<str>,
    campaign_id: Arc<str>,
    advertiser_id: Arc<str>,
    region: Arc<str>,
}

#[derive(Default)]
struct Names {
    by_name: HashTable<u32>,
    names: Vec<Name>,
}

impl Names {
    /// The number of these texts; a new one where they have none.
    fn number(&mut self, texts: [&str; 4]) -> u32 {
        let Names { by_name, names } = self;
        if let Some(&found) = by_name.find(hash(texts), |&at| names[at as usize].texts() == texts) {
            return found;
        }
        let next = names.len() as u32;
        let [ad_id, campaign_id, advertiser_id, region] = texts.map(Arc::<str>::from);
        names.push(Name { ad_id, campaign_id, advertiser_id, region });
        by_name.insert_unique(hash(texts), next, |&at| hash(names[at as usize].texts()));
        next
    }
}

impl Name {
    fn texts(&self) -> [&str; 4] {
        [&self.ad_id, &self.campaign_id, &self.advertiser_id, &self.region]
    }
}

fn hash(texts: [&str; 4]) -> u64 {
    texts.iter().fold(0, |seed, text| xxh3_64_with_seed(text.as_bytes(), seed))
}

/// The counts of the last hour as of one moment.
#[derive(Clone)]
pub struct Tops {
    names: Arc<RwLock<Names>>,
    panes: BTreeMap<i64, Chunks>,
    minutes: BTreeMap<i64, Chunks>,
    /// Everything that begins from here on was taken in. [`i64::MAX`]: nothing was read from the store yet.
    complete_from_ms: i64,
    /// And what begins before this was let go for want of room, also while the store is being read.
    let_go_before_ms: i64,
    entries: usize,
    names_max: usize,
}

impl Default for Tops {
    fn default() -> Tops {
        Tops {
            names: Arc::default(),
            panes: BTreeMap::new(),
            minutes: BTreeMap::new(),
            complete_from_ms: i64::MAX,
            let_go_before_ms: i64::MIN,
            entries: 0,
            names_max: NAMES_MAX,
        }
    }
}

/// Counts on their way in.
#[derive(Default)]
pub struct Batch {
    by_pane: BTreeMap<i64, HashMap<u32, (u32, u32)>>,
}

impl Tops {
    /// Counts that begin before this are not kept.
    pub fn from_ms(closed_before_ms: i64) -> i64 {
        floor(closed_before_ms, MINUTE_MS).saturating_sub(MINUTES_MS)
    }

    /// The window of that length that was closed last.
    pub fn window(window: TopWindow, closed_before_ms: i64) -> Window {
        let step_ms = match window {
            TopWindow::Minute | TopWindow::FiveMinutes => PANE_MS,
            TopWindow::Hour => MINUTE_MS,
        };
        let end_ms = floor(closed_before_ms, step_ms);
        Window { start_ms: end_ms.saturating_sub(window.minutes() * MINUTE_MS), end_ms }
    }

    /// Adds a row's clicks to a batch.
    pub fn put(&self, batch: &mut Batch, row: &Parts<'_>, clicks: u64) {
        let texts = [row.ad_id, row.campaign_id, row.advertiser_id, row.region];
        let name = self.names.write().unwrap_or_else(PoisonError::into_inner).number(texts);
        let sums = batch.by_pane.entry(row.window_start_ms).or_default().entry(name).or_default();
        let clicks = u32::try_from(clicks).unwrap_or(u32::MAX);
        sums.0 = sums.0.saturating_add(clicks);
        if row.class == CLASS_VALID {
            sums.1 = sums.1.saturating_add(clicks);
        }
    }

    /// Everything from here on is in the batches that were and will be added.
    pub fn complete_from(&mut self, from_ms: i64) {
        self.complete_from_ms = from_ms;
    }

    /// Takes a batch in, and lets go what the windows have left behind. Beyond `entries_max` counts, of 12 bytes each, the oldest
    /// minutes go, and the hour is read from rows.
    pub fn add(&mut self, batch: Batch, closed_before_ms: i64, entries_max: usize) {
        let (panes_from_ms, minutes_from_ms) =
            (floor(closed_before_ms.saturating_sub(PANES_MS), MINUTE_MS), Tops::from_ms(closed_before_ms));
        for (pane_ms, sums) in batch.by_pane {
            let chunk: Arc<[Clicks]> =
                sums.into_iter().map(|(name, (gross, net))| Clicks { name, gross, net }).collect();
            self.entries += chunk.len();
            let chunks = if pane_ms >= panes_from_ms {
                self.panes.entry(pane_ms).or_default()
            } else {
                self.minutes.entry(floor(pane_ms, MINUTE_MS)).or_default()
            };
            chunks.push(chunk);
            self.entries -= merge(chunks, CHUNKS_MAX);
        }
        while let Some(pane) = self.panes.first_entry().filter(|pane| *pane.key() < panes_from_ms) {
            let minute = self.minutes.entry(floor(*pane.key(), MINUTE_MS)).or_default();
            minute.extend(pane.remove());
            self.entries -= merge(minute, CHUNKS_MAX);
        }
        while let Some(minute) = self.minutes.first_entry() {
            let (start_ms, beyond) = (*minute.key(), self.entries > entries_max);
            if start_ms >= minutes_from_ms && !beyond {
                break;
            }
            self.entries -= minute.remove().iter().map(|chunk| chunk.len()).sum::<usize>();
            if beyond {
                self.let_go_before_ms = self.let_go_before_ms.max(start_ms + MINUTE_MS);
            }
        }
        self.forget_names();
    }

    /// The ads with the most clicks in [`Tops::window`]; None where not all of it is in memory.
    pub fn top(&self, question: &TopQuestion, window: Window, catalogue: &Catalogue) -> Option<Vec<TopAd>> {
        if self.complete_from_ms.max(self.let_go_before_ms) > window.start_ms {
            return None;
        }
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let mut sums = vec![(0u64, 0u64); names.names.len()];
        let span = window.start_ms..window.end_ms;
        let minutes = self.minutes.range(span.clone()).chain(self.panes.range(span));
        for clicks in minutes.flat_map(|(_, chunks)| chunks.iter().flat_map(|chunk| chunk.iter())) {
            let sum = &mut sums[clicks.name as usize];
            sum.0 += u64::from(clicks.gross);
            sum.1 += u64::from(clicks.net);
        }
        let mut ranking = Ranking::default();
        for (name, (gross, net)) in names.names.iter().zip(sums) {
            let clicked = (&*name.campaign_id, &*name.advertiser_id);
            let (campaign_id, advertiser_id) = match question.scope {
                Some(_) if gross > 0 => catalogue.owner_of(&name.ad_id, clicked),
                _ => clicked,
            };
            ranking.add(question, &name.ad_id, (campaign_id, advertiser_id, &name.region), gross, net);
        }
        Some(ranking.top(question))
    }

    pub fn is_warm(&self) -> bool {
        self.complete_from_ms != i64::MAX
    }

    /// Whether numbers of names mean the same in both.
    pub fn shares_names(&self, other: &Tops) -> bool {
        Arc::ptr_eq(&self.names, &other.names)
    }

    /// Numbers anew what still counts, when there are too many names.
    fn forget_names(&mut self) {
        let names = Arc::clone(&self.names);
        let names = names.read().unwrap_or_else(PoisonError::into_inner);
        if names.names.len() <= self.names_max {
            return;
        }
        let (mut kept, mut numbers) = (Names::default(), vec![u32::MAX; names.names.len()]);
        for chunk in self.minutes.values_mut().chain(self.panes.values_mut()).flatten() {
            let renamed = chunk.iter().map(|clicks| {
                let number = &mut numbers[clicks.name as usize];
                if *number == u32::MAX {
                    *number = kept.number(names.names[clicks.name as usize].texts());
                }
                Clicks { name: *number, ..*clicks }
            });
            *chunk = renamed.collect();
        }
        self.names_max = NAMES_MAX.max(2 * kept.names.len());
        self.names = Arc::new(RwLock::new(kept));
    }
}

/// Makes one chunk of many; returns by how many counts there are fewer.
fn merge(chunks: &mut Chunks, chunks_max: usize) -> usize {
    if chunks.len() <= chunks_max {
        return 0;
    }
    let mut all: Vec<Clicks> = chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
    let before = all.len();
    all.sort_unstable_by_key(|clicks| clicks.name);
    all.dedup_by(|next, kept| {
        let same = next.name == kept.name;
        if same {
            kept.gross = kept.gross.saturating_add(next.gross);
            kept.net = kept.net.saturating_add(next.net);
        }
        same
    });
    let after = all.len();
    *chunks = vec![all.into()];
    before - after
}

/// Sums by ad, and the largest of them.
#[derive(Default)]
pub struct Ranking {
    by_ad: HashMap<Arc<str>, (u64, u64)>,
}

impl Ranking {
    pub fn add(
        &mut self,
        question: &TopQuestion,
        ad_id: &Arc<str>,
        (campaign_id, advertiser_id, region): (&str, &str, &str),
        gross: u64,
        net: u64,
    ) {
        let seen = question.scope.as_ref().is_none_or(|scope| scope.takes(campaign_id, advertiser_id));
        if gross == 0 || !seen || question.region.as_deref().is_some_and(|wanted| wanted != region) {
            return;
        }
        let sums = self.by_ad.entry(Arc::clone(ad_id)).or_default();
        sums.0 += gross;
        sums.1 += net;
    }

    pub fn top(self, question: &TopQuestion) -> Vec<TopAd> {
        let mut ads: Vec<(u64, Arc<str>, u64, u64)> = self
            .by_ad
            .into_iter()
            .map(|(ad_id, (gross, net))| match question.by {
                RankBy::Gross => (gross, ad_id, gross, net),
                RankBy::Net => (net, ad_id, gross, net),
            })
            .filter(|(rank, ..)| *rank > 0)
            .collect();
        let order =
            |a: &(u64, Arc<str>, u64, u64), b: &(u64, Arc<str>, u64, u64)| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1));
        if question.k < ads.len() {
            ads.select_nth_unstable_by(question.k, order);
            ads.truncate(question.k);
        }
        ads.sort_unstable_by(order);
        ads.into_iter().map(|(_, ad_id, gross, net)| TopAd { ad_id: ad_id.to_string(), gross, net }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{partial, transaction};
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
            // A third of what the hour has.
            let options = Options { ranking_counts_max: 20 * ADS, ..Options::default() };
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
}
