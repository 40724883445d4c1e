//! The binary `fraud`.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::start(fraud::INFO, fraud::run)
}
