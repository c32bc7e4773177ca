//! Pure. The ad catalogue: which campaign and advertiser an ad belongs to, whatever its clicks say. Asked when a question is
//! answered: rows keep what the clicks said (docs/decisions/027).
//!
//! ```text
//! texts    "ad_1" "summer" "acme" "ad_2" …         each owner's name once
//! ads      (at, length, campaign, advertiser) …    in the order of the file; owners by number, 0: not said
//! owners   names by number; the ads of each, one list for all, and where each owner's part of it begins
//! ```

mod file;
mod read;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

pub use file::{CatalogueError, CatalogueFile};
pub use read::BadCatalogue;

use crate::key::Parts;

/// Ads of a catalogue.
pub const ADS_MAX: usize = 1_000_000;
/// Of the file: a million ads with three ids as long as a UUID.
pub const FILE_BYTES_MAX: u64 = 128 << 20;
/// Longest of each id, as clicks may carry them.
pub const ID_BYTES_MAX: usize = 64;
/// What a catalogue may hold in memory, twice while another is read: its ids, and for each ad 16 bytes, an index of 10, and, where
/// each has a campaign and an advertiser of its own, twice 26 for those.
pub const CATALOGUE_BYTES_MAX: u64 = 2 * (FILE_BYTES_MAX + 80 * ADS_MAX as u64);

/// Where a text stands.
#[derive(Clone, Copy)]
struct Text {
    at: u32,
    bytes: u8,
}

struct Listed {
    ad_id: Text,
    campaign: u32,
    advertiser: u32,
}

/// The campaigns, or the advertisers.
#[derive(Default)]
struct Owners {
    /// By number, the first is 1.
    names: Vec<Text>,
    by_name: HashTable<u32>,
    /// Ads, those of each owner side by side; made when all are there.
    ads: Vec<u32>,
    /// Where each owner's ads begin, and the end of the last.
    starts: Vec<u32>,
}

/// What a file says. Made once, never changed.
#[derive(Default)]
pub struct Catalogue {
    /// Of the file's bytes; 0: there is no catalogue.
    version: u64,
    loaded_ms: i64,
    texts: String,
    ads: Vec<Listed>,
    by_ad: HashTable<u32>,
    campaigns: Owners,
    advertisers: Owners,
}

/// An ad that stands in the file twice, with different owners.
#[derive(Debug, PartialEq, Eq)]
struct Contradiction;

/// Whom an ad belongs to; empty: the catalogue does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner<'a> {
    pub campaign_id: &'a str,
    pub advertiser_id: &'a str,
}

impl Catalogue {
    fn with_bytes(bytes: usize) -> Catalogue {
        Catalogue { texts: String::with_capacity(bytes), ..Catalogue::default() }
    }

    /// Names what was read: 16 hexadecimal digits of the file's bytes, the same wherever they are read. None: no catalogue.
    pub fn version(&self) -> Option<String> {
        (self.version != 0).then(|| format!("{:016x}", self.version))
    }

    /// The version as a number, 0 where there is no catalogue.
    pub fn version_number(&self) -> u64 {
        self.version
    }

    /// When it was read.
    pub fn loaded_ms(&self) -> i64 {
        self.loaded_ms
    }

    pub fn ads(&self) -> usize {
        self.ads.len()
    }

    /// None: the catalogue does not name the ad, and its clicks' own word counts.
    pub fn owner(&self, ad_id: &str) -> Option<Owner<'_>> {
        let found = self.find(ad_id)?;
        Some(Owner {
            campaign_id: self.name(&self.campaigns, found.campaign),
            advertiser_id: self.name(&self.advertisers, found.advertiser),
        })
    }

    /// The row as it counts for campaigns, advertisers and scopes: what the catalogue says, where it says something.
    pub fn owned<'a>(&'a self, row: &Parts<'a>) -> Parts<'a> {
        let (campaign_id, advertiser_id) = self.owner_of(row.ad_id, (row.campaign_id, row.advertiser_id));
        Parts { campaign_id, advertiser_id, ..*row }
    }

    /// Campaign and advertiser of an ad, of which clicks named these.
    pub fn owner_of<'a>(&'a self, ad_id: &str, clicked: (&'a str, &'a str)) -> (&'a str, &'a str) {
        let Some(owner) = self.owner(ad_id) else { return clicked };
        let or = |said: &'a str, clicked: &'a str| if said.is_empty() { clicked } else { said };
        (or(owner.campaign_id, clicked.0), or(owner.advertiser_id, clicked.1))
    }

    pub fn ads_of_campaign(&self, campaign_id: &str) -> impl Iterator<Item = &str> {
        self.ads_of(&self.campaigns, campaign_id)
    }

    pub fn ads_of_advertiser(&self, advertiser_id: &str) -> impl Iterator<Item = &str> {
        self.ads_of(&self.advertisers, advertiser_id)
    }

    /// Takes a line of the file in; one that was there already changes nothing.
    fn add(&mut self, ad_id: &str, campaign_id: &str, advertiser_id: &str) -> Result<(), Contradiction> {
        let campaign = number(&mut self.texts, &mut self.campaigns, campaign_id);
        let advertiser = number(&mut self.texts, &mut self.advertisers, advertiser_id);
        if let Some(found) = self.find(ad_id) {
            let same = (found.campaign, found.advertiser) == (campaign, advertiser);
            return if same { Ok(()) } else { Err(Contradiction) };
        }
        let at = self.ads.len() as u32;
        let ad = Listed { ad_id: append(&mut self.texts, ad_id), campaign, advertiser };
        self.ads.push(ad);
        let Catalogue { by_ad, ads, texts, .. } = self;
        let hash = |at: &u32| xxh3_64(text(texts, ads[*at as usize].ad_id).as_bytes());
        by_ad.insert_unique(xxh3_64(ad_id.as_bytes()), at, hash);
        Ok(())
    }

    /// When all lines are in.
    fn finish(mut self, version: u64, loaded_ms: i64) -> Catalogue {
        self.texts.shrink_to_fit();
        self.ads.shrink_to_fit();
        self.campaigns.index(self.ads.iter().map(|ad| ad.campaign));
        self.advertisers.index(self.ads.iter().map(|ad| ad.advertiser));
        // 0 says that there is none.
        Catalogue { version: version.max(1), loaded_ms, ..self }
    }

    fn find(&self, ad_id: &str) -> Option<&Listed> {
        let same = |at: &u32| text(&self.texts, self.ads[*at as usize].ad_id) == ad_id;
        self.by_ad.find(xxh3_64(ad_id.as_bytes()), same).map(|at| &self.ads[*at as usize])
    }

    fn name(&self, owners: &Owners, number: u32) -> &str {
        let name = (number as usize).checked_sub(1).map(|at| owners.names[at]);
        name.map_or("", |name| text(&self.texts, name))
    }

    fn ads_of(&self, owners: &Owners, name: &str) -> impl Iterator<Item = &str> {
        let same = |number: &u32| text(&self.texts, owners.names[*number as usize - 1]) == name;
        let found = owners.by_name.find(xxh3_64(name.as_bytes()), same);
        let range = found.map_or(0..0, |number| {
            owners.starts[*number as usize - 1] as usize..owners.starts[*number as usize] as usize
        });
        owners.ads[range].iter().map(|at| text(&self.texts, self.ads[*at as usize].ad_id))
    }
}

impl Owners {
    /// Puts the ads in the order of their owners: `owner_of` gives each ad's, in the order of the ads.
    fn index(&mut self, owner_of: impl Iterator<Item = u32> + Clone) {
        let mut starts = vec![0u32; self.names.len() + 2];
        for owner in owner_of.clone() {
            starts[owner as usize + 1] += 1;
        }
        // Those without an owner come first, and are left out.
        starts[1] = 0;
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        self.ads = vec![0; starts[self.names.len() + 1] as usize];
        for (at, owner) in owner_of.enumerate().filter(|(_, owner)| *owner != 0) {
            self.ads[next[owner as usize] as usize] = at as u32;
            next[owner as usize] += 1;
        }
        self.starts = starts.split_off(1);
        self.names.shrink_to_fit();
    }
}

/// The number of an owner, a new one where it has none; 0 for no name.
fn number(texts: &mut String, owners: &mut Owners, name: &str) -> u32 {
    if name.is_empty() {
        return 0;
    }
    let hash = xxh3_64(name.as_bytes());
    let Owners { names, by_name, .. } = owners;
    if let Some(&found) = by_name.find(hash, |number| text(texts, names[*number as usize - 1]) == name) {
        return found;
    }
    names.push(append(texts, name));
    let next = names.len() as u32;
    by_name.insert_unique(hash, next, |number| xxh3_64(text(texts, names[*number as usize - 1]).as_bytes()));
    next
}

fn append(texts: &mut String, name: &str) -> Text {
    let at = u32::try_from(texts.len()).expect("the texts are parts of a file of at most FILE_BYTES_MAX");
    texts.push_str(name);
    Text { at, bytes: u8::try_from(name.len()).expect("ids are checked against ID_BYTES_MAX") }
}

fn text(texts: &str, Text { at, bytes }: Text) -> &str {
    &texts[at as usize..at as usize + usize::from(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[(&str, &str, &str)]) -> Catalogue {
        let mut catalogue = Catalogue::default();
        for (ad_id, campaign_id, advertiser_id) in lines {
            catalogue.add(ad_id, campaign_id, advertiser_id).expect("no contradiction");
        }
        catalogue.finish(7, 1_000)
    }

    #[test]
    fn every_ad_is_found_and_so_are_the_ads_of_its_owners() {
        let lines: Vec<[String; 3]> = (0..1_000)
            .map(|n| {
                [
                    format!("ad_{n}"),
                    if n % 7 == 0 { String::new() } else { format!("c{}", n % 30) },
                    format!("a{}", n % 4),
                ]
            })
            .collect();
        let lines: Vec<(&str, &str, &str)> =
            lines.iter().map(|[ad, c, a]| (ad.as_str(), c.as_str(), a.as_str())).collect();
        let catalogue = of(&lines);
        assert_eq!(catalogue.ads(), 1_000);
        for (ad_id, campaign_id, advertiser_id) in &lines {
            assert_eq!(catalogue.owner(ad_id), Some(Owner { campaign_id, advertiser_id }), "{ad_id}");
        }
        let mut found = 0;
        for owner in (0..30).map(|n| format!("c{n}")) {
            let wanted: Vec<&str> = lines.iter().filter(|line| line.1 == owner).map(|line| line.0).collect();
            assert_eq!(catalogue.ads_of_campaign(&owner).collect::<Vec<_>>(), wanted, "{owner}");
            found += wanted.len();
        }
        assert_eq!(found, lines.iter().filter(|line| !line.1.is_empty()).count());
        assert_eq!(catalogue.ads_of_advertiser("a3").count(), 250);
        assert_eq!((catalogue.ads_of_campaign("").count(), catalogue.ads_of_campaign("x").count()), (0, 0));
        assert!(catalogue.owner("ad_1000").is_none() && catalogue.owner("").is_none());
    }

    #[test]
    fn what_the_catalogue_does_not_say_the_click_does() {
        let catalogue = of(&[("both", "c", "a"), ("half", "", "a")]);
        let row = |ad_id| {
            let row = Parts {
                ad_id,
                window_start_ms: 0,
                campaign_id: "C",
                advertiser_id: "A",
                region: "",
                device: 0,
                agent: 0,
                class: 0,
                rules: 0,
            };
            let owned = catalogue.owned(&row);
            (owned.campaign_id.to_owned(), owned.advertiser_id.to_owned())
        };
        let texts = |campaign: &str, advertiser: &str| (campaign.to_owned(), advertiser.to_owned());
        assert_eq!([row("both"), row("half"), row("none")], [texts("c", "a"), texts("C", "a"), texts("C", "A")]);
        assert!(Catalogue::default().version().is_none() && catalogue.version().is_some());
    }

    #[test]
    fn an_ad_has_one_owner() {
        let mut catalogue = Catalogue::default();
        assert_eq!(catalogue.add("ad", "c", "a"), Ok(()));
        assert_eq!(catalogue.add("ad", "c", "a"), Ok(()));
        assert_eq!(catalogue.add("ad", "c", ""), Err(Contradiction));
        assert_eq!(catalogue.finish(1, 0).ads_of_campaign("c").count(), 1);
    }
}
