//! Which ads campaigns and advertisers have: an index in the file, and what is known to stand in it.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use redb::{ReadableTable, WriteTransaction};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::key::Parts;
use crate::panes::Run;
use crate::tables::{ADS, StoreError, damaged_key};
use crate::window::{HOUR_MS, floor};

/// Pairs that are known to be in the index, of 16 bytes each; beyond it they are looked up again.
const KNOWN_MAX: usize = 1_000_000;

/// `c` or `a`, campaign or advertiser, ad.
type Name = (String, String, String);

pub struct AdIndex {
    /// The hour under which a pair of ad and campaign (or advertiser) stands in the index, by hash.
    known: HashMap<u64, i64>,
    /// The last whole sweep found nothing in it that had its last click before this.
    swept_before_ms: i64,
    /// How far a sweep is that is under way.
    swept_to: Option<Name>,
}

impl AdIndex {
    /// Of a store that keeps hours from then on. A sweep that did not end before a stop is made up for by the next.
    pub fn new(kept_from_ms: i64) -> AdIndex {
        AdIndex { known: HashMap::new(), swept_before_ms: kept_from_ms, swept_to: None }
    }

    pub fn is_swept(&self, kept_from_ms: i64) -> bool {
        self.swept_before_ms >= kept_from_ms
    }

    /// Looks at some entries, and removes those of ads that had no click since: nothing is kept of them. True: there are more.
    pub fn sweep(&mut self, file: &WriteTransaction, kept_from_ms: i64, entries: usize) -> Result<bool, StoreError> {
        if self.is_swept(kept_from_ms) {
            return Ok(false);
        }
        let mut table = file.open_table(ADS).map_err(redb::Error::from)?;
        let (mut looked_at, mut last, mut gone) = (0, None, Vec::new());
        let from = self.swept_to.take();
        let from = from.as_ref().map_or(Bound::Unbounded, |(kind, id, ad)| Bound::Excluded((&**kind, &**id, &**ad)));
        let rest = table.range::<(&str, &str, &str)>((from, Bound::Unbounded)).map_err(redb::Error::from)?;
        for entry in rest.take(entries) {
            let (name, hour_ms) = entry.map_err(redb::Error::from)?;
            let (kind, id, ad_id) = name.value();
            let name = (kind.to_owned(), id.to_owned(), ad_id.to_owned());
            gone.extend((hour_ms.value() < kept_from_ms).then(|| name.clone()));
            (looked_at, last) = (looked_at + 1, Some(name));
        }
        for (kind, id, ad_id) in &gone {
            table.remove((kind.as_str(), id.as_str(), ad_id.as_str())).map_err(redb::Error::from)?;
        }
        if looked_at < entries {
            self.swept_before_ms = kept_from_ms;
        } else {
            self.swept_to = last;
        }
        Ok(looked_at == entries)
    }

    /// Notes the ads of a run, and the last hour in which each had a click. Entries of an ad lie side by side.
    pub fn note(&mut self, file: &WriteTransaction, run: &Run) -> Result<(), StoreError> {
        let mut fresh: BTreeSet<(&str, &str, &str, i64)> = BTreeSet::new();
        let mut last = None;
        for entry in run.entries() {
            let row = Parts::read(entry.key).ok_or_else(damaged_key)?;
            let hour_ms = floor(row.window_start_ms, HOUR_MS);
            let this = Some((row.ad_id, row.campaign_id, row.advertiser_id, hour_ms));
            if row.ad_id.is_empty() || this == last {
                continue;
            }
            last = this;
            for (kind, id) in [("c", row.campaign_id), ("a", row.advertiser_id)] {
                let name = [id, row.ad_id]
                    .iter()
                    .fold(xxh3_64(kind.as_bytes()), |seed, text| xxh3_64_with_seed(text.as_bytes(), seed));
                let known = self.known.get(&name).copied().unwrap_or(i64::MIN);
                if !id.is_empty() && known < hour_ms {
                    self.known.insert(name, hour_ms);
                    fresh.insert((kind, id, row.ad_id, hour_ms));
                }
            }
        }
        if !fresh.is_empty() {
            let mut table = file.open_table(ADS).map_err(redb::Error::from)?;
            for (kind, id, ad_id, hour_ms) in fresh {
                let name = (kind, id, ad_id);
                let before = table.get(name).map_err(redb::Error::from)?.map_or(i64::MIN, |hour| hour.value());
                table.insert(name, before.max(hour_ms)).map_err(redb::Error::from)?;
            }
        }
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{partial, transaction};
    use crate::store::{Options, Store};
    use crate::tables::begin_read;
    use crate::window::{DAY_MS, Retention};

    /// 2024-04-12T08:00:00Z.
    const START_MS: i64 = 1_712_908_800_000;

    /// An ad is in the index as long as hours of it are kept, and again when it comes back.
    #[test]
    fn ads_of_which_nothing_is_kept_leave_the_index() {
        const ADS_OF_ONE_DAY: usize = 5_000;
        let folder = tempfile::tempdir().expect("folder");
        let retention = Retention { panes_ms: 2 * HOUR_MS, minutes_ms: DAY_MS, hours_ms: 40 * DAY_MS };
        let options = Options { retention, ..Options::default() };
        let store = Store::open_with(&folder.path().join("store"), options).expect("a new store");
        let clicked = |ad: &str, at_ms| {
            let mut one = partial(ad, at_ms, 0, 1, &[]);
            one.campaign_id = "c".into();
            one
        };
        let ads = || {
            let file = begin_read(&store.database).expect("read");
            let table = file.open_table(ADS).expect("the index");
            table
                .range(("c", "", "")..)
                .expect("read")
                .map(|entry| entry.expect("read").0.value().2.to_owned())
                .collect()
        };
        let mut seq = 0;
        let mut commit = |at_ms: i64, partials| {
            seq += 1;
            store.commit(&transaction("e", seq, at_ms + HOUR_MS, partials)).expect("committed");
            while store.keep_up(at_ms + HOUR_MS).expect("kept") {}
        };
        let old = (0..ADS_OF_ONE_DAY).map(|ad| clicked(&format!("old_{ad:04}"), START_MS));
        commit(START_MS, old.chain([clicked("kept", START_MS)]).collect());
        let found: Vec<String> = ads();
        assert_eq!(found.len(), ADS_OF_ONE_DAY + 1);
        commit(START_MS + 20 * DAY_MS, vec![clicked("kept", START_MS + 20 * DAY_MS)]);
        let later_ms = START_MS + 50 * DAY_MS;
        commit(later_ms, vec![clicked("kept", later_ms), clicked("new", later_ms)]);
        commit(START_MS + 80 * DAY_MS, vec![clicked("new", START_MS + 80 * DAY_MS)]);
        let found: Vec<String> = ads();
        assert_eq!(found, ["kept", "new"]);
        commit(START_MS + 81 * DAY_MS, vec![clicked("old_0007", START_MS + 81 * DAY_MS)]);
        let found: Vec<String> = ads();
        assert_eq!(found, ["kept", "new", "old_0007"]);
    }
}
