//! Pure. What a core hands to the exporter at a cut: a range of its log, and the table that is exactly that range.

/// Identifies one log for ever; a log's id is never used again.
pub type LogId = [u8; 16];

/// The log id of 32 hexadecimal digits.
pub fn parse_log_id(text: &str) -> Option<LogId> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
}

/// A place in a log. An LSN never leaves its host without the log's id and the frame chain at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub log_id: LogId,
    /// The last record that is before this place; 0 is the start of the log.
    pub lsn: u64,
    /// The chain of the frame that ends at `lsn`.
    pub chain: u64,
}

/// Counts since the creation of a log, as they ride in frame headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Click records.
    pub clicks: u64,
    /// Dead-letter records.
    pub dead_letters: u64,
}

/// One export range: the records after `from` up to and including `to`.
#[derive(Debug)]
pub struct Cut {
    pub from: Position,
    pub to: Position,
    /// Totals at `to`.
    pub totals: Totals,
    pub horizon_ms: i64,
    pub watermark_ms: i64,
    /// When its oldest click was taken; a range without clicks has none.
    pub oldest_ms: Option<i64>,
    /// Exactly the clicks of the range; `None` where the exporter must rebuild them from the log.
    pub table: Option<CutTable>,
    /// The core's last cut: nothing comes after it.
    pub last: bool,
}

/// One row of a table: a pane and a partial key, how many clicks, where the key's bytes lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutRow {
    pub pane: i64,
    pub clicks: u64,
    pub key_offset: u32,
    pub key_bytes: u32,
    /// Low half of XXH3-64 over the key.
    pub dims_hash: u32,
}

/// The user of one click: a row of the table, and the user's token. 12 bytes, because one is written for each click.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserPair {
    pub row: u32,
    token: [u32; 2],
}

impl UserPair {
    #[inline]
    pub fn new(row: u32, token: u64) -> UserPair {
        UserPair { row, token: [token as u32, (token >> 32) as u32] }
    }

    pub fn token(self) -> u64 {
        u64::from(self.token[0]) | (u64::from(self.token[1]) << 32)
    }
}

/// The open partials as plain data: rows, the bytes of their keys (see `preagg::key`), and one pair for each click that
/// names a user; the exporter builds the distinct-user sketches from the pairs.
#[derive(Debug, Default)]
pub struct CutTable {
    pub rows: Vec<CutRow>,
    pub keys: Vec<u8>,
    pub users: Vec<UserPair>,
}

impl CutTable {
    pub fn with_capacity(rows: usize, key_bytes: usize, users: usize) -> CutTable {
        CutTable {
            rows: Vec::with_capacity(rows),
            keys: Vec::with_capacity(key_bytes),
            users: Vec::with_capacity(users),
        }
    }

    #[inline]
    pub fn key(&self, row: &CutRow) -> &[u8] {
        let from = row.key_offset as usize;
        &self.keys[from..from + row.key_bytes as usize]
    }

    /// Clicks in all rows: what the range must add to the log's totals.
    pub fn clicks(&self) -> u64 {
        self.rows.iter().map(|row| row.clicks).sum()
    }

    pub fn clear(&mut self) {
        self.rows.clear();
        self.keys.clear();
        self.users.clear();
    }
}
