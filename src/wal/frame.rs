//! Pure. A frame is one group commit: a header, the records, padding to 4 KiB. A segment begins with a header of its own,
//! written together with its first frame. All numbers are little-endian.
//!
//! ```text
//! segment   | segment header 4 KiB | frame | frame | … | zeros |
//! frame     | header 152 B | records | 0xA5 … to a multiple of 4 KiB, at least one byte |
//!
//! frame header                                     segment header
//!   0 8 B magic "TGFRAME1"                           0 8 B magic "TGSEGMT1"
//!   8 u32 frame_bytes     12 u32 payload_bytes       8 u32 version = 1      12 u32 core
//!  16 16 B log id                                   16 16 B log id
//!  32 u64 segment         40 u64 incarnation        32 u64 segment          40 u64 base LSN
//!  48 u64 first LSN                                 48 u64 base chain       56 u64 segment_bytes
//!  56 u32 records         60 u32 flags              64 i64 created_ms       72 u32 dedup-key rule
//!  64 u64 durable LSN when built                    76 16 B nonce of the incarnation that began it
//!  72 i64 horizon_ms      80 i64 watermark_ms       92 u32 CRC32C of 0..92
//!  88 i64 built_ms        96 i64 newest_ms          96 0xA5 … to 4 KiB
//! 104 u64 clicks         112 u64 dead letters     (totals of the log, this frame included)
//! 120 u64 previous chain 128 u32 CRC32C of the payload   132 u32 version = 1
//! 136 u64 chain: XXH3-64 of 0..136, hence over (previous chain, header, payload CRC)
//! 144 u32 CRC32C of 0..144                        148 u32 0xA5A5A5A5
//! ```
//!
//! Law: a sound frame has no all-zero 512-byte sector and its last byte is not zero. A segment reads as zeros before use, so
//! a bad frame that shows either was torn, and a bad frame that shows neither is damaged.

use xxhash_rust::xxh3::xxh3_64;

use crate::cut::{LogId, Totals};

/// Frames, segment headers and direct I/O are aligned to this.
pub const BLOCK_BYTES: usize = 4096;
/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;
pub const FRAME_HEADER_BYTES: usize = 152;
pub const SEGMENT_HEADER_BYTES: usize = BLOCK_BYTES;
/// Fills what is not used; not zero, so that a torn frame shows.
pub const PADDING: u8 = 0xA5;
pub const FORMAT_VERSION: u32 = 1;

/// Frame flags. A cut ends with this frame.
pub const FLAG_CUT: u32 = 1;
/// Sealed because the log went idle: nothing was in flight behind it.
pub const FLAG_IDLE: u32 = 2;
/// The last frame of a clean stop.
pub const FLAG_STOPPED: u32 = 4;

const FRAME_MAGIC: [u8; 8] = *b"TGFRAME1";
const SEGMENT_MAGIC: [u8; 8] = *b"TGSEGMT1";
/// A largest frame that no configuration comes near; a header that says more is not believed.
const FRAME_BYTES_MAX: u32 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub frame_bytes: u32,
    pub payload_bytes: u32,
    pub log_id: LogId,
    pub segment: u64,
    pub incarnation: u64,
    /// LSN of the first record; of the next one where the frame has none.
    pub first_lsn: u64,
    pub records: u32,
    pub flags: u32,
    /// Highest LSN known durable when the frame was built.
    pub durable_lsn: u64,
    pub horizon_ms: i64,
    pub watermark_ms: i64,
    pub built_ms: i64,
    /// Newest event or received time of its records; `i64::MIN` where there are none.
    pub newest_ms: i64,
    /// Of the log, this frame included.
    pub totals: Totals,
    pub previous_chain: u64,
    pub payload_crc: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub core: u32,
    pub log_id: LogId,
    pub segment: u64,
    /// LSN and chain at which the segment begins: the cut through whatever the older one holds.
    pub base_lsn: u64,
    pub base_chain: u64,
    pub segment_bytes: u64,
    pub created_ms: i64,
    /// Code of the rule that makes click keys.
    pub dedup_key: u32,
    /// Of the incarnation that began the segment: its start record may be in a segment that is long deleted.
    pub nonce: [u8; 16],
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("{left} bytes are left where a header needs {needed}")]
    CutOff { needed: usize, left: usize },
    #[error("the magic bytes are wrong")]
    Magic,
    #[error("the header's checksum is {found:#010x} and should be {expected:#010x}")]
    Checksum { found: u32, expected: u32 },
    #[error("the format version is {0}, this tollgate reads {FORMAT_VERSION}")]
    Version(u32),
    #[error("the header's chain is not the hash of the header")]
    Chain,
    #[error("the padding after the header is not 0xA5")]
    Padding,
    #[error("the header's lengths contradict each other: frame {frame_bytes} bytes, payload {payload_bytes} bytes")]
    Lengths { frame_bytes: u32, payload_bytes: u32 },
}

/// Bytes on disk of a frame with this much payload.
pub fn frame_bytes(payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_bytes + 1).next_multiple_of(BLOCK_BYTES)
}

/// Largest payload that fits into a frame of `frame_bytes`.
pub fn payload_bytes_max(frame_bytes: usize) -> usize {
    frame_bytes - FRAME_HEADER_BYTES - 1
}

pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

impl FrameHeader {
    /// LSN of the last record; the one before `first_lsn` where there are none.
    pub fn last_lsn(&self) -> u64 {
        self.first_lsn + u64::from(self.records) - 1
    }

    /// Writes the header to the start of `out`; returns the frame's chain.
    pub fn encode(&self, out: &mut [u8]) -> u64 {
        out[0..8].copy_from_slice(&FRAME_MAGIC);
        out[8..12].copy_from_slice(&self.frame_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[16..32].copy_from_slice(&self.log_id);
        out[32..40].copy_from_slice(&self.segment.to_le_bytes());
        out[40..48].copy_from_slice(&self.incarnation.to_le_bytes());
        out[48..56].copy_from_slice(&self.first_lsn.to_le_bytes());
        out[56..60].copy_from_slice(&self.records.to_le_bytes());
        out[60..64].copy_from_slice(&self.flags.to_le_bytes());
        out[64..72].copy_from_slice(&self.durable_lsn.to_le_bytes());
        out[72..80].copy_from_slice(&self.horizon_ms.to_le_bytes());
        out[80..88].copy_from_slice(&self.watermark_ms.to_le_bytes());
        out[88..96].copy_from_slice(&self.built_ms.to_le_bytes());
        out[96..104].copy_from_slice(&self.newest_ms.to_le_bytes());
        out[104..112].copy_from_slice(&self.totals.clicks.to_le_bytes());
        out[112..120].copy_from_slice(&self.totals.dead_letters.to_le_bytes());
        out[120..128].copy_from_slice(&self.previous_chain.to_le_bytes());
        out[128..132].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[132..136].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let chain = xxh3_64(&out[..136]);
        out[136..144].copy_from_slice(&chain.to_le_bytes());
        let crc = crc32c(&out[..144]);
        out[144..148].copy_from_slice(&crc.to_le_bytes());
        out[148..152].copy_from_slice(&[PADDING; 4]);
        chain
    }

    /// Reads a header and its chain. Total. The payload is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<(FrameHeader, u64), HeaderError> {
        if bytes.len() < FRAME_HEADER_BYTES {
            return Err(HeaderError::CutOff { needed: FRAME_HEADER_BYTES, left: bytes.len() });
        }
        if bytes[..8] != FRAME_MAGIC {
            return Err(HeaderError::Magic);
        }
        check_crc(bytes, 144)?;
        let version = u32_at(bytes, 132);
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        let chain = u64_at(bytes, 136);
        if chain != xxh3_64(&bytes[..136]) {
            return Err(HeaderError::Chain);
        }
        if bytes[148..FRAME_HEADER_BYTES] != [PADDING; 4] {
            return Err(HeaderError::Padding);
        }
        let header = FrameHeader {
            frame_bytes: u32_at(bytes, 8),
            payload_bytes: u32_at(bytes, 12),
            log_id: bytes[16..32].try_into().expect("16 bytes"),
            segment: u64_at(bytes, 32),
            incarnation: u64_at(bytes, 40),
            first_lsn: u64_at(bytes, 48),
            records: u32_at(bytes, 56),
            flags: u32_at(bytes, 60),
            durable_lsn: u64_at(bytes, 64),
            horizon_ms: u64_at(bytes, 72) as i64,
            watermark_ms: u64_at(bytes, 80) as i64,
            built_ms: u64_at(bytes, 88) as i64,
            newest_ms: u64_at(bytes, 96) as i64,
            totals: Totals { clicks: u64_at(bytes, 104), dead_letters: u64_at(bytes, 112) },
            previous_chain: u64_at(bytes, 120),
            payload_crc: u32_at(bytes, 128),
        };
        let (length, payload) = (header.frame_bytes, header.payload_bytes);
        let lengths = HeaderError::Lengths { frame_bytes: length, payload_bytes: payload };
        if payload > FRAME_BYTES_MAX || header.first_lsn == 0 || header.first_lsn > u64::MAX / 2 {
            return Err(lengths);
        }
        if length as usize != frame_bytes(payload as usize) || header.records > payload / 4 {
            return Err(lengths);
        }
        Ok((header, chain))
    }

    /// Whether the frame's payload and padding are what the header says. `frame` starts with the header.
    pub fn holds(&self, frame: &[u8]) -> bool {
        let payload_end = FRAME_HEADER_BYTES + self.payload_bytes as usize;
        frame.len() >= self.frame_bytes as usize
            && crc32c(&frame[FRAME_HEADER_BYTES..payload_end]) == self.payload_crc
            && is_padding(&frame[payload_end..self.frame_bytes as usize])
    }
}

impl SegmentHeader {
    /// Writes the header's 4 KiB.
    pub fn encode(&self, out: &mut [u8]) {
        out[..SEGMENT_HEADER_BYTES].fill(PADDING);
        out[0..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.core.to_le_bytes());
        out[16..32].copy_from_slice(&self.log_id);
        out[32..40].copy_from_slice(&self.segment.to_le_bytes());
        out[40..48].copy_from_slice(&self.base_lsn.to_le_bytes());
        out[48..56].copy_from_slice(&self.base_chain.to_le_bytes());
        out[56..64].copy_from_slice(&self.segment_bytes.to_le_bytes());
        out[64..72].copy_from_slice(&self.created_ms.to_le_bytes());
        out[72..76].copy_from_slice(&self.dedup_key.to_le_bytes());
        out[76..92].copy_from_slice(&self.nonce);
        let crc = crc32c(&out[..92]);
        out[92..96].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header with its padding. Total.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
        if bytes.len() < SEGMENT_HEADER_BYTES {
            return Err(HeaderError::CutOff { needed: SEGMENT_HEADER_BYTES, left: bytes.len() });
        }
        if bytes[..8] != SEGMENT_MAGIC {
            return Err(HeaderError::Magic);
        }
        check_crc(bytes, 92)?;
        let version = u32_at(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        if !is_padding(&bytes[96..SEGMENT_HEADER_BYTES]) {
            return Err(HeaderError::Padding);
        }
        Ok(SegmentHeader {
            core: u32_at(bytes, 12),
            log_id: bytes[16..32].try_into().expect("16 bytes"),
            segment: u64_at(bytes, 32),
            base_lsn: u64_at(bytes, 40),
            base_chain: u64_at(bytes, 48),
            segment_bytes: u64_at(bytes, 56),
            created_ms: u64_at(bytes, 64) as i64,
            dedup_key: u32_at(bytes, 72),
            nonce: bytes[76..92].try_into().expect("16 bytes"),
        })
    }
}

/// Whether the bytes show that a write was cut off: an all-zero sector. `bytes` starts at a sector.
pub fn has_zero_sector(bytes: &[u8]) -> bool {
    bytes.chunks(SECTOR_BYTES).any(is_zero)
}

/// Whether all bytes are zero; a sector at a time, which compiles to vector code.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(SECTOR_BYTES).all(|sector| sector.iter().fold(0, |all, byte| all | byte) == 0)
}

/// Whether all bytes, at most a block of them, are padding.
fn is_padding(bytes: &[u8]) -> bool {
    const BLOCK: [u8; BLOCK_BYTES] = [PADDING; BLOCK_BYTES];
    bytes == &BLOCK[..bytes.len()]
}

fn check_crc(bytes: &[u8], at: usize) -> Result<(), HeaderError> {
    let (found, expected) = (u32_at(bytes, at), crc32c(&bytes[..at]));
    if found == expected { Ok(()) } else { Err(HeaderError::Checksum { found, expected }) }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            frame_bytes: 4096,
            payload_bytes: 5,
            log_id: *b"0123456789abcdef",
            segment: 2,
            incarnation: 3,
            first_lsn: 4,
            records: 1,
            flags: FLAG_IDLE,
            durable_lsn: 5,
            horizon_ms: -6,
            watermark_ms: 7,
            built_ms: 8,
            newest_ms: i64::MIN,
            totals: Totals { clicks: 9, dead_letters: 10 },
            previous_chain: 11,
            payload_crc: crc32c(b"hello"),
        }
    }

    #[test]
    fn the_bytes_of_a_frame_header_are_pinned() {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let chain = header().encode(&mut bytes);
        let words: Vec<u64> = (0..19).map(|word| u64_at(&bytes, word * 8)).collect();
        let pinned = [0x5, 0x1000, 2, 3, 4, 0x2_0000_0001, 5, (-6_i64) as u64, 7, 8, 1 << 63, 9, 10, 11];
        assert_eq!(&bytes[..8], b"TGFRAME1");
        assert_eq!(words[1], pinned[0] << 32 | pinned[1]);
        assert_eq!(&bytes[16..32], b"0123456789abcdef");
        assert_eq!(words[4..16], pinned[2..]);
        assert_eq!(words[16], 1 << 32 | u64::from(crc32c(b"hello")));
        assert_eq!((words[17], chain), (chain, xxh3_64(&bytes[..136])));
        assert_eq!(words[18], 0xA5A5_A5A5 << 32 | u64::from(crc32c(&bytes[..144])));
        assert_eq!(crc32c(b"123456789"), 0xE306_9283, "CRC-32C (Castagnoli)");
        assert_eq!(FrameHeader::decode(&bytes), Ok((header(), chain)));
    }

    #[test]
    fn the_bytes_of_a_segment_header_are_pinned() {
        let header = SegmentHeader {
            core: 1,
            log_id: *b"0123456789abcdef",
            segment: 2,
            base_lsn: 3,
            base_chain: 4,
            segment_bytes: 5,
            created_ms: 6,
            dedup_key: 7,
            nonce: *b"a nonce 16 bytes",
        };
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        header.encode(&mut bytes);
        assert_eq!(&bytes[..32], b"TGSEGMT1\x01\0\0\0\x01\0\0\x000123456789abcdef");
        assert_eq!([32, 40, 48, 56, 64].map(|at| u64_at(&bytes, at)), [2, 3, 4, 5, 6]);
        assert_eq!([u32_at(&bytes, 72), u32_at(&bytes, 92)], [7, crc32c(&bytes[..92])]);
        assert_eq!(&bytes[76..92], b"a nonce 16 bytes");
        assert!(bytes[96..].iter().all(|byte| *byte == PADDING));
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for index in 0..SEGMENT_HEADER_BYTES {
            bytes[index] ^= 1 << (index % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "byte {index}");
            bytes[index] ^= 1 << (index % 8);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_frame_shows() {
        let mut frame = [PADDING; 4096];
        header().encode(&mut frame);
        frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + 5].copy_from_slice(b"hello");
        assert!(header().holds(&frame));
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            let sound = FrameHeader::decode(&frame).is_ok_and(|(header, _)| header.holds(&frame));
            assert!(!sound, "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn headers_that_contradict_themselves_are_refused() {
        let refused = |change: fn(&mut FrameHeader)| {
            let (mut header, mut bytes) = (header(), [0; FRAME_HEADER_BYTES]);
            change(&mut header);
            header.encode(&mut bytes);
            assert!(matches!(FrameHeader::decode(&bytes), Err(HeaderError::Lengths { .. })), "{header:?}");
        };
        refused(|header| header.frame_bytes = 8192);
        refused(|header| header.frame_bytes = 0);
        refused(|header| header.payload_bytes = 4096);
        refused(|header| header.payload_bytes = u32::MAX);
        refused(|header| header.records = 2);
        refused(|header| header.first_lsn = 0);
        refused(|header| header.first_lsn = u64::MAX);
        for length in 0..FRAME_HEADER_BYTES {
            assert!(FrameHeader::decode(&vec![7; length]).is_err());
        }
    }

    #[test]
    fn a_frame_has_at_least_one_byte_of_padding() {
        for (payload, expected) in [(0, 4096), (3943, 4096), (3944, 8192), (8039, 8192), (8040, 12288)] {
            assert_eq!(frame_bytes(payload), expected, "payload of {payload}");
        }
        assert_eq!(frame_bytes(payload_bytes_max(262_144)), 262_144);
        assert_eq!(frame_bytes(payload_bytes_max(262_144) + 1), 262_144 + 4096);
    }
}
