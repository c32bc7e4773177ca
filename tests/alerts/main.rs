//! The alerts of `deploy/prometheus`: each fires on its series and on no others (promtool), and a real Prometheus that scrapes real
//! edges fires them. Both programs are of Debian's package `prometheus`; scripts/test says so where they are missing.

// The clients and the child process of the crash tests: this uses some of what they can.
#[allow(dead_code)]
#[path = "../crash/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "../kafka/ports.rs"]
mod ports;
#[allow(dead_code)]
#[path = "../crash/server.rs"]
mod server;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::server::{EXPORTS, PATIENCE, Server, binary, wait_until};

const INSTALL: &str = "it starts: install the package prometheus (Debian and Ubuntu: apt-get install prometheus)";

fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus")
}

#[track_caller]
fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).current_dir(rules()).output().expect(INSTALL);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {text}");
}

#[test]
fn each_alert_fires_on_its_series_and_on_no_others() {
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["test", "rules", "alerts_test.yml"]);
}

/// A Prometheus that looks each second. Dropped, it is killed.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(folder: &Path, rules: &str, job: &str, targets: &[SocketAddr]) -> Prometheus {
        let address = ports::free();
        let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
        let settings = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\n\
             scrape_configs: [{{job_name: {job}, static_configs: [{{targets: [{}]}}]}}]\n",
            targets.join(", ")
        );
        std::fs::write(folder.join("rules.yml"), rules).expect("written");
        std::fs::write(folder.join("prometheus.yml"), settings).expect("written");
        let log = std::fs::File::create(folder.join("prometheus.log")).expect("written");
        let child = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect(INSTALL);
        Prometheus { child, address }
    }

    /// An answer in JSON; none while it starts. Asked as HTTP/1.0, which has no chunks.
    fn ask(&self, path: &str) -> Option<serde_json::Value> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
    }

    /// Names of the alerts that fire for an instance.
    fn firing(&self, instance: SocketAddr) -> Vec<String> {
        let answer = self.ask("/api/v1/alerts").unwrap_or_default();
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let ours = alerts.iter().filter(|alert| {
            alert["state"] == "firing" && alert["labels"]["instance"].as_str() == Some(&instance.to_string())
        });
        let mut names: Vec<_> =
            ours.filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned())).collect();
        names.sort();
        names
    }

    /// How many targets it has scraped with success.
    fn up(&self) -> usize {
        let answer = self.ask("/api/v1/targets").unwrap_or_default();
        let targets = answer["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        targets.iter().filter(|target| target["health"] == "up").count()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rules as they ship, those that are to fire sooner: a second is long. What looks ahead needs its hours.
fn sooner(rules: &str) -> String {
    let mut text = rules.to_owned();
    for (alert, shipped, short) in [
        ("TollgateDown", "for: 2m", "for: 1s"),
        ("TollgateSinkAway", "for: 1m", "for: 1s"),
        ("TollgateSinkAway", "away_seconds > 60", "away_seconds > 1"),
        ("TollgateGlobalDown", "for: 2m", "for: 1s"),
        ("TollgateGlobalKafkaAway", "for: 3m", "for: 1s"),
        ("TollgateCatalogueBroken", "for: 1m", "for: 1s"),
    ] {
        let at = text.find(&format!("- alert: {alert}\n")).expect("it ships");
        let (before, rest) = text.split_at(at);
        let place = rest.find(shipped).unwrap_or_else(|| panic!("{alert} has no {shipped:?}: fit this to it"));
        text = format!("{before}{}{short}{}", &rest[..place], &rest[place + shipped.len()..]);
    }
    text
}

#[test]
fn a_prometheus_that_scrapes_edges_fires_for_the_one_without_kafka_and_for_one_that_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let well = Server::start(&folder.path().join("well"), &EXPORTS);
    // Nobody listens where its Kafka should be.
    let brokers = ports::free().to_string();
    let flags = ["--sink", "kafka", "--edge-id", "alone", "--kafka-brokers", &brokers];
    let alone = Server::start(&folder.path().join("alone"), &[&EXPORTS[..], &flags].concat());
    let shipped = std::fs::read_to_string(rules().join("alerts.yml")).expect("it is there");
    let prometheus = Prometheus::start(folder.path(), &sooner(&shipped), "tollgate", &[well.admin, alone.admin]);
    wait_until("both are scraped", || prometheus.up() == 2);
    wait_until("the absence of Kafka is told", || prometheus.firing(alone.admin) == ["TollgateSinkAway"]);
    assert_eq!(prometheus.firing(well.admin), [""; 0], "nothing is wrong with it");
    let gone = well.admin;
    well.kill();
    wait_until("its end is told", || prometheus.firing(gone) == ["TollgateDown"]);
}

#[test]
fn a_prometheus_that_scrapes_a_global_tier_fires_without_kafka_for_a_broken_catalogue_and_when_it_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let ads = folder.path().join("ads.csv");
    std::fs::write(&ads, "ad_id,campaign_id\nad,c\n").expect("written");
    let mut command = Command::new(binary());
    // Nobody listens where its Kafka should be.
    command.args(["global", "--kafka-brokers", &ports::free().to_string(), "--ads"]).arg(&ads);
    command.args(["--query-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let mut server = Server::spawn_command(command, &folder.path().join("global"));
    assert!(server.ready_within(PATIENCE), "no ready line");
    let shipped = std::fs::read_to_string(rules().join("alerts.yml")).expect("it is there");
    let prometheus = Prometheus::start(folder.path(), &sooner(&shipped), "tollgate-global", &[server.admin]);
    let at = server.admin;
    wait_until("the absence of Kafka is told", || prometheus.firing(at) == ["TollgateGlobalKafkaAway"]);
    std::fs::write(&ads, "ad_id,campaign_id\nad,c\nad,d\n").expect("written");
    let both = ["TollgateCatalogueBroken", "TollgateGlobalKafkaAway"];
    wait_until("the broken catalogue is told", || prometheus.firing(at) == both);
    server.kill();
    wait_until("its end is told", || prometheus.firing(at) == ["TollgateGlobalDown"]);
}
