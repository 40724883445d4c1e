//! Runs a broker until Ctrl-C: `cargo run -p devbroker --example serve -- 127.0.0.1:9092 [data folder]`.

use devbroker::{Broker, DataOptions, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let listen = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:9092".to_owned())
        .parse()?;
    let broker = Broker::start(Options {
        listen,
        data: arguments.next().map(DataOptions::new),
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
