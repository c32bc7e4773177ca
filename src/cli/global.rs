//! The command line of the global tier: its own few settings, with the names, variables and file that an edge's have.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use tollgate_global::{KafkaSettings, Options, Retention, ServiceConfig};

use super::{environment, read};
use crate::config::{KeepConfig, LogFormat};
use crate::flags::{ConfigFile, Said, UsageError, check_kept, file_values, kafka_config};
use crate::settings::Setting;
use crate::units::{format_bytes, format_duration_us, parse_bytes, parse_duration_us};

#[derive(Clone, Debug, Args)]
pub struct GlobalArgs {
    /// Reads settings from this TOML file, keys as the flags below; a flag wins over the environment, that over the file
    /// [env: TOLLGATE_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Kafka's brokers to begin with, host:port, separated by commas [env: TOLLGATE_KAFKA_BROKERS]
    #[arg(long, value_name = "BROKERS")]
    kafka_brokers: Option<String>,
    /// A property of librdkafka, key=value; may be repeated [env: TOLLGATE_KAFKA_SET, a line each]
    #[arg(long, value_name = "KEY=VALUE")]
    kafka_set: Vec<String>,
    /// Topic of partials and end records [default: clicks.partials] [env: TOLLGATE_KAFKA_TOPIC_PARTIALS]
    #[arg(long, value_name = "TOPIC")]
    kafka_topic_partials: Option<String>,
    /// Holds the store; made where it is missing. One process at a time [default: ./tollgate-global] [env: TOLLGATE_DATA_DIR]
    #[arg(long, value_name = "PATH")]
    data_dir: Option<String>,
    /// Where counts are asked for [default: 127.0.0.1:8090] [env: TOLLGATE_QUERY_LISTEN]
    #[arg(long, value_name = "ADDRESS")]
    query_listen: Option<String>,
    /// Where /metrics, /healthz and /readyz are, and `tollgate edges` asks [default: 127.0.0.1:9465] [env: TOLLGATE_ADMIN_LISTEN]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// An edge that sends nothing for longer holds no window open, and is named [default: 30s] [bounds: 1s to 1d] [env:
    /// TOLLGATE_IDLE_AFTER]
    #[arg(long, value_name = "TIME")]
    idle_after: Option<String>,
    /// How long rows of 10 s are kept [default: 2d] [bounds: 2h to 3650d] [env: TOLLGATE_KEEP_PANES]
    #[arg(long, value_name = "TIME")]
    keep_panes: Option<String>,
    /// How long rows of minutes are kept, and the history of corrections [default: 90d] [bounds: 2h to 3650d] [env:
    /// TOLLGATE_KEEP_MINUTES]
    #[arg(long, value_name = "TIME")]
    keep_minutes: Option<String>,
    /// How long rows of hours are kept [default: 731d] [bounds: 1d to 3650d] [env: TOLLGATE_KEEP_HOURS]
    #[arg(long, value_name = "TIME")]
    keep_hours: Option<String>,
    /// What open panes, the cache of the store, the last hour's counts and transactions that are being read may hold in memory
    /// [default: 512MiB] [bounds: 64MiB to 1TiB] [env: TOLLGATE_STORE_MEMORY_BYTES]
    #[arg(long, value_name = "BYTES")]
    store_memory_bytes: Option<String>,
    /// The ad catalogue, CSV with the columns ad_id, campaign_id, advertiser_id or an object a line; read again when it changes
    /// [default: none] [env: TOLLGATE_ADS]
    #[arg(long, value_name = "FILE")]
    ads: Option<String>,
    /// Lines on standard error: text or json [default: text] [env: TOLLGATE_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Puts the store aside and counts anew all that the topic has
    #[arg(long)]
    rebuild: bool,
    /// Where the topic was made anew, or what is to be read next is deleted: keeps what is counted, and reads the topic from the
    /// first record that it has
    #[arg(long, conflicts_with = "rebuild")]
    from_earliest: bool,
    /// A record that says that a later version wrote it, and that none wrote: it is taken as torn, where it would end this with 77; may
    /// be repeated
    #[arg(long, value_name = "PARTITION:OFFSET")]
    pass_over: Vec<String>,
}

#[derive(Debug, Args)]
pub struct EdgesArgs {
    #[command(flatten)]
    pub admin: AdminArgs,
    #[command(subcommand)]
    pub command: EdgesCommand,
}

#[derive(Debug, Subcommand)]
pub enum EdgesCommand {
    /// Every edge that ever sent something: whether it lives, how far it is, and what went wrong with it
    List {
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// An edge that will not come back: no window waits for it any more. It is back as soon as it sends something
    Retire { edge_id: String },
    /// The troubles of an edge are known: windows become final again, although clicks are missing
    Accept { edge_id: String },
}

#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    pub admin: AdminArgs,
    /// A file that is not there yet, on the host of the global tier
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// What `tollgate backup` wrote
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// The data directory of the global tier, without a store [default: ./tollgate-global] [env: TOLLGATE_DATA_DIR]
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
}

/// Whom to ask.
#[derive(Clone, Debug, Args)]
pub struct AdminArgs {
    /// The admin port of `tollgate global` [default: 127.0.0.1:9465] [env: TOLLGATE_ADMIN_LISTEN]
    #[arg(long, value_name = "ADDRESS", global = true)]
    admin: Option<String>,
}

const ADMIN_LISTEN: &str = "127.0.0.1:9465";
const DATA_DIR: &str = "./tollgate-global";

/// What is known to the global tier beside Kafka's settings, as the file's keys are.
const KEYS: [&str; 10] = [
    "data-dir",
    "query-listen",
    "admin-listen",
    "idle-after",
    "keep-panes",
    "keep-minutes",
    "keep-hours",
    "store-memory-bytes",
    "ads",
    "log-format",
];

impl AdminArgs {
    pub fn admin(&self) -> String {
        let named = self.admin.clone().or_else(|| environment().remove("TOLLGATE_ADMIN_LISTEN"));
        named.unwrap_or_else(|| ADMIN_LISTEN.to_owned())
    }
}

impl RestoreArgs {
    pub fn data_dir(&self) -> PathBuf {
        let named = self.data_dir.clone().or_else(|| environment().remove("TOLLGATE_DATA_DIR").map(PathBuf::from));
        named.unwrap_or_else(|| DATA_DIR.into())
    }
}

impl GlobalArgs {
    /// What is in force, from these flags, this process's environment and the file.
    pub fn load(&self) -> Result<(ServiceConfig, LogFormat), UsageError> {
        self.load_from(environment(), read(self.config.as_deref())?)
    }

    fn load_from(
        &self,
        environment: BTreeMap<String, String>,
        file: Option<ConfigFile>,
    ) -> Result<(ServiceConfig, LogFormat), UsageError> {
        let (own, kafka_file) = split(file)?;
        let value = |name: &'static str, flag: &Option<String>, default: &str| {
            let variable = format!("TOLLGATE_{}", name.replace('-', "_").to_ascii_uppercase());
            let said = flag.clone().or_else(|| environment.get(&variable).cloned()).or_else(|| own.get(name).cloned());
            said.unwrap_or_else(|| default.to_owned())
        };
        let address = |name: &'static str, flag: &Option<String>, default: &str| {
            let text = value(name, flag, default);
            text.parse::<SocketAddr>().map_err(|_| {
                UsageError(format!("--{name} {text:?}: say an address and a port, such as {default} or [::]:8090"))
            })
        };
        let memory = bytes("store-memory-bytes", &value("store-memory-bytes", &self.store_memory_bytes, "512MiB"))?;
        let time = |name: &'static str, flag: &Option<String>, default: &str, least_s: u64, most_s: u64| {
            duration_ms(name, &value(name, flag, default), least_s, most_s)
        };
        let (day_s, ten_years_s) = (86_400, 3_650 * 86_400);
        let retention = Retention {
            panes_ms: time("keep-panes", &self.keep_panes, "2d", 7_200, ten_years_s)?,
            minutes_ms: time("keep-minutes", &self.keep_minutes, "90d", 7_200, ten_years_s)?,
            hours_ms: time("keep-hours", &self.keep_hours, "731d", day_s, ten_years_s)?,
        };
        let Retention { panes_ms, minutes_ms, hours_ms } = retention;
        check_kept(&KeepConfig { panes_ms, minutes_ms, hours_ms })?;
        let store = Options {
            cache_bytes: (memory / 4) as usize,
            open_bytes_max: (memory / 2) as usize,
            ranking_bytes_max: (memory / 8) as usize,
            idle_after_ms: time("idle-after", &self.idle_after, "30s", 1, day_s)?,
            retention,
        };
        let format = value("log-format", &self.log_format, "text");
        let log_format = LogFormat::ALL.iter().find(|known| known.name() == format);
        let config = ServiceConfig {
            data_dir: value("data-dir", &self.data_dir, DATA_DIR).into(),
            kafka: self.kafka(environment.clone(), kafka_file, (memory / 8) as usize)?,
            query_listen: address("query-listen", &self.query_listen, "127.0.0.1:8090")?,
            admin_listen: address("admin-listen", &self.admin_listen, ADMIN_LISTEN)?,
            store,
            ads: Some(value("ads", &self.ads, "")).filter(|path| !path.is_empty()).map(PathBuf::from),
            rebuild: self.rebuild,
            from_earliest: self.from_earliest,
            pass_over: self.pass_over.iter().map(|text| place(text)).collect::<Result<_, _>>()?,
        };
        let unknown = || UsageError(format!("--log-format {format:?}: must be text or json"));
        Ok((config, *log_format.ok_or_else(unknown)?))
    }

    /// Kafka's settings are an edge's: what the protocol decides cannot be set.
    fn kafka(
        &self,
        environment: BTreeMap<String, String>,
        file: Option<ConfigFile>,
        unfinished_bytes_max: usize,
    ) -> Result<KafkaSettings, UsageError> {
        let mut flags = BTreeMap::new();
        let properties = (!self.kafka_set.is_empty()).then(|| self.kafka_set.join("\n"));
        let said = [
            ("kafka-brokers", self.kafka_brokers.clone()),
            ("kafka-topic-partials", self.kafka_topic_partials.clone()),
            ("kafka-set", properties),
        ];
        flags.extend(said.into_iter().filter_map(|(name, text)| Some((name, text?))));
        let kafka = kafka_config(&Said { flags, environment, file })?;
        Ok(KafkaSettings {
            brokers: kafka.brokers,
            topic: kafka.topic_partials,
            properties: kafka.properties,
            unfinished_bytes_max,
        })
    }
}

/// The file's values that are the global tier's own, and a file of those that are Kafka's.
fn split(file: Option<ConfigFile>) -> Result<(BTreeMap<String, String>, Option<ConfigFile>), UsageError> {
    let Some(file) = file else { return Ok((BTreeMap::new(), None)) };
    let (mut own, mut kafka) = (BTreeMap::new(), toml::Table::new());
    for (key, value, text) in file_values(&file)? {
        if KEYS.contains(&key.as_str()) {
            own.insert(key, text);
        } else if key.starts_with("kafka-") || key == "raw-topic" {
            // An edge's file of Kafka's settings serves both, so what it says of topics that are not read here is looked at alone.
            kafka.insert(key, value);
        } else if Setting::named(&key).is_some() {
            let name = &file.name;
            return Err(UsageError(format!(
                "{name}: {key:?} is a setting of an edge, `tollgate up` and `tollgate serve`, and `tollgate global` has it not: leave it out, \
                 or give each a file of its own; only what is said of Kafka may stand in one for both"
            )));
        } else {
            let hint = "; keys are the names of the flags in `tollgate global --help`";
            return Err(UsageError(format!("{}: unknown key {key:?}{hint}", file.name)));
        }
    }
    Ok((own, Some(ConfigFile { name: file.name, text: kafka.to_string() })))
}

/// Partition and offset of one record.
fn place(text: &str) -> Result<(i32, i64), UsageError> {
    let parts = text.split_once(':').and_then(|(of, at)| Some((of.parse::<u32>().ok()?, at.parse::<u64>().ok()?)));
    let place = parts.and_then(|(of, at)| Some((of.try_into().ok()?, at.try_into().ok()?)));
    place.ok_or_else(|| {
        UsageError(format!(
            "--pass-over {text:?}: say a partition and an offset, as the line did that named them, such as 3:17"
        ))
    })
}

fn bytes(name: &str, text: &str) -> Result<u64, UsageError> {
    let (least, most) = (64 << 20, 1 << 40);
    let refused = |why: &str| {
        UsageError(format!("--{name} {text:?}: {why}; must be {} to {}", format_bytes(least), format_bytes(most)))
    };
    let bytes = parse_bytes(text).map_err(refused)?;
    if (least..=most).contains(&bytes) { Ok(bytes) } else { Err(refused("out of bounds")) }
}

fn duration_ms(name: &str, text: &str, least_s: u64, most_s: u64) -> Result<i64, UsageError> {
    let shown = |seconds: u64| format_duration_us(seconds * 1_000_000);
    let refused =
        |why: &str| UsageError(format!("--{name} {text:?}: {why}; must be {} to {}", shown(least_s), shown(most_s)));
    let us = parse_duration_us(text).map_err(refused)?;
    if (least_s * 1_000_000..=most_s * 1_000_000).contains(&us) {
        return Ok((us / 1_000) as i64);
    }
    Err(refused("out of bounds"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, Read, read_command_line};

    fn args(line: &str) -> GlobalArgs {
        match read_command_line(line.split(' ').map(Into::into)) {
            Ok(Read::Command(Command::Global(args))) => *args,
            other => panic!("{other:?}"),
        }
    }

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn flags_win_over_variables_and_those_over_the_file() {
        let text =
            "kafka-brokers = \"file:1\"\nkeep-panes = \"3d\"\nkafka-set = [\"client.rack=a\"]\nidle-after = \"9s\"\n";
        let file = Some(ConfigFile { name: "t.toml".to_owned(), text: text.to_owned() });
        let environment = variables(&[("TOLLGATE_IDLE_AFTER", "8s"), ("TOLLGATE_KEEP_PANES", "4d")]);
        let (config, _) = args("tollgate global --keep-panes 5d").load_from(environment, file).expect("good");
        assert_eq!(config.kafka.brokers, "file:1");
        assert_eq!(config.kafka.properties, [("client.rack".to_owned(), "a".to_owned())]);
        assert_eq!((config.store.idle_after_ms, config.store.retention.panes_ms), (8_000, 5 * 86_400_000));
        let keep = crate::config::Config::default().keep;
        let other = args("tollgate global --kafka-brokers a:1").load_from(BTreeMap::new(), None).expect("good").0;
        let Retention { panes_ms, minutes_ms, hours_ms } = other.store.retention;
        assert_eq!(KeepConfig { panes_ms, minutes_ms, hours_ms }, keep, "as an edge with its own store");
        assert_eq!(other.store.retention, Retention::default());
        assert_eq!((config.kafka.topic.as_str(), config.rebuild, config.ads), ("clicks.partials", false, None));
        let passed = args("tollgate global --kafka-brokers a:1 --pass-over 3:17 --pass-over 0:9")
            .load_from(variables(&[]), None);
        assert_eq!(passed.expect("good").0.pass_over, [(0, 9), (3, 17)].into());
        let ads = args("tollgate global --kafka-brokers a:1 --ads a.csv")
            .load_from(variables(&[("TOLLGATE_ADS", "b.csv")]), None);
        assert_eq!(ads.expect("good").0.ads, Some("a.csv".into()));
    }

    #[test]
    fn what_cannot_be_is_one_line_that_names_it() {
        for (line, want) in [
            ("tollgate global", "--kafka-brokers"),
            ("tollgate global --kafka-brokers a:1 --idle-after 0s", "--idle-after"),
            ("tollgate global --kafka-brokers a:1 --keep-panes 100d", "--keep-minutes"),
            ("tollgate global --kafka-brokers a:1 --query-listen 8090", "--query-listen"),
            ("tollgate global --kafka-brokers a:1 --store-memory-bytes 1MiB", "64MiB"),
            ("tollgate global --kafka-brokers a:1 --kafka-set isolation.level=read_uncommitted", "isolation.level"),
            ("tollgate global --kafka-brokers a:1 --log-format xml", "--log-format"),
            ("tollgate global --kafka-brokers a:1 --pass-over 3:17 --pass-over 3", "--pass-over \"3\""),
            ("tollgate global --kafka-brokers a:1 --pass-over 3:-1", "--pass-over \"3:-1\""),
        ] {
            let text = args(line).load_from(BTreeMap::new(), None).expect_err(line).to_string();
            assert!(text.contains(want) && !text.contains('\n'), "{line}: {text}");
        }
        for (name, beyond) in [("keep-panes", "7199s"), ("keep-minutes", "7199s"), ("keep-hours", "86399s")] {
            let setting = Setting::named(name).expect("a setting");
            for text in [beyond, "3651d"] {
                let line = format!("tollgate global --kafka-brokers a:1 --{name} {text}");
                let refused = args(&line).load_from(BTreeMap::new(), None).expect_err(&line).to_string();
                assert!(refused.contains(&setting.bounds()), "as an edge with its own store: {refused}");
            }
        }
        let file = Some(ConfigFile { name: "t.toml".to_owned(), text: "recv-buffers = 1".to_owned() });
        let text = args("tollgate global --kafka-brokers a:1").load_from(BTreeMap::new(), file).expect_err("unknown");
        assert!(text.to_string().contains("\"recv-buffers\" is a setting of an edge"), "{text}");
        let load = |text: &str| {
            let file = Some(ConfigFile { name: "t.toml".to_owned(), text: text.to_owned() });
            args("tollgate global --kafka-brokers a:1").load_from(BTreeMap::new(), file)
        };
        let text = load("rcv-buffers = 1").expect_err("unknown").to_string();
        assert!(text.contains("unknown key \"rcv-buffers\""), "{text}");
        // Kafka's part of an edge's file.
        let of_both = "kafka-topic-checkpoints = \"c\"\nraw-topic = \"r\"\nkafka-topic-partials = \"p\"\n";
        assert_eq!(load(of_both).expect("good").0.kafka.topic, "p");
        let text = load("kafka-topic-partials = \"p\"\nraw-topic = \"p\"").expect_err("one topic").to_string();
        assert!(text.contains("raw-topic"), "{text}");
    }
}
