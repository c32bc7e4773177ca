//! Whose ads are: the catalogue's word, and where it says nothing that of the clicks; and so which ads a question is about.

use std::collections::BTreeSet;

use crate::question::{GroupBy, Question, Scope, Subject};
use crate::snapshot::Snapshot;
use crate::tables::{ADS, StoreError};

/// Ads of a question that are looked up one by one; with more, all rows of the span are read.
pub const LOOKED_UP_MAX: usize = 20_000;

/// Whose rows are read.
pub enum Ads {
    /// All but the rows of all ads together.
    Every,
    /// Too many to be looked up: their rows are picked out of all.
    Many(BTreeSet<String>),
    These(BTreeSet<String>),
}

impl Ads {
    /// None: whatever ads there are.
    pub fn named(&self) -> Option<&BTreeSet<String>> {
        match self {
            Ads::Every => None,
            Ads::Many(ads) | Ads::These(ads) => Some(ads),
        }
    }
}

impl Snapshot {
    /// The ads of a campaign: those of the catalogue, and those whose clicks said so where the catalogue does not say.
    pub fn ads_of_campaign(&self, campaign_id: &str) -> Result<BTreeSet<String>, StoreError> {
        let others = |ad: &str| self.catalogue().owner(ad).is_some_and(|owner| differs(owner.campaign_id, campaign_id));
        let mut ads = self.ads_of("c", campaign_id)?;
        ads.retain(|ad_id| !others(ad_id));
        ads.extend(self.catalogue().ads_of_campaign(campaign_id).map(str::to_owned));
        Ok(ads)
    }

    /// The ads of an advertiser, in the same way.
    pub fn ads_of_advertiser(&self, advertiser_id: &str) -> Result<BTreeSet<String>, StoreError> {
        let others =
            |ad: &str| self.catalogue().owner(ad).is_some_and(|owner| differs(owner.advertiser_id, advertiser_id));
        let mut ads = self.ads_of("a", advertiser_id)?;
        ads.retain(|ad_id| !others(ad_id));
        ads.extend(self.catalogue().ads_of_advertiser(advertiser_id).map(str::to_owned));
        Ok(ads)
    }

    /// Whether there can be clicks of the ad that this scope may see.
    pub fn may_see(&self, scope: &Scope, ad_id: &str) -> Result<bool, StoreError> {
        let owner = self.catalogue().owner(ad_id).unwrap_or_default();
        if scope.takes(owner.campaign_id, owner.advertiser_id) {
            return Ok(true);
        }
        let table = self.file.open_table(ADS).map_err(redb::Error::from)?;
        let clicked = |kind: &str, said: &str, ids: &BTreeSet<String>| {
            if !said.is_empty() {
                return Ok(false);
            }
            for id in ids {
                if table.get((kind, id.as_str(), ad_id)).map_err(redb::Error::from)?.is_some() {
                    return Ok::<_, StoreError>(true);
                }
            }
            Ok(false)
        };
        Ok(clicked("c", owner.campaign_id, &scope.campaigns)? || clicked("a", owner.advertiser_id, &scope.advertisers)?)
    }

    /// Whether every click of the ad is this scope's, whatever clicks say: the catalogue gives it a campaign and an advertiser, and one
    /// of them is in the scope. Corrections are kept by ad, so of other ads they may be those of somebody else's clicks.
    pub fn owns(&self, scope: &Scope, ad_id: &str) -> bool {
        self.catalogue().owner(ad_id).is_some_and(|owner| {
            let said = !owner.campaign_id.is_empty() && !owner.advertiser_id.is_empty();
            said && scope.takes(owner.campaign_id, owner.advertiser_id)
        })
    }

    fn ads_of(&self, kind: &str, id: &str) -> Result<BTreeSet<String>, StoreError> {
        let table = self.file.open_table(ADS).map_err(redb::Error::from)?;
        let mut ads = BTreeSet::new();
        for entry in table.range((kind, id, "")..).map_err(redb::Error::from)? {
            let (found, _) = entry.map_err(redb::Error::from)?;
            let (found_kind, found_id, ad_id) = found.value();
            if (found_kind, found_id) != (kind, id) {
                break;
            }
            ads.insert(ad_id.to_owned());
        }
        Ok(ads)
    }
}

/// Whether the catalogue says something, and something else.
fn differs(said: &str, wanted: &str) -> bool {
    !said.is_empty() && said != wanted
}

/// The ads of a question. With a scope, none that it may not see.
pub fn ads(snapshot: &Snapshot, question: &Question) -> Result<Ads, StoreError> {
    let scope = question.filter.scope.as_ref();
    let mut ads = match (&question.subject, scope) {
        (Subject::Ad(ad_id), _) => BTreeSet::from([ad_id.clone()]),
        (Subject::Campaign(id), _) => snapshot.ads_of_campaign(id)?,
        (Subject::Advertiser(id), _) => snapshot.ads_of_advertiser(id)?,
        (Subject::All, Some(Scope { campaigns, advertisers })) => {
            let mut ads = BTreeSet::new();
            for id in campaigns {
                ads.extend(snapshot.ads_of_campaign(id)?);
            }
            for id in advertisers {
                ads.extend(snapshot.ads_of_advertiser(id)?);
            }
            ads
        }
        (Subject::All, None) if question.group_by == Some(GroupBy::Ad) => return Ok(Ads::Every),
        (Subject::All, None) => BTreeSet::from([String::new()]),
    };
    if let (Some(scope), false) = (scope, question.subject == Subject::All) {
        let mut seen = BTreeSet::new();
        for ad_id in ads {
            if snapshot.may_see(scope, &ad_id)? {
                seen.insert(ad_id);
            }
        }
        ads = seen;
    }
    // One scan of everything is cheaper than a look-up of each.
    Ok(if ads.len() > LOOKED_UP_MAX { Ads::Many(ads) } else { Ads::These(ads) })
}
