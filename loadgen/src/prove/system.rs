//! What a proof is about: an edge that is started for it, or hosts that are there already.

use super::process::Process;
use crate::client::Client;
use crate::token::{Token, VARIABLE};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

/// Where the parts of the system are.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub clicks: Vec<SocketAddr>,
    /// Query APIs: what they count is added.
    pub queries: Vec<String>,
    /// What the query APIs want, if they do.
    pub token: Option<Token>,
    /// Admin ports, for metrics; there may be none.
    pub admins: Vec<String>,
}

/// The edge that a proof starts.
#[derive(Clone, Debug)]
pub struct EdgeSettings {
    pub tollgate: PathBuf,
    /// Where its data directory is made.
    pub scratch: PathBuf,
    pub cpus: Vec<usize>,
    /// More flags for `tollgate serve`.
    pub flags: Vec<String>,
    /// Leave the data directory where it is.
    pub keep: bool,
}

pub struct Edge {
    settings: EdgeSettings,
    pub dir: PathBuf,
    process: Process,
    addresses: [SocketAddr; 3],
}

const PORTS: [&str; 3] = ["listen", "query", "admin"];

impl Edge {
    /// Starts an edge on a fresh data directory, at ports that are free.
    pub fn start(settings: &EdgeSettings) -> io::Result<Edge> {
        let dir = settings.scratch.join(format!("prove-{}", std::process::id()));
        std::fs::create_dir_all(&dir)
            .map_err(|error| io::Error::new(error.kind(), format!("making {}: {error}", dir.display())))?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let started = Process::start(command(settings, &dir, [any; 3]), &dir.join("tollgate.log"))
            .and_then(|process| Ok((address_each(&process)?, process)));
        match started {
            Ok((addresses, process)) => Ok(Edge { settings: settings.clone(), dir, process, addresses }),
            Err(error) => {
                // Nothing of worth is in it: it never got ready.
                let _ = std::fs::remove_dir_all(&dir);
                Err(error)
            }
        }
    }

    /// Kills the process and starts it again on the same directory and ports. Returns when it is ready.
    pub fn kill_and_restart(&mut self) -> io::Result<()> {
        self.process.kill()?;
        let command = command(&self.settings, &self.dir, self.addresses);
        self.process = Process::start(command, &self.dir.join("tollgate.log"))?;
        Ok(())
    }

    pub fn addresses(&self) -> Addresses {
        let [clicks, query, admin] = self.addresses;
        Addresses {
            clicks: vec![clicks],
            queries: vec![format!("http://{query}")],
            // On a fresh directory there are none.
            token: None,
            admins: vec![format!("http://{admin}")],
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How it ended by itself, if it did.
    pub fn ended(&mut self) -> io::Result<Option<String>> {
        self.process.ended()
    }

    /// From now on the data directory stays when the edge goes.
    pub fn keep(&mut self) {
        self.settings.keep = true;
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // Fails only for a process that is gone already.
        let _ = self.process.kill();
        if !self.settings.keep {
            // What is left is named after this process and may be deleted by hand.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn address_each(process: &Process) -> io::Result<[SocketAddr; 3]> {
    let [clicks, query, admin] = PORTS;
    Ok([process.address(clicks)?, process.address(query)?, process.address(admin)?])
}

fn command(settings: &EdgeSettings, dir: &std::path::Path, addresses: [SocketAddr; 3]) -> Command {
    let mut command = Command::new(&settings.tollgate);
    // Nothing that is started here asks for it.
    command.env_remove(VARIABLE).arg("serve").arg("--data-dir").arg(dir.join("data"));
    if !settings.cpus.is_empty() {
        let cpus: Vec<String> = settings.cpus.iter().map(usize::to_string).collect();
        command.args(["--cpus", &cpus.join(",")]);
    }
    for (port, address) in PORTS.iter().zip(addresses) {
        let flag = if *port == "listen" { "--listen".to_owned() } else { format!("--{port}-listen") };
        command.args([flag, address.to_string()]);
    }
    command.args(&settings.flags);
    command
}

/// The values of a metric on each admin port that can be asked now.
pub fn metric(admins: &mut [Client], name: &str) -> Vec<f64> {
    admins
        .iter_mut()
        .filter_map(|admin| metric_in(&String::from_utf8_lossy(&admin.get("/metrics").ok()?), name))
        .collect()
}

fn metric_in(text: &str, name: &str) -> Option<f64> {
    let mut samples = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    samples.next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The token is for the query port of hosts that are there; a process that is started here has no business with it.
    #[test]
    fn an_edge_that_is_started_is_not_given_the_token() {
        let settings = EdgeSettings {
            tollgate: "tollgate".into(),
            scratch: "scratch".into(),
            cpus: Vec::new(),
            flags: Vec::new(),
            keep: false,
        };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let command = command(&settings, std::path::Path::new("dir"), [any; 3]);
        let changed: Vec<_> = command.get_envs().collect();
        assert_eq!(changed, [(std::ffi::OsStr::new(VARIABLE), None)], "taken away, and nothing else changed");
    }

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = "# HELP load x\nload_other 3\nload{core=\"0\"} 4\nload 0.5\r\n";
        assert_eq!(metric_in(text, "load"), Some(0.5));
        assert_eq!(metric_in(text, "loa"), None);
    }
}
