//! The shell of every orderflow process: configuration, telemetry, health, shutdown, exit codes.
//!
//! Guarantees:
//! * a bad configuration ends with code 64 and every problem at once, before any socket opens;
//! * SIGTERM and SIGINT take one path, [`Shutdown`], which is bounded in time; a second signal ends
//!   the process at once;
//! * a component that dies without saying so ends the process ([`Health`]);
//! * the exit code tells an orchestrator what to do next ([`Exit`]).
//!
//! Binaries call [`start`] (or [`launch`] when they have subcommands of their own) and get their
//! settings and a [`Process`]. Nothing here knows Kafka, a store or an order.
//!
//! * [`config`] loads and checks settings from defaults, file, environment and flags,
//! * [`settings`] holds the sections that every process has,
//! * `launch` turns settings into a running process and its result into an exit code,
//! * `shutdown` is the one signal to stop,
//! * `health` knows which components live and whether the process is ready,
//! * `admin` serves `/live`, `/ready` and `/metrics`,
//! * `telemetry` sets up logging,
//! * [`metrics`] names what the shell itself measures,
//! * `clock` is the wall clock,
//! * `throttle` keeps a repeated log line from flooding,
//! * `tls` says whose cryptography TLS stands on.

mod admin;
mod clock;
pub mod config;
mod exit;
mod health;
mod launch;
pub mod metrics;
pub mod settings;
mod shutdown;
mod telemetry;
mod throttle;
mod tls;

pub use clock::now_ms;
pub use config::{ConfigError, Environment, Flag, Loaded, Problems, Settings, load};
pub use exit::Exit;
pub use health::{Health, Heartbeat};
pub use launch::{CommonArgs, Process, ServiceInfo, launch, start};
pub use settings::{AdminSettings, LogFormat, LogSettings, ServiceSettings};
pub use shutdown::Shutdown;
pub use throttle::Throttle;
pub use tls::prepare_tls;
