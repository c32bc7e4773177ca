//! Pure. Builds a transaction: rows of cut tables become partials, pairs of (row, user) become sketches.

use crate::click::Pane;
use crate::cut::{CutTable, LogId};
use crate::export::Halt;
use crate::preagg::key::PartialKey;
use tollgate_wire::users::Users;
use tollgate_wire::{Checkpoint, EndRecord, FORMAT_VERSION, LogRange, Partial, Transaction, crc_of};

/// Users that are worked on before whoever else wants the processor gets it: some tenths of a millisecond. With 4,096 beside a
/// busy process the export fell behind, and its ranges had to be read back from the log.
const USERS_AT_A_TIME: usize = 1 << 15;

/// What a transaction says of itself as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub edge_id: &'a str,
    pub txn_seq: u64,
    pub watermark_ms: i64,
    pub horizon_ms: i64,
    pub stopped: bool,
}

/// One range of a log that the transaction takes.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub log: LogId,
    /// What it goes by outside.
    pub name: LogId,
    pub from_lsn: u64,
    pub to_lsn: u64,
    /// Clicks that the log counts in the range, and from its creation to the range's end.
    pub clicks: u64,
    pub clicks_total: u64,
    /// `None` where the range has no clicks.
    pub table: Option<&'a CutTable>,
}

/// The transaction that exports exactly these parts. Refuses to count other than the log does.
pub fn transaction(
    head: &Head<'_>,
    parts: &[Part<'_>],
    checkpoint: Checkpoint,
    tokens: &mut TokensByRow,
) -> Result<Transaction, Halt> {
    let rows = parts.iter().filter_map(|part| part.table).map(|table| table.rows.len()).sum();
    let mut partials = Vec::with_capacity(rows);
    for part in parts {
        let found = part.table.map_or(0, CutTable::clicks);
        if found != part.clicks {
            let Part { log, from_lsn: from, to_lsn: to, clicks: expected, .. } = *part;
            return Err(Halt::Unbalanced { log, from, to, found, expected });
        }
        if let Some(table) = part.table {
            append_partials(head, part, table, tokens, &mut partials)?;
        }
    }
    let ranges = parts.iter().map(|part| LogRange {
        log_uuid: part.name.to_vec(),
        from_lsn: part.from_lsn,
        to_lsn: part.to_lsn,
        clicks: part.clicks,
        clicks_total: part.clicks_total,
    });
    let end = EndRecord {
        format_version: FORMAT_VERSION,
        edge_id: head.edge_id.to_owned(),
        txn_seq: head.txn_seq,
        partials: partials.len() as u32,
        crc: crc_of(&partials),
        ranges: ranges.collect(),
        watermark_ms: head.watermark_ms,
        horizon_ms: head.horizon_ms,
        stopped: head.stopped,
    };
    Ok(Transaction { partials, end, checkpoint })
}

fn append_partials(
    head: &Head<'_>,
    part: &Part<'_>,
    table: &CutTable,
    tokens: &mut TokensByRow,
    out: &mut Vec<Partial>,
) -> Result<(), Halt> {
    tokens.sort(table);
    let give_way = tokens.give_way;
    for (row, tokens) in table.rows.iter().zip(tokens.rows()) {
        let key = PartialKey::decode(table.key(row)).map_err(|why| Halt::Row { log: part.log, why })?;
        out.push(Partial {
            format_version: FORMAT_VERSION,
            edge_id: head.edge_id.to_owned(),
            log_uuid: part.name.to_vec(),
            txn_seq: head.txn_seq,
            index: out.len() as u32,
            pane_start_ms: Pane(row.pane).start_ms(),
            ad_id: key.ad_id.to_owned(),
            campaign_id: key.campaign_id.to_owned(),
            advertiser_id: key.advertiser_id.to_owned(),
            region: key.region.to_owned(),
            device: key.device as u32,
            agent: key.agent as u32,
            class: key.class as u32,
            rules: u32::from(key.rules),
            clicks: row.clicks,
            users: Users::bytes_of(tokens.chunks(USERS_AT_A_TIME).flat_map(|tokens| {
                give_way();
                tokens.iter().copied()
            })),
            watermark_ms: head.watermark_ms,
        });
    }
    Ok(())
}

/// The users' tokens of a table, sorted by row. Its memory is kept for the next table: megabytes a second that the kernel would
/// have to hand out anew, page by page.
///
/// A cut of a busy second is some tens of milliseconds of work. Even at a low priority it would keep who shares its processor
/// waiting for the rest of a time slice, several milliseconds; so `give_way` is called every so often.
pub struct TokensByRow {
    give_way: fn(),
    /// Where each row's tokens end, once they are there; before, where its next one goes.
    ends: Vec<u32>,
    tokens: Vec<u64>,
}

impl TokensByRow {
    pub fn new(give_way: fn()) -> TokensByRow {
        TokensByRow { give_way, ends: Vec::new(), tokens: Vec::new() }
    }

    fn sort(&mut self, table: &CutTable) {
        // Where every click names a user, which is the rule, nothing has to be counted first.
        let all = table.clicks() == table.users.len() as u64;
        self.ends.clear();
        self.ends.extend(table.rows.iter().map(|row| if all { row.clicks as u32 } else { 0 }));
        if !all {
            table.users.iter().for_each(|pair| self.ends[pair.row as usize] += 1);
        }
        let mut before = 0;
        for end in &mut self.ends {
            before += std::mem::replace(end, before);
        }
        self.tokens.resize(table.users.len().max(self.tokens.len()), 0);
        for pairs in table.users.chunks(USERS_AT_A_TIME) {
            (self.give_way)();
            for pair in pairs {
                let end = &mut self.ends[pair.row as usize];
                self.tokens[*end as usize] = pair.token();
                *end += 1;
            }
        }
    }

    /// The tokens of every row, in the rows' order.
    fn rows(&self) -> impl Iterator<Item = &[u64]> {
        let mut from = 0;
        self.ends.iter().map(move |end| &self.tokens[std::mem::replace(&mut from, *end as usize)..*end as usize])
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::click::{Agent, Class, Device};
    use crate::export::Room;
    use crate::preagg::Table;

    const HEAD: Head<'static> =
        Head { edge_id: "edge", txn_seq: 9, watermark_ms: 1_000, horizon_ms: 500, stopped: false };

    fn table(clicks: &[(&str, u64)]) -> CutTable {
        let mut table = Table::new(64, 256, 1);
        for (ad_id, user) in clicks {
            let key = PartialKey {
                class: Class::Valid,
                device: Device::Mobile,
                agent: Agent::Chrome,
                rules: 1,
                region: "DE",
                ad_id,
                campaign_id: "c",
                advertiser_id: "",
            };
            let mut bytes = Vec::new();
            key.encode(&mut bytes);
            table.merge(Pane(3), xxhash_rust::xxh3::xxh3_64(&bytes) as u32, &bytes, *user);
        }
        let spare = table.spare();
        table.swap(spare)
    }

    fn part(table: &CutTable) -> Part<'_> {
        let clicks = table.clicks();
        Part {
            log: [7; 16],
            name: [8; 16],
            from_lsn: 10,
            to_lsn: 20,
            clicks,
            clicks_total: clicks + 5,
            table: Some(table),
        }
    }

    #[test]
    fn a_transaction_is_whole_and_says_what_the_tables_say() {
        let (one, two) = (table(&[("a", 1), ("b", 2), ("a", 3), ("a", 1), ("b", 0)]), table(&[("a", 0)]));
        let parts = [part(&one), Part { table: None, clicks: 0, ..part(&two) }, part(&two)];
        let checkpoint = Checkpoint { edge_id: "edge".to_owned(), txn_seq: 9, ..Checkpoint::default() };
        let transaction = transaction(&HEAD, &parts, checkpoint, &mut TokensByRow::new(|| ())).unwrap();
        assert_eq!(transaction.check(), Ok(()));
        let rows: Vec<_> =
            transaction.partials.iter().map(|row| (row.ad_id.as_str(), row.clicks, &row.users)).collect();
        let users = |tokens: &[u64]| Users::bytes_of(tokens.iter().copied());
        assert_eq!(rows, [("a", 3, &users(&[1, 3, 1])), ("b", 2, &users(&[2])), ("a", 1, &users(&[]))]);
        let first = &transaction.partials[0];
        assert_eq!((first.pane_start_ms, first.device, first.agent, first.class, first.rules), (30_000, 1, 1, 0, 1));
        assert_eq!((first.region.as_str(), first.campaign_id.as_str(), first.watermark_ms), ("DE", "c", 1_000));
        assert_eq!(transaction.end.ranges.iter().map(|range| range.clicks).sum::<u64>(), 6);
        assert!(transaction.partials.iter().all(|row| row.log_uuid == [8; 16]), "by its name");
        assert!(transaction.end.ranges.iter().all(|range| range.log_uuid == [8; 16]), "by its name");
    }

    #[test]
    fn tables_in_which_all_name_a_user_and_in_which_not_all_do_give_the_same_sketches() {
        let named = [("a", 1), ("b", 2), ("a", 3), ("c", 7), ("a", 1), ("b", 5)];
        let not_all = [&named[..], &[("d", 0)]].concat();
        let mut tokens = TokensByRow::new(|| ());
        let mut sketches = |clicks: &[(&str, u64)], unnamed| {
            let table = table(clicks);
            assert_eq!(table.clicks() - table.users.len() as u64, unnamed);
            let transaction = transaction(&HEAD, &[part(&table)], Checkpoint::default(), &mut tokens).unwrap();
            let rows = transaction.partials.into_iter().map(|row| (row.ad_id, row.clicks, row.users));
            rows.collect::<Vec<_>>()
        };
        let (of_all, of_not_all) = (sketches(&named, 0), sketches(&not_all, 1));
        assert_eq!(of_all.len(), 3);
        assert_eq!(of_all, of_not_all[..3]);
        assert_eq!(of_all[0].2, Users::bytes_of([1, 3, 1].into_iter()));
    }

    /// By it transactions are split: what is sent must not be larger.
    #[test]
    fn what_a_table_takes_is_never_more_than_was_reckoned_with() {
        let (edge_id, ad_id) = ("e".repeat(64), "a".repeat(40));
        let head = Head { edge_id: &edge_id, txn_seq: u64::MAX, watermark_ms: i64::MAX, horizon_ms: 0, stopped: false };
        let hash = |user: u64| xxhash_rust::xxh3::xxh3_64(&user.to_le_bytes());
        let ads: Vec<String> = (0..4).map(|ad| format!("{ad_id}{ad}")).collect();
        let mut tokens = TokensByRow::new(|| ());
        for users in [0, 1, 7, 8, 100, 380, 384, 385, 390, 400, 3_000] {
            let mut table = Table::new(64, 1 << 14, 1);
            for (user, ad_id) in (0..users.max(1)).flat_map(|user| ads.iter().map(move |ad_id| (user, ad_id))) {
                let key = PartialKey {
                    class: Class::Valid,
                    device: Device::Mobile,
                    agent: Agent::Chrome,
                    rules: u8::MAX,
                    region: "DE",
                    ad_id,
                    campaign_id: "c",
                    advertiser_id: "",
                };
                let mut bytes = Vec::new();
                key.encode(&mut bytes);
                let token = if users == 0 { 0 } else { hash(user) };
                table.merge(Pane(i64::from(u32::MAX)), xxhash_rust::xxh3::xxh3_64(&bytes) as u32, &bytes, token);
            }
            let spare = table.spare();
            let table = table.swap(spare);
            let sent = transaction(&head, &[part(&table)], Checkpoint::default(), &mut tokens).unwrap();
            let bytes: usize = sent.partials.iter().map(|partial| partial.encoded_len() + edge_id.len()).sum();
            let reckoned = Room::of(&table, table.clicks()).bytes;
            assert!(
                bytes <= reckoned && reckoned < 4 * bytes,
                "{users} users: {bytes} bytes sent, {reckoned} reckoned"
            );
        }
    }

    #[test]
    fn a_table_that_counts_other_than_its_log_is_not_sent() {
        let table = table(&[("a", 1)]);
        let wrong = Part { clicks: 2, ..part(&table) };
        let halt = Halt::Unbalanced { log: [7; 16], from: 10, to: 20, found: 1, expected: 2 };
        assert_eq!(transaction(&HEAD, &[wrong], Checkpoint::default(), &mut TokensByRow::new(|| ())), Err(halt));
    }
}
