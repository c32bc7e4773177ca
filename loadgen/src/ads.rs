//! Pure. Which ad a click is for: Zipf-distributed over the ads of the run, drawn in constant time from an alias table.

/// Ads that a run may have: the template has six digits for them.
pub const ADS_MAX: u32 = 1_000_000;

/// Walker's alias table. Each cell holds, in 64 bits, the chance to stay in the cell (upper half, as a fraction of 2^32)
/// and the ad to go to otherwise (lower half).
pub struct Ads {
    cells: Vec<u64>,
}

impl Ads {
    /// Ads 0 to `count - 1`; ad `i` is drawn with weight `1 / (i + 1)^exponent`. Exponent 0 is uniform.
    pub fn zipf(count: u32, exponent: f64) -> Ads {
        assert!((1..=ADS_MAX).contains(&count), "checked by the plan");
        let weights: Vec<f64> = (1..=count).map(|rank| f64::from(rank).powf(-exponent)).collect();
        let scale = f64::from(count) / weights.iter().sum::<f64>();
        let mut share: Vec<f64> = weights.iter().map(|weight| weight * scale).collect();
        let mut alias: Vec<u32> = (0..count).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) = (0..count).partition(|ad| share[*ad as usize] < 1.0);
        while let (Some(&poor), Some(&rich)) = (small.last(), large.last()) {
            small.pop();
            alias[poor as usize] = rich;
            share[rich as usize] -= 1.0 - share[poor as usize];
            if share[rich as usize] < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        for rest in small.into_iter().chain(large) {
            share[rest as usize] = 1.0;
        }
        let cell = |(share, alias): (f64, u32)| (((share * 4_294_967_296.0) as u32 as u64) << 32) | u64::from(alias);
        Ads { cells: share.into_iter().zip(alias).map(cell).collect() }
    }

    /// The ad for 64 random bits.
    pub fn pick(&self, random: u64) -> u32 {
        let cell = ((random & 0xffff_ffff) * self.cells.len() as u64) >> 32;
        let content = self.cells[cell as usize];
        if (random >> 32) < content >> 32 { cell as u32 } else { content as u32 }
    }

    pub fn count(&self) -> usize {
        self.cells.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::mix;

    #[test]
    fn draws_follow_zipf() {
        for exponent in [0.0, 1.1] {
            let ads = Ads::zipf(1_000, exponent);
            let mut drawn = vec![0f64; 1_000];
            let draws = 2_000_000u64;
            for i in 0..draws {
                drawn[ads.pick(mix(i)) as usize] += 1.0 / draws as f64;
            }
            let total: f64 = (1..=1_000).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for ad in [0usize, 1, 9, 99] {
                let expected = ((ad + 1) as f64).powf(-exponent) / total;
                assert!((drawn[ad] / expected - 1.0).abs() < 0.1, "ad {ad}: {} of {expected}", drawn[ad]);
            }
        }
    }

    #[test]
    fn a_single_ad_takes_all() {
        let ads = Ads::zipf(1, 1.1);
        assert!((0..1_000).all(|i| ads.pick(mix(i)) == 0));
    }
}
