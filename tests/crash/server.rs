//! One running tollgate, and its commands on a directory that none serves.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::send_one_by_one;

/// Beyond every deadline that a test relies on, so that a hang fails and does not hang.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often [`wait_until`] looks.
const POLL: Duration = Duration::from_millis(10);

/// Waits until it is so; that it never is fails the test.
#[track_caller]
pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::park_timeout(POLL);
    }
}

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_tollgate")
}

/// Small segments and little memory: these tests start hundreds of servers.
const SMALL: [&str; 6] = ["--segment-bytes", "1MiB", "--dedup-memory-bytes", "16MiB", "--recv-buffers", "64"];

/// What was acknowledged is counted at once.
pub const EXPORTS: [&str; 2] = ["--export-interval", "100ms"];

/// A child that may not be ready yet. Dropped, it is killed.
pub struct Server {
    child: Child,
    first_line: Receiver<String>,
    errors: PathBuf,
    pub clicks: SocketAddr,
    /// Port 0 where there is none to ask.
    pub query: SocketAddr,
    pub admin: SocketAddr,
}

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub errors: String,
}

impl Server {
    /// Starts one; does not wait.
    pub fn spawn(data_dir: &Path, flags: &[&str]) -> Server {
        Server::spawn_telling(data_dir, flags, data_dir.with_extension("stderr"))
    }

    /// What it says goes to that file: one on a disk that stops answering would hold up whoever starts it.
    pub fn spawn_telling(data_dir: &Path, flags: &[&str], errors: PathBuf) -> Server {
        let mut command = Command::new(binary());
        // Only an edge by itself exports elsewhere than to its own store.
        command.arg(if flags.contains(&"--sink") { "serve" } else { "up" });
        for pair in SMALL.chunks(2).filter(|pair| !flags.contains(&pair[0])) {
            command.args(pair);
        }
        for flag in ["--listen", "--query-listen", "--admin-listen"] {
            if !flags.contains(&flag) {
                command.args([flag, "127.0.0.1:0"]);
            }
        }
        if !flags.contains(&"--drain-delay") {
            command.args(["--drain-delay", "0s"]);
        }
        command.args(flags);
        Server::spawn_command_telling(command, data_dir, errors)
    }

    /// `command` is the binary with all but its directory.
    pub fn spawn_command(command: Command, data_dir: &Path) -> Server {
        Server::spawn_command_telling(command, data_dir, data_dir.with_extension("stderr"))
    }

    fn spawn_command_telling(mut command: Command, data_dir: &Path, errors: PathBuf) -> Server {
        let log = File::options().create(true).append(true).open(&errors).expect("a file for standard error");
        command.env_clear().arg("--data-dir").arg(data_dir);
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("piped");
        let (told, first_line) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            // Nobody waits for the line of a child that was killed before it wrote one.
            let _ = told.send(read.map(|_| line).unwrap_or_default());
        });
        let none = SocketAddr::from(([127, 0, 0, 1], 0));
        Server { child, first_line, errors, clicks: none, query: none, admin: none }
    }

    /// Starts one and waits until it is ready.
    pub fn start(data_dir: &Path, flags: &[&str]) -> Server {
        let mut server = Server::spawn(data_dir, flags);
        assert!(server.ready_within(PATIENCE), "not ready: {:?}", server.ended());
        server
    }

    /// Waits for the ready line, or that of an edge that only exports and has no port for clicks; false where it did not come in
    /// time.
    pub fn ready_within(&mut self, patience: Duration) -> bool {
        let Ok(line) = self.first_line.recv_timeout(patience) else { return false };
        assert!(self.take_addresses(&line), "no ready line but {line:?}: {:?}", self.ended());
        true
    }

    /// Waits for that line, or until it ends without one; true: it is ready.
    pub fn ready_or_gone(&mut self) -> bool {
        let line = self.first_line.recv_timeout(PATIENCE).expect("it says so, or ends");
        self.take_addresses(&line)
    }

    fn take_addresses(&mut self, line: &str) -> bool {
        let address = |name: &str| {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(name))?;
            word.parse().ok()
        };
        let Some(admin) = address("admin=") else { return false };
        let or_none = |name, none| address(name).unwrap_or(none);
        (self.clicks, self.query) = (or_none("listen=", self.clicks), or_none("query=", self.query));
        self.admin = admin;
        true
    }

    /// Whether it said so before it ended; waits for one or the other.
    pub fn has_been_ready(&mut self) -> bool {
        let line = self.first_line.recv_timeout(PATIENCE).expect("it says so, or ends");
        !line.is_empty()
    }

    /// At once, as a crash.
    pub fn kill(mut self) {
        self.kill_now();
    }

    pub fn kill_now(&mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    /// Waits until it reads its log, or is ready already.
    pub fn wait_for_recovery(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.has_a_segment_open() && !self.ready_within(Duration::from_micros(200)) {
            assert!(self.is_running() && Instant::now() < deadline, "it reads no log: {:?}", self.ended());
        }
    }

    fn has_a_segment_open(&self) -> bool {
        // The child may be on its way out.
        let Ok(files) = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())) else { return false };
        let is_segment = |path: PathBuf| path.extension().is_some_and(|end| end == "seg");
        files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(is_segment))
    }

    /// As a crash; whether it was not ready yet.
    pub fn kill_unready(mut self) -> bool {
        self.kill_now();
        // What it had written before it died is still read; a line taken before has set the addresses.
        let line = self.first_line.recv().unwrap_or_default();
        self.clicks.port() == 0 && line.is_empty()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32).expect("a process id")
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("our child");
    }

    /// The id of its thread of that name.
    pub fn thread(&self, name: &str) -> i32 {
        self.find_thread(name).unwrap_or_else(|| panic!("no thread {name}"))
    }

    pub fn find_thread(&self, name: &str) -> Option<i32> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let named =
            |path: &Path| std::fs::read_to_string(path.join("comm")).is_ok_and(|found| found.trim_end() == name);
        let found = threads.flatten().map(|thread| thread.path()).find(|path| named(path));
        found.as_ref().and_then(|path| path.file_name()?.to_str()?.parse().ok())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Stops it as a service manager does; it must end well.
    pub fn stop(self) {
        self.signal(Signal::TERM);
        let ended = self.ended_within(PATIENCE);
        assert_eq!(ended.code, Some(0), "{}", ended.errors);
    }

    pub fn ended_within(mut self, patience: Duration) -> Ended {
        let deadline = Instant::now() + patience;
        while self.is_running() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        assert!(!self.is_running(), "it did not end within {patience:?}");
        self.ended()
    }

    fn ended(&mut self) -> Ended {
        let code = self.child.try_wait().expect("our child").and_then(|status| status.code());
        Ended { code, errors: std::fs::read_to_string(&self.errors).unwrap_or_default() }
    }

    /// The count of one ad, or of all, all classes.
    pub fn gross(&self, ad: Option<&str>) -> u64 {
        let path = ad.map_or("/v1/totals".to_owned(), |ad| format!("/v1/ads/{ad}/aggregated_count"));
        let now_s = now_ms() / 1000;
        let body = get(self.query, &format!("{path}?from={}&to={}", now_s - 3_000, now_s + 600));
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("JSON: {body}"));
        answer["gross"].as_u64().unwrap_or_else(|| panic!("a count: {body}"))
    }

    /// Waits until the exporter has counted this many, and no more.
    pub fn wait_for_gross(&self, expected: u64) {
        let deadline = Instant::now() + PATIENCE;
        let mut found = self.gross(None);
        while found < expected && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(20));
            found = self.gross(None);
        }
        assert_eq!(found, expected, "counted in all");
    }

    pub fn scrape(&self) -> Metrics {
        scrape(self.admin)
    }

    /// CPU time of its threads, to the nanosecond; what ended ones used is not in it.
    pub fn cpu_time(&self) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let of_thread = |path: PathBuf| {
            let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(threads.flatten().filter_map(|thread| of_thread(thread.path())).sum())
    }

    /// The most memory that it ever had in RAM.
    pub fn peak_memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells");
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    }
}

/// Reads /metrics; the ledger must balance.
pub fn scrape(admin: SocketAddr) -> Metrics {
    let metrics = Metrics(get(admin, "/metrics"));
    let sum = |name: &str| metrics.sum(&format!("tollgate_clicks_{name}"));
    let ends = sum("accepted_total") + sum("duplicate_total") + sum("rejected_total") + sum("shed_total");
    assert_eq!(sum("received_total"), ends + sum("in_flight"), "the ledger:\n{}", metrics.0);
    metrics
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?}", self.ended());
        }
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Metrics(String);

impl Metrics {
    /// Name, without its labels, and value of each sample.
    pub fn samples(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (sample, value) = line.rsplit_once(' ').expect("a name and a value");
            (sample.split('{').next().expect("a name"), value.parse().expect("a number"))
        })
    }

    /// The sum over a family's samples.
    pub fn sum(&self, name: &str) -> u64 {
        let sample = |line: &str| {
            let rest = line.strip_prefix(name)?;
            (rest.starts_with(' ') || rest.starts_with('{')).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        };
        let found: Vec<f64> = self.0.lines().filter_map(sample).collect();
        assert!(!found.is_empty(), "{name} is not shown");
        found.iter().sum::<f64>() as u64
    }
}

pub fn now_ms() -> i64 {
    std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as i64
}

pub fn get(address: SocketAddr, path: &str) -> String {
    let (head, body) = answer(address, path);
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    body
}

/// Head and body of whatever is answered.
pub fn answer(address: SocketAddr, path: &str) -> (String, String) {
    answer_with(address, path, "")
}

/// With more fields, each ended by CRLF.
pub fn answer_with(address: SocketAddr, path: &str, fields: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(!head.to_ascii_lowercase().contains("chunked"), "a length is sent");
    (head.to_owned(), body.to_owned())
}

/// Runs `tollgate` with these arguments on a directory.
pub fn tollgate(data_dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.env_clear().args(arguments).arg("--data-dir").arg(data_dir);
    text_of(&command.output().expect("the binary starts"))
}

/// What `tollgate status` says of the edge with this admin port, and how it ends.
pub fn status(admin: SocketAddr, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.env_clear().args(["status", "--admin", &admin.to_string()]).args(arguments);
    text_of(&command.output().expect("the binary starts"))
}

/// The same, for a program.
pub fn status_json(admin: SocketAddr) -> (Option<i32>, serde_json::Value) {
    let (code, text) = status(admin, &["--json"]);
    (code, serde_json::from_str(&text).unwrap_or_else(|_| panic!("JSON: {text}")))
}

/// Runs a command as it was printed, from a shell that finds the binary.
pub fn shell(command: &str) -> (Option<i32>, String) {
    let folder = Path::new(binary()).parent().expect("a folder").display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh").args(["-c", command]).env("PATH", path).output();
    text_of(&output.expect("a shell"))
}

fn text_of(output: &Output) -> (Option<i32>, String) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

/// The log is sound, and the store counts what it holds.
#[track_caller]
pub fn audited(data_dir: &Path) {
    for arguments in [&["wal", "verify"][..], &["audit"]] {
        let (code, text) = tollgate(data_dir, arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
    }
}

/// A data directory as a snapshot or a careless hand copies it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry")) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target);
        } else {
            std::fs::copy(&source, &target).expect("copied");
        }
    }
}

/// A directory with the clicks of these numbers exported, stopped.
pub fn stopped(data_dir: &Path, from: u64, to: u64) {
    let server = Server::start(data_dir, &EXPORTS);
    send_one_by_one(server.clicks, from, to);
    server.stop();
}

/// A directory with so many clicks acknowledged and none exported, killed.
pub fn killed(data_dir: &Path, clicks: u64) {
    let server = Server::start(data_dir, &["--export-interval", "1m"]);
    send_one_by_one(server.clicks, 0, clicks);
    server.kill();
}

/// It does not start, or not go on, and says so; returns what it said.
#[track_caller]
pub fn halts(data_dir: &Path, code: i32, names: &[&str]) -> String {
    let errors = data_dir.with_extension("stderr");
    // What earlier ones said is not asked for; a new directory has none.
    let _ = std::fs::remove_file(errors);
    let ended = Server::spawn(data_dir, &EXPORTS).ended_within(PATIENCE);
    assert_eq!(ended.code, Some(code), "{}", ended.errors);
    assert!(names.iter().all(|name| ended.errors.contains(name)), "{names:?} not all in: {}", ended.errors);
    ended.errors
}
