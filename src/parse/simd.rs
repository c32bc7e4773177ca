//! Pure. The few steps that are worth vector instructions, each with a safe twin. The only file of `parse` with `unsafe`.
//!
//! AVX2 is the floor that tollgate is built for on x86 (`.cargo/config.toml`), so nothing is asked at run time; a build
//! without it, and every other machine, takes the twins. Tests hold one to the other.

#[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
pub(super) use vector::{agrees, brackets, stops, uuid};

#[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))]
pub(super) use twin::{agrees, brackets, stops, uuid};

/// What is looked at in one step.
pub(super) type Block = [u8; 32];

/// What gives a JSON text its shape: a bit for each byte of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Brackets {
    pub quotes: u32,
    pub backslashes: u32,
    pub opening: u32,
    pub closing: u32,
}

#[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
mod vector {
    #![allow(unsafe_code)]

    use super::{Block, Brackets};
    use std::arch::x86_64::*;

    #[inline(always)]
    fn load(block: &Block) -> __m256i {
        // SAFETY: the build has AVX2 (see the `cfg` above), and the load takes exactly the 32 bytes of the block, unaligned.
        unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_half(half: &[u8; 16]) -> __m128i {
        // SAFETY: the build has AVX2, and the load takes exactly the 16 bytes of the array, unaligned.
        unsafe { _mm_loadu_si128(half.as_ptr().cast()) }
    }

    /// Whether the blocks agree in every byte whose bit is set in `mask`.
    #[inline(always)]
    pub fn agrees(one: &Block, other: &Block, mask: u32) -> bool {
        let (one, other) = (load(one), load(other));
        // SAFETY: the build has AVX2; these instructions touch registers only.
        let equal = unsafe { _mm256_movemask_epi8(_mm256_cmpeq_epi8(one, other)) as u32 };
        !equal & mask == 0
    }

    /// The bytes at which plain text stops, a bit each: quote, backslash, control (U+0000–U+001F, U+007F), not ASCII.
    #[inline(always)]
    pub fn stops(block: &Block) -> u32 {
        let bytes = load(block);
        // SAFETY: the build has AVX2; these instructions touch registers only.
        unsafe {
            let quote = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'"' as i8));
            let backslash = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'\\' as i8));
            // One up, 0x7f wraps to the signed bottom, beside what is not ASCII; controls are below 0x21.
            let risen = _mm256_add_epi8(bytes, _mm256_set1_epi8(1));
            let other = _mm256_cmpgt_epi8(_mm256_set1_epi8(0x21), risen);
            _mm256_movemask_epi8(_mm256_or_si256(_mm256_or_si256(quote, backslash), other)) as u32
        }
    }

    /// Where the quotes, backslashes and brackets of either kind are.
    #[inline(always)]
    pub fn brackets(block: &Block) -> Brackets {
        let bytes = load(block);
        // SAFETY: the build has AVX2; these instructions touch registers only.
        unsafe {
            let places =
                |bytes, byte: u8| _mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(byte as i8))) as u32;
            // One bit tells `[` from `{`, and `]` from `}`.
            let folded = _mm256_or_si256(bytes, _mm256_set1_epi8(b'[' as i8 ^ b'{' as i8));
            Brackets {
                quotes: places(bytes, b'"'),
                backslashes: places(bytes, b'\\'),
                opening: places(folded, b'{'),
                closing: places(folded, b'}'),
            }
        }
    }

    /// The bytes of a UUID in its canonical text (8-4-4-4-12 hexadecimal digits of either case).
    #[inline(always)]
    pub fn uuid(text: &[u8; 36]) -> Option<[u8; 16]> {
        if [text[8], text[13], text[18], text[23]] != [b'-'; 4] {
            return None;
        }
        let part = |from: usize| text[from..].first_chunk::<16>().map(load_half);
        let (first, middle, last) = (part(0)?, part(16)?, part(20)?);
        const NONE: i8 = -1;
        // SAFETY: the build has AVX2 and with it SSSE3; these instructions touch registers only.
        let (high, low) = unsafe {
            // Digits 0..16 are at 0-7, 9-12, 14-15 of the text (in `first`) and at 16-17 (0-1 of `middle`);
            // digits 16..32 are at 19-22 (3-6 of `middle`) and at 24-35 (4-15 of `last`).
            let kept = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, NONE, NONE);
            let high = _mm_shuffle_epi8(first, kept);
            let high = _mm_or_si128(high, _mm_slli_si128::<14>(middle));
            let groups =
                _mm_setr_epi8(3, 4, 5, 6, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE);
            let tail = _mm_setr_epi8(NONE, NONE, NONE, NONE, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let low = _mm_or_si128(_mm_shuffle_epi8(middle, groups), _mm_shuffle_epi8(last, tail));
            (high, low)
        };
        // SAFETY: the build has AVX2; these instructions touch registers only.
        unsafe {
            let text = _mm256_set_m128i(low, high);
            let set = |byte: u8| _mm256_set1_epi8(byte as i8);
            // Unsigned `x <= limit` is `min(x, limit) == x`.
            let digit = _mm256_sub_epi8(text, set(b'0'));
            let is_digit = _mm256_cmpeq_epi8(_mm256_min_epu8(digit, set(9)), digit);
            let letter = _mm256_sub_epi8(_mm256_or_si256(text, set(0x20)), set(b'a'));
            let is_letter = _mm256_cmpeq_epi8(_mm256_min_epu8(letter, set(5)), letter);
            if _mm256_movemask_epi8(_mm256_or_si256(is_digit, is_letter)) != -1 {
                return None;
            }
            let nibbles = _mm256_blendv_epi8(_mm256_add_epi8(letter, set(10)), digit, is_digit);
            // Pairs of nibbles to 16-bit sums (first × 16 + second), then each half's eight sums to bytes.
            let pairs = _mm256_maddubs_epi16(nibbles, _mm256_set1_epi16(0x0110));
            let packed = _mm256_packus_epi16(pairs, pairs);
            let (high, low) = (_mm256_extract_epi64::<0>(packed), _mm256_extract_epi64::<2>(packed));
            Some(((low as u64 as u128) << 64 | high as u64 as u128).to_le_bytes())
        }
    }
}

#[cfg(any(test, not(all(target_arch = "x86_64", target_feature = "avx2"))))]
mod twin {
    use super::{Block, Brackets};

    pub fn agrees(one: &Block, other: &Block, mask: u32) -> bool {
        (0..32).all(|place| mask & 1 << place == 0 || one[place] == other[place])
    }

    pub fn stops(block: &Block) -> u32 {
        let stop = |byte: u8| matches!(byte, b'"' | b'\\') || byte.is_ascii_control() || !byte.is_ascii();
        block.iter().enumerate().fold(0, |bits, (place, byte)| bits | u32::from(stop(*byte)) << place)
    }

    pub fn brackets(block: &Block) -> Brackets {
        let places = |bytes: &[u8]| {
            block.iter().enumerate().fold(0, |bits, (place, byte)| bits | u32::from(bytes.contains(byte)) << place)
        };
        Brackets { quotes: places(b"\""), backslashes: places(b"\\"), opening: places(b"{["), closing: places(b"}]") }
    }

    pub fn uuid(text: &[u8; 36]) -> Option<[u8; 16]> {
        let mut bytes = [0; 16];
        let mut digits = 0;
        for (place, byte) in text.iter().enumerate() {
            if matches!(place, 8 | 13 | 18 | 23) {
                if *byte != b'-' {
                    return None;
                }
                continue;
            }
            let digit = (*byte as char).to_digit(16)? as u8;
            bytes[digits / 2] = bytes[digits / 2] << 4 | digit;
            digits += 1;
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &[u8; 36] = b"0190d5a4-89ab-CDEF-0f1e-2d3c4b5a6978";

    #[test]
    fn a_uuid_is_its_own_bytes_in_either_case() {
        let bytes = 0x0190d5a489abcdef0f1e2d3c4b5a6978u128.to_be_bytes();
        assert_eq!(uuid(TEXT), Some(bytes));
        assert_eq!(uuid(TEXT.to_ascii_lowercase().as_slice().try_into().expect("36 bytes")), Some(bytes));
        assert_eq!(twin::uuid(TEXT), Some(bytes));
    }

    #[test]
    fn every_byte_at_every_place_of_a_uuid_is_judged_alike() {
        for place in 0..36 {
            for byte in 0..=255 {
                let mut text = *TEXT;
                text[place] = byte;
                assert_eq!(uuid(&text), twin::uuid(&text), "{byte:#x} at {place}");
            }
        }
    }

    #[test]
    fn every_byte_at_every_place_stops_and_shapes_alike() {
        for place in 0..32 {
            for byte in 0..=255 {
                let mut block = [b'a'; 32];
                block[place] = byte;
                assert_eq!(stops(&block), twin::stops(&block), "{byte:#x} at {place}");
                assert_eq!(brackets(&block), twin::brackets(&block), "{byte:#x} at {place}");
            }
        }
        assert_eq!(stops(b"abc \"\\\x00\x1f\x7f\x80\xff~!0123456789ABCDEFGHI"), 0b111_1111_0000);
    }

    #[test]
    fn every_byte_in_the_mask_must_agree() {
        for place in 0..32 {
            let (one, mut other) = ([7; 32], [7; 32]);
            other[place] = 8;
            assert!(agrees(&one, &one, u32::MAX));
            assert!(!agrees(&one, &other, 1 << place));
            assert!(agrees(&one, &other, !(1 << place)));
        }
    }

    proptest! {
        #[test]
        fn the_vector_steps_are_their_twins(one: [u8; 32], other: [u8; 32], mask: u32, text in "[0-9a-fA-F-]{36}") {
            prop_assert_eq!(stops(&one), twin::stops(&one));
            prop_assert_eq!(agrees(&one, &other, mask), twin::agrees(&one, &other, mask));
            let text = text.as_bytes().try_into().expect("36 bytes");
            prop_assert_eq!(uuid(text), twin::uuid(text));
        }
    }
}
