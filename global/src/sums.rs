//! Pure. What a span of event time adds up to: clicks by class, and the distinct users of its net clicks.

use std::collections::BTreeMap;
use std::fmt;

use tollgate_wire::users::{Users, UsersError};

/// The class of clicks that count as net.
pub const CLASS_VALID: u32 = 0;
/// Standard error of the estimate of users, of its value: that of the wire's sketches, whatever was merged.
pub const USERS_ERROR: f64 = 0.016;

/// Sums over rows or runs; merging them in any order gives the same.
#[derive(Default)]
pub struct Sums {
    clicks_by_class: BTreeMap<u32, u64>,
    /// Users of net clicks only, as they stand beside the net count: a marked click must not widen an ad's reach.
    net_users: Users,
}

impl fmt::Debug for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sums").field("clicks_by_class", &self.clicks_by_class).field("users", &self.users()).finish()
    }
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

    /// What the users take of memory beside this.
    pub fn users_bytes(&self) -> usize {
        self.net_users.memory_bytes()
    }

    /// Estimate of the distinct users of net clicks, never above the number of those clicks. Its standard error is
    /// [`USERS_ERROR`].
    pub fn users(&self) -> u64 {
        (self.net_users.estimate().round() as u64).min(self.net())
    }
}
