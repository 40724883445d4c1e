//! The binary `orderflow`.

use std::process::ExitCode;

use clap::Parser;
use orderflow::cli::{BrakeCommand, Cli, Command, TopicsCommand};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return orderflow::cli::usage(&error),
    };
    match cli.command {
        Command::Demo(args) => orderflow::demo::main(args),
        Command::Broker(args) => orderflow::broker::main(args),
        Command::Run(service) => orderflow::run::main(service),
        Command::Topics(TopicsCommand::Apply(args)) => orderflow::topics::main(args),
        Command::Brake(BrakeCommand::Show(args)) => orderflow::brake::show(args),
        Command::Brake(BrakeCommand::Release(args)) => orderflow::brake::release(args),
        Command::Dlq(command) => orderflow::dlq::main(command),
        Command::Verify(args) => orderflow::verify::main(args),
    }
}
