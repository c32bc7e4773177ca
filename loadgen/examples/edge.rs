//! The edge for the tests of `prove`: what `tollgate serve` and `tollgate token create` are, put together from the library that the
//! binary is made of.

use std::process::exit;
use tollgate::cli::{Command, Read, ServeArgs, TokenArgs, TokenCommand, read_command_line};
use tollgate::commands::token::create;
use tollgate::flags::Role;
use tollgate::machine::Machine;
use tollgate::run::{Work, run};

fn main() {
    match read_command_line(std::env::args_os()) {
        Ok(Read::Command(Command::Serve(args))) => serve(&args),
        Ok(Read::Command(Command::Token(args))) => make_token(&args),
        _ => {
            eprintln!("only `serve` and `token create`, with flags that there are");
            exit(64)
        }
    }
}

fn serve(args: &ServeArgs) {
    match args.settings.load(Role::Serve, &Machine::read()) {
        Ok(loaded) => exit(run(&loaded.config, Work::Serve).code()),
        Err(error) => {
            eprintln!("{error}");
            exit(64)
        }
    }
}

fn make_token(args: &TokenArgs) {
    let (TokenCommand::Create(draft), Ok(dir)) = (&args.command, args.data_dir()) else {
        eprintln!("only `token create`, with --data-dir");
        exit(64)
    };
    match create(&dir, &draft.draft(), draft.new, tollgate::worker::wall_ms(), &mut std::io::stdout().lock()) {
        Ok(ended) => exit(ended.code()),
        Err(error) => {
            eprintln!("{error}");
            exit(error.exit().code())
        }
    }
}
