//! Pure. What may be counted of each ad: every good click sent, less those whose outcome stayed unknown as the lower bound.

use std::ops::RangeInclusive;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    sent: Vec<u64>,
    unknown: Vec<u64>,
}

impl Ledger {
    pub fn new(ads: usize) -> Ledger {
        Ledger { sent: vec![0; ads], unknown: vec![0; ads] }
    }

    /// A good click is about to be sent for the first time.
    #[inline]
    pub fn send(&mut self, ad: u32) {
        self.sent[ad as usize] += 1;
    }

    /// The outcome of a click that was sent stays unknown: it may be counted or not.
    pub fn give_up(&mut self, ad: u32) {
        self.unknown[ad as usize] += 1;
        assert!(self.unknown[ad as usize] <= self.sent[ad as usize], "a click is given up once");
    }

    /// Adds a ledger of the same ads, or of the first of them.
    pub fn add(&mut self, other: &Ledger) {
        assert!(self.sent.len() >= other.sent.len(), "no ad is left out");
        for (mine, theirs) in self.sent.iter_mut().zip(&other.sent) {
            *mine += theirs;
        }
        for (mine, theirs) in self.unknown.iter_mut().zip(&other.unknown) {
            *mine += theirs;
        }
    }

    /// How often the ad must be counted at least (what was acknowledged) and at most.
    pub fn bounds(&self, ad: usize) -> RangeInclusive<u64> {
        self.sent[ad] - self.unknown[ad]..=self.sent[ad]
    }

    pub fn total(&self) -> RangeInclusive<u64> {
        let sent: u64 = self.sent.iter().sum();
        sent - self.unknown.iter().sum::<u64>()..=sent
    }

    /// Clicks whose outcome stayed unknown.
    pub fn unknown(&self) -> u64 {
        self.unknown.iter().sum()
    }

    pub fn ads(&self) -> usize {
        self.sent.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_clicks_widen_the_bounds_downwards_only() {
        let mut ledger = Ledger::new(2);
        for _ in 0..3 {
            ledger.send(1);
        }
        ledger.give_up(1);
        let mut sum = Ledger::new(2);
        sum.send(0);
        sum.add(&ledger);
        assert_eq!((sum.bounds(0), sum.bounds(1), sum.total()), (1..=1, 2..=3, 3..=4));
    }
}
