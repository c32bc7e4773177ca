//! Pure. The keyed permutation of click keys: four rounds of AES under a secret drawn at start. A permutation loses
//! nothing, so the table stays exact; the secret keeps anyone outside from aiming at a line of the table.
//!
//! This is no encryption: nobody outside sees an output, and four rounds are enough that inputs chosen without the secret
//! spread like random ones.

use super::simd::Aes;

const ROUNDS: usize = 4;

/// The first is added before the first round, the others end a round each.
pub(super) type RoundKeys = [u128; ROUNDS + 1];

pub(super) struct Permutation {
    keys: RoundKeys,
    aes: Option<Aes>,
}

impl Permutation {
    pub(super) fn new(secret: [u8; 16]) -> Permutation {
        Permutation { keys: round_keys(secret), aes: Aes::detect() }
    }

    #[inline]
    pub(super) fn apply(&self, block: [u8; 16]) -> u128 {
        let block = u128::from_le_bytes(block);
        match self.aes {
            Some(aes) => aes.rounds(block, &self.keys),
            None => rounds_in_software(block, &self.keys),
        }
    }
}

/// The first round keys of AES-128 (FIPS 197, section 5.2).
pub(super) fn round_keys(secret: [u8; 16]) -> RoundKeys {
    let mut keys = [0; ROUNDS + 1];
    let mut bytes = secret;
    keys[0] = u128::from_le_bytes(bytes);
    for (round, key) in keys.iter_mut().enumerate().skip(1) {
        let round_constant = 1u8 << (round - 1);
        let last = [bytes[13], bytes[14], bytes[15], bytes[12]];
        for (at, byte) in last.into_iter().enumerate() {
            bytes[at] ^= SUBSTITUTE[byte as usize] ^ if at == 0 { round_constant } else { 0 };
        }
        for at in 4..16 {
            bytes[at] ^= bytes[at - 4];
        }
        *key = u128::from_le_bytes(bytes);
    }
    keys
}

/// What [`Aes::rounds`] does, in safe code, for machines without AES and to test it by.
pub(super) fn rounds_in_software(block: u128, keys: &RoundKeys) -> u128 {
    keys[1..].iter().fold(block ^ keys[0], |state, key| round(state) ^ key)
}

/// SubBytes, ShiftRows, MixColumns (FIPS 197, section 5.1); byte 4c + r is row r of column c.
fn round(state: u128) -> u128 {
    let from = state.to_le_bytes();
    let mut to = [0; 16];
    for column in 0..4 {
        let [a, b, c, d]: [u8; 4] =
            std::array::from_fn(|row| SUBSTITUTE[from[row + 4 * ((column + row) % 4)] as usize]);
        to[4 * column] = double(a) ^ double(b) ^ b ^ c ^ d;
        to[4 * column + 1] = a ^ double(b) ^ double(c) ^ c ^ d;
        to[4 * column + 2] = a ^ b ^ double(c) ^ double(d) ^ d;
        to[4 * column + 3] = double(a) ^ a ^ b ^ c ^ double(d);
    }
    u128::from_le_bytes(to)
}

/// Times two in AES's field of 256.
const fn double(value: u8) -> u8 {
    value << 1 ^ if value & 0x80 != 0 { 0x1b } else { 0 }
}

/// AES's S-box, built by walking the field: `p` runs through the powers of 3 while `q` runs through their inverses.
const SUBSTITUTE: [u8; 256] = {
    let mut table = [0; 256];
    let (mut p, mut q) = (1u8, 1u8);
    loop {
        p ^= double(p);
        q ^= q << 1;
        q ^= q << 2;
        q ^= q << 4;
        if q & 0x80 != 0 {
            q ^= 0x09;
        }
        table[p as usize] = 0x63 ^ q ^ q.rotate_left(1) ^ q.rotate_left(2) ^ q.rotate_left(3) ^ q.rotate_left(4);
        if p == 1 {
            break;
        }
    }
    table[0] = 0x63;
    table
};

/// The way back, so that tests can make keys that fall where they want them.
#[cfg(test)]
impl Permutation {
    pub(super) fn invert(&self, permuted: u128) -> [u8; 16] {
        let state = self.keys[1..].iter().rev().fold(permuted, |state, key| unround(state ^ key));
        (state ^ self.keys[0]).to_le_bytes()
    }
}

#[cfg(test)]
fn unround(state: u128) -> u128 {
    // MixColumns is its own inverse's cube: applied four times it is the identity.
    let mix = |from: [u8; 16]| -> [u8; 16] {
        std::array::from_fn(|at| {
            let (column, row) = (at / 4, at % 4);
            let byte = |offset: usize| from[4 * column + (row + offset) % 4];
            double(byte(0)) ^ double(byte(1)) ^ byte(1) ^ byte(2) ^ byte(3)
        })
    };
    let unmixed = mix(mix(mix(state.to_le_bytes())));
    let mut to = [0; 16];
    for column in 0..4 {
        for row in 0..4 {
            let substituted = unmixed[4 * column + row];
            let original = SUBSTITUTE.iter().position(|entry| *entry == substituted).expect("the S-box is onto");
            to[row + 4 * ((column + row) % 4)] = original as u8;
        }
    }
    u128::from_le_bytes(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(text: &str) -> u128 {
        u128::from_str_radix(text, 16).expect("hex").swap_bytes()
    }

    #[test]
    fn a_round_is_the_one_of_the_standard() {
        // FIPS 197, appendix B, round 1, and the keys of appendix A.1.
        let after = round(hex("193de3bea0f4e22b9ac68d2ae9f84808")) ^ hex("a0fafe1788542cb123a339392a6c7605");
        assert_eq!(after, hex("a49c7ff2689f352b6b5bea43026a5049"));
        let keys = round_keys(hex("2b7e151628aed2a6abf7158809cf4f3c").to_le_bytes());
        assert_eq!(keys[1], hex("a0fafe1788542cb123a339392a6c7605"));
        assert_eq!(keys[4], hex("ef44a541a8525b7fb671253bdb0bad00"));
    }

    proptest! {
        #[test]
        fn it_is_a_permutation(block: [u8; 16], secret: [u8; 16]) {
            let permutation = Permutation::new(secret);
            prop_assert_eq!(permutation.invert(permutation.apply(block)), block);
        }
    }

    #[test]
    fn another_secret_is_another_permutation() {
        let (one, other) = (Permutation::new([1; 16]), Permutation::new([2; 16]));
        assert_ne!(one.apply([7; 16]), other.apply([7; 16]));
    }
}
