//! The fake gateway as a process of its own, for tests that kill processes. It says where it listens in
//! its first line, and `GET /charges` lists its ledger, one JSON object per line.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use testkit::{FakeGateway, GatewayFaults};

/// A payment gateway with faults, for tests
#[derive(Parser, Debug)]
struct Arguments {
    /// Where to listen; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What goes wrong follows from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How long a charge takes
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// How long a slow one takes
    #[arg(long, default_value_t = 1_000)]
    slow_delay_ms: u64,
    /// What `Retry-After` says
    #[arg(long, default_value_t = 1)]
    retry_after_seconds: u64,
    /// Share of the orders that are declined, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    declined: f64,
    /// Share of the requests that are charged and whose answer is lost
    #[arg(long, default_value_t = 0.0)]
    lost: f64,
    /// Share of the requests that are slow
    #[arg(long, default_value_t = 0.0)]
    slow: f64,
    /// Share of the requests that get 500 and charge nothing
    #[arg(long, default_value_t = 0.0)]
    failed: f64,
    /// Share of the requests that get 429 and charge nothing
    #[arg(long, default_value_t = 0.0)]
    throttled: f64,
    /// Goes down again and again after so long; 0 is never
    #[arg(long, default_value_t = 0)]
    down_every_ms: u64,
    /// How long it is down then
    #[arg(long, default_value_t = 1_000)]
    down_for_ms: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let faults = GatewayFaults {
        seed: arguments.seed,
        delay: Duration::from_millis(arguments.delay_ms),
        slow_delay: Duration::from_millis(arguments.slow_delay_ms),
        retry_after_seconds: arguments.retry_after_seconds,
        declined: arguments.declined,
        lost: arguments.lost,
        slow: arguments.slow,
        failed: arguments.failed,
        throttled: arguments.throttled,
    };
    let gateway = match FakeGateway::listen(arguments.listen, faults).await {
        Ok(gateway) => gateway,
        Err(error) => {
            eprintln!("fake_gateway: `{}`: {error}", arguments.listen);
            return ExitCode::FAILURE;
        }
    };
    println!("listening on {}", gateway.address());
    // It ends when it is killed.
    loop {
        if arguments.down_every_ms == 0 {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(arguments.down_every_ms)).await;
        gateway.go_down();
        tokio::time::sleep(Duration::from_millis(arguments.down_for_ms)).await;
        gateway.come_up();
    }
}
