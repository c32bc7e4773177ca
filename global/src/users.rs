//! Pure. The sketch of distinct users: joins the global tier to the sketch that edges send.

use datasketches::hll::{HllSketch, HllType, HllUnion};

/// Two to this many registers: a standard error of 1.6 %.
const LG_K: u8 = 12;

/// The bytes are not a sketch of users of this kind.
#[derive(Debug, thiserror::Error)]
#[error("not a sketch of users: {0}")]
pub struct NotASketch(String);

/// Mergeable estimate of how many distinct users were named.
pub struct Sketch {
    union: HllUnion,
}

impl Sketch {
    pub fn new() -> Sketch {
        Sketch { union: HllUnion::new(LG_K).expect("LG_K is within [4, 21]") }
    }

    pub fn insert(&mut self, token: u64) {
        self.union.update_value(token);
    }

    /// Takes in what another sketch has seen. Empty bytes are the sketch that saw nobody.
    pub fn merge_bytes(&mut self, bytes: &[u8]) -> Result<(), NotASketch> {
        if !bytes.is_empty() {
            self.union.update(&read(bytes)?);
        }
        Ok(())
    }

    pub fn merge(&mut self, other: &Sketch) {
        self.union.update(&other.union.to_sketch(HllType::Hll8));
    }

    pub fn estimate(&self) -> f64 {
        self.union.estimate()
    }

    /// Empty where nobody was seen.
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.union.is_empty() { Vec::new() } else { self.union.to_sketch(HllType::Hll8).serialize() }
    }
}

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch::new()
    }
}

/// Bytes that [`Sketch::merge_bytes`] would take.
pub fn check(bytes: &[u8]) -> Result<(), NotASketch> {
    if bytes.is_empty() { Ok(()) } else { read(bytes).map(|_| ()) }
}

fn read(bytes: &[u8]) -> Result<HllSketch, NotASketch> {
    let sketch = HllSketch::deserialize(bytes).map_err(|error| NotASketch(error.to_string()))?;
    if sketch.lg_config_k() != LG_K {
        return Err(NotASketch(format!("precision {}, here it is {LG_K}", sketch.lg_config_k())));
    }
    Ok(sketch)
}
