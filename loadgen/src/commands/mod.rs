//! The commands, one a file, and how they end.

pub mod prove;
pub mod run;

pub const EXIT_DIFFERENCE: i32 = 1;
pub const EXIT_UNKNOWN: i32 = 2;
pub const EXIT_INVALID: i32 = 3;
pub const EXIT_USAGE: i32 = 64;
pub const EXIT_UNAVAILABLE: i32 = 69;

/// What to say and which code to end with.
pub struct Failure(pub String, pub i32);

/// Writes a file that was asked for.
pub fn write(path: &std::path::Path, text: &str) -> Result<(), Failure> {
    let written = std::fs::write(path, text);
    written.map_err(|error| Failure(format!("writing {}: {error}", path.display()), EXIT_UNAVAILABLE))
}
