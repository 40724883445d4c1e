//! The binary `producer`: see the library of the same name.

use std::process::ExitCode;

use clap::Parser;
use producer::cli::Cli;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nowhere to report that standard output is closed.
            let _printed = error.print();
            // A wrong command line is a wrong configuration: 64, where clap would take 2.
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let info = producer::info(&cli.command);
    let flags = cli.command.flags();
    service::launch(info, &cli.common, &flags, |config, process| {
        producer::run(config, cli.command, process)
    })
}
