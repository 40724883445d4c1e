//! The binary `analytics`.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::start(analytics::INFO, analytics::run)
}
