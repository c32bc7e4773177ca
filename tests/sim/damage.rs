//! Drives. Faults of the disk in what was synced, one at a time: what each does to a log, and what a start may make of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tollgate::cut::Position;
use tollgate::exit::Exit;
use tollgate::wal::frame::{BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader, SECTOR_BYTES};
use tollgate::wal::segments::LogDir;

use crate::found::{Frame, Spot, read};
use crate::rng::Rng;

const TAKES: &str = "the simulated disk takes it";

/// A fault. What lies in the last frame, or is of the newest segment, has kinds of its own: nothing comes after it that could tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    FlippedBit,
    FlippedBitOfHeader,
    ZeroedSector,
    ZeroedSectorOfLast,
    StaleSector,
    LostWrite,
    LostLastWrite,
    MisdirectedWrite,
    MisdirectedToSegment,
    MissingSegment,
    MissingNewest,
    DoubledSegment,
    SwappedSegments,
    Truncated,
    TooLong,
    RolledBack,
    /// The last frame is one that a copy of the directory wrote in its place.
    OtherTimeline,
    /// The log was set back to before the last frame that was exported, and as many records were written in that one's place.
    WrittenAnew,
}

impl Kind {
    pub const ALL: [Kind; 18] = [
        Kind::FlippedBit,
        Kind::FlippedBitOfHeader,
        Kind::ZeroedSector,
        Kind::ZeroedSectorOfLast,
        Kind::StaleSector,
        Kind::LostWrite,
        Kind::LostLastWrite,
        Kind::MisdirectedWrite,
        Kind::MisdirectedToSegment,
        Kind::MissingSegment,
        Kind::MissingNewest,
        Kind::DoubledSegment,
        Kind::SwappedSegments,
        Kind::Truncated,
        Kind::TooLong,
        Kind::RolledBack,
        Kind::OtherTimeline,
        Kind::WrittenAnew,
    ];

    /// It takes the end of the log back, and nothing else.
    fn takes_the_end(self) -> bool {
        matches!(self, Kind::MissingNewest | Kind::ZeroedSectorOfLast | Kind::LostLastWrite | Kind::RolledBack)
    }

    pub fn ends(self) -> Ends {
        const DAMAGED: &[Exit] = &[Exit::LogDamaged];
        let (survives, exits, loses) = match self {
            // With the newest segment its cut is gone: a write that never ended may stand where what was exported did.
            Kind::MissingNewest => (false, &[Exit::LogDamaged, Exit::Checkpoint][..], true),
            // A log whose only frame is gone says so, and so does what was exported.
            Kind::ZeroedSectorOfLast | Kind::LostLastWrite | Kind::MisdirectedToSegment | Kind::RolledBack => {
                (false, DAMAGED, true)
            }
            Kind::MissingSegment | Kind::TooLong => (true, DAMAGED, false),
            Kind::WrittenAnew => (false, &[Exit::Checkpoint][..], false),
            _ => (false, DAMAGED, false),
        };
        Ends { survives, exits, loses }
    }
}

/// How a kind of fault may end: the columns of the table in `docs/TRUST.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Every record is read as it was written.
    pub survives: bool,
    /// The start ends, in one of these ways.
    pub exits: &'static [Exit],
    /// The disk takes back what it had said to have synced, from the end, and leaves no trace: only what was exported can tell.
    pub loses: bool,
}

/// How the cases of a kind ended.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    /// Every record was read as it was written.
    pub survived: u64,
    /// The start ends, by exit code.
    pub detected: BTreeMap<i32, u64>,
    /// The end of the log is gone, and nobody can tell.
    pub lost: u64,
}

impl Outcomes {
    pub fn cases(&self) -> u64 {
        self.survived + self.lost + self.detected.values().sum::<u64>()
    }

    pub fn add(&mut self, other: &Outcomes) {
        self.survived += other.survived;
        self.lost += other.lost;
        other.detected.iter().for_each(|(code, cases)| *self.detected.entry(*code).or_default() += cases);
    }

    pub fn json(&self) -> String {
        let detected = self.detected.iter().map(|(code, cases)| format!("\"{code}\":{cases}"));
        let detected = detected.collect::<Vec<_>>().join(",");
        let (cases, survived, lost) = (self.cases(), self.survived, self.lost);
        format!("{{\"cases\":{cases},\"survived\":{survived},\"detected\":{{{detected}}},\"lost\":{lost}}}")
    }
}

/// A log that reads otherwise than it was written: what the fault took from its end is gone, was not exported, and nothing else is.
fn shorter(kind: Kind, mut found: Vec<Frame>, base: &[Frame], spots: &[Spot], known: Option<&Position>) -> Fate {
    if kind == Kind::RolledBack {
        // What was freed since is there again.
        let freed = found.iter().position(|frame| Some(frame) == base.first()).unwrap_or(found.len());
        found.drain(..freed);
    }
    let same = found.iter().zip(base).take_while(|(one, other)| one == other).count();
    let newest = spots[spots.len() - 1].segment;
    let took_no_more = match kind {
        Kind::RolledBack => true,
        Kind::MissingNewest => same == spots.partition_point(|spot| spot.segment < newest),
        _ => same == base.len() - 1,
    };
    // With the newest segment its cut is gone: what a dead process was writing there, which nobody was answered, is read again.
    let behind_the_cut = kind == Kind::MissingNewest && found.len() == same + 1 && found[same].lsn == base[same].lsn;
    assert!(
        took_no_more && (found.len() == same || behind_the_cut),
        "{kind:?} made records, changed or took some: {} frames, then {}, {same} of them the same",
        base.len(),
        found.len()
    );
    let exported = known.map_or(0, |known| known.lsn);
    let kept = base[same].lsn - 1;
    assert!(kept >= exported, "{kind:?}: exported up to LSN {exported}, and the log ends at {kept}");
    Fate::Shorter { clicks: found.iter().map(|frame| frame.clicks).sum() }
}

/// Whether a start can know that the end of a log is gone: it was exported, which is all that is wrong with what is left; with it all frames are
/// gone; or something lies behind, a write that nobody was answered.
fn is_missed(kind: Kind, log: &LogDir, spots: &[Spot]) -> bool {
    let last = spots[spots.len() - 1];
    let exported = read(log, None).is_ok();
    let all = spots.len() == 1 || kind == Kind::MissingNewest && spots[0].segment == last.segment;
    exported || all || is_followed(log, last)
}

fn is_followed(log: &LogDir, last: Spot) -> bool {
    let behind = |segment: u64| {
        let file = std::fs::read(log.segment_path(segment)).unwrap_or_default();
        let from = if segment == last.segment { last.offset as usize + last.bytes } else { 0 };
        file.get(from..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0))
    };
    let segments = log.segments().unwrap_or_default();
    segments.iter().any(|file| file.segment >= last.segment && behind(file.segment))
}

/// How to undo a fault. Whoever has a segment open finds the same file again.
#[derive(Default)]
struct Before(Vec<Undo>);

enum Undo {
    Write(PathBuf, Vec<u8>),
    Remove(PathBuf),
    MoveBack { away: PathBuf, path: PathBuf },
}

impl Before {
    fn change(&mut self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let file = std::fs::read(path).expect("the file is there");
        let mut changed = file.clone();
        change(&mut changed);
        std::fs::write(path, changed).expect(TAKES);
        self.0.push(Undo::Write(path.to_owned(), file));
    }

    fn make(&mut self, path: &Path, bytes: &[u8]) {
        std::fs::write(path, bytes).expect(TAKES);
        self.0.push(Undo::Remove(path.to_owned()));
    }

    fn remove(&mut self, log: &LogDir, segment: u64) {
        let path = log.segment_path(segment);
        let data_dir = log.path.parent().and_then(Path::parent).expect("a log lies in logs/ of its data directory");
        let away = data_dir.join(format!("away-{segment}"));
        std::fs::rename(&path, &away).expect(TAKES);
        self.0.push(Undo::MoveBack { away, path });
    }

    fn undo(self) {
        for undo in self.0.into_iter().rev() {
            match undo {
                Undo::Write(path, bytes) => std::fs::write(path, bytes),
                Undo::Remove(path) => std::fs::remove_file(path),
                Undo::MoveBack { away, path } => std::fs::rename(away, path),
            }
            .expect(TAKES);
        }
    }
}

/// What a start made of a fault.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// Every record was read as it was written, and so many frames.
    Survived { frames: usize },
    /// The start ends with this exit code.
    Halted(i32),
    /// The end of the log is gone, and nobody can tell; it has this many clicks.
    Shorter { clicks: u64 },
}

/// Files and what is in them.
type Files = Vec<(PathBuf, Vec<u8>)>;

/// Damages logs, and keeps count of what came of it.
pub struct Faults {
    rng: Rng,
    pub outcomes: BTreeMap<Kind, Outcomes>,
    /// Logs as they were before.
    earlier: BTreeMap<PathBuf, Files>,
}

impl Faults {
    pub fn new(seed: u64) -> Faults {
        Faults { rng: Rng::new(seed ^ 0xFA17), outcomes: BTreeMap::new(), earlier: BTreeMap::new() }
    }

    /// Whether one comes, in so many of a hundred cases.
    pub fn comes(&mut self, percent: u64) -> bool {
        self.rng.percent(percent)
    }

    /// One of any kind, in a log that grows.
    pub fn any(&mut self, log: &LogDir, known: Option<&Position>, meanwhile: &mut dyn FnMut(Kind, &Fate) -> bool) {
        let kind = self.rng.pick(&Kind::ALL);
        self.one(kind, log, known, &mut |fate| meanwhile(kind, fate));
        if !self.earlier.contains_key(&log.path) || self.rng.percent(5) {
            self.remember(log);
        }
    }

    /// One fault, what a start makes of it, `meanwhile` with the fault in place, and the log as it was, unless that says that it stays. False:
    /// the log has nothing that such a fault could meet.
    pub fn one(
        &mut self,
        kind: Kind,
        log: &LogDir,
        known: Option<&Position>,
        meanwhile: &mut dyn FnMut(&Fate) -> bool,
    ) -> bool {
        let (base, spots) = read(log, known).unwrap_or_else(|error| panic!("before a fault, the log halts: {error}"));
        let Some(before) = self.damage(kind, log, &spots, known) else { return false };
        let read = read(log, known);
        // Nothing was written since it was remembered, though some may have been freed.
        if kind == Kind::RolledBack && read.as_ref().is_ok_and(|(found, _)| found.ends_with(&base)) {
            before.undo();
            return false;
        }
        let fate = match read {
            Err(error) => {
                assert!(kind.ends().exits.contains(&error.exit()), "{kind:?}: {error}");
                assert!(
                    !kind.takes_the_end() || is_missed(kind, log, &spots),
                    "{kind:?}: nothing tells that the end is gone, but: {error}"
                );
                Fate::Halted(error.exit().code())
            }
            Ok((found, _)) if found == base => {
                assert!(kind.ends().survives, "{kind:?}: the start took every record, and did not halt");
                Fate::Survived { frames: base.len() }
            }
            Ok((found, _)) => {
                let (was, is) = (base.len(), found.len());
                assert!(kind.ends().loses, "{kind:?}: of {was} frames the start took {is}, and did not halt");
                shorter(kind, found, &base, &spots, known)
            }
        };
        let outcomes = self.outcomes.entry(kind).or_default();
        match fate {
            Fate::Halted(code) => *outcomes.detected.entry(code).or_default() += 1,
            Fate::Survived { .. } => outcomes.survived += 1,
            Fate::Shorter { .. } => outcomes.lost += 1,
        }
        if !meanwhile(&fate) {
            before.undo();
        }
        true
    }

    /// For a log that is set back later.
    pub fn remember(&mut self, log: &LogDir) {
        let files = log.segments().expect("it is read").into_iter().map(|file| log.segment_path(file.segment));
        let files = files.map(|path| (path.clone(), std::fs::read(path).expect("it is listed"))).collect();
        self.earlier.insert(log.path.clone(), files);
    }

    /// None: the log has nothing that this kind of fault could meet.
    fn damage(&mut self, kind: Kind, log: &LogDir, spots: &[Spot], known: Option<&Position>) -> Option<Before> {
        let mut before = Before::default();
        let (last, older) = spots.split_last()?;
        let middle = |faults: &mut Faults| (!older.is_empty()).then(|| older[faults.rng.index(older.len())]);
        let any = spots[self.rng.index(spots.len())];
        let segments: Vec<u64> = log.segments().ok()?.iter().map(|file| file.segment).collect();
        match kind {
            Kind::FlippedBit => self.in_file(&mut before, log, any, |rng, bytes| {
                let at = rng.index(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
            }),
            Kind::FlippedBitOfHeader => {
                let header = Spot { segment: any.segment, offset: 0, bytes: BLOCK_BYTES };
                self.in_file(&mut before, log, header, |rng, bytes| {
                    // Half of them in the header itself, the rest of its block is zeros.
                    let at = if rng.percent(50) { rng.index(128) } else { rng.index(bytes.len()) };
                    bytes[at] ^= 1 << rng.below(8);
                });
            }
            Kind::ZeroedSector => {
                let spot = middle(self)?;
                self.zero_a_sector(&mut before, log, spot);
            }
            Kind::ZeroedSectorOfLast => self.zero_a_sector(&mut before, log, *last),
            Kind::StaleSector => {
                let source = middle(self)?;
                let stale = self.sector(log, source)?;
                let at = self.sector(log, any)?;
                // Of two that hold the same, one in the other's place is no fault.
                if stale.1 == at.1 {
                    return None;
                }
                before.change(&log.segment_path(any.segment), |file| {
                    file[at.0..at.0 + SECTOR_BYTES].copy_from_slice(&stale.1);
                });
            }
            Kind::LostWrite => {
                let lost = middle(self)?;
                self.in_file(&mut before, log, lost, |_, bytes| bytes.fill(0));
            }
            Kind::LostLastWrite => self.in_file(&mut before, log, *last, |_, bytes| bytes.fill(0)),
            Kind::MisdirectedWrite => {
                let over = middle(self)?;
                let went = Spot { bytes: last.bytes, ..over };
                self.misdirect(&mut before, log, *last, went);
            }
            Kind::MisdirectedToSegment => {
                let other = *segments.iter().find(|segment| **segment != last.segment)?;
                self.misdirect(&mut before, log, *last, Spot { segment: other, ..*last });
            }
            Kind::MissingSegment => {
                let between = |segment: &u64| spots[0].segment < *segment && *segment < last.segment;
                let gone: Vec<u64> = segments.into_iter().filter(between).collect();
                if gone.is_empty() {
                    return None;
                }
                before.remove(log, gone[self.rng.index(gone.len())]);
            }
            Kind::MissingNewest => {
                let newest = segments.into_iter().filter(|segment| *segment >= last.segment);
                newest.for_each(|segment| before.remove(log, segment));
            }
            Kind::DoubledSegment => {
                let (from, to) = (log.segment_path(any.segment), log.segment_path(segments.last()? + 1));
                let copy = std::fs::read(from).ok()?;
                before.make(&to, &copy);
            }
            Kind::SwappedSegments => {
                let with = spots[self.rng.index(spots.len())].segment;
                if with == any.segment {
                    return None;
                }
                let paths = [log.segment_path(any.segment), log.segment_path(with)];
                let [one, other] = [std::fs::read(&paths[0]).ok()?, std::fs::read(&paths[1]).ok()?];
                let [first, second] = paths;
                before.change(&first, |file| *file = other);
                before.change(&second, |file| *file = one);
            }
            Kind::Truncated => {
                // Within or before a frame.
                let length = any.offset as usize + SECTOR_BYTES * self.rng.index(any.bytes / SECTOR_BYTES);
                before.change(&log.segment_path(any.segment), |file| file.truncate(length));
            }
            Kind::TooLong => {
                let tail: Vec<u8> = (0..SECTOR_BYTES).map(|_| self.rng.next() as u8).collect();
                before.change(&log.segment_path(any.segment), |file| file.extend_from_slice(&tail));
            }
            Kind::OtherTimeline => self.in_file(&mut before, log, *last, |rng, bytes| {
                let (mut header, _) = FrameHeader::decode(&bytes[..BLOCK_BYTES]).expect("it was read");
                header.previous_chain ^= rng.between(1, u64::MAX - 1);
                header.encode(&mut bytes[..FRAME_HEADER_BYTES]);
            }),
            Kind::WrittenAnew => write_anew(&mut before, log, spots, known?)?,
            Kind::RolledBack => {
                let files = self.earlier.get(&log.path)?;
                segments.into_iter().for_each(|segment| before.remove(log, segment));
                files.iter().for_each(|(path, bytes)| before.make(path, bytes));
            }
        }
        Some(before)
    }

    /// A sector of a spot, and where it lies in its segment.
    fn sector(&mut self, log: &LogDir, spot: Spot) -> Option<(usize, Vec<u8>)> {
        let file = std::fs::read(log.segment_path(spot.segment)).ok()?;
        let at = spot.offset as usize + SECTOR_BYTES * self.rng.index(spot.bytes / SECTOR_BYTES);
        Some((at, file[at..at + SECTOR_BYTES].to_vec()))
    }

    /// Changes the bytes of a spot.
    fn in_file(&mut self, before: &mut Before, log: &LogDir, spot: Spot, change: impl FnOnce(&mut Rng, &mut [u8])) {
        let from = spot.offset as usize;
        let rng = &mut self.rng;
        before.change(&log.segment_path(spot.segment), |file| change(rng, &mut file[from..from + spot.bytes]));
    }

    fn zero_a_sector(&mut self, before: &mut Before, log: &LogDir, spot: Spot) {
        self.in_file(before, log, spot, |rng, bytes| {
            let at = SECTOR_BYTES * rng.index(bytes.len() / SECTOR_BYTES);
            bytes[at..at + SECTOR_BYTES].fill(0);
        });
    }

    /// The frame at one place went to another, and its own place was left as it was: zeros.
    fn misdirect(&mut self, before: &mut Before, log: &LogDir, meant: Spot, went: Spot) {
        let mut frame = Vec::new();
        self.in_file(before, log, meant, |_, bytes| {
            frame = bytes.to_vec();
            bytes.fill(0);
        });
        before.change(&log.segment_path(went.segment), |file| {
            let from = went.offset as usize;
            let end = file.len().min(from + frame.len());
            file[from..end].copy_from_slice(&frame[..end - from]);
        });
    }
}

/// Another frame, sound in itself, where the last one that was exported ends, and nothing behind it.
fn write_anew(before: &mut Before, log: &LogDir, spots: &[Spot], known: &Position) -> Option<()> {
    let header = |spot: &Spot| {
        let file = std::fs::read(log.segment_path(spot.segment)).ok()?;
        FrameHeader::decode(&file[spot.offset as usize..][..BLOCK_BYTES]).ok().map(|(header, _)| header)
    };
    let ends_there = |header: &FrameHeader| header.records > 0 && header.last_lsn() == known.lsn;
    let (spot, found) = spots.iter().find_map(|spot| Some((spot, header(spot).filter(ends_there)?)))?;
    for file in log.segments().ok()?.iter().filter(|file| file.segment > spot.segment) {
        before.remove(log, file.segment);
    }
    before.change(&log.segment_path(spot.segment), |file| {
        let from = spot.offset as usize;
        file[from + spot.bytes..].fill(0);
        FrameHeader { built_ms: found.built_ms + 1, ..found }.encode(&mut file[from..from + FRAME_HEADER_BYTES]);
    });
    Some(())
}
