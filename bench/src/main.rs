//! `tollgate-bench`: null servers that measure the machine's limit, side-by-side runs, micro-benchmarks. A plain list of
//! modules and of their subcommands.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod axum_kafka;
mod axum_server;
mod canned;
mod compare;
mod counting;
mod dedup;
mod generate;
mod latency;
mod measure;
mod null_epoll;
mod null_http;
mod null_uring;
mod recovery;
mod scaling;
mod scratch;
mod server;
mod table;
mod turns;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

#[derive(Parser)]
#[command(name = "tollgate-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers every request as if its clicks were accepted, over io_uring. Runs until it is killed.
    NullUring(null_http::Args),
    /// The same over epoll.
    NullEpoll(null_http::Args),
    /// What one would write instead: axum and serde_json, each click parsed and checked, nothing kept.
    Axum(axum_server::Args),
    /// The same with one record of Kafka a click, acknowledged when all of a request's are.
    AxumKafka(axum_kafka::Args),
    /// Everything side by side, for the README: tollgate, both null servers, axum, axum with Kafka; three shapes; few ads and many.
    Table(table::Args),
    /// What a click costs at one and two cores, and at growing numbers of remembered ids.
    Scaling(scaling::Args),
    /// Runs the null servers and tollgate in turn under the same load and prints what a click costs each.
    Compare(compare::Args),
    /// What remembering a click's id costs, at several loads, beside other tables.
    Dedup,
    /// What `Core::apply` takes for a click, without I/O: canned turns, in three shapes.
    Turns(turns::Args),
    /// Writes a log and recovers it as a start does: clicks a second of one core.
    Recovery(recovery::Args),
    /// What an acknowledgement takes at half the top rate, beside a synced write of the same size.
    Latency(latency::Args),
    /// Measures what building a click costs the load generator.
    Generate(generate::Args),
}

fn main() -> std::process::ExitCode {
    let done = match Cli::parse().command {
        Command::NullUring(args) => null_uring::run(&args).map_err(|error| error.to_string()),
        Command::NullEpoll(args) => null_epoll::run(&args).map_err(|error| error.to_string()),
        Command::Axum(args) => axum_server::run(&args),
        Command::AxumKafka(args) => axum_kafka::run(&args),
        Command::Table(args) => table::run(&args),
        Command::Scaling(args) => scaling::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Dedup => {
            dedup::run(&dedup::Settings::default(), &mut std::io::stdout()).map_err(|error| error.to_string())
        }
        Command::Turns(args) => turns::run(&args),
        Command::Recovery(args) => recovery::run(&args),
        Command::Latency(args) => latency::run(&args),
        Command::Generate(args) => generate::run(&args),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tollgate-bench: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
