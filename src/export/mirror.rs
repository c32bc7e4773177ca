//! The mirror: `exported.json` in the data directory, what this edge last exported and where to, synced after each transaction
//! and before the next begins. The checkpoint in Kafka is the truth; by the mirror a start knows a topic that was made anew or
//! rewound, another cluster, and a copy of the directory that exported meanwhile. Written by the exporter's thread and by
//! `tollgate adopt`, whoever holds the directory's lock.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tollgate_wire::{Checkpoint, FORMAT_VERSION, LogPosition};

use crate::cut::LogId;
use crate::export::ranges::Mirror;
use crate::export::{Adopted, Names};
use crate::wal::durable::write_synced;
use crate::wal::replay::hex;
use crate::wal::segments::LogError;

const MIRROR_VERSION: u32 = 1;

/// Where an edge's records go: chosen at the first contact, kept for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub cluster: String,
    pub topic_partials: String,
    pub topic_checkpoints: String,
    pub partition_partials: i32,
    pub partition_checkpoints: i32,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorFile {
    format_version: u32,
    pub place: Place,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exported: Option<ExportedText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    adopted: Option<AdoptedText>,
    /// What logs go by outside, where that is not their id; the last of a log counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    names: Vec<NameText>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameText {
    log: String,
    name: String,
}

/// A checkpoint as a person can read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportedText {
    edge_id: String,
    txn_seq: u64,
    data_dir: String,
    nonce: String,
    written_ms: i64,
    logs: Vec<PositionText>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdoptedText {
    /// The checkpoint in Kafka that the word is about; none: there is none.
    found_txn_seq: Option<u64>,
    logs: Vec<PositionText>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PositionText {
    log: String,
    lsn: u64,
    /// 16 hexadecimal digits: JSON has no 64-bit numbers.
    chain: String,
    clicks_total: u64,
}

impl MirrorFile {
    pub fn new(place: Place) -> MirrorFile {
        MirrorFile { format_version: MIRROR_VERSION, place, exported: None, adopted: None, names: Vec::new() }
    }

    /// Of the directory `dir`; none before the first contact.
    pub fn read(dir: &Path) -> Result<Option<MirrorFile>, LogError> {
        let path = path(dir);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LogError::Io { doing: "read", path, source }),
        };
        MirrorFile::parse(&text, &path).map(Some)
    }

    /// `path`: whose text it is, for errors.
    pub fn parse(text: &str, path: &Path) -> Result<MirrorFile, LogError> {
        let unreadable = |why: String| LogError::Unreadable { path: path.to_owned(), why };
        // The version first: a later one may have what this one does not know.
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
        let found = &value["format_version"];
        if *found != MIRROR_VERSION {
            return Err(unreadable(format!("format version {found}; this tollgate reads version {MIRROR_VERSION}")));
        }
        let file: MirrorFile = serde_json::from_value(value).map_err(|error| unreadable(error.to_string()))?;
        let decoded = file.exported.iter().all(|exported| exported.decode().is_some())
            && file.adopted.iter().all(|adopted| positions(&adopted.logs).is_some())
            && file.names.iter().all(|given| given.decode().is_some());
        decoded.then_some(file).ok_or_else(|| unreadable("an id is not in hexadecimal digits".to_owned()))
    }

    pub fn write(&self, dir: &Path) -> Result<(), LogError> {
        write_synced(&path(dir), self.text().as_bytes())
    }

    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and strings are JSON") + "\n"
    }

    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.exported.as_ref().map(|exported| exported.decode().expect("checked as it was read or made"))
    }

    /// A transaction to this place is remembered; after an operator's word the place may be new.
    pub fn has_exported_there(&self) -> bool {
        self.exported.is_some() && self.adopted.is_none()
    }

    pub fn adopted(&self) -> Option<Adopted> {
        let adopted = self.adopted.as_ref()?;
        let logs = positions(&adopted.logs).expect("checked as it was read or made");
        Some(Adopted { found: adopted.found_txn_seq, logs })
    }

    /// After a transaction: what an operator gave their word for has been followed.
    pub fn remember(&mut self, checkpoint: &Checkpoint) {
        self.exported = Some(ExportedText {
            edge_id: checkpoint.edge_id.clone(),
            txn_seq: checkpoint.txn_seq,
            data_dir: hex(&checkpoint.data_dir_uuid),
            nonce: hex(&checkpoint.nonce),
            written_ms: checkpoint.written_ms,
            logs: texts(&checkpoint.logs),
        });
        self.adopted = None;
    }

    pub fn adopt(&mut self, adopted: &Adopted) {
        self.adopted = Some(AdoptedText { found_txn_seq: adopted.found, logs: texts(&adopted.logs) });
    }

    /// A log had a twin that exported under its id.
    pub fn rename(&mut self, log: &LogId, name: &LogId) {
        self.names.push(NameText { log: hex(log), name: hex(name) });
    }

    pub fn names(&self) -> Names {
        Names::new(self.names.iter().map(|given| given.decode().expect("checked as it was read or made")).collect())
    }

    pub fn for_the_protocol(file: Option<&MirrorFile>) -> Mirror {
        Mirror::Kept { checkpoint: file.and_then(MirrorFile::checkpoint), adopted: file.and_then(MirrorFile::adopted) }
    }
}

pub fn path(dir: &Path) -> PathBuf {
    dir.join("exported.json")
}

impl NameText {
    fn decode(&self) -> Option<(LogId, LogId)> {
        Some((unhex(&self.log)?.try_into().ok()?, unhex(&self.name)?.try_into().ok()?))
    }
}

impl ExportedText {
    fn decode(&self) -> Option<Checkpoint> {
        Some(Checkpoint {
            format_version: FORMAT_VERSION,
            edge_id: self.edge_id.clone(),
            txn_seq: self.txn_seq,
            logs: positions(&self.logs)?,
            nonce: unhex(&self.nonce)?,
            data_dir_uuid: unhex(&self.data_dir)?,
            written_ms: self.written_ms,
        })
    }
}

fn texts(logs: &[LogPosition]) -> Vec<PositionText> {
    let text = |position: &LogPosition| PositionText {
        log: hex(&position.log_uuid),
        lsn: position.lsn,
        chain: format!("{:016x}", position.chain),
        clicks_total: position.clicks_total,
    };
    logs.iter().map(text).collect()
}

fn positions(logs: &[PositionText]) -> Option<Vec<LogPosition>> {
    let position = |text: &PositionText| {
        let (log_uuid, chain) = (unhex(&text.log)?, u64::from_str_radix(&text.chain, 16).ok()?);
        Some(LogPosition { log_uuid, lsn: text.lsn, chain, clicks_total: text.clicks_total })
    };
    logs.iter().map(position).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        let (topic_partials, topic_checkpoints) = ("clicks.partials".to_owned(), "clicks.checkpoints".to_owned());
        Place {
            cluster: "c".to_owned(),
            topic_partials,
            topic_checkpoints,
            partition_partials: 1,
            partition_checkpoints: 3,
        }
    }

    #[test]
    fn what_is_remembered_is_read_again_and_ends_what_was_adopted() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(MirrorFile::read(dir.path()).expect("nothing there"), None);
        let logs = vec![LogPosition { log_uuid: vec![7; 16], lsn: 9, chain: u64::MAX - 1, clicks_total: 8 }];
        let checkpoint = Checkpoint {
            format_version: FORMAT_VERSION,
            edge_id: "e".to_owned(),
            txn_seq: 3,
            logs: logs.clone(),
            nonce: vec![1; 16],
            data_dir_uuid: vec![2; 16],
            written_ms: 5,
        };
        let adopted = Adopted { found: Some(2), logs };
        let mut file = MirrorFile::new(place());
        file.adopt(&adopted);
        file.write(dir.path()).expect("written");
        let mut file = MirrorFile::read(dir.path()).expect("readable").expect("there");
        assert_eq!((file.adopted(), file.checkpoint(), &file.place), (Some(adopted), None, &place()));
        file.remember(&checkpoint);
        file.rename(&[7; 16], &[9; 16]);
        file.write(dir.path()).expect("written");
        let file = MirrorFile::read(dir.path()).expect("readable").expect("there");
        assert_eq!((file.adopted(), file.checkpoint()), (None, Some(checkpoint)));
        assert_eq!(file.names().of(&[7; 16]), [9; 16]);
    }

    #[test]
    fn damage_and_other_versions_are_refused_with_the_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut file = MirrorFile::new(place());
        file.format_version = 2;
        file.write(dir.path()).expect("written");
        let text = std::fs::read_to_string(path(dir.path())).expect("text");
        let later = text.replacen('{', "{\"epoch\": 7,", 1);
        for (bad, names) in [(text, "version 2"), (later, "version 2"), ("{".to_owned(), "EOF")] {
            std::fs::write(path(dir.path()), bad).expect("written");
            let error = MirrorFile::read(dir.path()).expect_err("refused").to_string();
            assert!(error.contains("exported.json") && error.contains(names), "{error}");
        }
    }
}
