//! Pure. Generations in eight bits: which of the bytes in the slots are live, how many keys each holds, and how far the
//! horizon may rise before the table must have been swept.
//!
//! Time is cut into generations of a sixteenth of the window, numbered from 1970. A slot holds its generation's number
//! modulo 255, plus 1 (0 is an empty slot):
//!
//! ```text
//!    swept             horizon                       horizon + SPAN             swept + RING
//!  ────┼──────────────────┼──────────────────────────────┼──────────────────────────┼────▶ number
//!      │ dead, not swept  │ live                         │ taken by nothing         │ the bytes repeat
//! ```
//!
//! **Invariant**: every slot's generation is in `[swept, horizon + SPAN)`, and `horizon + SPAN <= swept + RING`. So no two
//! generations in the table share a byte, and a byte tells live from dead. It holds because
//! - a key is inserted only with a generation in `[horizon, horizon + SPAN)`;
//! - `horizon` rises only as far as `swept` allows ([`Epochs::rise`]);
//! - `swept` rises only when a pass over the whole table has emptied every slot that was dead when the pass began. Slots
//!   that are written or moved during the pass are live then, hence not older than the pass's beginning.

/// Bytes that stand for a generation: 1 to 255.
pub(super) const RING: i64 = 255;
/// Generations that can be live at once: the window's 17, and room for clicks whose event time is ahead.
pub(super) const SPAN: i64 = 128;

/// A generation's byte in a slot.
#[inline]
pub(super) fn byte(generation: i64) -> u8 {
    (generation.rem_euclid(RING) + 1) as u8
}

/// A generation and its limits in time.
#[derive(Clone, Copy)]
pub(super) struct Generation {
    pub number: i64,
    pub begin_ms: i64,
    pub end_ms: i64,
}

impl Generation {
    /// The one that a time is in.
    pub(super) fn at(time_ms: i64, generation_ms: i64) -> Generation {
        let number = time_ms.div_euclid(generation_ms);
        let begin_ms = number.saturating_mul(generation_ms);
        Generation { number, begin_ms, end_ms: begin_ms.saturating_add(generation_ms) }
    }
}

/// Tells live slots from dead and empty ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Live {
    /// The horizon's byte.
    from: u8,
}

impl Live {
    /// Whether the byte is one of the SPAN that begin at the horizon's. The ring has 255 places and the byte 256, so
    /// what lies beyond the wrap is one less far than the difference says.
    #[inline]
    pub(super) fn holds(self, byte: u8) -> bool {
        let ahead = byte.wrapping_sub(self.from).wrapping_sub(u8::from(byte < self.from));
        byte != 0 && ahead < SPAN as u8
    }
}

/// The horizon's generation, and the keys of each live one.
pub(super) struct Epochs {
    horizon: i64,
    swept: i64,
    /// Where the horizon was when the pass that is under way began.
    pass_from: i64,
    /// Keys in each live generation, by its byte. All others are 0.
    keys: [u64; 256],
    keys_all: u64,
}

/// What must be done before the horizon can rise further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rise {
    Done,
    /// A pass over the whole table, then [`Epochs::swept_whole`], then again.
    Sweep,
    /// Nothing is live any more: empty the whole table, then [`Epochs::restart`].
    Clear,
}

impl Epochs {
    /// For a table that is empty.
    pub(super) fn new(horizon: i64) -> Epochs {
        Epochs { horizon, swept: horizon, pass_from: horizon, keys: [0; 256], keys_all: 0 }
    }

    #[inline]
    pub(super) fn live(&self) -> Live {
        Live { from: byte(self.horizon) }
    }

    #[inline]
    pub(super) fn horizon(&self) -> i64 {
        self.horizon
    }

    /// The generation that a live slot's byte stands for.
    pub(super) fn number(&self, byte: u8) -> i64 {
        self.horizon + (i64::from(byte) - 1 - self.horizon).rem_euclid(RING)
    }

    /// The first generation that is too far ahead to be held.
    #[inline]
    pub(super) fn end(&self) -> i64 {
        self.horizon.saturating_add(SPAN)
    }

    pub(super) fn keys(&self) -> u64 {
        self.keys_all
    }

    #[inline]
    pub(super) fn count(&mut self, byte: u8) {
        self.keys[byte as usize] += 1;
        self.keys_all += 1;
    }

    /// A key moves from one live generation to another.
    pub(super) fn recount(&mut self, from: u8, to: u8) {
        self.keys[from as usize] -= 1;
        self.keys[to as usize] += 1;
    }

    /// The oldest generation that holds a key, and how many.
    pub(super) fn oldest(&self) -> Option<(i64, u64)> {
        let numbers = self.horizon..self.end();
        numbers.map(|number| (number, self.keys[byte(number) as usize])).find(|(_, keys)| *keys > 0)
    }

    /// Moves the horizon towards `to`, as far as the invariant allows. Forgets the keys of the generations it passes.
    pub(super) fn rise(&mut self, to: i64) -> Rise {
        assert!(to >= self.horizon, "the horizon never falls");
        if to.saturating_sub(self.horizon) >= SPAN {
            return Rise::Clear;
        }
        let reach = to.min(self.swept + (RING - SPAN));
        for number in self.horizon..reach {
            let keys = &mut self.keys[byte(number) as usize];
            self.keys_all -= *keys;
            *keys = 0;
        }
        self.horizon = reach.max(self.horizon);
        assert!(self.horizon + SPAN <= self.swept + RING, "a byte would stand for two generations");
        if self.horizon == to { Rise::Done } else { Rise::Sweep }
    }

    /// The clock hand has been over every line since the last call: what was dead then is gone.
    pub(super) fn pass_ended(&mut self) {
        assert!(self.swept <= self.pass_from && self.pass_from <= self.horizon, "the pass began after the last one");
        self.swept = self.pass_from;
        self.pass_from = self.horizon;
    }

    /// Every line was swept with the horizon as it is.
    pub(super) fn swept_whole(&mut self) {
        self.swept = self.horizon;
        self.pass_from = self.horizon;
    }

    /// Every line was emptied.
    pub(super) fn restart(&mut self, horizon: i64) {
        assert!(horizon >= self.horizon, "the horizon never falls");
        *self = Epochs::new(horizon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_live_exactly_within_the_span() {
        for horizon in [-300, -1, 0, 1, 126, 127, 128, 253, 254, 255, 256, 1 << 40] {
            let live = Epochs::new(horizon).live();
            assert!(!live.holds(0), "an empty slot");
            for number in horizon - (RING - SPAN)..horizon + SPAN {
                assert_eq!(live.holds(byte(number)), number >= horizon, "{number} from {horizon}");
            }
        }
    }

    #[test]
    fn the_horizon_waits_for_the_sweep_before_bytes_repeat() {
        let mut epochs = Epochs::new(0);
        assert_eq!(epochs.rise(100), Rise::Done);
        assert_eq!(epochs.rise(128), Rise::Sweep);
        assert_eq!(epochs.horizon(), RING - SPAN);
        // The pass under way began at 0: its end allows nothing more.
        epochs.pass_ended();
        assert_eq!(epochs.rise(128), Rise::Sweep);
        epochs.pass_ended();
        assert_eq!(epochs.rise(128), Rise::Done);
        assert_eq!(epochs.rise(128 + SPAN), Rise::Clear);
    }

    #[test]
    fn keys_are_counted_by_generation_and_forgotten_with_it() {
        let mut epochs = Epochs::new(10);
        for number in [10, 10, 12, 20] {
            epochs.count(byte(number));
        }
        assert_eq!((epochs.keys(), epochs.oldest()), (4, Some((10, 2))));
        epochs.recount(byte(10), byte(13));
        assert_eq!(epochs.rise(12), Rise::Done);
        assert_eq!((epochs.keys(), epochs.oldest()), (3, Some((12, 1))));
        assert_eq!(epochs.rise(21), Rise::Done);
        assert_eq!((epochs.keys(), epochs.oldest()), (0, None));
    }
}
