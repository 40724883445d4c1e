//! The binary `report`: see the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::start(report::INFO, report::run)
}
