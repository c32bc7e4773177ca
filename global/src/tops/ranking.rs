//! Pure. A ranking of more ads than are held at a time: rows are shown again and again, and each pass sums the ads that come next by
//! name. How much memory it takes does not depend on how many ads there are.

use std::collections::BTreeMap;

use crate::question::{TopAd, TopQuestion};
use crate::sums::CLASS_VALID;

/// What an ad takes beside its name.
const AD_BYTES: usize = 96;

/// Sums by ad, of as many ads as there is room for.
pub struct Ranking<'a> {
    question: &'a TopQuestion,
    bytes_max: usize,
    /// The best of the passes before.
    best: Vec<TopAd>,
    /// Up to this ad, all were ranked in passes before.
    ranked_to: Option<String>,
    by_ad: BTreeMap<String, (u64, u64)>,
    bytes: usize,
    /// There were more ads than this pass holds: the first of them by name are in it.
    is_full: bool,
}

impl<'a> Ranking<'a> {
    pub fn new(question: &'a TopQuestion, bytes_max: usize) -> Ranking<'a> {
        let (best, by_ad) = (Vec::new(), BTreeMap::new());
        Ranking { question, bytes_max, best, ranked_to: None, by_ad, bytes: 0, is_full: false }
    }

    /// Clicks of one ad; who has it decided that it is seen.
    pub fn add(&mut self, ad_id: &str, class: u32, clicks: u64) {
        let is_ranked = self.ranked_to.as_deref().is_some_and(|ranked_to| ad_id <= ranked_to);
        let is_beyond = || self.by_ad.last_key_value().is_some_and(|(last, _)| ad_id > last.as_str());
        if clicks == 0 || is_ranked || self.is_full && is_beyond() {
            return;
        }
        let net = if class == CLASS_VALID { clicks } else { 0 };
        if let Some(sums) = self.by_ad.get_mut(ad_id) {
            *sums = (sums.0 + clicks, sums.1 + net);
            return;
        }
        self.by_ad.insert(ad_id.to_owned(), (clicks, net));
        self.bytes += ad_id.len() + AD_BYTES;
        // One stays, or nothing would be ranked.
        while self.bytes > self.bytes_max && self.by_ad.len() > 1 {
            if let Some((last, _)) = self.by_ad.pop_last() {
                self.bytes -= last.len() + AD_BYTES;
                self.is_full = true;
            }
        }
    }

    /// Ranks what this pass summed. False: the rows are to be shown once more.
    pub fn end_of_pass(&mut self) -> bool {
        self.ranked_to = self.by_ad.last_key_value().map(|(last, _)| last.clone());
        let ads = std::mem::take(&mut self.by_ad).into_iter();
        self.best.extend(ads.map(|(ad_id, (gross, net))| TopAd { ad_id, gross, net }));
        (self.bytes, self.best) = (0, best_of(self.question, std::mem::take(&mut self.best)));
        !std::mem::take(&mut self.is_full)
    }

    pub fn best(self) -> Vec<TopAd> {
        self.best
    }
}

/// The first of them, in the order that is asked for.
fn best_of(question: &TopQuestion, mut ads: Vec<TopAd>) -> Vec<TopAd> {
    ads.retain(|ad| question.rank(ad.gross, ad.net) > 0);
    ads.sort_unstable_by(|a, b| {
        question.rank(b.gross, b.net).cmp(&question.rank(a.gross, a.net)).then_with(|| a.ad_id.cmp(&b.ad_id))
    });
    ads.truncate(question.k);
    ads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{RankBy, TopWindow};
    use proptest::prelude::*;

    proptest! {
        /// However little room there is, the ranking is the one of all that is held at once.
        #[test]
        fn little_room_costs_passes_and_changes_nothing(
            rows in prop::collection::vec(("[a-c]{1,3}", 0u32..2, 0u64..5), 0..200),
            k in 1usize..10,
            room in 0usize..2_000,
            gross: bool,
        ) {
            let by = if gross { RankBy::Gross } else { RankBy::Net };
            let question = TopQuestion { window: TopWindow::Minute, k, by, region: None, scope: None };
            let ranked = |bytes_max| {
                let (mut ranking, mut passes) = (Ranking::new(&question, bytes_max), 0);
                loop {
                    rows.iter().for_each(|(ad_id, class, clicks)| ranking.add(ad_id, *class, *clicks));
                    passes += 1;
                    assert!(ranking.bytes <= bytes_max.max(3 + AD_BYTES), "{} bytes", ranking.bytes);
                    if ranking.end_of_pass() {
                        return (ranking.best(), passes);
                    }
                }
            };
            let ((small, passes), (whole, once)) = (ranked(room), ranked(usize::MAX));
            let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
            for (ad_id, class, clicks) in &rows {
                let sum = sums.entry(ad_id).or_default();
                *sum = (sum.0 + clicks, sum.1 + if *class == CLASS_VALID { *clicks } else { 0 });
            }
            sums.retain(|_, (gross, _)| *gross > 0);
            prop_assert_eq!((once, passes <= sums.len().max(1)), (1, true));
            let all = sums.into_iter().map(|(ad_id, (gross, net))| TopAd { ad_id: ad_id.to_owned(), gross, net });
            prop_assert_eq!(&small, &best_of(&question, all.collect()));
            prop_assert_eq!(small, whole);
        }
    }
}
