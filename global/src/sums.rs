//! Pure. What a span of event time adds up to: clicks by class, and the distinct users of its net clicks.

use std::collections::BTreeMap;

use crate::users::{self, NotASketch, Sketch};

/// The class of clicks that count as net.
pub const CLASS_VALID: u32 = 0;

/// Sums over rows, panes or runs; merging them in any order gives the same.
#[derive(Default)]
pub struct Sums {
    clicks_by_class: BTreeMap<u32, u64>,
    /// Users of net clicks only, as they stand beside the net count: a marked click must not widen an ad's reach.
    net_users: Sketch,
}

impl Sums {
    pub fn from_parts(clicks_by_class: BTreeMap<u32, u64>, net_users: &[u8]) -> Result<Sums, NotASketch> {
        let mut sums = Sums { clicks_by_class, net_users: Sketch::new() };
        sums.net_users.merge_bytes(net_users)?;
        Ok(sums)
    }

    pub fn add(&mut self, class: u32, clicks: u64, users: &[u8]) -> Result<(), NotASketch> {
        if class == CLASS_VALID {
            self.net_users.merge_bytes(users)?;
        } else {
            users::check(users)?;
        }
        *self.clicks_by_class.entry(class).or_default() += clicks;
        Ok(())
    }

    pub fn merge(&mut self, other: &Sums) {
        for (&class, clicks) in &other.clicks_by_class {
            *self.clicks_by_class.entry(class).or_default() += clicks;
        }
        self.net_users.merge(&other.net_users);
    }

    /// Clicks of all classes.
    pub fn gross(&self) -> u64 {
        self.clicks_by_class.values().sum()
    }

    /// Clicks that no rule marked.
    pub fn net(&self) -> u64 {
        self.clicks_by_class.get(&CLASS_VALID).copied().unwrap_or(0)
    }

    pub fn clicks_by_class(&self) -> &BTreeMap<u32, u64> {
        &self.clicks_by_class
    }

    /// Estimate of the distinct users of net clicks, never above the number of those clicks.
    pub fn users(&self) -> u64 {
        (self.net_users.estimate().round() as u64).min(self.net())
    }

    pub fn net_users(&self) -> &Sketch {
        &self.net_users
    }
}
