//! One service, as the demo starts it: the same library as behind its own binary.

use std::process::ExitCode;

use service::launch;

use crate::cli::{ProducerArgs, RunCommand};

/// Runs a service to its end.
pub fn main(command: RunCommand) -> ExitCode {
    match command {
        RunCommand::Fraud(args) => launch(fraud::INFO, &args, &[], fraud::run),
        RunCommand::Payment(args) => launch(payment::INFO, &args, &[], payment::run),
        RunCommand::Analytics(args) => launch(analytics::INFO, &args, &[], analytics::run),
        RunCommand::Report(args) => launch(report::INFO, &args, &[], report::run),
        RunCommand::Producer(args) => {
            let ProducerArgs { common, command } = *args;
            let (info, flags) = (producer::info(&command), command.flags());
            launch(info, &common, &flags, |config, process| {
                producer::run(config, command, process)
            })
        }
    }
}
