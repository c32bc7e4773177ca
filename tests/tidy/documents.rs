//! The documents against the program: flags, exit codes, metrics, links. What is written there cannot rot unseen.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use tollgate::cli::{Cli, default_text};
use tollgate::click::Reason;
use tollgate::metrics::Snapshot;
use tollgate::metrics_text;
use tollgate::settings::SETTINGS;
use tollgate_global::{QuerySide, QuerySideConfig};

use super::{root, rust_files};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of the tables of a document whose first cell begins with `start`.
fn rows(document: &str, start: &str) -> Vec<String> {
    document.lines().filter(|line| line.starts_with(&format!("| {start}"))).map(str::to_owned).collect()
}

/// The parts of a text that look like `start` and go on in lower case, digits, `between`.
fn words(text: &str, start: &str, between: char) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == between;
    let word = |(at, _): (usize, &str)| {
        let rest = &text[at + start.len()..];
        let end = rest.find(|c: char| !part(c)).unwrap_or(rest.len());
        rest[..end].trim_end_matches(between).to_owned()
    };
    text.match_indices(start).map(word).filter(|word| !word.is_empty()).map(|word| format!("{start}{word}")).collect()
}

fn files(folder: &str, ending: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root().join(folder)) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(ending)).collect();
    names.sort();
    names
}

#[test]
fn operating_lists_every_setting_as_the_help_does() {
    let expected: Vec<String> = SETTINGS
        .iter()
        .map(|setting| {
            format!("| `--{}` | {} | {} | {} |", setting.name, default_text(setting), setting.bounds(), setting.about)
        })
        .collect();
    let found = rows(&read("docs/OPERATING.md"), "`--");
    assert!(found == expected, "the table of flags in docs/OPERATING.md should be\n{}", expected.join("\n"));
}

fn exit_codes() -> Vec<String> {
    let source = read("src/exit.rs");
    let codes: Vec<String> = source
        .lines()
        .filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "))
        .filter(|(name, _)| name.chars().all(char::is_alphanumeric))
        .map(|(_, code)| code.to_owned())
        .collect();
    assert!(codes.len() >= 11, "{codes:?}");
    codes
}

/// The list in tests/crash/main.rs, and the functions that it names.
#[test]
fn every_exit_code_has_tests_that_are_there() {
    let list = read("tests/crash/main.rs");
    let named: Vec<(&str, &str)> = list
        .lines()
        .filter_map(|line| line.strip_prefix("//! ")?.split_once(char::is_whitespace))
        .filter(|(code, _)| code.chars().all(|c| c.is_ascii_digit()))
        .map(|(code, rest)| (code, rest.split_whitespace().next().unwrap_or_default()))
        .collect();
    let mut codes: Vec<&str> = named.iter().map(|(code, _)| *code).collect();
    codes.dedup();
    assert_eq!(codes, exit_codes(), "the list in tests/crash/main.rs against src/exit.rs");
    let folders = ["tests/crash", "tests/kafka"];
    let tests: String = folders
        .iter()
        .flat_map(|folder| files(folder, ".rs").into_iter().map(move |file| read(&format!("{folder}/{file}"))))
        .collect();
    for (code, name) in named {
        assert!(tests.contains(&format!("#[test]\nfn {name}()")), "{code}: there is no test {name}");
    }
}

#[test]
fn operating_has_a_row_for_every_exit_code() {
    let codes = exit_codes();
    let operating = read("docs/OPERATING.md");
    let found: Vec<String> = operating
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" |"))
        .filter(|(cell, _)| cell.chars().all(|c| c.is_ascii_digit()))
        .map(|(cell, _)| cell.to_owned())
        .collect();
    assert_eq!(found, codes, "the table of exit codes in docs/OPERATING.md against src/exit.rs");
}

#[test]
fn flags_that_documents_name_exist() {
    fn collect(command: &clap::Command, flags: &mut BTreeSet<String>) {
        flags.extend(command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))));
        command.get_subcommands().for_each(|command| collect(command, flags));
    }
    let mut known = BTreeSet::from(["--help", "--version"].map(str::to_owned));
    collect(&Cli::command(), &mut known);
    for path in ["README.md", "docs/OPERATING.md", "docs/ARCHITECTURE.md", ALERTS] {
        for line in read(path).lines().filter(|line| !ELSEWHERE.iter().any(|other| line.contains(other))) {
            for flag in words(line, "--", '-') {
                assert!(known.contains(&flag), "{path} names {flag}, which no command has: {line}");
            }
        }
    }
}

/// A line that names one of these speaks of another program's flags.
const ELSEWHERE: [&str; 12] = [
    "tollgate-loadgen",
    "tollgate-bench",
    "curl",
    "cargo ",
    "docker",
    "kafka-acls.sh",
    "kafka-configs.sh",
    "kafka-consumer-groups.sh",
    "ulimit",
    "scripts/",
    "--security-opt",
    "--ulimit",
];

const ALERTS: &str = "deploy/prometheus/alerts.yml";

/// What the global tier shows over an empty store.
fn global_metrics() -> String {
    let folder = tempfile::tempdir().unwrap();
    let store = tollgate_global::Store::open(&folder.path().join("store")).unwrap();
    let shown = tollgate_global::Meter::default().text(&store.snapshot().unwrap(), &Default::default(), 0);
    let (data_dir, listen) = (folder.path().to_owned(), "127.0.0.1:0".parse().unwrap());
    let side = QuerySide::open(&QuerySideConfig { data_dir, ads: None, listen }).unwrap();
    shown.unwrap() + &side.text()
}

/// The names of the metrics that are shown, by an edge and by the global tier.
fn shown() -> BTreeSet<String> {
    let text = metrics_text::render(Some(&Snapshot::default()), &metrics_text::Process::default()) + &global_metrics();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    names.map(str::to_owned).collect()
}

/// Metrics that are shown, sections that there are, and a series of its own in the test of each.
#[test]
fn alerts_name_what_exists_and_each_is_tested() {
    let (alerts, tests, operating) =
        (read(ALERTS), read("deploy/prometheus/alerts_test.yml"), read("docs/OPERATING.md"));
    for text in [&alerts, &tests] {
        let unknown: Vec<_> = words(text, "tollgate_", '_').difference(&shown()).cloned().collect();
        assert!(unknown.is_empty(), "{ALERTS} or its test names {unknown:?}, which are not shown");
    }
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "no series of alerts_test.yml fires {name}");
    }
    let sections = alerts.split("OPERATING.md \\\"").skip(1).filter_map(|rest| rest.split("\\\"").next());
    for section in sections {
        let found = [format!("## {section}"), format!("**{section}"), format!("{section}, by")];
        assert!(found.iter().any(|form| operating.contains(form.as_str())), "docs/OPERATING.md has no {section:?}");
    }
    let rules = alerts.matches("- alert: ").count();
    for part in ["summary: ", "runbook: ", "severity: ", "expr: "] {
        assert_eq!(alerts.matches(part).count(), rules, "each alert has its {part:?}");
    }
}

#[test]
fn operating_names_every_metric_and_no_other() {
    let shown = shown();
    let operating = read("docs/OPERATING.md");
    let named = ["tollgate_", "process_"].iter().flat_map(|start| words(&operating, start, '_')).collect();
    assert_eq!(shown, named, "the metrics that are shown, and those that docs/OPERATING.md names");
}

/// Of each `Cargo.toml`: a dependency whose name no source beside it says is built for nothing.
#[test]
fn operating_says_of_every_reason_what_it_means() {
    let operating = read("docs/OPERATING.md");
    let table = operating.split("Why a click is refused").nth(1).expect("the table of reasons");
    let rows = table.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with("| `"));
    let found: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    assert_eq!(found, Reason::ALL.map(Reason::name), "the table of reasons in docs/OPERATING.md against src/click.rs");
}

#[test]
fn every_dependency_is_used() {
    for package in ["", "wire/", "global/", "loadgen/", "bench/"] {
        let path = format!("{package}Cargo.toml");
        let manifest: toml::Table = read(&path).parse().unwrap();
        let mut sources = Vec::new();
        for folder in ["src", "tests", "examples"] {
            rust_files(&root().join(package).join(folder), &mut sources);
        }
        let text: String = sources.iter().map(|source| fs::read_to_string(source).unwrap()).collect();
        for table in ["dependencies", "dev-dependencies"] {
            let names = manifest.get(table).and_then(toml::Value::as_table).into_iter().flat_map(|names| names.keys());
            for name in names.map(|name| name.replace('-', "_")) {
                let used = [format!("{name}::"), format!("use {name}")].iter().any(|form| text.contains(form));
                assert!(used, "{path} has {name} among its {table}, which nothing there names: remove it");
            }
        }
    }
}

/// The global tier shares no code with the edge, and shows codes by the same names.
#[test]
fn the_query_api_names_what_clicks_carry_as_the_edge_does() {
    use tollgate::click::{Agent, Class, Device};
    assert_eq!(Class::ALL.map(Class::name), tollgate_global::CLASSES);
    assert_eq!(Device::ALL.map(Device::name), tollgate_global::DEVICES);
    assert_eq!(Agent::ALL.map(Agent::name), tollgate_global::AGENTS);
    assert!(Class::ALL.iter().zip(0..).all(|(class, code)| *class as u8 == code));
    assert!(Device::ALL.iter().zip(0..).all(|(device, code)| *device as u8 == code));
    assert!(Agent::ALL.iter().zip(0..).all(|(agent, code)| *agent as u8 == code));
}

#[test]
fn every_decision_is_in_the_index() {
    let index = read("docs/decisions/README.md");
    let pages = files("docs/decisions", ".md");
    assert!(pages.len() > 1);
    for page in pages.iter().filter(|page| *page != "README.md") {
        assert!(index.contains(&format!("({page})")), "docs/decisions/README.md does not link {page}");
    }
}

#[test]
fn trust_counts_what_is_tried() {
    let trust = read("docs/TRUST.md");
    let bugs = files("tests/sim/bugs", ".bug").len();
    assert!(trust.contains(&format!("| {bugs} bugs, each")), "docs/TRUST.md: there are {bugs} planted bugs");
    let (_, table) = trust.split_once("## What a disk can do").expect("a table of faults");
    // But for the head of the table.
    let (rows, kinds) = (rows(table, "").len() - 1, "[Kind; 18] = [");
    assert!(read("tests/sim/damage.rs").contains(kinds) && trust.contains("eighteen kinds"), "{kinds}");
    assert_eq!(rows, 18, "docs/TRUST.md: a row for each kind of fault");
}

#[test]
fn links_within_the_repository_lead_somewhere() {
    let mut documents = ["README.md", "CHANGELOG.md", "fuzz/README.md"].map(str::to_owned).to_vec();
    documents.extend(files("docs", ".md").into_iter().map(|name| format!("docs/{name}")));
    documents.extend(files("docs/decisions", ".md").into_iter().map(|name| format!("docs/decisions/{name}")));
    for document in documents {
        let folder = Path::new(&document).parent().unwrap();
        for part in read(&document).split("](").skip(1) {
            let target = part.split([')', '#']).next().unwrap();
            let outside = target.contains("://") || target.is_empty();
            assert!(outside || root().join(folder).join(target).exists(), "{document} links to {target}");
        }
    }
}

#[test]
fn words_are_found_whole() {
    assert_eq!(
        words("a `--dedup-key` and --x, --", "--", '-'),
        BTreeSet::from(["--dedup-key", "--x"].map(str::to_owned))
    );
    assert_eq!(rows("| `--a` | 1 |\n| b |", "`--"), ["| `--a` | 1 |"]);
}
