//! Reads logs: everything at start, a range for the exporter's rebuild and for audit. Drives the pure judge in `replay.rs`
//! over the files of `segments.rs`; runs on the starting thread, on the exporter's, and in `tollgate wal`.
//!
//! Recovery never writes over a tail. It only deletes segments at the end that wholly read as zeros; the log then goes on in
//! a new segment, whose header fixes the cut. Killed anywhere and run again it finds the same state.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use super::frame::BLOCK_BYTES;
use super::frame::{FLAG_STOPPED, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::record::Record;
use super::repairs::Repair;
use super::replay::{BadFrame, Base, Damage, Fault, LogReplay, Probe, Proof, ReplayedFrame, Step, find_frame, follows};
use super::segments::{
    LogDir, LogError, SegmentFile, SegmentReader, delete_segment, io_error, list_logs, reads_as_zeros,
};
use super::writer::{LogStart, SegmentSummary};
use crate::cut::Position;

/// Read from the disk at a time.
pub const WINDOW_BYTES: usize = 4 << 20;

/// How far recovery is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub records: u64,
}

/// How a log's last frame is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing but zeros.
    Clean,
    /// A write that never ended, at this place; nothing in it was acknowledged.
    Torn { segment: u64, offset: u64 },
}

/// Everything that a log's files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    pub replay: LogReplay,
    /// LSN at which the oldest segment begins.
    pub base_lsn: u64,
    pub tail: Tail,
    /// Every segment file but those that wholly read as zeros.
    pub segments: Vec<SegmentSummary>,
    /// Segments at the end without a header: never used, or torn in their first write.
    pub headerless: Vec<u64>,
    /// Header of the newest segment that has a frame: a header alone says what was meant, and nothing was accepted by it.
    pub header_in_force: Option<SegmentHeader>,
    /// Frames were taken from a segment whose header is damaged: by which rule their keys were made is not known.
    pub rule_unknown: bool,
    /// Of every incarnation that a start or a segment's header still names.
    pub nonces: BTreeSet<[u8; 16]>,
    /// Repairs that the walk went over.
    pub repairs: Vec<Repair>,
    pub records: u64,
}

/// A log that can go on.
#[derive(Clone, Debug)]
pub struct RecoveredLog {
    pub dir: LogDir,
    pub start: LogStart,
    /// The log's end, and the first LSN less one that it still holds.
    pub position: Position,
    pub base_lsn: u64,
    /// The highest in any frame; `i64::MIN` where there is none.
    pub horizon_ms: i64,
    pub watermark_ms: i64,
    /// When the newest frame was built: a clock behind it is wrong.
    pub built_ms: i64,
    /// Code of the rule that made the keys, `None` where the log is empty; and, with a damaged header, perhaps another one.
    pub dedup_key: Option<u32>,
    pub rule_unknown: bool,
    /// Of every incarnation that a start or a segment's header still names.
    pub nonces: BTreeSet<[u8; 16]>,
    /// An operator gave records up as lost.
    pub repaired: bool,
    /// The last frame is that of a clean stop.
    pub stopped: bool,
    pub tail: Tail,
}

/// Recovers every log of a locked data directory. `each` gets every frame, log by log in order; `checkpoints` are the
/// positions up to which the sink has the counts. The logs are in the order of [`list_logs`].
pub fn recover(
    dir: &Path,
    checkpoints: &[Position],
    progress: &mut dyn FnMut(Progress),
    each: &mut dyn FnMut(&LogDir, &ReplayedFrame<'_>),
) -> Result<Vec<RecoveredLog>, LogError> {
    let logs = list_logs(dir)?;
    let mut done = Progress::default();
    for log in &logs {
        done.bytes_total += log.segments()?.iter().map(|file| file.bytes).sum::<u64>();
    }
    let mut recovered = Vec::with_capacity(logs.len());
    for log in logs {
        let locks = log.lock_segments()?;
        let checkpoint = checkpoints.iter().find(|position| position.log_id == log.log_id);
        let walked = walk_log(&log, checkpoint, &mut done, progress, &mut |_, _, frame| each(&log, frame))?;
        recovered.push(recovered_log(log, walked)?);
        drop(locks);
    }
    Ok(recovered)
}

fn recovered_log(log: LogDir, walked: Walked) -> Result<RecoveredLog, LogError> {
    for segment in walked.headerless.iter().rev() {
        if reads_as_zeros(&log, *segment)? {
            let deleted = delete_segment(&log.path, *segment);
            deleted.map_err(|source| io_error("delete", &log.segment_path(*segment), source))?;
        }
    }
    let left = log.segments()?;
    let segments: Vec<_> =
        walked.segments.into_iter().filter(|s| left.iter().any(|l| l.segment == s.segment)).collect();
    let replay = &walked.replay;
    Ok(RecoveredLog {
        start: LogStart {
            log_id: log.log_id,
            incarnation: replay.incarnation + 1,
            segment: left.last().map_or(1, |file| file.segment + 1),
            lsn: replay.lsn,
            chain: replay.chain,
            totals: replay.totals,
            segments,
        },
        position: replay.position(),
        base_lsn: walked.base_lsn,
        horizon_ms: replay.horizon_ms,
        watermark_ms: replay.watermark_ms,
        built_ms: replay.built_ms,
        dedup_key: walked.header_in_force.map(|header| header.dedup_key),
        rule_unknown: walked.rule_unknown,
        nonces: walked.nonces,
        repaired: !walked.repairs.is_empty(),
        stopped: replay.flags & FLAG_STOPPED != 0,
        tail: walked.tail,
        dir: log,
    })
}

/// Reads one log from its first segment to its end, judging every frame; changes nothing. `each` gets the segment and the
/// offset of each frame with it.
pub fn walk_log(
    log: &LogDir,
    checkpoint: Option<&Position>,
    done: &mut Progress,
    progress: &mut dyn FnMut(Progress),
    each: &mut dyn FnMut(u64, u64, &ReplayedFrame<'_>),
) -> Result<Walked, LogError> {
    walk_map(log, &LogMap::read(log)?, checkpoint, done, progress, each)
}

/// As [`walk_log`], over a map whose repairs may be more than what the directory holds.
pub fn walk_map(
    log: &LogDir,
    map: &LogMap,
    checkpoint: Option<&Position>,
    done: &mut Progress,
    progress: &mut dyn FnMut(Progress),
    each: &mut dyn FnMut(u64, u64, &ReplayedFrame<'_>),
) -> Result<Walked, LogError> {
    let mut walk = Walk::new(log, map, checkpoint);
    for (index, probe) in map.probes.iter().enumerate() {
        if probe.header.is_err() && !walk.jumps_into(probe) {
            walk.headerless(index, probe)?;
        }
        // A repair may lead into a segment whose header is damaged.
        if probe.header.is_ok() || walk.jumps_into(probe) {
            walk.segment(index, probe, done, progress, each)?;
        }
        done.bytes_done += probe.file_bytes;
        progress(*done);
    }
    walk.finish()
}

/// What the first blocks of a log's segments say, and its repairs.
#[derive(Debug)]
pub struct LogMap {
    pub probes: Vec<Probe>,
    pub repairs: Vec<Repair>,
}

impl LogMap {
    /// Of a log in use the keeper may delete the oldest segments meanwhile, so that one is listed and gone when it is opened:
    /// then the directory is looked at anew. A segment that is missing otherwise is missing from the map too, and whoever
    /// needs its records halts.
    pub fn read(log: &LogDir) -> Result<LogMap, LogError> {
        LogMap::read_listed(log, || log.segments())
    }

    fn read_listed(
        log: &LogDir,
        mut list: impl FnMut() -> Result<Vec<SegmentFile>, LogError>,
    ) -> Result<LogMap, LogError> {
        let mut gone = None;
        loop {
            match list().and_then(|files| LogMap::of(log, &files)) {
                // The same one again was not deleted: it is listed, and cannot be opened.
                Err(LogError::Io { source, path, .. })
                    if source.kind() == ErrorKind::NotFound && gone.as_ref() != Some(&path) =>
                {
                    gone = Some(path);
                }
                read => return read,
            }
        }
    }

    fn of(log: &LogDir, files: &[SegmentFile]) -> Result<LogMap, LogError> {
        let mut probes = Vec::new();
        for file in files {
            let mut reader = SegmentReader::open(log, file.segment, BLOCK_BYTES)?;
            let block = reader.at(0, BLOCK_BYTES)?;
            probes.push(Probe::new(file.segment, file.bytes, &block[..block.len().min(BLOCK_BYTES)]));
        }
        Ok(LogMap { probes, repairs: log.repairs()? })
    }

    pub fn index_of(&self, segment: u64) -> Option<usize> {
        self.probes.iter().position(|probe| probe.segment == segment)
    }

    /// The repair to go on with at a bad frame: of this very place, or, where a later segment has a header, of one in
    /// between whose own header is damaged.
    pub fn repair_at(&self, replay: &LogReplay, index: usize, offset: u64) -> Option<&Repair> {
        let applying = |segment, offset| self.repairs.iter().find(|repair| repair.applies(replay, segment, offset));
        let headerless = || {
            self.base_after(index)?;
            let between = self.probes[index + 1..].iter().take_while(|probe| probe.header.is_err());
            between.filter_map(|probe| applying(probe.segment, 0)).next()
        };
        applying(self.probes[index].segment, offset).or_else(headerless)
    }

    /// Where the next segment with a header after `index` begins.
    pub fn base_after(&self, index: usize) -> Option<Base> {
        self.probes[index + 1..].iter().find_map(|probe| {
            let header = probe.header.ok()?;
            Some(Base { segment: header.segment, lsn: header.base_lsn, chain: header.base_chain })
        })
    }
}

struct Walk<'m> {
    log: &'m LogDir,
    map: &'m LogMap,
    checkpoint: Option<&'m Position>,
    /// Whether a frame (or the log's base) has the checkpoint's LSN and chain.
    checkpoint_met: bool,
    replay: LogReplay,
    base_lsn: Option<u64>,
    /// A repair went on here: segments and bytes before it are not read.
    jump_to: Option<(u64, u64)>,
    tail: Tail,
    bad: BadFrame,
    bad_at: (u64, u64),
    /// Of the segment that is read.
    header: Option<SegmentHeader>,
    walked: Walked,
}

impl<'m> Walk<'m> {
    fn new(log: &'m LogDir, map: &'m LogMap, checkpoint: Option<&'m Position>) -> Walk<'m> {
        let replay = LogReplay::new(log.log_id, 0, 0);
        Walk {
            log,
            map,
            checkpoint,
            checkpoint_met: false,
            replay,
            base_lsn: None,
            jump_to: None,
            tail: Tail::Clean,
            bad: BadFrame::Blank,
            bad_at: (0, 0),
            header: None,
            walked: Walked {
                replay,
                base_lsn: 0,
                tail: Tail::Clean,
                segments: Vec::new(),
                headerless: Vec::new(),
                header_in_force: None,
                rule_unknown: false,
                nonces: BTreeSet::new(),
                repairs: Vec::new(),
                records: 0,
            },
        }
    }

    /// A segment whose header never got to the disk whole, or is damaged.
    fn headerless(&mut self, index: usize, probe: &Probe) -> Result<(), LogError> {
        let at_end = self.map.base_after(index).is_none();
        let repair = self.map.repairs.iter().find(|repair| repair.applies(&self.replay, probe.segment, 0));
        if let Some(repair) = repair {
            self.go_on_after(repair);
            if repair.to_segment == probe.segment {
                self.jump_to = Some((repair.to_segment, repair.to_offset));
                return Ok(());
            }
        } else if at_end || self.base_lsn.is_none() {
            if !probe.torn {
                return Err(self.header_damage(probe, Proof::NotTorn));
            }
            let end =
                self.map.base_after(index).map_or((self.replay.lsn, self.replay.chain), |base| (base.lsn, base.chain));
            if let Some(proof) = self.later_frame(probe, 0, end)? {
                return Err(self.header_damage(probe, proof));
            }
        }
        // In between, the next header's base proves that nothing of it counts: the walk fails if it is not reached.
        if at_end {
            self.walked.headerless.push(probe.segment);
        }
        self.summary(probe.segment);
        Ok(())
    }

    /// Whether a repair leads into this segment without the help of its header.
    fn jumps_into(&self, probe: &Probe) -> bool {
        self.jump_to.is_some_and(|(segment, _)| segment == probe.segment)
    }

    fn segment(
        &mut self,
        index: usize,
        probe: &Probe,
        done: &mut Progress,
        progress: &mut dyn FnMut(Progress),
        each: &mut dyn FnMut(u64, u64, &ReplayedFrame<'_>),
    ) -> Result<(), LogError> {
        let Some(mut offset) = self.begin_segment(probe)? else { return Ok(()) };
        let cut = self.map.base_after(index);
        let mut reader = SegmentReader::open(self.log, probe.segment, WINDOW_BYTES)?;
        let (bytes_before, mut reported) = (done.bytes_done, 0);
        loop {
            let end = self.frames(&mut reader, probe.segment, &mut offset, cut.as_ref(), |walk, at, frame| {
                each(probe.segment, at, frame);
                if at - reported > WINDOW_BYTES as u64 {
                    reported = at;
                    progress(Progress { bytes_done: bytes_before + at, records: walk.walked.records, ..*done });
                }
            })?;
            done.records = self.walked.records;
            let Some((bad, torn)) = end else { return Ok(()) };
            let Some(repair) = self.map.repair_at(&self.replay, index, offset) else {
                return self.segment_end(probe, offset, bad, torn, cut.as_ref());
            };
            self.go_on_after(repair);
            match repair.to_segment {
                0 => return self.repaired_end(probe, offset, bad, cut.as_ref()),
                segment if segment == probe.segment => offset = repair.to_offset,
                segment => {
                    self.jump_to = Some((segment, repair.to_offset));
                    return Ok(());
                }
            }
        }
    }

    /// Checks the header; the offset of the first frame to read, `None` where a repair leads past the segment.
    fn begin_segment(&mut self, probe: &Probe) -> Result<Option<u64>, LogError> {
        self.summary(probe.segment);
        self.header = None;
        if let Ok(header) = probe.header {
            self.check_header(probe, &header)?;
        }
        match self.jump_to {
            Some((segment, _)) if segment != probe.segment => Ok(None),
            Some((_, offset)) => {
                self.jump_to = None;
                Ok(Some(offset))
            }
            None => Ok(Some(SEGMENT_HEADER_BYTES as u64)),
        }
    }

    fn check_header(&mut self, probe: &Probe, header: &SegmentHeader) -> Result<(), LogError> {
        if header.log_id != self.log.log_id || header.segment != probe.segment {
            let fault = Fault::SegmentForeign { log_id: header.log_id, segment: header.segment };
            return Err(self.damage(probe.segment, 0, fault));
        }
        let base = Base { segment: header.segment, lsn: header.base_lsn, chain: header.base_chain };
        if self.base_lsn.is_none() {
            self.replay = LogReplay::new(self.log.log_id, base.lsn, base.chain);
            self.base_lsn = Some(base.lsn);
            self.meet_checkpoint();
            self.summary_base(base.lsn);
        }
        self.header = Some(*header);
        self.walked.nonces.insert(header.nonce);
        assert!(self.jump_to.is_some() || self.replay.is_at(&base), "the walk ends at the next base or fails");
        Ok(())
    }

    /// Takes frames until the cut (`None`) or a bad one.
    fn frames(
        &mut self,
        reader: &mut SegmentReader,
        segment: u64,
        offset: &mut u64,
        cut: Option<&Base>,
        mut each: impl FnMut(&Self, u64, &ReplayedFrame<'_>),
    ) -> Result<Option<(BadFrame, bool)>, LogError> {
        let mut needed = BLOCK_BYTES;
        loop {
            let left = reader.file_bytes.saturating_sub(*offset);
            let bytes = reader.at(*offset, needed)?;
            match self.replay.step(segment, bytes, left, cut) {
                Step::Frame(frame) => {
                    self.frame_taken(&frame);
                    each(self, *offset, &frame);
                    *offset += u64::from(frame.header.frame_bytes);
                    needed = BLOCK_BYTES;
                }
                Step::More { frame_bytes } => {
                    assert!(frame_bytes > needed, "the reader gives what is asked for, and the file holds it");
                    needed = frame_bytes;
                }
                Step::Cut => return Ok(None),
                Step::Bad { bad, torn } => return Ok(Some((bad, torn))),
            }
        }
    }

    fn frame_taken(&mut self, frame: &ReplayedFrame<'_>) {
        self.meet_checkpoint();
        self.walked.rule_unknown |= self.header.is_none();
        self.walked.header_in_force = self.header.or(self.walked.header_in_force);
        self.walked.records += u64::from(frame.header.records);
        self.walked.nonces.extend(frame.records.iter().filter_map(|record| match record {
            Record::Start(start) => Some(start.nonce),
            Record::Click(_) | Record::DeadLetter(_) => None,
        }));
        let summary = self.walked.segments.last_mut().expect("the segment's summary was pushed before its frames");
        summary.last_lsn = self.replay.lsn;
        summary.newest_ms = summary.newest_ms.max(frame.header.newest_ms);
        summary.built_ms = frame.header.built_ms;
    }

    /// A bad frame that no repair covers: damaged, torn, or the end.
    fn segment_end(
        &mut self,
        probe: &Probe,
        offset: u64,
        bad: BadFrame,
        torn: bool,
        cut: Option<&Base>,
    ) -> Result<(), LogError> {
        let expected = probe.header.map_or(probe.file_bytes, |header| header.segment_bytes);
        if probe.file_bytes < expected {
            let fault = Fault::Truncated { found: probe.file_bytes, expected };
            return Err(self.damage(probe.segment, offset, fault));
        }
        if let Some(base) = cut {
            let missing = bad == BadFrame::Blank && base.lsn > self.replay.lsn;
            let fault = if missing {
                Fault::Missing { segment: base.segment, base_lsn: base.lsn }
            } else {
                Fault::Frame { bad, proof: Proof::LaterSegment { segment: base.segment, base_lsn: base.lsn } }
            };
            return Err(self.damage(probe.segment, offset, fault));
        }
        if let Some(proof) = self.later_frame(probe, offset, (self.replay.lsn, self.replay.chain))? {
            return Err(self.damage(probe.segment, offset, Fault::Frame { bad, proof }));
        }
        // A frame may end exactly with its segment.
        let at_end = offset >= probe.file_bytes;
        if !torn && !at_end {
            return Err(self.damage(probe.segment, offset, Fault::Frame { bad, proof: Proof::NotTorn }));
        }
        (self.bad, self.bad_at) = (bad, (probe.segment, offset));
        if !at_end && !self.zeros_from(probe, offset)? {
            self.tail = Tail::Torn { segment: probe.segment, offset };
        }
        Ok(())
    }

    /// The end of a log after a repair that lets it go on in a new segment.
    fn repaired_end(&mut self, probe: &Probe, offset: u64, bad: BadFrame, cut: Option<&Base>) -> Result<(), LogError> {
        (self.bad, self.bad_at) = (bad, (probe.segment, offset));
        match cut {
            Some(base) if !self.replay.is_at(base) => {
                let proof = Proof::LaterSegment { segment: base.segment, base_lsn: base.lsn };
                Err(self.damage(probe.segment, offset, Fault::Frame { bad, proof }))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn go_on_after(&mut self, repair: &Repair) {
        let covers = |position: &Position| position.lsn > self.replay.lsn && position.lsn <= repair.to_lsn;
        self.checkpoint_met |= self.checkpoint.is_some_and(covers);
        self.replay.jump(repair.to_lsn, repair.to_chain, repair.horizon_ms);
        self.meet_checkpoint();
        if let Some(summary) = self.walked.segments.last_mut() {
            summary.last_lsn = repair.to_lsn;
            summary.newest_ms = summary.newest_ms.max(repair.horizon_ms);
        }
        self.walked.repairs.push(repair.clone());
    }

    fn finish(mut self) -> Result<Walked, LogError> {
        let (segment, offset) = self.bad_at;
        if let Some((segment, _)) = self.jump_to {
            let fault = Fault::Missing { segment, base_lsn: self.replay.lsn };
            return Err(self.damage(segment, 0, fault));
        }
        if self.base_lsn.is_some_and(|lsn| lsn > 0) && self.replay.frames == 0 {
            return Err(self.damage(self.map.probes[0].segment, 0, Fault::NoFrame));
        }
        if let Some(checkpoint) = self.checkpoint {
            let lsn = checkpoint.lsn;
            if lsn > self.replay.lsn {
                let fault = Fault::Frame { bad: self.bad, proof: Proof::Checkpoint { lsn } };
                return Err(self.damage(segment, offset, fault));
            }
            if lsn >= self.base_lsn.unwrap_or(0) && lsn > 0 && !self.checkpoint_met {
                return Err(self.damage(segment, offset, Fault::Checkpoint { lsn }));
            }
        }
        self.walked.replay = self.replay;
        self.walked.base_lsn = self.base_lsn.unwrap_or(0);
        self.walked.tail = self.tail;
        Ok(self.walked)
    }

    fn meet_checkpoint(&mut self) {
        self.checkpoint_met |= self.checkpoint.is_some_and(|position| *position == self.replay.position());
    }

    fn summary(&mut self, segment: u64) {
        let lsn = self.replay.lsn;
        let (newest_ms, built_ms) = (i64::MIN, self.replay.built_ms);
        self.walked.segments.push(SegmentSummary { segment, base_lsn: lsn, last_lsn: lsn, newest_ms, built_ms });
    }

    /// The log begins here: the segments before it, and this one, begin at its base.
    fn summary_base(&mut self, lsn: u64) {
        for summary in &mut self.walked.segments {
            (summary.base_lsn, summary.last_lsn) = (lsn, lsn);
        }
    }

    /// A frame header that proves that the write at `offset` had ended: one write was in flight at a time, so any frame
    /// behind it does. `offset` 0: the segment's first write, which begins with the segment header.
    fn later_frame(&self, probe: &Probe, offset: u64, end: (u64, u64)) -> Result<Option<Proof>, LogError> {
        let mut reader = SegmentReader::open(self.log, probe.segment, WINDOW_BYTES)?;
        let mut at = offset + BLOCK_BYTES as u64;
        while at < probe.file_bytes {
            let bytes = reader.at(at, WINDOW_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            match find_frame(&self.log.log_id, probe.segment, bytes) {
                Some((0, header)) if offset == 0 && at == BLOCK_BYTES as u64 && follows(end, &header) => {
                    at += BLOCK_BYTES as u64;
                }
                Some((found, _)) => {
                    return Ok(Some(Proof::LaterFrame { segment: probe.segment, offset: at + found as u64 }));
                }
                None => at += bytes.len() as u64,
            }
        }
        Ok(None)
    }

    fn zeros_from(&self, probe: &Probe, offset: u64) -> Result<bool, LogError> {
        let mut reader = SegmentReader::open(self.log, probe.segment, WINDOW_BYTES)?;
        let mut at = offset;
        while at < probe.file_bytes {
            let bytes = reader.at(at, WINDOW_BYTES)?;
            if bytes.is_empty() || !super::frame::is_zero(bytes) {
                return Ok(false);
            }
            at += bytes.len() as u64;
        }
        Ok(true)
    }

    fn header_damage(&self, probe: &Probe, proof: Proof) -> LogError {
        let error = probe.header.expect_err("only segments without a sound header come here");
        self.damage(probe.segment, 0, Fault::SegmentHeader { error, proof })
    }

    fn damage(&self, segment: u64, offset: u64, fault: Fault) -> LogError {
        let damage: Damage = self.replay.damage(segment, offset, fault);
        LogError::Damaged(Box::new(damage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::testing::{TestLog, test_dir};

    /// The map of a log whose files go between its listing and the look at them.
    fn map_while_they_go(log: &LogDir, gone: &[u64]) -> Result<Vec<u64>, LogError> {
        let mut first = true;
        let map = LogMap::read_listed(log, || {
            let files = log.segments();
            if std::mem::take(&mut first) {
                gone.iter().for_each(|segment| std::fs::remove_file(log.segment_path(*segment)).expect("it was there"));
            }
            files
        });
        map.map(|map| map.probes.iter().map(|probe| probe.segment).collect())
    }

    #[test]
    fn segments_deleted_under_the_reader_are_no_error_and_others_that_cannot_be_opened_are() {
        let dir = test_dir();
        let mut log = TestLog::create(dir.path());
        log.fill(30, 60);
        let last = log.dir.segments().expect("listed").last().expect("segments").segment;
        assert_eq!(map_while_they_go(&log.dir, &[1, 2]).expect("a map"), (3..=last).collect::<Vec<_>>());
        std::os::unix::fs::symlink("nowhere", log.dir.segment_path(last + 1)).expect("made");
        assert!(matches!(map_while_they_go(&log.dir, &[]), Err(LogError::Io { .. })));
    }
}
