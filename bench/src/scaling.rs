//! How the cost of a click grows: from one core to two, and with the ids that are remembered. Both sides of a comparison run in the
//! same interleaved rounds.

use crate::measure::{Figures, Load, SHAPES, Shape, measure, plan};
use crate::server::Server;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tollgate_loadgen::plan::{Plan, Rate};
use tollgate_loadgen::run::run as send;

/// How full a table is in the end, that remembered as many ids as asked at the start. Nothing is forgotten meanwhile: a generation
/// is many seconds long, and small tables would lose all at once.
const LOAD: f64 = 0.8;
const SLOT_BYTES: f64 = 16.0;
const TABLE_BYTES_MIN: u64 = 8 << 20;
const WINDOW_MIN: &str = "--dedup-window-min";
const KEYS: &str = "tollgate_dedup_keys";

#[derive(clap::Args)]
pub struct Args {
    /// The tollgate binary.
    #[arg(long)]
    tollgate: PathBuf,
    /// One more flag for tollgate; may be repeated.
    #[arg(long = "tollgate-flag")]
    tollgate_flags: Vec<String>,
    /// Where data directories are made, for the time of the run.
    #[arg(long, default_value = "target")]
    scratch: PathBuf,
    /// CPUs that serve: the first alone, then both.
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    server_cpus: Vec<usize>,
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// Numbers of remembered ids.
    #[arg(long, value_delimiter = ',', default_value = "1000000,10000000,100000000")]
    keys: Vec<u64>,
    /// Clicks a second while so many ids are remembered; they come on top, so the fewer the better for a small number.
    #[arg(long, default_value_t = 100_000.0)]
    rate: f64,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Write the result as JSON here.
    #[arg(long)]
    json: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<(), String> {
    if args.rounds == 0 || args.server_cpus.len() != 2 || !(0.01..=3_600.0).contains(&args.seconds) {
        return Err(format!(
            "--rounds {} --seconds {} --server-cpus {:?}: at least one round of 0.01 to 3600 s, and two CPUs that serve",
            args.rounds, args.seconds, args.server_cpus
        ));
    }
    let (cores, keys) = (cores(args)?, keys(args)?);
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", json!({"cores": cores, "keys": keys}));
        std::fs::write(path, text).map_err(|error| format!("writing {}: {error}", path.display()))?;
    }
    Ok(())
}

/// Two cores' clicks a CPU second over one core's, for each shape. The client sleeps in both: it may share a CPU with a core.
fn cores(args: &Args) -> Result<Vec<Value>, String> {
    let one = start(args, "one", &args.server_cpus[..1], &[])?;
    let two = start(args, "two", &args.server_cpus, &[])?;
    let shapes: Vec<Shape> = SHAPES.into_iter().filter(|shape| shape.connections == 64).collect();
    let mut best: Vec<Option<(Figures, Figures)>> = vec![None; shapes.len()];
    for _ in 0..args.rounds {
        for (best, shape) in best.iter_mut().zip(&shapes) {
            let load = || Load { busy_poll: false, ..load(args, Rate::Max) };
            let now = (measure(*shape, &load(), &one)?, measure(*shape, &load(), &two)?);
            *best = Some(best.map_or(now, |before| (before.0.best(now.0), before.1.best(now.1))));
        }
    }
    println!(
        "{:<20} {:>12} {:>12} {:>13} {:>13} {:>8}",
        "shape", "1 core ns", "2 cores ns", "1 core /s", "2 cores /s", "economy"
    );
    let mut values = Vec::new();
    for (shape, (one, two)) in shapes.iter().zip(best.into_iter().flatten()) {
        let economy = one.process_ns / two.process_ns;
        println!(
            "{:<20} {:>12.0} {:>12.0} {:>13.0} {:>13.0} {economy:>8.2}",
            shape.name, one.process_ns, two.process_ns, one.clicks_per_s, two.clicks_per_s
        );
        values.push(json!({"shape": shape.name, "one": one.json(), "two": two.json(), "economy": economy}));
    }
    Ok(values)
}

/// What a click costs at one rate while so many ids are remembered, each in a table of its own that is as full.
fn keys(args: &Args) -> Result<Vec<Value>, String> {
    let shape = SHAPES.into_iter().find(|shape| shape.batch > 1).expect("one of SHAPES is of batches");
    let mut servers = Vec::new();
    for keys in &args.keys {
        let in_the_end = *keys as f64 + args.rate * args.seconds * f64::from(args.rounds);
        let bytes = ((in_the_end / LOAD * SLOT_BYTES) as u64).next_multiple_of(1 << 20).max(TABLE_BYTES_MIN);
        let flags = [format!("--dedup-memory-bytes={bytes}")];
        let server = start(args, &format!("keys-{keys}"), &args.server_cpus[..1], &flags)?;
        fill(args, shape, &server, *keys)?;
        servers.push((*keys, server, None::<Figures>));
    }
    for _ in 0..args.rounds {
        for (_, server, best) in &mut servers {
            let now = measure(shape, &load(args, Rate::ClicksPerSecond(args.rate)), server)?;
            *best = Some(best.map_or(now, |before| before.best(now)));
        }
    }
    println!(
        "\n{:<20} {:>14} {:>14} {:>12} {:>10}",
        "remembered ids", "process ns", "machine ns", "of the first", "in the end"
    );
    let first = servers.first().and_then(|(_, _, best)| *best).map_or(0.0, |figures| figures.process_ns);
    let mut values = Vec::new();
    for (keys, server, best) in &servers {
        let Some(best) = best else { continue };
        let held = server.metric(KEYS).map_err(|error| error.to_string())?;
        let ratio = best.process_ns / first;
        println!("{keys:<20} {:>14.0} {:>14.0} {ratio:>12.2} {held:>10.0}", best.process_ns, best.machine_ns);
        values.push(json!({"keys": keys, "figures": best.json(), "over_first": ratio, "held": held}));
    }
    Ok(values)
}

/// Sends new ids until so many are remembered.
fn fill(args: &Args, shape: Shape, server: &Server, keys: u64) -> Result<(), String> {
    loop {
        let held = server.metric(KEYS).map_err(|error| error.to_string())? as u64;
        // A request more or less is no matter.
        if held + 1_000 >= keys {
            return Ok(());
        }
        eprintln!("{held} of {keys} ids");
        let load = Load { duration: Duration::from_secs(3_600), ..load(args, Rate::Max) };
        let plan = Plan { clicks_max: Some((keys - held).min(5_000_000)), ..plan(shape, &load, server) };
        let outcome = send(&plan, |_| {}).map_err(|error| error.to_string())?;
        if outcome.totals.accepted == 0 || outcome.totals.wrong > 0 {
            return Err(format!("at {held} of {keys} ids nothing more is accepted: {:?}", outcome.totals));
        }
    }
}

fn start(args: &Args, name: &str, cpus: &[usize], flags: &[String]) -> Result<Server, String> {
    let data = args.scratch.join(format!("bench-scaling-{name}-{}", std::process::id()));
    let mut flags = [args.tollgate_flags.as_slice(), flags].concat();
    if !flags.iter().any(|flag| flag.starts_with(WINDOW_MIN)) {
        // A table that is full forgets its oldest ids instead of shedding.
        flags.push(format!("{WINDOW_MIN}=1s"));
    }
    Server::tollgate(&args.tollgate, cpus, data, &flags).map_err(|error| format!("starting tollgate: {error}"))
}

/// Every run has its own ids.
fn load(args: &Args, rate: Rate) -> Load {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Load {
        client_cpu: args.client_cpu,
        duration: Duration::from_secs_f64(args.seconds),
        ads: 1_000,
        seed: since.as_nanos() as u64 >> 4,
        rate,
        busy_poll: args.client_cpu != args.server_cpus[0],
    }
}
