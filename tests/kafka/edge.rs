//! An edge that exports to Kafka: its flags, and whether what stands on its topics is what its clients know.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::client::{Client, PerAd};
use crate::reader::{Sum, Topics};
use crate::sending::send;
use crate::server::Server;
use crate::wait::wait_until;

/// One edge with topics and a data directory of its own.
pub struct Edge {
    pub id: String,
    pub data_dir: PathBuf,
    pub topics: Topics,
    /// Where it finds Kafka.
    pub brokers: String,
    /// Beside those that every start has, or instead of them.
    pub flags: Vec<String>,
    /// From the next start on; else the default, which is one where there are two CPUs.
    pub two_cores: bool,
    folder: tempfile::TempDir,
}

/// Clicks on the topics that are too few or too many, ad by ad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Off {
    pub lost: u64,
    pub doubled: u64,
}

impl Edge {
    /// Topics are made at `direct`; the edge is told of `brokers`.
    pub fn new(id: &str, direct: &str, brokers: &str) -> Edge {
        let folder = crate::shared::folder();
        let topics = Topics::create(direct, id);
        let data_dir = folder.path().join("data");
        Edge {
            id: id.to_owned(),
            data_dir,
            topics,
            brokers: brokers.to_owned(),
            flags: Vec::new(),
            two_cores: false,
            folder,
        }
    }

    pub fn words(&self) -> Vec<String> {
        let fixed = [
            ("--sink", "kafka"),
            ("--kafka-brokers", &self.brokers),
            ("--edge-id", &self.id),
            ("--kafka-topic-partials", &self.topics.partials),
            ("--kafka-topic-checkpoints", &self.topics.checkpoints),
            ("--export-interval", "100ms"),
        ];
        let cores = self.two_cores.then_some(("--cores", "2"));
        let fixed = fixed.into_iter().chain(cores).filter(|(flag, _)| self.flags.iter().all(|given| given != flag));
        let fixed = fixed.flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]);
        fixed.chain(self.flags.iter().cloned()).collect()
    }

    pub fn spawn(&self) -> Server {
        let words = self.words();
        Server::spawn(&self.data_dir, &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub fn start(&self) -> Server {
        let words = self.words();
        Server::start(&self.data_dir, &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A start that takes so many requests of the client, exports them and stops.
    pub fn exports(&self, client: &mut Client, requests: usize) {
        let server = self.start();
        send(&server, client, requests);
        wait_for_export(&server);
        server.stop();
    }

    /// It ends with this code, and says this.
    #[track_caller]
    pub fn halts(&self, code: i32, names: &[&str]) -> String {
        // What earlier ones said is not asked for; a new directory has none.
        let _ = std::fs::remove_file(self.data_dir.with_extension("stderr"));
        let ended = self.spawn().ended_within(crate::wait::PATIENCE);
        assert_eq!(ended.code, Some(code), "{}", ended.errors);
        assert!(names.iter().all(|name| ended.errors.contains(name)), "{names:?} not all in: {}", ended.errors);
        ended.errors
    }

    /// What is committed, by ad; nothing breaks the contract.
    #[track_caller]
    pub fn counts(&self) -> (Sum, BTreeMap<String, u64>) {
        let file = self.folder.path().join("counts.tsv");
        let mut sum = self.topics.counted(&file);
        // Its writer is told that a transaction is committed before the partitions are.
        wait_until("every transaction is decided", || {
            sum = self.topics.counted(&file);
            sum.undecided() == 0
        });
        let sum = sum.sound();
        let mut counts = BTreeMap::new();
        for line in std::fs::read_to_string(&file).expect("the reader wrote it").lines() {
            let columns: Vec<&str> = line.split('\t').collect();
            let clicks: u64 = columns[columns.len() - 1].parse().unwrap_or_else(|_| panic!("a count: {line}"));
            *counts.entry(columns[1].to_owned()).or_default() += clicks;
        }
        (sum, counts)
    }

    /// What was acknowledged stands on the topics once; what never was, at most once.
    #[track_caller]
    pub fn check(&self, ads: &BTreeMap<String, PerAd>) -> Sum {
        let (sum, off) = self.compared(ads);
        assert_eq!(off, Off::default(), "what was sent and counted of each ad that is off stands above");
        sum
    }

    /// How far what stands on the topics is off what clients know.
    #[track_caller]
    pub fn compared(&self, ads: &BTreeMap<String, PerAd>) -> (Sum, Off) {
        let ((sum, counts), mut off) = (self.counts(), Off::default());
        for (ad, PerAd { acknowledged, unknown }) in ads {
            let counted = counts.get(ad).copied().unwrap_or(0);
            if !(*acknowledged..=acknowledged + unknown).contains(&counted) {
                eprintln!("{ad}: {counted} counted, {acknowledged} + {unknown} sent");
            }
            off.lost += acknowledged.saturating_sub(counted);
            off.doubled += counted.saturating_sub(acknowledged + unknown);
        }
        let foreign: Vec<_> = counts.keys().filter(|ad| !ads.contains_key(*ad)).collect();
        assert!(foreign.is_empty(), "nobody sent clicks of {foreign:?}");
        (sum, off)
    }
}

/// Waits until everything durable is exported.
pub fn wait_for_export(server: &Server) {
    wait_until("everything durable is exported", || {
        let metrics = server.scrape();
        metrics.sum("tollgate_log_end_lsn") == metrics.sum("tollgate_export_lsn")
    });
}
