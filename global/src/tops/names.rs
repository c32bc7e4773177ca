//! Pure. Numbers for what is told apart in a ranking, so that a count takes few bytes. Only added to.

use hashbrown::HashTable;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// What a number takes of a table of hashes that is half full, beside what it stands for.
const PLACE_BYTES: usize = 10;

/// Texts, one behind the other.
#[derive(Default)]
struct Texts {
    by_text: HashTable<u32>,
    ends: Vec<usize>,
    all: String,
}

impl Texts {
    fn number(&mut self, text: &str) -> u32 {
        let Texts { by_text, ends, all } = self;
        if let Some(&found) = by_text.find(xxh3_64(text.as_bytes()), |&at| text_at(ends, all, at) == text) {
            return found;
        }
        let next = ends.len() as u32;
        all.push_str(text);
        ends.push(all.len());
        by_text.insert_unique(xxh3_64(text.as_bytes()), next, |&at| xxh3_64(text_at(ends, all, at).as_bytes()));
        next
    }

    fn get(&self, at: u32) -> &str {
        text_at(&self.ends, &self.all, at)
    }

    fn bytes(&self) -> usize {
        self.all.len() + self.ends.len() * (size_of::<usize>() + PLACE_BYTES)
    }
}

fn text_at<'a>(ends: &[usize], all: &'a str, at: u32) -> &'a str {
    let at = at as usize;
    let start = at.checked_sub(1).map_or(0, |before| ends[before]);
    &all[start..ends[at]]
}

/// What is told apart: an ad, by scope and region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// Ads are numbered from 0, by themselves.
    pub ad: u32,
    owner: [u32; 2],
    region: u32,
}

#[derive(Default)]
pub struct Names {
    ads: Texts,
    /// Campaigns, advertisers and regions.
    others: Texts,
    by_name: HashTable<u32>,
    names: Vec<Name>,
}

impl Names {
    /// The number of an ad with its campaign, advertiser and region; a new one where they have none.
    pub fn number(&mut self, [ad_id, campaign_id, advertiser_id, region]: [&str; 4]) -> u32 {
        let ad = self.ads.number(ad_id);
        let owner = [campaign_id, advertiser_id].map(|id| self.others.number(id));
        let name = Name { ad, owner, region: self.others.number(region) };
        let Names { by_name, names, .. } = self;
        if let Some(&found) = by_name.find(name.hash(), |&at| names[at as usize] == name) {
            return found;
        }
        let next = names.len() as u32;
        names.push(name);
        by_name.insert_unique(name.hash(), next, |&at| names[at as usize].hash());
        next
    }

    pub fn get(&self, number: u32) -> &Name {
        &self.names[number as usize]
    }

    /// As they were numbered.
    pub fn texts(&self, number: u32) -> [&str; 4] {
        let name = self.get(number);
        let [campaign_id, advertiser_id] = name.owner.map(|at| self.others.get(at));
        [self.ad_id(name.ad), campaign_id, advertiser_id, self.others.get(name.region)]
    }

    pub fn ad_id(&self, ad: u32) -> &str {
        self.ads.get(ad)
    }

    pub fn ads(&self) -> usize {
        self.ads.ends.len()
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Of memory, about.
    pub fn bytes(&self) -> usize {
        self.ads.bytes() + self.others.bytes() + self.names.len() * (size_of::<Name>() + PLACE_BYTES)
    }
}

impl Name {
    fn hash(&self) -> u64 {
        let [campaign, advertiser] = self.owner;
        let ad_and_region = (u64::from(self.ad) << 32 | u64::from(self.region)).to_le_bytes();
        xxh3_64_with_seed(&ad_and_region, u64::from(campaign) << 32 | u64::from(advertiser))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn each_name_has_one_number_and_each_number_its_texts(
            all in prop::collection::vec(("[ab]{0,3}", "[ab]{0,1}", "[ab]{0,1}", "[ab]{0,1}"), 0..200),
        ) {
            let (mut names, mut numbers) = (Names::default(), BTreeMap::new());
            for (ad, campaign, advertiser, region) in &all {
                let texts = [ad.as_str(), campaign, advertiser, region];
                let next = numbers.len() as u32;
                prop_assert_eq!(names.number(texts), *numbers.entry(texts).or_insert(next));
            }
            prop_assert_eq!(names.len(), numbers.len());
            for (texts, number) in &numbers {
                prop_assert_eq!(&names.texts(*number), texts);
                prop_assert_eq!(names.ad_id(names.get(*number).ad), texts[0]);
            }
            let ads: std::collections::BTreeSet<&str> = numbers.keys().map(|texts| texts[0]).collect();
            prop_assert_eq!(names.ads(), ads.len());
        }
    }
}
