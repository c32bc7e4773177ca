//! Pure. Distinct users of a partial: a sketch that merges, and the bytes in which it travels.
//!
//! ```text
//! 0 algorithm (1)  1 lg k (12)  2 hash (1)  3 zero | an Apache DataSketches HLL sketch, as its libraries in all languages read it
//! ```
//!
//! Hash 1: XXH3-64 (seed 0) of the user id's bytes, fed as a 64-bit integer to the sketch's own hash (MurmurHash3, seed
//! 9001). Standard error 1.6 %; up to some hundred users it is exact but for collisions of a 26-bit hash.

use datasketches::hll::{HllSketch, HllType, HllUnion};

use crate::coupons::{COUPONS_MAX, Coupons};

const ALGORITHM_DATASKETCHES_HLL: u8 = 1;
pub(crate) const LG_K: u8 = 12;
const HASH_XXH3_64: u8 = 1;
/// What a union takes beside its registers: itself, and the table of those of a higher rank than a register holds.
const UNION_BYTES: usize = 512;
const HEAD: [u8; 4] = [ALGORITHM_DATASKETCHES_HLL, LG_K, HASH_XXH3_64, 0];

/// A mergeable estimate of how many distinct users there were.
#[derive(Clone, Default)]
pub struct Users {
    /// Those that are not in `union` yet.
    few: Coupons,
    /// From where coupons are too many.
    union: Option<Box<HllUnion>>,
}

/// Why bytes cannot be merged. Unequal sketches are refused: their merge would be a wrong number, not an error bar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsersError {
    #[error(
        "a user sketch of kind {found:?}, but only {HEAD:?} (algorithm, lg k, hash, 0) can be merged; let all edges run one version"
    )]
    Unequal { found: [u8; 4] },
    #[error("a user sketch that cannot be read: {0}; the record was damaged on its way")]
    Damaged(String),
}

impl Users {
    /// Adds all users of a sketch's bytes; empty bytes hold nobody. On an error nothing was added.
    pub fn merge_bytes(&mut self, bytes: &[u8]) -> Result<(), UsersError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let body = body_of(bytes)?;
        if !self.few.add(body) {
            let sketch = decode(body)?;
            self.unite().update(&sketch);
        } else if self.few.len() > COUPONS_MAX {
            self.few.settle();
            if self.few.len() > COUPONS_MAX {
                self.unite();
            }
        }
        Ok(())
    }

    /// What they take of memory beside this: coupons, and from where those are too many a register of a byte for each, and what the library
    /// keeps beside them.
    pub fn memory_bytes(&self) -> usize {
        self.few.memory_bytes() + self.union.as_ref().map_or(0, |_| (1 << LG_K) + UNION_BYTES)
    }

    pub fn is_empty(&self) -> bool {
        self.few.is_empty() && self.union.as_ref().is_none_or(|union| union.is_empty())
    }

    /// How many users, about. Independent of the order in which they were merged.
    pub fn estimate(&self) -> f64 {
        if self.is_empty() { 0.0 } else { self.clone().unite().composite_estimate() }
    }

    /// The bytes that travel; none where there is nobody.
    pub fn into_bytes(mut self) -> Vec<u8> {
        if self.is_empty() {
            return Vec::new();
        }
        self.few.settle();
        if self.union.is_none() && self.few.len() <= COUPONS_MAX {
            let mut bytes = HEAD.to_vec();
            self.few.append_to(&mut bytes);
            return bytes;
        }
        encode(&self.unite().to_sketch(HllType::Hll8))
    }

    /// Everybody, in the union.
    fn unite(&mut self) -> &mut HllUnion {
        let new = || Box::new(HllUnion::new(LG_K).expect("the constant lg k lies within the library's bounds"));
        let union = self.union.get_or_insert_with(new);
        self.few.drain(|few| union.update(&HllSketch::deserialize(few).expect("coupons were made into a sketch here")));
        union
    }

    /// The bytes of the sketch of these users, without the cost of a union.
    pub fn bytes_of(tokens: impl Iterator<Item = u64>) -> Vec<u8> {
        let mut sketch =
            HllSketch::new(LG_K, HllType::Hll8).expect("the constant lg k lies within the library's bounds");
        tokens.for_each(|token| sketch.update(token));
        if sketch.is_empty() { Vec::new() } else { encode(&sketch) }
    }
}

fn encode(sketch: &HllSketch) -> Vec<u8> {
    let sketch = sketch.serialize();
    let mut bytes = Vec::with_capacity(HEAD.len() + sketch.len());
    bytes.extend_from_slice(&HEAD);
    bytes.extend_from_slice(&sketch);
    bytes
}

/// The library's own bytes, behind our head.
fn body_of(bytes: &[u8]) -> Result<&[u8], UsersError> {
    let Some((head, body)) = bytes.split_first_chunk::<4>() else {
        return Err(UsersError::Damaged(format!("{} bytes are shorter than its head", bytes.len())));
    };
    if *head != HEAD {
        return Err(UsersError::Unequal { found: *head });
    }
    Ok(body)
}

fn decode(body: &[u8]) -> Result<HllSketch, UsersError> {
    let sketch = HllSketch::deserialize(body).map_err(|error| UsersError::Damaged(error.to_string()))?;
    if sketch.lg_config_k() != LG_K {
        return Err(UsersError::Damaged(format!("its head says lg k {LG_K}, its body {}", sketch.lg_config_k())));
    }
    Ok(sketch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tokens are hashes: spread them as XXH3 would.
    fn token(user: u64) -> u64 {
        user.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5151_5151
    }

    fn estimate(parts: &[&[u8]]) -> f64 {
        let mut users = Users::default();
        parts.iter().for_each(|part| users.merge_bytes(part).unwrap());
        users.estimate()
    }

    #[test]
    fn the_bytes_are_pinned() {
        assert_eq!(Users::bytes_of([].into_iter()), b"");
        let hex: String = Users::bytes_of([1, 2, 2, 3].into_iter()).iter().map(|byte| format!("{byte:02x}")).collect();
        // DataSketches: 2 preamble ints, version 1, family 7 (HLL), lg k 12, lg of the list 3, compact, 3 coupons, HLL_8 as list.
        assert_eq!(
            hex,
            "010c0100" // our head
                .to_owned()
                + "02" + "01" + "07" + "0c" + "03" + "08" + "03" + "08" // the sketch's head
                + "2bf2fb06" + "862ff90d" + "75816607"
        );
    }

    #[test]
    fn the_estimate_is_within_five_standard_errors() {
        for users in [1u64, 10, 100, 1_000, 30_000, 300_000] {
            let estimate = estimate(&[&Users::bytes_of((0..users).map(token))]);
            let error = (estimate - users as f64).abs() / users as f64;
            assert!(error < 5.0 * 0.016, "{users} users estimated as {estimate}");
        }
    }

    #[test]
    fn unequal_and_damaged_sketches_are_refused_and_add_nobody() {
        let good = Users::bytes_of((0..100).map(token));
        let mut users = Users::default();
        for (at, wrong) in [(0, 2), (1, 11), (2, 2), (3, 1)] {
            let mut bytes = good.clone();
            bytes[at] = wrong;
            assert!(matches!(users.merge_bytes(&bytes), Err(UsersError::Unequal { .. })));
        }
        for length in 1..good.len() {
            assert!(users.merge_bytes(&good[..length]).is_err(), "cut to {length} bytes");
        }
        assert!(users.is_empty());
    }

    /// The library's own union of the same sketches.
    fn united(parts: &[Vec<u8>]) -> HllUnion {
        let mut union = HllUnion::new(LG_K).unwrap();
        parts.iter().filter(|part| !part.is_empty()).for_each(|part| union.update(&decode(&part[4..]).unwrap()));
        union
    }

    #[test]
    fn few_users_become_what_the_library_makes_of_them() {
        for users in [1, 2, 7, 8, 9, 23, 24, 25, 48, 49, 100, 383, 384, 385, 386, 1_000] {
            let one_by_one: Vec<Vec<u8>> = (0..users).map(|user| Users::bytes_of([token(user)].into_iter())).collect();
            let mut merged = Users::default();
            one_by_one.iter().chain(&one_by_one).for_each(|bytes| merged.merge_bytes(bytes).unwrap());
            let bytes = merged.into_bytes();
            let library = encode(&united(&one_by_one).to_sketch(HllType::Hll8));
            assert_eq!(bytes.len(), library.len(), "{users} users");
            assert_eq!(bytes[..12], library[..12], "{users} users");
            let (ours, library) = (decode(&bytes[4..]).unwrap(), decode(&library[4..]).unwrap());
            assert_eq!(ours.composite_estimate().to_bits(), library.composite_estimate().to_bits(), "{users} users");
            // Of many users the library also keeps in which order they came.
            assert!(ours == library || users > 384, "{users} users");
        }
    }

    proptest! {
        #[test]
        fn sketches_merge_to_what_the_librarys_union_makes_of_them(
            parts in proptest::collection::vec((0u64..800, 0u64..500), 1..8), more in 0u64..40,
        ) {
            let many = parts.iter().map(|(from, count)| Users::bytes_of((*from..from + count).map(token)));
            let bytes: Vec<Vec<u8>> = many.chain((0..more).map(|at| Users::bytes_of([token(at)].into_iter()))).collect();
            let mut users = Users::default();
            bytes.iter().for_each(|part| users.merge_bytes(part).unwrap());
            let union = united(&bytes);
            prop_assert_eq!(users.is_empty(), union.is_empty());
            prop_assert!((users.estimate() - union.composite_estimate()).abs() <= 1e-6 * union.composite_estimate());
            let again = estimate(&[&users.into_bytes()]);
            prop_assert!((again - union.composite_estimate()).abs() <= 1e-6 * again);
        }

        #[test]
        fn merges_in_any_order_and_grouping_estimate_the_same(
            parts in proptest::collection::vec((0u64..5_000, 0u64..3_000), 3..5),
        ) {
            let bytes: Vec<Vec<u8>> =
                parts.iter().map(|(from, count)| Users::bytes_of((*from..from + count).map(token))).collect();
            let forward: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
            let backward: Vec<&[u8]> = forward.iter().rev().copied().collect();
            let mut grouped = Users::default();
            forward[1..].iter().for_each(|part| grouped.merge_bytes(part).unwrap());
            let grouped = grouped.into_bytes();
            let expected = estimate(&forward);
            for other in [estimate(&backward), estimate(&[&grouped, forward[0]]), estimate(&[forward[0], &grouped])] {
                prop_assert!((other - expected).abs() <= 1e-6 * expected.max(1.0), "{other} and {expected}");
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64), kind in any::<bool>()) {
            let bytes = if kind { [HEAD.as_slice(), &[2, 1, 7, 12, 8], &bytes].concat() } else { bytes };
            let mut users = Users::default();
            if users.merge_bytes(&bytes).is_ok() {
                users.estimate();
            }
        }
    }
}
