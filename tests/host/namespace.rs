//! A network namespace with one end of a veth pair, the other end on this side.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

static MADE: AtomicU32 = AtomicU32::new(0);

/// Removed when it is dropped.
pub struct Namespace {
    name: String,
    ip: PathBuf,
    outside: String,
    /// The interface within.
    pub nic: String,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Namespace {
    /// `None` where it cannot be: not root, or no iproute2. In CI that fails the test.
    pub fn new() -> Option<Namespace> {
        let root = rustix::process::geteuid().is_root();
        let path = std::env::var("PATH").unwrap_or_default();
        let ip = path.split(':').chain(["/usr/sbin", "/sbin"]).map(|folder| Path::new(folder).join("ip"));
        let ip = ip.into_iter().find(|path| path.is_file());
        let (true, Some(ip)) = (root, ip) else {
            let text = "needs root and iproute2 (Debian and Ubuntu: apt-get install iproute2): nothing was tested";
            assert!(std::env::var_os("CI").is_none(), "{text}");
            eprintln!("{text}");
            return None;
        };
        let (pid, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let name = format!("tollgate-{pid}-{number}");
        let [outside, nic] = ["a", "b"].map(|end| format!("tg{}{end}{number}", pid % 1_000_000));
        let subnet = [10, 200 + (pid >> 8) as u8 % 50, pid as u8];
        let host = |last: u32| Ipv4Addr::new(subnet[0], subnet[1], subnet[2], (4 * number + last) as u8);
        let this = Namespace { name, ip, outside, nic, address: host(1) };
        this.ip(&["netns", "add", &this.name]);
        this.ip(&["link", "add", &this.outside, "type", "veth", "peer", "name", &this.nic, "netns", &this.name]);
        this.ip(&["address", "add", &format!("{}/30", host(2)), "dev", &this.outside]);
        this.ip(&["link", "set", &this.outside, "up"]);
        let within = format!("{}/30", this.address);
        this.ip(&["-n", &this.name, "address", "add", &within, "dev", &this.nic]);
        this.ip(&["-n", &this.name, "link", "set", &this.nic, "up"]);
        Some(this)
    }

    /// Without it nothing within reaches itself.
    pub fn loopback_up(&self) {
        self.ip(&["-n", &self.name, "link", "set", "lo", "up"]);
    }

    /// Packets come by a NAPI queue: a veth has one with GRO on, and uses it where the sender leaves segments as they are.
    pub fn with_napi(&self) {
        const GRO: u32 = 0x2c;
        const TSO: u32 = 0x1f;
        set_feature(self.command("python3"), &self.nic, GRO, 1);
        set_feature(Command::new("python3"), &self.outside, TSO, 0);
    }

    /// A command that runs within: `/sys` shows the namespace's devices there.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(&self.ip);
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// What a shell within prints.
    #[track_caller]
    pub fn shell(&self, text: &str) -> String {
        let output = self.command("/bin/sh").args(["-c", text]).output().unwrap();
        assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[track_caller]
    fn ip(&self, arguments: &[&str]) {
        let output = self.run_ip(arguments);
        assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn run_ip(&self, arguments: &[&str]) -> Output {
        Command::new(&self.ip).args(arguments).output().unwrap()
    }
}

/// As `ethtool -K` does, by a command of linux/ethtool.h.
#[track_caller]
fn set_feature(mut python: Command, nic: &str, command: u32, value: u32) {
    const ASK: &str = "import array, fcntl, socket, struct, sys; \
                       words = array.array('I', map(int, sys.argv[2:])); \
                       ask = struct.pack('16sP16x', sys.argv[1].encode(), words.buffer_info()[0]); \
                       fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8946, ask)";
    let output = python.args(["-c", ASK, nic]).args([command, value].map(|word| word.to_string())).output().unwrap();
    assert!(output.status.success(), "{nic}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Drop for Namespace {
    /// The other end of the pair goes with the first.
    fn drop(&mut self) {
        self.run_ip(&["link", "delete", &self.outside]);
        self.run_ip(&["netns", "delete", &self.name]);
    }
}
