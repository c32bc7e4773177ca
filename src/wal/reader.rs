//! Reads a range of a log again, while it may be written to: for the exporter's rebuild and for `audit`. Runs on their
//! threads. Only what was durable when the range was named is asked for, so whatever fails in it is damage.

use std::ops::ControlFlow;

use super::frame::{BLOCK_BYTES, SEGMENT_HEADER_BYTES};
use super::recover::{LogMap, WINDOW_BYTES};
use super::replay::{Fault, LogReplay, Proof, ReplayedFrame, Step};
use super::segments::{LogDir, LogError, SegmentReader};

/// A place in a log from which ranges are read; the next range is quickest where the last one ended.
#[derive(Debug)]
pub struct LogReader {
    log: LogDir,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    map: LogMap,
    /// Index of the segment in the map.
    index: usize,
    reader: SegmentReader,
    offset: u64,
    replay: LogReplay,
}

impl LogReader {
    pub fn new(log: LogDir) -> LogReader {
        LogReader { log, place: None }
    }

    /// Gives the frames that hold the records after `from_lsn` up to and including `to_lsn`, in order, until told to stop.
    pub fn read_frames(
        &mut self,
        from_lsn: u64,
        to_lsn: u64,
        each: &mut dyn FnMut(&ReplayedFrame<'_>) -> ControlFlow<()>,
    ) -> Result<(), LogError> {
        // What was read before a range was durable is not kept: it may have been zeros.
        let mut place = match self.place.take() {
            Some(mut place) if place.replay.lsn == from_lsn => {
                place.reader.forget();
                place.map = LogMap::read(&self.log)?;
                place.index = place.map.index_of(place.reader.segment).unwrap_or(usize::MAX);
                place
            }
            Some(_) | None => self.seek(from_lsn)?,
        };
        if place.index == usize::MAX {
            place = self.seek(from_lsn)?;
        }
        while place.replay.lsn < to_lsn && self.advance(&mut place, from_lsn, to_lsn, each)?.is_continue() {}
        self.place = Some(place);
        Ok(())
    }

    /// The beginning of the segment that `lsn` is in.
    fn seek(&self, lsn: u64) -> Result<Place, LogError> {
        let map = LogMap::read(&self.log)?;
        let found = map.probes.iter().enumerate().rev().find_map(|(index, probe)| {
            let header = probe.header.ok().filter(|header| header.base_lsn <= lsn)?;
            Some((index, header))
        });
        let Some((index, header)) = found else {
            let first = map.probes.iter().find_map(|probe| probe.header.ok());
            let (segment, base_lsn) = first.map_or((0, 0), |header| (header.segment, header.base_lsn));
            let replay = LogReplay::new(self.log.log_id, lsn, 0);
            return Err(LogError::Damaged(Box::new(replay.damage(segment, 0, Fault::Missing { segment, base_lsn }))));
        };
        let reader = SegmentReader::open(&self.log, header.segment, WINDOW_BYTES)?;
        let replay = LogReplay::new(self.log.log_id, header.base_lsn, header.base_chain);
        Ok(Place { map, index, reader, offset: SEGMENT_HEADER_BYTES as u64, replay })
    }

    fn advance(
        &self,
        place: &mut Place,
        from_lsn: u64,
        to_lsn: u64,
        each: &mut dyn FnMut(&ReplayedFrame<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, LogError> {
        let segment = place.reader.segment;
        let cut = place.map.base_after(place.index);
        let left = place.reader.file_bytes.saturating_sub(place.offset);
        let mut needed = BLOCK_BYTES;
        let before = place.replay;
        loop {
            let bytes = place.reader.at(place.offset, needed)?;
            match place.replay.step(segment, bytes, left, cut.as_ref()) {
                Step::More { frame_bytes } => needed = frame_bytes,
                Step::Frame(frame) => {
                    let holds = frame.header.last_lsn() > from_lsn;
                    let flow = if holds { each(&frame) } else { ControlFlow::Continue(()) };
                    if flow.is_break() {
                        // The next range begins with the frame that was too much for this one.
                        place.replay = before;
                    } else {
                        place.offset += u64::from(frame.header.frame_bytes);
                    }
                    return Ok(flow);
                }
                Step::Cut => {
                    let base = cut.expect("only a cut is reached");
                    return self.enter(place, base.segment, SEGMENT_HEADER_BYTES as u64).map(ControlFlow::Continue);
                }
                Step::Bad { bad, .. } => {
                    let Some(repair) = place.map.repair_at(&place.replay, place.index, place.offset) else {
                        let fault = Fault::Frame { bad, proof: Proof::Acknowledged { lsn: to_lsn } };
                        let damage = place.replay.damage(segment, place.offset, fault);
                        return Err(LogError::Damaged(Box::new(damage)));
                    };
                    place.replay.jump(repair.to_lsn, repair.to_chain, repair.horizon_ms);
                    let (to_segment, to_offset) = (repair.to_segment, repair.to_offset);
                    if to_segment != 0 {
                        self.enter(place, to_segment, to_offset)?;
                    }
                    return Ok(ControlFlow::Continue(()));
                }
            }
        }
    }

    fn enter(&self, place: &mut Place, segment: u64, offset: u64) -> Result<(), LogError> {
        if segment != place.reader.segment {
            place.reader = SegmentReader::open(&self.log, segment, WINDOW_BYTES)?;
            place.index = place.map.index_of(segment).expect("the map named the segment");
        }
        place.offset = offset;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::testing::{TestLog, test_dir};

    #[test]
    fn a_reader_that_was_told_to_stop_goes_on_where_it_stopped() {
        let dir = test_dir();
        let mut log = TestLog::create(dir.path());
        log.fill(30, 60);
        let end = log.writer.end_lsn();
        let mut reader = LogReader::new(log.dir.clone());
        let (mut from, mut ranges) = (1, 0);
        while from < end {
            let (mut frames, mut to) = (0, from);
            let each = &mut |frame: &ReplayedFrame<'_>| {
                assert_eq!(frame.header.first_lsn, to + 1);
                if frames == 2 {
                    return ControlFlow::Break(());
                }
                (frames, to) = (frames + 1, frame.header.last_lsn());
                ControlFlow::Continue(())
            };
            reader.read_frames(from, end, each).expect("a sound log");
            let place = reader.place.as_ref().expect("kept, or the segment is read again from its beginning");
            assert_eq!((place.replay.lsn, frames), (to, 2));
            (from, ranges) = (to, ranges + 1);
        }
        assert_eq!(ranges, 15);
    }
}
