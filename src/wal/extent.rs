//! Finds the exact extent of damage: what is lost, and where the log is sound again. For `tollgate wal verify` and `repair`;
//! reads only.

use std::collections::BTreeMap;

use super::frame::{BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES};
use super::record::{self, Record};
use super::recover::{LogMap, Progress, WINDOW_BYTES, Walked, walk_map};
use super::repairs::{Audit, Repair};
use super::replay::{Damage, Fault, decode_records, hex, totals_with};
use super::segments::{LogDir, LogError, SegmentReader};
use crate::click::EventTime;
use crate::cut::{Position, Totals};

/// After so many damaged places the search stops: such a log wants another disk, not repairs.
const FINDINGS_MAX: usize = 1_000;
/// No record is shorter.
const RECORD_BYTES_MIN: u64 = 32;
/// (ad, pane) pairs named of what is lost.
const NAMED_MAX: usize = 1_000;

/// One damaged place.
#[derive(Clone, Debug)]
pub struct Finding {
    pub damage: Damage,
    /// `None` where the log cannot go on after it by skipping records: another file, or another log, than it says.
    pub extent: Option<Extent>,
}

/// The records after `damage.lsn` up to and including `to_lsn` are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    pub to_lsn: u64,
    pub to_chain: u64,
    /// Segment and offset of the next sound frame; `None`: nothing sound comes after.
    pub resume: Option<(u64, u64)>,
    /// Whether `to_lsn` is known; otherwise it is the most that can be.
    pub exact: bool,
    /// Newest event or received time that can be among the lost; `None` where their headers cannot be read.
    pub newest_ms: Option<i64>,
    pub lost_clicks: Option<u64>,
    /// What could still be read of the lost records: clicks by ad and start of the pane.
    pub named: BTreeMap<(String, i64), u64>,
}

/// What a log amounts to, damage included.
#[derive(Debug)]
pub struct Verified {
    /// What the walk found, with every damaged place stepped over; `None` where that is not possible.
    pub walked: Option<Walked>,
    pub findings: Vec<Finding>,
}

/// Walks a log to its end, over all damage. The log may be written to meanwhile: a write caught half-way looks like damage,
/// and is gone at a second look.
pub fn verify_log(log: &LogDir, checkpoint: Option<&Position>) -> Result<Verified, LogError> {
    let mut map = LogMap::read(log)?;
    let mut findings = Vec::new();
    let mut seen = None;
    loop {
        let walk = walk_map(log, &map, checkpoint, &mut Progress::default(), &mut |_| {}, &mut |_, _, _| {});
        let damage = match walk {
            Ok(walked) => return Ok(Verified { walked: Some(walked), findings }),
            Err(LogError::Damaged(damage)) => *damage,
            Err(other) => return Err(other),
        };
        if seen.replace(damage) != Some(damage) {
            let repairs = std::mem::take(&mut map.repairs);
            map = LogMap { repairs, ..LogMap::read(log)? };
            continue;
        }
        let extent = extent(log, &map, &damage, checkpoint)?;
        let step_over = extent.as_ref().map(|extent| repair(&damage, extent, i64::MIN, 0, "verify"));
        findings.push(Finding { damage, extent });
        match step_over {
            Some(repair) if findings.len() < FINDINGS_MAX && !map.repairs.contains(&repair) => map.repairs.push(repair),
            Some(_) | None => return Ok(Verified { walked: None, findings }),
        }
    }
}

/// The repair that goes on after this damage.
pub fn repair(damage: &Damage, extent: &Extent, horizon_ms: i64, repaired_ms: i64, kind: &str) -> Repair {
    let (to_segment, to_offset) = extent.resume.unwrap_or((0, 0));
    Repair {
        lsn: damage.lsn,
        chain: damage.chain,
        segment: damage.segment,
        offset: damage.offset,
        to_lsn: extent.to_lsn,
        to_chain: extent.to_chain,
        to_segment,
        to_offset,
        horizon_ms,
        audit: Audit {
            log_id: hex(&damage.log_id),
            repaired_ms,
            kind: kind.to_owned(),
            damage: damage.fault.to_string(),
            lost_records: extent.to_lsn - damage.lsn,
            lost_records_exact: extent.exact,
            lost_clicks: extent.lost_clicks,
        },
    }
}

fn extent(
    log: &LogDir,
    map: &LogMap,
    damage: &Damage,
    checkpoint: Option<&Position>,
) -> Result<Option<Extent>, LogError> {
    match damage.fault {
        Fault::SegmentForeign { .. } | Fault::NoFrame | Fault::Checkpoint { .. } => return Ok(None),
        Fault::Frame { .. } | Fault::SegmentHeader { .. } | Fault::Truncated { .. } | Fault::Missing { .. } => {}
    }
    let mut search = Search { log, damage, lost: Lost::default() };
    let begin = map.index_of(damage.segment).unwrap_or(map.probes.len());
    for (index, probe) in map.probes.iter().enumerate().skip(begin) {
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        if index == begin {
            offset = offset.max(damage.offset);
        } else if let Ok(header) = probe.header {
            // The newest cut before it counts, and it is this segment's own base.
            if header.base_lsn >= damage.lsn && header.log_id == damage.log_id {
                let resume = Some((probe.segment, offset));
                return Ok(Some(search.lost.extent(damage, header.base_lsn, header.base_chain, resume)));
            }
        }
        if let Some(extent) = search.segment(probe.segment, offset, index == begin && damage.offset != 0)? {
            return Ok(Some(extent));
        }
    }
    let at_least = checkpoint.map_or(0, |position| position.lsn);
    let missing = match damage.fault {
        Fault::Truncated { found, expected } => expected - found,
        Fault::Frame { .. } | Fault::SegmentHeader { .. } | Fault::Missing { .. } => 0,
        Fault::SegmentForeign { .. } | Fault::NoFrame | Fault::Checkpoint { .. } => 0,
    };
    let lost = &mut search.lost;
    lost.unknown_bytes += missing;
    let bound = lost.known_to_lsn.max(damage.lsn).max(at_least) + lost.unknown_bytes / RECORD_BYTES_MIN;
    let mut extent = lost.extent(damage, bound, Repair::chain_after(damage.chain, bound), None);
    extent.exact = lost.unknown_bytes == 0;
    Ok(Some(extent))
}

struct Search<'a> {
    log: &'a LogDir,
    damage: &'a Damage,
    lost: Lost,
}

/// What is seen of the lost records on the way.
#[derive(Default)]
struct Lost {
    known_to_lsn: u64,
    /// Bytes that are not zero and belong to no readable header.
    unknown_bytes: u64,
    newest_ms: Option<i64>,
    /// The log's clicks up to an LSN, from the newest header that says.
    clicks_before: Option<(u64, u64)>,
    named: BTreeMap<(String, i64), u64>,
}

impl Search<'_> {
    /// Looks for a sound frame from `offset` on. The damaged frame itself, `first`, is never taken for one.
    fn segment(&mut self, segment: u64, from: u64, first: bool) -> Result<Option<Extent>, LogError> {
        let mut reader = SegmentReader::open(self.log, segment, WINDOW_BYTES)?;
        let mut offset = from;
        while offset < reader.file_bytes {
            let block = reader.at(offset, BLOCK_BYTES)?;
            let block = &block[..block.len().min(BLOCK_BYTES)];
            let decoded = FrameHeader::decode(block).ok();
            let Some((header, _)) = decoded.filter(|(header, _)| self.is_ours(header, segment)) else {
                if !super::frame::is_zero(block) {
                    self.lost.unknown_bytes += block.len() as u64;
                }
                offset += BLOCK_BYTES as u64;
                continue;
            };
            let frame = reader.at(offset, header.frame_bytes as usize)?;
            let is_damaged_one = first && offset == from && header.previous_chain == self.damage.chain;
            let sound = header.holds(frame) && !is_damaged_one;
            if let Some(records) = sound.then(|| decode_records(&header, frame).ok()).flatten() {
                let own = totals_with(Totals::default(), &records);
                let (to_lsn, resume) = (header.first_lsn - 1, Some((segment, offset)));
                self.lost.clicks_before = Some((to_lsn, header.totals.clicks.saturating_sub(own.clicks)));
                return Ok(Some(self.lost.extent(self.damage, to_lsn, header.previous_chain, resume)));
            }
            self.lost.frame(&header, frame);
            offset += u64::from(header.frame_bytes);
        }
        Ok(None)
    }

    fn is_ours(&self, header: &FrameHeader, segment: u64) -> bool {
        header.log_id == self.damage.log_id && header.segment == segment && header.first_lsn > self.damage.lsn
    }
}

impl Lost {
    /// A frame whose header holds and whose payload does not: what can be read of it.
    fn frame(&mut self, header: &FrameHeader, frame: &[u8]) {
        self.clicks_before = Some((header.last_lsn(), header.totals.clicks));
        self.known_to_lsn = self.known_to_lsn.max(header.last_lsn());
        self.newest_ms = self.newest_ms.max(Some(header.newest_ms));
        let payload_to = (FRAME_HEADER_BYTES + header.payload_bytes as usize).min(frame.len());
        let mut rest = &frame[FRAME_HEADER_BYTES.min(payload_to)..payload_to];
        while let Ok((record, length)) = record::decode(rest) {
            if let Record::Click(click) = record {
                let mut uuid = [0; record::UUID_TEXT_BYTES];
                let fields = click.to_click(&mut uuid);
                let ad = String::from_utf8_lossy(fields.ad_id).into_owned();
                let pane = EventTime(click.event_ms()).pane().start_ms();
                if self.named.len() < NAMED_MAX || self.named.contains_key(&(ad.clone(), pane)) {
                    *self.named.entry((ad, pane)).or_default() += 1;
                }
            }
            rest = &rest[length..];
        }
    }

    fn lost_clicks(&self, damage: &Damage, to_lsn: u64) -> Option<u64> {
        if to_lsn == damage.lsn {
            return Some(0);
        }
        let (lsn, clicks) = self.clicks_before?;
        clicks.checked_sub(damage.totals?.clicks).filter(|_| lsn == to_lsn)
    }

    fn extent(&self, damage: &Damage, to_lsn: u64, to_chain: u64, resume: Option<(u64, u64)>) -> Extent {
        let all_seen = self.known_to_lsn.max(damage.lsn) == to_lsn && self.unknown_bytes == 0;
        Extent {
            to_lsn,
            to_chain,
            resume,
            exact: true,
            newest_ms: self.newest_ms.filter(|_| all_seen),
            lost_clicks: self.lost_clicks(damage, to_lsn),
            named: self.named.clone(),
        }
    }
}
