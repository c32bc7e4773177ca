//! Pure. From what was said on the command line, in the environment and in a file to a checked [`Config`]. A flag wins over
//! the environment, the environment over the file, the file over the default; nothing is repaired, nothing unknown skipped.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::config::{
    CORES_MAX, Config, DEDUP_MEMORY_BYTES_MAX, DEDUP_MEMORY_BYTES_MIN, KafkaConfig, KeepConfig, SinkKind,
};
use crate::limits;
use crate::machine::Machine;
use crate::settings::{SETTINGS, Setting};

/// Which command the configuration is for: they differ in a default or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Tries tollgate out beside other work: 256 MiB of remembered ids.
    Up,
    /// The same, with clicks that nobody made: in a directory of its own, where none is named.
    Demo,
    /// Has the machine to itself: a quarter of its memory, or of its cgroup's.
    Serve,
}

const DEMO_DATA_DIR: &str = "./tollgate-demo";

/// Where a value comes from, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Default,
    File,
    Environment,
    Flag,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Source::Default => "default",
            Source::File => "file",
            Source::Environment => "env",
            Source::Flag => "flag",
        }
    }
}

/// Everything that was said, as text. `main` fills it from the process, tests from tables.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// By the setting's name.
    pub flags: BTreeMap<&'static str, String>,
    /// `TOLLGATE_*`. Others of that prefix are not ours to refuse: Kubernetes sets some for a service named tollgate.
    pub environment: BTreeMap<String, String>,
    pub file: Option<ConfigFile>,
}

#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// For messages.
    pub name: String,
    pub text: String,
}

/// A checked configuration, and for each setting where its value comes from, in the order of [`SETTINGS`].
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub sources: Vec<(&'static Setting, Source)>,
}

/// The command line, the environment or the file is wrong; one line that says what, where, the limit and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Settings that the global tier has and an edge has not.
pub const OF_THE_GLOBAL_TIER: [&str; 2] = ["idle-after", "store-memory-bytes"];

/// A value as it was said.
struct Given {
    text: String,
    source: Source,
}

/// Puts together what was said, over the defaults of `role` on `machine`.
pub fn load(role: Role, said: &Said, machine: &Machine) -> Result<Loaded, UsageError> {
    let file = said.file.as_ref().map(read_file).transpose()?.unwrap_or_default();
    let mut given: Vec<(&'static Setting, Option<Given>)> =
        SETTINGS.iter().map(|setting| (setting, pick(setting, said, &file))).collect();
    one_of_cores_and_cpus(&mut given)?;
    let mut config = defaults(role, machine);
    let mut sources = Vec::with_capacity(SETTINGS.len());
    for (setting, given) in given {
        let Some(given) = given else {
            sources.push((setting, Source::Default));
            continue;
        };
        let name = || format!("{} {}", spoken_name(setting, given.source, said), setting.quoted(&given.text));
        setting
            .put(&mut config, &given.text, machine)
            .map_err(|refused| UsageError(format!("{}: {}", name(), refused.0)))?;
        if setting.name == "cores" && config.cpus.len() > machine.cpus.len() {
            let cpus = &machine.cpus;
            let text = format!("each worker has a CPU, and this process may use {}, {cpus:?}; see taskset", cpus.len());
            return Err(UsageError(format!("{}: {text}", name())));
        }
        sources.push((setting, given.source));
    }
    kafka(role, &config, &sources)?;
    limits::check(&config, machine).map_err(|error| UsageError(error.to_string()))?;
    Ok(Loaded { config, sources })
}

/// The data directory alone, for the commands that read one.
pub fn data_dir(said: &Said) -> Result<PathBuf, UsageError> {
    let file = said.file.as_ref().map(read_file).transpose()?.unwrap_or_default();
    let setting = Setting::named("data-dir").expect("a setting");
    Ok(pick(setting, said, &file).map_or(Config::default().data_dir, |given| given.text.into()))
}

/// Where the admin port of an edge with these settings is, for the command that asks a running one.
pub fn admin_address(said: &Said) -> Result<String, UsageError> {
    let file = said.file.as_ref().map(read_file).transpose()?.unwrap_or_default();
    let setting = Setting::named("admin-listen").expect("a setting");
    Ok(pick(setting, said, &file).map_or(setting.show(&Config::default()), |given| given.text))
}

/// What is said of Kafka alone, for the commands that speak to it without an edge.
pub fn kafka_config(said: &Said) -> Result<KafkaConfig, UsageError> {
    let file = said.file.as_ref().map(read_file).transpose()?.unwrap_or_default();
    let (mut config, machine) = (Config::default(), Machine::read());
    for setting in SETTINGS.iter().filter(|setting| setting.name.starts_with("kafka-") || setting.name == "raw-topic") {
        let Some(given) = pick(setting, said, &file) else { continue };
        setting.put(&mut config, &given.text, &machine).map_err(|refused| {
            let name = spoken_name(setting, given.source, said);
            UsageError(format!("{name} {}: {}", setting.quoted(&given.text), refused.0))
        })?;
    }
    if config.export.kafka.brokers.is_empty() {
        return Err(UsageError("say --kafka-brokers host:port,…".to_owned()));
    }
    limits::one_topic_each(&config.export.kafka).map_or(Ok(()), |why| Err(UsageError(why)))?;
    Ok(config.export.kafka)
}

/// Whether the grains are kept as long as they must be, where they are said without an edge.
pub fn check_kept(keep: &KeepConfig) -> Result<(), UsageError> {
    limits::coarser_is_kept_as_long(keep).map_or(Ok(()), |why| Err(UsageError(why)))
}

/// The defaults of a command on this machine.
pub fn defaults(role: Role, machine: &Machine) -> Config {
    let mut config = Config::default();
    match role {
        Role::Up => {}
        Role::Demo => config.data_dir = DEMO_DATA_DIR.into(),
        Role::Serve => {
            if machine.memory_bytes < u64::MAX {
                let quarter = (machine.memory_bytes / 4) & !((1 << 20) - 1);
                config.dedup.memory_bytes = quarter.clamp(DEDUP_MEMORY_BYTES_MIN, DEDUP_MEMORY_BYTES_MAX);
            }
            config.workers = workers(&config, machine);
        }
    }
    config
}

/// One for each CPU but one: exporter, keeper and the kernel's own threads want it. No more than log and memory carry.
fn workers(config: &Config, machine: &Machine) -> u16 {
    let quota = machine.cpu_quota.map_or(usize::MAX, |quota| quota as usize);
    let cpus = machine.cpus.len().min(quota);
    let most = cpus.saturating_sub(1).clamp(1, CORES_MAX);
    let fits = |workers: &u16| limits::check(&Config { workers: *workers, ..config.clone() }, machine).is_ok();
    (1..=most as u16).rev().find(fits).unwrap_or(1)
}

fn pick(setting: &'static Setting, said: &Said, file: &BTreeMap<&'static str, String>) -> Option<Given> {
    let flag = said.flags.get(setting.name).map(|text| (text, Source::Flag));
    let environment = || said.environment.get(&setting.variable()).map(|text| (text, Source::Environment));
    let in_file = || file.get(setting.name).map(|text| (text, Source::File));
    let (text, source) = flag.or_else(environment).or_else(in_file)?;
    Some(Given { text: text.clone(), source })
}

/// Kafka is for many edges, so each needs a name of its own; and `up` has its own store to show.
fn kafka(role: Role, config: &Config, sources: &[(&'static Setting, Source)]) -> Result<(), UsageError> {
    let named = |name: &str| sources.iter().any(|(setting, source)| setting.name == name && *source != Source::Default);
    let why = match config.export.sink {
        SinkKind::Embedded if named("raw-topic") || named("kafka-brokers") => {
            "--kafka-brokers and --raw-topic are for --sink kafka; say that too, or leave them out"
        }
        SinkKind::Embedded => return Ok(()),
        SinkKind::Kafka if named("ads") => {
            "--ads is for the store of this process; with --sink kafka give it to `tollgate global`"
        }
        SinkKind::Kafka if ["keep-panes", "keep-minutes", "keep-hours"].into_iter().any(named) => {
            "--keep-panes, --keep-minutes and --keep-hours are for the store of this process; with --sink kafka give them to \
             `tollgate global`"
        }
        SinkKind::Kafka if role != Role::Serve => {
            "--sink kafka: `tollgate up` counts in its own store; use `tollgate serve --sink kafka`"
        }
        SinkKind::Kafka if !named("kafka-brokers") => "--sink kafka: say --kafka-brokers host:port,…",
        SinkKind::Kafka if !named("edge-id") => {
            "--sink kafka: say --edge-id; it names this edge among all that export to the same topics, for ever"
        }
        SinkKind::Kafka => return Ok(()),
    };
    Err(UsageError(why.to_owned()))
}

/// Both set the same thing: the one from the stronger source stays, and two from the same source contradict each other.
fn one_of_cores_and_cpus(given: &mut [(&'static Setting, Option<Given>)]) -> Result<(), UsageError> {
    let place = |name: &str| given.iter().position(|(setting, _)| setting.name == name);
    let (cores, cpus) = (place("cores").expect("a setting"), place("cpus").expect("a setting"));
    let (Some(of_cores), Some(of_cpus)) = (&given[cores].1, &given[cpus].1) else { return Ok(()) };
    let weaker = match of_cores.source.cmp(&of_cpus.source) {
        std::cmp::Ordering::Less => cores,
        std::cmp::Ordering::Greater => cpus,
        std::cmp::Ordering::Equal => {
            let text = "--cores and --cpus are both set and mean the same thing; leave one out";
            return Err(UsageError(text.to_owned()));
        }
    };
    given[weaker].1 = None;
    Ok(())
}

/// The value's name where it was said: as a flag, as a variable, as a key of the file.
fn spoken_name(setting: &Setting, source: Source, said: &Said) -> String {
    match source {
        Source::Flag | Source::Default => format!("--{}", setting.name),
        Source::Environment => format!("{} (--{})", setting.variable(), setting.name),
        Source::File => {
            let file = said.file.as_ref().map_or("", |file| file.name.as_str());
            format!("{file}: {} (--{})", setting.name, setting.name)
        }
    }
}

/// Every key of a file, with its value as it stands there and as text.
pub fn file_values(file: &ConfigFile) -> Result<Vec<(String, toml::Value, String)>, UsageError> {
    let values = table(file)?.into_iter().map(|(key, value)| {
        let text = as_text(&value, ",").ok_or_else(|| {
            UsageError(format!("{}: {key} is a {}; it must be text or a number", file.name, value.type_str()))
        })?;
        Ok((key, value, text))
    });
    values.collect()
}

fn table(file: &ConfigFile) -> Result<toml::Table, UsageError> {
    toml::from_str(&file.text).map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start).min(file.text.len());
        let line = 1 + file.text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        UsageError(format!("{}: line {line}: {message}", file.name))
    })
}

/// The file's values as text, by setting. Keys are the flags' names without the dashes before them.
fn read_file(file: &ConfigFile) -> Result<BTreeMap<&'static str, String>, UsageError> {
    let name = &file.name;
    let mut values = BTreeMap::new();
    for (key, value) in table(file)? {
        let Some(setting) = Setting::named(&key) else {
            let close = Setting::named(&key.replace('_', "-")).map(|near| format!("; did you mean {:?}?", near.name));
            let hint = close.unwrap_or_else(|| {
                if OF_THE_GLOBAL_TIER.contains(&key.as_str()) {
                    return "; it is a setting of `tollgate global`: give that a file of its own".to_owned();
                }
                "; keys are the names of the flags in `tollgate up --help`".to_owned()
            });
            return Err(UsageError(format!("{name}: unknown key {key:?}{hint}")));
        };
        let between = if setting.repeats() { "\n" } else { "," };
        let text = as_text(&value, between).ok_or_else(|| {
            UsageError(format!("{name}: {key} is a {}; it must be {}", value.type_str(), setting.bounds()))
        })?;
        values.insert(setting.name, text);
    }
    Ok(values)
}

/// Strings and whole numbers stand for themselves, an array of them for a list.
fn as_text(value: &toml::Value, between: &str) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Array(values) => {
            let texts = values.iter().map(|value| as_text(value, between)).collect::<Option<Vec<_>>>()?;
            Some(texts.join(between))
        }
        toml::Value::Float(_) | toml::Value::Boolean(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DedupKey, LogFormat};

    fn machine() -> Machine {
        Machine { cpus: vec![4, 5], cpu_quota: None, memory_bytes: 8 << 30 }
    }

    fn file(text: &str) -> Said {
        Said { file: Some(ConfigFile { name: "t.toml".to_owned(), text: text.to_owned() }), ..Said::default() }
    }

    fn flags<const N: usize>(pairs: [(&'static str, &str); N]) -> Said {
        Said { flags: pairs.map(|(name, text)| (name, text.to_owned())).into(), ..Said::default() }
    }

    fn refusal(said: &Said) -> String {
        let text = load(Role::Up, said, &machine()).expect_err("refused").to_string();
        assert!(!text.contains('\n'), "more than one line: {text}");
        text
    }

    #[test]
    fn nothing_said_is_the_default() {
        let loaded = load(Role::Up, &Said::default(), &machine()).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert!(loaded.sources.iter().all(|(_, source)| *source == Source::Default));
    }

    #[test]
    fn serve_remembers_in_a_quarter_of_memory() {
        assert_eq!(load(Role::Serve, &Said::default(), &machine()).unwrap().config.dedup.memory_bytes, 2 << 30);
        for (machine_bytes, expected) in [(4 << 40, DEDUP_MEMORY_BYTES_MAX), (20 << 20, DEDUP_MEMORY_BYTES_MIN)] {
            let config = defaults(Role::Serve, &Machine { memory_bytes: machine_bytes, ..machine() });
            assert_eq!(config.dedup.memory_bytes, expected, "of {machine_bytes}");
        }
    }

    #[test]
    fn a_flag_beats_the_environment_and_that_the_file() {
        let mut said = file("recv-buffers = 32\nheaders-max = 33\nedge-id = \"in-file\"");
        for (variable, text) in
            [("TOLLGATE_RECV_BUFFERS", "64"), ("TOLLGATE_HEADERS_MAX", "34"), ("TOLLGATE_PORT", "x")]
        {
            said.environment.insert(variable.to_owned(), text.to_owned());
        }
        said.flags.insert("recv-buffers", "128".to_owned());
        let loaded = load(Role::Up, &said, &machine()).unwrap();
        assert_eq!(loaded.config.ring.recv_buffers, 128);
        assert_eq!(loaded.config.http.headers_max, 34);
        assert_eq!(loaded.config.export.edge_id, "in-file");
        let of = |name: &str| loaded.sources.iter().find(|(setting, _)| setting.name == name).unwrap().1;
        let found = ["recv-buffers", "headers-max", "edge-id", "listen"].map(of);
        assert_eq!(found, [Source::Flag, Source::Environment, Source::File, Source::Default]);
    }

    #[test]
    fn the_data_directory_is_found_where_nothing_else_would_pass() {
        let mut said = file("data-dir = \"in-file\"\ndedup-memory-bytes = \"900GiB\"");
        assert_eq!(data_dir(&said).unwrap(), PathBuf::from("in-file"));
        said.environment.insert("TOLLGATE_DATA_DIR".to_owned(), "in-env".to_owned());
        assert_eq!(data_dir(&said).unwrap(), PathBuf::from("in-env"));
        assert_eq!(data_dir(&flags([("data-dir", "in-flag")])).unwrap(), PathBuf::from("in-flag"));
        assert_eq!(data_dir(&Said::default()).unwrap(), Config::default().data_dir);
    }

    #[test]
    fn every_setting_reads_back_what_it_shows() {
        for setting in SETTINGS {
            let mut config = Config::default();
            if setting.name == "kafka-brokers" {
                config.export.kafka.brokers = "one:9092,[::1]:9093".to_owned();
            }
            if setting.name == "cpus" {
                config.cpus = vec![4];
            }
            if setting.name == "housekeeping-cpus" {
                config.tuning.housekeeping_cpus = vec![5];
            }
            let text = setting.show(&config);
            let mut again = Config { cpus: config.cpus.clone(), ..Config::default() };
            again.tuning.housekeeping_cpus = config.tuning.housekeeping_cpus.clone();
            again.export.kafka.brokers = config.export.kafka.brokers.clone();
            if setting.name != "cores" {
                setting.put(&mut again, &text, &machine()).unwrap_or_else(|e| panic!("{} {text}: {e:?}", setting.name));
            }
            assert_eq!(config, again, "{}", setting.name);
        }
    }

    #[test]
    fn the_bounds_are_kept_and_the_largest_value_survives_its_cast() {
        for setting in SETTINGS {
            let Some((least, most)) = setting.bounds().split_once(" to ").map(|(a, b)| (a.to_owned(), b.to_owned()))
            else {
                continue;
            };
            let least = least.trim_start_matches("a power of two from ").to_owned();
            let most = most.split(',').next().unwrap().to_owned();
            if setting.name == "cores" || !least.starts_with(|c: char| c.is_ascii_digit()) || most.contains(' ') {
                continue;
            }
            for text in [&least, &most] {
                let mut config = Config::default();
                setting.put(&mut config, text, &machine()).unwrap_or_else(|e| panic!("{} {text}: {e:?}", setting.name));
                assert_eq!(&setting.show(&config), text, "{}", setting.name);
            }
            let above = most.replacen(|c: char| c.is_ascii_digit(), "99", 1);
            assert!(setting.put(&mut Config::default(), &above, &machine()).is_err(), "{} {above}", setting.name);
        }
    }

    #[test]
    fn wrong_values_stop_with_one_line_naming_flag_value_and_limit() {
        for (name, value, limit) in [
            ("recv-buffers", "100", "must be a power of two from 16 to 32768"),
            ("recv-buffers", "many", "must be a whole number; a power of two from 16 to 32768"),
            ("frame-bytes", "20KiB1", "such as 256MiB"),
            ("frame-bytes", "17KiB", "must be 16KiB to 16MiB, a multiple of 4KiB"),
            ("dedup-window", "25h", "must be 1m to 1d"),
            ("dedup-window", "600", "such as 10m"),
            ("commit-spacing", "2s", "must be 0s to 1s"),
            ("listen", "8080", "must be an address and a port"),
            ("dedup-key", "uuid", "one of auto, request_id"),
            ("edge-id", "a b", "must be 1 to 64 letters"),
            ("cpus", "3-1", "such as 3 or 0-2,8"),
            ("regions", "much_too_long_a_name", "must be up to 1000 names"),
            ("regions", "metro,unknown", "\"unknown\" cannot name a region"),
            ("regions", "Other", "\"Other\" cannot name a region"),
            ("log-format", "xml", "must be one of text, json"),
            ("nic", "../eth0", "must be the name of a network interface"),
            ("napi", "yes", "must be one of off, on, prefer"),
            ("busy-poll-us", "50us", "must be a whole number; 0 to 10000"),
        ] {
            let text = refusal(&flags([(name, value)]));
            let start = format!("--{name} {value:?}: ");
            assert!(text.starts_with(&start) && text.contains(limit), "{text}");
        }
    }

    #[test]
    fn a_wrong_value_names_the_place_where_it_was_said() {
        let mut said = Said::default();
        said.environment.insert("TOLLGATE_RECV_BUFFERS".to_owned(), "3".to_owned());
        assert!(refusal(&said).starts_with("TOLLGATE_RECV_BUFFERS (--recv-buffers) \"3\": must be a power"));
        assert!(refusal(&file("recv-buffers = 3")).starts_with("t.toml: recv-buffers (--recv-buffers) \"3\": must"));
    }

    #[test]
    fn a_file_that_is_wrong_is_refused() {
        for (text, want) in [
            ("recv_buffers = 64", "t.toml: unknown key \"recv_buffers\"; did you mean \"recv-buffers\"?"),
            ("colour = 1", "unknown key \"colour\"; keys are the names"),
            ("idle-after = \"3s\"", "unknown key \"idle-after\"; it is a setting of `tollgate global`"),
            ("\n\nlisten = ", "t.toml: line 3: "),
            ("headers-max = 64.5", "headers-max is a float; it must be 8 to 1024"),
            ("headers-max = 64\nheaders-max = 65", "line 2: duplicate key"),
            ("[http]\nlisten = 1", "unknown key \"http\""),
        ] {
            let found = refusal(&file(text));
            assert!(found.contains(want), "{text:?}: {found}");
        }
    }

    #[test]
    fn a_file_holds_lists_and_names() {
        let text =
            "regions = [\"emea\", \"apac\", \"emea\"]\ndedup-key = \"click_id\"\nlog-format = \"json\"\ncpus = [5]";
        let config = load(Role::Up, &file(text), &machine()).unwrap().config;
        assert_eq!(config.click.regions, ["apac", "emea"]);
        assert_eq!(config.click.dedup_key, DedupKey::ClickId);
        assert_eq!(config.log_format, LogFormat::Json);
        assert_eq!(config.cpus, [5]);
    }

    #[test]
    fn cores_pin_to_the_affinity_mask() {
        let serve = |cpus: usize, cpu_quota, gib: u64| {
            let machine = Machine { cpus: (0..cpus).collect(), cpu_quota, memory_bytes: gib << 30 };
            let config = defaults(Role::Serve, &machine);
            (config.cores(), config.cpus.len())
        };
        assert_eq!([1, 2, 4, 16].map(|cpus| serve(cpus, None, 64)), [(1, 0), (1, 0), (3, 0), (15, 0)]);
        assert_eq!((serve(16, Some(4.5), 64), serve(16, Some(0.5), 64)), ((3, 0), (1, 0)), "the quota bounds them");
        assert!(serve(16, None, 4).0 < 15 && serve(256, None, 1024).0 == 32, "so do memory, and room for the logs");
        for (cores, cpus) in [("1", &[4][..]), ("2", &[4, 5])] {
            assert_eq!(load(Role::Up, &flags([("cores", cores)]), &machine()).unwrap().config.cpus, cpus);
        }
        let three = refusal(&flags([("cores", "3")]));
        assert_eq!(three, "--cores \"3\": each worker has a CPU, and this process may use 2, [4, 5]; see taskset");
        assert!(refusal(&flags([("cpus", "0")])).contains("CPU 0 is not among those this process may use, [4, 5]"));
    }

    #[test]
    fn housekeeping_is_beside_pinned_workers() {
        let said = |cpus, others| load(Role::Up, &flags([("cpus", cpus), ("housekeeping-cpus", others)]), &machine());
        assert_eq!(said("4", "5").unwrap().config.tuning.housekeeping_cpus, [5]);
        for (cpus, others, want) in [("4,5", "5", "CPU 5 is a worker's ([4, 5])"), ("4", "6", "CPU 6 is not among")] {
            assert!(said(cpus, others).unwrap_err().to_string().contains(want), "{cpus} {others}");
        }
        assert!(refusal(&flags([("housekeeping-cpus", "5")])).contains("say --cpus or --cores too"));
        assert!(refusal(&flags([("napi", "on")])).contains("--napi on: say how long with --busy-poll-us"));
    }

    #[test]
    fn the_stronger_of_cores_and_cpus_wins_and_equals_contradict() {
        let mut said = file("cpus = [5]");
        said.flags.insert("cores", "1".to_owned());
        assert_eq!(load(Role::Up, &said, &machine()).unwrap().config.cpus, [4]);
        assert!(refusal(&flags([("cores", "1"), ("cpus", "4")])).contains("both set"));
    }

    #[test]
    fn the_table_of_ids_takes_every_size_that_is_allowed() {
        let bounds = Setting::named("dedup-memory-bytes").unwrap().bounds();
        assert_eq!((bounds.as_str(), crate::dedup::MEMORY_BYTES_MIN), ("8MiB to 255GiB", 8 << 20));
        const { assert!(crate::dedup::MEMORY_BYTES_MAX >= 255 << 30) };
    }

    #[test]
    fn sums_that_do_not_fit_are_refused_too() {
        assert!(refusal(&flags([("wal-bytes-max", "4MiB")])).contains("--segment-bytes 128MiB"));
        assert!(refusal(&flags([("dedup-memory-bytes", "9GiB")])).contains("grants 8.0 GiB"));
    }
}
