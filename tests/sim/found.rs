//! Drives. What a start would find in a log that lies on the disk. A frame is what the log's reading gives back: its first LSN, its chain, and
//! a hash over the bytes of its records.

use tollgate::cut::Position;
use tollgate::wal::record::Record;
use tollgate::wal::recover::{Progress, walk_log};
use tollgate::wal::replay::ReplayedFrame;
use tollgate::wal::segments::{LogDir, LogError};
use xxhash_rust::xxh3::Xxh3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub lsn: u64,
    pub chain: u64,
    pub hash: u64,
    pub clicks: u64,
}

/// A frame's place in its log.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    pub segment: u64,
    pub offset: u64,
    pub bytes: usize,
}

/// What a start would find in a log, and where.
pub fn read(log: &LogDir, known: Option<&Position>) -> Result<(Vec<Frame>, Vec<Spot>), LogError> {
    let (mut frames, mut spots) = (Vec::new(), Vec::new());
    walk_log(log, known, &mut Progress::default(), &mut |_| {}, &mut |segment, offset, frame| {
        frames.push(Frame {
            lsn: frame.header.first_lsn,
            chain: frame.chain,
            hash: hash(frame),
            clicks: clicks(frame),
        });
        spots.push(Spot { segment, offset, bytes: frame.header.frame_bytes as usize });
    })?;
    Ok((frames, spots))
}

fn hash(frame: &ReplayedFrame<'_>) -> u64 {
    let mut hash = Xxh3::new();
    for record in &frame.records {
        match record {
            Record::Click(click) => hash.update(click.bytes()),
            Record::DeadLetter(letter) => hash.update(&letter.raw()),
            Record::Start(start) => hash.update(&start.nonce),
        }
    }
    hash.digest()
}

pub fn clicks(frame: &ReplayedFrame<'_>) -> u64 {
    frame.records.iter().filter(|record| matches!(record, Record::Click(_))).count() as u64
}
