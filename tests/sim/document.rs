//! What a campaign of tests prints at its end: one JSON document on a line. `scripts/campaigns` adds up those of disjoint ranges.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// `counts`: members of an object. `range`: of seeds or points, both ends included.
pub fn document(campaign: &str, [first, last]: [u64; 2], counts: &str, began: Instant, passed: bool) -> String {
    // Asking git would fork, and a child holds, until it is another program, what a world has locked.
    let commit = std::env::var("TOLLGATE_COMMIT").unwrap_or_else(|_| "unnamed".to_owned());
    let seconds = began.elapsed().as_secs();
    let profile = if cfg!(debug_assertions) { "checked" } else { "unchecked" };
    let verdict = if passed { "pass" } else { "fail" };
    format!(
        "{{\"campaign\":\"{campaign}\",\"commit\":\"{commit}\",\"build\":\"{profile}\",\"range\":[{first},{last}],{counts},\"seconds\":{seconds},\"verdict\":\"{verdict}\"}}"
    )
}

/// Of what real processes went through: no seed gives it again, and so its range are the seconds since 1970 in which it ran.
#[allow(dead_code, reason = "worlds have seeds")]
pub fn timed_document(campaign: &str, counts: &str, began: Instant) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    document(campaign, [now - began.elapsed().as_secs(), now], counts, began, true)
}
