//! Pure. The machine instructions that dedup uses: AES rounds and prefetch. The only file of dedup that holds `unsafe`;
//! each has a safe twin, and a test holds them equal.
#![allow(unsafe_code)]

use super::line::Line;
use super::permute::RoundKeys;

/// Proof that this machine has AES instructions: only [`Aes::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aes(());

impl Aes {
    #[cfg(target_arch = "x86_64")]
    pub(super) fn detect() -> Option<Aes> {
        std::arch::is_x86_feature_detected!("aes").then_some(Aes(()))
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn detect() -> Option<Aes> {
        None
    }

    /// The rounds of [`super::permute`], in hardware. Twin: `permute::rounds_in_software`.
    #[inline]
    pub(super) fn rounds(self, block: u128, keys: &RoundKeys) -> u128 {
        #[cfg(target_arch = "x86_64")]
        {
            // SAFETY: `self` exists, so the machine has AES (SSE2 is part of x86-64).
            unsafe { rounds_x86(block, keys) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            super::permute::rounds_in_software(block, keys)
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "aes,sse2")]
fn rounds_x86(block: u128, keys: &RoundKeys) -> u128 {
    use std::arch::x86_64::{
        __m128i, _mm_aesenc_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_unpackhi_epi64, _mm_xor_si128,
    };
    let load = |value: u128| -> __m128i { _mm_set_epi64x((value >> 64) as i64, value as i64) };
    let mut state = _mm_xor_si128(load(block), load(keys[0]));
    for key in &keys[1..] {
        state = _mm_aesenc_si128(state, load(*key));
    }
    let low = _mm_cvtsi128_si64(state) as u64;
    let high = _mm_cvtsi128_si64(_mm_unpackhi_epi64(state, state)) as u64;
    u128::from(high) << 64 | u128::from(low)
}

/// Asks the memory for a line that will be read soon. Changes nothing that can be seen. Twin: doing nothing.
#[inline]
pub(super) fn prefetch(lines: &[Line], index: u32) {
    let line: &Line = &lines[index as usize];
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address is that of a live reference; a prefetch reads nothing into the program anyway.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast::<i8>()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

#[cfg(test)]
mod tests {
    use super::super::permute::{round_keys, rounds_in_software};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn aes_in_hardware_equals_its_safe_twin(block: u128, secret: [u8; 16]) {
            let keys = round_keys(secret);
            if let Some(aes) = Aes::detect() {
                prop_assert_eq!(aes.rounds(block, &keys), rounds_in_software(block, &keys));
            }
        }
    }

    #[test]
    fn a_prefetch_changes_nothing() {
        let lines = vec![Line::default(); 4];
        prefetch(&lines, 3);
        assert!(lines.iter().all(|line| *line == Line::default()));
    }
}
