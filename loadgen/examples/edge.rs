//! The edge for the tests of `prove`: what `tollgate serve` is, put together from the library that the binary is made of.

use std::process::exit;
use tollgate::cli::{Command, Read, read_command_line};
use tollgate::flags::Role;
use tollgate::machine::Machine;
use tollgate::run::{Work, run};

fn main() {
    let Ok(Read::Command(Command::Serve(args))) = read_command_line(std::env::args_os()) else {
        eprintln!("only `serve` with flags that there are");
        exit(64)
    };
    match args.settings.load(Role::Serve, &Machine::read()) {
        Ok(loaded) => exit(run(&loaded.config, Work::Serve).code()),
        Err(error) => {
            eprintln!("{error}");
            exit(64)
        }
    }
}
