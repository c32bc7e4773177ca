//! Pure. How partials merge: clicks add, users merge, and nothing else may differ.

use crate::messages::Partial;
use crate::users::{Users, UsersError};

/// What a partial counts by. Partials of equal keys merge, whoever sent them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub pane_start_ms: i64,
    pub ad_id: String,
    pub campaign_id: String,
    pub advertiser_id: String,
    pub region: String,
    pub device: u32,
    pub agent: u32,
    pub class: u32,
    pub rules: u32,
}

impl Key {
    pub fn of(partial: &Partial) -> Key {
        Key {
            pane_start_ms: partial.pane_start_ms,
            ad_id: partial.ad_id.clone(),
            campaign_id: partial.campaign_id.clone(),
            advertiser_id: partial.advertiser_id.clone(),
            region: partial.region.clone(),
            device: partial.device,
            agent: partial.agent,
            class: partial.class,
            rules: partial.rules,
        }
    }
}

/// What the partials of one key add up to.
#[derive(Default)]
pub struct Count {
    pub clicks: u64,
    pub users: Users,
}

/// Why a partial cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    #[error("{clicks} clicks and {added} more do not fit into 64 bits")]
    Overflow { clicks: u64, added: u64 },
    #[error(transparent)]
    Users(#[from] UsersError),
}

impl Count {
    /// Adds a partial of the same key; on an error nothing was added.
    pub fn add(&mut self, partial: &Partial) -> Result<(), MergeError> {
        let overflow = MergeError::Overflow { clicks: self.clicks, added: partial.clicks };
        let clicks = self.clicks.checked_add(partial.clicks).ok_or(overflow)?;
        self.users.merge_bytes(&partial.users)?;
        self.clicks = clicks;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn partial(ad: u8, clicks: u64, users: u64) -> Partial {
        let users = Users::bytes_of((0..users).map(|user| (user + u64::from(ad)).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        Partial { ad_id: format!("ad_{ad}"), clicks, users, ..Partial::default() }
    }

    fn merged<'a>(partials: impl Iterator<Item = &'a Partial>) -> BTreeMap<Key, Count> {
        let mut counts: BTreeMap<Key, Count> = BTreeMap::new();
        partials.for_each(|partial| counts.entry(Key::of(partial)).or_default().add(partial).unwrap());
        counts
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_the_total_is_the_sum_of_the_parts(
            parts in proptest::collection::vec((0u8..4, 0u64..1_000, 0u64..500), 0..20),
            rotate in 0usize..20,
        ) {
            let partials: Vec<Partial> = parts.iter().map(|(ad, clicks, users)| partial(*ad, *clicks, *users)).collect();
            let mut other = partials.clone();
            other.reverse();
            other.rotate_left(rotate.min(partials.len()));
            let (one, two) = (merged(partials.iter()), merged(other.iter()));
            prop_assert_eq!(one.values().map(|count| count.clicks).sum::<u64>(), parts.iter().map(|part| part.1).sum());
            prop_assert_eq!(one.len(), two.len());
            for ((key, a), b) in one.iter().zip(two.values()) {
                prop_assert_eq!(a.clicks, b.clicks, "{:?}", key);
                prop_assert!((a.users.estimate() - b.users.estimate()).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_refused_partial_adds_nothing() {
        let mut count = Count::default();
        count.add(&partial(1, 7, 3)).unwrap();
        assert_eq!(count.add(&partial(1, u64::MAX, 3)), Err(MergeError::Overflow { clicks: 7, added: u64::MAX }));
        let damaged = Partial { users: vec![1], ..partial(1, 5, 0) };
        assert!(matches!(count.add(&damaged), Err(MergeError::Users(_))));
        assert_eq!(count.clicks, 7);
    }
}
