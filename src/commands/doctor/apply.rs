//! Drives. Sets what may be set: each a value of a file of the kernel's, each with the command that puts the old one back.

use std::fs;

use serde::Serialize;

use super::finding::{Change, Finding};
use crate::host::Root;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// The finding's name.
    pub name: String,
    pub change: Change,
    pub undo: String,
    /// Why it could not be set.
    pub error: Option<String>,
}

pub(super) fn apply(root: &Root, findings: &[Finding]) -> Vec<Applied> {
    let changes = findings.iter().flat_map(|finding| finding.changes.iter().map(|change| (&finding.name, change)));
    changes
        .map(|(name, change)| {
            let error = fs::write(root.path(&change.path), &change.new).err().map(|error| error.to_string());
            Applied { name: name.clone(), undo: change.undo(), change: change.clone(), error }
        })
        .collect()
}
