//! `tollgate-loadgen run`: sends clicks, checks every reply, has the counts verified.

use super::{EXIT_DIFFERENCE, EXIT_INVALID, EXIT_UNAVAILABLE, EXIT_UNKNOWN, EXIT_USAGE, Failure, token, write};
use crate::values::{CpuList, address, cpus, duration, rate};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tollgate_loadgen::plan::{Plan, Rate};
use tollgate_loadgen::report::Outcome;
use tollgate_loadgen::run::{RunError, run as send, wall_ms};
use tollgate_loadgen::text::mix;
use tollgate_loadgen::verify::{Baseline, Difference, Span, VerifyError};

#[derive(Args)]
pub struct RunArgs {
    /// Where clicks are sent, host:port. Repeated for several hosts: each click goes to one of them by a hash of its id.
    #[arg(long = "target", default_value = "127.0.0.1:8080", value_parser = address)]
    targets: Vec<SocketAddr>,
    /// Connections, all hosts and threads together.
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
    cpus: Option<CpuList>,
    /// Look for replies without ever sleeping, with all of every CPU of --cpus: a server on the same machine then does not
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
    /// Compare with what this query API counts, like http://127.0.0.1:8090. Repeated where hosts count for themselves:
    /// their counts are added.
    #[arg(long)]
    verify: Vec<String>,
    /// A file with the token that the query API asks for, as `tollgate token create --all` prints it. Without this flag the
    /// variable TOLLGATE_TOKEN, if it is set, is the token.
    #[arg(long, requires = "verify")]
    token_file: Option<PathBuf>,
    /// Wait so long for the counts to arrive.
    #[arg(long, default_value = "30s", value_parser = duration)]
    verify_timeout: Duration,
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Failure {
        let code = if error.is_usage() { EXIT_USAGE } else { EXIT_UNAVAILABLE };
        Failure(error.to_string(), code)
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

pub fn run(args: &RunArgs) -> Result<i32, Failure> {
    let plan = plan(args);
    plan.check().map_err(|error| Failure(format!("--{error}"), EXIT_USAGE))?;
    eprintln!("seed {}", plan.seed);
    let mut baseline = match args.verify.as_slice() {
        [] => None,
        urls => {
            let (token, span) = (token(args.token_file.as_deref())?, Span::of_a_run(&plan, wall_ms()));
            Some(Baseline::read(urls, token.as_ref(), plan.ads as usize, span)?)
        }
    };
    let outcome = send(&plan, |progress| eprintln!("{progress}"))?;
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
        write(path, &format!("{json:#}\n"))?;
    }
    let differs = outcome.totals.wrong > 0 || differences.is_some_and(|found| !found.is_empty());
    // What became of clicks goes before how they were timed: a server that went away leaves both open.
    Ok(match (differs, outcome.ledger.unknown(), invalid) {
        (true, ..) => EXIT_DIFFERENCE,
        (false, 1.., _) => EXIT_UNKNOWN,
        (false, 0, Some(_)) => EXIT_INVALID,
        (false, 0, None) => 0,
    })
}

fn plan(args: &RunArgs) -> Plan {
    Plan {
        targets: args.targets.clone(),
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
        cpus: args.cpus.clone().map(|list| list.0).unwrap_or_default(),
        busy_poll: args.busy_poll,
        timeout: args.timeout,
        drain: args.drain,
        ..Plan::default()
    }
}

/// The clock to the nanosecond and the process number: two runs, even started together, differ.
pub fn seed_from_clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    mix(since.as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(40)) >> 4
}

fn show_differences(outcome: &Outcome, differences: Option<&[Difference]>) {
    let Some(differences) = differences else { return };
    for difference in differences {
        println!("DIFFERENCE: {difference}");
    }
    let acknowledged = outcome.ledger.total().into_inner().0;
    match outcome.ledger.unknown() {
        _ if !differences.is_empty() => {}
        0 => println!("verified: {acknowledged} clicks acknowledged and counted once"),
        unknown => println!(
            "within bounds: {acknowledged} clicks acknowledged and counted once; {unknown} of unknown outcome, counted at \
             most once: they were given up after --drain or too many tries"
        ),
    }
}
