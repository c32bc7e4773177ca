//! `tollgate-loadgen run`: the command line of the load generator, and its exit codes.

use clap::{Args, Parser, Subcommand};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::exit;
use std::time::Duration;
use tollgate_loadgen::plan::{Plan, Rate};
use tollgate_loadgen::report::Outcome;
use tollgate_loadgen::run::{RunError, run, wall_ms};
use tollgate_loadgen::text::mix;
use tollgate_loadgen::verify::{Baseline, Difference, VerifyError};

const EXIT_DIFFERENCE: i32 = 1;
const EXIT_INVALID: i32 = 3;
const EXIT_USAGE: i32 = 64;
const EXIT_UNAVAILABLE: i32 = 69;

#[derive(Parser)]
#[command(name = "tollgate-loadgen", version, about = "Feeds clicks to tollgate and proves what was counted")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends clicks, checks every reply, and reports rates and latencies.
    ///
    /// Exit status: 0 all well; 1 a reply or a count differs from what was sent; 3 the run is invalid, because the
    /// schedule of --rate was not kept; 64 wrong usage; 69 the server cannot be reached.
    #[command(args_override_self = true)]
    Run(RunArgs),
}

#[derive(Args)]
struct RunArgs {
    /// Where clicks are sent, host:port.
    #[arg(long, default_value = "127.0.0.1:8080", value_parser = address)]
    target: SocketAddr,
    /// Connections, all cores together.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests under way at once on a connection.
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    /// Clicks a request: 1 sends one JSON object, more send NDJSON.
    #[arg(long, default_value_t = 1)]
    batch: u32,
    /// Clicks a second in an open loop, or `max` for a closed one.
    #[arg(long, default_value = "max", value_parser = rate)]
    rate: Rate,
    /// How long new clicks are sent: 10s, 500ms, 2m; a bare number is seconds.
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Stop after about so many clicks, if that comes first.
    #[arg(long)]
    clicks: Option<u64>,
    /// Ads, from 1 to 1,000,000.
    #[arg(long, default_value_t = 1_000)]
    ads: u32,
    /// Exponent of the Zipf distribution of clicks over ads; 0 is uniform.
    #[arg(long, default_value_t = 1.1)]
    zipf: f64,
    /// Users, from 1 to 100,000,000.
    #[arg(long, default_value_t = 1_000_000)]
    users: u32,
    /// Fraction of the requests sent twice, the second time on another connection.
    #[arg(long, default_value_t = 0.0)]
    duplicates: f64,
    /// Fraction of the clicks whose event time lies up to 30 s back.
    #[arg(long, default_value_t = 0.0)]
    late: f64,
    /// Fraction of the clicks that are broken and must be rejected.
    #[arg(long, default_value_t = 0.0)]
    invalid: f64,
    /// What ids, ads and users are drawn from; from the clock where not given. A seed used before sends the same ids.
    #[arg(long)]
    seed: Option<u64>,
    /// CPUs, one pinned thread each: 1 or 0,1 or 2-5. Default: one thread, not pinned.
    #[arg(long, value_parser = cpus)]
    cores: Option<CpuList>,
    /// Look for replies without ever sleeping, with all of every CPU of --cores: a server on the same machine then does not
    /// pay for waking this process, as it does not where clicks come over a network.
    #[arg(long)]
    busy_poll: bool,
    /// Resend a request on a new connection when it is unanswered for so long.
    #[arg(long, default_value = "5s", value_parser = duration)]
    timeout: Duration,
    /// Wait so long after the end for replies and retries.
    #[arg(long, default_value = "30s", value_parser = duration)]
    drain: Duration,
    /// Write the result as JSON here.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Compare with what this query API counts, like http://127.0.0.1:8090.
    #[arg(long)]
    verify: Option<String>,
    /// Wait so long for the counts to arrive.
    #[arg(long, default_value = "30s", value_parser = duration)]
    verify_timeout: Duration,
}

fn main() {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
        let _ = error.print();
        exit(code)
    });
    let Command::Run(args) = cli.command;
    exit(command_run(&args).unwrap_or_else(|failure| {
        eprintln!("tollgate-loadgen: {}", failure.0);
        failure.1
    }));
}

/// What to say and which code to end with.
struct Failure(String, i32);

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Failure {
        Failure(error.to_string(), EXIT_UNAVAILABLE)
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Failure {
        let code = match error {
            RunError::Plan(_) => EXIT_USAGE,
            RunError::Connect { .. } | RunError::Executor(_) => EXIT_UNAVAILABLE,
        };
        Failure(error.to_string(), code)
    }
}

fn command_run(args: &RunArgs) -> Result<i32, Failure> {
    let plan = plan(args);
    plan.check().map_err(|error| Failure(format!("--{error}"), EXIT_USAGE))?;
    eprintln!("seed {}", plan.seed);
    let mut baseline = args.verify.as_deref().map(|url| Baseline::read(url, &plan, wall_ms())).transpose()?;
    let outcome = run(&plan, |line| eprintln!("{line}"))?;
    print!("{}", outcome.summary());
    let differences = match &mut baseline {
        Some(baseline) => Some(baseline.compare(&outcome.ledger, args.verify_timeout)?),
        None => None,
    };
    show_differences(&outcome, differences.as_deref());
    let invalid = outcome.invalid();
    if let Some(reason) = &invalid {
        println!("INVALID: {reason}");
    }
    if let Some(path) = &args.json {
        let mut json = outcome.json();
        json["differences"] = differences.as_ref().map(Vec::len).into();
        let write = std::fs::write(path, format!("{json:#}\n"));
        write.map_err(|error| Failure(format!("writing {}: {error}", path.display()), EXIT_UNAVAILABLE))?;
    }
    let differs = outcome.totals.wrong > 0 || differences.is_some_and(|found| !found.is_empty());
    Ok(match (differs, invalid) {
        (true, _) => EXIT_DIFFERENCE,
        (false, Some(_)) => EXIT_INVALID,
        (false, None) => 0,
    })
}

fn plan(args: &RunArgs) -> Plan {
    Plan {
        target: args.target,
        connections: args.connections,
        pipeline: args.pipeline,
        batch: args.batch,
        rate: args.rate,
        duration: args.duration,
        clicks_max: args.clicks,
        ads: args.ads,
        zipf: args.zipf,
        users: args.users,
        duplicates: args.duplicates,
        late: args.late,
        invalid: args.invalid,
        seed: args.seed.unwrap_or_else(seed_from_clock),
        cores: args.cores.clone().map(|list| list.0).unwrap_or_default(),
        busy_poll: args.busy_poll,
        timeout: args.timeout,
        drain: args.drain,
        ..Plan::default()
    }
}

/// The clock to the nanosecond and the process number: two runs, even started together, differ.
fn seed_from_clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    mix(since.as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(40)) >> 4
}

fn show_differences(outcome: &Outcome, differences: Option<&[Difference]>) {
    let Some(differences) = differences else { return };
    for difference in differences {
        println!("DIFFERENCE: {difference}");
    }
    if differences.is_empty() {
        let (low, high) = outcome.ledger.total().into_inner();
        println!("verified: {low} clicks acknowledged and counted once, {} of unknown outcome", high - low);
    }
}

#[derive(Clone, Debug)]
struct CpuList(Vec<usize>);

fn cpus(text: &str) -> Result<CpuList, String> {
    let wrong = || format!("{text:?} is no list of CPUs like 1 or 0,1 or 2-5");
    let mut list = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        if first > last || last >= 1024 {
            return Err(wrong());
        }
        list.extend(first..=last);
    }
    Ok(CpuList(list))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let mut found = text.to_socket_addrs().map_err(|error| format!("{error}; write host:port"))?;
    found.next().ok_or_else(|| "no address found".to_owned())
}

fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    text.parse().map(Rate::ClicksPerSecond).map_err(|_| "write clicks a second, or max".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| format!("{text:?} is no time like 10s, 500ms or 2m"))?;
    let seconds = match &text[digits.len()..] {
        "ms" => number / 1e3,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        unit => return Err(format!("unit {unit:?} is none of ms, s, m, h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
