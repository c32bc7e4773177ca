//! `tollgate-loadgen`: the command line, and the one place that ends the process.

mod commands;
mod values;

use clap::{Parser, Subcommand};
use commands::EXIT_USAGE;
use std::process::exit;

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
    /// Exit status: 0 all well; 1 a reply or a count differs from what was sent; 2 nothing differs, but clicks were given
    /// up whose outcome is unknown, as where the server stopped; 3 neither, but the run is invalid, because the schedule of --rate
    /// was not kept; 64 wrong usage; 69 the server cannot be reached.
    #[command(args_override_self = true)]
    Run(commands::run::RunArgs),
    /// Starts the system, feeds it, has every ad's count verified, and says what that took.
    ///
    /// Exit status: 0 proved; 1 not: a reply or a count differs, or clicks stayed unanswered; 3 proved, but the latencies say
    /// nothing, because the schedule of an open loop was not kept; 64 wrong usage; 69 something could not be started or reached.
    #[command(args_override_self = true)]
    Prove(commands::prove::ProveArgs),
}

fn main() {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
        let _ = error.print();
        exit(code)
    });
    let ended = match cli.command {
        Command::Run(args) => commands::run::run(&args),
        Command::Prove(args) => commands::prove::run(&args),
    };
    exit(ended.unwrap_or_else(|failure| {
        eprintln!("tollgate-loadgen: {}", failure.0);
        failure.1
    }));
}
