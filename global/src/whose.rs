//! Whose ads are: the catalogue's word, and where it says nothing that of the clicks; and so which ads a question is about.
//!
//! Of somebody who may see a scope, only the scope's own ads are walked, whatever is asked: what it takes to answer tells nothing of
//! others, not even whether they are there.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use redb::ReadOnlyTable;

use crate::catalogue::{Catalogue, ID_BYTES_MAX, Owner};
use crate::question::{GroupBy, Question, Scope, Subject};
use crate::snapshot::Snapshot;
use crate::tables::{ADS, StoreError};

/// Ads of a question that are looked up one by one; with more, all rows of the span are read.
pub const LOOKED_UP_MAX: usize = 20_000;
/// What the ads of one question may take of memory: each an id, its place in a set that is half full, and what an allocation costs.
pub const ADS_BYTES_MAX: usize = LOOKED_UP_MAX * (ID_BYTES_MAX + 2 * size_of::<String>() + 16);

/// Whose rows are read.
pub enum Ads {
    /// All but the rows of all ads together.
    Every,
    /// Too many to be looked up, or to be held: the question's rows are picked out of all.
    Many,
    These(BTreeSet<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Campaign,
    Advertiser,
}

/// A campaign or an advertiser.
type Named<'a> = (Kind, &'a str);

impl Kind {
    /// As the index names it.
    fn code(self) -> &'static str {
        match self {
            Kind::Campaign => "c",
            Kind::Advertiser => "a",
        }
    }

    /// What the catalogue says of it; empty: nothing.
    fn said<'a>(self, owner: &Owner<'a>) -> &'a str {
        match self {
            Kind::Campaign => owner.campaign_id,
            Kind::Advertiser => owner.advertiser_id,
        }
    }
}

impl Scope {
    fn names(&self) -> impl Iterator<Item = Named<'_>> {
        let campaigns = self.campaigns.iter().map(|id| (Kind::Campaign, id.as_str()));
        campaigns.chain(self.advertisers.iter().map(|id| (Kind::Advertiser, id.as_str())))
    }
}

/// The ads of which a question's are picked: those of `owners`; where `of` names somebody, of these the ones that are its too.
struct Walk<'a> {
    owners: Vec<Named<'a>>,
    of: Option<Named<'a>>,
}

impl<'a> Walk<'a> {
    /// Of a question about owners of ads. A subject that the scope names is walked itself; any other is looked for among the
    /// scope's ads, which takes as long whether there is such a one or not.
    fn of(subject: Option<Named<'a>>, scope: Option<&'a Scope>) -> Walk<'a> {
        match (subject, scope) {
            (subject, None) => Walk { owners: subject.into_iter().collect(), of: None },
            (Some(subject), Some(scope)) if scope.names().any(|own| own == subject) => {
                Walk { owners: vec![subject], of: None }
            }
            (of, Some(scope)) => Walk { owners: scope.names().collect(), of },
        }
    }
}

fn owner_of(subject: &Subject) -> Option<Named<'_>> {
    match subject {
        Subject::Campaign(id) => Some((Kind::Campaign, id)),
        Subject::Advertiser(id) => Some((Kind::Advertiser, id)),
        Subject::All | Subject::Ad(_) => None,
    }
}

/// What is known of ads at one moment.
pub struct Whose<'a> {
    catalogue: &'a Catalogue,
    /// Which campaigns and advertisers clicks named.
    index: ReadOnlyTable<(&'static str, &'static str, &'static str), i64>,
}

type EachAd<'a> = &'a mut dyn FnMut(&str) -> Result<ControlFlow<()>, StoreError>;

impl<'a> Whose<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Result<Whose<'a>, StoreError> {
        let index = snapshot.file.open_table(ADS).map_err(redb::Error::from)?;
        Ok(Whose { catalogue: snapshot.catalogue(), index })
    }

    /// The ads of a question. With a scope, none that it may not see.
    pub fn ads(&self, question: &Question) -> Result<Ads, StoreError> {
        let scope = question.filter.scope.as_deref();
        match (&question.subject, scope) {
            (Subject::Ad(ad_id), None) => return Ok(Ads::These([ad_id.clone()].into())),
            (Subject::Ad(ad_id), Some(scope)) => {
                let seen = self.may_see(scope, ad_id)?;
                return Ok(Ads::These(seen.then(|| ad_id.clone()).into_iter().collect()));
            }
            (Subject::All, None) if question.group_by == Some(GroupBy::Ad) => return Ok(Ads::Every),
            (Subject::All, None) => return Ok(Ads::These([String::new()].into())),
            (Subject::All, Some(_)) | (Subject::Campaign(_) | Subject::Advertiser(_), _) => {}
        }
        let mut ads = BTreeSet::new();
        let walked = self.walk(question, &mut |ad_id| {
            ads.insert(ad_id.to_owned());
            Ok(if ads.len() > LOOKED_UP_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        // One scan of everything is cheaper than a look-up of each, and needs none of them in memory.
        Ok(if walked.is_break() { Ads::Many } else { Ads::These(ads) })
    }

    /// Whether there can be clicks of the ad that this scope may see.
    pub fn may_see(&self, scope: &Scope, ad_id: &str) -> Result<bool, StoreError> {
        for own in scope.names() {
            if self.is_of(ad_id, own)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether corrections are in the answer to a question about these ads. With a scope only where every one of them is its own.
    pub fn shows_corrections(&self, ads: &Ads, question: &Question) -> Result<bool, StoreError> {
        let Some(scope) = question.filter.scope.as_deref() else { return Ok(true) };
        let own = |ad_id: &str| self.catalogue.owns(scope, ad_id);
        match ads {
            // Those of all together are nobody's own.
            Ads::Every => Ok(false),
            Ads::These(ads) => Ok(ads.iter().all(|ad_id| own(ad_id))),
            Ads::Many => {
                let not_own = |ad_id: &str| if own(ad_id) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
                Ok(self.walk(question, &mut |ad_id| Ok(not_own(ad_id)))?.is_continue())
            }
        }
    }

    /// Whether an ad's corrections are of a question that shows them: of a scope, all that it may see are its own.
    pub fn is_corrected_for(&self, question: &Question, ad_id: &str) -> Result<bool, StoreError> {
        let own = question.filter.scope.as_deref().is_none_or(|scope| self.catalogue.owns(scope, ad_id));
        Ok(own && owner_of(&question.subject).map_or(Ok(true), |owner| self.is_of(ad_id, owner))?)
    }

    /// Shows the ads of a question about owners of ads, some of them twice, until there is a break.
    fn walk(&self, question: &Question, each: EachAd<'_>) -> Result<ControlFlow<()>, StoreError> {
        let Walk { owners, of } = Walk::of(owner_of(&question.subject), question.filter.scope.as_deref());
        let mut picked = |ad_id: &str| {
            if of.map_or(Ok(true), |of| self.is_of(ad_id, of))? { each(ad_id) } else { Ok(ControlFlow::Continue(())) }
        };
        for owner in owners {
            if self.walk_one(owner, &mut picked)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Shows the ads of one owner: those whose clicks said so where the catalogue does not say, and those of the catalogue.
    fn walk_one(&self, (kind, id): Named<'_>, each: EachAd<'_>) -> Result<ControlFlow<()>, StoreError> {
        for entry in self.index.range((kind.code(), id, "")..).map_err(redb::Error::from)? {
            let (found, _) = entry.map_err(redb::Error::from)?;
            let (found_kind, found_id, ad_id) = found.value();
            if (found_kind, found_id) != (kind.code(), id) {
                break;
            }
            let said = self.catalogue.owner(ad_id).map_or("", |owner| kind.said(&owner));
            if (said.is_empty() || said == id) && each(ad_id)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let listed: &mut dyn Iterator<Item = &str> = match kind {
            Kind::Campaign => &mut self.catalogue.ads_of_campaign(id),
            Kind::Advertiser => &mut self.catalogue.ads_of_advertiser(id),
        };
        for ad_id in listed {
            if each(ad_id)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether an ad is of an owner. The index is asked in any case: how long that takes does not tell whether the catalogue names
    /// the ad.
    fn is_of(&self, ad_id: &str, (kind, id): Named<'_>) -> Result<bool, StoreError> {
        let clicked = self.index.get((kind.code(), id, ad_id)).map_err(redb::Error::from)?.is_some();
        let said = self.catalogue.owner(ad_id).map_or("", |owner| kind.said(&owner));
        Ok(if said.is_empty() { clicked } else { said == id })
    }
}

impl Catalogue {
    /// Whether every click of the ad is this scope's, whatever clicks say: the catalogue gives it a campaign and an advertiser, and one
    /// of them is in the scope. Corrections are kept by ad, so of other ads they may be those of somebody else's clicks.
    pub fn owns(&self, scope: &Scope, ad_id: &str) -> bool {
        self.owner(ad_id).is_some_and(|owner| {
            let said = !owner.campaign_id.is_empty() && !owner.advertiser_id.is_empty();
            said && scope.takes(owner.campaign_id, owner.advertiser_id)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever else is asked, nothing but what the scope names is walked.
    #[test]
    fn a_scope_walks_its_own_ads_alone() {
        let scope =
            Scope { campaigns: ["c1".to_owned(), "c2".to_owned()].into(), advertisers: ["a1".to_owned()].into() };
        let own = [(Kind::Campaign, "c1"), (Kind::Campaign, "c2"), (Kind::Advertiser, "a1")];
        let of = |subject| {
            let Walk { owners, of } = Walk::of(subject, Some(&scope));
            (owners, of)
        };
        for other in [(Kind::Campaign, "c3"), (Kind::Advertiser, "c1"), (Kind::Advertiser, "none")] {
            assert_eq!(of(Some(other)), (own.to_vec(), Some(other)));
        }
        assert_eq!(of(None), (own.to_vec(), None));
        for one in own {
            assert_eq!(of(Some(one)), (vec![one], None));
        }
        let everything = Walk::of(Some((Kind::Campaign, "c3")), None);
        assert_eq!((everything.owners, everything.of), (vec![(Kind::Campaign, "c3")], None));
    }
}
