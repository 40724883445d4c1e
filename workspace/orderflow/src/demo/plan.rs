//! Ports, folders and addresses of one run.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use service::{Exit, Process};
use stream::KafkaSettings;
use tempfile::TempDir;

use crate::cli::DemoArgs;
use crate::demo::children::Children;

/// How many ports after the wanted one are tried.
const PORTS_TRIED: u16 = 100;
const PAGE_LIMIT: Duration = Duration::from_secs(60);

/// Where everything of one run is.
pub struct Plan {
    /// Documents and logs.
    pub folder: PathBuf,
    /// The page and its API.
    pub page: SocketAddr,
    /// What this run's documents count as: higher than those of every earlier run, because the offsets
    /// of an embedded broker start at 0 again.
    pub generation: u64,
    /// Removes the folder at the end, where nobody asked to keep it.
    _temporary: Option<TempDir>,
}

/// The first free loopback port from `wanted` on.
pub fn free_port(wanted: u16) -> Option<SocketAddr> {
    let ports = wanted..=wanted.saturating_add(PORTS_TRIED);
    ports
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find_map(|address| {
            // Port 0 finds a free one at once; the listener is closed again for the one who really wants it.
            TcpListener::bind(address).ok()?.local_addr().ok()
        })
}

impl Plan {
    /// Makes the folder and finds a port for the page.
    pub fn new(args: &DemoArgs) -> Result<Self, Exit> {
        let not_a_folder = |error: std::io::Error| Exit::unavailable(format!("`--data`: {error}"));
        let (folder, temporary) = match &args.data {
            Some(folder) => {
                std::fs::create_dir_all(folder.join("logs")).map_err(not_a_folder)?;
                // Children run in the same folder, but a path that is whole is clearer in their logs.
                (folder.canonicalize().map_err(not_a_folder)?, None)
            }
            None => {
                let temporary = TempDir::with_prefix("orderflow-demo-").map_err(not_a_folder)?;
                std::fs::create_dir_all(temporary.path().join("logs")).map_err(not_a_folder)?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        if let Some(file) = &args.orders
            && !file.exists()
        {
            return Err(Exit::config(format!(
                "`--orders {}`: there is no such file; give the path of a CSV or NDJSON file, plain or zstd",
                file.display()
            )));
        }
        let page = free_port(args.port).ok_or_else(|| {
            Exit::unavailable(format!(
                "no free port from {} on; give another one with `--port`",
                args.port
            ))
        })?;
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Self {
            folder,
            page,
            generation: now.as_secs(),
            _temporary: temporary,
        })
    }

    /// The document store.
    pub fn store(&self) -> docstore::StoreSettings {
        let mut store = docstore::StoreSettings::default();
        store.sqlite.path = self.folder.join("orderflow.db");
        store
    }

    /// Where the producer writes what it did.
    pub fn producer_report(&self) -> PathBuf {
        self.folder.join("producer-report.json")
    }

    /// Waits until the report answers.
    pub async fn wait_for_page(
        &mut self,
        children: &mut Children,
        kafka: &KafkaSettings,
        process: &Process,
    ) -> Result<(), Exit> {
        let started = Instant::now();
        // Its own word, not an open port: another demo's page may answer there.
        while !children.log_of("report").contains("report serves the page") {
            if let Err(exit) = children.check() {
                let taken = children.log_of("report").contains("can not listen on");
                let next = self.page.port().checked_add(1).and_then(free_port);
                match next {
                    // Somebody was faster: the next free port then.
                    Some(page) if taken => {
                        self.page = page;
                        children.restart_report(self, kafka)?;
                    }
                    _ => return Err(children.explain(exit)),
                }
            }
            if started.elapsed() > PAGE_LIMIT {
                return Err(children.explain(Exit::failed(format!(
                    "the page at http://{} does not come up",
                    self.page
                ))));
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
                () = process.shutdown.requested() => return Err(Exit::failed("stopped before it began")),
            }
        }
        Ok(())
    }

    /// Says where to look.
    pub fn greet(&self, kafka: &KafkaSettings, embedded: bool) {
        let brokers = &kafka.brokers;
        let broker = if embedded {
            "embedded broker, in memory, for development only"
        } else {
            "your Kafka"
        };
        eprintln!("orderflow demo");
        eprintln!("  page    http://{}", self.page);
        eprintln!("  kafka   {brokers} ({broker})");
        eprintln!("          kcat -b {brokers} -C -t payments -o beginning -e");
        eprintln!("  data    {}", self.folder.display());
        eprintln!("  stop    Ctrl-C");
    }
}
