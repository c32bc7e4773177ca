//! Pure. How the last click of a connection was laid out, so that the next one can be scanned by comparing instead of parsing.

/// The layout that a connection's clicks are expected to have.
#[derive(Default)]
pub struct Layout {}

impl Layout {
    pub fn new() -> Layout {
        Layout::default()
    }

    /// Forgets what was learned: another connection has the slot.
    pub fn reset(&mut self) {
        *self = Layout::default();
    }
}
