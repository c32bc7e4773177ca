//! Pure. The ways to send clicks that figures are given for.

/// A way to send clicks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// As it is chosen on a command line.
    pub key: &'static str,
    pub name: &'static str,
    pub connections: usize,
    pub pipeline: usize,
    pub batch: u32,
}

pub const NDJSON: Shape = Shape { key: "ndjson", name: "NDJSON of 100", connections: 64, pipeline: 1, batch: 100 };
pub const PIPELINED: Shape = Shape { key: "pipelined", name: "32 pipelined", connections: 64, pipeline: 32, batch: 1 };
pub const ONE: Shape = Shape { key: "one", name: "one at a time", connections: 64, pipeline: 1, batch: 1 };

pub const SHAPES: [Shape; 3] = [NDJSON, PIPELINED, ONE];

impl Shape {
    pub fn by_key(key: &str) -> Option<Shape> {
        SHAPES.into_iter().find(|shape| shape.key == key)
    }
}
