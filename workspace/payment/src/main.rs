//! The binary `payment`.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::start(payment::INFO, payment::run)
}
