//! What is said on standard output and standard error. That nobody can read it, a full disk or a closed pipe, changes nothing else: the
//! standard macros would end the process, and hide its exit code.

use std::fmt::Display;
use std::io::Write as _;

/// On standard output, as it is.
pub fn out(text: impl Display) {
    let mut out = std::io::stdout();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// A line on standard error.
pub fn error(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "tollgate: {text}");
}
