//! The README's table: every server under every shape, with few ads and with many, interleaved, the best of the rounds. Each figure is
//! set beside the null server's of the same run.

use crate::measure::{Figures, Load, SHAPES, Shape, measure, plan};
use crate::server::Server;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tollgate_loadgen::clicks::Clicks;
use tollgate_loadgen::plan::Rate;
use tollgate_loadgen::text::timestamp13;

/// Names of the shapes; one at a time is shown with 64 connections only.
const SHOWN: [&str; 3] = ["NDJSON of 100, 64", "32 pipelined, 64", "one at a time, 64"];

#[derive(clap::Args)]
pub struct Args {
    /// The tollgate binary; without it that row is left out.
    #[arg(long)]
    tollgate: Option<PathBuf>,
    /// One more flag for tollgate, as in --tollgate-flag=--dedup-memory-bytes=67108864; may be repeated.
    #[arg(long = "tollgate-flag")]
    tollgate_flags: Vec<String>,
    /// A broker for axum with one record a click, host:port; without it that row is left out.
    #[arg(long)]
    kafka_brokers: Option<String>,
    /// Where tollgate's data directory is made, for the time of the run.
    #[arg(long, default_value = "target")]
    scratch: PathBuf,
    /// Numbers of ads.
    #[arg(long, value_delimiter = ',', default_value = "1000,1000000")]
    ads: Vec<u32>,
    #[arg(long, default_value_t = 4)]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// Write all rounds as JSON here.
    #[arg(long)]
    json: Option<PathBuf>,
}

struct Row {
    ads: u32,
    shape: Shape,
    server: String,
    rounds: Vec<Figures>,
}

impl Row {
    fn best(&self) -> Figures {
        let first = self.rounds[0];
        self.rounds.iter().copied().fold(first, Figures::best)
    }
}

pub fn run(args: &Args) -> Result<(), String> {
    if args.rounds == 0 || args.ads.is_empty() || !(0.01..=3_600.0).contains(&args.seconds) {
        let (rounds, seconds) = (args.rounds, args.seconds);
        return Err(format!(
            "--rounds {rounds} --seconds {seconds} --ads {:?}: at least one round of 0.01 to 3600 s, and one number of ads",
            args.ads
        ));
    }
    let servers = start(args)?;
    same_length(args, &servers)?;
    let mut rows = Vec::new();
    for ads in &args.ads {
        for name in SHOWN {
            let shape = SHAPES.into_iter().find(|shape| shape.name == name).expect("one of SHAPES");
            for server in &servers {
                rows.push(Row { ads: *ads, shape, server: server.name.clone(), rounds: Vec::new() });
            }
        }
    }
    for round in 0..args.rounds {
        for row in &mut rows {
            let server = servers.iter().find(|server| server.name == row.server).expect("each row is of a server");
            row.rounds.push(measure(row.shape, &load(args, row.ads), server)?);
        }
        eprintln!("round {} of {}", round + 1, args.rounds);
    }
    print!("{}", markdown(args, &rows));
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", json_of(args, &rows));
        std::fs::write(path, text).map_err(|error| format!("writing {}: {error}", path.display()))?;
    }
    Ok(())
}

fn start(args: &Args) -> Result<Vec<Server>, String> {
    let data = args.scratch.join(format!("bench-table-{}", std::process::id()));
    let named =
        |name: &str, server: std::io::Result<Server>| server.map_err(|error| format!("starting {name}: {error}"));
    let mut servers = Vec::new();
    for name in ["null-uring", "null-epoll"] {
        servers.push(named(name, Server::own(name, args.server_cpu, &[]))?);
    }
    if let Some(binary) = &args.tollgate {
        let tollgate = Server::tollgate(binary, &[args.server_cpu], data, &args.tollgate_flags);
        servers.push(named("tollgate", tollgate)?);
    }
    servers.push(named("axum", Server::own("axum", args.server_cpu, &[]))?);
    if let Some(brokers) = &args.kafka_brokers {
        let more = ["--kafka-brokers".to_owned(), brokers.clone()];
        servers.push(named("axum-kafka", Server::own("axum-kafka", args.server_cpu, &more))?);
    }
    Ok(servers)
}

/// A server that answers with fewer bytes would look cheaper than it is. Order and case of its header fields are the framework's.
fn same_length(args: &Args, servers: &[Server]) -> Result<(), String> {
    let mut first = None;
    for server in servers {
        let plan = plan(SHAPES[0], &load(args, 1), server);
        let mut request = tollgate_loadgen::link::head(&plan, 0);
        let now_ms = tollgate_loadgen::run::wall_ms();
        Clicks::new(&plan).append(0, now_ms, &timestamp13(now_ms), &mut request);
        let reply = server.reply_to_a_click(&request).map_err(|error| format!("asking {}: {error}", server.name))?;
        let (length, expected) = (reply.len(), *first.get_or_insert(reply.len()));
        if length != expected {
            return Err(format!(
                "{} answers {length} bytes and {} {expected}: {reply:?}",
                server.name, servers[0].name
            ));
        }
    }
    Ok(())
}

/// Every run has its own ids.
fn load(args: &Args, ads: u32) -> Load {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Load {
        client_cpu: args.client_cpu,
        duration: Duration::from_secs_f64(args.seconds),
        ads,
        seed: since.as_nanos() as u64 >> 4,
        rate: Rate::Max,
        busy_poll: true,
    }
}

/// The first null server's CPU a click over this row's; rates as a share of that null server's.
fn shares(rows: &[Row], row: &Row) -> (f64, f64) {
    let same = |other: &&Row| other.ads == row.ads && other.shape.name == row.shape.name;
    let null = rows.iter().find(same).expect("the row itself, at least").best();
    let own = row.best();
    (null.process_ns / own.process_ns, own.clicks_per_s / null.clicks_per_s)
}

/// A table as the README shows it.
fn markdown(args: &Args, rows: &[Row]) -> String {
    let mut text = String::from(
        "| ads | requests of | server | clicks/s | of null's | process ns a click | null's ÷ it | machine ns | p99 ms |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let (best, (economy, rate)) = (row.best(), shares(rows, row));
        text += &format!(
            "| {} | {} | {} | {:.0} | {rate:.2} | {:.0} | {economy:.2} | {:.0} | {:.2} |\n",
            row.ads, row.shape.name, row.server, best.clicks_per_s, best.process_ns, best.machine_ns, best.p99_ms
        );
    }
    if args.tollgate.is_none() {
        text += "\ntollgate is left out: --tollgate names no binary.\n";
    }
    if args.kafka_brokers.is_none() {
        text += "\naxum with one record of Kafka a click is left out: --kafka-brokers names no broker.\n";
    }
    text
}

fn json_of(args: &Args, rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let (economy, rate) = shares(rows, row);
        json!({
            "ads": row.ads,
            "shape": row.shape.name,
            "server": row.server,
            "best": row.best().json(),
            "null_cpu_over_own": economy,
            "rate_over_null": rate,
            "rounds": row.rounds.iter().map(Figures::json).collect::<Vec<_>>(),
        })
    };
    json!({
        "seconds": args.seconds,
        "tollgate_flags": args.tollgate_flags,
        "kafka": args.kafka_brokers.is_some(),
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}
