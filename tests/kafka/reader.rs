//! The independent consumer, from Rust: what stands on the topics, counted by Apache's own client; and its producer, which
//! writes what an edge would. Its processes are kept and used again, for a start costs more than most questions.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use crate::java;
use crate::wait::PATIENCE;

/// One that waits for questions. It ends when its standard input does.
struct Process {
    child: Child,
    questions: ChildStdin,
    answers: Receiver<String>,
}

static IDLE: Mutex<Vec<Process>> = Mutex::new(Vec::new());

impl Process {
    fn spawn() -> Process {
        let mut command = java::reader(&["-Xmx256m", "-Dlog.level=off"]);
        command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("java starts: install a JDK 17 or later");
        let questions = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (told, answers) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| told.send(line)));
        Process { child, questions, answers }
    }

    fn ask(&mut self, words: &[&str]) -> Option<String> {
        writeln!(self.questions, "{}", Value::from(words)).ok()?;
        self.answers.recv_timeout(PATIENCE).ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks for a subcommand; an error is what the client said.
pub fn ask(words: &[&str]) -> Result<Value, String> {
    let idle = IDLE.lock().expect("nobody panics while it is held").pop();
    let mut process = idle.unwrap_or_else(Process::spawn);
    let line = process.ask(words).unwrap_or_else(|| panic!("no answer within {PATIENCE:?} to reader {words:?}"));
    IDLE.lock().expect("nobody panics while it is held").push(process);
    let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("JSON: {line}"));
    match answer["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer["ok"].take()),
    }
}

#[track_caller]
fn asked(words: &[&str]) -> Value {
    ask(words).unwrap_or_else(|error| panic!("reader {words:?}: {error}"))
}

/// The topics of one test, over the broker's direct listener.
pub struct Topics {
    bootstrap: String,
    pub partials: String,
    pub checkpoints: String,
}

impl Topics {
    /// Creates `NAME.partials` with four partitions and `NAME.checkpoints`, which is compacted.
    pub fn create(bootstrap: &str, name: &str) -> Topics {
        let topics = Topics {
            bootstrap: bootstrap.to_owned(),
            partials: format!("{name}.partials"),
            checkpoints: format!("{name}.checkpoints"),
        };
        create_topic(bootstrap, &topics.partials, 4, &[]);
        create_topic(bootstrap, &topics.checkpoints, 1, &["cleanup.policy=compact"]);
        topics
    }

    fn question<'a>(&'a self, subcommand: &'a str, bootstrap: &'a str) -> Vec<&'a str> {
        let mut words = vec![subcommand, "--bootstrap", bootstrap];
        words.extend(["--topic", &self.partials, "--checkpoints", &self.checkpoints]);
        words
    }

    /// What is committed, and what is wrong with it.
    pub fn committed(&self) -> Sum {
        self.sum("read_committed", &[])
    }

    /// What was ever written: only totals.
    pub fn uncommitted(&self) -> Sum {
        self.sum("read_uncommitted", &[])
    }

    /// As [`Topics::committed`], and one line a key goes to `counts`.
    pub fn counted(&self, counts: &Path) -> Sum {
        self.sum("read_committed", &["--counts", counts.to_str().expect("a path of UTF-8")])
    }

    fn sum(&self, isolation: &str, more: &[&str]) -> Sum {
        let mut words = self.question("sum", &self.bootstrap);
        words.extend(["--isolation", isolation]);
        words.extend(more);
        Sum(asked(&words))
    }

    /// Writes transactions through `bootstrap` (a proxy's address, say); flags as in `reader produce`.
    pub fn produce(&self, bootstrap: &str, flags: &[&str]) -> Result<Value, String> {
        let mut words = self.question("produce", bootstrap);
        words.extend(flags);
        ask(&words)
    }
}

/// The answer to `sum`.
#[derive(Debug)]
pub struct Sum(pub Value);

impl Sum {
    fn number(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("{name} in {}", self.0))
    }

    pub fn partials(&self) -> u64 {
        self.number("partials")
    }

    pub fn ends(&self) -> u64 {
        self.number("ends")
    }

    pub fn clicks(&self) -> u64 {
        self.number("clicks")
    }

    /// Offsets that a transaction not yet decided keeps from being read.
    pub fn undecided(&self) -> u64 {
        self.number("undecided")
    }

    /// Partitions, last seq, clicks, watermark and horizon of an edge.
    pub fn edge(&self, id: &str) -> &Value {
        &self.0["edges"][id]
    }

    /// The last checkpoint of an edge.
    pub fn checkpoint(&self, id: &str) -> &Value {
        &self.0["checkpoints"][id]
    }

    /// What breaks the contract, one text each, that begins with the edge and a word for what.
    pub fn problems(&self) -> Vec<&str> {
        let list = self.0["problems"].as_array().unwrap_or_else(|| panic!("problems in {}", self.0));
        list.iter().filter_map(Value::as_str).collect()
    }

    /// Nothing breaks the contract.
    #[track_caller]
    pub fn sound(self) -> Sum {
        assert_eq!(self.problems(), [""; 0], "{}", self.0);
        self
    }
}

/// Of a topic of raw clicks: `clicks`, `undecided`, `problems`, and the fields of those of the ad `show`; a line an ad in `counts`.
pub fn raw(bootstrap: &str, topic: &str, isolation: &str, counts: &Path, show: &str) -> Value {
    let counts = counts.to_str().expect("a path of UTF-8");
    let words = ["raw", "--bootstrap", bootstrap, "--topic", topic, "--isolation", isolation];
    asked(&[&words[..], &["--counts", counts, "--show", show]].concat())
}

/// `config` is of `K=V`.
pub fn create_topic(bootstrap: &str, name: &str, partitions: u32, config: &[&str]) {
    let partitions = partitions.to_string();
    let mut words = vec!["topics", "--bootstrap", bootstrap, "--create", name, "--partitions", &partitions];
    words.extend(config.iter().flat_map(|pair| ["--config", pair]));
    asked(&words);
}

/// `config` is of `K=V`; what is not in it stays.
pub fn alter_topic(bootstrap: &str, name: &str, config: &[&str]) {
    let mut words = vec!["topics", "--bootstrap", bootstrap, "--alter", name];
    words.extend(config.iter().flat_map(|pair| ["--config", pair]));
    asked(&words);
}

/// To so many partitions, which are more than it has.
pub fn widen_topic(bootstrap: &str, name: &str, partitions: u32) {
    asked(&["topics", "--bootstrap", bootstrap, "--alter", name, "--partitions", &partitions.to_string()]);
}

pub fn delete_topic(bootstrap: &str, name: &str) {
    asked(&["topics", "--bootstrap", bootstrap, "--delete", name]);
}

/// Deletes all of its records, as its retention does in time.
pub fn empty_topic(bootstrap: &str, name: &str) {
    asked(&["topics", "--bootstrap", bootstrap, "--empty", name]);
}

/// Its `partitions`, 0 where there is none such, its `config`; `leaders`, -1 for none, and how many replicas
/// are `in_sync`, by partition.
pub fn describe_topic(bootstrap: &str, name: &str) -> Value {
    asked(&["topics", "--bootstrap", bootstrap, "--describe", name])
}

/// The id of the broker that coordinates its transactions.
pub fn coordinator_of(bootstrap: &str, transactional_id: &str) -> u64 {
    let answer = asked(&["topics", "--bootstrap", bootstrap, "--coordinator-of", transactional_id]);
    answer["coordinator"].as_u64().unwrap_or_else(|| panic!("coordinator in {answer}"))
}

/// Rights of a user, as `TYPE NAME OPERATION`, after `words`: `--password P` makes it, `--allow`, `--deny` and `--command` change them.
pub fn rights(bootstrap: &str, user: &str, words: &[&str]) -> BTreeSet<String> {
    let answer = asked(&[&["rights", "--bootstrap", bootstrap, "--user", user][..], words].concat());
    let list = answer["rights"].as_array().unwrap_or_else(|| panic!("rights in {answer}"));
    list.iter().map(|right| right.as_str().expect("a text").to_owned()).collect()
}
