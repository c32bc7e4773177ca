//! Pure. The table of settings, in the order of the help. The bounds keep every cast from losing anything; a test proves it.

use super::made::{address, choice, kafka, number};
use super::properties::{properties, shown};
use super::{Kind, Setting, Value, first_cpus, join, names_sorted};
use crate::config::{
    CLOCK_SKEW_MS_MAX, CORES_MAX, DEDUP_MEMORY_BYTES_MAX, DEDUP_MEMORY_BYTES_MIN, DedupKey, HugePages, IrqCheck,
    LogFormat, NapiMode, SinkKind, Switch,
};
use crate::machine::parse_cpu_list;

const US: u64 = 1;
const MS: u64 = 1_000;
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Bytes { min, max, step: 1 }
}

const fn millis(min: u64, max: u64) -> Kind {
    Kind::Duration { unit_us: MS, min, max }
}

/// All of them, in the order of the help.
pub static SETTINGS: &[Setting] = &[
    address!("listen", listen, "Where clicks come in (HTTP/1.1). Port 0 takes any free one"),
    address!("query-listen", query_listen, "Where counts are asked for"),
    address!("admin-listen", admin_listen, "Where /metrics, /healthz and /readyz are"),
    Setting {
        name: "data-dir",
        about: "Holds the log and the store; made where it is missing. One process at a time",
        kind: Kind::Path,
        get: |config| Value::Text(config.data_dir.display().to_string()),
        set: |config, value, _| config.data_dir = value.text().into(),
    },
    Setting {
        name: "ads",
        about: "The ad catalogue of the embedded store: CSV with the columns ad_id, campaign_id, advertiser_id, or an object a line. Read again when it changes",
        kind: Kind::PathOrNone,
        get: |config| Value::Text(config.ads.display().to_string()),
        set: |config, value, _| config.ads = value.text().into(),
    },
    number!(
        "keep-panes",
        millis(2 * HOUR, 3650 * DAY),
        keep.panes_ms,
        "How long the embedded store has counts by 10 s; then by the minute"
    ),
    number!(
        "keep-minutes",
        millis(2 * HOUR, 3650 * DAY),
        keep.minutes_ms,
        "How long it has counts by the minute, and the history of corrections; then by the hour"
    ),
    number!("keep-hours", millis(DAY, 3650 * DAY), keep.hours_ms, "How long it has counts at all"),
    Setting {
        name: "edge-id",
        about: "Names this edge for ever: a data directory belongs to the edge that made it",
        kind: Kind::Name,
        get: |config| Value::Text(config.export.edge_id.clone()),
        set: |config, value, _| config.export.edge_id = value.text(),
    },
    Setting {
        name: "cores",
        about: "Workers, pinned to the first CPUs of the affinity mask. Not set, none is pinned: `up` has one, `serve` one for each CPU of the mask or the cgroup's quota but the last",
        kind: Kind::Count { min: 1, max: CORES_MAX as u64 },
        get: |config| Value::Number(u64::from(config.cores())),
        set: |config, value, machine| config.cpus = first_cpus(machine, value.number() as usize),
    },
    Setting {
        name: "cpus",
        about: "The CPUs to pin workers to, one each, instead of --cores; such as 3 or 0-2,8. Not set: not pinned",
        kind: Kind::Cpus,
        get: |config| Value::Text(join(config.cpus.iter())),
        set: |config, value, _| config.cpus = parse_cpu_list(&value.text()).expect("the list was checked"),
    },
    Setting {
        name: "housekeeping-cpus",
        about: "The CPUs of every thread that is no worker (exporter, log keeper, queries, admin); for --cpus and --cores. Not set: all that no worker is pinned to",
        kind: Kind::Cpus,
        get: |config| Value::Text(join(config.tuning.housekeeping_cpus.iter())),
        set: |config, value, _| {
            config.tuning.housekeeping_cpus = parse_cpu_list(&value.text()).expect("the list was checked");
        },
    },
    Setting {
        name: "nic",
        about: "The network interface that clicks come in by, for --irq-affinity-check and `tollgate doctor`. Not set: every one with interrupts",
        kind: Kind::Nic,
        get: |config| Value::Text(config.tuning.nic.clone()),
        set: |config, value, _| config.tuning.nic = value.text(),
    },
    choice!(
        "incoming-cpu",
        &["off", "on"],
        Switch,
        tuning.incoming_cpu,
        "A worker accepts the connections whose packets arrive on its CPU; several workers only. For a NIC with a queue for each worker"
    ),
    number!(
        "busy-poll-us",
        Kind::Count { min: 0, max: 10_000 },
        ring.busy_poll_us,
        "Microseconds that a NIC's queue is polled for, where otherwise would be waited (SO_BUSY_POLL; with --napi the ring's wait too). Costs CPU time, saves wake-ups"
    ),
    choice!(
        "napi",
        &["off", "on", "prefer"],
        NapiMode,
        ring.napi,
        "A worker polls the NIC's queues for --busy-poll-us before it sleeps. prefer: interrupts are held back meanwhile, as the NIC's napi_defer_hard_irqs and gro_flush_timeout allow"
    ),
    choice!(
        "irq-affinity-check",
        &["off", "warn", "refuse"],
        IrqCheck,
        tuning.irq_affinity_check,
        "At the start: which of the NIC's interrupts share a CPU with a worker; with --incoming-cpu which worker's CPU has none. refuse: then it does not start"
    ),
    choice!(
        "huge-pages",
        &["transparent", "explicit", "off"],
        HugePages,
        tuning.huge_pages,
        "Pages of the memory for remembered ids. explicit: 2 MiB ones of the pool that vm.nr_hugepages sets aside"
    ),
    number!(
        "ring-entries",
        Kind::CountPowerOfTwo { min: 64, max: 16_384 },
        ring.entries,
        "Submission entries of the io_uring; completions are four times as many"
    ),
    number!(
        "recv-buffers",
        Kind::CountPowerOfTwo { min: 16, max: 32_768 },
        ring.recv_buffers,
        "Receive buffers, shared by all connections of a core"
    ),
    number!(
        "recv-buffer-bytes",
        Kind::Bytes { min: KIB, max: MIB, step: 64 },
        ring.recv_buffer_bytes,
        "Size of one receive buffer"
    ),
    number!(
        "connections-max",
        Kind::Count { min: 1, max: 1_000_000 },
        http.connections_max,
        "Connections open at once; the next are answered 503 and closed"
    ),
    number!(
        "head-bytes-max",
        bytes(KIB, 256 * KIB),
        http.head_bytes_max,
        "Request line and header fields of one request; beyond it 431"
    ),
    number!(
        "headers-max",
        Kind::Count { min: 8, max: 1024 },
        http.headers_max,
        "Header fields of one request; beyond it 431"
    ),
    number!("body-bytes-max", bytes(4 * KIB, 64 * MIB), http.body_bytes_max, "Body of one request; beyond it 413"),
    number!(
        "batch-clicks-max",
        Kind::Count { min: 1, max: 1_000_000 },
        http.batch_clicks_max,
        "Clicks in one request; beyond it 413"
    ),
    number!(
        "pipeline-max",
        Kind::Count { min: 1, max: 65_536 },
        http.pipeline_max,
        "Requests of one connection that are received and not answered; beyond it nothing more is read from it"
    ),
    number!(
        "reply-bytes-max",
        bytes(4 * KIB, 16 * MIB),
        http.reply_bytes_max,
        "Replies of one connection that its peer has not taken; beyond it nothing more is read from it"
    ),
    number!(
        "assembly-bytes-max",
        bytes(64 * KIB, TIB),
        http.assembly_bytes_max,
        "Requests that are not yet whole, all connections of a core together; beyond it 503"
    ),
    number!(
        "head-timeout",
        millis(100, 10 * MINUTE),
        http.head_timeout_ms,
        "From the first byte of a request to the end of its head; then 408"
    ),
    number!(
        "body-timeout",
        millis(100, 30 * MINUTE),
        http.body_timeout_ms,
        "From the end of the head to the end of the body; then 408"
    ),
    number!("idle-timeout", millis(100, DAY), http.idle_timeout_ms, "Between requests; then the connection is closed"),
    number!(
        "send-timeout",
        millis(100, 10 * MINUTE),
        http.send_timeout_ms,
        "For the peer to take what it is sent; then the connection is cut off"
    ),
    number!(
        "linger-timeout",
        millis(0, MINUTE),
        http.linger_timeout_ms,
        "After our FIN, for the peer's; then the connection is cut off"
    ),
    choice!(
        "dedup-key",
        &["auto", "request_id", "click_id", "impression_id", "content"],
        DedupKey,
        click.dedup_key,
        "Which field names a click. auto: the first of request_id, click_id, impression_id, else a hash of all fields. \
         Another rule over a live log: the start warns and goes on, and clicks that are not newer than the newest in the log are refused as too_old"
    ),
    number!(
        "clock-skew",
        millis(SECOND, CLOCK_SKEW_MS_MAX as u64),
        click.clock_skew_ms,
        "How far ahead of the clock an event time may be, and how far wall and monotonic clock may part"
    ),
    Setting {
        name: "regions",
        about: "Names counted as regions beside the ISO 3166-1 alpha-2 countries, separated by commas; others count as other, a country's part such as US-CA as the country",
        kind: Kind::Regions,
        get: |config| Value::Text(join(config.click.regions.iter())),
        set: |config, value, _| config.click.regions = names_sorted(&value.text()),
    },
    number!(
        "frame-bytes",
        Kind::Bytes { min: 16 * KIB, max: 16 * MIB, step: 4096 },
        log.frame_bytes,
        "Largest frame, that is one write and one sync of the log"
    ),
    number!(
        "commit-delay-max",
        Kind::Duration { unit_us: US, min: 0, max: 1_000_000 },
        log.commit_delay_max_us,
        "How long a click waits in an open frame at most before the frame is written"
    ),
    number!(
        "commit-spacing",
        Kind::Duration { unit_us: US, min: 0, max: 1_000_000 },
        log.commit_spacing_us,
        "Least time between the starts of two writes: bounds the bytes written where clicks are few"
    ),
    number!(
        "segment-bytes",
        Kind::Bytes { min: MIB, max: 64 * GIB, step: 4096 },
        log.segment_bytes,
        "One file of the log, prepared ahead of need"
    ),
    number!(
        "wal-bytes-max",
        bytes(4 * MIB, 1024 * TIB),
        log.wal_bytes_max,
        "Log and its reserve; near it the oldest segments go early, at it clicks are shed with 503. The store is not in it"
    ),
    number!(
        "retention",
        millis(0, 3650 * DAY),
        log.retention_ms,
        "How long the log is kept, even where it is exported and forgotten; gives way near --wal-bytes-max"
    ),
    number!(
        "dead-letter-bytes-max",
        bytes(0, TIB),
        log.dead_letter_bytes_max,
        "Raw bytes of refused clicks kept in an hour; beyond it they are only counted"
    ),
    number!(
        "dedup-window",
        millis(MINUTE, DAY),
        dedup.window_ms,
        "How long an id is remembered, as far as memory and log allow; older clicks are refused"
    ),
    number!(
        "dedup-window-min",
        millis(SECOND, DAY),
        dedup.window_min_ms,
        "Where memory is short, ids are forgotten early down to this; then clicks are shed"
    ),
    number!(
        "dedup-memory-bytes",
        bytes(DEDUP_MEMORY_BYTES_MIN, DEDUP_MEMORY_BYTES_MAX),
        dedup.memory_bytes,
        "Memory for remembered ids, 19 bytes each"
    ),
    number!(
        "export-interval",
        millis(100, MINUTE),
        export.interval_ms,
        "Time between two cuts: how soon a click is counted. Up to ten times that (10s at most) while cuts cost much"
    ),
    number!(
        "watermark-delay",
        millis(0, DAY),
        export.watermark_delay_ms,
        "How far the watermark stays behind the clock: a window closes when the watermark passes its end"
    ),
    choice!(
        "sink",
        &["embedded", "kafka"],
        SinkKind,
        export.sink,
        "Where counts go: the store in the data directory, or Kafka (serve only; --edge-id must be said)"
    ),
    kafka!("kafka-brokers", Kind::Brokers, brokers, "Kafka's brokers to begin with, host:port, separated by commas"),
    Setting {
        name: "kafka-set",
        about: "A property of librdkafka, key=value; may be repeated. A list in the file, a line each in the environment",
        kind: Kind::Properties,
        get: |config| Value::Text(shown(&config.export.kafka.properties)),
        set: |config, value, _| config.export.kafka.properties = properties(&value.text()),
    },
    kafka!(
        "kafka-topic-partials",
        Kind::Topic { optional: false },
        topic_partials,
        "Topic of partials and end records"
    ),
    kafka!(
        "kafka-topic-checkpoints",
        Kind::Topic { optional: false },
        topic_checkpoints,
        "Topic of checkpoints; must be compacted"
    ),
    kafka!(
        "raw-topic",
        Kind::Topic { optional: true },
        topic_raw,
        "Topic that every accepted click is sent to as well, in the same transactions; costs a record a click"
    ),
    number!(
        "drain-delay",
        millis(0, 10 * SECOND),
        drain_delay_ms,
        "On SIGTERM, how long /readyz fails before draining begins, so that a load balancer notices"
    ),
    choice!("log-format", &["text", "json"], LogFormat, log_format, "Lines on standard error"),
];
