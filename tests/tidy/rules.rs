//! The rules of style that a machine can check. Each finding names the place, what is wrong and what to do instead.

use super::source::Source;

pub type Rule = fn(&Source) -> Vec<String>;

/// Every rule over a Rust file.
pub const RULES: &[Rule] = &[
    module_doc,
    unsafe_in_named_files,
    io_uring_in_the_ring,
    rdkafka_in_its_files,
    no_unwrap,
    clocks_in_drivers,
    no_default_hasher,
    no_async_or_locks,
    one_exit,
    imports_by_folder,
    pure_is_pure,
    file_length,
    function_length,
    no_ignored_tests,
    no_sleeping,
    nothing_left_to_do,
    names_that_say_nothing,
];

const UNSAFE: &[&str] = &["unsafe", "unsafe_code"];
const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now", "clock_gettime"];
const ASYNC_OR_LOCKS: &[&str] =
    &["async", ".await", "Mutex", "RwLock", "Condvar", "RefCell", "Rc", "OnceLock", "LazyLock"];

/// Files that hold `unsafe`: each block states the invariant that it relies on, and a safe twin tests it.
const UNSAFE_FILES: &[&str] = &[
    "src/net/ring.rs",
    "src/net/buffers.rs",
    "src/net/sockopt.rs",
    "src/dedup/simd.rs",
    "src/parse/simd.rs",
    "src/host/ethtool.rs",
    "src/end.rs",
    "global/src/kafka/high.rs",
    "global/src/kafka/topic_id.rs",
];

/// Threads that read the clocks; everything else is handed `Now`.
const CLOCK_FILES: &[&str] = &[
    "src/worker.rs",
    "src/admin.rs",
    "src/commands/doctor/sync.rs",
    "src/commands/status.rs",
    "src/export/kafka.rs",
    "src/export/kafka/reader.rs",
    "src/export/kafka/topics.rs",
    "src/run.rs",
    "src/run/ports.rs",
    "src/start.rs",
    "src/start/memory.rs",
    "src/wal/keeper.rs",
    "src/wal/prepare.rs",
    "src/wal/segments.rs",
];

/// Off the click's way: the admin port.
const ASYNC_OR_LOCK_FILES: &[&str] = &["src/admin.rs"];

/// Lines up to the tests. A file over the first number is on the list with a bound of its own that may only go down;
/// none is over the second.
const FILE_LINES_WANTED: usize = 400;
const FILE_LINES_MAX: usize = 700;
const LONG_FILES: &[(&str, usize)] = &[
    ("loadgen/src/feed.rs", 450),
    ("src/dedup/mod.rs", 450),
    ("src/net/ring.rs", 600),
    ("src/parse/fields.rs", 500),
    ("src/wal/record.rs", 480),
    ("src/wal/recover.rs", 600),
    ("src/wal/writer.rs", 500),
];

const PARKING: &str = "park_timeout";
/// Tests that let time pass where there is nothing to wait for, and why.
const PARKING_FILES: &[(&str, &str)] = &[
    ("tests/crash/campaign.rs", "a load lasts a time, and kills come at seeded moments"),
    ("tests/crash/client.rs", "a load has a pace"),
    ("tests/crash/contended.rs", "kills come at seeded moments, and a client tries again after a pause"),
    ("tests/crash/fresh.rs", "idling is measured over a time"),
    ("tests/crash/server.rs", "it has what waits with a deadline, for all the others"),
    ("tests/kafka/wait.rs", "a broker is waited for with a deadline, and a proxy delays what it carries"),
];

const FUNCTION_LINES_MAX: usize = 70;
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

const VOCABULARY: &[&str] = &["chunk", "click", "config", "cut", "event", "exit", "metrics", "units"];

/// Who may import whom, the most particular path first; vocabulary is open to all. A path that is not here is refused.
const LAYERS: &[(&str, Imports)] = &[
    ("src/parse/", Imports::Only(&[])),
    ("src/dedup/", Imports::Only(&[])),
    ("src/preagg/", Imports::Only(&[])),
    ("src/net/", Imports::Only(&["wake"])),
    ("src/wal/keeper.rs", Imports::Only(&["inbox"])),
    ("src/wal/", Imports::Only(&[])),
    ("src/export/thread.rs", Imports::Only(&["inbox", "preagg", "wal", "worker"])),
    ("src/export/", Imports::Only(&["inbox", "preagg", "wal"])),
    ("src/core", Imports::Only(&["core", "dedup", "export", "net", "parse", "preagg", "wal"])),
    ("src/config/", Imports::Only(&[])),
    ("src/host", Imports::Only(&["machine"])),
    ("src/machine.rs", Imports::Only(&[])),
    ("src/settings", Imports::Only(&["machine"])),
    ("src/memory.rs", Imports::Everything),
    ("src/limits.rs", Imports::Only(&["machine", "memory"])),
    ("src/flags.rs", Imports::Only(&["limits", "machine", "settings"])),
    ("src/cli", Imports::Only(&["cli", "flags", "machine", "settings"])),
    ("src/metrics_text.rs", Imports::Only(&[])),
    ("src/admin.rs", Imports::Only(&["meters", "metrics_text", "wake"])),
    ("src/meters.rs", Imports::Only(&["export", "wal", "worker"])),
    ("src/probe.rs", Imports::Only(&["net"])),
    ("src/end.rs", Imports::Only(&[])),
    ("src/say.rs", Imports::Only(&[])),
    ("src/wake.rs", Imports::Only(&[])),
    ("src/inbox.rs", Imports::Only(&["wake"])),
    ("src/mesh", Imports::Only(&["wake"])),
    ("src/spread.rs", Imports::Only(&["inbox"])),
    ("src/commands/", Imports::Everything),
    ("src/worker.rs", Imports::Everything),
    ("src/run", Imports::Everything),
    ("src/start", Imports::Everything),
    ("src/main.rs", Imports::Everything),
    ("src/lib.rs", Imports::Everything),
];

enum Imports {
    /// The vocabulary, its own folder, and these.
    Only(&'static [&'static str]),
    /// It joins parts together.
    Everything,
}

/// What touches the world, so that no pure file may name it.
const DRIVERS: &[&str] = &["net::ring", "net::buffers", "net::listener", "wal::segments", "wal::keeper"];

/// What a file that calls itself pure must not name.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "TcpStream",
    "TcpListener",
    "Instant::now",
    "SystemTime::now",
    "libc",
    "tokio",
    "axum",
];

fn finding(source: &Source, line: usize, text: impl std::fmt::Display) -> String {
    format!("{}:{line}: {text}", source.path)
}

/// A finding for each line of product code that names one of `words`, unless the file is among `allowed`.
fn only_in(source: &Source, allowed: &[&str], words: &[&'static str], instead: &str) -> Vec<String> {
    if allowed.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let lines =
        |word: &'static str| Source::lines_with(&source.product, word).into_iter().map(move |line| (line, word));
    let found = words.iter().flat_map(|word| lines(word));
    found.map(|(line, word)| finding(source, line, format!("`{word}`: {instead}"))).collect()
}

/// Entries of the lists above that nothing needs any more.
pub fn stale_exceptions(sources: &[Source]) -> Vec<String> {
    let source = |path: &str| sources.iter().find(|source| source.path == path);
    let mut stale = Vec::new();
    let lists = [
        ("UNSAFE_FILES", UNSAFE_FILES, UNSAFE),
        ("CLOCK_FILES", CLOCK_FILES, CLOCKS),
        ("ASYNC_OR_LOCK_FILES", ASYNC_OR_LOCK_FILES, ASYNC_OR_LOCKS),
    ];
    for (name, paths, words) in lists {
        let has_one = |source: &Source| words.iter().any(|word| !Source::lines_with(&source.product, word).is_empty());
        let unused = paths.iter().filter(|path| !source(path).is_some_and(has_one));
        stale.extend(unused.map(|path| format!("{name} has {path}, which has none of {words:?}")));
    }
    for (path, lines) in LONG_FILES {
        let has = source(path).map_or(0, Source::product_lines);
        if has <= FILE_LINES_WANTED || has + 50 < *lines {
            stale.push(format!("LONG_FILES allows {path} {lines} lines, it has {has}"));
        }
    }
    let parks = |source: &Source| !Source::lines_with(&source.code, PARKING).is_empty();
    let unused = PARKING_FILES.iter().filter(|(path, _)| !source(path).is_some_and(parks));
    stale.extend(unused.map(|(path, _)| format!("PARKING_FILES has {path}, which has no `{PARKING}`")));
    let gone = LAYERS.iter().filter(|(path, _)| !sources.iter().any(|source| source.path.starts_with(path)));
    stale.extend(gone.map(|(path, _)| format!("LAYERS has {path}, and there is no such file")));
    stale
}

fn in_edge(source: &Source) -> bool {
    source.path.starts_with("src/")
}

fn module_doc(source: &Source) -> Vec<String> {
    let good = source.text.lines().next().is_some_and(|line| line.len() > 20 && line.starts_with("//! "));
    let text = "the first line must be `//! ` and say what the file is (and `Pure.` or `Drives.` where that holds)";
    if good { Vec::new() } else { vec![finding(source, 1, text)] }
}

fn unsafe_in_named_files(source: &Source) -> Vec<String> {
    let elsewhere = !in_edge(source) && !source.path.starts_with("wire/") && !source.path.starts_with("global/");
    if elsewhere {
        return Vec::new();
    }
    only_in(source, UNSAFE_FILES, UNSAFE, "write it safely, or move it to a file of UNSAFE_FILES")
}

fn io_uring_in_the_ring(source: &Source) -> Vec<String> {
    let ring = source.path.starts_with("src/net/ring") || source.path.starts_with("bench/");
    let allowed: &[&str] = if ring { &[source.path.as_str()] } else { &["src/net/buffers.rs"] };
    only_in(source, allowed, &["io_uring"], "ask the ring for it: only src/net/ring*.rs and buffers.rs know io_uring")
}

fn rdkafka_in_its_files(source: &Source) -> Vec<String> {
    let allowed = &[
        "src/export/kafka.rs",
        "src/export/kafka/client.rs",
        "src/export/kafka/raw.rs",
        "src/export/kafka/reader.rs",
        "src/export/kafka/rights.rs",
        "src/export/kafka/topics.rs",
        "src/export/kafka/watch.rs",
        "global/src/kafka.rs",
        "global/src/kafka/high.rs",
        "global/src/kafka/topic_id.rs",
        "bench/src/axum_kafka.rs",
    ];
    only_in(source, allowed, &["rdkafka"], "go through src/export/kafka or the global tier's consumer")
}

fn no_unwrap(source: &Source) -> Vec<String> {
    let instead = "handle it, or `expect` with the reason why it cannot fail";
    only_in(source, &[], &[".unwrap()", ".unwrap_err()", ".expect(\"\")"], instead)
}

fn clocks_in_drivers(source: &Source) -> Vec<String> {
    if !in_edge(source) {
        return Vec::new();
    }
    only_in(source, CLOCK_FILES, CLOCKS, "take `Now` from the caller; the worker alone reads the clocks")
}

/// A map with the default hasher is seeded at random: its order differs from run to run, and a seed no longer replays.
fn no_default_hasher(source: &Source) -> Vec<String> {
    if !in_edge(source) {
        return Vec::new();
    }
    let words = &[
        "HashMap::new",
        "HashMap::with_capacity",
        "HashSet::new",
        "HashSet::with_capacity",
        "RandomState",
        "DefaultHasher",
    ];
    let instead = "use BTreeMap, BTreeSet, or a hasher with a fixed seed";
    let mut found = only_in(source, &[], words, instead);
    for (name, parameters) in [("HashMap<", 3), ("HashSet<", 2)] {
        for (at, _) in source.product.match_indices(name) {
            if type_parameters(&source.product[at + name.len()..]) < parameters {
                let line = 1 + source.product[..at].matches('\n').count();
                found.push(finding(source, line, format!("`{name}…>` has the default hasher: {instead}")));
            }
        }
    }
    found
}

/// How many parameters there are up to the `>` that closes the list.
fn type_parameters(text: &str) -> usize {
    let (mut depth, mut count) = (0, 1);
    for c in text.chars() {
        match c {
            '<' | '(' | '[' => depth += 1,
            '>' if depth == 0 => return count,
            '>' | ')' | ']' => depth -= 1,
            ',' if depth == 0 => count += 1,
            _ => {}
        }
    }
    count
}

fn no_async_or_locks(source: &Source) -> Vec<String> {
    if !in_edge(source) {
        return Vec::new();
    }
    only_in(source, ASYNC_OR_LOCK_FILES, ASYNC_OR_LOCKS, "give the value one owner and send it events")
}

fn one_exit(source: &Source) -> Vec<String> {
    if !in_edge(source) {
        return Vec::new();
    }
    only_in(
        source,
        &["src/main.rs"],
        &["process::exit", "process::abort"],
        "return an `Exit`: main alone ends the process",
    )
}

fn imports_by_folder(source: &Source) -> Vec<String> {
    if !in_edge(source) {
        return Vec::new();
    }
    let vocabulary = VOCABULARY.iter().any(|name| source.path == format!("src/{name}.rs"));
    let layer = LAYERS.iter().find(|(path, _)| source.path.starts_with(path)).map(|(_, imports)| imports);
    let allowed = match layer {
        _ if vocabulary => &[][..],
        Some(Imports::Only(names)) => names,
        Some(Imports::Everything) => return Vec::new(),
        None => return vec![finding(source, 1, "say in LAYERS of tests/tidy/rules.rs what this file may import")],
    };
    let own = source.path["src/".len()..].split(['/', '.']).next().unwrap_or_default();
    let mut found = Vec::new();
    for (line, text) in source.product.lines().enumerate().map(|(at, text)| (at + 1, text)) {
        for name in roots(text) {
            let good = VOCABULARY.contains(&name) || allowed.contains(&name) || name == own;
            if !good {
                found.push(finding(
                    source,
                    line,
                    format!("`crate::{name}` is not open to this file: see LAYERS for who may import whom"),
                ));
            }
        }
    }
    found
}

/// The names after each `crate::` of a line.
fn roots(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").filter_map(|(at, word)| {
        let rest = &line[at + word.len()..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let whole = !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '(');
        whole.then_some(&rest[..end])
    })
}

fn pure_is_pure(source: &Source) -> Vec<String> {
    if !source.text.starts_with("//! Pure.") {
        return Vec::new();
    }
    let instead = "this file says that it is pure: be handed what it needs, or move it to a driver";
    let mut found = only_in(source, &[], IMPURE, instead);
    found.extend(only_in(source, &[], DRIVERS, instead));
    found
}

fn file_length(source: &Source) -> Vec<String> {
    let lines = source.product_lines();
    let listed = LONG_FILES.iter().find(|(path, _)| *path == source.path).map(|(_, lines)| *lines);
    let limit = listed.unwrap_or(FILE_LINES_WANTED).min(FILE_LINES_MAX);
    let text = format!("{lines} lines before its tests, {limit} allowed: split it by role");
    if lines > limit { vec![finding(source, limit, text)] } else { Vec::new() }
}

fn function_length(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (line, name, lines) in source.functions() {
        let listed = LONG_FUNCTIONS.iter().find(|(path, function, _)| *path == source.path && *function == name);
        let limit = listed.map_or(FUNCTION_LINES_MAX, |(_, _, lines)| *lines);
        if lines > limit {
            found.push(finding(source, line, format!("`{name}` has {lines} lines, {limit} allowed: split it")));
        }
    }
    found
}

fn no_ignored_tests(source: &Source) -> Vec<String> {
    let lines = Source::lines_with(&source.code, "#[ignore");
    lines.into_iter().map(|line| finding(source, line, "`#[ignore]`: mend the test or delete it")).collect()
}

/// In tests. Product code that waits does so on an event or a deadline and is not looked at here.
fn no_sleeping(source: &Source) -> Vec<String> {
    let parking = PARKING_FILES.iter().any(|(path, _)| *path == source.path);
    let words = ["thread::sleep", "time::sleep", PARKING].into_iter().filter(|word| !parking || *word != PARKING);
    let lines = |view: &str| words.clone().flat_map(|word| Source::lines_with(view, word)).collect::<Vec<_>>();
    let product = lines(&source.product);
    let in_tests = lines(&source.code).into_iter().filter(|line| !product.contains(line));
    in_tests
        .map(|line| finding(source, line, "a test that sleeps: wait for what it waits for, with a deadline"))
        .collect()
}

fn nothing_left_to_do(source: &Source) -> Vec<String> {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("db", "g!")];
    let lines = words.map(|word| Source::lines_with(&source.text, word)).concat();
    lines.into_iter().map(|line| finding(source, line, "do it now, or delete the mark")).collect()
}

fn names_that_say_nothing(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (at, line) in source.product.lines().enumerate() {
        for keyword in ["struct ", "enum ", "trait ", "mod "] {
            let Some((_, rest)) = line.split_once(keyword) else { continue };
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let empty = ["Manager", "Helper", "Util", "util", "helper", "misc", "common"];
            if empty.iter().any(|word| name.contains(word)) {
                found.push(finding(
                    source,
                    at + 1,
                    format!("`{name}` says nothing: use one of the words of docs/ARCHITECTURE.md"),
                ));
            }
        }
    }
    found
}
