//! Pure. Numbers to text without branches or tables: sixteen hex digits, eight decimal digits, a 13-digit timestamp.

/// The sixteen lower-case hex digits of `x`.
pub fn hex16(x: u64) -> [u8; 16] {
    let mut out = [0u8; 16];
    out[..8].copy_from_slice(&hex8((x >> 32) as u32));
    out[8..].copy_from_slice(&hex8(x as u32));
    out
}

/// Eight hex digits, side by side in one word: nibbles are spread to bytes, then those above 9 are lifted to the letters.
fn hex8(x: u32) -> [u8; 8] {
    let x = u64::from(x);
    let halves = (x | x << 16) & 0x0000_ffff_0000_ffff;
    let bytes = (halves | halves << 8) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (bytes | bytes << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((nibbles + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (nibbles + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
}

/// The eight decimal digits of `n`, which is below 100,000,000: halves, quarters and digits split off side by side in one
/// word (four digits, then pairs, then singles), each division a multiplication.
pub fn digits8(n: u32) -> [u8; 8] {
    debug_assert!(n < 100_000_000);
    let n = u64::from(n);
    let upper = (n * 109_951_163) >> 40;
    let fours = upper | (n - upper * 10_000) << 32;
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let pairs = hundreds | (fours - hundreds * 100) << 16;
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    let singles = tens | (pairs - tens * 10) << 8;
    (singles + 0x3030_3030_3030_3030).to_le_bytes()
}

/// A time in milliseconds as 13 digits: good from 2001 to 2286.
pub fn timestamp13(ms: i64) -> [u8; 13] {
    let ms = ms.clamp(0, 9_999_999_999_999) as u64;
    let mut out = [0u8; 13];
    out[..5].copy_from_slice(&digits8((ms / 100_000_000) as u32)[3..]);
    out[5..].copy_from_slice(&digits8((ms % 100_000_000) as u32));
    out
}

/// Spreads the bits of `x`: a bijection of 64 bits whose output bits all depend on all input bits.
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_equal_the_formatting_of_the_standard_library() {
        let edges = [0, 1, 9, 10, 99, 100, 9_999, 10_000, 12_345_678, 99_999_999];
        for n in edges.into_iter().chain((0..100_000_000).step_by(9_973)) {
            assert_eq!(digits8(n).as_slice(), format!("{n:08}").as_bytes());
        }
        for x in (0..10_000).map(mix).chain([0, u64::MAX]) {
            assert_eq!(hex16(x).as_slice(), format!("{x:016x}").as_bytes());
        }
        for ms in [1_763_791_000_000i64, 1_000_000_000_000, 1_799_999_999_999] {
            assert_eq!(timestamp13(ms).as_slice(), ms.to_string().as_bytes());
        }
    }
}
