//! Pure. What a span of event time adds up to: clicks by class, and the distinct users of its net clicks.

use std::collections::BTreeMap;

use tollgate_wire::users::{Users, UsersError};

use crate::records::PaneTotals;

/// The class of clicks that count as net.
pub const CLASS_VALID: u32 = 0;

/// Sums over rows, panes or runs; merging them in any order gives the same.
#[derive(Default)]
pub struct Sums {
    clicks_by_class: BTreeMap<u32, u64>,
    /// Users of net clicks only, as they stand beside the net count: a marked click must not widen an ad's reach.
    net_users: Users,
}

impl Sums {
    /// Adds one row's clicks, with the sketch of their users.
    pub fn add(&mut self, class: u32, clicks: u64, users: &[u8]) -> Result<(), UsersError> {
        if class == CLASS_VALID {
            self.net_users.merge_bytes(users)?;
        }
        *self.clicks_by_class.entry(class).or_default() += clicks;
        Ok(())
    }

    /// Adds all rows of one pane.
    pub fn add_pane(&mut self, pane: &PaneTotals) -> Result<(), UsersError> {
        self.net_users.merge_bytes(&pane.net_users)?;
        for (&class, clicks) in &pane.clicks_by_class {
            *self.clicks_by_class.entry(class).or_default() += clicks;
        }
        Ok(())
    }

    /// The sums as what is kept of one pane.
    pub fn into_pane(self) -> PaneTotals {
        PaneTotals { net_users: self.net_users.to_bytes(), clicks_by_class: self.clicks_by_class }
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
}
