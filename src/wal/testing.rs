//! Test help: a log written by the real writer into real files, without the kernel's part of it.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::frame::FLAG_IDLE;
use super::record::{Start, encode_click, encode_start};
use super::recover::{Progress, RecoveredLog, recover};
use super::segments::{LogDir, LogError, list_logs};
use super::writer::{FrameMeta, FrameRoom, LogStart, Writer, WriterConfig, buffer_bytes};
use crate::click::{Agent, Class, Click, ClickKey, Device, EventTime, Extras};
use crate::cut::LogId;
use crate::event::FrameBuffer;

pub const LOG_ID: LogId = *b"a test's log id!";
pub const FRAME_BYTES: u32 = 16 << 10;
pub const SEGMENT_BYTES: u64 = 64 << 10;

pub fn config() -> WriterConfig {
    WriterConfig {
        frame_bytes: FRAME_BYTES,
        segment_bytes: SEGMENT_BYTES,
        commit_delay_ns: 1_000_000,
        commit_spacing_ns: 200_000,
        core: 0,
        dedup_key: 0,
        nonce: [0; 16],
    }
}

#[expect(clippy::vec_box, reason = "as the writer holds them")]
pub fn buffers(count: u32) -> Vec<Box<FrameBuffer>> {
    let buffer =
        |id| FrameBuffer { memory: memmap2::MmapMut::map_anon(buffer_bytes(FRAME_BYTES)).expect("memory"), id };
    (0..count).map(|id| Box::new(buffer(id))).collect()
}

pub fn click_record(number: u64) -> Vec<u8> {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    let click = Click {
        key: ClickKey { bytes, hashed: number.is_multiple_of(3) },
        event_time: EventTime(1_700_000_000_000 + number as i64),
        class: Class::Valid,
        device: Device::Mobile,
        agent: Agent::Chrome,
        region: b"DE",
        ad_id: b"ad_1",
        campaign_id: b"campaign_7",
        advertiser_id: b"",
        user_id: b"user",
        extras: Extras { click_id: b"click-id", ..Extras::default() },
    };
    let mut record = Vec::new();
    encode_click(&click, 1_700_000_000_000 + number as i64, &mut record);
    record
}

pub fn meta(built_ms: i64, flags: u32) -> FrameMeta {
    FrameMeta { built_ms, horizon_ms: built_ms - 600_000, watermark_ms: built_ms - 5_000, flags }
}

/// In memory where there is a place for that: these tests read thousands of logs.
pub fn test_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory")
}

/// A writer and the directory that its frames go to.
pub struct TestLog {
    pub dir: LogDir,
    pub writer: Writer,
    now_ns: u64,
    built_ms: i64,
}

impl TestLog {
    /// A new log in `data_dir`, begun with a start record in its own frame.
    pub fn create(data_dir: &Path) -> TestLog {
        let path = data_dir.join("logs").join(format!("0-{}", super::replay::hex(&LOG_ID)));
        std::fs::create_dir_all(&path).expect("a directory");
        TestLog::go_on(LogDir { core: 0, log_id: LOG_ID, path }, LogStart::new(LOG_ID, 1))
    }

    pub fn go_on(dir: LogDir, start: LogStart) -> TestLog {
        let incarnation = start.incarnation;
        let nonce = [incarnation as u8; 16];
        let writer = Writer::new(WriterConfig { nonce, ..config() }, start, buffers(3));
        let mut log = TestLog { dir, writer, now_ns: 0, built_ms: 1_000_000 };
        let mut record = Vec::new();
        encode_start(&Start { incarnation, nonce, started_ms: 0 }, &mut record);
        log.append(&record);
        log.commit(0);
        log
    }

    pub fn append(&mut self, record: &[u8]) -> u64 {
        if self.writer.room(record.len()) != FrameRoom::Now {
            self.commit(0);
        }
        self.writer.append(record)
    }

    /// Seals what is open and writes everything.
    pub fn commit(&mut self, flags: u32) {
        self.built_ms += 1_000;
        self.writer.seal(meta(self.built_ms, flags));
        loop {
            while let Some(segment) = self.writer.wants_segment() {
                let path = self.dir.segment_path(segment);
                std::fs::write(&path, vec![0; SEGMENT_BYTES as usize]).expect("a segment");
                self.writer.segment_ready(segment);
            }
            self.now_ns += 1_000_000;
            let Some((buffer, write)) = self.writer.next_write(self.now_ns) else { return };
            let file = std::fs::OpenOptions::new().write(true).open(self.dir.segment_path(write.segment));
            let from = write.buffer_offset as usize;
            let bytes = &buffer.memory[from..from + write.length as usize];
            file.expect("prepared").write_all_at(bytes, write.file_offset).expect("a write");
            self.writer.written(buffer, true).expect("no failure");
        }
    }

    /// Commits `frames` frames of `clicks` clicks each, numbered on from the log's end.
    pub fn fill(&mut self, frames: u64, clicks: u64) {
        for _ in 0..frames {
            for _ in 0..clicks {
                self.append(&click_record(self.writer.end_lsn() + 1));
            }
            self.commit(0);
        }
    }

    pub fn idle(&mut self) {
        self.commit(FLAG_IDLE);
    }
}

/// Recovers the only log; also the LSNs of all records that it gave, checked to be dense.
pub fn recover_one(data_dir: &Path) -> Result<(RecoveredLog, Vec<Vec<u8>>), LogError> {
    let mut clicks = Vec::new();
    let mut last_lsn = None;
    let mut last = Progress::default();
    let mut logs = recover(data_dir, &[], &mut |progress| last = progress, &mut |_, frame| {
        assert!(last_lsn.is_none_or(|lsn| lsn + 1 == frame.header.first_lsn), "LSNs are dense");
        last_lsn = Some(frame.header.last_lsn());
        clicks.extend(frame.records.iter().filter_map(|record| match record {
            super::record::Record::Click(click) => Some(click.bytes().to_vec()),
            super::record::Record::DeadLetter(_) | super::record::Record::Start(_) => None,
        }));
    })?;
    assert_eq!(last.bytes_done, last.bytes_total);
    assert_eq!(list_logs(data_dir)?.len(), 1);
    Ok((logs.remove(0), clicks))
}
