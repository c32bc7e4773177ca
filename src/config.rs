//! Pure. Every value that can be set and every limit, each with the sum that justifies it. A `Config` that exists is valid.

mod defaults;
mod tuning;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use tuning::{HUGE_PAGE_BYTES, HugePages, IrqCheck, NapiMode, Switch, TuningConfig};

/// An enum of choices, each with the name that it is set by.
macro_rules! named {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $case:ident = $text:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$what])* $case,)+
        }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$case),+];

            pub fn name(self) -> &'static str {
                match self {
                    $($name::$case => $text,)+
                }
            }
        }
    };
}
use named;

/// Which field of a click makes its key. Part of the log's segment headers: another rule over a live log starts a new
/// horizon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DedupKey {
    /// The first of `request_id`, `click_id`, `impression_id`, else a hash of all fields.
    Auto = 0,
    RequestId = 1,
    ClickId = 2,
    ImpressionId = 3,
    /// A hash of all fields.
    Content = 4,
}

impl DedupKey {
    pub const ALL: [DedupKey; 5] =
        [DedupKey::Auto, DedupKey::RequestId, DedupKey::ClickId, DedupKey::ImpressionId, DedupKey::Content];

    pub fn name(self) -> &'static str {
        match self {
            DedupKey::Auto => "auto",
            DedupKey::RequestId => "request_id",
            DedupKey::ClickId => "click_id",
            DedupKey::ImpressionId => "impression_id",
            DedupKey::Content => "content",
        }
    }
}

named! {
    /// How the process writes what it has to say to standard error.
    LogFormat { Text = "text", Json = "json" }
}

/// Everything in force, checked. Times in milliseconds, microseconds or seconds, sizes in bytes, as the names say.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub listen: SocketAddr,
    pub query_listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub data_dir: PathBuf,
    /// The file of the ad catalogue; empty: none.
    pub ads: PathBuf,
    pub keep: KeepConfig,
    /// The CPUs that workers are pinned to, one worker each. Empty: `workers` of them, not pinned.
    pub cpus: Vec<usize>,
    pub workers: u16,
    pub ring: RingConfig,
    pub mesh: MeshConfig,
    pub http: HttpConfig,
    pub click: ClickConfig,
    pub log: LogConfig,
    pub dedup: DedupConfig,
    pub export: ExportConfig,
    pub tuning: TuningConfig,
    /// How long `/readyz` fails before a stop begins to drain.
    pub drain_delay_ms: u64,
    pub log_format: LogFormat,
}

/// How long the embedded store keeps counts, by grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepConfig {
    pub panes_ms: i64,
    pub minutes_ms: i64,
    pub hours_ms: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RingConfig {
    /// Submission entries; completions are four times as many.
    pub entries: u32,
    /// Receive buffers shared by all connections of a core; a power of two.
    pub recv_buffers: u16,
    pub recv_buffer_bytes: u32,
    /// How long a NIC's queue is polled where otherwise would be waited; 0: not at all.
    pub busy_poll_us: u32,
    pub napi: NapiMode,
}

/// Clicks on their way to other cores.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshConfig {
    /// Records of a chunk: some 180 clicks, which the home looks ahead at together.
    pub chunk_bytes: usize,
    /// Chunks that a core may have at all others together, as far as each way has so many at least and at most. One is away for a
    /// commit or two, 1 ms, and a turn, 50 µs or so, sends at least one; what finds none waits, and goes with more in one chunk.
    /// (cores − 1) × credits × 16 KiB a core: 1 MiB with 2 cores, 4 with 16, 8 with 64.
    pub chunks: usize,
    pub chunks_a_way_min: usize,
    pub chunks_a_way_max: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HttpConfig {
    pub connections_max: u32,
    /// Request line and header fields of one request.
    pub head_bytes_max: u32,
    pub headers_max: u32,
    pub body_bytes_max: u32,
    /// Clicks in one request.
    pub batch_clicks_max: u32,
    /// Requests of one connection that are received but not answered.
    pub pipeline_max: u32,
    /// Bytes of replies of one connection that its peer has not taken.
    pub reply_bytes_max: u32,
    /// Memory for requests that are not yet whole, all connections of a core together.
    pub assembly_bytes_max: u64,
    /// Records of requests whose body is still coming in, all of a core; beyond it such requests are shed, but for two of the
    /// largest. A fast sender's body is parked for a moment only.
    pub parked_bytes_max: u64,
    /// Records of whole requests that wait for room in the log, all of a core; beyond it requests are shed.
    pub staging_bytes_max: u64,
    /// From the first byte of a request to the end of its head; absolute.
    pub head_timeout_ms: u64,
    /// From the end of the head to the end of the body; absolute.
    pub body_timeout_ms: u64,
    /// Between requests.
    pub idle_timeout_ms: u64,
    /// For the peer to take what is sent; absolute, from the send.
    pub send_timeout_ms: u64,
    /// After FIN, for the peer's FIN.
    pub linger_timeout_ms: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ClickConfig {
    pub dedup_key: DedupKey,
    /// How far ahead of the clock an event time may be.
    pub clock_skew_ms: i64,
    /// Names counted as regions beside the ISO 3166-1 alpha-2 countries, sorted.
    pub regions: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// Largest frame, header and padding included; a multiple of 4 KiB.
    pub frame_bytes: u32,
    pub commit_delay_max_us: u64,
    pub commit_spacing_us: u64,
    pub segment_bytes: u64,
    /// Segments and their reserve; at this mark clicks are shed.
    pub wal_bytes_max: u64,
    /// How long a segment is kept, exported and forgotten or not, unless room is short.
    pub retention_ms: i64,
    /// Raw bytes kept as dead letters in an hour; beyond it they are only counted.
    pub dead_letter_bytes_max: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DedupConfig {
    pub window_ms: i64,
    pub window_min_ms: i64,
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ExportConfig {
    pub edge_id: String,
    pub interval_ms: u64,
    pub watermark_delay_ms: i64,
    pub sink: SinkKind,
    pub kafka: KafkaConfig,
}

named! {
    /// What exports end in.
    SinkKind {
        /// The store in the data directory.
        Embedded = "embedded",
        Kafka = "kafka",
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port`, separated by commas; empty where the sink is another.
    pub brokers: String,
    /// librdkafka's properties, beside those that the protocol decides.
    pub properties: Vec<(String, String)>,
    pub topic_partials: String,
    pub topic_checkpoints: String,
    /// Empty: no raw clicks are sent.
    pub topic_raw: String,
}

/// What librdkafka holds of a transaction on its way to the brokers: bytes of keys and values, and records. More waits outside.
/// `--kafka-set queue.buffering.max.kbytes=` and `queue.buffering.max.messages=` change them.
pub const KAFKA_QUEUE_KBYTES: u64 = 32 << 10;
pub const KAFKA_QUEUE_RECORDS: u64 = 1 << 16;
/// Beside its key and value: librdkafka's record, its header `type`, its place in a batch.
pub const KAFKA_RECORD_BYTES: u64 = 512;
/// Read ahead of a partition of checkpoints (`queued.max.messages.kbytes`).
pub const KAFKA_FETCH_KBYTES: u64 = 4 << 10;
/// Batches that are compressed and on their way (five a broker, of 1 MB), connections, and threads of a producer and two readers.
pub const KAFKA_CLIENT_BYTES: u64 = 24 * MIB;

/// The broker ends a transaction that is open for longer (`transaction.timeout.ms`); librdkafka gives up on it then, too. Readers of a
/// dead edge's partition wait for so long; the largest transaction over a line of 40 Mbit/s takes 13 s, and what takes longer is split.
pub const TRANSACTION_TIMEOUT_MS: u64 = 15_000;

/// A sink that was asked and has given no sign for so long counts as one that does not answer, whatever comes of it. A fence after a
/// doubt, with the look behind it, takes 0.6 s; between two delivery reports lies at most one batch: 1 MB, 4 s at 2 Mbit/s.
pub const SINK_SILENCE_MS_MAX: u64 = 5_000;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The most that `--clock-skew` can be.
pub const CLOCK_SKEW_MS_MAX: i64 = 3_600_000;

/// Cores of one process: a chunk travels between any two of them.
pub const CORES_MAX: usize = 256;

/// Generations of a dedup window; an epoch is one of them.
pub const GENERATIONS: i64 = 16;

/// Frame buffers of a core. One is on its way to the disk, one sealed behind it, one open; the others let a burst be judged
/// while a write is slow. A request that finds no more room goes on when one of them is written.
pub const FRAME_BUFFERS: usize = 6;

/// What is kept of a connection beside its lane and its buffers: its queue of replies, its slot in the driver, its deadline.
pub const CONNECTION_BYTES: u64 = KIB;

/// What the process takes before a click comes: code, stacks, the reader of user agents, runtime of the query side.
pub const PROCESS_BYTES: u64 = 48 * MIB;

/// Memory of a remembered key: a slot of 16 B, at a load of 0.9, of which 1/16 is a generation that is being forgotten.
pub const DEDUP_BYTES_PER_KEY: u64 = 19;
pub const DEDUP_SLOT_BYTES: u64 = 16;

/// What a table of remembered keys can live in; `dedup` holds both to its own bounds when it is compiled.
pub const DEDUP_MEMORY_BYTES_MIN: u64 = 8 * MIB;
pub const DEDUP_MEMORY_BYTES_MAX: u64 = 255 << 30;

/// A typical click in the log: 48 B, its dimensions and what it names beside them; frames, headers and padding included.
pub const RECORD_BYTES_TYPICAL: u64 = 110;

/// Clicks a second that a core reads back from its log at least; a test of recovery holds it to that.
pub const RECOVERY_CLICKS_PER_SECOND: u64 = 3_000_000;

/// Cuts that a core may have handed over and not seen exported; beyond it ranges wait without their table. So many are exported at once,
/// also where they have no clicks.
pub const EXPORT_CREDITS: u32 = 4;

/// Rows of the open table: at 3/4 it is cut early. `memory.rs` has the sum.
pub const TABLE_ROWS_MAX: usize = 1 << 17;

/// (row, user) pairs of one cut: 1 s at 2 M clicks/s; 3/4 full: cut early.
pub const TABLE_USERS_MAX: usize = 1 << 21;

/// Bytes kept of one connection while its replies wait: a receive is stopped late, after as many as 32 buffers of 16 KiB,
/// and those of the turn before; beyond it the connection ends.
pub const HELD_BYTES_MAX: usize = 1 << 20;

/// Refusals listed in one answer.
pub const ERRORS_LISTED_MAX: usize = 100;

/// Raw bytes kept of one dead letter.
pub const DEAD_LETTER_RAW_BYTES_MAX: usize = 4096;

impl Config {
    /// How many cores take clicks.
    pub fn cores(&self) -> u16 {
        if self.cpus.is_empty() { self.workers } else { self.cpus.len() as u16 }
    }

    /// Chunks that a core may have at each other core.
    pub fn chunk_credits(&self) -> usize {
        let MeshConfig { chunks, chunks_a_way_min, chunks_a_way_max, .. } = self.mesh;
        (chunks / usize::from(self.cores())).clamp(chunks_a_way_min, chunks_a_way_max)
    }

    /// The share of one core in `--dedup-memory-bytes`.
    pub fn dedup_bytes_a_core(&self) -> u64 {
        self.dedup.memory_bytes / u64::from(self.cores())
    }

    /// What is mapped for it: whole pages of those that are asked for.
    pub fn dedup_mapping_bytes_a_core(&self) -> u64 {
        match self.tuning.huge_pages {
            HugePages::Explicit => self.dedup_bytes_a_core().next_multiple_of(HUGE_PAGE_BYTES),
            HugePages::Transparent | HugePages::Off => self.dedup_bytes_a_core(),
        }
    }

    /// The share of one core in `--connections-max`.
    pub fn connections_a_core(&self) -> u32 {
        self.http.connections_max.div_ceil(u32::from(self.cores()))
    }
}

impl HttpConfig {
    /// The most that the records of one request can take up in the log. A record holds the text of its click and at most
    /// 64 B beside it (fixed part, lengths, tags); a dead letter holds its raw bytes with one byte more in 255.
    pub fn records_bytes_max(&self) -> u64 {
        u64::from(self.body_bytes_max) * 256 / 255 + 64 * u64::from(self.batch_clicks_max)
    }

    /// The bound of what is parked between two turns. A request that is alone always fits: its vector has at most twice the
    /// memory of its records.
    pub fn parked_memory_bytes(&self) -> u64 {
        self.parked_bytes_max.max(2 * self.records_bytes_max())
    }

    /// Memory for the records of requests: parked ones, buffers kept for them (64 of 64 KiB), and whole ones that await
    /// their verdict, of which one is taken beyond the bound, in vectors with at most twice the memory of what they hold.
    pub fn staging_memory_bytes(&self) -> u64 {
        self.parked_memory_bytes() + 4 * MIB + 2 * (self.staging_bytes_max + self.records_bytes_max())
    }
}
