//! Each rule is shown a file that breaks it and one that does not: a rule that cannot fail is no rule.

use super::rules::RULES;
use super::source::Source;

const DOC: &str = "//! Says what this file is.\n";

/// What the rules say of a file with this body.
fn findings(path: &str, body: &str) -> Vec<String> {
    let source = Source::new(path, &format!("{DOC}{body}\n"), false);
    RULES.iter().flat_map(|rule| rule(&source)).collect()
}

#[track_caller]
fn refused(path: &str, body: &str, names: &str) {
    let found = findings(path, body);
    assert!(
        found.len() == 1 && found[0].contains(names),
        "{path}: {body:?} should give one finding with {names:?}: {found:?}"
    );
}

#[track_caller]
fn passes(path: &str, body: &str) {
    assert_eq!(findings(path, body), [""; 0], "{path}: {body:?}");
}

#[test]
fn a_good_file_passes() {
    passes("src/worker.rs", "use crate::core::Core;\nfn f() { let now = Instant::now(); }");
    passes("src/core/home.rs", "use crate::dedup::Table;\nuse super::x;");
}

#[test]
fn words_that_belong_elsewhere_are_refused() {
    for (path, body, names) in [
        ("src/dedup/mod.rs", "fn f() { unsafe { g() } }", "UNSAFE_FILES"),
        ("src/core.rs", "use io_uring::opcode;", "ask the ring"),
        ("global/src/store.rs", "use rdkafka::Message;", "consumer"),
        ("wire/src/merge.rs", "fn f() { x.unwrap(); }", "why it cannot fail"),
        ("src/core.rs", "fn f() { let t = Instant::now(); }", "`Now` from the caller"),
        ("src/preagg/table.rs", "fn f() { let m = HashMap::new(); }", "BTreeMap"),
        ("src/preagg/table.rs", "struct S { m: HashMap<u8, Vec<(u8, u8)>> }", "default hasher"),
        ("src/parse/mod.rs", "struct S { m: HashSet<u8> }", "default hasher"),
        ("src/core.rs", "struct S { m: Mutex<u8> }", "one owner"),
        ("src/core.rs", "async fn f() {}", "one owner"),
        ("src/wal/replay.rs", "fn f() { std::process::exit(1) }", "main alone ends"),
        ("src/wal/writer.rs", "struct LogManager;", "says nothing"),
    ] {
        refused(path, body, names);
    }
}

#[test]
fn the_same_words_pass_where_they_belong() {
    passes("src/net/ring.rs", "use io_uring::opcode;\nfn f() { unsafe { g() } }");
    passes("src/net/ring_probe.rs", "use io_uring::Probe;");
    passes("src/admin.rs", "async fn f(m: Mutex<u8>) {}");
    passes("src/preagg/table.rs", "struct S { m: HashMap<u8, u8, Fixed>, s: HashSet<u8, Fixed> }");
    passes("src/wal/replay.rs", "// unsafe Mutex io_uring\nconst T: &str = \"unsafe Instant::now\";");
    passes("src/core.rs", "#[cfg(test)]\nmod tests { fn f() { x.unwrap(); let t = Instant::now(); } }");
}

#[test]
fn imports_follow_the_layers() {
    refused("src/parse/fields.rs", "use crate::dedup::Table;", "`crate::dedup`");
    refused("src/net/ring.rs", "use crate::core::Core;", "`crate::core`");
    refused("src/click.rs", "use crate::parse::Parser;", "`crate::parse`");
    refused("src/newcomer.rs", "", "LAYERS");
    passes("src/parse/fields.rs", "use crate::click::Click;\nuse crate::parse::time;\npub(crate) fn f() {}");
}

#[test]
fn a_file_that_calls_itself_pure_touches_nothing() {
    let pure = |body: &str| {
        let source = Source::new("src/wal/replay.rs", &format!("//! Pure. Says what it is.\n{body}\n"), false);
        RULES.iter().flat_map(|rule| rule(&source)).collect::<Vec<_>>()
    };
    assert!(pure("use std::fs::File;")[0].contains("says that it is pure"));
    assert!(pure("use crate::wal::segments::open;")[0].contains("says that it is pure"));
    assert_eq!(pure("use crate::wal::frame::Frame;"), [""; 0]);
}

#[test]
fn every_file_says_what_it_is() {
    let source = Source::new("src/core.rs", "use x;\n", false);
    assert!(RULES.iter().flat_map(|rule| rule(&source)).any(|found| found.contains("must be `//! `")));
}

#[test]
fn length_is_bounded_and_tests_do_not_count() {
    refused("src/core.rs", &"const A: u8 = 1;\n".repeat(400), "401 lines before its tests, 400 allowed");
    passes("src/core.rs", &format!("#[cfg(test)]\nmod tests {{\n{}}}", "const A: u8 = 1;\n".repeat(400)));
    refused("src/core.rs", &format!("fn long() {{\n{}}}", "g();\n".repeat(69)), "`long` has 71 lines, 70 allowed");
    passes("src/core.rs", &format!("fn long() {{\n{}}}", "g();\n".repeat(68)));
}

#[test]
fn tests_neither_sleep_nor_are_ignored() {
    refused("src/core.rs", "#[cfg(test)]\nmod tests {\n    #[ignore]\n    fn f() {}\n}", "mend the test");
    refused("tests/crash.rs", "fn f() { std::thread::sleep(d); }", "a test that sleeps");
    refused("tests/crash/limits.rs", "fn f() { std::thread::park_timeout(d); }", "a test that sleeps");
    passes("src/wal/segments.rs", "fn f() { std::thread::sleep(d); }");
    passes("src/export/thread.rs", "fn f() { std::thread::park_timeout(d); }");
    passes("tests/crash/server.rs", "fn f() { std::thread::park_timeout(d); }");
}

#[test]
fn marks_of_unfinished_work_are_refused() {
    refused("src/core.rs", concat!("// TO", "DO: later"), "do it now");
    refused("src/core.rs", concat!("fn f() { db", "g!(x); }"), "do it now");
}
