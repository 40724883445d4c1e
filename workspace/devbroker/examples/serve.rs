//! Runs a broker on the given address until Ctrl-C: `cargo run -p devbroker --example serve -- 127.0.0.1:9092`.

use devbroker::{Broker, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let listen = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:9092".to_owned())
        .parse()?;
    let broker = Broker::start(Options {
        listen,
        auto_create_topics: true,
        ..Options::default()
    })
    .await?;
    println!("listening on {}", broker.address());
    tokio::signal::ctrl_c().await?;
    println!("{:#?}", broker.stats());
    broker.stop().await;
    Ok(())
}
