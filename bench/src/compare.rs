//! Side by side: null servers and tollgate in turn, the same client, rounds interleaved, the best of each figure.

use crate::measure::{Figures, Load, SHAPES, Shape, measure, plan};
use crate::server::Server;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tollgate_loadgen::clicks::Clicks;
use tollgate_loadgen::plan::Rate;
use tollgate_loadgen::run::run as send;
use tollgate_loadgen::text::timestamp13;

#[derive(clap::Args)]
pub struct Args {
    /// The tollgate binary to compare with the null servers; without it they are run alone.
    #[arg(long)]
    tollgate: Option<PathBuf>,
    /// One more flag for tollgate, as in --tollgate-flag=--dedup-memory-bytes=67108864; may be repeated.
    #[arg(long = "tollgate-flag")]
    tollgate_flags: Vec<String>,
    /// Where tollgate's data directory is made, for the time of the run.
    #[arg(long, default_value = "target")]
    scratch: PathBuf,
    /// Before measuring, feed tollgate until its dedup table is this full. Wants a --dedup-window-min short enough for the
    /// table to expire at this rate (1s), or it sheds.
    #[arg(long, default_value_t = 0.0)]
    prefill: f64,
    /// The metric that says how full it is.
    #[arg(long, default_value = "tollgate_dedup_load_ratio")]
    prefill_metric: String,
    /// Give up the prefill after so many seconds.
    #[arg(long, default_value_t = 600.0)]
    prefill_seconds_max: f64,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    #[arg(long, default_value_t = 1_000)]
    ads: u32,
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// Only shapes whose name contains this.
    #[arg(long, default_value = "")]
    shape: String,
    /// Write all rounds as JSON here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// All rounds of one server and shape.
struct Row {
    shape: Shape,
    server: String,
    rounds: Vec<Figures>,
}

impl Row {
    fn best(&self) -> Figures {
        let mut rounds = self.rounds.iter().copied();
        let first = rounds.next().expect("every row has at least one round");
        rounds.fold(first, Figures::best)
    }
}

pub fn run(args: &Args) -> Result<(), String> {
    if args.rounds == 0 || !(0.01..=3_600.0).contains(&args.seconds) {
        return Err(format!(
            "--rounds {} --seconds {}: at least one round of 0.01 to 3600 s",
            args.rounds, args.seconds
        ));
    }
    let shapes: Vec<Shape> = SHAPES.into_iter().filter(|shape| shape.name.contains(&args.shape)).collect();
    if shapes.is_empty() {
        let names = SHAPES.map(|shape| shape.name).join("\", \"");
        return Err(format!("--shape {:?} is in the name of none of \"{names}\"", args.shape));
    }
    let servers = start(args)?;
    same_replies(args, &servers)?;
    if let Some(tollgate) = servers.iter().find(|server| server.admin.is_some()) {
        prefill(args, tollgate)?;
    }
    let mut rows: Vec<Row> = Vec::new();
    for shape in &shapes {
        for server in &servers {
            rows.push(Row { shape: *shape, server: server.name.clone(), rounds: Vec::new() });
        }
    }
    for round in 0..args.rounds {
        for (row, (shape, server)) in
            rows.iter_mut().zip(shapes.iter().flat_map(|shape| servers.iter().map(move |server| (shape, server))))
        {
            row.rounds.push(measure(*shape, &load(args, args.seconds), server)?);
        }
        eprintln!("round {} of {}", round + 1, args.rounds);
    }
    print!("{}", table(&rows));
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", json_of(args, &rows));
        std::fs::write(path, text).map_err(|error| format!("writing {}: {error}", path.display()))?;
    }
    Ok(())
}

fn start(args: &Args) -> Result<Vec<Server>, String> {
    let mut servers = Vec::new();
    for name in ["null-uring", "null-epoll"] {
        servers.push(Server::own(name, args.server_cpu, &[]).map_err(|error| format!("starting {name}: {error}"))?);
    }
    if let Some(binary) = &args.tollgate {
        let data = args.scratch.join(format!("bench-data-{}", std::process::id()));
        let server = Server::tollgate(binary, &[args.server_cpu], data, &args.tollgate_flags);
        servers.push(server.map_err(|error| format!("starting {}: {error}", binary.display()))?);
    }
    Ok(servers)
}

/// A server that answers with fewer bytes would look cheaper than it is.
fn same_replies(args: &Args, servers: &[Server]) -> Result<(), String> {
    let mut first = None;
    for server in servers {
        let plan = plan(SHAPES[0], &load(args, args.seconds), server);
        let mut request = tollgate_loadgen::link::head(&plan, 0);
        let now_ms = tollgate_loadgen::run::wall_ms();
        Clicks::new(&plan).append(0, now_ms, &timestamp13(now_ms), &mut request);
        let reply = server.reply_to_a_click(&request).map_err(|error| format!("asking {}: {error}", server.name))?;
        let expected = first.get_or_insert_with(|| reply.clone());
        if *expected != reply {
            return Err(format!("{} answers {reply:?}, but {} {expected:?}", server.name, servers[0].name));
        }
    }
    Ok(())
}

/// Feeds tollgate in steps until its table is as full as asked, so that it works under the conditions of every day.
fn prefill(args: &Args, server: &Server) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs_f64(args.prefill_seconds_max);
    let batches = SHAPES[SHAPES.len() - 1];
    if args.prefill <= 0.0 {
        return Ok(());
    }
    loop {
        let full = server.metric(&args.prefill_metric).map_err(|error| error.to_string())?;
        eprintln!("prefill: {} {full:.3} of {}", args.prefill_metric, args.prefill);
        if full >= args.prefill {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let seconds = args.prefill_seconds_max;
            return Err(format!("after {seconds} s the table is {full:.3} full: use a smaller --dedup-memory-bytes"));
        }
        let outcome = send(&plan(batches, &load(args, 1.0), server), |_| {}).map_err(|error| error.to_string())?;
        if outcome.totals.wrong > 0 {
            return Err(format!("prefill: wrong replies: {:?}", outcome.totals.examples));
        }
    }
}

/// Every run has its own ids.
fn load(args: &Args, seconds: f64) -> Load {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Load {
        client_cpu: args.client_cpu,
        duration: Duration::from_secs_f64(seconds),
        ads: args.ads,
        seed: since.as_nanos() as u64 >> 4,
        rate: Rate::Max,
        busy_poll: true,
    }
}

/// One line a server and shape; `economy` is the first null server's process CPU a click over this server's.
fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<20} {:<11} {:>10} {:>11} {:>11} {:>8} {:>9} {:>5} {:>8}\n",
        "shape", "server", "clicks/s", "process ns", "machine ns", "economy", "client ns", "busy", "p99 ms"
    );
    for row in rows {
        let best = row.best();
        text += &format!(
            "{:<20} {:<11} {:>10.0} {:>11.0} {:>11.0} {:>8.2} {:>9.0} {:>5.2} {:>8.2}\n",
            row.shape.name,
            row.server,
            best.clicks_per_s,
            best.process_ns,
            best.machine_ns,
            economy(rows, row),
            best.client_ns,
            best.process_busy,
            best.p99_ms
        );
    }
    text
}

fn economy(rows: &[Row], row: &Row) -> f64 {
    let null = rows.iter().find(|other| other.shape.name == row.shape.name).expect("the row itself, at least");
    null.best().process_ns / row.best().process_ns
}

fn json_of(args: &Args, rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "shape": row.shape.name,
            "server": row.server,
            "best": row.best().json(),
            "economy": economy(rows, row),
            "rounds": row.rounds.iter().map(Figures::json).collect::<Vec<_>>(),
        })
    };
    json!({
        "seconds": args.seconds,
        "ads": args.ads,
        "prefill": args.prefill,
        "tollgate_flags": args.tollgate_flags,
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}
