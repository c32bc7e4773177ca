//! What waits with a deadline, and what lets a time pass, for all the others.

use std::time::{Duration, Instant};

/// Beyond every deadline that a test relies on, so that a hang fails and does not hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often [`wait_until`] looks.
const POLL: Duration = Duration::from_millis(10);

/// Waits until it is so; that it never is fails the test.
#[track_caller]
pub fn wait_until(what: &str, is: impl FnMut() -> bool) {
    assert!(within(PATIENCE, is), "waited in vain: {what}");
}

/// Waits until it is so; false where it is not in time.
pub fn within(patience: Duration, mut is: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !is() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::park_timeout(POLL);
    }
    true
}

/// Lets a time pass: a delay is what the test asked for.
pub fn let_pass(time: Duration) {
    let deadline = Instant::now() + time;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}
