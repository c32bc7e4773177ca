//! Which ads campaigns and advertisers have: an index in the file, and what is known to stand in it.

use std::collections::{BTreeSet, HashMap};

use redb::{ReadableTable, WriteTransaction};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::key::Parts;
use crate::panes::Run;
use crate::tables::{ADS, StoreError, damaged_key};
use crate::window::{HOUR_MS, floor};

/// Pairs that are known to be in the index, of 16 bytes each; beyond it they are looked up again.
const KNOWN_MAX: usize = 1_000_000;

/// The hour under which a pair of ad and campaign (or advertiser) stands in the index, by hash.
#[derive(Default)]
pub struct AdIndex {
    known: HashMap<u64, i64>,
}

impl AdIndex {
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
