//! A real Kafka broker, or three of one cluster: KRaft, loopback only. Each listener is its own way in, and clients stay on it:
//!
//!     DIRECT     clients that faults must not touch: the reader, topics
//!     PROXIEDn   advertised as the address of the n-th proxy, so that who comes through it stays in it
//!     SECURED    SASL_SSL with SCRAM-SHA-512, where asked for
//!
//! Its controller is a process of its own, which is never killed, as in a cluster: a node that is both takes itself for the leader
//! of everything when it is started again, drops the markers of transactions that it was committing ("couldn't find leader
//! endpoint"), and what was acknowledged as committed stays undecided. Seen with Kafka 4.3.1.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::proxy::Proxy;
use crate::secured::Secured;
use crate::wait::{PATIENCE, wait_until, within};
use crate::{java, ports};

/// The end of a cluster's id, which is any 16 bytes in Kafka's base64; the port of its first broker is before it.
const CLUSTER_ID_END: &str = "dGUtdGVzdC0wMQ";

const CONTROLLER_ID: u32 = 100;

const SETTINGS_FILE: &str = "server.properties";
const CONTROLLER_LOG: &str = "controller.log";

/// Little memory, and soon up: tests write megabytes, not gigabytes.
const JVM: [&str; 3] = ["-Xss512k", "-XX:TieredStopAtLevel=1", "-Dlog.level=info"];
const HEAP: &str = "-Xmx384m";
/// Of each.
const HEAP_OF_THREE: &str = "-Xmx256m";

/// What does not differ from broker to broker.
const SETTINGS: &str = "\
controller.listener.names=CONTROLLER
inter.broker.listener.name=DIRECT
auto.create.topics.enable=false
num.network.threads=1
num.io.threads=2
background.threads=2
log.cleaner.dedupe.buffer.size=4194304
log.retention.ms=-1
log.segment.delete.delay.ms=1000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=3
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:edge
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=1500
";

/// Where there are three, behind the others and so in their place: one may be away.
const OF_THREE: &str = "\
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
";

/// What a broker is to have besides its direct listener.
#[derive(Default)]
pub struct Setup {
    pub proxies: usize,
    pub secured: bool,
}

/// A running broker; dropped, it is killed. Its data stay in its directory.
pub struct Broker {
    pub id: u32,
    dir: PathBuf,
    cluster: Cluster,
    child: Option<Child>,
    /// The controller, from the first start to the last breath: the first broker's.
    controller: Option<Child>,
    starts: u32,
    direct: SocketAddr,
    proxies: Vec<Proxy>,
    secured: Option<Secured>,
}

/// What its brokers have in common.
#[derive(Clone)]
struct Cluster {
    id: String,
    settings: String,
    heap: &'static str,
    voter: SocketAddr,
    controller_log: PathBuf,
}

struct Listener {
    name: String,
    protocol: &'static str,
    /// Where the broker listens.
    bound: SocketAddr,
    /// Where clients are told to go.
    shown: SocketAddr,
}

impl Broker {
    /// Starts one in an empty directory of its own, and waits until it answers. When this process ends without having dropped
    /// it, the broker removes the directory.
    pub fn start(dir: &Path, setup: &Setup) -> Broker {
        Broker::first(dir, setup, SETTINGS.to_owned(), HEAP)
    }

    /// Three, in directories of their own below this one. A topic has a replica on each, and takes what two of them have.
    pub fn start_three(dir: &Path) -> [Broker; 3] {
        let dirs = ["1", "2", "3"].map(|name| dir.join(name));
        dirs.iter().for_each(|dir| std::fs::create_dir(dir).expect("the directory of the brokers can be written"));
        let first = Broker::first(&dirs[0], &Setup::default(), format!("{SETTINGS}{OF_THREE}"), HEAP_OF_THREE);
        let (second, third) = (first.another(2, &dirs[1]), first.another(3, &dirs[2]));
        [first, second, third]
    }

    fn first(dir: &Path, setup: &Setup, settings: String, heap: &'static str) -> Broker {
        let direct = ports::free();
        let cluster = Cluster {
            id: format!("{:08}{CLUSTER_ID_END}", direct.port()),
            settings,
            heap,
            voter: ports::free(),
            controller_log: dir.join(CONTROLLER_LOG),
        };
        let mut broker = Broker::new(1, dir, direct, cluster);
        broker.proxies = (0..setup.proxies).map(|_| Proxy::start(ports::free())).collect();
        broker.secured = setup.secured.then(|| Secured::create(dir, ports::free()));
        let controller = broker.written("controller.properties", broker.controller_settings());
        broker.controller = Some(broker.spawn(&controller, CONTROLLER_LOG, true));
        broker.begin();
        broker
    }

    /// Of the same cluster.
    fn another(&self, id: u32, dir: &Path) -> Broker {
        let mut broker = Broker::new(id, dir, ports::free(), self.cluster.clone());
        broker.begin();
        broker
    }

    fn new(id: u32, dir: &Path, direct: SocketAddr, cluster: Cluster) -> Broker {
        let (dir, proxies) = (dir.to_owned(), Vec::new());
        Broker { id, dir, cluster, child: None, controller: None, starts: 0, direct, proxies, secured: None }
    }

    fn begin(&mut self) {
        self.written(SETTINGS_FILE, self.settings());
        self.restart();
    }

    fn written(&self, name: &str, settings: String) -> PathBuf {
        let path = self.dir.join(name);
        std::fs::write(&path, settings).expect("the directory of the broker can be written");
        path
    }

    /// Its data, to be kept or put back while it does not run.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// As bootstrap servers are written.
    pub fn direct(&self) -> String {
        self.direct.to_string()
    }

    pub fn proxy(&self, at: usize) -> &Proxy {
        &self.proxies[at]
    }

    pub fn secured(&self) -> &Secured {
        self.secured.as_ref().expect("Setup::secured was asked for")
    }

    /// As a crash.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    /// In order, as a service manager does.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("it runs");
        let ended = within(PATIENCE, || child.try_wait().expect("our child").is_some());
        if !ended {
            // Ours to end, whatever holds it.
            child.kill().expect("our child");
            child.wait().expect("our child");
        }
        assert!(ended, "the broker did not stop within {PATIENCE:?}: {}", self.said());
    }

    /// After [`Broker::kill`] or [`Broker::stop`]: on the same ports and data.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs");
        // Its last life is over when the controller says so: one that is back before takes itself for the leader that it was.
        wait_until("the controller fences the broker that is gone", || self.starts == 0 || self.fenced());
        self.starts += 1;
        let log = format!("broker-{}.log", self.starts);
        self.child = Some(self.spawn(&self.dir.join(SETTINGS_FILE), &log, self.starts == 1));
        let ready = within(PATIENCE, || self.answers() || self.has_ended());
        assert!(ready && !self.has_ended(), "the broker does not answer: {}", self.said());
    }

    fn spawn(&self, settings: &Path, log: &str, format: bool) -> Child {
        let log = File::create(self.dir.join(log)).expect("the directory of the broker can be written");
        let mut command = java::reader(&[&[self.cluster.heap], &JVM[..]].concat());
        command.arg("broker").arg("--properties").arg(settings).arg("--remove").arg(&self.dir);
        if format {
            command.args(["--format", &self.cluster.id]);
            if let Some(secured) = &self.secured {
                command.args(["--scram", &secured.scram()]);
            }
        }
        let also = log.try_clone().expect("a descriptor");
        // It ends when its standard input does, so it cannot outlive this process, however that ends. In a process group of
        // its own: the kernel continues a stopped one when this process is gone.
        command.stdin(Stdio::piped()).stdout(also).stderr(log).process_group(0);
        command.spawn().expect("java starts: install a JDK 17 or later")
    }

    /// Whether the controller has put it out, and not taken it in since: a slow one may be put out within a life, too.
    fn fenced(&self) -> bool {
        let said = std::fs::read_to_string(&self.cluster.controller_log).unwrap_or_default();
        let of = format!("brokerId={},", self.id);
        let tells = |line: &&str| {
            line.contains("Replayed BrokerRegistrationChangeRecord")
                && line.contains(&of)
                && !line.contains("fenced=0,")
        };
        said.lines().rfind(tells).is_some_and(|line| line.contains("fenced=1,"))
    }

    /// Stops its process where it stands; it answers nobody, and its connections stay open.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// As if this process were gone; waits for its end.
    pub fn orphan(&mut self) {
        let mut child = self.child.take().expect("it runs");
        drop(child.stdin.take());
        let ended = within(PATIENCE, || child.try_wait().expect("our child").is_some());
        self.child = Some(child);
        assert!(ended, "the broker lives on without who started it");
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = Pid::from_raw(child.id() as i32).expect("a process id");
        kill_process(pid, signal).expect("our child");
    }

    fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().expect("our child").is_some())
    }

    /// It says that it has started, and answers a request.
    fn answers(&self) -> bool {
        self.said().contains("Kafka Server started") && knows_versions(self.direct).is_some()
    }

    /// What it logged since it was started last.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join(format!("broker-{}.log", self.starts))
    }

    fn controller_settings(&self) -> String {
        let mut text = self.cluster.settings.replace("inter.broker.listener.name=DIRECT\n", "");
        let (data, voter) = (self.dir.join("metadata"), self.cluster.voter);
        let lines = [
            ("process.roles", "controller".to_owned()),
            ("node.id", CONTROLLER_ID.to_string()),
            ("log.dirs", data.display().to_string()),
            ("controller.quorum.voters", format!("{CONTROLLER_ID}@{voter}")),
            ("listeners", format!("CONTROLLER://{voter}")),
        ];
        for (name, value) in lines {
            writeln!(text, "{name}={value}").expect("a String takes it");
        }
        text
    }

    fn settings(&self) -> String {
        let mut listeners =
            vec![Listener { name: "DIRECT".to_owned(), protocol: "PLAINTEXT", bound: self.direct, shown: self.direct }];
        for (at, proxy) in self.proxies.iter().enumerate() {
            let name = format!("PROXIED{at}");
            listeners.push(Listener { name, protocol: "PLAINTEXT", bound: proxy.upstream(), shown: proxy.address() });
        }
        if let Some(secured) = &self.secured {
            let address = secured.address();
            listeners.push(Listener {
                name: "SECURED".to_owned(),
                protocol: "SASL_SSL",
                bound: address,
                shown: address,
            });
        }
        let listed = |line: fn(&Listener) -> String| listeners.iter().map(line).collect::<Vec<_>>().join(",");
        let mut text = self.cluster.settings.clone();
        let protocols = listed(|it| format!("{}:{}", it.name, it.protocol));
        let lines = [
            ("process.roles", "broker".to_owned()),
            ("node.id", self.id.to_string()),
            ("log.dirs", self.data().display().to_string()),
            ("controller.quorum.voters", format!("{CONTROLLER_ID}@{}", self.cluster.voter)),
            ("listeners", listed(|it| format!("{}://{}", it.name, it.bound))),
            ("advertised.listeners", listed(|it| format!("{}://{}", it.name, it.shown))),
            ("listener.security.protocol.map", format!("CONTROLLER:PLAINTEXT,{protocols}")),
        ];
        for (name, value) in lines {
            writeln!(text, "{name}={value}").expect("a String takes it");
        }
        if let Some(secured) = &self.secured {
            text += &secured.settings();
        }
        text
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.said();
            let from = said.char_indices().rev().nth(2000).map_or(0, |(at, _)| at);
            eprintln!("the broker's last words:\n{}", &said[from..]);
        }
        for mut child in [self.child.take(), self.controller.take()].into_iter().flatten() {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Asks for the versions that it speaks: the one request that every broker answers.
fn knows_versions(address: SocketAddr) -> Option<()> {
    const PATIENCE: Duration = Duration::from_secs(2);
    // Length 10: ApiVersions (18) version 0, correlation id 7, no client id.
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(&REQUEST).ok()?;
    // Length, correlation id, error code.
    let mut head = [0; 10];
    stream.read_exact(&mut head).ok()?;
    (head[4..] == [0, 0, 0, 7, 0, 0]).then_some(())
}
