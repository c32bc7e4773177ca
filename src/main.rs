//! The binary: reads the command line, calls the command, ends the process with its exit code. Nothing else ends it.

use std::io::Write as _;

use tollgate::cli::{
    CheckArgs, Command, EdgesCommand, Read, ServeArgs, SettingArgs, TokenArgs, TokenCommand, TopicsCommand,
    TopicsCreateArgs, read_command_line,
};
use tollgate::commands;
use tollgate::commands::wal::CommandError;
use tollgate::config::SinkKind;
use tollgate::end::end;
use tollgate::exit::Exit;
use tollgate::export::kafka::{Client, TopicsPlan};
use tollgate::flags::{Loaded, Role, UsageError};
use tollgate::machine::Machine;
use tollgate::run::{Work, queries};
use tollgate::say;
use tollgate::worker::wall_ms;

fn main() {
    end_on_panic();
    let exit = match read_command_line(std::env::args_os()) {
        Ok(Read::Command(command)) => dispatch(&command).unwrap_or_else(|error| refuse(&error)),
        Ok(Read::Print(text)) => {
            say::out(text);
            Exit::Clean
        }
        Err(error) => refuse(&error),
    };
    // A closed pipe on the other side of standard output is no reason to end in another way.
    let _ = std::io::stdout().flush();
    end(exit)
}

/// A bug on any thread ends the process: what was acknowledged is on disk, and recovery runs at the next start.
fn end_on_panic() {
    let show = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        show(panic);
        end(Exit::Bug)
    }));
}

fn dispatch(command: &Command) -> Result<Exit, UsageError> {
    let machine = Machine::read();
    match command {
        Command::Check(args) => check(args, &machine),
        Command::Doctor(args) => {
            let asked = commands::doctor::Asked { apply: args.apply, json: args.json };
            let config = args.settings.load(Role::Serve, &machine)?.config;
            Ok(ended(commands::doctor::run(&config, &machine, asked, &mut std::io::stdout().lock())))
        }
        Command::Up(args) => {
            let (role, work) = if args.demo { (Role::Demo, Work::Demo) } else { (Role::Up, work_of(&args.serve)) };
            serve(&args.serve, role, work, &machine)
        }
        Command::Serve(args) => serve(args, Role::Serve, work_of(args), &machine),
        Command::Wal(args) => {
            let dir = args.log.data_dir()?;
            Ok(ended(commands::wal::run(&args.command, &dir, wall_ms(), &mut std::io::stdout().lock())))
        }
        Command::Topics(args) => {
            let out = &mut std::io::stdout().lock();
            Ok(ended(match &args.command {
                TopicsCommand::Create(args) => {
                    let TopicsCreateArgs { partitions, edges, replication, .. } = *args;
                    let plan = TopicsPlan { partitions, edges, replication };
                    commands::topics::create(&args.settings.kafka()?, &plan, out)
                }
                TopicsCommand::Check(settings) => commands::topics::check(&settings.kafka()?, out),
            }))
        }
        Command::Adopt(args) => {
            let (dir, kafka) = (args.settings.data_dir()?, args.settings.kafka()?);
            let asked = commands::adopt::Asked { from: &args.from, yes: args.yes, now_ms: wall_ms() };
            Ok(ended(commands::adopt::run(&dir, &kafka, &asked, &mut std::io::stdout().lock())))
        }
        Command::Status(args) => {
            Ok(ended(commands::status::run(&args.admin()?, args.json, &mut std::io::stdout().lock())))
        }
        Command::Global(args) => {
            let (config, log_format) = args.load()?;
            tollgate::run::log_to_stderr(log_format);
            Ok(ended(commands::global::run(&config)))
        }
        Command::Edges(args) => {
            let (admin, out) = (args.admin.admin(), &mut std::io::stdout().lock());
            Ok(ended(match &args.command {
                EdgesCommand::List { json } => commands::global::list(&admin, *json, out),
                EdgesCommand::Retire { edge_id } => commands::global::retire(&admin, edge_id, out),
                EdgesCommand::Accept { edge_id } => commands::global::accept(&admin, edge_id, out),
            }))
        }
        Command::Token(args) => token(args),
        Command::Backup(args) => {
            Ok(ended(commands::global::backup(&args.admin.admin(), &args.to, &mut std::io::stdout().lock())))
        }
        Command::Restore(args) => {
            Ok(ended(commands::global::restore(&args.from, &args.data_dir(), &mut std::io::stdout().lock())))
        }
        Command::Audit(args) => {
            let dir = args.log.data_dir()?;
            Ok(ended(commands::audit::run(&dir, args.json, &mut std::io::stdout().lock())))
        }
    }
}

fn check(args: &CheckArgs, machine: &Machine) -> Result<Exit, UsageError> {
    let role = args.role.role();
    let loaded = loaded(&args.settings, role, machine)?;
    if let Err(failure) = queries::check(&loaded.config) {
        say::error(failure.text);
        return Ok(failure.exit);
    }
    Ok(commands::check::run(&loaded, role, machine, args.json))
}

fn token(args: &TokenArgs) -> Result<Exit, UsageError> {
    let (dir, out) = (args.data_dir()?, &mut std::io::stdout().lock());
    Ok(ended(match &args.command {
        TokenCommand::Create(args) => commands::token::create(&dir, &args.draft(), args.new, wall_ms(), out),
        TokenCommand::List { json } => commands::token::list(&dir, *json, wall_ms(), out),
        TokenCommand::Revoke { token } => commands::token::revoke(&dir, token, wall_ms(), out),
    }))
}

/// Also asks librdkafka whether it takes its properties: files that they name must be there.
fn loaded(args: &SettingArgs, role: Role, machine: &Machine) -> Result<Loaded, UsageError> {
    let loaded = args.load(role, machine)?;
    match loaded.config.export.sink {
        SinkKind::Kafka => Client::new(&loaded.config.export.kafka).map_err(|error| UsageError(error.to_string()))?,
        SinkKind::Embedded => return Ok(loaded),
    };
    Ok(loaded)
}

fn work_of(args: &ServeArgs) -> Work {
    if args.until_exported { Work::ExportAll } else { Work::Serve }
}

fn serve(args: &ServeArgs, role: Role, work: Work, machine: &Machine) -> Result<Exit, UsageError> {
    Ok(tollgate::run::run(&loaded(&args.settings, role, machine)?.config, work))
}

/// How a command on a data directory ends.
fn ended(outcome: Result<Exit, CommandError>) -> Exit {
    outcome.unwrap_or_else(|error| {
        say::error(&error);
        error.exit()
    })
}

/// One line that says what is wrong, where, the limit and the way out.
fn refuse(error: &UsageError) -> Exit {
    say::error(error);
    Exit::Usage
}
