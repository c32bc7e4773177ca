//! Drives. Whether a worker sleeps, so that whoever has something for it rings it only then. Free of locks:
//!
//! ```text
//!   receiver                          sender
//!   asleep = true                     push
//!   fence                             fence
//!   look again; nothing: sleep        read asleep; true: ring
//! ```
//!
//! One of the two fences comes first, so either the receiver sees the push, or the sender sees that it sleeps.
//! `tests/mesh_model.rs` tries every order of these steps.

use super::sync::{AtomicBool, Ordering, fence};

#[derive(Debug)]
pub struct Bell {
    asleep: AtomicBool,
}

impl Default for Bell {
    fn default() -> Bell {
        Bell { asleep: AtomicBool::new(false) }
    }
}

impl Bell {
    /// The receiver means to sleep: it looks once more at all that it may be sent, and sleeps if nothing is there.
    pub fn lie_down(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// It is awake, and will look before it lies down again.
    pub fn get_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// The sender has pushed. `true`: it must ring; of several senders one is told so.
    #[must_use]
    pub fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        // Nothing is written where nobody sleeps.
        self.asleep.load(Ordering::Relaxed)
            && self.asleep.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
