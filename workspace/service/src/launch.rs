//! From the command line to an exit code.

use std::future::Future;
use std::io::Read;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, FromArgMatches};
use prometheus::Registry;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, AdminState};
use crate::config::{Environment, Flag, Loaded, Settings, load};
use crate::exit::Exit;
use crate::health::Health;
use crate::metrics::ShellMetrics;
use crate::settings::{AdminListen, ShellSettings};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// How long `run` may still explain itself after one of its components died.
const DEATH_GRACE: Duration = Duration::from_secs(5);
/// The reason of a shutdown because of that.
const DEATH_REASON: &str = "a component died";
/// How long blocking work may hold up the end of the process once `run` has returned.
const RUNTIME_SHUTDOWN: Duration = Duration::from_secs(2);

/// What a binary is.
#[derive(Clone, Copy, Debug)]
pub struct ServiceInfo {
    /// The service's name, `fraud`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Port of the admin server on loopback when `admin.listen` is not set. 0 means no server in
    /// that case, for commands that come and go.
    pub admin_port: u16,
}

/// The arguments that every process understands. Binaries with subcommands flatten them into their
/// own and call [`launch`].
#[derive(Args, Clone, Debug, Default)]
pub struct CommonArgs {
    /// TOML file with the configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration, say what is wrong with it, and exit
    #[arg(long)]
    pub check_config: bool,
    /// Shut down when standard input ends: a child process ends with its parent
    #[arg(long, hide = true)]
    pub exit_with_stdin: bool,
}

/// What a running process has from its shell. Clones share everything.
#[derive(Clone, Debug)]
pub struct Process {
    /// Who this is.
    pub info: ServiceInfo,
    /// The name of this instance, `service.instance`.
    pub instance: String,
    /// The one signal to stop.
    pub shutdown: Shutdown,
    /// Which components live, and whether the process is ready.
    pub health: Health,
    /// What `/metrics` shows.
    pub metrics: Registry,
    /// Where the admin server listens, `None` when it is off.
    pub admin_address: Option<SocketAddr>,
}

impl Process {
    /// A process without signals and without an admin server, for tests of a `run` function.
    pub fn detached(info: ServiceInfo) -> Self {
        let shutdown = Shutdown::new();
        Self {
            info,
            instance: format!("{}-detached", info.name),
            shutdown: shutdown.clone(),
            health: Health::new(shutdown),
            metrics: Registry::new(),
            admin_address: None,
        }
    }
}

/// Runs a binary that has only the common arguments: parses them and calls [`launch`].
pub fn start<C, F, Fut>(info: ServiceInfo, run: F) -> ExitCode
where
    C: Settings,
    F: FnOnce(C, Process) -> Fut,
    Fut: Future<Output = Result<(), Exit>>,
{
    let command = clap::Command::new(info.name).version(info.version);
    let parsed = CommonArgs::augment_args(command)
        .try_get_matches()
        .and_then(|matches| CommonArgs::from_arg_matches(&matches));
    match parsed {
        Ok(args) => launch(info, &args, &[], run),
        Err(error) => usage(&error),
    }
}

/// Prints what clap has to say. A wrong command line is a wrong configuration: 64, where clap
/// would take 2.
fn usage(error: &clap::Error) -> ExitCode {
    // Nowhere to report that standard output is closed.
    let _printed = error.print();
    if error.use_stderr() {
        ExitCode::from(64)
    } else {
        ExitCode::SUCCESS
    }
}

/// Loads the settings, sets up telemetry, admin server and signals, runs `run` to its end, and says
/// how it went. `flags` are values from the binary's own command line.
pub fn launch<C, F, Fut>(info: ServiceInfo, args: &CommonArgs, flags: &[Flag], run: F) -> ExitCode
where
    C: Settings,
    F: FnOnce(C, Process) -> Fut,
    Fut: Future<Output = Result<(), Exit>>,
{
    let loaded = match load::<C>(args.config.as_deref(), &Environment::of_process(), flags) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{}: {error}", info.name);
            return ExitCode::from(Exit::from(error).code());
        }
    };
    if args.check_config {
        println!("config ok");
        return ExitCode::SUCCESS;
    }
    telemetry::init(&loaded.shell.log);
    match run_to_end(info, args, loaded, run) {
        Ok(()) => {
            tracing::info!(service = info.name, "ended");
            ExitCode::SUCCESS
        }
        Err(exit) => {
            tracing::error!(service = info.name, exit_code = exit.code(), error = %exit, "ended");
            ExitCode::from(exit.code())
        }
    }
}

fn run_to_end<C, F, Fut>(info: ServiceInfo, args: &CommonArgs, loaded: Loaded<C>, run: F) -> Result<(), Exit>
where
    F: FnOnce(C, Process) -> Fut,
    Fut: Future<Output = Result<(), Exit>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name(info.name)
        .build()
        .map_err(|error| Exit::bug(format!("the runtime can not start: {error}")))?;
    let whole = async {
        let process = open(info, &loaded.shell, args.exit_with_stdin).await?;
        supervise(&loaded.shell, &process, run(loaded.settings, process.clone())).await
    };
    // A panic of `run` is a defect with an exit code of its own; its text went to the log.
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(whole)));
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    result.unwrap_or_else(|_| Err(Exit::bug("a defect stopped the process, see the panic above")))
}

/// Signals, metrics and admin server, in place before anything else runs.
async fn open(info: ServiceInfo, shell: &ShellSettings, is_child: bool) -> Result<Process, Exit> {
    let mut process = Process {
        instance: shell.service.instance(),
        ..Process::detached(info)
    };
    handle_signals(info.name, process.shutdown.clone(), is_child)?;
    if is_child {
        shut_down_when_stdin_ends(process.shutdown.clone());
    }
    let metrics = ShellMetrics::register(&process.metrics, &info)
        .map_err(|error| Exit::bug(format!("the metrics can not be registered: {error}")))?;
    if let AdminListen::At(address) = shell.admin.address(info.admin_port) {
        let listener = admin::bind(address).await?;
        process.admin_address = listener.local_addr().ok();
        let state = AdminState {
            health: process.health.clone(),
            shutdown: process.shutdown.clone(),
            registry: process.metrics.clone(),
            metrics,
        };
        tokio::spawn(admin::serve(listener, state));
    }
    tracing::info!(
        service = info.name,
        version = info.version,
        instance = process.instance,
        admin = process.admin_address.map(tracing::field::display),
        "started"
    );
    Ok(process)
}

/// Runs `run` to its end, unless a component dies or the shutdown takes too long.
async fn supervise(
    shell: &ShellSettings,
    process: &Process,
    run: impl Future<Output = Result<(), Exit>>,
) -> Result<(), Exit> {
    let limit = shell.service.shutdown_timeout();
    let overdue = async {
        process.shutdown.requested().await;
        tokio::time::sleep(limit).await;
    };
    let death = async {
        let sentence = tokio::select! {
            died = process.health.death() => died,
            hangs = process.health.hang() => hangs,
        };
        tracing::error!(error = sentence, "a component is of no use any more");
        process.shutdown.request(DEATH_REASON);
        tokio::time::sleep(DEATH_GRACE).await;
        sentence
    };
    tokio::select! {
        // The result of `run` says more than what the others saw of it.
        biased;
        result = run => match process.shutdown.reason().as_deref() {
            Some(DEATH_REASON) if result.is_ok() => Err(Exit::bug(process.health.stale().join("; "))),
            _ => result,
        },
        sentence = death => Err(Exit::bug(sentence)),
        () = overdue => Err(Exit::bug(format!(
            "the shutdown did not finish within {} ms (`service.shutdown_timeout_ms`)", limit.as_millis()
        ))),
    }
}

/// SIGTERM and SIGINT request the shutdown, the second signal ends the process at once. In a child,
/// SIGINT does nothing: a terminal sends it to the whole group, and the parent decides who stops when.
fn handle_signals(name: &'static str, shutdown: Shutdown, is_child: bool) -> Result<(), Exit> {
    let listen =
        |kind| signal(kind).map_err(|error| Exit::bug(format!("signals can not be handled: {error}")));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let mut is_second = false;
        loop {
            let (text, number) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", SignalKind::terminate().as_raw_value()),
                _ = interrupt.recv() => ("SIGINT", SignalKind::interrupt().as_raw_value()),
            };
            if is_child && text == "SIGINT" {
                tracing::info!("SIGINT is left to the parent process");
                continue;
            }
            if is_second {
                eprintln!("{name}: {text} during the shutdown, ending at once");
                // What a shell reports for a process that a signal ended.
                std::process::exit(128 + number);
            }
            is_second = true;
            shutdown.request(text);
        }
    });
    Ok(())
}

/// A thread of its own: reading standard input can not be cancelled, and it ends with the process.
fn shut_down_when_stdin_ends(shutdown: Shutdown) {
    std::thread::spawn(move || {
        let mut buffer = [0_u8; 1024];
        while matches!(std::io::stdin().read(&mut buffer), Ok(count) if count > 0) {}
        shutdown.request("standard input ended");
    });
}
