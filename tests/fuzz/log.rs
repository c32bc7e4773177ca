//! Any bytes where a log should be: decoding and replay are total, what was sound before the first strange byte is still
//! taken, and nothing is taken that was not written so.
//!
//! An input is a script: frames with records made of its bytes, then changes to the segment's bytes, then a tail.

use std::os::unix::fs::FileExt as _;

use tollgate::click::*;
use tollgate::config::DEAD_LETTER_RAW_BYTES_MAX;
use tollgate::cut::{LogId, Totals};
use tollgate::wal::frame::{
    BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader, PADDING, SECTOR_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, crc32c,
    frame_bytes,
};
use tollgate::wal::record::{self, Cause, Record, Start};
use tollgate::wal::recover::{Progress, walk_log};
use tollgate::wal::replay::{Base, Fault, LogReplay, Step, totals_with};
use tollgate::wal::segments::{LogDir, LogError};

const LOG_ID: LogId = *b"a fuzzer's log!!";
const SEGMENT: u64 = 7;
const BASE: (u64, u64) = (41, 0xBA5E);
const FRAMES_MAX: u8 = 3;
const RECORDS_MAX: u8 = 4;
/// Most scripts make less; a longer one is what it is.
const SEGMENT_BYTES: u64 = 64 << 10;
/// Too few changed bytes to make a checksum right by chance.
const CHANGES_MAX: u8 = 7;

pub fn check(input: &[u8]) {
    let Scripted { segments, forged, walked } = decodes(input);
    if walked {
        walks(&segments, forged);
    }
}

/// What a script makes.
pub struct Scripted {
    segments: [(Vec<u8>, Log); 2],
    forged: bool,
    /// Whether a start is to read it, too.
    walked: bool,
}

/// The check without files, which take most of its time.
pub fn decodes(input: &[u8]) -> Scripted {
    record_decodes_totally(input);
    let mut script = Script { left: input };
    let mut log = Log::new(SEGMENT, BASE, Totals::default());
    for _ in 0..script.byte() % (FRAMES_MAX + 1) {
        let records: Vec<Vec<u8>> = (0..script.byte() % (RECORDS_MAX + 1)).map(|_| script.record()).collect();
        log.push(&records, u32::from(script.byte()));
    }
    let manner = script.byte();
    let next = log.next(FRAMES_MAX - (manner >> 4) % (FRAMES_MAX + 1));
    let mut segments = [log, next].map(|log| (log.on_disk(), log));
    for _ in 0..script.byte() % (CHANGES_MAX + 1) {
        script.change(&mut segments);
    }
    let forged = manner & 1 != 0;
    if forged {
        for (bytes, log) in &mut segments {
            log.forge_checksums(bytes);
            log.only_torn = false;
        }
    }
    let [(bytes, log), _] = &mut segments;
    if manner & 2 != 0 {
        bytes.truncate(log.bytes.len());
        bytes.extend_from_slice(script.left);
        log.only_torn &= script.left.is_empty();
    }
    for (bytes, log) in &segments {
        segment_header_reads_as_it_was_written(&bytes[..BLOCK_BYTES]);
        let base = log.end();
        replays(bytes, log, forged, (manner & 4 != 0).then_some(&base));
    }
    Scripted { segments, forged, walked: manner & 8 == 0 }
}

/// A record of any bytes: an error, or something whose every part can be asked for.
fn record_decodes_totally(bytes: &[u8]) {
    let Ok((record, length)) = record::decode(bytes) else { return };
    assert_eq!(length, record::record_length(bytes));
    if let Record::Click(click) = record {
        assert_eq!(click.bytes(), &bytes[..length]);
    }
    every_part_can_be_asked_for(record);
}

fn every_part_can_be_asked_for(record: Record<'_>) {
    match record {
        Record::Click(click) => {
            assert!(click.partial_key().len() <= click.bytes().len() && click.check() < 128);
            let mut uuid = [0; record::UUID_TEXT_BYTES];
            let fields = click.to_click(&mut uuid);
            assert_eq!((fields.key, fields.event_time.0), (click.key(), click.event_ms()));
        }
        Record::DeadLetter(letter) => {
            let raw = letter.raw();
            if letter.cut_off() || letter.key().is_none() || raw.len() > DEAD_LETTER_RAW_BYTES_MAX {
                return;
            }
            let mut again = Vec::new();
            record::encode_dead_letter(letter.cause, letter.key(), letter.received_ms(), &raw, &mut again);
            let Ok((Record::DeadLetter(same), _)) = record::decode(&again) else { panic!("a dead letter was encoded") };
            assert_eq!((same.cause, same.key(), same.raw()), (letter.cause, letter.key(), raw));
        }
        Record::Start(start) => {
            let mut again = Vec::new();
            record::encode_start(&start, &mut again);
            assert_eq!(record::decode(&again), Ok((record, again.len())), "a start's record says everything of it");
        }
    }
}

fn segment_header_reads_as_it_was_written(bytes: &[u8]) {
    let Ok(header) = SegmentHeader::decode(bytes) else { return };
    let mut again = vec![0; SEGMENT_HEADER_BYTES];
    header.encode(&mut again);
    assert_eq!(again, bytes, "an accepted segment header says everything of its bytes");
}

/// Steps over a segment to its end or to the first frame that does not hold.
fn replays(bytes: &[u8], log: &Log, forged: bool, cut: Option<&Base>) {
    let is_as_written = |end: usize| log.is_as_written(bytes, end);
    let sound = log.sound(bytes);
    let mut replay = LogReplay::new(LOG_ID, log.base.0, log.base.1);
    let (mut at, mut taken) = (SEGMENT_HEADER_BYTES, 0);
    let mut window = BLOCK_BYTES;
    loop {
        let rest = &bytes[at..];
        let before = replay;
        match replay.step(log.segment, &rest[..rest.len().min(window)], rest.len() as u64, cut) {
            Step::More { frame_bytes } => {
                assert!(frame_bytes > window && frame_bytes <= rest.len(), "asked for {frame_bytes} of {}", rest.len());
                assert_eq!(replay, before, "a frame that is not at hand changes nothing");
                window = frame_bytes;
            }
            Step::Frame(frame) => {
                let written = &rest[..frame.header.frame_bytes as usize];
                let mut header = [0; FRAME_HEADER_BYTES];
                assert_eq!(frame.header.encode(&mut header), frame.chain);
                assert_eq!(header, written[..FRAME_HEADER_BYTES], "an accepted header says everything of its bytes");
                assert_eq!(frame.records.len(), frame.header.records as usize);
                frame.records.iter().for_each(|record| every_part_can_be_asked_for(*record));
                at += written.len();
                taken += 1;
                assert!(forged || is_as_written(at), "frame {taken} was taken and never written so");
                assert_eq!((replay.lsn, replay.chain), (frame.header.last_lsn(), frame.chain));
                window = BLOCK_BYTES;
            }
            Step::Cut => {
                assert!(cut.is_some_and(|base| replay.is_at(base)), "a cut where the next segment does not begin");
                break;
            }
            Step::Bad { bad: _, torn } => {
                assert_eq!(replay, before, "a bad frame changes nothing");
                assert!(torn || !log.only_torn, "a frame whose sectors were never written is called damaged");
                break;
            }
        }
    }
    assert!(taken >= sound, "{taken} frames were taken, {sound} are as they were written");
}

/// Files of a log that a start reads; gone when it is dropped.
struct Files(LogDir);

impl Files {
    /// In memory: direct reads of what was just written would wait for a disk.
    fn of(segments: &[(Vec<u8>, Log)]) -> Files {
        let name = format!("/dev/shm/tollgate-fuzz-{}-{:?}", std::process::id(), std::thread::current().id());
        let files = Files(LogDir { core: 0, log_id: LOG_ID, path: name.into() });
        std::fs::create_dir_all(&files.0.path).expect("ours");
        for (bytes, log) in segments {
            let file = std::fs::File::create(files.0.segment_path(log.segment)).expect("ours");
            file.write_all_at(bytes, 0).expect("ours");
            file.set_len(SEGMENT_BYTES.max(bytes.len() as u64)).expect("ours");
        }
        files
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What is left is in memory, and named.
        let _ = std::fs::remove_dir_all(&self.0.path);
    }
}

/// A start's reading of both segments: the later one with or without a header, and what of it lies beyond a frame that does not hold.
fn walks(segments: &[(Vec<u8>, Log); 2], forged: bool) {
    let files = Files::of(segments);
    let mut taken = [0, 0];
    let walked = walk_log(&files.0, None, &mut Progress::default(), &mut |_| {}, &mut |segment, at, frame| {
        let nth = (segment - SEGMENT) as usize;
        let (bytes, log) = &segments[nth];
        let frame = at as usize..at as usize + frame.header.frame_bytes as usize;
        assert!(forged || bytes.get(frame.clone()) == log.bytes.get(frame), "it was taken and never written so");
        taken[nth] += 1;
    });
    let [headed, next_headed] =
        segments.each_ref().map(|(bytes, log)| bytes[..BLOCK_BYTES] == log.bytes[..BLOCK_BYTES]);
    let [sound, next_sound] = segments.each_ref().map(|(bytes, log)| log.sound(bytes));
    let frames = segments.each_ref().map(|(_, log)| log.ends.len());
    let all = headed && sound == frames[0];
    assert!(
        !headed || taken[0] >= sound,
        "{taken:?} frames were taken, {sound} and {next_sound} are as they were written"
    );
    assert!(
        !all || !next_headed || taken[1] >= next_sound,
        "{taken:?} of {frames:?}, {next_sound} as they were written"
    );
    match walked {
        Ok(_) => {
            assert!(
                forged || !headed || !next_headed || taken[0] == frames[0],
                "{taken:?} of {frames:?}, and no damage"
            );
            let [_, (bytes, next)] = segments;
            let later = (taken[1] + 1..frames[1]).find(|nth| next.holds(bytes, *nth));
            assert_eq!(later, None, "{taken:?} of {frames:?}: a later frame is there, and no damage");
        }
        Err(LogError::Damaged(damage)) => {
            let whole = all && next_headed && next_sound == frames[1];
            assert!(
                !whole
                    || (frames == [0, 0] && damage.fault == Fault::NoFrame)
                    || segments.iter().any(|(_, log)| !log.only_torn),
                "{damage} of nothing"
            );
        }
        Err(error) => panic!("any bytes are readable: {error}"),
    }
}

/// A segment as the writer makes it.
struct Log {
    segment: u64,
    /// LSN and chain at which it begins.
    base: (u64, u64),
    bytes: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<usize>,
    lsn: u64,
    chain: u64,
    totals: Totals,
    /// Nothing was done to the bytes but what an unfinished write does.
    only_torn: bool,
}

impl Log {
    fn new(segment: u64, base: (u64, u64), totals: Totals) -> Log {
        let header = SegmentHeader {
            core: 0,
            log_id: LOG_ID,
            segment,
            base_lsn: base.0,
            base_chain: base.1,
            segment_bytes: SEGMENT_BYTES,
            created_ms: 1_763_791_100_000,
            dedup_key: 0,
            nonce: [9; 16],
        };
        // Room for what most scripts make of it.
        let mut bytes = Vec::with_capacity(8 * SEGMENT_HEADER_BYTES);
        bytes.resize(SEGMENT_HEADER_BYTES, 0);
        header.encode(&mut bytes);
        Log { segment, base, bytes, ends: Vec::new(), lsn: base.0, chain: base.1, totals, only_torn: true }
    }

    /// The segment that goes on after it, with so many frames.
    fn next(&self, frames: u8) -> Log {
        let mut next = Log::new(self.segment + 1, (self.lsn, self.chain), self.totals);
        for incarnation in 0..u64::from(frames) {
            let mut record = Vec::new();
            record::encode_start(&Start { incarnation, nonce: [7; 16], started_ms: 5 }, &mut record);
            next.push(&[record], 0);
        }
        next
    }

    /// Its bytes, and a block of what was prepared.
    fn on_disk(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes.len() + BLOCK_BYTES);
        bytes.extend_from_slice(&self.bytes);
        bytes.resize(self.bytes.len() + BLOCK_BYTES, 0);
        bytes
    }

    fn is_as_written(&self, bytes: &[u8], end: usize) -> bool {
        bytes.get(SEGMENT_HEADER_BYTES..end) == self.bytes.get(SEGMENT_HEADER_BYTES..end)
    }

    fn holds(&self, bytes: &[u8], frame: usize) -> bool {
        let from = if frame == 0 { SEGMENT_HEADER_BYTES } else { self.ends[frame - 1] };
        bytes.get(from..self.ends[frame]) == self.bytes.get(from..self.ends[frame])
    }

    /// Frames before the first byte that is another.
    fn sound(&self, bytes: &[u8]) -> usize {
        self.ends.iter().filter(|end| self.is_as_written(bytes, **end)).count()
    }

    fn push(&mut self, records: &[Vec<u8>], flags: u32) {
        let payload = records.concat();
        let decoded: Vec<Record<'_>> =
            records.iter().map(|bytes| record::decode(bytes).expect("what was encoded is decoded").0).collect();
        self.totals = totals_with(self.totals, &decoded);
        let header = FrameHeader {
            frame_bytes: frame_bytes(payload.len()) as u32,
            payload_bytes: payload.len() as u32,
            log_id: LOG_ID,
            segment: self.segment,
            incarnation: 3,
            first_lsn: self.lsn + 1,
            records: records.len() as u32,
            flags,
            durable_lsn: self.lsn,
            horizon_ms: 1,
            watermark_ms: 2,
            built_ms: 3,
            newest_ms: 4,
            totals: self.totals,
            previous_chain: self.chain,
            payload_crc: crc32c(&payload),
        };
        let at = self.bytes.len();
        self.bytes.resize(at + frame_bytes(payload.len()), PADDING);
        self.chain = header.encode(&mut self.bytes[at..]);
        self.lsn = header.last_lsn();
        let payload_from = at + FRAME_HEADER_BYTES;
        self.bytes[payload_from..payload_from + payload.len()].copy_from_slice(&payload);
        self.ends.push(self.bytes.len());
    }

    /// Where the next segment begins.
    fn end(&self) -> Base {
        Base { segment: self.segment + 1, lsn: self.lsn, chain: self.chain }
    }

    /// Makes every frame's checksums right again, as damage never would: what lies behind them must hold by itself.
    fn forge_checksums(&self, bytes: &mut [u8]) {
        for (index, end) in self.ends.iter().enumerate() {
            let start = if index == 0 { SEGMENT_HEADER_BYTES } else { self.ends[index - 1] };
            let frame = &mut bytes[start..*end];
            let payload_bytes = u32::from_le_bytes(frame[12..16].try_into().expect("4 bytes")) as usize;
            if let Some(payload) = frame.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + payload_bytes) {
                let crc = crc32c(payload);
                frame[128..132].copy_from_slice(&crc.to_le_bytes());
            }
            let chain = xxhash_rust::xxh3::xxh3_64(&frame[..136]);
            frame[136..144].copy_from_slice(&chain.to_le_bytes());
            let crc = crc32c(&frame[..144]);
            frame[144..148].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

/// The input, read as what to write and what to do to it. When it is over, it goes on as zeros.
struct Script<'a> {
    left: &'a [u8],
}

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, left)) = self.left.split_first() else { return 0 };
        self.left = left;
        *first
    }

    fn text(&mut self, bytes_max: usize) -> &'a [u8] {
        let length = (usize::from(self.byte()) * 3 % (bytes_max + 1)).min(self.left.len());
        let (text, left) = self.left.split_at(length);
        self.left = left;
        text
    }

    fn record(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let kind = self.byte();
        let mut key = ClickKey { bytes: [self.byte(); 16], hashed: kind & 8 != 0 };
        key.bytes[0] = self.byte();
        match kind % 4 {
            0 => {
                let start = Start { incarnation: u64::from(kind), nonce: key.bytes, started_ms: -1 };
                record::encode_start(&start, &mut bytes);
            }
            1 => {
                let causes = Reason::ALL.map(Cause::Refused);
                let cause = causes.get(usize::from(self.byte())).copied().unwrap_or(Cause::OtherPayload);
                let key = (kind & 16 != 0).then_some(key);
                record::encode_dead_letter(cause, key, i64::from(kind), self.text(1000), &mut bytes);
            }
            _ => record::encode_click(&self.click(key), 5, &mut bytes),
        }
        let (decoded, length) = record::decode(&bytes).expect("what was encoded is decoded");
        assert_eq!(length, bytes.len());
        assert!(!bytes.windows(512).any(|run| run.iter().all(|byte| *byte == 0)), "512 zero bytes in {decoded:?}");
        bytes
    }

    fn click(&mut self, key: ClickKey) -> Click<'a> {
        let marks = self.byte();
        Click {
            key,
            event_time: EventTime(i64::from(self.byte()) << 33),
            class: Class::ALL[usize::from(marks) % Class::ALL.len()],
            device: Device::ALL[usize::from(marks) % Device::ALL.len()],
            agent: Agent::ALL[usize::from(marks) % Agent::ALL.len()],
            region: self.text(REGION_BYTES_MAX),
            ad_id: self.text(AD_ID_BYTES_MAX),
            campaign_id: self.text(CAMPAIGN_ID_BYTES_MAX),
            advertiser_id: self.text(ADVERTISER_ID_BYTES_MAX),
            user_id: self.text(USER_ID_BYTES_MAX),
            extras: Extras {
                request_id: self.text(ID_BYTES_MAX),
                ip: self.text(IP_BYTES_MAX),
                user_agent: self.text(USER_AGENT_BYTES_MAX),
                signature: self.text(SIGNATURE_BYTES_MAX),
                ..Extras::default()
            },
        }
    }

    /// One change to a segment: a byte, a sector that was never written, or all from a sector on.
    fn change(&mut self, segments: &mut [(Vec<u8>, Log); 2]) {
        let kind = self.byte();
        let (bytes, log) = &mut segments[usize::from(kind >> 2 & 1)];
        let at = (usize::from(self.byte()) << 8 | usize::from(self.byte())) % bytes.len();
        let sector = at - at % SECTOR_BYTES;
        match kind % 4 {
            0 => bytes[sector..sector + SECTOR_BYTES].fill(0),
            1 => bytes[sector..].fill(0),
            _ => {
                bytes[at] ^= self.byte();
                log.only_torn = false;
            }
        }
    }
}
