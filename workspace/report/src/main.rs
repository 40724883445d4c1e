//! The binary `report`: see the library of the same name.

use std::process::ExitCode;

use service::ServiceInfo;

fn main() -> ExitCode {
    let info = ServiceInfo {
        name: "report",
        version: env!("CARGO_PKG_VERSION"),
        admin_port: 9465,
    };
    service::start(info, report::run)
}
