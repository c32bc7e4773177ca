//! A server as a child process: started, asked for its addresses, killed when dropped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Bytes of a log's end that an error shows.
const TAIL_BYTES: usize = 1_000;

pub struct Process {
    child: Child,
    /// What its ready line says: `ready listen=… query=…`.
    ready: BTreeMap<String, String>,
    log: PathBuf,
}

impl Process {
    /// Starts it and waits for its ready line; what it says on standard error is appended to `log`.
    pub fn start(mut command: Command, log: &Path) -> io::Result<Process> {
        let name = command.get_program().to_string_lossy().into_owned();
        let named = |error: io::Error| io::Error::new(error.kind(), format!("starting {name}: {error}"));
        let errors = File::options().create(true).append(true).open(log).map_err(named)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().map_err(named)?;
        let stdout = child.stdout.take().expect("standard output was asked to be piped");
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let pairs = line.strip_prefix("ready ").into_iter().flat_map(str::split_ascii_whitespace);
        let ready =
            pairs.filter_map(|pair| pair.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut process = Process { child, ready: ready.collect(), log: log.to_owned() };
        read.map_err(named)?;
        if process.ready.is_empty() {
            let status = process.child.wait()?;
            return Err(io::Error::other(format!("{name} did not get ready ({status}); it said: {}", process.tail())));
        }
        Ok(process)
    }

    /// An address of the ready line.
    pub fn address<A: std::str::FromStr>(&self, key: &str) -> io::Result<A> {
        let found = self.ready.get(key).and_then(|value| value.parse().ok());
        found.ok_or_else(|| io::Error::other(format!("the ready line has no address {key}: {:?}", self.ready)))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did, with the last that it said.
    pub fn ended(&mut self) -> io::Result<Option<String>> {
        Ok(self.child.try_wait()?.map(|status| format!("{status}; it said: {}", self.tail())))
    }

    /// SIGKILL: no chance to finish anything.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL_BYTES)..]).trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only for a process that is gone already.
        let _ = self.kill();
    }
}
