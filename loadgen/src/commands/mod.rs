//! The commands, one a file, and how they end.

pub mod prove;
pub mod run;

use std::path::Path;
use tollgate_loadgen::token::{Token, VARIABLE};

pub const EXIT_DIFFERENCE: i32 = 1;
pub const EXIT_UNKNOWN: i32 = 2;
pub const EXIT_INVALID: i32 = 3;
pub const EXIT_USAGE: i32 = 64;
pub const EXIT_UNAVAILABLE: i32 = 69;

/// What to say and which code to end with.
pub struct Failure(pub String, pub i32);

/// Writes a file that was asked for.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = std::fs::write(path, text);
    written.map_err(|error| Failure(format!("writing {}: {error}", path.display()), EXIT_UNAVAILABLE))
}

/// The token of --token-file, or of the environment.
pub fn token(file: Option<&Path>) -> Result<Option<Token>, Failure> {
    let variable = std::env::var_os(VARIABLE).map(|text| text.to_string_lossy().into_owned());
    Token::read(file, variable.as_deref()).map_err(|error| Failure(error.to_string(), EXIT_USAGE))
}
