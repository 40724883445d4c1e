//! The binary `chaos`, see `scripts/chaos`.

use std::process::ExitCode;

use chaos::cli::Cli;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nowhere to report that the terminal is gone.
            let _printed = error.print().is_ok();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    // Whoever is told to stop takes along what it started.
    let result = tokio::select! {
        result = chaos::suite::run_all(&cli) => result,
        () = told_to_stop() => Err(anyhow::anyhow!("told to stop")),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn told_to_stop() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
}
