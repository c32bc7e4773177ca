//! The command line as a closed set of commands. Reading it does not end the process: `main` alone does.

mod global;
mod token;

pub use global::{AdminArgs, BackupArgs, EdgesArgs, EdgesCommand, GlobalArgs, RestoreArgs};
pub use token::{TokenArgs, TokenCommand, TokenCreateArgs};

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::config::{Config, KafkaConfig};
use crate::flags::{
    ConfigFile, Loaded, OF_THE_GLOBAL_TIER, Role, Said, UsageError, admin_address, data_dir, kafka_config, load,
};
use crate::machine::Machine;
use crate::settings::{SETTINGS, Setting};

/// Takes ad clicks in at the edge, puts each on disk before it is acknowledged, and counts it exactly once.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Edge, embedded global tier and query API in one process; needs no flag: the way to try it
    Up(UpArgs),
    /// The edge on a machine of its own: a quarter of the memory remembers ids
    Serve(ServeArgs),
    /// Checks a configuration; prints every value in force, the memory they add up to, the click rate that the
    /// dedup window holds and what limits it, seconds to ready after a kill. Starts nothing
    Check(CheckArgs),
    /// Looks at the host as this configuration would use it: kernel, NIC, CPUs, memory, disk (its sync latency is measured); says
    /// what it would set for these CPUs and why. Exit status 1 where there is a problem
    Doctor(DoctorArgs),
    /// What a data directory holds, and the ways out of a halt
    Wal(WalArgs),
    /// Kafka's topics, as the protocol needs them
    Topics(TopicsArgs),
    /// Where Kafka's checkpoint of this edge and the data directory contradict each other: shows what going on would mean,
    /// and with --yes does it
    Adopt(AdoptArgs),
    /// One screen of a running edge, from its admin port; exit status 1 where something needs a person
    Status(StatusArgs),
    /// Recounts the log and compares with what was exported; differences are listed, exit status 1
    Audit(AuditArgs),
    /// The global tier behind Kafka: reads what edges export, keeps it in windows, answers queries
    Global(Box<GlobalArgs>),
    /// The edges that a running global tier knows; exit status 1 where something needs a person
    Edges(EdgesArgs),
    /// Who may ask the query port: tokens, each for some campaigns and advertisers or for everything
    Token(TokenArgs),
    /// Copies the store of a running global tier, as of one moment
    Backup(BackupArgs),
    /// Puts a backup where no store is
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
pub struct UpArgs {
    /// Sends itself some 300 clicks a second that nobody made, so that the dashboard has something to show. They are counted in a data
    /// directory that is a demo's alone: ./tollgate-demo, or a new one that --data-dir names
    #[arg(long, conflicts_with = "until_exported")]
    pub demo: bool,
    #[command(flatten)]
    pub serve: ServeArgs,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Takes no clicks and does not listen for them: exports everything that the log holds, waits for a sink that is away, and
    /// ends with exit status 0. For taking a host out
    #[arg(long)]
    pub until_exported: bool,
    #[command(flatten)]
    pub settings: SettingArgs,
}

#[derive(Debug, Args)]
pub struct WalArgs {
    #[command(flatten)]
    pub log: LogArgs,
    #[command(subcommand)]
    pub command: WalCommand,
}

#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// Segments, frames, positions, totals and horizon
    Inspect(JsonArgs),
    /// Reads every frame; damage is shown with its exact extent, exit status 1
    Verify(JsonArgs),
    /// Shows how to go on after damage; does it with --yes and leaves an audit file
    Repair(RepairArgs),
    /// Clicks as NDJSON on standard output
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub struct TopicsArgs {
    #[command(subcommand)]
    pub command: TopicsCommand,
}

#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Makes the topics that are missing
    Create(TopicsCreateArgs),
    /// Looks at the topics: what loses counts is refused, exit status 1; what could is said
    Check(SettingArgs),
}

#[derive(Debug, Args)]
pub struct TopicsCreateArgs {
    #[command(flatten)]
    pub settings: SettingArgs,
    /// Partitions of the topics of partials and of raw clicks
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub partitions: i32,
    /// Edges that will export: the topic of checkpoints gets a partition for each
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub edges: i32,
    /// Replicas of each partition
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=100))]
    pub replication: i32,
}

#[derive(Debug, Args)]
pub struct JsonArgs {
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("way").required(true).args(["raise_horizon", "accept_loss"])))]
pub struct RepairArgs {
    /// Damage below the checkpoint: nothing is lost from the counts; ids in it are forgotten, so the horizon rises
    #[arg(long)]
    pub raise_horizon: bool,
    /// Damage above the checkpoint: these records are lost from the counts; as `wal verify` prints it. Several times where
    /// there are several
    #[arg(long, value_name = "LOG:FROM-TO")]
    pub accept_loss: Vec<String>,
    /// Do it; without, only show what would be done
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// What was refused, instead of clicks
    #[arg(long)]
    pub dead_letters: bool,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub settings: SettingArgs,
    /// The command whose defaults apply
    #[arg(long = "for", value_name = "COMMAND", default_value = "serve")]
    pub role: CheckedRole,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub settings: SettingArgs,
    /// Sets what is safe and can be put back until the next boot: sysctls, transparent huge pages, the workers' governor; and of the
    /// NIC that --nic names RPS, XPS and where its interrupts go. Prints each old value with the command that puts it back
    #[arg(long)]
    pub apply: bool,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckedRole {
    Up,
    Serve,
}

impl CheckedRole {
    pub fn role(self) -> Role {
        match self {
            CheckedRole::Up => Role::Up,
            CheckedRole::Serve => Role::Serve,
        }
    }
}

#[derive(Debug, Args)]
pub struct AdoptArgs {
    #[command(flatten)]
    pub settings: SettingArgs,
    /// Where export goes on: exported (after what this directory remembers), found (after what the checkpoint in Kafka says),
    /// start (with all that the log holds), or after an LSN, LOG:LSN; not said: the way that is right, if one is
    #[arg(long, value_name = "WHERE")]
    pub from: Vec<String>,
    /// Do it; without, only show what it would mean
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(flatten)]
    pub log: LogArgs,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Reads the edge's --admin-listen from this TOML file [env: TOLLGATE_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The edge's admin port [default: what --admin-listen is set to, 127.0.0.1:9464] [env: TOLLGATE_ADMIN_LISTEN]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

impl StatusArgs {
    /// Whom to ask.
    pub fn admin(&self) -> Result<String, UsageError> {
        let flags = self.admin.iter().map(|address| ("admin-listen", address.clone())).collect();
        admin_address(&Said { flags, environment: environment(), file: read(self.config.as_deref())? })
    }
}

/// Names a data directory that no process serves, for the commands that read one.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// Reads the data directory's path from this TOML file [env: TOLLGATE_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Holds the log and the store [default: ./tollgate-data] [env: TOLLGATE_DATA_DIR]
    #[arg(long, value_name = "PATH", global = true)]
    data_dir: Option<String>,
}

/// Every setting as a flag, and the file. Nothing is parsed here: that is `flags::load`'s, whatever the source.
#[derive(Clone, Debug, Default)]
pub struct SettingArgs {
    config: Option<PathBuf>,
    flags: BTreeMap<&'static str, String>,
}

impl SettingArgs {
    /// The configuration in force, from these flags, this process's environment and the file.
    pub fn load(&self, role: Role, machine: &Machine) -> Result<Loaded, UsageError> {
        load(role, &self.said()?, machine)
    }

    /// What is said of Kafka alone, for commands that need no edge.
    pub fn kafka(&self) -> Result<KafkaConfig, UsageError> {
        kafka_config(&self.said()?)
    }

    /// The data directory alone: its identity says whose it is.
    pub fn data_dir(&self) -> Result<PathBuf, UsageError> {
        data_dir(&self.said()?)
    }

    fn said(&self) -> Result<Said, UsageError> {
        Ok(Said { flags: self.flags.clone(), environment: environment(), file: read(self.config.as_deref())? })
    }
}

impl LogArgs {
    /// The data directory. No other setting is looked at: the directory may be of another machine.
    pub fn data_dir(&self) -> Result<PathBuf, UsageError> {
        let flags = self.data_dir.iter().map(|path| ("data-dir", path.clone())).collect();
        data_dir(&Said { flags, environment: environment(), file: read(self.config.as_deref())? })
    }
}

/// Variables whose names or values are not UTF-8 are not ours.
fn environment() -> BTreeMap<String, String> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with("TOLLGATE_")).collect()
}

/// `--config`, else `TOLLGATE_CONFIG`, else none.
fn read(flag: Option<&Path>) -> Result<Option<ConfigFile>, UsageError> {
    let path = flag.map(Path::to_owned).or_else(|| std::env::var_os("TOLLGATE_CONFIG").map(PathBuf::from));
    let Some(path) = path else { return Ok(None) };
    let name = path.display().to_string();
    let text = std::fs::read_to_string(&path).map_err(|error| UsageError(format!("--config {name:?}: {error}")))?;
    Ok(Some(ConfigFile { name, text }))
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let said = |setting: &'static Setting| {
            let values: Vec<String> = matches.get_many::<String>(setting.name)?.cloned().collect();
            Some((setting.name, values.join("\n")))
        };
        let config = matches.get_one::<PathBuf>("config").cloned();
        Ok(SettingArgs { config, flags: SETTINGS.iter().filter_map(said).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = SettingArgs::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for SettingArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let file = Arg::new("config").long("config").value_name("FILE").value_parser(clap::value_parser!(PathBuf)).help(
            "Reads settings from this TOML file, keys as the flags below; a flag wins over the environment, that over the \
             file [env: TOLLGATE_CONFIG]",
        );
        let flags = SETTINGS.iter().map(|setting| {
            let id = setting.name;
            let help = help(setting);
            let arg = Arg::new(id).long(id).value_name(setting.placeholder()).help(help).allow_negative_numbers(true);
            if setting.repeats() { arg.action(clap::ArgAction::Append) } else { arg }
        });
        command.next_help_heading("Settings").arg(file).args(flags).next_help_heading(None)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        SettingArgs::augment_args(command)
    }
}

/// What a setting does, its default, bounds and variable.
fn help(setting: &Setting) -> String {
    let (default, bounds, variable) = (default_text(setting), setting.bounds(), setting.variable());
    format!("{} [default: {default}] [bounds: {bounds}] [env: {variable}]", setting.about)
}

/// The default in words, for the help and `docs/OPERATING.md`.
pub fn default_text(setting: &Setting) -> String {
    let text = setting.show(&Config::default());
    match setting.name {
        "dedup-memory-bytes" => format!("{text} for up; for serve a quarter of the memory or of the cgroup's"),
        "cores" => "not set".to_owned(),
        "edge-id" => format!("{text}; with --sink kafka none, it must be said"),
        _ if text.is_empty() => "none".to_owned(),
        _ => text,
    }
}

/// What reading the command line came to.
#[derive(Debug)]
pub enum Read {
    Command(Command),
    /// `--help` or `--version`: print this and end well.
    Print(String),
}

pub fn read_command_line(args: impl IntoIterator<Item = OsString>) -> Result<Read, UsageError> {
    match Cli::try_parse_from(args) {
        Ok(cli) => Ok(Read::Command(cli.command)),
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(UsageError("a subcommand is missing; see --help for those there are".to_owned()))
        }
        Err(error) if error.use_stderr() => Err(UsageError(one_line(&error.to_string(), &whose_flag(&error)))),
        Err(error) => Ok(Read::Print(error.to_string())),
    }
}

/// Clap's message is a paragraph, advice and usage; the first says it all. `more` is said after it.
fn one_line(text: &str, more: &str) -> String {
    let paragraph = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ");
    format!("{}{more}; see --help", paragraph.strip_prefix("error: ").unwrap_or(&paragraph))
}

/// Of a flag that the command has not, and another has.
fn whose_flag(error: &clap::Error) -> String {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return String::new() };
    let whose = match flag.trim_start_matches('-') {
        _ if error.kind() != ErrorKind::UnknownArgument => return String::new(),
        name if OF_THE_GLOBAL_TIER.contains(&name) => "of `tollgate global`",
        name if Setting::named(name).is_some() => "of an edge, `tollgate up` and `tollgate serve`",
        _ => return String::new(),
    };
    format!(": it is a setting {whose}, and this command has it not")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Read, UsageError> {
        read_command_line(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_tree_of_commands_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_read() {
        for line in [
            "tollgate up",
            "tollgate up --demo --data-dir d",
            "tollgate serve --listen 0.0.0.0:80 --cpus 3",
            "tollgate check --for up --json --recv-buffers 64",
            "tollgate doctor --nic eth0 --cpus 0,1 --data-dir d --json --apply",
            "tollgate wal inspect --data-dir d --json",
            "tollgate wal verify",
            "tollgate token create --data-dir d --campaign c --advertiser a --name n --rate 5/s",
            "tollgate token list --json --data-dir d",
            "tollgate token revoke --data-dir d 0123456789ab",
            "tollgate wal repair --raise-horizon",
            "tollgate wal repair --accept-loss 0f:10-20 --yes",
            "tollgate wal repair --accept-loss 0f:10-20 --accept-loss 0f:30-40",
            "tollgate wal --data-dir d export --dead-letters",
            "tollgate adopt --kafka-brokers a:9092 --data-dir d --from 0f:10 --from 0e:2 --yes",
            "tollgate serve --until-exported --edge-id a",
            "tollgate audit --config f.toml",
            "tollgate status --admin 127.0.0.1:1 --json",
            "tollgate global --kafka-brokers a:9092 --data-dir d --query-listen 127.0.0.1:0 --rebuild",
            "tollgate edges --admin 127.0.0.1:1 list --json",
            "tollgate edges retire fra-1 --admin 127.0.0.1:1",
            "tollgate edges accept fra-1",
            "tollgate backup --to f",
            "tollgate restore --from f --data-dir d",
            "tollgate topics create --kafka-brokers a:9092 --edges 3",
            "tollgate topics check --kafka-brokers a:9092 --kafka-set a=b --kafka-set c=d",
        ] {
            assert!(matches!(parse(line), Ok(Read::Command(_))), "{line}");
        }
    }

    #[test]
    fn what_is_not_a_command_is_one_line() {
        for (line, want) in [
            ("tollgate", "subcommand"),
            ("tollgate fly", "'fly'"),
            ("tollgate serve --demo", "'--demo'"),
            ("tollgate up --demo --until-exported", "cannot be used with"),
            ("tollgate up --lisen 1", "'--lisen' found; see --help"),
            ("tollgate global --kafka-topic-checkpoints a", "found: it is a setting of an edge, `tollgate up`"),
            ("tollgate serve --idle-after 3s", "found: it is a setting of `tollgate global`"),
            ("tollgate up --data-dir a --data-dir b", "cannot be used multiple times; see --help"),
            ("tollgate up --listen", "--listen"),
            ("tollgate wal repair --raise-horizon --accept-loss 1:1-2", "cannot be used with"),
            ("tollgate wal repair --yes", "--raise-horizon"),
            ("tollgate up --listen a --listen b", "--listen"),
        ] {
            let text = parse(line).expect_err(line).to_string();
            assert!(text.contains(want) && !text.contains('\n'), "{line}: {text}");
        }
    }

    #[test]
    fn help_names_default_bounds_and_variable_of_every_setting() {
        let Ok(Read::Print(help)) = parse("tollgate up --help") else { panic!("help is printed") };
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for setting in SETTINGS {
            let end = format!("[default: {}] [bounds: {}]", default_text(setting), setting.bounds());
            assert!(help.contains(&end), "{}: {end}", setting.name);
            assert!(help.contains(&format!("--{} <", setting.name)) && help.contains(&setting.variable()));
        }
    }

    #[test]
    fn commands_on_a_log_look_at_the_data_directory_alone() {
        let Ok(Read::Command(Command::Wal(args))) = parse("tollgate wal verify --data-dir d") else { panic!("parses") };
        assert_eq!(args.log.data_dir().unwrap(), PathBuf::from("d"));
        let Ok(Read::Command(Command::Audit(args))) = parse("tollgate audit --config no-such.toml") else {
            panic!("parses")
        };
        assert!(args.log.data_dir().unwrap_err().to_string().contains("no-such.toml"));
    }

    #[test]
    fn status_asks_where_the_edge_listens() {
        for (line, want) in [("tollgate status", "127.0.0.1:9464"), ("tollgate status --admin edge-3:1", "edge-3:1")] {
            let Ok(Read::Command(Command::Status(args))) = parse(line) else { panic!("parses") };
            assert_eq!(args.admin().unwrap(), want);
        }
    }

    #[test]
    fn flags_reach_the_configuration() {
        let Ok(Read::Command(Command::Up(args))) = parse("tollgate up --headers-max 77") else { panic!("parses") };
        assert_eq!(args.serve.settings.load(Role::Up, &Machine::read()).unwrap().config.http.headers_max, 77);
    }
}
