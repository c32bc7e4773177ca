//! The servers under comparison as child processes: started, asked for their addresses, killed when dropped.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub struct Server {
    pub name: String,
    pub clicks: SocketAddr,
    pub admin: Option<SocketAddr>,
    child: Child,
    data: Option<PathBuf>,
}

impl Server {
    /// One of this program's servers, on this CPU.
    pub fn own(name: &str, cpu: usize, more: &[String]) -> io::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([name, "--listen", "127.0.0.1:0", "--cpu", &cpu.to_string()]).args(more);
        Server::start(name, command, None)
    }

    /// A tollgate binary with a core on each of these CPUs, and a fresh data directory that goes when it goes.
    pub fn tollgate(binary: &Path, cpus: &[usize], data: PathBuf, more: &[String]) -> io::Result<Server> {
        std::fs::create_dir_all(&data)?;
        let mut command = Command::new(binary);
        let cpus = cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        command.arg("serve").arg("--data-dir").arg(&data).args(["--cpus", &cpus]);
        for port in ["--listen", "--query-listen", "--admin-listen"] {
            command.args([port, "127.0.0.1:0"]);
        }
        Server::start("tollgate", command.args(more), Some(data))
    }

    fn start(
        name: &str,
        mut command: impl std::borrow::BorrowMut<Command>,
        data: Option<PathBuf>,
    ) -> io::Result<Server> {
        let mut child = command.borrow_mut().stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("standard output was asked to be piped");
        let read = BufReader::new(stdout).read_line(&mut ready);
        let address = |key: &str| -> Option<SocketAddr> {
            let words = ready.strip_prefix("ready ")?.split_ascii_whitespace();
            words.filter_map(|word| word.split_once('=')).find(|(name, _)| *name == key)?.1.parse().ok()
        };
        let addresses = (address("listen"), address("admin"));
        let mut server = Server {
            name: name.to_owned(),
            clicks: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: addresses.1,
            child,
            data,
        };
        server.clicks = read.ok().and(addresses.0).ok_or_else(|| {
            io::Error::other(format!("{name} did not get ready; its first line of output was {ready:?}"))
        })?;
        Ok(server)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The reply to one click, its date blanked: servers under comparison must send the same bytes.
    pub fn reply_to_a_click(&self, request: &[u8]) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.clicks)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(request)?;
        let mut reply = Vec::new();
        let mut buffer = [0; 1024];
        while !reply.ends_with(b"}") {
            match stream.read(&mut buffer)? {
                0 => break,
                received => reply.extend_from_slice(&buffer[..received]),
            }
        }
        let text = String::from_utf8_lossy(&reply);
        let dated = |line: &str| line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case("date:"));
        Ok(text.split_inclusive("\r\n").map(|line| if dated(line) { "Date: *\r\n" } else { line }).collect())
    }

    /// The value of a metric on the admin port.
    pub fn metric(&self, name: &str) -> io::Result<f64> {
        self.shown(metric_in(&self.metrics()?, name), name)
    }

    /// The buckets of a histogram on the admin port: upper bound, and how many were at most that.
    pub fn histogram(&self, name: &str) -> io::Result<Vec<(f64, f64)>> {
        let buckets = histogram_in(&self.metrics()?, name);
        self.shown((!buckets.is_empty()).then_some(buckets), name)
    }

    fn shown<T>(&self, found: Option<T>, name: &str) -> io::Result<T> {
        found.ok_or_else(|| io::Error::other(format!("{} shows no metric {name}", self.name)))
    }

    fn metrics(&self) -> io::Result<String> {
        let address = self.admin.ok_or_else(|| io::Error::other(format!("{} has no admin port", self.name)))?;
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

fn histogram_in(text: &str, name: &str) -> Vec<(f64, f64)> {
    let bucket = |line: &str| {
        let (bound, count) = line.strip_prefix(name)?.strip_prefix("_bucket{le=\"")?.split_once("\"} ")?;
        Some((bound.replace("+Inf", "inf").parse().ok()?, count.trim().parse().ok()?))
    };
    text.lines().filter_map(bucket).collect()
}

fn metric_in(text: &str, name: &str) -> Option<f64> {
    let mut samples = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    samples.next()?.trim().parse().ok()
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(data) = &self.data {
            let _ = std::fs::remove_dir_all(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = "# HELP load x\nload_other 3\nload{core=\"0\"} 4\nload 0.5\r\n";
        assert_eq!(metric_in(text, "load"), Some(0.5));
        assert_eq!(metric_in(text, "loa"), None);
    }

    #[test]
    fn the_buckets_of_a_histogram_are_its_own() {
        let text = "# TYPE t histogram\nt_bucket{le=\"0.5\"} 3\r\nt_bucket{le=\"+Inf\"} 4\nt_sum 9\nother_bucket{le=\"1\"} 7\n";
        assert_eq!(histogram_in(text, "t"), [(0.5, 3.0), (f64::INFINITY, 4.0)]);
        assert_eq!(histogram_in(text, "u"), []);
    }
}
