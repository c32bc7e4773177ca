//! Pure. The memory that a configuration adds up to, line by line. Each line is made of the sizes and bounds by which that part
//! takes its memory, so that the two cannot drift apart.

use tollgate_global::{CATALOGUE_BYTES_MAX, QUESTIONS_BYTES_MAX, TOKENS_BYTES_MAX};

use crate::config::{
    CONNECTION_BYTES, Config, FRAME_BUFFERS, KAFKA_CLIENT_BYTES, KAFKA_FETCH_KBYTES, KAFKA_QUEUE_KBYTES,
    KAFKA_QUEUE_RECORDS, KAFKA_RECORD_BYTES, KafkaConfig, PROCESS_BYTES, SinkKind, TABLE_ROWS_MAX, TABLE_USERS_MAX,
};
use crate::core::ahead::AHEAD_BYTES;
use crate::core::cuts::SPARE_TABLES;
use crate::core::lanes::Lane;
use crate::core::staging::StagedRequest;
use crate::dedup;
use crate::export::bounds::TRANSACTION_BYTES_MAX;
use crate::export::rebuild::REBUILD_TABLES;
use crate::preagg;
use crate::units::about_bytes;
use crate::wal::record::CLICK_BYTES_MIN;
use crate::wal::recover::WINDOW_BYTES;
use crate::wal::writer::buffer_bytes;

/// One line of the sum: what it is for and how it came about.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryLine {
    pub name: &'static str,
    pub bytes: u64,
    pub sum: String,
}

/// Everything that is taken at start or bounded by a limit, in bytes. Kernel memory (sockets, page cache) is not in it.
pub fn lines(config: &Config) -> Vec<MemoryLine> {
    let line = |name, bytes, sum| MemoryLine { name, bytes, sum };
    let counted = |name, number: u64, each: u64| {
        line(name, number.saturating_mul(each), format!("{number} × {}", about_bytes(each)))
    };
    let connections = u64::from(config.http.connections_max);
    let cores = u64::from(config.cores());
    // Of each core, as `counted` is of the process.
    let per_core = |name, number: u64, each: u64| counted(name, cores.saturating_mul(number), each);
    let a_core = |name, each: u64, sum: &str| {
        let sum = if cores == 1 { sum.to_owned() } else { format!("{cores} cores × {}: {sum}", about_bytes(each)) };
        line(name, cores.saturating_mul(each), sum)
    };
    // Of a core: the open one and the spares; of the exporter: those it rebuilds with, and a rebuilt one that is sent.
    let tables = cores as usize * (1 + SPARE_TABLES) + REBUILD_TABLES + 1;
    let chunks = cores * (cores - 1) * config.chunk_credits() as u64;
    let mut lines = vec![
        line(
            "dedup table",
            cores * (config.dedup_mapping_bytes_a_core() + dedup::stash_bytes(config.dedup_mapping_bytes_a_core())),
            "--dedup-memory-bytes, and a stash for blocks that are full".to_owned(),
        ),
        counted("tables of partials", tables as u64, preagg::table_bytes(TABLE_ROWS_MAX, TABLE_USERS_MAX)),
        counted("indexes of partials", cores + 1, preagg::index_bytes(TABLE_ROWS_MAX)),
        line(
            "export",
            (TRANSACTION_BYTES_MAX + WINDOW_BYTES + TABLE_USERS_MAX * size_of::<u64>()) as u64,
            "a transaction, users sorted for it, and what it reads back".to_owned(),
        ),
        counted("chunks between cores", chunks, config.mesh.chunk_bytes as u64),
        per_core("frame buffers", FRAME_BUFFERS as u64, buffer_bytes(config.log.frame_bytes) as u64),
        per_core("receive buffers", u64::from(config.ring.recv_buffers), u64::from(config.ring.recv_buffer_bytes)),
        a_core("requests not yet whole", config.http.assembly_bytes_max, "--assembly-bytes-max"),
        a_core(
            "records of requests",
            config.http.staging_memory_bytes(),
            &format!("{} coming in, the rest before the log", about_bytes(config.http.parked_memory_bytes())),
        ),
        // As many as records of one click fit, in queues that have doubled.
        per_core(
            "requests before the log",
            config.http.staging_bytes_max / CLICK_BYTES_MIN as u64,
            2 * (size_of::<StagedRequest>() + AHEAD_BYTES) as u64,
        ),
        counted("connections", connections, size_of::<Lane>() as u64 + CONNECTION_BYTES),
        counted("replies not yet taken", connections, u64::from(config.http.reply_bytes_max)),
        match config.export.sink {
            SinkKind::Embedded => {
                let sum = "page cache, open panes, a copy of them, rankings".to_owned();
                line("embedded store", tollgate_global::MEMORY_BYTES_MAX as u64, sum)
            }
            SinkKind::Kafka => {
                let text =
                    "librdkafka's queue: queue.buffering.max.kbytes, .messages; what it reads, and sends".to_owned();
                line("kafka", kafka_bytes(&config.export.kafka), text)
            }
        },
        line("process", PROCESS_BYTES, "code, stacks, query side".to_owned()),
    ];
    if config.export.sink == SinkKind::Embedded {
        let sum = "pages in the making, their ads, each once, and answers that are not taken yet".to_owned();
        lines.push(line("questions", QUESTIONS_BYTES_MAX, sum));
        lines.push(line("tokens", TOKENS_BYTES_MAX, "of the largest file, twice, and that file".to_owned()));
    }
    if !config.ads.as_os_str().is_empty() {
        let sum = "the largest catalogue, and another that is read".to_owned();
        lines.push(line("ad catalogue", CATALOGUE_BYTES_MAX, sum));
    }
    lines
}

/// What librdkafka may hold, with the bounds that were set.
fn kafka_bytes(kafka: &KafkaConfig) -> u64 {
    let bound = |name: &str, ours: u64| {
        let set = kafka.properties.iter().rev().find(|(key, _)| key == name);
        // What is no number librdkafka refuses.
        set.map_or(ours, |(_, value)| value.parse().unwrap_or(u64::MAX))
    };
    let kbytes = bound("queue.buffering.max.kbytes", KAFKA_QUEUE_KBYTES);
    let records = bound("queue.buffering.max.messages", KAFKA_QUEUE_RECORDS);
    let fetched = bound("queued.max.messages.kbytes", KAFKA_FETCH_KBYTES);
    let queue = kbytes.saturating_mul(1024).saturating_add(records.saturating_mul(KAFKA_RECORD_BYTES));
    queue.saturating_add(fetched.saturating_mul(1024)).saturating_add(KAFKA_CLIENT_BYTES)
}

pub fn sum_bytes(lines: &[MemoryLine]) -> u64 {
    lines.iter().fold(0, |sum, line| sum.saturating_add(line.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cut::CutTable;

    fn bytes_of(table: &CutTable) -> u64 {
        let CutTable { rows, keys, users } = table;
        (size_of_val(&rows[..]) + size_of_val(&keys[..]) + size_of_val(&users[..])) as u64
    }

    #[test]
    fn the_line_of_tables_is_what_a_full_table_takes() {
        let mut spare = preagg::Table::new(TABLE_ROWS_MAX, TABLE_USERS_MAX, 1).spare();
        spare.rows.resize(spare.rows.capacity(), Default::default());
        spare.keys.resize(spare.keys.capacity(), 0);
        spare.users.resize(spare.users.capacity(), Default::default());
        assert_eq!(preagg::table_bytes(TABLE_ROWS_MAX, TABLE_USERS_MAX), bytes_of(&spare));
    }

    #[test]
    fn the_sum_follows_the_bounds_of_librdkafkas_queue() {
        let mut config = Config::default();
        config.export.sink = SinkKind::Kafka;
        let kafka = |config: &Config| {
            let lines = lines(config);
            assert!(lines.iter().all(|line| line.name != "embedded store"), "there is no store");
            lines.iter().find(|line| line.name == "kafka").map_or(0, |line| line.bytes)
        };
        assert_eq!(kafka(&config), (32 + 32 + 4 + 24) << 20);
        let set = |config: &mut Config, key: &str, value: &str| {
            config.export.kafka.properties.push((key.to_owned(), value.to_owned()));
        };
        set(&mut config, "queue.buffering.max.kbytes", "1024");
        set(&mut config, "queue.buffering.max.messages", "2048");
        assert_eq!(kafka(&config), (1 + 1 + 4 + 24) << 20);
        set(&mut config, "queue.buffering.max.kbytes", "2147483647");
        assert!(kafka(&config) > 1 << 40, "a terabyte fits no machine, and is refused");
    }

    #[test]
    fn who_answers_questions_holds_what_they_are_about() {
        let mut config = Config::default();
        let of =
            |config: &Config, name: &str| lines(config).iter().find(|line| line.name == name).map(|line| line.bytes);
        // Two long ones at a time, of 20,000 ads each; some 100 bytes an ad, and no more where a scope has a million. Six pages of 8 MiB, each
        // then with a text of up to 8 MiB, which is more than the hashes of its rows took before. Of before, 32 MiB that large answers share,
        // and 32 KiB for each connection.
        let (ads, pages) = (2 * 20_000 * 100, 6 * (16 << 20));
        let answers = (32 << 20) + 512 * (32 << 10);
        let questions = of(&config, "questions").expect("the embedded store is asked");
        let least = ads + pages + answers;
        assert!((least..least + least / 4).contains(&questions), "{questions}");
        assert!(of(&config, "tokens").is_some());
        config.export.sink = SinkKind::Kafka;
        assert_eq!((of(&config, "questions"), of(&config, "tokens")), (None, None));
    }

    /// Replies that nobody reads come on top.
    #[test]
    fn the_defaults_take_a_gibibyte_and_a_little() {
        let lines = lines(&Config::default());
        let sum = sum_bytes(&lines);
        let replies = lines.iter().find(|line| line.name == "replies not yet taken").map_or(0, |line| line.bytes);
        assert!(sum - replies < 1152 << 20, "{lines:#?}");
    }
}
