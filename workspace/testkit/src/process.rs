//! A built binary as a real process.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;

use crate::{eventually, variable};

/// What is kept of each stream; a process that writes more loses its oldest lines.
const LINES_MAX: usize = 100_000;

/// How a process is to be started. Its environment holds what the test sets and nothing of the
/// developer's own configuration; its admin server takes a free port.
#[derive(Debug)]
pub struct Launch {
    command: Command,
    name: String,
}

impl Launch {
    /// Of a program, in a test usually `env!("CARGO_BIN_EXE_fraud")`.
    pub fn new(program: impl AsRef<Path>) -> Self {
        let program = program.as_ref();
        let mut command = Command::new(program);
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in ["PATH", "HOME", "TMPDIR", "RUST_BACKTRACE"] {
            if let Some(value) = variable(name) {
                command.env(name, value);
            }
        }
        command
            .env("ORDERFLOW__ADMIN__LISTEN", "127.0.0.1:0")
            .kill_on_drop(true);
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Self { command, name }
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Keeps standard input open, see [`Running::close_stdin`].
    pub fn with_stdin(mut self) -> Self {
        self.command.stdin(Stdio::piped());
        self
    }

    /// Appends both streams to a file, which stays when the process is gone; nothing is kept in memory,
    /// and no line can be waited for.
    pub fn log_to(mut self, path: &Path) -> Self {
        let opened = File::options().create(true).append(true).open(path);
        let cloned = opened.and_then(|file| Ok((file.try_clone()?, file)));
        let (stdout, stderr) =
            cloned.unwrap_or_else(|error| panic!("`{}` can not be written to: {error}", path.display()));
        self.command.stdout(stdout).stderr(stderr);
        self
    }

    /// Starts the process.
    pub fn start(mut self) -> Running {
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("`{}` can not be started: {error}", self.name));
        let stdout = child.stdout.take().map_or_else(Stream::none, Stream::of);
        let stderr = child.stderr.take().map_or_else(Stream::none, Stream::of);
        Running {
            name: self.name,
            stdin: child.stdin.take(),
            child,
            stdout,
            stderr,
        }
    }

    /// Runs the process to its end.
    pub async fn run(self, deadline: Duration) -> Ended {
        self.start().wait(deadline).await
    }
}

/// A process that was started. It is killed with this value, if it has not ended.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Stream,
    stderr: Stream,
}

/// How a process ended, and what it wrote.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ended {
    /// The exit code, `None` after a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl Running {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child
            .id()
            .unwrap_or_else(|| panic!("`{}` has ended", self.name))
    }

    /// Waits for a line that contains `text`, on either stream, and returns it.
    pub async fn wait_for_line(&self, text: &str, deadline: Duration) -> String {
        eventually(deadline, || async {
            self.stderr
                .find(text)
                .or_else(|| self.stdout.find(text))
                .ok_or_else(|| {
                    let lines = self.stderr.last_lines(20);
                    format!(
                        "`{}` has no line with `{text}`, the last ones are:\n{lines}",
                        self.name
                    )
                })
        })
        .await
    }

    /// The address of its admin server, from its line "started".
    pub async fn admin_address(&self, deadline: Duration) -> String {
        let line = self.wait_for_line("admin=", deadline).await;
        let address = line
            .split("admin=")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next());
        address
            .unwrap_or_else(|| panic!("no admin address in `{line}`"))
            .to_owned()
    }

    /// Waits until `/ready` answers 200, and returns the address of the admin server.
    pub async fn wait_ready(&self, deadline: Duration) -> String {
        let address = self.admin_address(deadline).await;
        eventually(deadline, || async {
            let (status, body) = get(&format!("http://{address}/ready")).await?;
            if status == 200 { Ok(()) } else { Err(body) }
        })
        .await;
        address
    }

    /// Asks it to shut down (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Sends any signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id is valid");
        // It may have ended on its own just now, which the test sees when it waits.
        let _sent = kill_process(id, signal);
    }

    /// How it ended, `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let asked = self.child.try_wait();
        asked.unwrap_or_else(|error| panic!("`{}` can not be asked for: {error}", self.name))
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        drop(self.stdin.take());
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits for its end, and kills it when the deadline passes.
    ///
    /// # Panics
    /// When the deadline has passed, with what it wrote last.
    pub async fn wait(mut self, deadline: Duration) -> Ended {
        let Ok(status) = tokio::time::timeout(deadline, self.child.wait()).await else {
            let lines = self.stderr.last_lines(40);
            panic!(
                "`{}` did not end within {deadline:?}, its last lines are:\n{lines}",
                self.name
            );
        };
        let status = status.unwrap_or_else(|error| panic!("`{}` can not be waited for: {error}", self.name));
        Ended {
            status,
            stdout: self.stdout.finish().await,
            stderr: self.stderr.finish().await,
        }
    }
}

/// The lines of a stream, read as they come so that the process never waits for its reader.
#[derive(Debug)]
struct Stream {
    lines: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
}

impl Stream {
    /// Of a process that writes to a file.
    fn none() -> Self {
        Self::of(tokio::io::empty())
    }

    fn of(source: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let reader = tokio::spawn(async move {
            let mut source = BufReader::new(source).lines();
            while let Ok(Some(line)) = source.next_line().await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == LINES_MAX {
                    kept.drain(..LINES_MAX / 2);
                }
                kept.push(line);
            }
        });
        Self { lines, reader }
    }

    fn with<T>(&self, look: impl FnOnce(&[String]) -> T) -> T {
        look(&self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn find(&self, text: &str) -> Option<String> {
        self.with(|lines| lines.iter().find(|line| line.contains(text)).cloned())
    }

    fn last_lines(&self, count: usize) -> String {
        self.with(|lines| {
            let last: Vec<&str> = lines
                .iter()
                .skip(lines.len().saturating_sub(count))
                .map(String::as_str)
                .collect();
            last.join("\n")
        })
    }

    fn text(&self) -> String {
        self.with(|lines| lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect())
    }

    async fn finish(&mut self) -> String {
        let read = (&mut self.reader).await;
        read.expect("the reader does not panic");
        self.text()
    }
}

/// Status and body of a GET.
///
/// # Errors
/// What the client says when no answer comes.
pub async fn get(url: &str) -> Result<(u16, String), String> {
    let answer = async {
        let response = crate::fetch(url).await?;
        let status = response.status().as_u16();
        Ok((status, response.text().await?))
    };
    answer
        .await
        .map_err(|error: reqwest::Error| format!("{url}: {error}"))
}
