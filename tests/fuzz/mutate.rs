//! Mutations of inputs, as a fuzzer makes them; no coverage steers them.

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Changes an input as a fuzzer does: bytes set, flipped, inserted, removed, parts repeated or taken from another input.
pub fn mutated(random: &mut Random, seeds: &[Vec<u8>], interesting: &[u8]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len() + 1);
        let byte =
            if random.below(4) == 0 { random.next() as u8 } else { interesting[random.below(interesting.len())] };
        match random.below(7) {
            0 => bytes.insert(at, byte),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 => bytes.truncate(at),
            4 | 5 => {
                let other = if random.below(2) == 0 { &bytes } else { &seeds[random.below(seeds.len())] };
                let from = random.below(other.len() + 1);
                let part = other[from..(from + random.below(64)).min(other.len())].to_vec();
                let to = (at + random.below(2) * part.len()).min(bytes.len());
                bytes.splice(at..to, part);
            }
            _ if at < bytes.len() => bytes[at] = byte,
            _ => {}
        }
    }
    bytes
}

/// Bytes that mean something to a target.
pub fn interesting(target: &str) -> Option<&'static [u8]> {
    match target {
        "http" => Some(b"\r\n\r\n \t:;,0123456789aA/\x00\x7f\xff"),
        "click" => Some(b"\"\\{}[]:,-.eE0179 \t\r\nu\x00\x1f\x7f\xc3\xa9\xff"),
        "log" => Some(b"\x00\x01\x02\x03\x04\x07\x08\x10\x7f\x80\xa5\xff"),
        "checkpoint" => Some(b"\x00\x01\x08\x0a\x10\x12\x18\x1a\x22\x2a\x30\x7f\x80\xff0a{}\":,[]"),
        _ => None,
    }
}
