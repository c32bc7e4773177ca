//! The binary as a client in another language sees it. The client is Python with nothing but its standard library (one test runs
//! Schemathesis), and shares no code with tollgate; each test here runs one file of it against the binary.

use std::path::Path;
use std::process::Command;

fn passes(module: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client");
    let mut python = Command::new("python3");
    // -B: leaves no compiled files in the repository.
    python.args(["-B", "-W", "error", "-m", "unittest", "-v", module]).current_dir(folder);
    let output = python.env("TOLLGATE_BINARY", env!("CARGO_BIN_EXE_tollgate")).output();
    let output = output.expect("python3 is not there: the client's tests need Python 3.10 or later");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{module} of tests/client: {}\n{said}", output.status);
    assert!(said.contains("\nRan ") && !said.contains("Ran 0 tests"), "{module} has no tests\n{said}");
}

#[test]
fn clicks_of_every_shape_count_once_also_after_a_restart() {
    passes("test_clicks");
}

#[test]
fn the_readmes_commands_work_as_pasted() {
    passes("test_readme");
}

#[test]
fn every_refusal_and_limit_is_what_the_contract_says() {
    passes("test_conformance");
}

#[test]
fn the_query_api_agrees_with_an_independent_count() {
    passes("test_query");
}

#[test]
fn the_query_api_is_what_its_document_says() {
    passes("test_openapi");
}
