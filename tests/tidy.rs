//! Checks the house's rules over the whole repository: style (`tidy/rules.rs`), and documents against the program
//! (`tidy/documents.rs`). What a rule asks for instead is in its message.
// In a test, what cannot be unwrapped fails it.
#![allow(clippy::unwrap_used)]

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/planted.rs"]
mod planted;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use rules::RULES;
use source::{Source, test_modules};

/// Where Rust code is; what else lies in the repository is not looked at.
const FOLDERS: [&str; 12] = [
    "src",
    "tests",
    "wire/src",
    "wire/tests",
    "global/src",
    "global/examples",
    "loadgen/src",
    "loadgen/examples",
    "loadgen/tests",
    "bench/src",
    "bench/tests",
    "fuzz/fuzz_targets",
];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Every Rust file as the rules see it.
fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        assert!(root().join(folder).is_dir(), "there is no {folder}: FOLDERS of tests/tidy.rs is stale");
        rust_files(&root().join(folder), &mut files);
    }
    files.sort();
    assert!(files.len() > 20, "the walk over the repository found {} files only", files.len());
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    let texts: Vec<(String, String)> =
        files.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect();
    let for_tests: Vec<String> = texts.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    texts.iter().map(|(path, text)| Source::new(path, text, for_tests.contains(path))).collect()
}

#[test]
fn every_file_keeps_the_rules() {
    let mut findings = Vec::new();
    for source in sources() {
        findings.extend(RULES.iter().flat_map(|rule| rule(&source)));
    }
    assert!(findings.is_empty(), "{} findings\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn exceptions_are_only_for_files_that_need_them() {
    let stale = rules::stale_exceptions(&sources());
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}
