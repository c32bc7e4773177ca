//! Pure. What a world went through: a hash over every event and action, and how often each situation was met.

use std::collections::BTreeMap;

pub struct Trace {
    hash: u64,
    pub steps: u64,
    pub covered: BTreeMap<&'static str, u64>,
    print: bool,
}

impl Trace {
    pub fn new(print: bool) -> Trace {
        Trace { hash: 0xCBF2_9CE4_8422_2325, steps: 0, covered: BTreeMap::new(), print }
    }

    /// Adds one step to the hash; printed when a single seed is looked at.
    pub fn note(&mut self, now_ns: u64, what: &'static str, values: &[u64]) {
        self.steps += 1;
        self.word(now_ns);
        self.bytes(what.as_bytes());
        values.iter().for_each(|value| self.word(*value));
        if self.print {
            eprintln!("{:>14.6} ms  {what} {values:?}", now_ns as f64 / 1e6);
        }
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }

    fn word(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    /// A situation that the slice of seeds must meet.
    pub fn cover(&mut self, what: &'static str) {
        *self.covered.entry(what).or_default() += 1;
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }
}
