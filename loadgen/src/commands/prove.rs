//! `tollgate-loadgen prove`: its flags, their defaults, and how it ends.

use super::run::seed_from_clock;
use super::{EXIT_DIFFERENCE, EXIT_INVALID, EXIT_UNAVAILABLE, EXIT_USAGE, Failure, token, write};
use crate::values::{CpuList, address, cpus, duration};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tollgate_loadgen::prove::machine::{allowed, share_out};
use tollgate_loadgen::prove::page::page;
use tollgate_loadgen::prove::system::{Addresses, EdgeSettings};
use tollgate_loadgen::prove::{ProveError, Settings, Subject, prove};
use tollgate_loadgen::run::RunError;
use tollgate_loadgen::shapes::{SHAPES, Shape};

#[derive(Args)]
pub struct ProveArgs {
    /// The binary to start; without it the one beside this program.
    #[arg(long, conflicts_with = "targets")]
    tollgate: Option<PathBuf>,
    /// One more flag for `tollgate serve`, as in --tollgate-flag=--dedup-memory-bytes=2GiB; may be repeated.
    #[arg(long = "tollgate-flag", conflicts_with = "targets")]
    tollgate_flags: Vec<String>,
    /// Where the data directory is made, for the time of the proof: on the disk that is meant.
    #[arg(long, default_value = ".", conflicts_with = "targets")]
    scratch: PathBuf,
    /// Leave the data directory where it is; one of a proof that failed always stays.
    #[arg(long, conflicts_with = "targets")]
    keep: bool,
    /// CPUs that serve, one core each: 0 or 0,1 or 2-5. Default: the first half of those that there are.
    #[arg(long, value_parser = cpus, conflicts_with = "targets")]
    server_cpus: Option<CpuList>,
    /// CPUs that feed. Default: the other half, all of them where nothing is started.
    #[arg(long, value_parser = cpus)]
    client_cpus: Option<CpuList>,
    /// Start nothing: clicks go here, host:port. Repeated for several hosts: each click goes to one by a hash of its id.
    #[arg(long = "target", value_parser = address)]
    targets: Vec<SocketAddr>,
    /// Where the counts of --target are asked for, like http://127.0.0.1:8090: one for all hosts, or repeated, then added.
    #[arg(long = "query", requires = "targets")]
    queries: Vec<String>,
    /// A file with the token that --query asks for, as `tollgate token create --all` prints it. Without this flag the variable
    /// TOLLGATE_TOKEN, if it is set, is the token.
    #[arg(long, requires = "targets")]
    token_file: Option<PathBuf>,
    /// Admin ports of --target, for the span of ids remembered; may be repeated.
    #[arg(long = "admin", requires = "targets")]
    admins: Vec<String>,
    /// `tollgate-bench`, whose null server is the machine's limit; without it the one beside this program, if there is one.
    #[arg(long)]
    null: Option<PathBuf>,
    /// Measure no null server.
    #[arg(long, conflicts_with = "null")]
    no_null: bool,
    /// Shapes to feed: ndjson, pipelined, one; may be repeated. Default: all three.
    #[arg(long = "shape", value_parser = shape)]
    shapes: Vec<Shape>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Rounds over all shapes at top rate; the best of each figure counts. None, with --rate: only what has that rate is measured.
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// Clicks a second of the open loop and of freshness; what is sent twice comes on top. Default: half the top rate.
    #[arg(long)]
    rate: Option<f64>,
    /// Ads, from 1 to 1,000,000: clicks are Zipf-distributed over them.
    #[arg(long, default_value_t = 1_000)]
    ads: u32,
    /// Fraction of the requests sent twice, the second time on another connection; none at top rate.
    #[arg(long, default_value_t = 0.05)]
    duplicates: f64,
    /// First feed until the table of ids is this full, from 0 to 0.95. Wants a --dedup-window-min short enough for the
    /// table to expire at this rate, or it sheds.
    #[arg(long, default_value_t = 0.0)]
    prefill: f64,
    /// Measure in an open loop how long an acknowledged click takes to show in an answer of the query API.
    #[arg(long)]
    freshness: bool,
    /// In the end feed each shape once more, for --seconds, while the server is killed each so often, such as 2s.
    #[arg(long, value_parser = duration)]
    kill_every: Option<Duration>,
    /// Wait so long after each measurement for replies and retries: a killed server reads its log back first.
    #[arg(long, default_value = "120s", value_parser = duration)]
    drain: Duration,
    /// Wait so long for the counts to arrive.
    #[arg(long, default_value = "60s", value_parser = duration)]
    verify_timeout: Duration,
    /// What ids, ads and users are drawn from; from the clock where not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Write everything measured as JSON here.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write a report with plots as one HTML page here.
    #[arg(long)]
    html: Option<PathBuf>,
}

impl From<ProveError> for Failure {
    fn from(error: ProveError) -> Failure {
        let code = match &error {
            ProveError::Usage(_) | ProveError::Run(RunError::Plan(_)) => EXIT_USAGE,
            ProveError::Verify(error) if error.is_usage() => EXIT_USAGE,
            ProveError::Run(_) | ProveError::Verify(_) | ProveError::Server(_) => EXIT_UNAVAILABLE,
        };
        Failure(error.to_string(), code)
    }
}

pub fn run(args: &ProveArgs) -> Result<i32, Failure> {
    let settings = settings(args)?;
    let proof = prove(&settings, &mut |line| eprintln!("{line}"))?;
    print!("{}", proof.summary());
    if let Some(path) = &args.json {
        write(path, &format!("{:#}\n", proof.json()))?;
    }
    if let Some(path) = &args.html {
        write(path, &page(&proof))?;
    }
    Ok(match (proof.failures().is_empty(), proof.invalid().is_empty()) {
        (false, _) => EXIT_DIFFERENCE,
        (true, false) => EXIT_INVALID,
        (true, true) => 0,
    })
}

fn settings(args: &ProveArgs) -> Result<Settings, Failure> {
    let allowed = allowed();
    let (servers, clients) = share_out(&allowed);
    let list = |given: &Option<CpuList>, default: Vec<usize>| given.clone().map_or(default, |list| list.0);
    let server_cpus = list(&args.server_cpus, servers);
    let (subject, client_cpus) = if args.targets.is_empty() {
        let edge = EdgeSettings {
            tollgate: found(args.tollgate.as_ref(), "tollgate").ok_or_else(|| {
                Failure("there is no tollgate beside this program: name it with --tollgate".to_owned(), EXIT_USAGE)
            })?,
            scratch: args.scratch.clone(),
            cpus: server_cpus.clone(),
            flags: args.tollgate_flags.clone(),
            keep: args.keep,
        };
        (Subject::Start(edge), list(&args.client_cpus, clients))
    } else {
        let (clicks, queries, admins) = (args.targets.clone(), args.queries.clone(), args.admins.clone());
        let token = token(args.token_file.as_deref())?;
        (Subject::There(Addresses { clicks, queries, token, admins }), list(&args.client_cpus, allowed))
    };
    // Beside a server of its own on other CPUs it polls, so that the server does not pay for waking it.
    let alone = client_cpus.iter().all(|cpu| !server_cpus.contains(cpu));
    Ok(Settings {
        busy_poll: alone && args.targets.is_empty(),
        subject,
        client_cpus,
        null: if args.no_null { None } else { found(args.null.as_ref(), "tollgate-bench") },
        shapes: if args.shapes.is_empty() { SHAPES.to_vec() } else { args.shapes.clone() },
        seconds: args.seconds,
        rounds: args.rounds,
        rate: args.rate,
        ads: args.ads,
        duplicates: args.duplicates,
        prefill: args.prefill,
        freshness: args.freshness,
        kill_every: args.kill_every,
        drain: args.drain,
        verify_timeout: args.verify_timeout,
        seed: args.seed.unwrap_or_else(seed_from_clock),
    })
}

/// The program that was named, or the one of that name beside this one.
fn found(named: Option<&PathBuf>, name: &str) -> Option<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.with_file_name(name)).filter(|path| path.is_file());
    named.cloned().or_else(beside)
}

fn shape(key: &str) -> Result<Shape, String> {
    let keys = SHAPES.map(|shape| shape.key).join(", ");
    Shape::by_key(key).ok_or_else(|| format!("{key:?} is none of {keys}"))
}
