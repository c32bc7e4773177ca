//! Pure. What is in force where nothing is said.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{
    ClickConfig, Config, DedupConfig, DedupKey, ExportConfig, GIB, HttpConfig, KIB, KafkaConfig, KeepConfig, LogConfig,
    LogFormat, MIB, MeshConfig, NapiMode, RingConfig, SinkKind, TuningConfig,
};

const DAY_MS: i64 = 86_400_000;

impl Default for Config {
    /// What `tollgate up` runs with when nothing is said.
    fn default() -> Config {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Config {
            listen: local(8080),
            query_listen: local(8090),
            admin_listen: local(9464),
            data_dir: PathBuf::from("./tollgate-data"),
            ads: PathBuf::new(),
            keep: KeepConfig { panes_ms: 2 * DAY_MS, minutes_ms: 90 * DAY_MS, hours_ms: 731 * DAY_MS },
            cpus: Vec::new(),
            workers: 1,
            ring: RingConfig {
                entries: 1024,
                recv_buffers: 256,
                recv_buffer_bytes: 16 * KIB as u32,
                busy_poll_us: 0,
                napi: NapiMode::Off,
            },
            mesh: MeshConfig { chunk_bytes: 16 * KIB as usize, chunks: 256, chunks_a_way_min: 8, chunks_a_way_max: 64 },
            http: HttpConfig {
                connections_max: 4096,
                head_bytes_max: 8 * KIB as u32,
                headers_max: 64,
                body_bytes_max: MIB as u32,
                batch_clicks_max: 5_000,
                pipeline_max: 256,
                reply_bytes_max: 64 * KIB as u32,
                assembly_bytes_max: 64 * MIB,
                // 8 KiB for each of 4,096 connections, or twenty of the largest.
                parked_bytes_max: 32 * MIB,
                // Eight of the largest.
                staging_bytes_max: 12 * MIB,
                head_timeout_ms: 10_000,
                body_timeout_ms: 30_000,
                idle_timeout_ms: 75_000,
                send_timeout_ms: 10_000,
                linger_timeout_ms: 2_000,
            },
            click: ClickConfig { dedup_key: DedupKey::Auto, clock_skew_ms: 60_000, regions: Vec::new() },
            log: LogConfig {
                frame_bytes: 256 * KIB as u32,
                commit_delay_max_us: 1_000,
                commit_spacing_us: 200,
                segment_bytes: 128 * MIB,
                wal_bytes_max: 16 * GIB,
                retention_ms: 0,
                dead_letter_bytes_max: 256 * MIB,
            },
            dedup: DedupConfig { window_ms: 600_000, window_min_ms: 60_000, memory_bytes: 256 * MIB },
            export: ExportConfig {
                edge_id: "edge".to_owned(),
                interval_ms: 1_000,
                watermark_delay_ms: 5_000,
                sink: SinkKind::Embedded,
                kafka: KafkaConfig {
                    topic_partials: "clicks.partials".to_owned(),
                    topic_checkpoints: "clicks.checkpoints".to_owned(),
                    ..KafkaConfig::default()
                },
            },
            tuning: TuningConfig::default(),
            drain_delay_ms: 0,
            log_format: LogFormat::Text,
        }
    }
}
